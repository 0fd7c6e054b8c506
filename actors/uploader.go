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
)

const (
	// uploadsAtOnce bounds the results on their way, so that none waits for another
	// and a master that comes back is not flooded.
	uploadsAtOnce = 4
	// unknownRefusals is how often a result must meet a 500 for a job that the
	// master does not list before it becomes a dead letter.
	unknownRefusals = 3
)

// uploader brings results from the journal to the master. A result leaves the
// journal only when the master took it, when it is superseded, or as a dead letter;
// each has its own pace, so that none blocks those behind it.
type uploader struct {
	*env
	log      *zap.Logger
	unsent   map[messages.AttemptKey]*upload
	order    []messages.AttemptKey // oldest first
	sending  int
	drain    *messages.Drain
	failures outage
}

// upload is one unsent result.
type upload struct {
	key    messages.AttemptKey
	record *messages.Record // nil until read from the journal
	pacer  *messages.Pacer
	retry  *supervision.Timer
	busy   bool
	tried  bool // the poller was told
	// askFirst: an earlier sending may have been taken, so ask how the lease
	// stands before sending again.
	askFirst bool
	// fresh is when the lease was last known to stand.
	fresh   time.Time
	refused int // 500s in a row while the master did not list the job
}

func newUploader(e *env) *uploader {
	log := e.log.Named("uploader")
	return &uploader{
		env: e, log: log,
		unsent:   map[messages.AttemptKey]*upload{},
		failures: outage{log: log, what: "sending a result"},
	}
}

func (u *uploader) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		u.load(ctx)
	case *messages.ResultReady:
		u.add(m.Key, false)
		u.next(ctx)
	case *messages.Drain:
		u.startDrain(ctx, m)
	}
}

// load takes up what an earlier incarnation or life left unsent. It cannot know
// whether a sending was under way then, so it asks first.
func (u *uploader) load(ctx actor.Context) {
	supervision.Go(ctx, func(context.Context) ([]messages.Record, error) {
		return u.Journal.Unsent()
	}, func(ctx actor.Context, records []messages.Record, err error) {
		if err != nil {
			u.log.Error("reading unsent results from the journal failed; trying again", zap.Error(err))
			supervision.After(ctx, diskRetry, u.load)
			return
		}
		if len(records) > 0 {
			u.log.Info("results of earlier are to be sent", zap.Int("results", len(records)))
		}
		for i := range records {
			u.add(records[i].Key(), true)
		}
		u.next(ctx)
	})
}

func (u *uploader) add(key messages.AttemptKey, askFirst bool) {
	if _, known := u.unsent[key]; known {
		return
	}
	u.unsent[key] = &upload{key: key, askFirst: askFirst, fresh: time.Now(), pacer: messages.NewUploadPacer()}
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

// outcome is what one try came to: settled, or err says why not.
type outcome struct {
	record   messages.Record
	end      messages.RecordState // set when the result is settled
	why      string
	standing messages.Standing // meaningful when asked
	asked    bool              // the master said how the lease stands
	err      error
}

func (u *uploader) attempt(ctx actor.Context, up *upload) {
	up.busy = true
	u.sending++
	snapshot := *up
	late := time.Since(up.fresh) > u.settings.Load().UnavailableAfter
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
			u.refs.poller.Tell(&messages.ResultTried{Key: up.key})
		}
		u.next(ctx)
	})
}

// try asks how the lease stands where that is due, sends the result, and settles it
// in the journal when it is through.
func (u *uploader) try(ctx context.Context, up upload, late bool) (o outcome) {
	if up.record == nil {
		record, found, err := u.Journal.Record(up.key)
		if err != nil {
			return outcome{err: err}
		}
		if !found || record.State != messages.RecordResult {
			return outcome{end: messages.RecordSent} // settled already: nothing to do
		}
		up.record = &record
	}
	o.record = *up.record
	if up.askFirst || late {
		if u.ask(ctx, &o); o.err != nil {
			return o
		}
		switch {
		case o.standing == messages.StandingEnded && up.askFirst:
			o.end, o.why = messages.RecordSent, "the job had ended when the master was asked: an earlier sending was taken"
		case o.standing == messages.StandingEnded:
			o.end, o.why = messages.RecordSuperseded, "the job had ended at the master without this result"
		case o.standing == messages.StandingGivenAway:
			o.end, o.why = messages.RecordSuperseded, "the master had given the job away"
		}
	}
	if o.end == "" {
		u.send(ctx, up, &o)
	}
	if o.end != "" {
		if err := u.Journal.Settle(up.key, o.end, o.why); err != nil {
			o.end, o.err = "", err
		}
	}
	return o
}

func (u *uploader) ask(ctx context.Context, o *outcome) {
	o.standing, o.err = u.Master.Extend(ctx, o.record.Lease)
	o.asked = o.err == nil
}

// send sends the result once and judges what came back.
func (u *uploader) send(ctx context.Context, up upload, o *outcome) {
	deliver := u.Master.Report
	if o.record.Release {
		deliver = u.Master.Release
	}
	err := deliver(ctx, o.record)
	if err == nil {
		o.end = messages.RecordSent
		return
	}
	switch masterErrorKind(err) {
	case messages.MasterConflict:
		o.end, o.why = messages.RecordSuperseded, err.Error()
		return
	case messages.MasterRefused:
		o.end, o.why = messages.RecordDeadLetter, err.Error()
		return
	case messages.MasterBroken, messages.MasterUnknown:
		// A master answers so for a job that it does not know; make sure before giving up.
		if u.ask(ctx, o); o.doubtful() && up.refused+1 >= unknownRefusals {
			o.end, o.why = messages.RecordDeadLetter, "the master does not know the job: "+err.Error()
			return
		}
	}
	o.err = err
}

// doubtful: the master answered, and does not know the job.
func (o *outcome) doubtful() bool { return o.asked && o.standing == messages.StandingUnknown }

// conclude forgets a settled result and tries the others again later.
func (u *uploader) conclude(ctx actor.Context, up *upload, o outcome) {
	if o.end != "" {
		u.settled(ctx, up, o)
		return
	}
	if o.record.State != "" {
		up.record = &o.record
	}
	if o.asked {
		up.askFirst, up.fresh = false, time.Now()
	}
	// A result that was taken but could not be settled on disk is ambiguous as well.
	var fromMaster *messages.MasterError
	if !errors.As(o.err, &fromMaster) || fromMaster.Ambiguous {
		up.askFirst = true
	}
	if o.doubtful() && fromMaster != nil {
		up.refused++
	} else {
		up.refused = 0
	}
	wait := up.pacer.Next(time.Now(), o.err)
	u.failures.failed(o.err, zap.String("job", up.key.JobID), zap.Duration("next_try", wait))
	up.retry = supervision.After(ctx, wait, func(ctx actor.Context) {
		up.retry = nil
		u.next(ctx)
	})
	u.checkDrained()
}

func (u *uploader) settled(ctx actor.Context, up *upload, o outcome) {
	delete(u.unsent, up.key)
	u.order = slices.DeleteFunc(u.order, func(key messages.AttemptKey) bool { return key == up.key })
	fields := append(jobFields(up.key), zap.String("state", string(o.end)))
	switch o.end {
	case messages.RecordDeadLetter:
		u.counts.deadLetters.Add(1)
		u.log.Error("the master refuses a result for good; it is kept as a dead letter", append(fields, zap.String("reason", o.why))...)
	case messages.RecordSuperseded:
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

// hurry retries at once what waited for a master that is there again.
func (u *uploader) hurry(ctx actor.Context) {
	for _, up := range u.unsent {
		if up.retry != nil {
			up.retry.Stop()
			up.retry = nil
		}
	}
	u.next(ctx)
}

// startDrain tries everything once more; what the master does not take now stays
// on disk for the next life.
func (u *uploader) startDrain(ctx actor.Context, m *messages.Drain) {
	u.drain = m
	for _, up := range u.unsent {
		up.tried = up.tried && up.busy
	}
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
