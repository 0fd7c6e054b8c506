package actors

import (
	"context"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// resultPatience is how long a poll waits for the last job's result to be sent.
const resultPatience = time.Second

// notYet closes a gate until its check has been made.
const notYet = "not looked at yet"

// poller asks the master for work whenever a slot is free, and looks for leases
// whose answer was lost. It makes one call at a time.
type poller struct {
	*env
	log     *zap.Logger
	session *messages.Session
	free    int
	gates   map[string]string // by name, why no work is taken; empty: the check passes
	// awaiting are the results that must be tried before the next poll.
	awaiting map[job.Key]*supervision.Timer
	asking   bool               // a call is on its way
	pause    time.Time          // after a failure: no poll before
	repeated time.Time          // after an offer of what has ended here: no poll before
	wait     *supervision.Timer // until the next poll of an idle or failing agent
	recon    *supervision.Timer // until the next look for lost leases
	// owed: a lease may have been lost, so look at the next occasion, busy or not.
	owed     bool
	again    bool // a look for lost leases was asked for while a call was on its way
	due      bool // so was a poll
	drain    *messages.Drain
	pacer    *Pacer
	failures outage
}

func newPoller(e *env) *poller {
	log := e.log.Named("poller")
	return &poller{
		env:      e,
		log:      log,
		session:  e.board.Session(),
		gates:    map[string]string{gateDisk: notYet, gateFFmpeg: notYet},
		awaiting: map[job.Key]*supervision.Timer{},
		pacer:    NewRegistrationPacer(),
		failures: outage{log: log, what: "asking the master for work"},
	}
}

func (p *poller) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		p.postGates()
		p.refs.jobs.Tell(&messages.PollerStarted{})
		p.refs.janitor.Tell(&messages.PollerStarted{})
		p.reconcile(ctx, p.poll)
	case *messages.SessionChanged:
		p.session, p.pause = &m.Session, time.Time{}
		p.reconcile(ctx, p.poll)
	case *messages.JobsStarted:
		p.owed = true
		p.reconcile(ctx, p.poll)
	case *messages.SlotsChanged:
		p.free = m.Free
		p.poll(ctx)
	case *messages.JobEnded:
		p.awaiting[m.Key] = supervision.After(ctx, resultPatience, func(ctx actor.Context) { p.tried(ctx, m.Key) })
	case *messages.ResultTried:
		if m.Delivered {
			p.pause = time.Time{} // the master is well
		}
		p.tried(ctx, m.Key)
	case *messages.OfferDropped:
		// Unlike a failure's, this pause does not end with a result that the master takes: it is
		// the very one that the repeated offer had sent again.
		wait := jitter(p.settings.Load().PollInterval)
		p.repeated = time.Now().Add(wait)
		p.later(ctx, wait)
	case *messages.Gate:
		p.gate(ctx, m)
	case *messages.Drain:
		p.drain = m
		p.checkDrained()
	}
}

func (p *poller) tried(ctx actor.Context, key job.Key) {
	if t, ok := p.awaiting[key]; ok {
		t.Stop()
		delete(p.awaiting, key)
		p.poll(ctx)
	}
}

func (p *poller) gate(ctx actor.Context, g *messages.Gate) {
	old := p.gates[g.Name]
	if old == g.Reason {
		return
	}
	// A reason that changes in its figures is no news.
	switch wasClosed := old != "" && old != notYet; {
	case g.Reason == "" && wasClosed:
		p.log.Info("nothing keeps work out any more", zap.String("check", g.Name))
	case g.Reason != "" && !wasClosed:
		p.log.Warn("taking no work", zap.String("check", g.Name), zap.String("reason", g.Reason))
	}
	p.gates[g.Name] = g.Reason
	p.postGates()
	p.poll(ctx)
}

func (p *poller) postGates() {
	gates := maps.Clone(p.gates)
	p.board.gates.Store(&gates)
}

func (p *poller) mayPoll() bool {
	for _, reason := range p.gates {
		if reason != "" {
			return false
		}
	}
	return p.session != nil && p.free > 0 && len(p.awaiting) == 0 && !p.asking &&
		!time.Now().Before(p.pause) && !time.Now().Before(p.repeated) && !p.board.Draining()
}

// poll asks for one job at once, if there is anything to ask for.
func (p *poller) poll(ctx actor.Context) {
	if p.asking {
		p.due = true // no timer may be left to bring it up again
		return
	}
	if !p.mayPoll() {
		return
	}
	p.asking, p.due = true, false
	session := *p.session
	supervision.Go(ctx, func(work context.Context) (*job.Lease, error) {
		return p.Master.Next(work, session)
	}, func(ctx actor.Context, lease *job.Lease, err error) {
		p.asking = false
		switch {
		case err != nil:
			p.failed(ctx, err)
		case lease == nil:
			p.worked()
			p.later(ctx, jitter(p.settings.Load().PollInterval))
		default:
			p.worked()
			// The slot is taken until jobs says otherwise.
			p.free--
			p.refs.jobs.Tell(&messages.Offer{Leases: []job.Lease{*lease}})
		}
		p.called(ctx)
	})
}

func (p *poller) worked() {
	p.failures.over()
	p.pacer.Reset()
}

// failed waits before the next poll, however many slots become free meanwhile, and
// looks whether a lease was lost with the answer.
func (p *poller) failed(ctx actor.Context, err error) {
	p.failures.failed(err)
	paced := p.pacer.Next(time.Now(), err)
	p.holdOff(ctx, max(paced, jitter(p.settings.Load().PollInterval)))
	switch masterErrorKind(err) {
	case protocol.Unauthorized, protocol.Busy:
	default:
		// What the master does after this look is found by the next.
		p.owed = true
		p.again = true
	}
}

// holdOff polls after a while, and not before, whatever becomes free.
func (p *poller) holdOff(ctx actor.Context, d time.Duration) {
	p.pause = time.Now().Add(d)
	p.later(ctx, d)
}

// later polls after a while, or earlier when a slot becomes free.
func (p *poller) later(ctx actor.Context, d time.Duration) {
	if p.wait != nil {
		p.wait.Stop()
	}
	p.wait = supervision.After(ctx, d, func(ctx actor.Context) {
		p.pause, p.repeated = time.Time{}, time.Time{}
		p.poll(ctx)
	})
}

// called does what came due while a call was on its way.
func (p *poller) called(ctx actor.Context) {
	if p.again {
		p.reconcile(ctx, p.poll)
	}
	if p.due {
		p.due = false
		p.poll(ctx)
	}
	p.checkDrained()
}

// reconcile asks the master for the leases it holds as ours and offers them to
// jobs, which knows those it runs or has run.
func (p *poller) reconcile(ctx actor.Context, then func(actor.Context)) {
	if p.recon != nil {
		p.recon.Stop()
	}
	p.recon = supervision.After(ctx, p.settings.Load().ReconcileInterval, p.reconcileIdle)
	if p.session == nil {
		return
	}
	if p.asking {
		p.again = true
		return
	}
	p.asking, p.again = true, false
	session := *p.session
	supervision.Go(ctx, func(work context.Context) ([]job.Lease, error) {
		return p.Master.Held(work, session)
	}, func(ctx actor.Context, leases []job.Lease, err error) {
		p.asking = false
		switch {
		case err == nil:
			if len(leases) > 0 {
				p.refs.jobs.Tell(&messages.Offer{Leases: leases})
			}
		case masterErrorKind(err) == protocol.NotFound:
			p.refs.registrar.Tell(&messages.NodeForgotten{Session: session})
			p.holdOff(ctx, jitter(p.settings.Load().PollInterval))
		default:
			p.owed = true
			p.log.Debug("asking what the master holds as ours failed", zap.Error(err))
		}
		then(ctx)
		p.called(ctx)
	})
}

// reconcileIdle is the look every minute. Only an idle agent needs it, and one that may
// have lost a lease.
func (p *poller) reconcileIdle(ctx actor.Context) {
	if p.free > 0 || p.owed {
		p.owed = false
		p.reconcile(ctx, func(actor.Context) {})
		return
	}
	p.recon = supervision.After(ctx, p.settings.Load().ReconcileInterval, p.reconcileIdle)
}

// checkDrained: a call on its way may bring a lease, which is handed to jobs first.
func (p *poller) checkDrained() {
	if p.drain != nil && !p.asking {
		p.drain.Ready()
	}
}

// jitter spreads d by ±10 %, so that a fleet does not ask in step.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
