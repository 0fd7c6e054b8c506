package actors

import (
	"context"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// minReregister is the shortest interval between registrations, for a master that forgets
// the node again and again.
const minReregister = time.Second

// proveRetry is the pause after trial encodes that could not be run.
const proveRetry = time.Minute

// registrar registers the node, holds its session and announces it. It never gives up.
type registrar struct {
	*shared
	log      *zap.Logger
	busy     bool               // a registration is in flight or scheduled
	again    bool               // the facts changed meanwhile
	asked    time.Time          // when another registration was last asked for
	retry    *supervision.Timer // of a registration that may succeed with another key
	backoff  *callBackoff
	failures outage
}

func newRegistrar(s *shared) *registrar {
	log := s.log.Named("registrar")
	return &registrar{
		shared:   s,
		log:      log,
		backoff:  registrationBackoff(),
		failures: outage{log: log, failing: "could not register with the master", over: "registering with the master succeeds again"},
	}
}

func (r *registrar) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		r.start(ctx)
	case *messages.RegisterAgain:
		r.registerAgain(ctx, m)
	case *messages.SettingsChanged:
		if r.retry != nil {
			r.retry.Stop()
			r.retry = nil
			r.register(ctx)
		}
	}
}

func (r *registrar) start(ctx actor.Context) {
	switch s := r.snapshots.Session(); {
	case s != nil:
		// After a restart of the registrar the session is still valid.
		r.announce(*s)
	case r.settings().Register:
		r.proveFirst(ctx)
		return
	default:
		r.resume(ctx)
	}
	r.prove(ctx)
}

// facts are those of the machine, and of the trial encodes as far as they are done.
func (r *registrar) facts() messages.NodeFacts {
	for _, proved := range []*messages.NodeFacts{r.shared.proved.Load(), r.shared.first.Load()} {
		if proved != nil {
			return *proved
		}
	}
	return r.Facts
}

// proveFirst registers once the proof for the first registration is there, or its time is
// over: some masters store the facts of the first registration only.
func (r *registrar) proveFirst(ctx actor.Context) {
	within := r.settings().FirstProofWithin
	wait := within - time.Since(r.started)
	if r.FirstProof == nil || r.shared.first.Load() != nil || wait <= 0 {
		r.schedule(ctx, 0)
		r.prove(ctx)
		return
	}
	// A process that hangs in a driver may outlive its context.
	late := supervision.After(ctx, wait, func(ctx actor.Context) {
		r.log.Warn("registering without trial encode results, which are not there yet", zap.Duration("waited", within))
		r.schedule(ctx, 0)
	})
	supervision.Go(ctx, func(work context.Context) (messages.NodeFacts, error) {
		work, cancel := context.WithTimeout(work, wait)
		defer cancel()
		facts, err := r.FirstProof(work)
		if err != nil {
			r.log.Warn("could not try the hardware encoders before registering", zap.Error(err))
		}
		return facts, nil
	}, func(ctx actor.Context, facts messages.NodeFacts, err error) {
		late.Stop()
		if err == nil {
			r.shared.first.Store(&facts)
		}
		if r.snapshots.Session() == nil {
			r.schedule(ctx, 0)
		}
		r.prove(ctx)
	})
}

// prove runs trial encodes beside everything else, and registers again where they change the
// facts.
func (r *registrar) prove(ctx actor.Context) {
	if r.Prove == nil || r.shared.proved.Load() != nil {
		return
	}
	supervision.Go(ctx, r.Prove, func(ctx actor.Context, proved messages.NodeFacts, err error) {
		if err != nil {
			r.log.Warn("could not run trial encodes", zap.Error(err), zap.Duration("next_try", proveRetry))
			supervision.After(ctx, proveRetry, r.prove)
			return
		}
		r.log.Info("trial encodes done", zap.Strings("gpu_capabilities", proved.GPUCapabilities), zap.String("encoders", proved.Labels[messages.LabelEncoders]))
		r.shared.proved.Store(&proved)
		posted := r.shared.posted.Load()
		switch {
		case r.busy:
			r.again = true
		case posted != nil && posted.Equal(proved):
			r.refs.poller.Tell(&messages.FindLeases{}) // compares them with what the master stored
		// A resumed session was registered with the same facts, but for hardware found since.
		case posted != nil, r.settings().Register, len(proved.GPUCapabilities) > 0:
			r.schedule(ctx, 0)
		}
	})
}

// resume takes up the session that a previous process saved.
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
			r.log.Error("could not read the saved session; start once with --register", zap.Error(err))
		case !s.found:
			r.log.Error("no saved session; start once with --register")
		default:
			r.log.Info("resuming the saved session", zap.String("node", s.session.NodeID))
			r.announce(s.session)
		}
	})
}

func (r *registrar) registerAgain(ctx actor.Context, m *messages.RegisterAgain) {
	if s := r.snapshots.Session(); r.busy || (s != nil && s.Since != m.Session.Since) {
		return
	}
	r.log.Warn("registering again", zap.String("reason", m.Reason), zap.String("node", m.Session.NodeID))
	wait := minReregister - time.Since(r.asked)
	r.asked = time.Now()
	r.schedule(ctx, wait)
}

// schedule registers after a while, unless a registration is in flight or scheduled.
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
	sentAt := time.Now()
	supervision.Go(ctx, func(work context.Context) (messages.Session, error) {
		return r.Master.Register(work, facts)
	}, func(ctx actor.Context, s messages.Session, err error) {
		r.busy = false
		if err != nil {
			why := err.Error()
			r.snapshots.unregistered.Store(&why)
			r.snapshots.refused.Store(nil)
			if protocol.KindOf(err) == protocol.Unauthorized {
				r.snapshots.refused.Store(&why)
			}
			wait := r.backoff.next(time.Now(), err)
			r.failures.failed(err, zap.Duration("next_try", wait))
			r.busy = true
			timer := supervision.After(ctx, wait, func(ctx actor.Context) {
				r.retry = nil
				r.register(ctx)
			})
			if dependsOnKey(err) {
				r.retry = timer
			}
			return
		}
		r.contact.answered(sentAt, r.settings().UnavailableAfter)
		r.snapshots.refused.Store(nil)
		r.backoff.reset()
		r.failures.recovered()
		r.log.Info("registered with the master", zap.String("node", s.NodeID), zap.String("master", s.Master))
		r.shared.posted.Store(&facts)
		r.save(ctx, s)
		r.announce(s)
		if r.again && !facts.Equal(r.facts()) {
			r.schedule(ctx, 0)
		}
	})
}

// save keeps the session for a start without --register.
func (r *registrar) save(ctx actor.Context, s messages.Session) {
	supervision.Go(ctx, func(context.Context) (struct{}, error) {
		return struct{}{}, r.Journal.SaveSession(s)
	}, func(_ actor.Context, _ struct{}, err error) {
		if err != nil {
			r.log.Warn("could not save the session; a later start will need --register", zap.Error(err))
		}
	})
}

func (r *registrar) announce(s messages.Session) {
	r.snapshots.session.Store(&s)
	r.refs.heartbeat.Tell(&messages.SessionChanged{Session: s})
	r.refs.poller.Tell(&messages.SessionChanged{Session: s})
}
