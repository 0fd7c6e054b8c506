// Package actors is the agent's supervised tree, one actor a file. Each is restarted by
// itself when it fails. What the actors need from outside are the interfaces in ports.go;
// what they say to each other is package messages. An actor never blocks in its turn:
// whatever may take time runs in an owned goroutine and comes back as a message. An
// attempt at a job is no actor but a goroutine that outlives them; see attempt.go.
package actors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// Config is what an Agent is started with.
type Config struct {
	Dependencies Dependencies
	Settings     Settings
	Supervision  supervision.Config
	Logger       *zap.Logger
}

// Agent is a running tree.
type Agent struct {
	shared *shared
	system *supervision.System
}

// Start builds the tree and starts it.
func Start(cfg Config) (*Agent, error) {
	if cfg.Supervision.Critical == nil {
		cfg.Supervision.Critical = []string{"heartbeat"}
	}
	return start(cfg, (*shared).children)
}

// StartExporters builds only what measures and exports power: there is no master and no
// jobs are taken. Of the dependencies it needs Host, the sensors and Endpoints.
func StartExporters(cfg Config) (*Agent, error) {
	return start(cfg, (*shared).measuring)
}

func start(cfg Config, children func(*shared) []child) (*Agent, error) {
	if cfg.Supervision.Logger == nil {
		cfg.Supervision.Logger = cfg.Logger
	}
	s := &shared{Dependencies: cfg.Dependencies, refs: newRefs(), attempts: newAttempts(), log: cfg.Logger, started: time.Now()}
	s.stop.done = make(chan struct{})
	s.current.Store(&cfg.Settings)
	s.contact.begin(s.started)
	a := &Agent{shared: s, system: supervision.NewSystem(cfg.Supervision)}
	if err := a.start(children); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the actor tree: %w", err), a.system.Stop(context.Background()))
	}
	return a, nil
}

func (a *Agent) start(children func(*shared) []child) (err error) {
	s := a.shared
	if s.Endpoints != nil {
		if s.listen, err = s.Endpoints(a); err != nil {
			return err
		}
	}
	_, err = a.system.Spawn(supervision.Spec{
		Name: "agent",
		Ref:  s.refs.agent,
		New:  func() actor.Actor { return &root{shared: s, children: children(s)} },
	})
	return err
}

// Drain takes no more jobs, lets the running ones finish within timeout, sends unsent
// results as far as the master takes them, and stops the tree in order. It returns at once
// and may be repeated; Done is closed at the end.
func (a *Agent) Drain(timeout time.Duration) {
	a.shared.stop.ask(timeout)
	a.shared.snapshots.draining.Store(true)
	a.shared.refs.agent.Tell(&shutdown{})
}

// StopJobs stops the running jobs now. They are reported as failed, so that the master
// re-queues them.
func (a *Agent) StopJobs() {
	a.shared.stop.jobsNow.Store(true)
	a.shared.refs.jobs.Tell(&messages.StopJobs{})
}

// Reload reads the configuration again, whether or not a file of it has changed. It returns
// at once.
func (a *Agent) Reload() { a.shared.refs.configuration.Tell(&messages.Reload{}) }

// ReloadNow does the same, and waits for the end of the reload. The error is why it changed nothing.
func (a *Agent) ReloadNow(ctx context.Context) error {
	answer := make(chan error, 1)
	a.shared.refs.configuration.Tell(&messages.Reload{Answer: answer})
	select {
	case err := <-answer:
		return err
	case <-a.Done():
		return errors.New("the agent is stopping")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ErrTooLate: the agent has no jobs any more and is stopping, or its jobs are being stopped.
var ErrTooLate = errors.New("too late to undo the drain: the agent is stopping")

// UndoDrain makes a draining agent take jobs again. It does nothing to one that does not drain,
// and fails with ErrTooLate once nothing is left to run.
func (a *Agent) UndoDrain(ctx context.Context) error {
	answer := make(chan error, 1)
	a.shared.refs.agent.Tell(&undoDrain{answer: answer})
	select {
	case err := <-answer:
		return err
	case <-a.Done():
		return ErrTooLate
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Done is closed at the end of a drain.
func (a *Agent) Done() <-chan struct{} { return a.shared.stop.done }

// Late lists the actors that did not stop in time, once Done is closed.
func (a *Agent) Late() []supervision.StopReport { return a.shared.stop.late() }

// Close ends the actors and stops the running jobs, drained or not. It records nothing of
// these: the next start reports them as interrupted.
func (a *Agent) Close(ctx context.Context) error {
	return errors.Join(a.system.Stop(ctx), a.shared.attempts.close(ctx))
}

// Snapshots returns what the actors post for readers outside the tree.
func (a *Agent) Snapshots() *Snapshots { return &a.shared.snapshots }

// TrialsDone reports whether the trial encodes are done, or none are to be made.
func (a *Agent) TrialsDone() bool { return a.shared.Prove == nil || a.shared.proved.Load() != nil }

// Actors returns the state of each actor.
func (a *Agent) Actors() []supervision.ActorStats { return a.system.Stats() }

// Live is nil while every actor answers its probe and heartbeats are attempted on schedule,
// answered or not. A watchdog is fed on it.
func (a *Agent) Live() error {
	if err := a.system.Live(); err != nil {
		return err
	}
	return a.shared.heartbeatLate(time.Now())
}

// stopRequest is what must survive the restart of an actor while the tree stops: that
// it was requested, until when jobs may run, who was asked to drain, and the reports.
type stopRequest struct {
	jobsNow atomic.Bool // stop the running jobs now
	drains  sync.Map    // name of an actor → *messages.Drain, of those asked to drain

	mu      sync.Mutex
	until   time.Time // zero: no drain was asked for
	ended   bool
	reports []supervision.StopReport // of who was late
	done    chan struct{}
}

// drain asks an actor to drain. A later incarnation of it finds the request by drainOf.
func (s *stopRequest) drain(to *supervision.Ref, until time.Time, ready func()) {
	m := &messages.Drain{Until: until, Ready: ready}
	s.drains.Store(to.Name(), m)
	to.Tell(m)
}

// drainOf returns what an actor was asked by drain; nil where it was not.
func (s *stopRequest) drainOf(name string) *messages.Drain {
	m, _ := s.drains.Load(name)
	drain, _ := m.(*messages.Drain)
	return drain
}

func (s *stopRequest) ask(timeout time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until.IsZero() {
		s.until = time.Now().Add(timeout)
	}
}

// undo forgets the request.
func (s *stopRequest) undo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = time.Time{}
	s.drains.Clear()
}

func (s *stopRequest) pending() (until time.Time, pending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until, !s.until.IsZero() && !s.ended
}

func (s *stopRequest) end(reports []supervision.StopReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	for _, r := range reports {
		if r.TimedOut {
			s.reports = append(s.reports, r)
		}
	}
	close(s.done)
}

func (s *stopRequest) late() []supervision.StopReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reports
}

// shutdown makes the root act on a request in shared.stop.
type shutdown struct{}

// undoDrain makes the root undo a drain.
type undoDrain struct{ answer chan<- error }

// root is the top of the tree. It starts and stops its children in order, and undoes a
// drain.
type root struct {
	*shared
	children []child // in the order they start
	stopping bool
	cancel   func() (stopped int, ok bool) // of the ordered stop
}

// child is one of the root's children.
type child struct {
	name string
	ref  *supervision.Ref
	make func() actor.Actor
}

// children of an agent, the poller last: jobs are polled for once everything that handles
// them has started.
func (s *shared) children() []child {
	children := []child{
		{"uploader", s.refs.uploader, func() actor.Actor { return newUploader(s) }},
		{"registrar", s.refs.registrar, func() actor.Actor { return newRegistrar(s) }},
		{"heartbeat", s.refs.heartbeat, func() actor.Actor { return newHeartbeat(s) }},
	}
	children = append(children, s.measuring()...)
	children = append(children,
		child{"jobs", s.refs.jobs, func() actor.Actor { return newJobs(s) }},
		child{"janitor", s.refs.janitor, func() actor.Actor { return newJanitor(s) }})
	if s.Configuration != nil {
		children = append(children, child{"configuration", s.refs.configuration, func() actor.Actor { return newConfiguration(s) }})
	}
	if s.listen.Control != nil {
		children = append(children, child{"control", s.refs.control, func() actor.Actor { return newListener(s, s.listen.Control) }})
	}
	return append(children, child{"poller", s.refs.poller, func() actor.Actor { return newPoller(s) }})
}

// measuring are the children that measure and export power.
func (s *shared) measuring() []child {
	return []child{
		{"samplers", s.refs.samplers, func() actor.Actor { return newSamplers(s) }},
		{"meter", s.refs.meter, func() actor.Actor { return newMeter(s) }},
		{"exporters", s.refs.exporters, func() actor.Actor { return newExporters(s) }},
	}
}

func (r *root) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		r.start(ctx)
	case *shutdown:
		r.shutdown(ctx)
	case *undoDrain:
		r.undoDrain(ctx, m)
	}
}

// undoRetry is the pause before another try while the poller, which is stopped first, ends.
const undoRetry = 20 * time.Millisecond

// undoDrain resumes what a shutdown has stopped so far: the poller, and jobs, which waits for
// its attempts. Once jobs has stopped it is too late.
func (r *root) undoDrain(ctx actor.Context, m *undoDrain) {
	switch {
	case !r.stopping:
		m.answer <- nil
		return
	case r.shared.stop.jobsNow.Load():
		m.answer <- ErrTooLate
		return
	}
	const beforeJobs = 1 // steps of shutdown
	stopped, ok := r.cancel()
	switch {
	case stopped > beforeJobs, !ok && stopped == beforeJobs:
		m.answer <- ErrTooLate
		return
	case !ok:
		supervision.After(ctx, undoRetry, func(ctx actor.Context) { r.undoDrain(ctx, m) })
		return
	}
	defer func() { m.answer <- nil }()
	r.stopping = false
	r.shared.stop.undo()
	r.snapshots.draining.Store(false)
	r.log.Info("drain undone: taking jobs again")
	r.refs.jobs.Tell(&messages.UndoDrain{})
	if stopped == 0 {
		r.refs.poller.Tell(&messages.UndoDrain{})
		return
	}
	for _, c := range r.children {
		if c.ref == r.refs.poller {
			supervision.Child(ctx, supervision.Spec{Name: c.name, Ref: c.ref, New: c.make})
		}
	}
}

// start spawns the children.
func (r *root) start(ctx actor.Context) {
	for _, c := range r.children {
		supervision.Child(ctx, supervision.Spec{Name: c.name, Ref: c.ref, New: c.make})
	}
	// After a crash of the root during a shutdown.
	r.shutdown(ctx)
}

// Deadlines of the ordered stop. That of jobs is the drain's timeout and what stopping
// FFmpeg may take.
const (
	stopDeadline  = 2 * time.Second
	callDeadline  = 15 * time.Second // of a call to the master that may bring a lease
	killAllowance = 20 * time.Second
	flushDeadline = 10 * time.Second
	serveDeadline = 5 * time.Second
)

// shutdown stops the children in the order that loses nothing: first what takes jobs, then
// what runs them, then what reports them. Heartbeats go on almost to the end.
func (r *root) shutdown(ctx actor.Context) {
	until, asked := r.shared.stop.pending()
	if !asked || r.stopping {
		return
	}
	r.stopping = true
	left := max(0, time.Until(until))
	r.log.Info("draining: taking no new jobs", zap.Duration("time_for_running_jobs", left))
	drain := func(to *supervision.Ref) func(ready func()) {
		return func(ready func()) { r.stop.drain(to, until, ready) }
	}
	r.cancel = supervision.StopInOrder(ctx, []supervision.StopStep{
		{Child: r.refs.poller, Prepare: drain(r.refs.poller), Deadline: callDeadline},
		{Child: r.refs.jobs, Prepare: drain(r.refs.jobs), Deadline: left + callDeadline + killAllowance},
		{Child: r.refs.samplers, Deadline: stopDeadline},
		{Child: r.refs.meter, Deadline: stopDeadline},
		{Child: r.refs.uploader, Prepare: drain(r.refs.uploader), Deadline: flushDeadline},
		{Child: r.refs.janitor, Deadline: stopDeadline},
		{Child: r.refs.configuration, Deadline: stopDeadline},
		{Child: r.refs.heartbeat, Deadline: stopDeadline},
		{Child: r.refs.registrar, Deadline: stopDeadline},
		{Child: r.refs.exporters, Deadline: serveDeadline},
		{Child: r.refs.control, Deadline: serveDeadline},
	}, func(_ actor.Context, reports []supervision.StopReport) {
		for _, report := range reports {
			if report.TimedOut {
				r.log.Warn("an actor did not stop in time",
					zap.String("actor", report.Name), zap.String("phase", report.Phase), zap.Duration("waited", report.Took))
			}
		}
		r.shared.stop.end(reports)
	})
}
