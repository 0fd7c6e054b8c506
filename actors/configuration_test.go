package actors

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// operator is a configuration that a test changes as an operator would.
type operator struct {
	mu      sync.Mutex
	edited  Settings // what the file says
	inForce Settings
	broken  bool
	loads   int
	error   string
}

func (o *operator) edit(change func(*Settings)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change(&o.edited)
}

func (o *operator) Changed() bool { return false }

func (o *operator) Reload(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken {
		o.error = "broken"
		return errors.New(o.error)
	}
	o.inForce, o.error = o.edited, ""
	o.loads++
	return nil
}

func (o *operator) Settings() Settings {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.inForce
}

func (o *operator) Status() messages.ConfigurationStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	return messages.ConfigurationStatus{Error: o.error}
}

// clock is a master that records when it was called, by what, in a test of its own time.
type clock struct {
	Master
	refuses atomic.Bool // the key
	began   time.Time
	mu      sync.Mutex
	calls   map[string][]time.Duration // since began, by call
}

func (c *clock) called(call string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[call] = append(c.calls[call], time.Since(c.began))
	if c.refuses.Load() {
		return &protocol.Error{Kind: protocol.Unauthorized, Err: errors.New("401")}
	}
	return nil
}

func (c *clock) times(call string) []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]time.Duration{}, c.calls[call]...)
}

func (c *clock) Register(context.Context, messages.NodeFacts) (messages.Session, error) {
	return messages.Session{NodeID: "n", Since: time.Now()}, c.called("register")
}

func (c *clock) Heartbeat(context.Context, messages.Session, messages.NodeStatus) error {
	return c.called("heartbeat")
}

func (c *clock) Next(context.Context, messages.Session) (*job.Lease, error) {
	return nil, c.called("poll")
}

func (c *clock) Held(context.Context, messages.Session) (messages.Held, error) {
	return messages.Held{}, c.called("held")
}

// sessionOnly is a journal that keeps no session.
type sessionOnly struct{ Journal }

func (sessionOnly) SaveSession(messages.Session) error { return nil }

func (sessionOnly) Stats() job.JournalStats { return job.JournalStats{} }

// underClock runs the actors that call the master, in a time of its own.
func underClock(t *testing.T, test func(*Agent, *operator, *clock)) {
	synctest.Test(t, func(t *testing.T) {
		o := &operator{edited: Settings{
			Register: true, PollInterval: 10 * time.Second, HeartbeatInterval: 30 * time.Second, ReconcileInterval: time.Minute,
			UnavailableAfter: 90 * time.Second, Slots: 1,
		}}
		o.inForce = o.edited
		master := &clock{began: time.Now(), calls: map[string][]time.Duration{}}
		a, err := start(Config{
			Dependencies: Dependencies{Master: master, Journal: sessionOnly{}, Configuration: o},
			Settings:     o.inForce,
			Supervision:  supervision.Config{FaultInjection: true},
			Logger:       zap.NewNop(),
		}, func(s *shared) []child {
			return []child{
				{"registrar", s.refs.registrar, func() actor.Actor { return newRegistrar(s) }},
				{"heartbeat", s.refs.heartbeat, func() actor.Actor { return newHeartbeat(s) }},
				{"poller", s.refs.poller, func() actor.Actor { return newPoller(s) }},
				{"configuration", s.refs.configuration, func() actor.Actor { return newConfiguration(s) }},
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := a.system.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		for _, gate := range []string{gateDisk, gateFFmpeg, gateJournal} {
			a.shared.refs.poller.Tell(&messages.Gate{Name: gate})
		}
		a.shared.refs.poller.Tell(&messages.Slots{Free: 1})
		synctest.Wait()
		test(a, o, master)
	})
}

// after lets time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestHeartbeatIntervalChangesWithoutAGap(t *testing.T) {
	underClock(t, func(a *Agent, o *operator, c *clock) {
		after(5 * time.Second)
		first := len(c.times("heartbeat")) // the start may send two
		after(30 * time.Second)
		o.edit(func(s *Settings) { s.HeartbeatInterval = 10 * time.Second })
		a.Reload()
		after(25*time.Second + time.Millisecond) // 40, 50, 60
		o.edit(func(s *Settings) { s.HeartbeatInterval = 60 * time.Second })
		a.Reload()
		a.Reload() // nothing has changed
		after(60 * time.Second)
		a.Crash("agent/heartbeat") //nolint:errcheck // its restart sends one at once
		after(time.Second)
		after(60 * time.Second)
		times := c.times("heartbeat")[first:]
		want := []time.Duration{30, 40, 50, 60, 120, 120, 180}
		if len(times) != len(want) {
			t.Fatalf("got heartbeats at %v, want about %d s", times, want)
		}
		for i, at := range want {
			if off := times[i] - at*time.Second; off < 0 || off > 2*time.Second {
				t.Errorf("heartbeat %d: got %v, want %d s", i, times[i], at)
			}
		}
	})
}

func TestPollIntervalChangesAtOnce(t *testing.T) {
	underClock(t, func(a *Agent, o *operator, c *clock) {
		o.edit(func(s *Settings) { s.PollInterval = time.Hour })
		a.Reload()
		after(90 * time.Minute)
		slow := len(c.times("poll"))
		o.edit(func(s *Settings) { s.PollInterval = time.Second })
		a.Reload()
		after(10 * time.Second)
		if fast := len(c.times("poll")) - slow; slow > 3 || fast < 8 || fast > 12 {
			t.Errorf("got %d polls in 90 min at an interval of 1 h, then %d in 10 s at 1 s", slow, fast)
		}
	})
}

func TestReloadRetriesWhatTheKeyWasRefusedFor(t *testing.T) {
	underClock(t, func(a *Agent, o *operator, c *clock) {
		after(12 * time.Second)
		c.refuses.Store(true)
		after(time.Minute)
		before := map[string]int{"heartbeat": len(c.times("heartbeat")), "poll": len(c.times("poll"))}
		c.refuses.Store(false)
		after(time.Millisecond)
		a.Reload()
		after(time.Millisecond)
		for call, n := range before {
			if got := len(c.times(call)); got != n+1 {
				t.Errorf("%s: got %d more calls at the reload, want 1", call, got-n)
			}
		}
	})
}

func TestReloadRetriesARefusedRegistration(t *testing.T) {
	underClock(t, func(a *Agent, o *operator, c *clock) {
		c.refuses.Store(true)
		a.shared.refs.registrar.Tell(&messages.RegisterAgain{Session: *a.Snapshots().Session(), Reason: "test"})
		after(10 * time.Minute)
		tries := len(c.times("register"))
		c.refuses.Store(false)
		a.Reload()
		after(time.Millisecond)
		if got := len(c.times("register")); got != tries+1 {
			t.Errorf("got %d more registrations at the reload, want 1", got-tries)
		}
		after(10 * time.Minute)
		if got := len(c.times("register")); got != tries+1 {
			t.Errorf("got %d more registrations after it succeeded, want none", got-tries-1)
		}
	})
}

func TestFailedReloadChangesNothing(t *testing.T) {
	underClock(t, func(a *Agent, o *operator, c *clock) {
		o.edit(func(s *Settings) { s.HeartbeatInterval, s.Slots = time.Second, 7 })
		o.broken = true
		beats := len(c.times("heartbeat"))
		if err := a.ReloadNow(context.Background()); err == nil || err.Error() != "broken" {
			t.Errorf("got error %v, want why nothing has changed", err)
		}
		after(20 * time.Second)
		status := a.Status()
		if len(c.times("heartbeat")) != beats || status.Slots != 1 || status.Configuration.Error != "broken" {
			t.Errorf("got %d more heartbeats, %d slots, error %q; want none, 1, broken",
				len(c.times("heartbeat"))-beats, status.Slots, status.Configuration.Error)
		}
		o.broken = false
		if err := a.ReloadNow(context.Background()); err != nil || a.Status().Slots != 7 {
			t.Errorf("after the repair: got %v and %d slots, want 7", err, a.Status().Slots)
		}
	})
}

// A reload whose actor crashed before it could tell anybody.
func TestSettingsSurviveTheCrashOfTheirActor(t *testing.T) {
	underClock(t, func(a *Agent, o *operator, c *clock) {
		o.edit(func(s *Settings) { s.Slots = 3 })
		if err := o.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := a.Status().Slots; got != 1 {
			t.Fatalf("got %d slots before the crash, want 1", got)
		}
		if err := a.Crash("agent/configuration"); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		if got := a.Status().Slots; got != 3 {
			t.Errorf("got %d slots after the crash, want 3", got)
		}
	})
}
