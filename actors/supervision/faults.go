package supervision

import (
	"time"

	"go.uber.org/zap"
)

// Crash, sent as *Crash, makes the actor that handles it panic. It needs Config.FaultInjection.
type Crash struct{ Reason string }

// Hang, sent as *Hang, makes the actor that handles it block its turn for so long, or until the System
// is stopped if For is not positive. It needs Config.FaultInjection.
type Hang struct{ For time.Duration }

func (i *incarnation) crash(m *Crash) {
	if i.mayFail("crash") {
		panic(m.Reason)
	}
}

func (i *incarnation) hang(m *Hang) {
	if !i.mayFail("hang") {
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

func (i *incarnation) mayFail(what string) bool {
	if !i.sys.cfg.FaultInjection {
		i.sys.log.Warn("fault injection is off: request ignored", zap.String("actor", i.ref.path), zap.String("fault", what))
	}
	return i.sys.cfg.FaultInjection
}
