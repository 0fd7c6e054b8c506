package actors

import (
	"context"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// minReregister keeps a master that forgets us again and again from being hammered.
const minReregister = time.Second

// proveRetry is the pause after trial encodes that could not be made.
const proveRetry = time.Minute

// registrar holds the node's session with the master and announces it. It never
// stops trying to get one.
type registrar struct {
	*env
	log *zap.Logger
	// busy: a registration is on its way or scheduled.
	busy     bool
	again    bool      // what the node says of itself changed meanwhile
	forgot   time.Time // when the master last said that it does not know us
	pacer    *Pacer
	failures outage
}

func newRegistrar(e *env) *registrar {
	log := e.log.Named("registrar")
	return &registrar{
		env:      e,
		log:      log,
		pacer:    NewRegistrationPacer(),
		failures: outage{log: log, what: "registering at the master"},
	}
}

func (r *registrar) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		r.start(ctx)
	case *messages.NodeForgotten:
		r.forgotten(ctx, m.Session)
	}
}

func (r *registrar) start(ctx actor.Context) {
	r.prove(ctx)
	switch s := r.board.Session(); {
	case s != nil:
		// Restarted: the session is as good as it was.
		r.announce(*s)
	case r.settings.Load().Register:
		r.schedule(ctx, 0)
	default:
		r.resume(ctx)
	}
}

// facts is what the node says of itself, with what was proved by now.
func (r *registrar) facts() messages.NodeFacts {
	if proved := r.env.proved.Load(); proved != nil {
		return *proved
	}
	return r.Facts
}

// prove tries the encoders beside everything else, and registers again when that
// shows something new.
func (r *registrar) prove(ctx actor.Context) {
	if r.Prove == nil || r.env.proved.Load() != nil {
		return
	}
	supervision.Go(ctx, r.Prove, func(ctx actor.Context, proved messages.NodeFacts, err error) {
		if err != nil {
			r.log.Warn("the encoders could not be tried; trying again", zap.Error(err), zap.Duration("next_try", proveRetry))
			supervision.After(ctx, proveRetry, r.prove)
			return
		}
		r.log.Info("encoders tried", zap.Strings("gpu_capabilities", proved.GPUCapabilities), zap.String("encoders", proved.Labels["encoders"]))
		r.env.proved.Store(&proved)
		// A resumed session was registered with the same, unless there is hardware to tell of.
		if r.settings.Load().Register || len(proved.GPUCapabilities) > 0 {
			r.again = true
			r.schedule(ctx, 0)
		}
	})
}

// resume takes up the session that an earlier life saved.
func (r *registrar) resume(ctx actor.Context) {
	type saved struct {
		session messages.Session
		found   bool
	}
	supervision.Go(ctx, func(context.Context) (saved, error) {
		s, found, err := r.Journal.Session()
		return saved{s, found}, err
	}, func(_ actor.Context, s saved, err error) {
		switch {
		case err != nil:
			r.log.Error("the saved session cannot be read; start with --register to get a new one", zap.Error(err))
		case !s.found:
			r.log.Error("this node was never registered here; start with --register once")
		default:
			r.log.Info("resuming as the node registered earlier", zap.String("node", s.session.NodeID))
			r.announce(s.session)
		}
	})
}

func (r *registrar) forgotten(ctx actor.Context, who messages.Session) {
	if s := r.board.Session(); r.busy || (s != nil && s.Since != who.Since) {
		return
	}
	r.log.Warn("the master no longer knows this node; registering again", zap.String("node", who.NodeID))
	wait := minReregister - time.Since(r.forgot)
	r.forgot = time.Now()
	r.schedule(ctx, wait)
}

// schedule registers after a while; there is one registration at a time.
func (r *registrar) schedule(ctx actor.Context, after time.Duration) {
	if r.busy {
		return
	}
	r.busy = true
	if after <= 0 {
		r.register(ctx)
		return
	}
	supervision.After(ctx, after, r.register)
}

func (r *registrar) register(ctx actor.Context) {
	r.again = false
	facts := r.facts()
	supervision.Go(ctx, func(work context.Context) (messages.Session, error) {
		return r.Master.Register(work, facts)
	}, func(ctx actor.Context, s messages.Session, err error) {
		r.busy = false
		if err != nil {
			wait := r.pacer.Next(time.Now(), err)
			r.failures.failed(err, zap.Duration("next_try", wait))
			r.schedule(ctx, wait)
			return
		}
		r.pacer.Reset()
		r.failures.over()
		r.log.Info("registered at the master", zap.String("node", s.NodeID), zap.String("master", s.Master))
		r.save(ctx, s)
		r.announce(s)
		if r.again {
			r.schedule(ctx, 0)
		}
	})
}

// save keeps the session for a life that is started without --register.
func (r *registrar) save(ctx actor.Context, s messages.Session) {
	supervision.Go(ctx, func(context.Context) (struct{}, error) {
		return struct{}{}, r.Journal.SaveSession(s)
	}, func(_ actor.Context, _ struct{}, err error) {
		if err != nil {
			r.log.Warn("the session could not be saved; a later start will need --register", zap.Error(err))
		}
	})
}

func (r *registrar) announce(s messages.Session) {
	r.board.session.Store(&s)
	r.refs.heartbeat.Tell(&messages.SessionChanged{Session: s})
	r.refs.poller.Tell(&messages.SessionChanged{Session: s})
}
