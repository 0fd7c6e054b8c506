package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// actorRoles are the actors that faults are aimed at, by the last element of their paths.
var actorRoles = []string{
	"agent", "control", "exporters", "agent-metrics", "cpu-metrics", "ffmpeg-metrics", "gpu-metrics", "heartbeat", "janitor", "jobs", "job-",
	"job-", "meter", "poller", "registrar", "samplers", "host", "nvml", "rapl", "uploader",
}

func actorKinds() []Kind {
	return []Kind{
		{Name: "actor: panic", Weight: 22, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.hitActor(ctx, func(path string) error { return s.control.crash(ctx, path) })
		}},
		{Name: "actor: hang", Weight: 2.5, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.hitActor(ctx, func(path string) error { return s.control.hang(ctx, path, 3*hangAfter) })
		}},
	}
}

// hitActor injects a fault into an actor and waits until the agent's supervision reports it.
func (s *injector) hitActor(ctx context.Context, hit func(path string) error) (effect, error) {
	role := pick(s, actorRoles)
	var path string
	s.awaitStatus(ctx, func(st *agentStatus) string {
		for _, a := range st.Actors {
			name := filepath.Base(a.Path)
			if name == role || role == "job-" && strings.HasPrefix(name, role) {
				path = a.Path
			}
		}
		return path
	})
	if path == "" {
		return effect{}, fmt.Errorf("%w: there is no actor %s", errNoTarget, role)
	}
	gate, _ := s.actorMus.LoadOrStore(path, &sync.Mutex{})
	gate.(*sync.Mutex).Lock()
	defer gate.(*sync.Mutex).Unlock()
	process, before, deaths := s.processNumber(), s.status(), s.terminations.Load()
	n, _ := before.actorFailures(path)
	e := effect{actor: path}
	if err := hit(path); err != nil { // whether it did is not known
		return e, err
	}
	e.observed = s.awaitStatus(ctx, func(st *agentStatus) string {
		now, known := st.actorFailures(path)
		switch {
		case s.processNumber() != process && s.terminations.Load() == deaths:
			return path + ": the process ended for a fresh start"
		case st.PID == before.PID && known && now > n:
			return fmt.Sprintf("%s: failures %d → %d", path, n, now)
		case st.PID == before.PID && !known && st != before:
			return path + " is gone"
		}
		return ""
	})
	if e.observed == "" {
		return e, fmt.Errorf("%s: the fault had no effect", path)
	}
	return e, nil
}

// childKinds are faults of the agent's child processes.
func childKinds() []Kind {
	encode := func(name string, weight float64, play func(context.Context, *injector, Proc, Attempt) (effect, error)) Kind {
		return Kind{Name: name, Weight: weight, inject: func(ctx context.Context, s *injector) (effect, error) {
			p, at, err := s.awaitEncoder(ctx)
			if err != nil {
				return effect{}, err
			}
			e, err := play(ctx, s, p, at)
			e.attempt = at
			return e, err
		}}
	}
	end := func(sig syscall.Signal) func(context.Context, *injector, Proc, Attempt) (effect, error) {
		return func(ctx context.Context, s *injector, p Proc, at Attempt) (effect, error) {
			return s.killProcess(ctx, p, sig)
		}
	}
	sampler := func(name string, weight float64, sig syscall.Signal) Kind {
		return Kind{Name: name, Weight: weight, inject: func(ctx context.Context, s *injector) (effect, error) { return s.signalSampler(ctx, sig) }}
	}
	return []Kind{
		encode("ffmpeg: SIGKILL", 5, end(syscall.SIGKILL)),
		encode("ffmpeg: SIGSEGV", 3, end(syscall.SIGSEGV)),
		encode("ffmpeg: SIGTERM", 2, end(syscall.SIGTERM)),
		encode("ffmpeg: stopped for a while", 2, pauseFFmpeg),
		encode("ffmpeg: stopped for good", 1.5, stallFFmpeg),
		sampler("nvml: child SIGKILL", 2, syscall.SIGKILL),
		sampler("nvml: child SIGSEGV", 1, syscall.SIGSEGV),
		sampler("nvml: child SIGSTOP", 1, syscall.SIGSTOP),
	}
}

// awaitEncoder waits for an FFmpeg of the agent's that encodes.
func (s *injector) awaitEncoder(ctx context.Context) (Proc, Attempt, error) {
	for {
		for _, p := range s.children(Proc.isEncoder) {
			if p.State != 'T' {
				at, _ := p.attempt()
				return p, at, nil
			}
		}
		select {
		case <-ctx.Done():
			return Proc{}, Attempt{}, fmt.Errorf("%w: no FFmpeg was encoding", errNoTarget)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// killProcess sends a process a signal that ends it.
func (s *injector) killProcess(ctx context.Context, p Proc, sig syscall.Signal) (effect, error) {
	if err := p.signal(sig); err != nil {
		return effect{}, fmt.Errorf("it had already ended: %w", err)
	}
	for {
		if _, alive := p.refresh(); !alive {
			return observed("pid %d is gone", p.PID), nil
		}
		select {
		case <-ctx.Done():
			return effect{}, fmt.Errorf("pid %d is still running", p.PID)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// pauseFFmpeg stops FFmpeg for less than what counts as a stall.
func pauseFFmpeg(ctx context.Context, s *injector, p Proc, _ Attempt) (effect, error) {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return effect{}, err
	}
	stopped := waitUntil(time.Second, func() bool { now, alive := p.refresh(); return alive && now.State == 'T' })
	select {
	case <-ctx.Done():
	case <-time.After(s.between(300*time.Millisecond, 1500*time.Millisecond)):
	}
	if err := p.signal(syscall.SIGCONT); err != nil || !stopped {
		return effect{}, errors.New("it ended in the meantime")
	}
	return observed("pid %d stood still", p.PID), nil
}

// stallFFmpeg stops FFmpeg until the agent kills it.
func stallFFmpeg(_ context.Context, s *injector, p Proc, _ Attempt) (effect, error) {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return effect{}, err
	}
	if !waitUntil(stallTimeout+12*time.Second, func() bool { _, alive := p.refresh(); return !alive }) {
		_ = p.signal(syscall.SIGKILL)
		return effect{}, fmt.Errorf("pid %d is still stopped", p.PID)
	}
	return observed("pid %d was ended", p.PID), nil
}

// signalSampler sends a signal to the child that reads the cards, which must be replaced.
func (s *injector) signalSampler(ctx context.Context, sig syscall.Signal) (effect, error) {
	p, err := s.awaitSamplerChild(ctx, 0)
	if err != nil {
		return effect{}, err
	}
	if sig == syscall.SIGSTOP { // a starting child gets much more time than a reading one
		s.awaitStatus(ctx, func(st *agentStatus) string {
			if trouble, zones := st.sampler("nvml"); trouble == "" && zones > 0 {
				return "reads"
			}
			return ""
		})
	}
	if err := p.signal(sig); err != nil {
		return effect{}, err
	}
	next, err := s.awaitSamplerChild(ctx, p.PID)
	if err != nil {
		_ = p.signal(syscall.SIGKILL)
		return effect{}, fmt.Errorf("pid %d was not replaced", p.PID)
	}
	return observed("pid %d was replaced by %d", p.PID, next.PID), nil
}

// awaitSamplerChild waits for a child with another pid.
func (s *injector) awaitSamplerChild(ctx context.Context, not int) (Proc, error) {
	if s.cards == nil {
		return Proc{}, errNoCards
	}
	for {
		for _, p := range s.children(Proc.isNVMLChild) {
			if p.PID != not {
				return p, nil
			}
		}
		select {
		case <-ctx.Done():
			return Proc{}, fmt.Errorf("%w: there is no child that reads cards", errNoTarget)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// agentKinds are faults of the agent's own process.
func agentKinds() []Kind {
	dies := func(name string, weight float64, sig syscall.Signal) Kind {
		return Kind{Name: name, Weight: weight, EndsAgent: true, Exclusive: true, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.endAgent(ctx, sig)
		}}
	}
	return []Kind{
		dies("agent: SIGKILL", 2, syscall.SIGKILL),
		{Name: killDuringJobKind, Weight: 2, EndsAgent: true, Exclusive: true, inject: killDuringJob},
		dies("agent: SIGSEGV", 1, syscall.SIGSEGV),
		dies("agent: SIGTERM", 0.7, syscall.SIGTERM),
		{Name: "agent: SIGSTOP", Weight: 1, Exclusive: true, inject: pauseAgent},
		{Name: "journal: bytes flipped", Weight: 1, EndsAgent: true, Exclusive: true, inject: corruptJournal},
	}
}

// endAgent ends the agent and waits until its next process works.
func (s *injector) endAgent(ctx context.Context, sig syscall.Signal) (effect, error) {
	p, process := s.running(), s.processNumber()
	s.terminations.Add(1)
	if sig == syscall.SIGTERM {
		s.noteStopRequest()
	}
	if p == nil || p.signal(sig) != nil {
		return effect{}, errors.New("it did not run")
	}
	if sig == syscall.SIGTERM && s.random.IntN(2) == 0 {
		// A drain that is cut short by a second signal.
		waitUntil(s.between(200*time.Millisecond, 2*time.Second), p.ended)
		_ = p.signal(sig)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return effect{}, fmt.Errorf("it is still running after %s", sig)
	}
	how := p.exit()
	if !waitUntil(20*time.Second, func() bool { return s.processNumber() > process && s.status().PID != 0 }) {
		return effect{}, fmt.Errorf("%s; no next process was seen", how)
	}
	return observed("%s; process #%d started", how, s.processNumber()), nil
}

// killDuringJobKind kills an agent while it runs a job.
const killDuringJobKind = "agent: killed in a job"

// killDuringJob kills the agent at a random moment of an attempt, and notes which.
func killDuringJob(ctx context.Context, s *injector) (effect, error) {
	const (
		sending  = "sending"
		patience = 2 * time.Second // the wanted phase may not come; then any will do
	)
	wanted := pick(s, []string{"prepare", "run", "run", "run", "run", "check", "quality", "journal", sending})
	later := time.Duration(0)
	if wanted == "run" {
		later = s.between(0, 1500*time.Millisecond)
	}
	for {
		st, err := s.control.status(ctx)
		switch {
		case ctx.Err() != nil:
			return effect{}, fmt.Errorf("%w: no job was under way", errNoTarget)
		case err != nil:
		case wanted == sending && st.Journal.Unsent > 0 && len(st.Jobs) == 0:
			e, err := s.endAgent(ctx, syscall.SIGKILL)
			e.observed = "sending: " + e.observed
			return e, err
		case len(st.Jobs) > 0 && (st.Jobs[0].Phase == wanted || time.Since(s.started) > patience):
			if !waitUntil(later, func() bool { return len(s.status().Jobs) == 0 && s.status() != st }) {
				if now, err := s.control.status(ctx); err == nil && len(now.Jobs) > 0 {
					st = now
				}
			}
			job := st.Jobs[0]
			e, err := s.endAgent(ctx, syscall.SIGKILL)
			if e.attempt = (Attempt{job.Key.Job, job.Key.Attempt}); err == nil {
				e.observed = fmt.Sprintf("%s: %s", job.Phase, e.observed)
			}
			return e, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond): // the phases after an encode are short
		}
	}
}

// pauseAgent stops the agent, for longer than its master waits for heartbeats or for less.
func pauseAgent(ctx context.Context, s *injector) (effect, error) {
	p := s.running()
	if p == nil {
		return effect{}, errors.New("it did not run")
	}
	s.blocked.Add(1)
	defer s.blocked.Add(-1)
	beats := s.status().Heartbeat
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return effect{}, err
	}
	still := waitUntil(time.Second, func() bool { now, err := readProc(p.pid); return err == nil && now.State == 'T' })
	select {
	case <-ctx.Done():
	case <-time.After(s.between(500*time.Millisecond, unavailableAfter+2*time.Second)):
	}
	if err := p.signal(syscall.SIGCONT); err != nil || !still {
		return effect{}, errors.New("it ended in the meantime")
	}
	awake := waitUntil(10*time.Second, func() bool {
		now := s.status().Heartbeat
		return now != nil && now.LastAttempt != nil && (beats == nil || beats.LastAttempt == nil || now.LastAttempt.After(*beats.LastAttempt))
	})
	if !awake {
		return effect{}, errors.New("it did not wake up again")
	}
	return observed("pid %d stood still and went on", p.pid), nil
}

// corruptJournal ends the agent and damages its journal before the next start.
func corruptJournal(ctx context.Context, s *injector) (effect, error) {
	path := filepath.Join(s.data.dir, "journal.db")
	var trouble error
	s.mu.Lock()
	s.agent.beforeStart = append(s.agent.beforeStart, func() {
		trouble = s.flipBits(path)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.journalDamaged = true
	})
	s.mu.Unlock()
	if e, err := s.endAgent(ctx, syscall.SIGKILL); err != nil {
		return e, err
	}
	if trouble != nil {
		return effect{}, trouble
	}
	aside, _ := filepath.Glob(path + ".damaged-*")
	for _, f := range aside {
		_ = os.Remove(f) // as an operator does who has seen it
	}
	if len(aside) == 0 {
		return effect{}, errors.New("the agent did not notice the damage")
	}
	return observed("set aside as %s", filepath.Base(aside[0])), nil
}

// flipBits turns bits all over a file.
func (s *injector) flipBits(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for range 1 + len(raw)/512 {
		raw[s.random.IntN(len(raw))] ^= 1 << s.random.IntN(8)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(raw, 0)
	return errors.Join(err, f.Close())
}
