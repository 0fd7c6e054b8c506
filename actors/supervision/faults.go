package supervision

import (
	"time"

	"go.uber.org/zap"
)

// Crash, sent as *Crash, makes the receiving actor panic. It requires Config.FaultInjection.
type Crash struct{ Reason string }

// Hang, sent as *Hang, blocks a turn of the receiving actor for a time, or until the System is
// stopped if For is not positive. It requires Config.FaultInjection.
type Hang struct{ For time.Duration }

func (i *incarnation) crash(m *Crash) {
	if i.faultsEnabled("crash") {
		panic(m.Reason)
	}
}

func (i *incarnation) hang(m *Hang) {
	if !i.faultsEnabled("hang") {
		return
	}
	var over <-chan time.Time
	if m.For > 0 {
		over = time.After(m.For)
	}
	select {
	case <-over:
	case <-i.sys.quit:
	}
}

func (i *incarnation) faultsEnabled(what string) bool {
	if !i.sys.cfg.FaultInjection {
		i.sys.log.Warn("fault injection is off: request ignored", zap.String("actor", i.ref.path), zap.String("fault", what))
	}
	return i.sys.cfg.FaultInjection
}
