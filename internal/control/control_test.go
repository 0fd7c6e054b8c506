package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// hang is the deadline for whatever a test waits for.
const hang = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder is a fresh folder with a path short enough for a socket.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// run serves until the returned function is called, which returns what Serve did.
func run(t *testing.T, s *Server) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return within(t, ended)
	})
	t.Cleanup(func() { stop() })
	waitFor(t, "the socket", func() bool {
		conn, err := net.Dial("unix", s.path)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return stop
}

func within(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(hang):
		t.Fatal("Serve does not return")
		return nil
	}
}

func waitFor(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", hang, what)
		}
	}
}

func serve(t *testing.T, h Handlers) *Client {
	t.Helper()
	path := filepath.Join(folder(t), "agent.sock")
	run(t, NewServer(path, h, zap.NewNop()))
	return Dial(path)
}

func status() messages.Status {
	watts, eta := energy.Watts(42.5), 12*time.Second
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return messages.Status{
		Version: "v1", PID: 7, StartedAt: at, At: at, Address: "worker-1",
		Session: &messages.Session{NodeID: "n-1", Address: "worker-1", Master: "http://m:8080", Since: at},
		Checks:  []messages.Check{{Name: "disk", Reason: "full"}},
		Jobs: []messages.JobStatus{{
			Key: job.Key{JobID: "j", Attempt: 2}, Phase: job.PhaseRun,
			Progress: job.Progress{Percent: 12.5, FPS: 30}, ETA: &eta, Power: &watts, Source: energy.Measured,
		}},
		Power: &watts, Source: energy.Measured,
	}
}

func TestStatusArrivesAsItIs(t *testing.T) {
	got, err := serve(t, Handlers{Status: status}).Status(t.Context())
	if err != nil || !reflect.DeepEqual(got, status()) {
		t.Errorf("got %+v (%v)\nwant %+v", got, err, status())
	}
}

func TestADrainIsAskedForAndItsRefusalIsTold(t *testing.T) {
	var asked atomic.Int32
	c := serve(t, Handlers{Drain: func(context.Context) error {
		if asked.Add(1) > 1 {
			return errors.New("not twice")
		}
		return nil
	}})
	if err := c.Drain(t.Context()); err != nil || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
	if err := c.Drain(t.Context()); err == nil || !strings.Contains(err.Error(), "not twice") {
		t.Errorf("the refusal reads %v", err)
	}
}

func TestRecordsKeepTheirResultToTheByteAndLoseTheJobsParameters(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	result := json.RawMessage(`{ "job_id" : "a/b c", "progress":100,  "logs":"<&>\u00e4 é" }` + "\n")
	stored := []job.Record{
		{
			Lease: job.Lease{Job: protocol.Job{ID: "a/b c", Parameters: protocol.Parameters{"stream_key": "s3cr3t"}}, NodeID: "n"},
			State: job.RecordAccepted, AcceptedAt: at,
		},
		{
			Lease: job.Lease{Job: protocol.Job{ID: "a/b c", RetryCount: 1, Scenario: "720p30-h264"}, NodeID: "n"},
			State: job.RecordSent, Result: result, Why: "sent", AcceptedAt: at, StartedAt: &at, FinishedAt: &at, SettledAt: &at,
		},
	}
	c := serve(t, Handlers{Find: func(id string) ([]job.Record, error) {
		if id != "a/b c" {
			return nil, fmt.Errorf("asked for %q", id)
		}
		return stored, nil
	}})
	got, err := c.Find(t.Context(), "a/b c")
	if err != nil || len(got) != 2 {
		t.Fatalf("got %d records: %v", len(got), err)
	}
	if !bytes.Equal(got[1].Result, result) {
		t.Errorf("the result came as %q, want %q", got[1].Result, result)
	}
	if got[0].Result != nil || got[0].Lease.Job.Parameters != nil {
		t.Errorf("told without a result: %+v", got[0])
	}
	if stored[0].Lease.Job.Parameters == nil || stored[1].Result == nil {
		t.Error("telling a record changed it")
	}
	if got[1].Key() != stored[1].Key() || got[1].Why != "sent" || !got[1].SettledAt.Equal(at) {
		t.Errorf("got %+v", got[1])
	}
}

func TestAJobThatIsNotThereIsNoError(t *testing.T) {
	c := serve(t, Handlers{Find: func(string) ([]job.Record, error) { return nil, nil }})
	if got, err := c.Find(t.Context(), "x"); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestFaultsReachTheirActor(t *testing.T) {
	unknown := errors.New(`no actor "x"; there are: agent, agent/meter`)
	var crashed, hung string
	c := serve(t, Handlers{
		Crash: func(path string) error {
			if crashed = path; path == "x" {
				return unknown
			}
			return nil
		},
		Hang: func(path string, d time.Duration) error { hung = fmt.Sprint(path, " ", d); return nil },
	})
	if err := c.Crash(t.Context(), "agent/meter"); err != nil || crashed != "agent/meter" {
		t.Errorf("crashed %q: %v", crashed, err)
	}
	if err := c.Hang(t.Context(), "agent/jobs", 1500*time.Millisecond); err != nil || hung != "agent/jobs 1.5s" {
		t.Errorf("hung %q: %v", hung, err)
	}
	if err := c.Crash(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), unknown.Error()) {
		t.Errorf("an unknown actor: %v", err)
	}
}

func TestWhatIsNotMeantIsRefusedClearly(t *testing.T) {
	fault := Handlers{
		Crash: func(string) error { return nil },
		Hang:  func(string, time.Duration) error { return nil },
	}
	for name, test := range map[string]struct {
		h    Handlers
		do   func(*Client) error
		want string
	}{
		"crash while faults are off": {do: func(c *Client) error { return c.Crash(t.Context(), "agent") }, want: "debug.fault_injection"},
		"hang while faults are off":  {do: func(c *Client) error { return c.Hang(t.Context(), "agent", time.Second) }, want: "debug.fault_injection"},
		"crash of nobody":            {h: fault, do: func(c *Client) error { return c.Crash(t.Context(), "") }, want: "actor's path"},
		"hang of nobody":             {h: fault, do: func(c *Client) error { return c.Hang(t.Context(), "", time.Second) }, want: "actor's path"},
		"hang for no time":           {h: fault, do: func(c *Client) error { return c.Hang(t.Context(), "agent", 0) }, want: "more than 0"},
		"hang for negative time":     {h: fault, do: func(c *Client) error { return c.Hang(t.Context(), "agent", -time.Second) }, want: "more than 0"},
		"report without a job": {h: Handlers{Find: func(string) ([]job.Record, error) { return nil, nil }},
			do: func(c *Client) error { _, err := c.Find(t.Context(), ""); return err }, want: "job's id"},
		"status nobody gives":  {do: func(c *Client) error { _, err := c.Status(t.Context()); return err }, want: "cannot do that"},
		"drain nobody does":    {do: func(c *Client) error { return c.Drain(t.Context()) }, want: "cannot do that"},
		"records nobody keeps": {do: func(c *Client) error { _, err := c.Find(t.Context(), "j"); return err }, want: "cannot do that"},
		"journal that fails": {h: Handlers{Find: func(string) ([]job.Record, error) { return nil, errors.New("disk on fire") }},
			do: func(c *Client) error { _, err := c.Find(t.Context(), "j"); return err }, want: "disk on fire"},
		"a request that is too large": {h: fault, do: func(c *Client) error { return c.Crash(t.Context(), strings.Repeat("x", 2*maxRequest)) }, want: "larger than"},
		"another version's request":   {do: func(c *Client) error { return c.call(t.Context(), "trying", "GET", "/later", nil, nil) }, want: "404"},
		"another version's field": {h: fault, do: func(c *Client) error {
			return c.call(t.Context(), "trying", "POST", pathCrash, map[string]string{"actor": "a", "later": "b"}, nil)
		}, want: "later"},
		"a wrong method": {h: Handlers{Drain: func(context.Context) error { t.Error("drained by GET"); return nil }},
			do: func(c *Client) error { return c.call(t.Context(), "trying", "GET", pathDrain, nil, nil) }, want: "405"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.do(serve(t, test.h)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want something of %q", err, test.want)
			}
		})
	}
}

func TestAPanicCostsOnlyItsRequest(t *testing.T) {
	core, logged := observer.New(zapcore.ErrorLevel)
	path := filepath.Join(folder(t), "agent.sock")
	run(t, NewServer(path, Handlers{Status: status, Drain: func(context.Context) error { panic("as asked") }}, zap.New(core)))
	c := Dial(path)
	if err := c.Drain(t.Context()); err == nil || !strings.Contains(err.Error(), "log") {
		t.Errorf("the asker hears %v", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the next request: %v", err)
	}
	if entries := logged.FilterField(zap.Any("panic", "as asked")).All(); len(entries) != 1 {
		t.Errorf("logged %d times", len(entries))
	}
}

func TestSeveralClientsAtATime(t *testing.T) {
	var inside atomic.Int32
	both := make(chan struct{})
	c := serve(t, Handlers{Status: func() messages.Status {
		if inside.Add(1) == 2 {
			close(both)
		}
		<-both // neither is answered before both are asking
		return status()
	}})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := Dial(c.Socket()).Status(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestTooManyRequestsAtATimeAreRefused(t *testing.T) {
	release := make(chan struct{})
	var inside atomic.Int32
	c := serve(t, Handlers{
		Find:   func(string) ([]job.Record, error) { inside.Add(1); <-release; return nil, nil },
		Status: status,
	})
	var wg sync.WaitGroup
	for range maxRequests {
		wg.Go(func() {
			if _, err := c.Find(t.Context(), "j"); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, "all to be inside", func() bool { return inside.Load() == maxRequests })
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("one more: %v", err)
	}
	close(release)
	wg.Wait()
	waitFor(t, "a free place", func() bool { _, err := c.Status(t.Context()); return err == nil })
}

func TestOnlyItsOwnerMayOpenTheSocket(t *testing.T) {
	path := filepath.Join(folder(t), "agent.sock")
	defer syscall.Umask(syscall.Umask(0))
	run(t, NewServer(path, Handlers{}, zap.NewNop()))
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if info.Mode() != fs.ModeSocket|0o600 || int(owner.Uid) != os.Geteuid() || int(owner.Gid) != os.Getegid() {
		t.Errorf("%v, owner %d:%d", info.Mode(), owner.Uid, owner.Gid)
	}
}

func TestTheSocketIsGoneAfterwardsAndMayBeServedAgain(t *testing.T) {
	path := filepath.Join(folder(t), "agent.sock")
	s := NewServer(path, Handlers{Status: status}, zap.NewNop())
	for range 3 {
		stop := run(t, s)
		if _, err := Dial(path).Status(t.Context()); err != nil {
			t.Error(err)
		}
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	}
}

// A supervised actor's successor may begin while its predecessor is on its way out.
func TestASuccessorWaitsForItsPredecessor(t *testing.T) {
	path := filepath.Join(folder(t), "agent.sock")
	s := NewServer(path, Handlers{Status: status}, zap.NewNop())
	first := run(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	if err := first(); err != nil {
		t.Errorf("the first: %v", err)
	}
	waitFor(t, "the successor", func() bool { _, err := Dial(path).Status(t.Context()); return err == nil })
	cancel()
	if err := within(t, ended); err != nil {
		t.Errorf("the successor: %v", err)
	}
}

// TestARequestThatHangsDoesNotHoldTheEndUp: whoever waits is cut off, Serve returns.
func TestARequestThatHangsDoesNotHoldTheEndUp(t *testing.T) {
	path := filepath.Join(folder(t), "agent.sock")
	release, inside := make(chan struct{}), make(chan struct{})
	stop := run(t, NewServer(path, Handlers{Drain: func(context.Context) error { close(inside); <-release; return nil }}, zap.NewNop()))
	asked := make(chan error, 1)
	go func() { asked <- Dial(path).Drain(context.Background()) }()
	<-inside
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := within(t, asked); err == nil {
		t.Error("answered all the same")
	}
	close(release)
}

// stale leaves a socket file behind that nobody listens on, as a killed agent does.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestAStaleSocketIsTakenOver(t *testing.T) {
	path := filepath.Join(folder(t), "agent.sock")
	stale(t, path)
	run(t, NewServer(path, Handlers{Status: status}, zap.NewNop()))
	if _, err := Dial(path).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestALiveSocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(folder(t), "agent.sock")
	run(t, NewServer(path, Handlers{Status: status}, zap.NewNop()))
	if err := NewServer(path, Handlers{}, zap.NewNop()).Serve(t.Context()); !errors.Is(err, ErrInUse) {
		t.Errorf("the second: %v", err)
	}
	if _, err := Dial(path).Status(t.Context()); err != nil {
		t.Errorf("the first is gone: %v", err)
	}
}

// TestAForeignSocketIsNotRemoved: what lies at the path by the time of the end is
// another's.
func TestAForeignSocketIsNotRemoved(t *testing.T) {
	path := filepath.Join(folder(t), "agent.sock")
	stop := run(t, NewServer(path, Handlers{}, zap.NewNop()))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	stale(t, path)
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other socket: %v", err)
	}
}

// TestARemovedSocketIsNoticed: who tidies /tmp takes it away, and it has to be made again.
func TestARemovedSocketIsNoticed(t *testing.T) {
	path := filepath.Join(folder(t), "agent.sock")
	s := NewServer(path, Handlers{Status: status}, zap.NewNop())
	s.look = time.Millisecond
	stop := run(t, s)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end", func() bool { return len(s.turn) == 0 })
	if err := stop(); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("Serve: %v", err)
	}
	run(t, s)
	if _, err := Dial(path).Status(t.Context()); err != nil {
		t.Errorf("made again: %v", err)
	}
}

func TestASocketThatCannotBeMadeSaysWhy(t *testing.T) {
	dir := folder(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ path, want string }{
		"too long":          {filepath.Join(dir, strings.Repeat("x", 108)), "107"},
		"relative":          {"agent.sock", "absolute"},
		"abstract":          {"@agent", "absolute"},
		"folder is missing": {filepath.Join(dir, "no", "agent.sock"), filepath.Join(dir, "no") + " is not there"},
		"folder is a file":  {filepath.Join(file, "agent.sock"), "not a directory"},
		"a file lies there": {file, "no socket"},
		"a folder is there": {dir, "no socket"},
		"read-only folder":  {"/proc/agent.sock", "/proc"},
	} {
		t.Run(name, func(t *testing.T) {
			err := NewServer(test.path, Handlers{}, zap.NewNop()).Serve(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "control.socket") {
				t.Errorf("got %v, want something of %q", err, test.want)
			}
		})
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file that lay there: %q, %v", text, err)
	}
}

func TestThePathMayHave107Bytes(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, strings.Repeat("x", maxPath-len(dir)-1))
	run(t, NewServer(path, Handlers{Status: status}, zap.NewNop()))
	if _, err := Dial(path).Status(t.Context()); err != nil || len(path) != maxPath {
		t.Errorf("%d bytes: %v", len(path), err)
	}
}

func TestWithoutAnAgentTheErrorSaysSo(t *testing.T) {
	dir := folder(t)
	dead := filepath.Join(dir, "dead.sock")
	stale(t, dead)
	for name, path := range map[string]string{"no socket": filepath.Join(dir, "none.sock"), "stale socket": dead, "no folder": filepath.Join(dir, "none", "a.sock")} {
		t.Run(name, func(t *testing.T) {
			_, err := Dial(path).Status(t.Context())
			if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--socket") {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := Dial("agent.sock").Status(t.Context()); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("a relative path: %v", err)
	}
}

func TestWhoeverGivesUpHearsThat(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, Handlers{Status: func() messages.Status { cancel(); <-release; return status() }})
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestAnAnswerThatIsNoneIsSaid: what answers on the socket is no agent.
func TestAnAnswerThatIsNoneIsSaid(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"garbage":   {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }, "another version"},
		"bad error": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", http.StatusBadGateway) }, "502"},
		"cut off":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "did not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(folder(t), "agent.sock")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: test.handler}
			done := make(chan error, 1)
			go func() { done <- server.Serve(l) }()
			defer func() { server.Close(); <-done }()
			if _, err := Dial(path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want something of %q", err, test.want)
			}
		})
	}
}
