package actors

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/messages/job"

	"go.uber.org/zap"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/internal/ffmpegtest"
)

// meteredMachine runs a fake machine with one package, its cores, and separate dram.
func meteredMachine(t *testing.T) (tree *fakehw.Tree, counted []*fakehw.Zone) {
	t.Helper()
	tree, err := fakehw.New(t.TempDir())
	must(t, err)
	for _, z := range []struct {
		config  fakehw.ZoneConfig
		counted bool
	}{
		// Wraps within a second.
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

// TestJoulesOfAJobMatchTheCounters runs a real job on a machine of known power. The truth
// is the integral of the power curve from FFmpeg's start to its exit.
func TestJoulesOfAJobMatchTheCounters(t *testing.T) {
	tree, counted := meteredMachine(t)
	s := newSite(t, func(c *siteConfig) { c.sysfs = tree.Sys() })
	submitted := s.submit(map[string]any{"input": ffmpegtest.Video(t.TempDir(), 20), "resolution": "640x480", "preset": "ultrafast", "fps": 30})
	s.result(submitted.ID, 1)
	a := s.account(submitted.ID)
	if a.Total.Source != energy.Measured || a.Total.Energy == nil || a.Total.ErrorBound == nil || a.Total.Gaps != 0 {
		t.Fatalf("total is %+v", a.Total)
	}
	truth := 0.0
	for _, z := range counted {
		truth += z.Joules(tree.Since(a.Start), tree.Since(a.End))
	}
	got, bound := float64(*a.Total.Energy), float64(*a.Total.ErrorBound)
	t.Logf("true %.3f J, ours %.3f ± %.3f J over %s (%s)", truth, got, bound, a.Duration(), a.Total.Method)
	// The fake updates its counters late on a busy machine, which is not an error of the meter.
	if slack := 0.02 * truth; math.Abs(got-truth) > bound+slack {
		t.Errorf("off by %.3f J", got-truth)
	}
}

// TestFetchJoulesAreApartFromTheEncode: the truth is that of the window which the account
// names, and the windows do not overlap.
func TestFetchJoulesAreApartFromTheEncode(t *testing.T) {
	tree, counted := meteredMachine(t)
	s := newSite(t, func(c *siteConfig) { c.sysfs = tree.Sys() })
	film, err := os.ReadFile(ffmpegtest.Video(t.TempDir(), 20))
	must(t, err)
	const parts = 8
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(film)))
		for i := range parts { // takes about a second
			_, _ = w.Write(film[i*len(film)/parts : (i+1)*len(film)/parts])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(time.Second / parts)
		}
	}))
	t.Cleanup(server.Close)
	submitted := s.submit(map[string]any{"input": server.URL + "/film.mp4", "resolution": "640x480", "preset": "ultrafast", "fps": 30})
	s.result(submitted.ID, 1)
	_, raw, _ := s.master().Result(submitted.ID)
	var r struct {
		Metrics  map[string]any `json:"metrics"`
		Analysis struct {
			Encode energy.Account `json:"energy"`
			Fetch  energy.Account `json:"fetch_energy"`
		} `json:"analyzer_output"`
	}
	must(t, json.Unmarshal(raw, &r))
	encode, fetch := r.Analysis.Encode, r.Analysis.Fetch
	if fetch.Total.Energy == nil || fetch.Total.ErrorBound == nil || encode.Total.Energy == nil || fetch.End.After(encode.Start) || fetch.Duration() < time.Second/2 {
		t.Fatalf("fetch from %s to %s: %+v; encode from %s: %+v", fetch.Start, fetch.End, fetch.Total, encode.Start, encode.Total)
	}
	truth := 0.0
	for _, z := range counted {
		truth += z.Joules(tree.Since(fetch.Start), tree.Since(fetch.End))
	}
	got, bound := float64(*fetch.Total.Energy), float64(*fetch.Total.ErrorBound)
	t.Logf("true %.3f J, ours %.3f ± %.3f J over %s", truth, got, bound, fetch.Duration())
	if slack := 0.02 * truth; math.Abs(got-truth) > bound+slack {
		t.Errorf("off by %.3f J", got-truth)
	}
	if joules, _ := r.Metrics["fetch_joules"].(float64); math.Abs(joules-got) > 1e-5 || r.Metrics["fetch_energy_source"] != "measured" {
		t.Errorf("fetch_joules is %v (%v), want %v", r.Metrics["fetch_joules"], r.Metrics["fetch_energy_source"], got)
	}
}

// TestCrashOfMeterCostsCoverageOnly: the window goes on with a new meter, and the account
// shows what was missed.
func TestCrashOfMeterCostsCoverageOnly(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"agent/meter", "agent/samplers/rapl", "agent/samplers"} {
		t.Run(path, func(t *testing.T) {
			tree, _ := meteredMachine(t)
			s := newSite(t, func(c *siteConfig) { c.sysfs = tree.Sys() })
			submitted := s.submit(ffmpegtest.Long())
			s.ffmpegPID(submitted.ID)
			must(t, s.agent.Crash(path))
			s.until("the restart", func() bool { stats, _ := s.stats(path); return stats.Restarts == 1 })
			s.until("the job's energy in the snapshot", func() bool {
				snapshot := s.agent.Snapshots().Energy()
				return snapshot != nil && len(snapshot.Jobs) == 1 && snapshot.Jobs[0].Energy != nil
			})
			s.post("/jobs/" + submitted.ID + "/cancel")
			s.result(submitted.ID, 1)
			a := s.account(submitted.ID)
			if a.Total.Source != energy.Measured || a.Total.Energy == nil || a.Total.CoveragePercent >= 100 && a.Total.Gaps == 0 && path == "agent/meter" {
				t.Errorf("total is %+v", a.Total)
			}
		})
	}
}

func TestTicksAreMultiplesOfTheInterval(t *testing.T) {
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

// TestEnergyIsSplitAndItsCurveKept: once an idle baseline is learned, a job's energy is split
// into idle and net, and its power over time is in the journal with its phases.
func TestEnergyIsSplitAndItsCurveKept(t *testing.T) {
	const idle = 66 // W of the counted zones: the machine does not care for jobs
	tree, _ := meteredMachine(t)
	s := newSite(t, func(c *siteConfig) {
		c.sysfs = tree.Sys()
		c.wrap = func(p *Dependencies) {
			// Other processes of this machine must not keep it from being idle.
			began := time.Now()
			p.CPUUse = func() (busy, capacity time.Duration, err error) { return 0, time.Since(began), nil }
		}
	})
	s.until("a baseline", func() bool {
		snapshot := s.agent.Snapshots().Energy()
		return snapshot != nil && snapshot.Baseline != nil
	})
	submitted := s.submit(map[string]any{"resolution": "640x480", "preset": "ultrafast", "fps": 30, "duration": 5, "quality": "psnr"})
	s.result(submitted.ID, 1)
	a := s.account(submitted.ID)
	if a.Baseline == nil || a.Net.Energy == nil {
		t.Fatalf("baseline %+v, net %+v", a.Baseline, a.Net)
	}
	if got := float64(a.Baseline.Power); math.Abs(got-idle) > 15 {
		t.Errorf("baseline of %v W on a machine of %v W", got, idle)
	}
	if sum := *a.Idle.Energy + *a.Net.Energy; math.Abs(float64(sum-*a.Total.Energy)) > 2e-6 {
		t.Errorf("idle %v + net %v are not %v", *a.Idle.Energy, *a.Net.Energy, *a.Total.Energy)
	}

	records, err := s.journal.Find(submitted.ID)
	must(t, err)
	samples := records[0].Samples
	if samples == nil {
		t.Fatal("no samples")
	}
	var phases []job.Phase
	for _, p := range samples.Phases {
		phases = append(phases, p.Phase)
		if p.To.Before(p.From) {
			t.Errorf("phase %+v", p)
		}
	}
	if !slices.Equal(phases, []job.Phase{job.PhasePrepare, job.PhaseRun, job.PhaseCheck, job.PhaseQuality, job.PhaseJournal}) {
		t.Errorf("phases %v", phases)
	}
	if !samples.Curve.Start.Before(a.Start) || len(samples.Curve.Zones) != 3 || len(samples.Curve.Points) < 2 {
		t.Errorf("curve from %v with %d zones and %d points; the window begins at %v",
			samples.Curve.Start, len(samples.Curve.Zones), len(samples.Curve.Points), a.Start)
	}
	must(t, s.agent.Crash("agent/meter"))
	s.until("the baseline after a crash", func() bool {
		stats, _ := s.stats("agent/meter")
		snapshot := s.agent.Snapshots().Energy()
		return stats.Restarts == 1 && snapshot != nil && snapshot.Baseline != nil
	})
}

// TestSmallCountersAreSampledFaster: no counter wraps unnoticed, however long the configured
// interval.
func TestSmallCountersAreSampledFaster(t *testing.T) {
	zone := func(wrap energy.Microjoules, most energy.Watts) *energy.Zone {
		return &energy.Zone{Range: wrap, MaxPower: most}
	}
	for name, test := range map[string]struct {
		zones []*energy.Zone
		want  time.Duration
	}{
		"none that wraps":      {[]*energy.Zone{zone(0, 0)}, math.MaxInt64},
		"a usual one":          {[]*energy.Zone{zone(65_536e6, 0), zone(262_144e6, 0)}, 8192 * time.Millisecond},
		"one of little power":  {[]*energy.Zone{zone(65_536e6, 64)}, 256 * time.Second},
		"one that races round": {[]*energy.Zone{zone(1e6, 0)}, 5 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			if got := maxInterval(test.zones); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestAbsentSensorsAreNotAFault(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Dependencies) {
			p.OpenGPUs = func() (GPUSensors, error) { return nil, &NoSensorsError{errors.New("no library")} }
		}
	})
	s.until("the word of it", func() bool { return len(s.agent.Snapshots().Samplers()) == 2 })
	health := s.agent.Snapshots().Samplers()[0]
	if health.Name != "nvml" || health.Error != "" || health.Absent == "" {
		t.Errorf("%+v", health)
	}
	for _, line := range s.logs.All() {
		if line.LoggerName == "nvml" && line.Level > zap.InfoLevel {
			t.Errorf("cards that are not there are complained of: %s", line.Message)
		}
	}
}

// countingSensors count their readings and what is open.
type countingSensors struct {
	reads, open *atomic.Int64
}

func (s countingSensors) Name() string                             { return "counting" }
func (s countingSensors) FallbackReason() error                    { return nil }
func (s countingSensors) Zones() []*energy.Zone                    { return nil }
func (s countingSensors) Read() ([]energy.Reading, []energy.Fault) { s.reads.Add(1); return nil, nil }
func (s countingSensors) Close() error                             { s.open.Add(-1); return nil }

// TestSensorsOpenedDuringARestartAreClosed: opening them takes long, as NVML's start may,
// and the sampler restarts meanwhile.
func TestSensorsOpenedDuringARestartAreClosed(t *testing.T) {
	t.Parallel()
	var reads, open, opened atomic.Int64
	opening, release := make(chan struct{}), make(chan struct{})
	s := newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Dependencies) {
			p.OpenPower = func() (PowerSensors, error) {
				open.Add(1)
				if opened.Add(1) == 1 {
					close(opening)
					<-release
				}
				return countingSensors{&reads, &open}, nil
			}
		}
	})
	<-opening
	must(t, s.agent.Crash("agent/samplers/rapl"))
	s.until("the sensors of the next incarnation", func() bool { return reads.Load() > 0 })
	if n := open.Load(); n != 2 {
		t.Fatalf("%d sensors are open, want the first two", n)
	}
	close(release)
	s.until("the first sensors to be closed", func() bool { return open.Load() == 1 })
}

// TestSamplingSlowsDownAfterCrashes: the actor of a job and jobs itself crash around the
// end of a job; the meter then follows no job that is gone.
func TestSamplingSlowsDownAfterCrashes(t *testing.T) {
	t.Parallel()
	var reads, open atomic.Int64
	closing, release := make(chan struct{}), make(chan struct{})
	s := newSite(t, func(c *siteConfig) {
		c.SampleInterval, c.IdleSampleInterval = 10*time.Millisecond, time.Hour
		c.wrap = func(p *Dependencies) {
			p.OpenPower = func() (PowerSensors, error) { open.Add(1); return countingSensors{&reads, &open}, nil }
			p.Runner = closingRunner{p.Runner, sync.OnceFunc(func() { close(closing) }), release}
		}
	})
	j := s.submit(ffmpegtest.Long())
	s.ffmpegPID(j.ID)
	s.link.cut() // no further job
	must(t, s.agent.Crash(s.jobActor()))
	s.agent.StopJobs()
	<-closing
	must(t, s.agent.Crash("agent/jobs"))
	s.until("the restart of jobs", func() bool { stats, _ := s.stats("agent/jobs"); return stats.Restarts == 1 })
	close(release)
	s.until("the end of the job", func() bool { return len(s.agent.shared.attempts.list()) == 0 })
	s.until("sampling to slow down", func() bool {
		before := reads.Load()
		time.Sleep(200 * time.Millisecond)
		return reads.Load() == before
	})
}

// closingRunner holds the end of its runs.
type closingRunner struct {
	Runner
	closing func()
	release chan struct{}
}

func (r closingRunner) Begin(l job.Lease) Run { return closingRun{r.Runner.Begin(l), r} }

type closingRun struct {
	Run
	runner closingRunner
}

func (r closingRun) Close(ctx context.Context) error {
	r.runner.closing()
	<-r.runner.release
	return r.Run.Close(ctx)
}
