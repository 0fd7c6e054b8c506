package supervision

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// probe sends each actor a message at each interval and abandons those that do not answer.
func (s *System) probe() {
	ticker := time.NewTicker(s.cfg.ProbeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, i := range s.sweep() {
				s.hung(i)
			}
		case <-s.quit:
			return
		}
	}
}

// sweep probes the actors that have answered the last probe and returns those that hang. An overdue actor
// gets another sweep to answer in: the whole process may have stood still.
func (s *System) sweep() (hung []*incarnation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swept = time.Now()
	for i := range s.incarnations {
		switch {
		case i.phase == ended || i.abandoned:
		case i.probeSent.Load() == 0:
			i.missed = 0
			i.probeSent.Store(max(1, int64(time.Since(s.epoch))))
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
	return sent != 0 && time.Since(s.epoch)-time.Duration(sent) >= s.cfg.HangAfter
}

// hung abandons an actor that does not answer, and gives up if it is critical or one too many. It logs last:
// nothing here waits for the log.
func (s *System) hung(i *incarnation) {
	if !s.abandon(i) {
		return
	}
	path := i.ref.path
	critical := slices.Contains(s.cfg.Critical, i.ref.name) || slices.Contains(s.cfg.Critical, path)
	s.mu.Lock()
	s.abandoned = append(s.abandoned, path)
	var report *GaveUp
	if s.gaveUp == nil && (critical || len(s.abandoned) >= s.cfg.MaxAbandoned) {
		report = &GaveUp{Reason: fmt.Sprintf("actor %s hangs", path), Abandoned: slices.Clone(s.abandoned), At: time.Now()}
		if !critical {
			report.Reason += fmt.Sprintf(", and the limit of abandoned actors is %d", s.cfg.MaxAbandoned)
		}
		s.gaveUp = report
	}
	s.mu.Unlock()
	if report != nil && s.cfg.OnFatal != nil {
		go guard(func() { s.cfg.OnFatal(report.Reason) }, func(p *PanicError) {
			if p != nil {
				s.log.Error("OnFatal failed", zap.Any("reason", p.Value), zap.String("stack", p.Stack))
			}
		})
	}
	s.logAbandoned(i, "it does not answer its probe")
	if report != nil {
		s.log.Error("supervision gave up", zap.String("reason", report.Reason), zap.Strings("abandoned", report.Abandoned))
	}
}

func (s *System) logAbandoned(i *incarnation, why string) {
	s.log.Error("hung actor abandoned", zap.String("actor", i.ref.path), zap.String("why", why))
}

// Live reports nil while every actor answers its probe in time; else the error names
// those that do not. Once the System has given up it returns that error for good. It decides whether a
// watchdog is fed; after Stop it is nil.
func (s *System) Live() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gaveUp != nil:
		return s.gaveUp
	case s.closed || s.cfg.ProbeInterval < 0:
		return nil
	case time.Since(s.swept) > s.cfg.HangAfter+2*s.cfg.ProbeInterval:
		return errors.New("the probe of the actors is late")
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
	return fmt.Errorf("%w: %s", ErrHung, strings.Join(hung, ", "))
}

// GaveUp returns the report of why the System gave up, nil while it has not.
func (s *System) GaveUp() *GaveUp {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gaveUp
}
