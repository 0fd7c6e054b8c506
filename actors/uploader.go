package actors

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

const (
	// maxUploads bounds the results in flight, so that none waits for another and a
	// master that comes back is not flooded.
	maxUploads = 4
	// rescanInterval is how often the journal is compared with what is being sent.
	rescanInterval = 10 * time.Second
)

// uploader delivers results from the journal to the master. A result leaves the journal
// only when the master took it, when it is superseded, or as a dead letter. Each has its
// own backoff, so that none blocks those behind it.
type uploader struct {
	*shared
	log      *zap.Logger
	unsent   map[job.Key]*upload
	order    []job.Key // oldest first
	inFlight int
	held     []job.Key // leases that jobs holds
	heldSent bool      // jobs has sent them to this incarnation
	loaded   bool      // the journal was asked for unsent results
	drain    *messages.Drain
	failures outage // of deliveries
	reading  outage // of the journal
	settling outage
}

// upload is one unsent result.
type upload struct {
	key      job.Key
	record   *job.Record // nil until read from the journal
	backoff  *callBackoff
	retry    *supervision.Timer
	inFlight bool
	tried    bool // jobs was notified that it was sent or could not be
	// unreachable: the retry waits for a master that did not answer at all, refused: for one that
	// may take the result with another key.
	unreachable, refused bool
	sent                 sentState
	confirmedAt          time.Time    // when the master last confirmed the lease; zero: not to this process
	overtaken            *atomic.Bool // this agent was given a later attempt at the job
	verdict              *verdict     // set once only the journal remains to be written
	unknown              int          // refusals in a row while the master did not list the job
	unknownFrom          time.Time    // of the first of them
}

// sentState is what is known of an earlier sending of a result. Where the master may
// have it, it is asked before the next.
type sentState int

const (
	notSent sentState = iota
	// maybeSent: a previous process or incarnation may have sent it.
	maybeSent
	// responseLost: it was sent, and no response came back.
	responseLost
)

func newUploader(s *shared) *uploader {
	log := s.log.Named("uploader")
	return &uploader{
		shared: s, log: log,
		unsent:   map[job.Key]*upload{},
		drain:    s.stop.drainOf("uploader"),
		failures: outage{log: log, failing: "could not deliver a result", over: "results are delivered again"},
		settling: outage{log: log, failing: "could not settle a delivered result in the journal", over: "results are settled in the journal again"},
		reading:  outage{log: log, failing: "could not read unsent results from the journal", over: "unsent results are readable again"},
	}
}

func (u *uploader) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		u.refs.jobs.Tell(&messages.SendState{})
		u.load(ctx)
		supervision.After(ctx, rescanInterval, u.rescan)
	case *messages.ResultReady:
		u.ready(m)
		u.sendDue(ctx)
	case *messages.HeldLeases:
		u.held, u.heldSent = m.Keys, true
		for _, up := range u.unsent {
			if u.hasLater(up.key) {
				up.overtaken.Store(true)
			}
		}
	case *messages.Drain:
		u.drain = m
		u.retryUnreachable(ctx)
		u.checkDrained()
	case *messages.SettingsChanged:
		u.retry(ctx, func(up *upload) bool { return up.refused })
	}
}

// ready takes in a new result. Before jobs has sent its leases, one may be overtaken
// unnoticed: then the master is asked first.
func (u *uploader) ready(m *messages.ResultReady) {
	confirmed := m.ConfirmedAt
	if !u.heldSent {
		confirmed = time.Time{}
	}
	u.add(m.Key, notSent, confirmed)
}

// load takes up what a previous process or incarnation left unsent.
func (u *uploader) load(ctx actor.Context) {
	supervision.Go(ctx, func(context.Context) ([]job.Record, error) {
		return u.Journal.Unsent()
	}, func(ctx actor.Context, records []job.Record, err error) {
		if err != nil {
			u.reading.failed(err)
			supervision.After(ctx, diskRetry, u.load)
			u.loaded = true // a drain does not wait for a journal that cannot be read
			u.checkDrained()
			return
		}
		u.reading.recovered()
		u.loaded = true
		if len(records) > 0 {
			u.log.Info("resending results left in the journal", zap.Int("results", len(records)))
		}
		for i := range records {
			u.add(records[i].Key(), maybeSent, time.Time{})
		}
		u.sendDue(ctx)
		u.checkDrained()
	})
}

// rescan picks up journalled results whose ResultReady was lost in a crash.
func (u *uploader) rescan(ctx actor.Context) {
	if u.Journal.Stats().Unsent > len(u.unsent) {
		u.load(ctx)
	}
	supervision.After(ctx, rescanInterval, u.rescan)
}

func (u *uploader) add(key job.Key, sent sentState, confirmed time.Time) {
	if _, known := u.unsent[key]; known {
		return
	}
	up := &upload{key: key, sent: sent, confirmedAt: confirmed, overtaken: new(atomic.Bool), backoff: uploadBackoff()}
	up.overtaken.Store(u.hasLater(key))
	if v, decided := u.verdicts.Load(key); decided {
		up.verdict = v.(*verdict)
	}
	u.unsent[key] = up
	u.order = append(u.order, key)
}

// hasLater reports whether jobs holds a lease for a later attempt at the job.
func (u *uploader) hasLater(key job.Key) bool {
	return slices.ContainsFunc(u.held, func(h job.Key) bool { return h.JobID == key.JobID && h.Attempt > key.Attempt })
}

// sendDue sends what is due, oldest first, as far as maxUploads allows.
func (u *uploader) sendDue(ctx actor.Context) {
	for _, key := range u.order {
		if u.inFlight >= maxUploads {
			return
		}
		if up := u.unsent[key]; !up.inFlight && up.retry == nil {
			u.send(ctx, up)
		}
	}
}

func (u *uploader) send(ctx actor.Context, up *upload) {
	up.inFlight = true
	u.inFlight++
	snapshot := *up
	supervision.Go(ctx, func(work context.Context) (delivery, error) {
		return u.deliver(work, snapshot), nil
	}, func(ctx actor.Context, d delivery, err error) {
		up.inFlight = false
		u.inFlight--
		if err != nil {
			d.err = err
		}
		u.conclude(ctx, up, d)
		if !up.tried {
			up.tried = true
			u.refs.jobs.Tell(&messages.ResultTried{Key: up.key})
		}
		u.sendDue(ctx)
		u.checkDrained()
	})
}

// conclude forgets a settled result, and schedules the next try of any other.
func (u *uploader) conclude(ctx actor.Context, up *upload, d delivery) {
	switch {
	case d.gone:
		u.forget(up)
		u.refs.poller.Tell(&messages.ResultTaken{Key: up.key})
		return
	case d.err == nil:
		u.settled(ctx, up, *d.verdict)
		return
	}
	up.apply(d)
	wait := diskRetry
	if d.verdict != nil {
		u.settling.failed(d.err, zap.String("job", up.key.JobID), zap.Duration("next_try", wait))
		u.refs.janitor.Tell(&messages.JournalFailed{})
	} else {
		wait = up.backoff.next(time.Now(), d.err)
		u.failures.failed(d.err, zap.String("job", up.key.JobID), zap.Duration("next_try", wait))
	}
	up.retry = supervision.After(ctx, wait, func(ctx actor.Context) {
		up.retry = nil
		u.sendDue(ctx)
	})
}

func (u *uploader) forget(up *upload) {
	delete(u.unsent, up.key)
	u.verdicts.Delete(up.key)
	u.order = slices.DeleteFunc(u.order, func(key job.Key) bool { return key == up.key })
}

func (u *uploader) settled(ctx actor.Context, up *upload, v verdict) {
	u.forget(up)
	u.settling.recovered()
	fields := append(jobFields(up.key), zap.String("reason", v.why))
	switch v.state {
	case job.RecordDeadLetter:
		u.counts.deadLetters.Add(1)
		u.log.Error("the master rejected a result permanently; the journal keeps it as a dead letter", fields...)
	case job.RecordSuperseded:
		u.counts.superseded.Add(1)
		u.log.Warn("discarded a superseded result", fields...)
	default:
		u.counts.delivered.Add(1)
		u.failures.recovered()
		u.log.Info("result delivered", jobFields(up.key)...)
		u.refs.poller.Tell(&messages.ResultTaken{Key: up.key})
		u.retryUnreachable(ctx)
	}
}

// retryUnreachable retries at once what waited for a master that did not answer. Results
// under Retry-After keep their delay.
func (u *uploader) retryUnreachable(ctx actor.Context) {
	u.retry(ctx, func(up *upload) bool { return up.unreachable })
}

func (u *uploader) retry(ctx actor.Context, which func(*upload) bool) {
	for _, up := range u.unsent {
		if up.retry != nil && which(up) {
			up.retry.Stop()
			up.retry = nil
		}
	}
	u.sendDue(ctx)
}

// checkDrained is ready once each result was tried: what the master does not take now
// stays in the journal for the next start.
func (u *uploader) checkDrained() {
	if u.drain == nil || !u.loaded {
		return
	}
	for _, up := range u.unsent {
		if up.inFlight || up.retry == nil {
			return
		}
	}
	u.drain.Ready()
}

// apply keeps what a failed delivery brought to light.
func (up *upload) apply(d delivery) {
	if d.record.State != "" {
		up.record = &d.record
	}
	up.verdict = d.verdict
	if d.asked() {
		up.sent, up.confirmedAt = notSent, d.askedAt
	}
	if d.responseLost {
		up.sent = responseLost
	}
	if !d.unknownJob {
		up.unknown = 0
	} else if up.unknown++; up.unknown == 1 {
		up.unknownFrom = time.Now()
	}
	up.unreachable = protocol.KindOf(d.err) == protocol.Unreachable
	up.refused = dependsOnKey(d.err)
}
