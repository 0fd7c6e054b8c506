package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"ffmpeg-agent/cmd/bench/live"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/messages"
)

const (
	idleWatts = 60 // mean power of the counted zones of the live machine
	workWatts = 90 // in addition, while jobs run
)

// liveCounted are the counted zones of the live machine.
var liveCounted = []string{"intel-rapl:0", "intel-rapl:0:1"}

// liveMachine returns a machine with a package and memory, whose counters wrap while the first
// job runs, and with zones that must not be counted. The dial adds to the package's power.
func liveMachine(dir string, dial *live.Dial) (*live.Machine, error) {
	idle := fakehw.Sine(idleWatts-8, 2, 700*time.Millisecond)
	power := sum(idle, dial.Power)
	return live.New(dir,
		fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: power, Range: 12_000_000_000, Start: 10_500_000_000},
		fakehw.ZoneConfig{ID: "intel-rapl:0:0", Name: "core", Power: power, Range: rangeClient},
		fakehw.ZoneConfig{ID: "intel-rapl:0:1", Name: "dram", Power: fakehw.Constant(8), Range: rangeClient, Start: rangeClient - 150e6},
		fakehw.ZoneConfig{ID: "intel-rapl:0:2", Name: "uncore", Power: fakehw.Constant(3), Range: rangeClient},
		fakehw.ZoneConfig{ID: "intel-rapl:1", Name: "psys", Power: fakehw.Constant(300), Range: rangeServer},
		fakehw.ZoneConfig{ID: "intel-rapl-mmio:0", Name: "package-0", Power: power, Range: rangeServer},
	)
}

// measureRealJobs compares the energy of real jobs with that of a fake machine.
func measureRealJobs(ctx context.Context, binary string) (rows []row, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	dial := live.NewDial(0)
	machine, err := liveMachine(dir, dial)
	if err != nil {
		return nil, err
	}
	// The fake CPU stays idle, so that the idle baseline is learned even on a busy machine. The
	// CPU time of jobs is read from their real cgroups.
	if err := machine.Tree.SetCPU(fakehw.CPUConfig{Model: "Bench", Threads: 8, Busy: fakehw.Constant(0.02), MemoryTotal: 8 << 30, MemoryAvailable: 4 << 30}); err != nil {
		return nil, err
	}
	machine.Run()
	defer func() { err = errors.Join(err, machine.Close()) }()
	b, err := startTestbed(ctx, binary, map[string]string{
		"hardware.sysfs_path": machine.Tree.Sys(), "hardware.procfs_path": machine.Tree.Proc(), "jobs.max_concurrent": "4", "poll_interval": "200ms",
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.awaitBaseline(ctx); err != nil {
		return nil, err
	}
	for _, jobs := range []int{1, 2, 4} {
		var round []row
		for try := 1; ; try++ {
			from := machine.Now()
			machine.Turn(dial, workWatts)
			accounts, err := b.runTogether(ctx, jobs)
			if err != nil {
				return nil, err
			}
			machine.Turn(dial, 0)
			round = liveRows(machine, accounts)
			late := machine.Late(from, machine.Now())
			if late < maxLateness {
				break
			}
			round[0].Notes = append(round[0].Notes, fmt.Sprintf("this machine is too busy: the fake counters were up to %v late; tried %d times",
				late.Round(time.Millisecond), try))
			if try == maxTries {
				break
			}
		}
		rows = append(rows, round...)
	}
	return rows, nil
}

// A round in which the fake counters were maxLateness or more late is repeated: they catch
// up in one step, which the meter correctly rejects as implausible.
const (
	maxLateness = second
	maxTries    = 3
)

// awaitBaseline waits until the agent has had time to learn the idle baseline. It learns none
// while it probes encoders, which takes long on a busy machine.
func (b *testbed) awaitBaseline(ctx context.Context) error {
	if err := b.await(ctx, "a first reading", func(s messages.Status) bool { return s.Power != nil }); err != nil {
		return err
	}
	if err := b.await(ctx, "the encoder probes", func(messages.Status) bool { return b.encodersProbed(ctx) }); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idleLeadIn):
		return nil
	}
}

// runTogether runs jobs at the same time, each a little longer than the one before.
func (b *testbed) runTogether(ctx context.Context, jobs int) ([]energy.Account, error) {
	var ids []string
	for i := range jobs {
		id, err := b.submit(map[string]any{"resolution": "640x360", "duration": 40/jobs + 6*i, "preset": "medium", "fps": 30})
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	accounts := make([]energy.Account, jobs)
	for i, id := range ids {
		var err error
		if accounts[i], err = b.account(ctx, id); err != nil {
			return nil, err
		}
	}
	return accounts, nil
}

// liveRows compares jobs that ran together with the energy of their machine.
func liveRows(m *live.Machine, accounts []energy.Account) []row {
	if len(accounts) == 1 {
		a := accounts[0]
		from, to := m.Since(a.Start), m.Since(a.End)
		truth := m.Joules(from, to, liveCounted...)
		late := m.LateAt(from) + m.LateAt(to)
		rows := []row{
			liveRow("real job, alone", truth, late, a.Total),
			liveRow("real job, alone: net", truth-idleWatts*(to-from).Seconds(), late, a.Net),
		}
		rows[0].Notes = append(rows[0].Notes, fmt.Sprintf("%.1f s by %s", (to-from).Seconds(), a.Total.Method))
		return rows
	}
	var spans [][2]time.Duration
	measured := energy.Figure{CoveragePercent: 100}
	var total, errorBound energy.Joules
	shareMethod := ""
	for _, a := range accounts {
		spans = append(spans, [2]time.Duration{m.Since(a.Start), m.Since(a.End)})
		if a.Total.Energy == nil {
			return []row{liveRow("real jobs", 1, 0, a.Total)}
		}
		total += *a.Total.Energy
		errorBound += *a.Machine.ErrorBound // the shares' own error cancels in the sum
		measured.Gaps += a.Total.Gaps
		measured.CoveragePercent = min(measured.CoveragePercent, a.Total.CoveragePercent)
		shareMethod = a.ShareMethod
	}
	measured.Energy, measured.ErrorBound = &total, &errorBound
	truth, length := 0.0, time.Duration(0)
	var late time.Duration
	for _, s := range union(spans) {
		truth += m.Joules(s[0], s[1], liveCounted...)
		length += s[1] - s[0]
		late += m.LateAt(s[0]) + m.LateAt(s[1])
	}
	r := liveRow(fmt.Sprintf("%d real jobs: sum of shares", len(accounts)), truth, late, measured)
	r.Notes = append(r.Notes, fmt.Sprintf("in the %.1f s during which at least one job ran; shared by %s; single shares are checked in simulated time only",
		length.Seconds(), shareMethod))
	return []row{r}
}

// liveRow compares a figure that the real agent reported. late is how late the fake counters
// were at the window's edges.
func liveRow(name string, truth float64, late time.Duration, f energy.Figure) row {
	r := row{Section: sectionReal, Scenario: name, True: truth, Measured: value(f), Reported: bound(f), Windows: 1,
		Edge: (idleWatts + workWatts + 4) * late.Seconds(), Relative: 0.001, Live: true}
	if f.Energy == nil {
		r.Violations = append(r.Violations, "unknown: "+f.Method)
	} else if f.CoveragePercent < 100 || f.Gaps > 0 {
		r.Violations = append(r.Violations, fmt.Sprintf("%d gaps, %.2f %% covered", f.Gaps, f.CoveragePercent))
	}
	r.check()
	return r
}
