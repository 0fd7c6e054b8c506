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
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
)

// The machine of the tests below: what adds uses 60 W while it is idle.
const (
	idleWatts  = 60
	workWatts  = 440 // beside that, while there are jobs
	swingWatts = 2   // of both
	mostWatts  = idleWatts + swingWatts + workWatts
	// The package's counter turns round after so much, every 8 s of work. It begins where
	// it will do so in the second part of the test, if all goes as usual.
	wrapJoules  = 4000
	startJoules = wrapJoules - 2500
)

var countedZones = []string{"intel-rapl:0", "intel-rapl:0:1"}

// meteredMachine runs in real time: a package whose counter turns round now and
// then, memory beside it, and views that must not be added.
func meteredMachine(t *testing.T, dial *live.Dial) *live.Machine {
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
	// Its processors are idle whatever keeps this one busy: else it might never be known
	// what it uses when idle. What jobs use is told by their own processes.
	if err := m.Tree.SetCPU(fakehw.CPUConfig{Model: "Test", Threads: 8, Busy: fakehw.Constant(0.02), MemoryTotal: 8 << 30, MemoryAvailable: 4 << 30}); err != nil {
		t.Fatal(err)
	}
	m.Run()
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("the fake machine: %v", err)
		}
	})
	return m
}

// wraps is how often the package's counter has turned round.
func wraps(m *live.Machine, at time.Duration) int {
	return int((startJoules + m.Joules(0, at, "intel-rapl:0")) / wrapJoules)
}

// TestTheAgentsJoulesAreTheCurves: the real agent with real FFmpegs, on a machine of
// known power: a job alone after a while of idleness, then three at once.
func TestTheAgentsJoulesAreTheCurves(t *testing.T) {
	dial := live.NewDial(0)
	m := meteredMachine(t, dial)
	bed := newTestbed(t)
	startAgent(t, append(bed.environment(), "FFMPEG_AGENT_HARDWARE_SYSFS_PATH="+m.Tree.Sys(), "FFMPEG_AGENT_HARDWARE_PROCFS_PATH="+m.Tree.Proc(),
		"FFMPEG_AGENT_ENERGY_IDLE_INTERVAL=200ms"),
		append(bed.flags(), "--max-concurrent-jobs", "3")...)

	t.Run("alone", func(t *testing.T) {
		a := bed.afterIdleness(m, func() { m.Turn(dial, workWatts) }, func() { m.Turn(dial, 0) })
		total := m.Joules(m.Since(a.Start), m.Since(a.End), countedZones...)
		check(t, m, "total", total, a.Total, a)
		net := total - idleWatts*a.Duration().Seconds()
		check(t, m, "net", net, a.Net, a)
		// A second of idleness that is judged begins and ends with a counter that may be late.
		late := m.Late(0, m.Since(a.Start))
		if spread := float64(a.Baseline.Spread); spread > swingWatts+2*idleWatts*late.Seconds() {
			t.Errorf("an idle machine of ±%v W, up to %v late, is said to spread by %v W", swingWatts, late, spread)
		}
		if sum := *a.Idle.Energy + *a.Net.Energy; math.Abs(float64(sum-*a.Total.Energy)) > 2e-6 {
			t.Errorf("idle %v + net %v are not %v", *a.Idle.Energy, *a.Net.Energy, *a.Total.Energy)
		}
		if a.ShareMethod != "alone" {
			t.Errorf("shared by %q", a.ShareMethod)
		}
	})

	t.Run("three at once", func(t *testing.T) {
		m.Turn(dial, workWatts)
		accounts := bed.together(m, 3)
		m.Turn(dial, 0)
		var sum, bound energy.Joules
		from, to := m.Since(accounts[0].Start), m.Since(accounts[0].End)
		begin, missed := from, 0.0
		for _, a := range accounts {
			begin = max(begin, m.Since(a.Start)) // when all ran
			from, to = min(from, m.Since(a.Start)), max(to, m.Since(a.End))
			if a.Total.Energy == nil || a.Machine.ErrorBound == nil {
				t.Fatalf("total is %+v, the machine's %+v", a.Total, a.Machine)
			}
			sum += *a.Total.Energy
			bound += *a.Machine.ErrorBound // nobody shares what the others may be given
			missed += missing(m, a.Total, a)
			if a.ShareMethod == "alone" || a.ShareMethod == "equal" {
				t.Errorf("shared by %q", a.ShareMethod)
			}
			// Each one's figure of the whole machine is that of its own window.
			check(t, m, "machine", m.Joules(m.Since(a.Start), m.Since(a.End), countedZones...), a.Machine, a)
		}
		if begin >= to || wraps(m, to) == wraps(m, from) {
			t.Fatalf("jobs from %v, all from %v, to %v: no overlap, or no wrap in it", from, begin, to)
		}
		// They overlap, so that their windows together are one: nothing in it is nobody's,
		// and nothing is two jobs'.
		truth, slack := m.Joules(from, to, countedZones...), mostWatts*(m.LateAt(from)+m.LateAt(to)).Seconds()
		t.Logf("sum of shares: true %.3f J, ours %.3f ± %.3f J in %v; late %.3f J, missed %.3f J", truth, sum, bound, to-from, slack, missed)
		if math.Abs(float64(sum)-truth) > float64(bound)+slack+missed {
			t.Errorf("shares add up to %v J ± %v, truly %v J", sum, bound, truth)
		}
	})
}

// missing is what was used at most in what a figure does not cover: on a machine that holds
// the agent up for too long, the counter may have turned round unseen; and where it holds up
// the fake, what that makes up for at once is more than can be believed.
func missing(m *live.Machine, f energy.Figure, a energy.Account) float64 {
	uncovered := (100 - f.CoveragePercent) / 100 * a.Duration().Seconds()
	leaps := float64(f.Gaps) * m.Late(m.Since(a.Start), m.Since(a.End)).Seconds()
	return mostWatts * (uncovered + leaps)
}

// check compares a figure with the truth. It may be off by what it says itself, and by what
// the fake's counters were late at the window's edges.
func check(t *testing.T, m *live.Machine, what string, truth float64, f energy.Figure, a energy.Account) {
	t.Helper()
	if f.Source != energy.Measured || f.Energy == nil || f.ErrorBound == nil {
		t.Fatalf("%s is %+v", what, f)
	}
	got, bound := float64(*f.Energy), float64(*f.ErrorBound)
	late := m.LateAt(m.Since(a.Start)) + m.LateAt(m.Since(a.End))
	slack, missed := mostWatts*late.Seconds(), missing(m, f, a)
	t.Logf("%s: true %.3f J, ours %.3f ± %.3f J in %v; the fake was late by %v (%.3f J); %v", what, truth, got, bound,
		a.Duration().Round(time.Millisecond), late.Round(time.Microsecond), slack, m)
	if math.Abs(got-truth) > bound+slack+missed || f.CoveragePercent < 90 {
		t.Errorf("%s: %v J ± %v at %v %% coverage, truly %v J", what, got, bound, f.CoveragePercent, truth)
	}
	if bound > 0.1*truth+slack {
		t.Errorf("%s: a bound of %v J says little of %v J", what, bound, truth)
	}
	if (what == "total" || what == "machine") && f.Method != "rapl: package-0 + dram" {
		t.Errorf("%s by %q", what, f.Method)
	}
	var beside []string
	for _, z := range a.Zones {
		if !z.Counted && z.Energy != nil {
			beside = append(beside, z.Name)
		}
	}
	if a.Zones != nil && !slices.Equal(beside, []string{"core", "psys"}) {
		t.Errorf("reported and not added: %v", beside)
	}
}

// afterIdleness lets the agent watch the idle machine and gives it one job then. What
// disturbed the idleness, if anything, is waited for to end.
func (bed *testbed) afterIdleness(m *live.Machine, work, rest func()) energy.Account {
	bed.t.Helper()
	client := control.NewClient(filepath.Join(bed.dir, "agent.sock"))
	var status messages.Status
	waitFor(bed.t, "a first reading", func() bool {
		status, _ = client.Status(context.Background())
		return status.Power != nil
	})
	const (
		lengths = 5               // of a second, make a baseline
		settled = 3 * time.Second // until readings are split for good
	)
	for deadline := time.Now().Add(hang); ; {
		since := m.Now()
		waitFor(bed.t, "idleness", func() bool { return m.Now()-since > lengths*1200*time.Millisecond+settled })
		work()
		job := bed.submit(map[string]any{"resolution": "640x360", "duration": 15, "preset": "ultrafast", "fps": 30})
		bed.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job.ID })
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

// together runs jobs at once until the package's counter has turned round twice while all
// of them ran, and ends them one after the other.
func (bed *testbed) together(m *live.Machine, jobs int) []energy.Account {
	bed.t.Helper()
	client := control.NewClient(filepath.Join(bed.dir, "agent.sock"))
	var ids []string
	for range jobs {
		// Enough work to be told apart, and not so much that the fake machine is held up.
		job := ffmpegtest.Long()
		job["resolution"], job["preset"], job["fps"] = "320x240", "medium", 30
		ids = append(ids, bed.submit(job).ID)
	}
	waitFor(bed.t, "all jobs' power", func() bool {
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
	// From the first wrap to the second there are 8 s, against which the fake's lateness is small.
	waitFor(bed.t, "two wraps", func() bool { return wraps(m, m.Now()) > before+1 })
	accounts := make([]energy.Account, jobs)
	for i, id := range ids {
		accounts[i] = bed.cancel(id)
	}
	return accounts
}
