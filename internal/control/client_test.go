package control

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/messages"
)

func TestAgentNotRunning(t *testing.T) {
	dir := tempDir(t)
	dead := filepath.Join(dir, "dead.sock")
	makeStale(t, dead)
	for name, path := range map[string]string{"no socket": filepath.Join(dir, "none.sock"), "stale socket": dead, "no directory": filepath.Join(dir, "none", "a.sock")} {
		t.Run(name, func(t *testing.T) {
			_, err := NewClient(path).Status(t.Context())
			if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--socket") {
				t.Errorf("got error %v, want %v with path and --socket", err, ErrNotRunning)
			}
		})
	}
	if _, err := NewClient("agent.sock").Status(t.Context()); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("relative path: got error %v, want one other than %v", err, ErrNotRunning)
	}
}

func TestCanceledCall(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, Handlers{Status: func() messages.Status { cancel(); <-release; return status() }})
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}

func TestUnexpectedResponses(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"not JSON":         {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }, "another version"},
		"not a JSON error": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", http.StatusBadGateway) }, "502"},
		"aborted":          {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "no response"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(tempDir(t), "agent.sock")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: test.handler}
			done := make(chan error, 1)
			go func() { done <- server.Serve(l) }()
			defer func() { server.Close(); <-done }()
			if _, err := NewClient(path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want %q in it", err, test.want)
			}
		})
	}
}
