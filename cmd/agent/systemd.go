package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages"
)

// notifier reports the agent's state to the service manager that started it (sd_notify(3)).
// Where nothing asks for that, newNotifier returns nil, whose methods do nothing. No method
// waits for the service manager.
type notifier struct {
	notifierConfig
	queued  chan struct{} // wakes the goroutine
	stop    chan struct{} // closed by close
	stopped chan struct{} // closed when the goroutine has ended
	status  string        // last one sent; used by the goroutine alone
	failing bool          // the last look at Live; used by the goroutine alone

	mu      sync.Mutex
	pending []string // states to be sent, in this order
}

type notifierConfig struct {
	Send     func(state string) error
	Watchdog time.Duration          // the service manager restarts the agent after this long without a sign of life; 0: never
	Live     func() error           // nil: give a sign of life
	Status   func() messages.Status // summed up in one line
	Log      *zap.Logger
}

// notifyInterval is the interval between two looks at the status, a quarter of the
// watchdog's time at most.
const notifyInterval = 5 * time.Second

// newNotifier starts a notifier for the service manager that the environment names.
func newNotifier(live func() error, status func() messages.Status, log *zap.Logger) *notifier {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog is not used", zap.Error(err))
	}
	return startNotifier(notifierConfig{
		Send:     func(state string) error { _, err := daemon.SdNotify(false, state); return err },
		Watchdog: watchdog, Live: live, Status: status, Log: log,
	})
}

func startNotifier(cfg notifierConfig) *notifier {
	n := &notifier{notifierConfig: cfg, queued: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
	go n.run()
	return n
}

// started reports that the agent is ready, once its control socket is served or cannot be: what
// systemctl start returns to may be agent status. It waits startedWithin at most.
func (n *notifier) started() {
	if n == nil {
		return
	}
	go func() {
		defer n.ready()
		n.guard(n.awaitControl)
	}()
}

// awaitControl returns once the control socket is served, or cannot be.
func (n *notifier) awaitControl() {
	giveUp := time.After(startedWithin)
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for !n.hasStatus("control") {
		select {
		case <-poll.C:
		case <-giveUp:
			return
		case <-n.stop:
			return
		}
	}
}

const startedWithin = 10 * time.Second

// hasStatus reports whether an endpoint of the agent is served or has failed to be.
func (n *notifier) hasStatus(endpoint string) bool {
	return slices.ContainsFunc(n.Status().Listeners, func(l messages.ListenerHealth) bool { return l.Name == endpoint })
}

// ready reports that the agent has started, or that a reload has ended.
func (n *notifier) ready() { n.queue(daemon.SdNotifyReady) }

// reloading reports that the configuration is being loaded again; ready must follow.
func (n *notifier) reloading() {
	n.queue(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// stopping reports that the agent will end, within a time that may exceed what the unit allows.
func (n *notifier) stopping(within time.Duration) {
	n.queue(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, within.Microseconds()))
}

// queue replaces states of the same kind that the service manager has not read yet: what
// counts is whether the agent reloads, is ready or stops now.
func (n *notifier) queue(state string) {
	if n == nil {
		return
	}
	kind, _, _ := strings.Cut(state, "=")
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending = slices.DeleteFunc(n.pending, func(s string) bool { return strings.HasPrefix(s, kind+"=") })
	n.pending = append(n.pending, state)
	select {
	case n.queued <- struct{}{}:
	default:
	}
}

// sendQueued sends what is queued, in its order.
func (n *notifier) sendQueued() {
	n.mu.Lock()
	states := n.pending
	n.pending = nil
	n.mu.Unlock()
	for _, state := range states {
		n.send(state)
	}
}

// close sends what is queued, and gives up after flushTimeout.
func (n *notifier) close() {
	if n == nil {
		return
	}
	close(n.stop)
	select {
	case <-n.stopped:
	case <-time.After(flushTimeout):
	}
}

func (n *notifier) run() {
	defer close(n.stopped)
	interval := notifyInterval
	if n.Watchdog > 0 {
		interval = min(interval, n.Watchdog/4)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-n.queued:
			n.sendQueued()
			n.guard(n.report)
		case <-tick.C:
			n.guard(n.report)
		case <-n.stop:
			n.sendQueued()
			return
		}
	}
}

// guard keeps a panic of the agent's functions from ending the process. The watchdog is not
// fed then.
func (n *notifier) guard(do func()) {
	defer func() {
		if v := recover(); v != nil {
			n.Log.Error("panic while notifying the service manager", zap.Any("panic", v), zap.Stack("stack"))
		}
	}()
	do()
}

// report sends the status if it has changed, and the sign of life that the watchdog waits for.
func (n *notifier) report() {
	var states []string
	status := n.Status()
	if line := statusLine(&status); line != n.status {
		n.status = line
		states = append(states, "STATUS="+line)
	}
	if n.Watchdog > 0 && n.live() {
		states = append(states, daemon.SdNotifyWatchdog)
	}
	if len(states) > 0 {
		n.send(strings.Join(states, "\n"))
	}
}

func (n *notifier) live() bool {
	err := n.Live()
	if err != nil && !n.failing {
		n.Log.Error("not notifying the watchdog; the service manager restarts the agent unless it recovers",
			zap.Error(err), zap.Duration("watchdog", n.Watchdog))
	}
	n.failing = err != nil
	return err == nil
}

func (n *notifier) send(state string) {
	if err := n.Send(state); err != nil {
		name, _, _ := strings.Cut(state, "=")
		n.Log.Warn("could not notify the service manager", zap.String("state", name), zap.Error(err))
	}
}

// notifyFailure has the service manager show why the agent ends, until its next start.
func notifyFailure(err error) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = daemon.SdNotify(false, "STATUS="+safetext.Shorten(plain(err.Error()), 1000)) // the log has it as well
	}()
	select {
	case <-sent:
	case <-time.After(flushTimeout):
	}
}

// statusLine sums up the status for systemctl status, without what changes all the time.
func statusLine(s *messages.Status) string {
	if s.Draining {
		return "Draining: " + remainingText(s)
	}
	var failing []string
	for _, c := range s.Checks {
		if !c.OK() {
			failing = append(failing, c.Reason)
		}
	}
	running := "Idle"
	if n := len(s.Jobs); n > 0 {
		running = fmt.Sprintf("Running %s", plural(n, "job"))
	}
	line := running
	if len(failing) > 0 {
		line += "; taking no jobs: " + strings.Join(failing, "; ")
	}
	if s.Session != nil {
		line += fmt.Sprintf("; node %s (%s)", s.Session.NodeID, s.Address)
	}
	return plain(line)
}
