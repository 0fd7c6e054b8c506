package main

import (
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// sentStates collects what a notifier sends.
type sentStates struct {
	mu  sync.Mutex
	all []string
}

func (s *sentStates) send(state string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, strings.Split(state, "\n")...)
	return nil
}

func (s *sentStates) count(state string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, sent := range s.all {
		if sent == state {
			n++
		}
	}
	return n
}

func TestWatchdogIsFedWhileTheAgentIsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent sentStates
		var hangs atomic.Bool
		n := startNotifier(notifierConfig{
			Send: sent.send, Watchdog: 8 * time.Second, Log: zap.NewNop(),
			Live: func() error {
				if hangs.Load() {
					return errors.New("actors hang: agent/heartbeat")
				}
				return nil
			},
			Status: func() messages.Status { return messages.Status{} },
		})
		feeds := func() int { time.Sleep(8 * time.Second); synctest.Wait(); return sent.count("WATCHDOG=1") }
		if got := feeds(); got < 2 {
			t.Errorf("fed %d times in the watchdog's time, want 2 at least", got)
		}
		hangs.Store(true)
		before := sent.count("WATCHDOG=1")
		if got := feeds(); got != before {
			t.Errorf("fed %d times while an actor hangs, want none", got-before)
		}
		hangs.Store(false)
		if got := feeds(); got == before {
			t.Error("not fed any more after the actor has recovered")
		}
		n.close()
	})
}

// A panic of what the notifier asks ends neither the process nor the notifications.
func TestNotifierSurvivesPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent sentStates
		var broken atomic.Bool
		broken.Store(true)
		n := startNotifier(notifierConfig{
			Send: sent.send, Watchdog: 8 * time.Second, Log: zap.NewNop(), Live: func() error { return nil },
			Status: func() messages.Status {
				if broken.Load() {
					panic("no status")
				}
				return messages.Status{Listeners: []messages.ListenerHealth{{Name: "control"}}}
			},
		})
		n.started()
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if ready, fed := sent.count("READY=1"), sent.count("WATCHDOG=1"); ready != 1 || fed != 0 {
			t.Errorf("with a panic: READY %d times, WATCHDOG %d times, want once and never", ready, fed)
		}
		broken.Store(false)
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if sent.count("WATCHDOG=1") == 0 {
			t.Error("the watchdog is not fed any more")
		}
		n.close()
	})
}

// A service manager that does not read must not hold up the agent.
func TestNotifierDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blocked := make(chan struct{})
		n := startNotifier(notifierConfig{
			Send: func(string) error { <-blocked; return nil }, Log: zap.NewNop(),
			Live: func() error { return nil }, Status: func() messages.Status { return messages.Status{} },
		})
		begun := time.Now()
		for range 100 {
			n.ready()
		}
		n.stopping(time.Minute)
		n.close()
		if waited := time.Since(begun); waited > flushTimeout {
			t.Errorf("waited %s, want %s at most", waited, flushTimeout)
		}
		close(blocked)
	})
}

// However many reloads there are while the service manager reads nothing, READY is its last.
func TestReadyFollowsEachReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent sentStates
		reads := make(chan struct{})
		n := startNotifier(notifierConfig{
			Send: func(state string) error { <-reads; return sent.send(state) }, Log: zap.NewNop(),
			Live: func() error { return nil }, Status: func() messages.Status { return messages.Status{} },
		})
		for range 40 {
			n.reloading()
			n.ready()
			synctest.Wait()
		}
		close(reads)
		synctest.Wait()
		n.close()
		states := slices.DeleteFunc(sent.all, func(s string) bool { return s != "READY=1" && s != "RELOADING=1" })
		if len(states) < 2 || states[len(states)-1] != "READY=1" || states[len(states)-2] != "RELOADING=1" {
			t.Errorf("got %q, want RELOADING and READY at the end", states)
		}
	})
}

func TestReadyWaitsForTheControlSocket(t *testing.T) {
	for name, test := range map[string]struct {
		served time.Duration // how long until the control socket is served
		want   time.Duration
	}{
		"served":       {time.Second, time.Second},
		"never served": {time.Hour, startedWithin},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				ready := make(chan time.Duration, 1)
				n := startNotifier(notifierConfig{
					Send: func(state string) error {
						if state == "READY=1" {
							ready <- time.Since(begun)
						}
						return nil
					},
					Live: func() error { return nil }, Log: zap.NewNop(),
					Status: func() (s messages.Status) {
						if time.Since(begun) >= test.served {
							s.Listeners = []messages.ListenerHealth{{Name: "control"}}
						}
						return s
					},
				})
				n.started()
				if got := <-ready; got != test.want {
					t.Errorf("ready after %s, want %s", got, test.want)
				}
				n.close()
			})
		})
	}
}

func TestNotifierWithoutServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n := newNotifier(nil, nil, zap.NewNop())
	n.started()
	n.ready()
	n.reloading()
	n.stopping(time.Second)
	n.close()
}

func TestStatusLine(t *testing.T) {
	session := &messages.Session{NodeID: "n1"}
	failing := []messages.Check{{Name: "disk"}, {Name: "master", Reason: "no heartbeat answered\nfor 2m"}}
	for want, s := range map[string]messages.Status{
		"Idle; node n1 (host)":           {Address: "host", Session: session},
		"Running 2 jobs; node n1 (host)": {Address: "host", Session: session, Jobs: make([]messages.JobStatus, 2)},
		"Running 1 job; taking no jobs: no heartbeat answered for 2m; node n1 (host)": {
			Address: "host", Session: session, Checks: failing, Jobs: make([]messages.JobStatus, 1)},
		"Idle; taking no jobs: not registered": {Checks: []messages.Check{{Name: "registered", Reason: "not registered"}}},
		"Draining: waiting for 1 running job (j#2 at - %)": {
			Draining: true, Session: session, Jobs: []messages.JobStatus{{Key: job.Key{JobID: "j", Attempt: 2}}}},
	} {
		if got := statusLine(&s); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

// The agent's own process with a real socket, from its start to the end of a drain.
func TestServiceManagerIsNotified(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	socket := filepath.Join(shortDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	agent := startAgent(t, append(bed.environment(), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=400000", "FFMPEG_AGENT_SHUTDOWN_DRAIN_TIMEOUT=30m"), bed.flags()...)
	job := bed.submit(ffmpegtest.Long())

	buffer := make([]byte, 64<<10)
	// await waits for states that begin like this, in any order.
	await := func(wants ...string) {
		t.Helper()
		for len(wants) > 0 {
			if err := conn.SetReadDeadline(time.Now().Add(hang)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(buffer)
			if err != nil {
				t.Fatalf("waiting for %q: %v", wants, err)
			}
			states := strings.Split(string(buffer[:n]), "\n")
			wants = slices.DeleteFunc(wants, func(want string) bool {
				return slices.ContainsFunc(states, func(s string) bool { return strings.HasPrefix(s, want) })
			})
		}
	}
	await("READY=1", "WATCHDOG=1", "STATUS=Running 1 job; node ")
	bed.awaitFFmpeg()
	agent.signal(t, syscall.SIGTERM)
	await("STOPPING=1", "EXTEND_TIMEOUT_USEC=1890000000", "STATUS=Draining: waiting for 1 running job (")
	await("WATCHDOG=1") // also while it drains
	bed.cancel(job.ID)
	agent.wantExit(t, exitOK)
}

// systemctl status tells why the agent could not start.
func TestServiceManagerShowsWhyTheStartFailed(t *testing.T) {
	socket := filepath.Join(shortDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	if code, _, errs := command(t, "run", "--poll-interval", "never"); code != exitUsage {
		t.Fatalf("got exit status %d: %s, want %d", code, errs, exitUsage)
	}
	if err := conn.SetReadDeadline(time.Now().Add(hang)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 64<<10)
	n, err := conn.Read(buffer)
	const want = `STATUS=configuration: poll_interval "never" (flag --poll-interval): not a duration`
	if got := string(buffer[:n]); err != nil || !strings.HasPrefix(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
