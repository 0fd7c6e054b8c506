package supervision

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// probe sends each actor a message per interval and abandons those that do not answer.
func (s *System) probe() {
	ticker := time.NewTicker(s.cfg.ProbeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, i := range s.sweep() {
				s.handleHung(i)
			}
		case <-s.quit:
			return
		}
	}
}

// sweep probes the actors that have answered the last probe and returns those that hang. An overdue actor
// gets one more sweep to answer: the whole process may have been suspended.
func (s *System) sweep() (hung []*incarnation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.lastSweep = now
	for i := range s.incarnations {
		switch {
		case i.phase == ended || i.abandoned:
		case i.probeSent.Load() == nil:
			i.missed = 0
			i.probeSent.Store(&now)
			i.post(probe{})
		default:
			i.missed++
			if i.missed >= 2 && s.overdue(i) {
				hung = append(hung, i)
			}
		}
	}
	return hung
}

func (s *System) overdue(i *incarnation) bool {
	sent := i.probeSent.Load()
	return sent != nil && time.Since(*sent) >= s.cfg.HangAfter
}

// hung abandons an actor that does not answer, and gives up if it is critical or one too many. It logs last:
// nothing here waits for the log.
func (s *System) handleHung(i *incarnation) {
	if !s.abandon(i) {
		return
	}
	path := i.ref.path
	critical := slices.Contains(s.cfg.Critical, i.ref.name) || slices.Contains(s.cfg.Critical, path)
	s.mu.Lock()
	s.abandoned = append(s.abandoned, path)
	abandoned := strings.Join(s.abandoned, ", ")
	givesUp := s.gaveUp == nil && (critical || len(s.abandoned) >= s.cfg.MaxAbandoned)
	reason := fmt.Sprintf("actor %s hangs", path)
	if givesUp {
		if !critical {
			reason += fmt.Sprintf(", and the limit of abandoned actors is %d", s.cfg.MaxAbandoned)
		}
		s.gaveUp = fmt.Errorf("supervision gave up: %s (abandoned so far: %s)", reason, abandoned)
	}
	s.mu.Unlock()
	if givesUp && s.cfg.OnFatal != nil {
		go guard(func() { s.cfg.OnFatal(reason) }, func(p *panicError) {
			if p != nil {
				s.log.Error("OnFatal failed", zap.Any("reason", p.value), zap.String("stack", p.stack))
			}
		})
	}
	s.logAbandoned(i, "did not answer its probe")
	if givesUp {
		s.log.Error("supervision gave up", zap.String("reason", reason), zap.String("abandoned", abandoned))
	}
}

func (s *System) logAbandoned(i *incarnation, why string) {
	s.log.Error("hung actor abandoned", zap.String("actor", i.ref.path), zap.String("why", why))
}

// Live returns nil while every actor answers its probe in time, else an error that names those
// that do not. Once the System has given up, it always returns that error. After Stop it returns
// nil. It is meant for a watchdog.
func (s *System) Live() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gaveUp != nil:
		return s.gaveUp
	case s.closed || s.cfg.ProbeInterval < 0:
		return nil
	case time.Since(s.lastSweep) > s.cfg.HangAfter+2*s.cfg.ProbeInterval:
		return errors.New("the liveness probe is late")
	}
	var hung []string
	for i := range s.incarnations {
		if !i.abandoned && i.phase != ended && s.overdue(i) {
			hung = append(hung, i.ref.path)
		}
	}
	if len(hung) == 0 {
		return nil
	}
	slices.Sort(hung)
	return fmt.Errorf("actors hang: %s", strings.Join(hung, ", "))
}
