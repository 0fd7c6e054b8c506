package chaos

import (
	"fmt"
	"strings"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// failureCause is a fault that hit an attempt, and the failure that it must report.
type failureCause struct {
	reason        protocol.FailureReason
	errorContains string // part of the error; empty: anything
}

// checkFailureReasons: an attempt fails only because of a fault that hit it, and says so.
func (h *History) checkFailureReasons() Finding {
	f := Finding{Invariant: "a failure says its true reason"}
	counts := map[protocol.FailureReason]int{}
	for i := range h.Exchanges {
		x := &h.Exchanges[i]
		if x.Result == nil {
			continue
		}
		r := x.Result
		job := h.Jobs[r.JobID]
		switch {
		case job == nil:
			f.violate("agent %d sent a result of job %s, which nobody submitted", x.Agent, r.JobID)
		case job.RequestUnknown:
		case r.Status == protocol.StatusCanceled:
			f.Checked++
			if !job.Canceled {
				f.violate("job %s, attempt %d, is reported as canceled, and nobody canceled it", r.JobID, r.Attempt)
			}
		case r.Status == protocol.StatusFailed:
			f.Checked++
			counts[r.FailureReason]++
			if causes := h.causes(x, job); !hasCause(r, causes) {
				f.violate("job %s, attempt %d, of agent %d failed at %s for %s: %q; what was done to it: %s",
					r.JobID, r.Attempt, x.Agent, timestamp(x.From), r.FailureReason, r.Error, formatCauses(causes))
			}
		case job.WantFailure != "":
			f.Checked++
			f.violate("job %s, attempt %d, cannot be done (%s), and is reported as %s", r.JobID, r.Attempt, job.WantFailure, r.Status)
		}
	}
	var notes []string
	for _, reason := range []protocol.FailureReason{protocol.ReasonCapabilityMismatch, protocol.ReasonUserError, protocol.ReasonInputError, protocol.ReasonNetworkError,
		protocol.ReasonTimeout, protocol.ReasonResourceError, protocol.ReasonPlatformError, protocol.ReasonRuntimeError} {
		if counts[reason] > 0 {
			notes = append(notes, fmt.Sprintf("%d %s", counts[reason], reason))
		}
	}
	f.Note = strings.Join(notes, ", ")
	return f
}

func hasCause(r *protocol.JobResult, causes []failureCause) bool {
	for _, c := range causes {
		if c.reason == r.FailureReason && strings.Contains(r.Error, c.errorContains) {
			return true
		}
	}
	return false
}

func formatCauses(causes []failureCause) string {
	if len(causes) == 0 {
		return "nothing"
	}
	var all []string
	for _, c := range causes {
		all = append(all, strings.TrimSuffix(fmt.Sprintf("%s %s", c.reason, c.errorContains), " "))
	}
	return strings.Join(all, ", ")
}

// causes are the faults that hit the attempt of a result, from its earliest start.
func (h *History) causes(x *Exchange, job *Job) []failureCause {
	var all []failureCause
	if job.WantFailure != "" {
		all = append(all, failureCause{reason: job.WantFailure})
	}
	begun := h.attemptStart(x, job)
	for _, l := range h.Processes {
		if l.Agent == x.Agent && !l.To.IsZero() && l.To.After(begun) && l.To.Before(x.To) {
			all = append(all, failureCause{reason: protocol.ReasonPlatformError})
		}
	}
	for _, f := range h.Faults {
		if f.Overlaps(begun, x.To) && !f.Skipped {
			all = append(all, f.causes(h, x, job)...)
		}
	}
	return all
}

// attemptStart is the earliest moment at which an attempt can have begun: when the job was
// submitted, or the attempt before it was given up.
func (h *History) attemptStart(x *Exchange, job *Job) time.Time {
	begun := job.Submitted
	for i := range h.Exchanges {
		before := &h.Exchanges[i]
		if before.Result != nil && before.Result.JobID == job.ID && before.Result.Attempt < x.Result.Attempt && before.MasterStatus/100 == 2 &&
			before.From.After(begun) && before.From.Before(x.From) {
			begun = before.From
		}
	}
	return begun
}

// minFullTime is for how long a disk has to be full while FFmpeg runs for an agent to see it: it
// looks twenty times in the stall timeout, and nothing shows it once there is room again.
const minFullTime = stallTimeout / 6

// pausedFor is the longest time that an agent did not run within a period.
func (h *History) pausedFor(agent int, from, to time.Time) time.Duration {
	sum := h.stalledFor(from, to)
	for _, f := range h.Faults {
		if f.Agent == agent && f.Kind == "agent: SIGSTOP" {
			sum += f.overlap(from, to)
		}
	}
	return sum
}

// causes are the failures that a fault may cause in the attempt of a result.
func (f *InjectedFault) causes(h *History, x *Exchange, job *Job) []failureCause {
	mine := f.Agent == x.Agent
	// A running attempt may have taken a later lease of its job since.
	taken := !h.epochAt(x.From).Fences && mine && f.Attempt.Job == x.Result.JobID && f.Attempt.Number < x.Result.Attempt
	hit := f.Attempt == x.Attempt() || taken
	switch {
	case f.Kind == "ffmpeg: SIGKILL" && hit:
		return []failureCause{{protocol.ReasonRuntimeError, "SIGKILL"}}
	case f.Kind == "ffmpeg: SIGSEGV" && hit:
		return []failureCause{{protocol.ReasonRuntimeError, "SIGSEGV"}}
	case f.Kind == "ffmpeg: SIGTERM" && hit:
		// 1, and what it says of its input, while it opens that.
		return []failureCause{{protocol.ReasonRuntimeError, "exit status 255"}, {protocol.ReasonRuntimeError, "exit status 1: "}, {protocol.ReasonRuntimeError, "SIGTERM"}}
	case f.Kind == "ffmpeg: stopped for good" && hit:
		return []failureCause{{reason: protocol.ReasonTimeout}}
	case f.Kind == "agent: SIGTERM" && mine:
		return []failureCause{{protocol.ReasonPlatformError, "interrupted"}, {protocol.ReasonPlatformError, "returned unstarted"}}
	case (f.Kind == "disk: data full" || f.Kind == fetchDiskKind) && mine, f.Kind == "disk: outputs full" && job.Output != "":
		causes := []failureCause{{reason: protocol.ReasonResourceError}}
		if e, ran := x.energy(); ran && f.overlap(e.Start, e.End) > 0 && f.overlap(e.Start, e.End)-h.pausedFor(x.Agent, e.Start, e.End) < minFullTime {
			causes = append(causes, failureCause{protocol.ReasonRuntimeError, "exit status"})
		}
		return causes
	}
	return nil
}
