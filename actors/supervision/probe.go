package supervision

import (
	"fmt"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"
)

// probe sends each actor a message through its mailbox, ever again, and sees to those
// that do not get round to it.
func (s *System) probe() {
	ticker := time.NewTicker(s.cfg.ProbeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, c := range s.sweep() {
				s.hung(c)
			}
		case <-s.quit:
			return
		}
	}
}

// sweep probes whoever has answered the last probe and returns those who hang. A
// second look is always taken: the process itself may have stood still.
func (s *System) sweep() (hung []*cell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swept = time.Now()
	for c := range s.cells {
		switch {
		case c.finished || c.abandoned.Load():
		case c.probeSent.Load() == 0:
			c.missed = 0
			c.probeSent.Store(max(1, int64(time.Since(s.epoch))))
			c.mailbox.PostSystemMessage(probe{})
		default:
			c.missed++
			if c.missed >= 2 && s.overdue(c) {
				hung = append(hung, c)
			}
		}
	}
	return hung
}

func (s *System) overdue(c *cell) bool {
	sent := c.probeSent.Load()
	return sent != 0 && time.Since(s.epoch)-time.Duration(sent) >= s.cfg.HangAfter
}

// hung gives a cell up that does not answer.
func (s *System) hung(c *cell) {
	if !s.abandon(c, "it does not answer") {
		return
	}
	s.mu.Lock()
	s.abandoned = append(s.abandoned, c.role.path)
	many := len(s.abandoned) >= s.cfg.MaxAbandoned
	critical := slices.Contains(s.cfg.Critical, c.role.name) || slices.Contains(s.cfg.Critical, c.role.path)
	s.mu.Unlock()
	switch {
	case critical:
		s.giveUp(fmt.Sprintf("actor %s hangs", c.role.path))
	case many:
		s.giveUp(fmt.Sprintf("actor %s hangs, and the limit of abandoned actors is %d", c.role.path, s.cfg.MaxAbandoned))
	}
}

// giveUp says, once, that the process has to end.
func (s *System) giveUp(reason string) {
	s.mu.Lock()
	if s.gaveUp != nil {
		s.mu.Unlock()
		return
	}
	report := &GaveUp{Reason: reason, Abandoned: slices.Clone(s.abandoned), At: time.Now()}
	s.gaveUp = report
	s.mu.Unlock()
	s.log.Error("supervision gave up", zap.String("reason", reason), zap.Strings("abandoned", report.Abandoned))
	if s.cfg.OnFatal != nil {
		go watched(func() { s.cfg.OnFatal(reason) }, func(p *PanicError) {
			if p != nil {
				s.log.Error("OnFatal failed", zap.Any("reason", p.Value), zap.String("stack", p.Stack))
			}
		})
	}
}

// abandon cuts a cell off that cannot be stopped: from its work, its children and
// its parent. A cell that plays a role which is still wanted is replaced, once its
// children have ended. false: it had ended already.
func (s *System) abandon(c *cell, why string) bool {
	s.mu.Lock()
	if c.finished || c.abandoned.Load() {
		s.mu.Unlock()
		return false
	}
	c.wanted = c.current() && !c.temporary
	c.abandoned.Store(true)
	c.role.abandoned++
	for id, child := range c.children {
		if child.finished || child.abandoned.Load() {
			delete(c.children, id)
		}
	}
	orphans := make([]*cell, 0, len(c.children))
	for _, child := range c.children {
		orphans = append(orphans, child)
	}
	if c.temporary {
		if c.cause == nil {
			c.cause = &ChildFailed{Name: c.role.name, Reason: ErrHung}
		}
		s.vacate(c)
	}
	s.mu.Unlock()

	s.log.Error("an actor is abandoned", zap.String("actor", c.role.path), zap.String("process", c.id), zap.String("why", why))
	if scope := c.scope.Load(); scope != nil {
		scope.cut()
	}
	c.mailbox.close()
	c.mailbox.PostSystemMessage(&actor.Stop{}) // should its turn ever return
	for _, child := range orphans {
		child.mailbox.PostSystemMessage(&actor.Stop{})
	}
	if c.parent != nil {
		c.parent.mailbox.PostSystemMessage(&actor.Terminated{Who: actor.NewPID(s.actors.Address(), c.id)})
		s.bereave(c)
	}
	if len(orphans) == 0 {
		s.replace(c)
	}
	return true
}

// bereave lets an abandoned parent of an abandoned child have its replacement.
func (s *System) bereave(c *cell) {
	s.mu.Lock()
	orphaned := false
	if p := c.parent; p.abandoned.Load() && p.children[c.id] != nil {
		delete(p.children, c.id)
		orphaned = len(p.children) == 0
	}
	s.mu.Unlock()
	if orphaned {
		s.replace(c.parent)
	}
}

// replaceable reports whether the role of an abandoned cell is vacant and wanted.
func (s *System) replaceable(c *cell) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vacant(c)
}

// vacant is replaceable with mu held.
func (s *System) vacant(c *cell) bool {
	return c.abandoned.Load() && c.wanted && !c.role.stopped && c.role.cell.Load() == c
}

// replace has the role of an abandoned cell played by a fresh one: a root's here, a
// child's in its parent's turn.
func (s *System) replace(c *cell) {
	if c.parent != nil {
		c.parent.mailbox.PostSystemMessage(replace{c})
		return
	}
	go s.fill(c) // Spec.New may hang as well
}

// replaceChild does it in the turn of the parent, if that is still the incarnation
// which the child belonged to: a later one has spawned its own.
func (s *System) replaceChild(parent, hung *cell) {
	at := phase(parent.phase.Load())
	if (at == running || at == failed) && hung.parentInc == parent.incarnation {
		s.fill(hung)
	}
}

// fill puts a fresh cell in the place of an abandoned one, if that is still wanted.
func (s *System) fill(hung *cell) {
	s.mu.Lock()
	if !s.vacant(hung) || s.barred(hung.parent) {
		s.mu.Unlock()
		return
	}
	c := s.enter(hung.role, hung.parent)
	s.mu.Unlock()
	if err := s.launch(c); err != nil {
		s.log.Error("replacing a hung actor", zap.Error(err))
	}
}
