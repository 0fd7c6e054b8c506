package actors

import (
	"context"
	"encoding/json"
	"math"
	"sync"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// meteredMachine is a running fake of a package with cores inside it and memory beside it.
func meteredMachine(t *testing.T) (tree *fakehw.Tree, counted []*fakehw.Zone) {
	t.Helper()
	tree, err := fakehw.New(t.TempDir())
	must(t, err)
	for _, z := range []struct {
		config  fakehw.ZoneConfig
		counted bool
	}{
		// This one starts again at 0 within a second.
		{fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Sine(60, 30, 700*time.Millisecond), Range: 65_712_999_613, Start: 65_712_999_613 - 50_000_000}, true},
		{fakehw.ZoneConfig{ID: "intel-rapl:0:0", Name: "core", Power: fakehw.Constant(40), Range: 262_143_328_850}, false},
		{fakehw.ZoneConfig{ID: "intel-rapl:0:1", Name: "dram", Power: fakehw.Constant(6), Range: 65_712_999_613}, true},
	} {
		zone, err := tree.AddZone(z.config)
		must(t, err)
		if z.counted {
			counted = append(counted, zone)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := tree.Run(ctx, time.Millisecond); err != nil && ctx.Err() == nil {
			t.Errorf("the fake machine: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait(); tree.Close() })
	return tree, counted
}

func (s *site) account(jobID string) energy.Account {
	s.t.Helper()
	_, raw, ok := s.master().Result(jobID)
	if !ok {
		s.t.Fatalf("no result of job %s", jobID)
	}
	var r struct {
		Analysis struct {
			Energy energy.Account `json:"energy"`
		} `json:"analyzer_output"`
	}
	must(s.t, json.Unmarshal(raw, &r))
	return r.Analysis.Energy
}

// TestAJobsJoulesAreThoseOfTheCounters: a real job on a machine of known power. The
// truth is the curve's own integral over FFmpeg's time.
func TestAJobsJoulesAreThoseOfTheCounters(t *testing.T) {
	tree, counted := meteredMachine(t)
	s := newSite(t, func(c *siteConfig) { c.sysfs = tree.Sys() })
	job := s.submit(map[string]any{"input": makeInput(t, 20), "resolution": "640x480", "preset": "ultrafast", "fps": 30})
	s.result(job.ID, 1)
	a := s.account(job.ID)
	if a.Total.Source != energy.Measured || a.Total.Energy == nil || a.Total.ErrorBound == nil || a.Total.Gaps != 0 {
		t.Fatalf("total is %+v", a.Total)
	}
	truth := 0.0
	for _, z := range counted {
		truth += z.Joules(tree.Since(a.Start), tree.Since(a.End))
	}
	got, bound := float64(*a.Total.Energy), float64(*a.Total.ErrorBound)
	t.Logf("true %.3f J, ours %.3f ± %.3f J over %s (%s)", truth, got, bound, a.Duration(), a.Total.Method)
	// The fake renews its counters when this machine schedules it; that is no fault of the meter's.
	if slack := 0.02 * truth; math.Abs(got-truth) > bound+slack {
		t.Errorf("off by %.3f J", got-truth)
	}
}

// TestACrashedMeterOrSamplerCostsCoverageAndNotTheJob: the window goes on with a new
// meter, and the figure says what was missed.
func TestACrashedMeterOrSamplerCostsCoverageAndNotTheJob(t *testing.T) {
	for _, path := range []string{"agent/meter", "agent/samplers/rapl", "agent/samplers"} {
		t.Run(path, func(t *testing.T) {
			tree, _ := meteredMachine(t)
			s := newSite(t, func(c *siteConfig) { c.sysfs = tree.Sys() })
			job := s.submit(long(t))
			s.ffmpegPID(job.ID)
			must(t, s.agent.Crash(path))
			s.until("the restart", func() bool { stats, _ := s.stats(path); return stats.Restarts == 1 })
			s.until("the job's energy in the snapshot", func() bool {
				snapshot := s.agent.Board().Energy()
				return snapshot != nil && len(snapshot.Jobs) == 1 && snapshot.Jobs[0].Energy != nil
			})
			s.post("/jobs/" + job.ID + "/cancel")
			s.result(job.ID, 1)
			a := s.account(job.ID)
			if a.Total.Source != energy.Measured || a.Total.Energy == nil || a.Total.CoveragePercent >= 100 && a.Total.Gaps == 0 && path == "agent/meter" {
				t.Errorf("total is %+v", a.Total)
			}
		})
	}
}

func TestTicksStayOnTheirGrid(t *testing.T) {
	start := time.Unix(1000, 0)
	const interval = 100 * time.Millisecond
	for _, test := range []struct {
		name      string
		now, want time.Duration
	}{
		{"on time", 1 * time.Millisecond, 100 * time.Millisecond},
		{"late", 99 * time.Millisecond, 100 * time.Millisecond},
		{"one left out", 130 * time.Millisecond, 200 * time.Millisecond},
		{"many left out", 10*time.Second + time.Millisecond, 10*time.Second + 100*time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := nextTick(start, start.Add(test.now), interval); !got.Equal(start.Add(test.want)) {
				t.Errorf("next tick after %s, want %s", got.Sub(start), test.want)
			}
		})
	}
}
