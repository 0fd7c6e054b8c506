package main

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ffmpeg-agent/cmd/bench/live"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// Power of the counted zones of the test machine.
const (
	idleWatts  = 60
	workWatts  = 440 // in addition, while jobs run
	swingWatts = 2   // amplitude of both
	maxWatts   = idleWatts + swingWatts + workWatts
	// The package's counter wraps every 8 s while jobs run. From its start value it usually
	// wraps in the second part of the test only.
	wrapJoules  = 4000
	startJoules = wrapJoules - 2500
)

var countedZones = []string{"intel-rapl:0", "intel-rapl:0:1"}

// newMeteredMachine starts a machine with two zones that are counted, one of which wraps, and
// two that are not.
func newMeteredMachine(t *testing.T, dial *live.Dial) *live.Machine {
	t.Helper()
	idle := fakehw.Sine(idleWatts-8, swingWatts, 300*time.Millisecond)
	power := func(at time.Duration) float64 { return idle(at) + dial.Power(at) }
	m, err := live.New(t.TempDir(),
		fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: power, Range: wrapJoules * 1e6, Start: startJoules * 1e6},
		fakehw.ZoneConfig{ID: "intel-rapl:0:0", Name: "core", Power: power, Range: 65_712_999_613},
		fakehw.ZoneConfig{ID: "intel-rapl:0:1", Name: "dram", Power: fakehw.Constant(8), Range: 65_712_999_613},
		fakehw.ZoneConfig{ID: "intel-rapl:1", Name: "psys", Power: fakehw.Constant(500), Range: 262_143_328_850},
	)
	if err != nil {
		t.Fatal(err)
	}
	// The fake CPU stays idle, so that the idle baseline is learned even on a busy machine. The
	// CPU time of jobs is read from their real processes.
	if err := m.Tree.SetCPU(fakehw.CPUConfig{Model: "Test", Threads: 8, Busy: fakehw.Constant(0.02), MemoryTotal: 8 << 30, MemoryAvailable: 4 << 30}); err != nil {
		t.Fatal(err)
	}
	m.Run()
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("running the fake machine: %v", err)
		}
	})
	return m
}

// wraps is how often the package's counter has wrapped.
func wraps(m *live.Machine, at time.Duration) int {
	return int((startJoules + m.Joules(0, at, "intel-rapl:0")) / wrapJoules)
}

func TestEnergyMatchesPowerCurve(t *testing.T) {
	dial := live.NewDial(0)
	m := newMeteredMachine(t, dial)
	bed := newTestbed(t)
	startAgent(t, append(bed.environment(), "FFMPEG_AGENT_HARDWARE_SYSFS_PATH="+m.Tree.Sys(), "FFMPEG_AGENT_HARDWARE_PROCFS_PATH="+m.Tree.Proc(),
		"FFMPEG_AGENT_ENERGY_IDLE_INTERVAL=200ms"),
		append(bed.flags(), "--max-concurrent-jobs", "3")...)

	t.Run("alone", func(t *testing.T) {
		a := bed.runAfterIdle(m, func() { m.Turn(dial, workWatts) }, func() { m.Turn(dial, 0) })
		total := m.Joules(m.Since(a.Start), m.Since(a.End), countedZones...)
		check(t, m, "total", total, a.Total, a)
		net := total - idleWatts*a.Duration().Seconds()
		check(t, m, "net", net, a.Net, a)
		// An idle second begins and ends with a counter that may have been updated late.
		late := m.Late(0, m.Since(a.Start))
		if spread := float64(a.Baseline.Spread); spread > swingWatts+2*idleWatts*late.Seconds() {
			t.Errorf("baseline: got a spread of %v W, want about %v W with counters up to %v late", spread, swingWatts, late)
		}
		if sum := *a.Idle.Energy + *a.Net.Energy; math.Abs(float64(sum-*a.Total.Energy)) > 2e-6 {
			t.Errorf("idle %v J + net %v J, want the total of %v J", *a.Idle.Energy, *a.Net.Energy, *a.Total.Energy)
		}
		if a.ShareMethod != "alone" {
			t.Errorf("got share method %q, want alone", a.ShareMethod)
		}
	})

	t.Run("three jobs", func(t *testing.T) {
		m.Turn(dial, workWatts)
		accounts := bed.runTogether(m, 3)
		m.Turn(dial, 0)
		var sum, bound energy.Joules
		from, to := m.Since(accounts[0].Start), m.Since(accounts[0].End)
		overlap, missed := from, 0.0
		for _, a := range accounts {
			overlap = max(overlap, m.Since(a.Start))
			from, to = min(from, m.Since(a.Start)), max(to, m.Since(a.End))
			if a.Total.Energy == nil || a.Machine.ErrorBound == nil {
				t.Fatalf("got total %+v and machine %+v, want both known", a.Total, a.Machine)
			}
			sum += *a.Total.Energy
			bound += *a.Machine.ErrorBound
			missed += missing(m, a.Total, a)
			if a.ShareMethod == "alone" || a.ShareMethod == "equal" {
				t.Errorf("got share method %q, want one by use", a.ShareMethod)
			}
			check(t, m, "machine", m.Joules(m.Since(a.Start), m.Since(a.End), countedZones...), a.Machine, a)
		}
		if overlap >= to || wraps(m, to) == wraps(m, from) {
			t.Fatalf("jobs ran from %v to %v, all of them from %v: want an overlap and a wrap", from, to, overlap)
		}
		// The windows overlap without a gap, so the shares add up to the energy from the first
		// start to the last end.
		truth, slack := m.Joules(from, to, countedZones...), maxWatts*(m.LateAt(from)+m.LateAt(to)).Seconds()
		t.Logf("sum of shares: true energy %.3f J, measured %.3f ± %.3f J in %v; late %.3f J, missed %.3f J", truth, sum, bound, to-from, slack, missed)
		if math.Abs(float64(sum)-truth) > float64(bound)+slack+missed {
			t.Errorf("sum of shares: got %v J ± %v J, want %v J", sum, bound, truth)
		}
	})
}

// missing is an upper limit of the energy in the gaps of a figure. On a busy machine the agent
// may read too late to notice a wrap, and the fake machine may make up for a delay with a step
// that the agent takes for implausible.
func missing(m *live.Machine, f energy.Figure, a energy.Account) float64 {
	uncovered := (100 - f.CoveragePercent) / 100 * a.Duration().Seconds()
	jumps := float64(f.Gaps) * m.Late(m.Since(a.Start), m.Since(a.End)).Seconds()
	return maxWatts * (uncovered + jumps)
}

// check compares a figure with the true energy. The difference may be its error bound plus
// what the fake's counters were late at the edges of the window.
func check(t *testing.T, m *live.Machine, what string, truth float64, f energy.Figure, a energy.Account) {
	t.Helper()
	if f.Source != energy.Measured || f.Energy == nil || f.ErrorBound == nil {
		t.Fatalf("%s: got %+v, want a measured figure", what, f)
	}
	got, bound := float64(*f.Energy), float64(*f.ErrorBound)
	late := m.LateAt(m.Since(a.Start)) + m.LateAt(m.Since(a.End))
	slack, missed := maxWatts*late.Seconds(), missing(m, f, a)
	t.Logf("%s: true energy %.3f J, measured %.3f ± %.3f J in %v; counters up to %v late (%.3f J); %v", what, truth, got, bound,
		a.Duration().Round(time.Millisecond), late.Round(time.Microsecond), slack, m)
	if math.Abs(got-truth) > bound+slack+missed || f.CoveragePercent < 90 {
		t.Errorf("%s: got %v J ± %v J at a coverage of %v %%, want %v J", what, got, bound, f.CoveragePercent, truth)
	}
	if bound > 0.1*truth+slack {
		t.Errorf("%s: got an error bound of %v J, want at most a tenth of %v J", what, bound, truth)
	}
	if (what == "total" || what == "machine") && f.Method != "rapl: package-0 + dram" {
		t.Errorf("%s: got method %q", what, f.Method)
	}
	var uncounted []string
	for _, z := range a.Zones {
		if !z.Counted && z.Energy != nil {
			uncounted = append(uncounted, z.Name)
		}
	}
	if a.Zones != nil && !slices.Equal(uncounted, []string{"core", "psys"}) {
		t.Errorf("got uncounted zones %v, want core and psys", uncounted)
	}
}

// runAfterIdle runs a job after the agent has learned an idle baseline. It tries again if the
// machine was disturbed.
func (bed *testbed) runAfterIdle(m *live.Machine, work, rest func()) energy.Account {
	bed.t.Helper()
	client := control.NewClient(filepath.Join(bed.dir, "agent.sock"))
	var status messages.Status
	waitFor(bed.t, "first reading", func() bool {
		status, _ = client.Status(context.Background())
		return status.Power != nil
	})
	const (
		idleSeconds = 5               // needed for a baseline
		settle      = 3 * time.Second // until late readings are accounted for
	)
	for deadline := time.Now().Add(hang); ; {
		since := m.Now()
		waitFor(bed.t, "idle time", func() bool { return m.Now()-since > idleSeconds*1200*time.Millisecond+settle })
		work()
		job := bed.submit(map[string]any{"resolution": "640x360", "duration": 15, "preset": "ultrafast", "fps": 30})
		bed.awaitResult(job.ID, protocol.StatusCompleted)
		rest()
		a := bed.account(job.ID)
		if a.Baseline != nil {
			return a
		}
		if time.Now().After(deadline) {
			bed.t.Fatalf("no baseline after %v: %+v", hang, a)
		}
	}
}

// runTogether runs jobs at the same time until the package's counter has wrapped twice, and
// cancels them one after the other.
func (bed *testbed) runTogether(m *live.Machine, jobs int) []energy.Account {
	bed.t.Helper()
	client := control.NewClient(filepath.Join(bed.dir, "agent.sock"))
	var ids []string
	for range jobs {
		// Enough CPU time to be measured, without delaying the fake machine.
		job := ffmpegtest.Long()
		job["resolution"], job["preset"], job["fps"] = "320x240", "medium", 30
		ids = append(ids, bed.submit(job).ID)
	}
	waitFor(bed.t, "power of all jobs", func() bool {
		status, err := client.Status(context.Background())
		measured := 0
		for _, j := range status.Jobs {
			if j.Power != nil {
				measured++
			}
		}
		return err == nil && measured == jobs
	})
	before := wraps(m, m.Now())
	// The 8 s between two wraps are long compared with the lateness of the counters.
	waitFor(bed.t, "two wraps", func() bool { return wraps(m, m.Now()) > before+1 })
	accounts := make([]energy.Account, jobs)
	for i, id := range ids {
		accounts[i] = bed.cancel(id)
	}
	return accounts
}
