package actors

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

const (
	// uploadsAtOnce bounds the results on their way, so that none waits for another
	// and a master that comes back is not flooded.
	uploadsAtOnce = 4
	// unknownRefusals is how often a result must meet a 500 for a job that the
	// master does not list before it becomes a dead letter.
	unknownRefusals = 3
	// unknownFor is how long that must have gone on: a master may still be loading its jobs.
	unknownFor = 5 * time.Second
	// rescanInterval is how often the journal is compared with what is being sent.
	rescanInterval = 10 * time.Second
)

// uploader brings results from the journal to the master. A result leaves the
// journal only when the master took it, when it is superseded, or as a dead letter;
// each has its own pace, so that none blocks those behind it.
type uploader struct {
	*env
	log      *zap.Logger
	unsent   map[job.Key]*upload
	order    []job.Key // oldest first
	sending  int
	drain    *messages.Drain
	failures outage
	disk     outage
}

// upload is one unsent result.
type upload struct {
	key    job.Key
	record *job.Record // nil until read from the journal
	pacer  *Pacer
	retry  *supervision.Timer
	// unreachable: the retry waits for a master that did not answer at all.
	unreachable bool
	busy        bool
	tried       bool // the poller was told
	// doubt is whether an earlier sending may have been taken; it is asked about before
	// the next.
	doubt doubt
	// stood is when the master last said that the lease stands; zero: not in this life.
	stood time.Time
	// overtaken: this agent was given a later attempt at the job.
	overtaken bool
	refused   int // 500s in a row while the master did not list the job
	refusing  time.Time
}

// doubt is how little is known of an earlier sending.
type doubt int

const (
	noDoubt doubt = iota
	// lifeBefore: an earlier life may have sent it, or may not.
	lifeBefore
	// answerLost: it was sent, and the answer got lost.
	answerLost
)

func newUploader(e *env) *uploader {
	log := e.log.Named("uploader")
	return &uploader{
		env: e, log: log,
		unsent:   map[job.Key]*upload{},
		failures: outage{log: log, what: "sending a result"},
		disk:     outage{log: log, what: "reading unsent results from the journal"},
	}
}

func (u *uploader) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		u.load(ctx)
		supervision.After(ctx, rescanInterval, u.rescan)
	case *messages.ResultReady:
		u.add(m.Key, noDoubt, m.Stood)
		u.next(ctx)
	case *messages.LeaseGiven:
		for key, up := range u.unsent {
			if key.JobID == m.Key.JobID && key.Attempt < m.Key.Attempt {
				up.overtaken = true
			}
		}
	case *messages.Drain:
		u.startDrain(ctx, m)
	}
}

// load takes up what an earlier incarnation or life left unsent. It cannot know
// whether a sending was under way then, so it asks first.
func (u *uploader) load(ctx actor.Context) {
	supervision.Go(ctx, func(context.Context) ([]job.Record, error) {
		return u.Journal.Unsent()
	}, func(ctx actor.Context, records []job.Record, err error) {
		if err != nil {
			u.disk.failed(err)
			supervision.After(ctx, diskRetry, u.load)
			return
		}
		u.disk.over()
		if len(records) > 0 {
			u.log.Info("results of earlier are to be sent", zap.Int("results", len(records)))
		}
		for i := range records {
			u.add(records[i].Key(), lifeBefore, time.Time{})
		}
		u.next(ctx)
	})
}

// rescan finds results whose word got lost with whoever had it to say.
func (u *uploader) rescan(ctx actor.Context) {
	if u.Journal.Stats().Unsent > len(u.unsent) {
		u.load(ctx)
	}
	supervision.After(ctx, rescanInterval, u.rescan)
}

func (u *uploader) add(key job.Key, d doubt, stood time.Time) {
	if _, known := u.unsent[key]; known {
		return
	}
	u.unsent[key] = &upload{key: key, doubt: d, stood: stood, pacer: NewUploadPacer()}
	u.order = append(u.order, key)
}

// next sends what is due, oldest first, as far as there is room.
func (u *uploader) next(ctx actor.Context) {
	for _, key := range u.order {
		if u.sending >= uploadsAtOnce {
			return
		}
		if up := u.unsent[key]; !up.busy && up.retry == nil {
			u.attempt(ctx, up)
		}
	}
}

// outcome is what one try came to: settled, gone, or err says why not.
type outcome struct {
	record   job.Record
	end      job.RecordState // set when the result is settled
	gone     bool            // there is nothing to send
	why      string
	standing job.LeaseStatus // meaningful when asked
	asked    bool            // the master said how the lease stands
	askedAt  time.Time
	err      error
}

func (u *uploader) attempt(ctx actor.Context, up *upload) {
	up.busy = true
	u.sending++
	snapshot := *up
	late := up.overtaken || ago(up.stood) > u.settings.Load().UnavailableAfter
	supervision.Go(ctx, func(work context.Context) (outcome, error) {
		return u.try(work, snapshot, late), nil
	}, func(ctx actor.Context, o outcome, err error) {
		up.busy = false
		u.sending--
		if err != nil {
			o.err = err
		}
		u.conclude(ctx, up, o)
		if !up.tried {
			up.tried = true
			u.refs.poller.Tell(&messages.ResultTried{Key: up.key, Delivered: o.end == job.RecordSent})
		}
		u.next(ctx)
	})
}

// ago is how long a moment lies back, by whichever clock has gone further: the monotonic
// one stands still while the machine is suspended, and the wall clock may be set back.
func ago(t time.Time) time.Duration {
	return max(time.Since(t), time.Now().Round(0).Sub(t.Round(0)))
}

// try asks how the lease stands where that is due, sends the result, and settles it
// in the journal when it is through. A result that the master took once is sent again
// only when the master says that it still holds the lease: it lost what it took.
func (u *uploader) try(ctx context.Context, up upload, late bool) (o outcome) {
	if up.record == nil {
		record, found, err := u.Journal.Record(up.key)
		if err != nil {
			return outcome{err: err}
		}
		if !found || (record.State != job.RecordResult && record.State != job.RecordSent) {
			return outcome{gone: true}
		}
		up.record = &record
	}
	o.record = *up.record
	taken := o.record.State == job.RecordSent
	if up.doubt != noDoubt || late || taken {
		if u.ask(ctx, &o); o.err != nil {
			return o
		}
		if taken && o.standing != job.LeaseHeld {
			o.gone = true
			return o
		}
		o.judge(up.doubt)
	}
	if o.end == "" {
		u.send(ctx, up, &o)
	}
	if o.end != "" {
		// A journal that was set aside meanwhile has nothing to settle.
		if err := u.Journal.Settle(up.key, o.end, o.why); err != nil && !errors.Is(err, job.ErrUnknownAttempt) {
			o.end, o.err = "", err
		}
	}
	return o
}

func (u *uploader) ask(ctx context.Context, o *outcome) {
	at := time.Now()
	standing, err := u.Master.Extend(ctx, o.record.Lease)
	if err != nil {
		o.err = err
		return
	}
	o.standing, o.asked, o.askedAt = standing, true, at
}

// judge settles a result whose lease no longer stands.
func (o *outcome) judge(d doubt) {
	switch {
	case o.standing == job.LeaseReassigned:
		o.end, o.why = job.RecordSuperseded, "the master had given the job away"
	case o.standing == job.LeaseEnded && d == answerLost:
		o.end, o.why = job.RecordSent, "the job had ended when the master was asked: the sending whose answer got lost was taken"
	case o.standing == job.LeaseEnded && d == lifeBefore:
		o.end, o.why = job.RecordSuperseded, "the job had ended when the master was asked; whether by a sending of the agent's earlier life is not known"
	case o.standing == job.LeaseEnded:
		o.end, o.why = job.RecordSuperseded, "the job had ended at the master without this result"
	}
}

// send sends the result once and judges what came back.
func (u *uploader) send(ctx context.Context, up upload, o *outcome) {
	deliver := u.Master.Report
	if o.record.Release {
		deliver = u.Master.Release
	}
	err := deliver(ctx, o.record)
	if err == nil {
		o.end = job.RecordSent
		return
	}
	switch masterErrorKind(err) {
	case protocol.Conflict:
		o.end, o.why = job.RecordSuperseded, err.Error()
	case protocol.Rejected:
		o.end, o.why = job.RecordDeadLetter, err.Error()
	case protocol.ServerError, protocol.NotFound:
		// A master answers so for a job that it does not know; make sure before giving up.
		if u.ask(ctx, o); o.asked {
			o.judge(noDoubt)
		}
		if o.doubtful() && up.refused+1 >= unknownRefusals && time.Since(up.refusing) >= unknownFor {
			o.end, o.why = job.RecordDeadLetter, "the master does not know the job: "+err.Error()
		}
	}
	if o.err = nil; o.end == "" {
		o.err = err
	}
}

// doubtful: the master answered, and does not know the job.
func (o *outcome) doubtful() bool { return o.asked && o.standing == job.LeaseUnknown }

// conclude forgets a settled result and tries the others again later.
func (u *uploader) conclude(ctx actor.Context, up *upload, o outcome) {
	switch {
	case o.gone:
		u.forget(up)
		u.checkDrained()
		return
	case o.end != "":
		u.settled(ctx, up, o)
		return
	}
	if o.record.State != "" {
		up.record = &o.record
	}
	if o.asked {
		up.doubt, up.stood = noDoubt, o.askedAt
	}
	// A result that was taken but could not be settled on disk is in doubt as well.
	var fromMaster *protocol.Error
	if !errors.As(o.err, &fromMaster) || fromMaster.Ambiguous {
		up.doubt = answerLost
	}
	if !o.doubtful() || fromMaster == nil {
		up.refused = 0
	} else if up.refused++; up.refused == 1 {
		up.refusing = time.Now()
	}
	wait := up.pacer.Next(time.Now(), o.err)
	up.unreachable = masterErrorKind(o.err) == protocol.Unreachable
	u.failures.failed(o.err, zap.String("job", up.key.JobID), zap.Duration("next_try", wait))
	up.retry = supervision.After(ctx, wait, func(ctx actor.Context) {
		up.retry = nil
		u.next(ctx)
	})
	u.checkDrained()
}

func (u *uploader) forget(up *upload) {
	delete(u.unsent, up.key)
	u.order = slices.DeleteFunc(u.order, func(key job.Key) bool { return key == up.key })
}

func (u *uploader) settled(ctx actor.Context, up *upload, o outcome) {
	u.forget(up)
	fields := append(jobFields(up.key), zap.String("state", string(o.end)))
	switch o.end {
	case job.RecordDeadLetter:
		u.counts.deadLetters.Add(1)
		u.log.Error("the master refuses a result for good; it is kept as a dead letter", append(fields, zap.String("reason", o.why))...)
	case job.RecordSuperseded:
		u.counts.superseded.Add(1)
		u.log.Warn("a result is superseded and was discarded", append(fields, zap.String("reason", o.why))...)
	default:
		u.counts.delivered.Add(1)
		u.failures.over()
		u.log.Info("result delivered", jobFields(up.key)...)
		u.hurry(ctx)
	}
	u.checkDrained()
}

// hurry retries at once what waited for a master that is there again. Who was told
// to wait by the master waits on.
func (u *uploader) hurry(ctx actor.Context) {
	for _, up := range u.unsent {
		if up.retry != nil && up.unreachable {
			up.retry.Stop()
			up.retry = nil
		}
	}
	u.next(ctx)
}

// startDrain tries once more what waits for the master to be there; what it does not
// take now stays on disk for the next life.
func (u *uploader) startDrain(ctx actor.Context, m *messages.Drain) {
	u.drain = m
	u.hurry(ctx)
	u.checkDrained()
}

func (u *uploader) checkDrained() {
	if u.drain == nil {
		return
	}
	for _, up := range u.unsent {
		if up.busy || up.retry == nil {
			return
		}
	}
	u.drain.Ready()
}
