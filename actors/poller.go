package actors

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

const (
	// reconcileInterval is how often an idle agent asks what the master holds as ours.
	reconcileInterval = time.Minute
	// resultPatience is how long a poll waits for the last job's result to be sent.
	resultPatience = time.Second
)

// notYet closes a gate until its check has been made.
const notYet = "not looked at yet"

// poller asks the master for work whenever a slot is free, and looks for leases
// whose answer was lost.
type poller struct {
	*env
	log     *zap.Logger
	session *messages.Session
	free    int
	gates   map[string]string
	// awaiting are the results that must be tried before the next poll.
	awaiting map[messages.AttemptKey]*supervision.Timer
	asking   bool               // a call is on its way
	again    bool               // a reconciliation was asked for meanwhile
	wait     *supervision.Timer // until the next poll of an idle or failing agent
	recon    *supervision.Timer // until the next reconciliation
	failures outage
}

func newPoller(e *env) *poller {
	log := e.log.Named("poller")
	return &poller{
		env:      e,
		log:      log,
		session:  e.board.Session(),
		gates:    map[string]string{gateDisk: notYet, gateFFmpeg: notYet},
		awaiting: map[messages.AttemptKey]*supervision.Timer{},
		failures: outage{log: log, what: "asking the master for work"},
	}
}

func (p *poller) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		p.postGates()
		p.refs.jobs.Tell(&messages.PollerStarted{})
		p.refs.janitor.Tell(&messages.PollerStarted{})
		if p.session != nil {
			p.reconcile(ctx)
		}
	case *messages.SessionChanged:
		p.session = &m.Session
		p.reconcile(ctx)
	case *messages.SlotsChanged:
		p.free = m.Free
		p.poll(ctx)
	case *messages.JobEnded:
		p.awaiting[m.Key] = supervision.After(ctx, resultPatience, func(ctx actor.Context) { p.tried(ctx, m.Key) })
	case *messages.ResultTried:
		p.tried(ctx, m.Key)
	case *messages.Gate:
		p.gate(ctx, m)
	}
}

func (p *poller) tried(ctx actor.Context, key messages.AttemptKey) {
	if t, ok := p.awaiting[key]; ok {
		t.Stop()
		delete(p.awaiting, key)
		p.poll(ctx)
	}
}

func (p *poller) gate(ctx actor.Context, g *messages.Gate) {
	if p.gates[g.Name] == g.Reason {
		return
	}
	if g.Reason == "" {
		if p.gates[g.Name] != notYet {
			p.log.Info("nothing keeps work out any more", zap.String("check", g.Name))
		}
		delete(p.gates, g.Name)
	} else {
		p.gates[g.Name] = g.Reason
		p.log.Warn("taking no work", zap.String("check", g.Name), zap.String("reason", g.Reason))
	}
	p.postGates()
	p.poll(ctx)
}

func (p *poller) postGates() {
	gates := maps.Clone(p.gates)
	p.board.gates.Store(&gates)
}

func (p *poller) mayPoll() bool {
	return p.session != nil && p.free > 0 && len(p.gates) == 0 && len(p.awaiting) == 0 && !p.asking && !p.board.Draining()
}

// poll asks for one job at once, if there is anything to ask for.
func (p *poller) poll(ctx actor.Context) {
	if !p.mayPoll() {
		return
	}
	p.stopWaiting()
	p.asking = true
	session := *p.session
	supervision.Go(ctx, func(work context.Context) (*messages.Lease, error) {
		return p.Master.Next(work, session)
	}, func(ctx actor.Context, lease *messages.Lease, err error) {
		p.asking = false
		switch {
		case err != nil:
			p.failed(ctx, err)
		case lease == nil:
			p.failures.over()
			p.later(ctx, jitter(p.settings.Load().PollInterval))
			p.catchUp(ctx)
		default:
			p.failures.over()
			// The slot is taken until jobs says otherwise.
			p.free--
			p.refs.jobs.Tell(&messages.Offer{Leases: []messages.Lease{*lease}})
		}
	})
}

func (p *poller) later(ctx actor.Context, d time.Duration) {
	p.stopWaiting()
	p.wait = supervision.After(ctx, d, p.poll)
}

func (p *poller) stopWaiting() {
	if p.wait != nil {
		p.wait.Stop()
	}
}

// failed looks whether a lease was lost with the answer, and tries again later.
func (p *poller) failed(ctx actor.Context, err error) {
	p.failures.failed(err)
	wait := jitter(p.settings.Load().PollInterval)
	var m *messages.MasterError
	if errors.As(err, &m) {
		wait = max(wait, m.RetryAfter)
	}
	if masterErrorKind(err) == messages.MasterUnauthorized || masterErrorKind(err) == messages.MasterBusy {
		p.later(ctx, wait)
		return
	}
	p.reconcileThen(ctx, func(ctx actor.Context) { p.later(ctx, wait) })
}

// reconcile takes up what the master holds as ours, then polls.
func (p *poller) reconcile(ctx actor.Context) { p.reconcileThen(ctx, p.poll) }

// reconcileThen asks the master for the leases it holds as ours and offers them to
// jobs, which knows those it runs or has run.
func (p *poller) reconcileThen(ctx actor.Context, then func(actor.Context)) {
	if p.recon != nil {
		p.recon.Stop()
	}
	p.recon = supervision.After(ctx, reconcileInterval, p.reconcileIdle)
	if p.session == nil || p.board.Draining() {
		return
	}
	if p.asking {
		p.again = true
		return
	}
	p.asking, p.again = true, false
	session := *p.session
	supervision.Go(ctx, func(work context.Context) ([]messages.Lease, error) {
		return p.Master.Held(work, session)
	}, func(ctx actor.Context, leases []messages.Lease, err error) {
		p.asking = false
		switch {
		case err == nil:
			if len(leases) > 0 {
				p.refs.jobs.Tell(&messages.Offer{Leases: leases})
			}
		case masterErrorKind(err) == messages.MasterUnknown:
			p.refs.registrar.Tell(&messages.NodeForgotten{Session: session})
			p.later(ctx, jitter(p.settings.Load().PollInterval))
			p.catchUp(ctx)
			return
		default:
			p.log.Debug("asking what the master holds as ours failed", zap.Error(err))
		}
		then(ctx)
		p.catchUp(ctx)
	})
}

// catchUp does the reconciliation that came due while a call was on its way.
func (p *poller) catchUp(ctx actor.Context) {
	if p.again && !p.asking {
		p.reconcile(ctx)
	}
}

// reconcileIdle is the look every minute, which only an idle agent needs.
func (p *poller) reconcileIdle(ctx actor.Context) {
	if p.free > 0 {
		p.reconcile(ctx)
		return
	}
	p.recon = supervision.After(ctx, reconcileInterval, p.reconcileIdle)
}

// jitter spreads d by ±10 %, so that a fleet does not ask in step.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
