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
	idleWatts = 60 // of what adds in the live machine, on average
	workWatts = 90 // beside that, while jobs are about
)

// liveAdds are the zones of the live machine that make up the total.
var liveAdds = []string{"intel-rapl:0", "intel-rapl:0:1"}

// liveMachine has a package and memory whose counters turn round while the first job runs,
// and views that must not be added. Its power rises with the dial.
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

// measureBinary has the real agent run real jobs on a machine of known power.
func measureBinary(ctx context.Context, binary string) (rows []row, err error) {
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
	// The machine's processors are idle in /proc, whatever else keeps this one busy: else
	// the idle baseline might never be learned. What jobs use is told by their cgroups.
	if err := machine.Tree.SetCPU(fakehw.CPUConfig{Model: "Bench", Threads: 8, Busy: fakehw.Constant(0.02), MemoryTotal: 8 << 30, MemoryAvailable: 4 << 30}); err != nil {
		return nil, err
	}
	machine.Run()
	defer func() { err = errors.Join(err, machine.Close()) }()
	f, err := settle(ctx, binary, map[string]string{
		"hardware.sysfs_path": machine.Tree.Sys(), "hardware.procfs_path": machine.Tree.Proc(), "jobs.max_concurrent": "4", "poll_interval": "200ms",
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.leave()) }()
	if err := f.rest(ctx); err != nil {
		return nil, err
	}
	for _, jobs := range []int{1, 2, 4} {
		var round []row
		for tries := 1; ; tries++ {
			from := machine.Now()
			machine.Turn(dial, workWatts)
			accounts, err := f.together(ctx, jobs)
			if err != nil {
				return nil, err
			}
			machine.Turn(dial, 0)
			round = liveRows(machine, accounts)
			late := machine.Late(from, machine.Now())
			if late < tooLate {
				break
			}
			round[0].Notes = append(round[0].Notes, fmt.Sprintf("this machine is too busy to play another: its counters stood still for %v; "+
				"tried %d times", late.Round(time.Millisecond), tries))
			if tries == mostTries {
				break
			}
		}
		rows = append(rows, round...)
	}
	return rows, nil
}

// A live machine that stood still for tooLate makes up for it in a leap that no meter should
// believe, and is tried again.
const (
	tooLate   = second
	mostTries = 3
)

// rest lets the agent watch the idle machine for long enough to know what it uses. While
// it tries encoders, which takes long on a busy machine, it does not count as idle.
func (f *field) rest(ctx context.Context) error {
	if err := f.until(ctx, "a first reading", func(s messages.Status) bool { return s.Power != nil }); err != nil {
		return err
	}
	if err := f.until(ctx, "the encoders' trials", func(messages.Status) bool { return f.tried(ctx) }); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(restful):
		return nil
	}
}

// together runs jobs at once, each a little longer than the one before.
func (f *field) together(ctx context.Context, jobs int) ([]energy.Account, error) {
	var ids []string
	for i := range jobs {
		id, err := f.submit(map[string]any{"resolution": "640x360", "duration": 40/jobs + 6*i, "preset": "medium", "fps": 30})
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	accounts := make([]energy.Account, jobs)
	for i, id := range ids {
		var err error
		if accounts[i], err = f.account(ctx, id); err != nil {
			return nil, err
		}
	}
	return accounts, nil
}

// liveRows compare jobs that ran together with what their machine used.
func liveRows(m *live.Machine, accounts []energy.Account) []row {
	if len(accounts) == 1 {
		a := accounts[0]
		from, to := m.Since(a.Start), m.Since(a.End)
		truth := m.Joules(from, to, liveAdds...)
		late := m.LateAt(from) + m.LateAt(to)
		rows := []row{
			liveRow("real job, alone", truth, late, a.Total),
			liveRow("real job, alone: net", truth-idleWatts*(to-from).Seconds(), late, a.Net),
		}
		rows[0].Notes = append(rows[0].Notes, fmt.Sprintf("%.1f s by %s", (to-from).Seconds(), a.Total.Method))
		return rows
	}
	var spans [][2]time.Duration
	ours := energy.Figure{CoveragePercent: 100}
	var total, promised energy.Joules
	shared := ""
	for _, a := range accounts {
		spans = append(spans, [2]time.Duration{m.Since(a.Start), m.Since(a.End)})
		if a.Total.Energy == nil {
			return []row{liveRow("real jobs", 1, 0, a.Total)}
		}
		total += *a.Total.Energy
		promised += *a.Machine.ErrorBound // who gets how much leaves the sum alone
		ours.Gaps += a.Total.Gaps
		ours.CoveragePercent = min(ours.CoveragePercent, a.Total.CoveragePercent)
		shared = a.ShareMethod
	}
	ours.Energy, ours.ErrorBound = &total, &promised
	truth, length := 0.0, time.Duration(0)
	var late time.Duration
	for _, s := range union(spans) {
		truth += m.Joules(s[0], s[1], liveAdds...)
		length += s[1] - s[0]
		late += m.LateAt(s[0]) + m.LateAt(s[1])
	}
	r := liveRow(fmt.Sprintf("%d real jobs: sum of shares", len(accounts)), truth, late, ours)
	r.Notes = append(r.Notes, fmt.Sprintf("against the %.1f s in which at least one ran; shared by %s; who gets how much is judged above",
		length.Seconds(), shared))
	return []row{r}
}

// liveRow compares a figure that the real agent reported. The fake's counters were late
// at the window's edges, which is no fault of the meter's.
func liveRow(name string, truth float64, late time.Duration, f energy.Figure) row {
	r := row{Section: sectionBinary, Scenario: name, True: truth, Ours: value(f), Promised: bound(f), Windows: 1,
		Edge: (idleWatts + workWatts + 4) * late.Seconds(), Relative: 0.001, Live: true}
	if f.Energy == nil {
		r.Faults = append(r.Faults, "unknown: "+f.Method)
	} else if f.CoveragePercent < 100 || f.Gaps > 0 {
		r.Faults = append(r.Faults, fmt.Sprintf("%d gaps, %.2f %% covered", f.Gaps, f.CoveragePercent))
	}
	r.judge()
	return r
}
