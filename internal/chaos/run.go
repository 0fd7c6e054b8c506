package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Config configures a run.
type Config struct {
	Agent, Master string   // the programs
	Dir           string   // for logs, data and the schedule; its path must be short enough for a socket
	Schedule      Schedule // what to do when
	LikeField     bool     // the master has the habits of masters in use
	Output        io.Writer
}

// Run plays a schedule and returns what it observed. An error means that the run itself failed
// or was given up; what was observed until then is returned as well.
func Run(ctx context.Context, cfg Config) (*History, []string, error) {
	f := &harness{cfg: cfg, history: newRecorder(heartbeatInterval)}
	defer f.close()
	ctx, f.cancel = context.WithCancelCause(ctx)
	defer f.cancel(nil)
	if err := f.setUp(ctx); err != nil {
		return &f.history.h, f.notes, err
	}
	err := f.run(ctx)
	return &f.history.h, f.notes, err
}

// run plays the bursts of the schedule and waits until the agents are idle.
func (f *harness) run(ctx context.Context) error {
	agentsCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	watchCtx, stopWatching := context.WithCancel(agentsCtx)
	defer stopWatching()
	for _, a := range f.agents {
		all.Go(func() {
			if err := a.supervise(agentsCtx); err != nil {
				f.abort(err)
			}
		})
		all.Go(func() { a.watch(watchCtx) })
	}
	all.Go(func() { f.noteStalls(watchCtx) })
	f.submitter.paused.Store(true)
	all.Go(func() { f.submitter.run(watchCtx) })
	inspect := newInspector(f.outputDisk.dir, f.history)
	all.Go(func() { inspect.run(watchCtx) })

	if busy := f.waitIdle(ctx, time.Minute); busy != "" {
		return fmt.Errorf("the agents did not start: %s; see the logs in %s", busy, f.cfg.Dir)
	}
	for burst := range f.bursts() {
		if ctx.Err() != nil {
			break
		}
		f.submitter.paused.Store(false)
		f.runBurst(ctx, burst)
		if burst+1 < f.bursts() {
			started := time.Now()
			f.logIdle(started, f.waitIdle(ctx, idleTimeout))
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	started := time.Now()
	busy := f.waitIdle(ctx, finalIdleTimeout)
	f.logIdle(started, busy)
	deadLetters, unread := f.deadLetters(ctx), f.unreadSensors(ctx)
	var steps []AttemptEvent
	for _, a := range f.agents {
		of, err := a.readEvents()
		if err != nil {
			return fmt.Errorf("reading the log of agent %d: %w", a.n, err)
		}
		steps = append(steps, of...)
	}
	f.history.update(func(h *History) {
		h.Unsettled, h.UnexpectedDeadLetters, h.UnreadSensors, h.Events = busy, deadLetters, unread, steps
	})
	return context.Cause(ctx)
}

const (
	// idleTimeout is how long agents may take to rest between bursts. A result whose
	// sending failed often waits for up to a minute: then there is no rest there.
	idleTimeout = 15 * time.Second
	// finalIdleTimeout is how long they may take at the end: a lost lease is looked for once
	// a minute, a result is sent again once a minute at the latest, and several in turn.
	finalIdleTimeout = 3 * time.Minute
	// sensorTimeout is how long sensors may take to be read again at the end: what failed
	// often is looked for seldom.
	sensorTimeout = 90 * time.Second
	// idleDelay is how long an agent must be idle before its usage is read.
	idleDelay = 1500 * time.Millisecond
)

func (f *harness) bursts() int {
	s := f.cfg.Schedule
	return int((s.Length + s.Burst - 1) / s.Burst)
}

// runBurst plays the faults of one burst at their times. Then no more jobs come, and it waits
// for the last fault to be over.
func (f *harness) runBurst(ctx context.Context, n int) {
	s := f.cfg.Schedule
	from, to := time.Duration(n)*s.Burst, min(time.Duration(n+1)*s.Burst, s.Length)
	begun := time.Now()
	var playing sync.WaitGroup
	count := 0
	for _, p := range s.Faults {
		if p.At < from || p.At >= to {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(begun.Add(p.At - from))):
		}
		if ctx.Err() != nil {
			break
		}
		count++
		playing.Go(func() { f.inject(ctx, p) })
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(begun.Add(to - from))):
	}
	f.submitter.paused.Store(true)
	playing.Wait()
	f.logf("burst %d of %d: %d faults", n+1, f.bursts(), count)
}

// inject plays one fault and notes what was seen of it.
func (f *harness) inject(ctx context.Context, p PlannedFault) {
	var kind Kind
	for _, k := range Kinds() {
		if k.Name == p.Kind {
			kind = k
		}
	}
	a := f.agents[p.Agent]
	if kind.Exclusive {
		a.exclusiveMu.Lock()
		defer a.exclusiveMu.Unlock()
	}
	begun := time.Now()
	within, cancel := context.WithTimeout(ctx, observeWithin)
	defer cancel()
	s := &injector{harness: f, agent: a, kindName: p.Kind, random: rand.New(rand.NewPCG(p.Seed, 3)), started: begun}
	e, err := kind.inject(within, s)
	fault := InjectedFault{PlannedFault: p, Span: Span{begun, time.Now()}, Effect: e.observed, Attempt: e.attempt, Actor: e.actor}
	if err != nil {
		fault.Effect, fault.Error = "", err.Error()
		fault.Unavailable = errors.Is(err, errUnavailable)
		fault.Skipped = fault.Unavailable || errors.Is(err, errNoTarget)
	}
	f.history.update(func(h *History) { h.Faults = append(h.Faults, fault) })
}

// waitIdle waits until no job is open and no agent has anything to do, and notes what they
// hold then. It returns why there was no rest.
func (f *harness) waitIdle(ctx context.Context, within time.Duration) (busy string) {
	for end := time.Now().Add(within); ; {
		if busy = f.busyReason(ctx); busy == "" {
			break
		}
		select {
		case <-ctx.Done():
			return "the run was given up"
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(end) {
			return busy
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(idleDelay):
	}
	for _, a := range f.agents {
		if usage, err := a.usage(ctx); err == nil {
			f.history.update(func(h *History) { h.IdleUsage = append(h.IdleUsage, usage) })
		}
	}
	return ""
}

// deadLetters counts the results that agents hold as undeliverable, though their master
// did not forget the jobs.
func (f *harness) deadLetters(ctx context.Context) (lost int) {
	var jobs []*Job
	var history History
	f.history.update(func(h *History) { jobs, history.Epochs = h.sortedJobs(), slices.Clone(h.Epochs) })
	for _, a := range f.agents {
		if a.status().Journal.DeadLetters == 0 {
			continue
		}
		for _, j := range jobs {
			records, err := a.control.records(ctx, j.ID)
			for _, r := range records {
				if err == nil && r.State == "dead letter" && history.knownAt(j, r.SettledAt) {
					lost++
				}
			}
		}
	}
	return lost
}

// unreadSensors are the sensors that agents did not resume reading in time.
func (f *harness) unreadSensors(ctx context.Context) (names []string) {
	for end := time.Now().Add(sensorTimeout); ; {
		names = nil
		for _, a := range f.agents {
			kinds := []string{"rapl"}
			if a.cards != nil {
				kinds = append(kinds, "nvml")
			}
			for _, kind := range kinds {
				if trouble, zones := a.status().sampler(kind); zones == 0 {
					names = append(names, fmt.Sprintf("%s of agent %d: %s", kind, a.n, trouble))
				}
			}
		}
		if len(names) == 0 || ctx.Err() != nil || time.Now().After(end) {
			return names
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (f *harness) logIdle(started time.Time, why string) {
	if why == "" {
		why = "all rest"
	}
	f.logf("after %s: %s", time.Since(started).Round(time.Second), why)
}

// busyReason says what is still running.
func (f *harness) busyReason(ctx context.Context) string {
	open, err := f.master.pollJobs(ctx)
	if err != nil {
		return err.Error()
	}
	if len(open) > 0 {
		return fmt.Sprintf("%d jobs are open at the master, among them %s (%s, attempt %d, node %s)",
			len(open), open[0].ID, open[0].Status, open[0].Attempt(), open[0].NodeID)
	}
	for _, a := range f.agents {
		a.mu.Lock()
		last := a.lastStatus
		a.mu.Unlock()
		switch {
		case last == nil:
			return fmt.Sprintf("agent %d has not been seen", a.n)
		case !last.idle():
			return fmt.Sprintf("agent %d has %d jobs, %d results to send, %d attempts unfinished", a.n, len(last.Jobs), last.Journal.Unsent, last.Journal.Unfinished)
		}
		if p := a.children(func(p Proc) bool { return p.Name == "ffmpeg" }); len(p) > 0 {
			return fmt.Sprintf("agent %d has %s", a.n, p[0])
		}
	}
	return ""
}

// noteStalls notes when this program was not scheduled.
func (f *harness) noteStalls(ctx context.Context) {
	const tick, late = 20 * time.Millisecond, 100 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now := time.Now(); now.Sub(last) > late {
			s := Span{last, now}
			f.history.update(func(h *History) { h.Stalls = append(h.Stalls, s) })
			last = now
		} else {
			last = now
		}
	}
}
