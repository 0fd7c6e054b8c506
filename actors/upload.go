package actors

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// A master answers 500 for a job that it does not know. Only after so many of these, for
// so long, is the result a dead letter: a master may still be loading its jobs.
const (
	unknownLimit = 3
	unknownFor   = 5 * time.Second
)

// verdict is the end of a result, and why.
type verdict struct {
	state job.RecordState
	why   string
}

// delivery is what one try to deliver a result came to. Without an error the result is
// settled as the verdict says, or gone.
type delivery struct {
	record       job.Record
	gone         bool // the journal has no result to send
	verdict      *verdict
	lease        job.LeaseStatus
	askedAt      time.Time // when the master was asked for the lease; zero: it gave no answer
	responseLost bool      // the master may have taken the result
	unknownJob   bool      // the master refused the result and does not list the job
	err          error
}

func (d *delivery) asked() bool { return !d.askedAt.IsZero() }

// deliver asks for the lease where it may have been lost, sends the result, and settles
// it in the journal. What the master once decided is not asked again when only the
// journal could not be written.
func (u *uploader) deliver(ctx context.Context, up upload) (d delivery) {
	d.verdict = up.verdict
	if d.record, d.gone, d.err = u.read(up); d.gone || d.err != nil {
		return d
	}
	if d.verdict == nil && u.mustAsk(up, d.record) {
		if u.ask(ctx, up, &d); d.err != nil {
			return d
		}
		if d.record.State == job.RecordSent && d.lease != job.LeaseHeld {
			d.gone = true // the master still has what it took
			return d
		}
		d.verdict = u.lostLease(d.record, d.lease, up.sent, up.overtaken.Load())
	}
	if d.verdict == nil {
		u.report(ctx, up, &d)
	}
	if d.verdict != nil {
		u.verdicts.Store(up.key, d.verdict)
		d.err = u.settle(up.key, *d.verdict)
	}
	return d
}

// read returns the record of a result; gone where there is nothing to send any more.
func (u *uploader) read(up upload) (record job.Record, gone bool, err error) {
	if up.record != nil {
		return *up.record, false, nil
	}
	record, found, err := u.Journal.Record(up.key)
	if err != nil {
		return job.Record{}, false, err
	}
	return record, !found || (record.State != job.RecordResult && record.State != job.RecordSent), nil
}

// mustAsk reports whether the lease may have been lost: the master may have the result,
// has not confirmed the lease lately, or gave this agent a later attempt. A result that
// the master took is sent again only to one that says it still waits for it. A failure is
// never sent unasked to a master that does not fence: it may have re-queued the job since,
// and would end the attempt of another worker by it.
func (u *uploader) mustAsk(up upload, record job.Record) bool {
	if !record.Lease.Job.Fenced() && !record.Release && statusOf(record) == protocol.StatusFailed {
		return true
	}
	return up.sent != notSent || up.overtaken.Load() || record.Requeued || record.State == job.RecordSent ||
		age(up.confirmedAt) > u.settings().UnavailableAfter
}

// wanted reports whether the master takes a result although it has re-queued or failed the
// job: a completed one of a job that it did not give away for want of heartbeats.
func (u *uploader) wanted(record job.Record) bool {
	return statusOf(record) == protocol.StatusCompleted && (record.Requeued || u.mayComplete(record.Lease))
}

// statusOf is the status that a result reports; empty if it is unreadable.
func statusOf(record job.Record) protocol.Status {
	var result struct{ Status protocol.Status }
	_ = json.Unmarshal(record.Result, &result)
	return result.Status
}

// age is the time since t by whichever clock went further: the monotonic clock stands
// still while the machine is suspended, and the wall clock may be set back.
func age(t time.Time) time.Duration {
	return max(time.Since(t), time.Now().Round(0).Sub(t.Round(0)))
}

// ask asks for the lease, and once more where this agent was given a later attempt while
// the answer was on its way, or where the answer is so old, by the process or the machine
// having been stopped, that the master may have reassigned the job since.
func (u *uploader) ask(ctx context.Context, up upload, d *delivery) {
	for range 2 {
		at, overtaken := time.Now(), up.overtaken.Load()
		lease, err := u.Master.Extend(ctx, d.record.Lease)
		if err != nil {
			d.err = err
			return
		}
		if overtaken == up.overtaken.Load() && age(at) <= u.settings().UnavailableAfter {
			d.lease, d.askedAt = lease, at
			return
		}
	}
	d.err = errOutdated
}

// errOutdated is retried, as when the master does not answer.
var errOutdated = errors.New("the master's answer about the lease was out of date twice: it took longer than master.unavailable_after, or this agent was given a later attempt meanwhile")

// lostLease is the verdict on a result whose lease is lost; nil where it is sent. overtaken:
// this agent was given a later attempt, which may have ended the job.
func (u *uploader) lostLease(record job.Record, lease job.LeaseStatus, sent sentState, overtaken bool) *verdict {
	why := lossOf(lease)
	if why == "" || takesCompleted(lease) && u.wanted(record) {
		return nil
	}
	if sent == responseLost && !overtaken && endedBy(statusOf(record), lease) {
		return &verdict{job.RecordSent, "the job has ended at the master as the result says: it accepted the request whose response was lost"}
	}
	switch sent {
	case responseLost:
		why += "; the result may have been accepted: the response was lost"
	case maybeSent:
		why += "; the result may have been accepted before the restart"
	}
	return &verdict{job.RecordSuperseded, why}
}

// endedBy reports whether the status of a lease is what a result with a status makes it.
func endedBy(result protocol.Status, lease job.LeaseStatus) bool {
	return result == protocol.StatusCompleted && lease == job.LeaseEnded || result == protocol.StatusFailed && lease == job.LeaseFailed
}

// report sends the result once.
func (u *uploader) report(ctx context.Context, up upload, d *delivery) {
	send := u.Master.Report
	if d.record.Release {
		send = u.Master.Release
	}
	err := send(ctx, d.record)
	if err == nil {
		d.verdict = &verdict{job.RecordSent, ""}
		return
	}
	switch protocol.KindOf(err) {
	case protocol.Conflict:
		d.verdict = &verdict{job.RecordSuperseded, err.Error()}
	case protocol.Rejected:
		d.verdict = &verdict{job.RecordDeadLetter, err.Error()}
	case protocol.ServerError, protocol.NotFound:
		u.ask(ctx, up, d)
		d.err = nil
		if d.asked() {
			sent := notSent
			if ambiguous(err) { // a proxy failed, and the master may have the result
				sent = responseLost
			}
			d.verdict = u.lostLease(d.record, d.lease, sent, up.overtaken.Load())
			d.unknownJob = d.lease == job.LeaseUnknown
		}
		if d.unknownJob && up.unknown+1 >= unknownLimit && time.Since(up.unknownFrom) >= unknownFor {
			d.verdict = &verdict{job.RecordDeadLetter, "the master does not know the job: " + err.Error()}
		}
	}
	if d.verdict == nil {
		d.err, d.responseLost = err, ambiguous(err)
	}
}

// ambiguous reports whether the master may have acted on a call that failed.
func ambiguous(err error) bool {
	var e *protocol.Error
	return !errors.As(err, &e) || e.Ambiguous
}

func (u *uploader) settle(key job.Key, v verdict) error {
	err := u.Journal.Settle(key, v.state, v.why)
	if errors.Is(err, job.ErrUnknownAttempt) {
		return nil // the journal was replaced meanwhile as damaged
	}
	return err
}
