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
	barWidth     = 28
	redrawEvery  = 200 * time.Millisecond
	plainEvery   = 2 * time.Second
	cursorUp     = "\x1b[%dA"
	clearLine    = "\x1b[2K"
	demoPatience = 5 * time.Minute
)

// demoView shows the demo's jobs: bars that move on a terminal, a line now and
// then elsewhere, and a table at the end.
type demoView struct {
	out      io.Writer
	terminal bool
	worker   *worker
	master   *devmaster.Master
	jobs     []protocol.Job
	drawn    bool
	said     map[string]protocol.Status // what a plain line was written about
	saidAt   time.Time
	began    time.Time
}

func newDemoView(out io.Writer, terminal bool, w *worker, m *devmaster.Master, jobs []protocol.Job) *demoView {
	return &demoView{out: out, terminal: terminal, worker: w, master: m, jobs: jobs, said: map[string]protocol.Status{}, began: time.Now()}
}

// watch shows the jobs until all have ended; an error says why it stopped before.
func (v *demoView) watch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		ended := v.refresh()
		if v.terminal {
			v.redraw()
		} else {
			v.plain()
		}
		if ended == len(v.jobs) {
			fmt.Fprintln(v.out)
			return nil
		}
		select {
		case <-ctx.Done():
			fmt.Fprintln(v.out)
			if ctx.Err() == context.DeadlineExceeded {
				return fmt.Errorf("%w: gave up after %s", errDemo, demoPatience)
			}
			return fmt.Errorf("%w: interrupted", errDemo)
		case reason := <-v.worker.fatal:
			return fmt.Errorf("%w: %s", errDemo, reason)
		case <-tick.C:
		}
	}
}

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

func (v *demoView) redraw() {
	if v.drawn {
		fmt.Fprintf(v.out, cursorUp, len(v.jobs))
	}
	v.drawn = true
	for i := range v.jobs {
		fmt.Fprintf(v.out, "\r%s%s\n", clearLine, v.line(&v.jobs[i]))
	}
}

// plain writes a line where something changed, and every so often for what runs.
func (v *demoView) plain() {
	due := time.Since(v.saidAt) >= plainEvery
	for i := range v.jobs {
		j := &v.jobs[i]
		worthRepeating := j.Status.HeldByNode() || v.keptOut() != ""
		if v.said[j.ID] == j.Status && !(due && worthRepeating) {
			continue
		}
		v.said[j.ID] = j.Status
		fmt.Fprintln(v.out, v.line(j))
	}
	if due {
		v.saidAt = time.Now()
	}
}

func (v *demoView) line(j *protocol.Job) string {
	name := fmt.Sprintf("%-12s", j.Scenario)
	if j.Status.Terminal() {
		if r, _, ok := v.master.Result(j.ID); ok {
			return fmt.Sprintf("%s %s %3d %%  %s", name, bar(float64(r.Progress)), r.Progress, j.Status)
		}
		return fmt.Sprintf("%s %s", name, j.Status)
	}
	for _, running := range v.worker.agent.Status().Jobs {
		if running.Key.JobID == j.ID {
			return name + " " + runningLine(running)
		}
	}
	return fmt.Sprintf("%s %s       %s%s", name, bar(0), j.Status, v.keptOut())
}

// keptOut says what keeps the agent from taking work, if something does for good.
func (v *demoView) keptOut() string {
	for name, reason := range v.worker.agent.Board().Gates() {
		if reason != "" && time.Since(v.began) > plainEvery {
			return fmt.Sprintf("; no work is taken: %s: %s", name, reason)
		}
	}
	return ""
}

func runningLine(j messages.JobStatus) string {
	p := j.Progress
	if j.Phase != job.PhaseRun {
		return fmt.Sprintf("%s %3.0f %%  %s", bar(p.Percent), p.Percent, j.Phase)
	}
	line := fmt.Sprintf("%s %3.0f %%  %6s fps  %5sx", bar(p.Percent), p.Percent, known(p.FPS, 1), known(p.Speed, 2))
	if j.Power != nil {
		line += fmt.Sprintf("  %5.1f W (%s)", float64(*j.Power), j.Source)
	}
	return line
}

func bar(percent float64) string {
	full := min(barWidth, max(0, int(percent/100*barWidth)))
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-full) + "]"
}

// table shows what each job came to; an error when one did not complete.
func (v *demoView) table() error {
	w := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "scenario\tstatus\twall s\tframes\tfps\tJ\t±J\tnet J\tµJ/pixel\tpixels/J\tjoules are\t")
	var failed []string
	methods := map[string]bool{}
	for _, j := range v.jobs {
		r, _, ok := v.master.Result(j.ID)
		if j.Status != protocol.StatusCompleted || !ok {
			failed = append(failed, fmt.Sprintf("%s %s: %s: %s", j.Scenario, j.Status, r.FailureReason, r.Error))
			fmt.Fprintf(w, "%s\t%s\t\t\t\t\t\t\t\t\t\t\n", j.Scenario, j.Status)
			continue
		}
		a, err := readAnalysis(r)
		if err != nil {
			return err
		}
		cost := energy.Account{}
		if a.Energy != nil {
			cost = *a.Energy
			methods[cost.Total.Method] = true
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%v\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", j.Scenario, j.Status,
			number(r.Metrics[protocol.MetricDuration], 2), r.Metrics[protocol.MetricFrames], number(r.Metrics[protocol.MetricFPS], 1),
			optional(r.EnergyJoules, 1), optional(cost.Total.ErrorBound, 1), optional(cost.Net.Energy, 1), optional(a.Scores.MicrojoulesPerPixel, 2),
			optional(a.Scores.PixelsPerJoule, 0), cost.Total.Source)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the demo's table: %w", err)
	}
	fmt.Fprintln(v.out, "\nnet J: without what the idle machine uses anyway")
	for _, method := range slices.Sorted(maps.Keys(methods)) {
		fmt.Fprintln(v.out, "how the joules were come by:", plain(method))
	}
	if len(failed) > 0 {
		return fmt.Errorf("%w: %s", errDemo, strings.Join(failed, "; "))
	}
	return nil
}

// optional is a figure with so many digits, or a dash where it is not known.
func optional[F ~float64](f *F, digits int) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, float64(*f))
}

// known is a figure that FFmpeg tells as 0 while it does not know it.
func known(f float64, digits int) string {
	if f <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, f)
}

func number(v any, digits int) string {
	if f, ok := v.(float64); ok {
		return fmt.Sprintf("%.*f", digits, f)
	}
	return "-"
}
