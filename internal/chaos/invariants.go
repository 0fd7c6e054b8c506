package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// Finding is how one invariant fared.
type Finding struct {
	Invariant string
	Checked   int // cases that were looked at
	Excused   int // cases without a verdict
	// Inapplicable: the run was not made to have a case.
	Inapplicable bool
	Note         string
	Violations   []string
}

func (f *Finding) violate(format string, args ...any) {
	f.Violations = append(f.Violations, fmt.Sprintf(format, args...))
}

// Check looks at a history for all that must always hold.
func (h *History) Check() []Finding {
	return []Finding{
		h.checkJobsEnd(), h.checkAcceptedOnce(), h.checkQueriedBeforeResend(), h.checkSupersededNotSent(), h.checkLeaseConfirmed(), h.checkResultsEqual(), h.checkAttemptRunsOnce(), h.checkHeartbeatGaps(),
		h.checkNothingOutlives(), h.checkCleanup(), h.checkRequeued(), h.checkOutputs(), h.checkUsage(), h.checkFailureReasons(), h.checkJoules(), h.checkHeartbeatRate(), h.checkFaultsObserved(),
	}
}

func timestamp(t time.Time) string { return t.Format("15:04:05.000") }

// checkJobsEnd: each job that a master accepted ends there, and no agent keeps anything.
func (h *History) checkJobsEnd() Finding {
	f := Finding{Invariant: "every accepted job ends in one record"}
	outcomes := map[protocol.Status]int{}
	forgotten := 0
	for _, j := range h.sortedJobs() {
		switch {
		case j.Forgotten:
			forgotten++
		case !j.Status.Terminal():
			f.Checked++
			f.violate("job %s, submitted %s, is %s after %d retries", j.ID, timestamp(j.Submitted), j.Status, j.Retries)
		default:
			f.Checked++
			outcomes[j.Status]++
			if j.Status == protocol.StatusCanceled && !j.Canceled {
				f.violate("job %s is canceled, and nobody canceled it", j.ID)
			}
			if j.Status == protocol.StatusFailed && j.Retries < j.MaxRetries {
				f.violate("job %s failed for good after %d of %d retries", j.ID, j.Retries, j.MaxRetries)
			}
		}
	}
	if h.Unsettled != "" {
		f.violate("the agents did not come to rest: %s", h.Unsettled)
	}
	if h.UnexpectedDeadLetters > 0 {
		f.violate("%d results became dead letters, though no master forgot their jobs", h.UnexpectedDeadLetters)
	}
	f.Note = fmt.Sprintf("%d completed, %d failed after all retries, %d canceled, %d forgotten by their master",
		outcomes[protocol.StatusCompleted], outcomes[protocol.StatusFailed], outcomes[protocol.StatusCanceled], forgotten)
	return f
}

func (h *History) sortedJobs() []*Job {
	var jobs []*Job
	for _, j := range h.Jobs {
		jobs = append(jobs, j)
	}
	slices.SortFunc(jobs, func(a, b *Job) int {
		if c := a.Submitted.Compare(b.Submitted); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return jobs
}

// stalledFor is how long this program was not scheduled within a period.
func (h *History) stalledFor(from, to time.Time) (sum time.Duration) {
	for _, s := range h.Stalls {
		if s.Overlaps(from, to) {
			sum += s.To.Sub(s.From)
		}
	}
	return sum
}

// checkOutputs: what stands under a final name is complete, and a job that completed has
// its output.
func (h *History) checkOutputs() Finding {
	f := Finding{Invariant: "an output is complete or absent"}
	found := map[string]bool{}
	for _, o := range h.Outputs {
		f.Checked++
		found[o.Path] = true
		if o.Problem != "" {
			f.violate("%s of job %s: %s", o.Path, o.Job, o.Problem)
		}
	}
	for _, j := range h.sortedJobs() {
		if j.Status == protocol.StatusCompleted && j.Output != "" && !found[j.Output] {
			f.violate("job %s completed, and %s was never there", j.ID, j.Output)
		}
	}
	return f
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// minInjections is how often a kind of fault has to be played before it means something that
// none of them was seen to have an effect.
const minInjections = 4

// minTargetless is how often a kind of fault has to have no target, and never one, before the
// run itself is at fault: it does not recognize what it should hit.
const minTargetless = 10

// checkFaultsObserved: an agent that does what it should shows the effect of each kind of fault.
func (h *History) checkFaultsObserved() Finding {
	f := Finding{Invariant: "each kind of fault has its effect"}
	for _, t := range h.Tallies() {
		f.Checked++
		if t.Observed == 0 && t.Injected-t.Skipped >= minInjections {
			f.violate("%s was played %d times and never seen: %s", t.Kind, t.Injected, t.Error)
		} else if t.Observed == 0 && t.Injected-t.Unavailable >= minTargetless {
			f.violate("%s was due %d times and never had a target: %s", t.Kind, t.Injected, t.Error)
		}
	}
	return f
}
