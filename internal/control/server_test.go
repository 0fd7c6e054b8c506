package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
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

// timeout is how long tests wait before they report a hang.
const timeout = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tempDir returns a new directory with a path short enough for a socket.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// run starts a server and waits until it is listening. stop stops it and returns the result
// of Serve.
func run(t *testing.T, s *Server) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return receive(t, done)
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

func receive(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(timeout):
		t.Fatalf("no result after %s", timeout)
		return nil
	}
}

func waitFor(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", timeout, what)
		}
	}
}

func serve(t *testing.T, h Handlers) *Client {
	t.Helper()
	path := filepath.Join(tempDir(t), "agent.sock")
	run(t, NewServer(path, h, zap.NewNop()))
	return NewClient(path)
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
			Progress: job.Progress{Percent: 12.5, FPS: 30}, ETA: (*job.Seconds)(&eta), Power: &watts, Source: energy.Measured,
		}},
		Power: &watts, Source: energy.Measured,
	}
}

func TestStatus(t *testing.T) {
	got, err := serve(t, Handlers{Status: status}).Status(t.Context())
	if err != nil || !reflect.DeepEqual(got, status()) {
		t.Errorf("got %+v (%v)\nwant %+v", got, err, status())
	}
}

func TestDrain(t *testing.T) {
	var calls atomic.Int32
	c := serve(t, Handlers{Drain: func(context.Context) error {
		if calls.Add(1) > 1 {
			return errors.New("not twice")
		}
		return nil
	}})
	if err := c.Drain(t.Context()); err != nil || calls.Load() != 1 {
		t.Errorf("got error %v after %d calls, want nil after 1", err, calls.Load())
	}
	if err := c.Drain(t.Context()); err == nil || !strings.Contains(err.Error(), "not twice") {
		t.Errorf("got error %v, want the handler's", err)
	}
}

func TestFindKeepsResultAndOmitsParameters(t *testing.T) {
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
			return nil, fmt.Errorf("got job ID %q", id)
		}
		return stored, nil
	}})
	got, err := c.Find(t.Context(), "a/b c")
	if err != nil || len(got) != 2 {
		t.Fatalf("got %d records and error %v, want 2", len(got), err)
	}
	if !bytes.Equal(got[1].Result, result) {
		t.Errorf("got result %q, want %q", got[1].Result, result)
	}
	if got[0].Result != nil || got[0].Lease.Job.Parameters != nil {
		t.Errorf("got %+v, want it without result and parameters", got[0])
	}
	if stored[0].Lease.Job.Parameters == nil || stored[1].Result == nil {
		t.Errorf("encoding modified the records: %+v", stored)
	}
	if got[1].Key() != stored[1].Key() || got[1].Why != "sent" || !got[1].SettledAt.Equal(at) {
		t.Errorf("got %+v, want %+v", got[1], stored[1])
	}
}

func TestFindUnknownJob(t *testing.T) {
	c := serve(t, Handlers{Find: func(string) ([]job.Record, error) { return nil, nil }})
	if got, err := c.Find(t.Context(), "x"); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v; want neither", got, err)
	}
}

func TestCrashAndHang(t *testing.T) {
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
		t.Errorf("Crash: got actor %q, error %v; want agent/meter", crashed, err)
	}
	if err := c.Hang(t.Context(), "agent/jobs", 1500*time.Millisecond); err != nil || hung != "agent/jobs 1.5s" {
		t.Errorf("Hang: got %q, error %v; want agent/jobs 1.5s", hung, err)
	}
	if err := c.Crash(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), unknown.Error()) {
		t.Errorf("Crash of an unknown actor: got error %v, want %v", err, unknown)
	}
}

func TestInvalidRequests(t *testing.T) {
	faults := Handlers{
		Crash: func(string) error { return nil },
		Hang:  func(string, time.Duration) error { return nil },
	}
	for name, test := range map[string]struct {
		h    Handlers
		do   func(*Client) error
		want string
	}{
		"crash, faults disabled": {do: func(c *Client) error { return c.Crash(t.Context(), "agent") }, want: "debug.fault_injection"},
		"hang, faults disabled":  {do: func(c *Client) error { return c.Hang(t.Context(), "agent", time.Second) }, want: "debug.fault_injection"},
		"crash without actor":    {h: faults, do: func(c *Client) error { return c.Crash(t.Context(), "") }, want: "missing actor path"},
		"hang without actor":     {h: faults, do: func(c *Client) error { return c.Hang(t.Context(), "", time.Second) }, want: "missing actor path"},
		"hang for no time":       {h: faults, do: func(c *Client) error { return c.Hang(t.Context(), "agent", 0) }, want: "must be positive"},
		"hang for negative time": {h: faults, do: func(c *Client) error { return c.Hang(t.Context(), "agent", -time.Second) }, want: "must be positive"},
		"find without job": {h: Handlers{Find: func(string) ([]job.Record, error) { return nil, nil }},
			do: func(c *Client) error { _, err := c.Find(t.Context(), ""); return err }, want: "missing job ID"},
		"status not supported": {do: func(c *Client) error { _, err := c.Status(t.Context()); return err }, want: "not supported"},
		"drain not supported":  {do: func(c *Client) error { return c.Drain(t.Context()) }, want: "not supported"},
		"find not supported":   {do: func(c *Client) error { _, err := c.Find(t.Context(), "j"); return err }, want: "not supported"},
		"find fails": {h: Handlers{Find: func(string) ([]job.Record, error) { return nil, errors.New("disk on fire") }},
			do: func(c *Client) error { _, err := c.Find(t.Context(), "j"); return err }, want: "disk on fire"},
		"request too large": {h: faults, do: func(c *Client) error { return c.Crash(t.Context(), strings.Repeat("x", 2*maxRequest)) }, want: "larger than"},
		"unknown path":      {do: func(c *Client) error { return c.call(t.Context(), "trying", "GET", "/later", nil, nil) }, want: "404"},
		"unknown field": {h: faults, do: func(c *Client) error {
			return c.call(t.Context(), "trying", "POST", pathCrash, map[string]string{"actor": "a", "later": "b"}, nil)
		}, want: "later"},
		"wrong method": {h: Handlers{Drain: func(context.Context) error { t.Error("GET called Drain"); return nil }},
			do: func(c *Client) error { return c.call(t.Context(), "trying", "GET", pathDrain, nil, nil) }, want: "405"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.do(serve(t, test.h)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestHandlerPanic(t *testing.T) {
	core, logged := observer.New(zapcore.ErrorLevel)
	path := filepath.Join(tempDir(t), "agent.sock")
	run(t, NewServer(path, Handlers{Status: status, Drain: func(context.Context) error { panic("on purpose") }}, zap.New(core)))
	c := NewClient(path)
	if err := c.Drain(t.Context()); err == nil || !strings.Contains(err.Error(), "log") {
		t.Errorf("got error %v, want one that refers to the log", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("Status after the panic: %v", err)
	}
	if entries := logged.FilterField(zap.Any("panic", "on purpose")).All(); len(entries) != 1 {
		t.Errorf("got %d log lines, want 1", len(entries))
	}
}

func TestConcurrentRequests(t *testing.T) {
	var inside atomic.Int32
	both := make(chan struct{})
	c := serve(t, Handlers{Status: func() messages.Status {
		if inside.Add(1) == 2 {
			close(both)
		}
		<-both // wait until both requests have arrived
		return status()
	}})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := NewClient(c.Socket()).Status(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestConcurrentRequestsAreLimited(t *testing.T) {
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
	waitFor(t, "the requests", func() bool { return inside.Load() == maxRequests })
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("request above the limit: got error %v, want too many requests", err)
	}
	close(release)
	wg.Wait()
	waitFor(t, "a free slot", func() bool { _, err := c.Status(t.Context()); return err == nil })
}

func TestStopAbortsHungRequests(t *testing.T) {
	path := filepath.Join(tempDir(t), "agent.sock")
	release, inside := make(chan struct{}), make(chan struct{})
	stop := run(t, NewServer(path, Handlers{Drain: func(context.Context) error { close(inside); <-release; return nil }}, zap.NewNop()))
	done := make(chan error, 1)
	go func() { done <- NewClient(path).Drain(context.Background()) }()
	<-inside
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := receive(t, done); err == nil {
		t.Error("hung request: got no error")
	}
	close(release)
}
