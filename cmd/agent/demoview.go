package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

const (
	redrawInterval = 200 * time.Millisecond
	repeatInterval = 2 * time.Second // of lines about running jobs, without a terminal
	demoTimeout    = 5 * time.Minute

	cursorUp  = "\x1b[%dA"
	clearLine = "\x1b[2K"
)

// demoView shows the demo's jobs: progress bars on a terminal, a line now and then elsewhere,
// and a table at the end.
type demoView struct {
	out      io.Writer
	terminal bool
	tty      io.Writer // of which the width is asked
	worker   *worker
	master   *devmaster.Master
	jobs     []protocol.Job
	started  time.Time
	drawn    bool                       // the bars are on the terminal
	printed  map[string]protocol.Status // by job, without a terminal
	repeated time.Time                  // when running jobs were last printed
}

func newDemoView(out, tty io.Writer, w *worker, m *devmaster.Master, jobs []protocol.Job) *demoView {
	return &demoView{out: out, terminal: isTerminal(tty), tty: tty, worker: w, master: m, jobs: jobs, started: time.Now(), printed: map[string]protocol.Status{}}
}

// watch shows the jobs until all have ended. It fails if it is interrupted before.
func (v *demoView) watch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	tick := time.NewTicker(redrawInterval)
	defer tick.Stop()
	for {
		ended := v.refresh()
		if v.terminal {
			v.draw()
		} else {
			v.print()
		}
		if ended == len(v.jobs) {
			fmt.Fprintln(v.out)
			return nil
		}
		select {
		case <-ctx.Done():
			fmt.Fprintln(v.out)
			if ctx.Err() == context.DeadlineExceeded {
				return fmt.Errorf("%w: gave up after %s", errDemo, demoTimeout)
			}
			return fmt.Errorf("%w: interrupted", errDemo)
		case reason := <-v.worker.fatal:
			return fmt.Errorf("%w: %s", errDemo, reason)
		case <-tick.C:
		}
	}
}

// refresh updates the jobs and returns how many have ended.
func (v *demoView) refresh() (ended int) {
	for i := range v.jobs {
		if j, ok := v.master.Job(v.jobs[i].ID); ok {
			v.jobs[i] = j
		}
		if v.jobs[i].Status.Terminal() {
			ended++
		}
	}
	return ended
}

func (v *demoView) draw() {
	if v.drawn {
		fmt.Fprintf(v.out, cursorUp, len(v.jobs))
	}
	v.drawn = true
	for i := range v.jobs {
		fmt.Fprintf(v.out, "\r%s%s\n", clearLine, shortened(v.line(&v.jobs[i]), terminalWidth(v.tty, 80)-1))
	}
}

// print writes a line for each job whose status has changed and, at repeatInterval, for those
// that are running or kept waiting.
func (v *demoView) print() {
	due := time.Since(v.repeated) >= repeatInterval
	for i := range v.jobs {
		j := &v.jobs[i]
		repeats := j.Status.HeldByNode() || v.notReady() != ""
		if v.printed[j.ID] == j.Status && !(due && repeats) {
			continue
		}
		v.printed[j.ID] = j.Status
		fmt.Fprintln(v.out, v.line(j))
	}
	if due {
		v.repeated = time.Now()
	}
}

func (v *demoView) line(j *protocol.Job) string {
	name := fmt.Sprintf("%-12s", j.Scenario)
	if j.Status.Terminal() {
		if r, _, ok := v.master.Result(j.ID); ok {
			return fmt.Sprintf("%s %s %3d %%  %s", name, barOf(float64(r.Progress), demoBar), r.Progress, j.Status)
		}
		return fmt.Sprintf("%s %s", name, j.Status)
	}
	for _, running := range v.worker.agent.Status().Jobs {
		if running.Key.JobID == j.ID {
			return name + " " + runningLine(running)
		}
	}
	return fmt.Sprintf("%s %s       %s%s", name, barOf(0, demoBar), j.Status, v.notReady())
}

// notReady is why the agent takes no jobs, empty if it does.
func (v *demoView) notReady() string {
	if time.Since(v.started) < repeatInterval {
		return "" // checks pass soon after the start
	}
	for name, reason := range v.worker.agent.Snapshots().Gates() {
		if reason != "" {
			return fmt.Sprintf("; not ready: %s: %s", name, reason)
		}
	}
	return ""
}

func runningLine(j messages.JobStatus) string {
	p := j.Progress
	if j.Phase == job.PhaseFetch && j.Fetch != nil {
		return fetchText(j.Fetch)
	}
	if j.Phase != job.PhaseRun {
		return fmt.Sprintf("%s %3.0f %%  %s", barOf(p.Percent, demoBar), p.Percent, j.Phase)
	}
	line := fmt.Sprintf("%s %3.0f %%  %5s fps  %5sx", barOf(p.Percent, demoBar), p.Percent, positive(p.FPS, 1), positive(p.Speed, 2))
	if j.Power != nil {
		line += fmt.Sprintf("  %5.1f W (%s)", float64(*j.Power), j.Source)
	}
	return line
}

// demoBar is the width of a progress bar with which a line fits 80 columns.
const demoBar = 16

// table prints the outcome and energy of each job. It fails if one did not complete.
func (v *demoView) table() error {
	w := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "scenario\tstatus\twall s\tfps\tJ\t±J\tnet J\tµJ/pixel\tsource\t")
	var failed []string
	methods := map[string]bool{}
	for _, j := range v.jobs {
		r, _, ok := v.master.Result(j.ID)
		if j.Status != protocol.StatusCompleted || !ok {
			failed = append(failed, fmt.Sprintf("%s %s: %s: %s", j.Scenario, j.Status, r.FailureReason, r.Error))
			fmt.Fprintf(w, "%s\t%s\t\t\t\t\t\t\t\t\n", j.Scenario, j.Status)
			continue
		}
		a, err := readAnalysis(r)
		if err != nil {
			return err
		}
		cost := energy.Account{}
		if a.Energy != nil {
			cost = *a.Energy
			methods[fmt.Sprintf("%s with: %s", cost.Total.Source, plain(cost.Total.Method))] = true
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", j.Scenario, j.Status,
			metric(r.Metrics[protocol.MetricDuration], 2), metric(r.Metrics[protocol.MetricFPS], 1),
			figure(r.EnergyJoules, 1), figure(cost.Total.ErrorBound, 1), figure(cost.Net.Energy, 1), figure(a.Scores.MicrojoulesPerPixel, 2),
			cost.Total.Source)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the demo's table: %w", err)
	}
	fmt.Fprintln(v.out, "\nnet J: without the idle power of the machine")
	for _, method := range slices.Sorted(maps.Keys(methods)) {
		for _, line := range wrapped(method, terminalWidth(v.tty, 80)-1) {
			fmt.Fprintln(v.out, line)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%w: %s", errDemo, strings.Join(failed, "; "))
	}
	return nil
}

// metric formats a metric of a result.
func metric(v any, digits int) string {
	if f, ok := v.(float64); ok {
		return fmt.Sprintf("%.*f", digits, f)
	}
	return unknown
}
