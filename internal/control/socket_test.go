package control

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
)

func TestSocketModeAndOwner(t *testing.T) {
	path := filepath.Join(tempDir(t), "agent.sock")
	defer syscall.Umask(syscall.Umask(0))
	run(t, NewServer(path, Handlers{}, zap.NewNop()))
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if info.Mode() != fs.ModeSocket|0o600 || int(owner.Uid) != os.Geteuid() || int(owner.Gid) != os.Getegid() {
		t.Errorf("got mode %v, owner %d:%d; want a socket with 0600, owner %d:%d",
			info.Mode(), owner.Uid, owner.Gid, os.Geteuid(), os.Getegid())
	}
}

func TestServeAgain(t *testing.T) {
	path := filepath.Join(tempDir(t), "agent.sock")
	s := NewServer(path, Handlers{Status: status}, zap.NewNop())
	for range 3 {
		stop := run(t, s)
		if _, err := NewClient(path).Status(t.Context()); err != nil {
			t.Error(err)
		}
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("socket after Serve returned: got %v, want it removed", err)
		}
	}
}

// A restarted actor may call Serve before the call of its previous incarnation has returned.
func TestServeWaitsForPreviousCall(t *testing.T) {
	path := filepath.Join(tempDir(t), "agent.sock")
	s := NewServer(path, Handlers{Status: status}, zap.NewNop())
	first := run(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	if err := first(); err != nil {
		t.Errorf("first Serve: %v", err)
	}
	waitFor(t, "the second Serve", func() bool { _, err := NewClient(path).Status(t.Context()); return err == nil })
	cancel()
	if err := receive(t, done); err != nil {
		t.Errorf("second Serve: %v", err)
	}
}

// makeStale creates a socket that no process is listening on, as a killed agent leaves it.
func makeStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(tempDir(t), "agent.sock")
	makeStale(t, path)
	run(t, NewServer(path, Handlers{Status: status}, zap.NewNop()))
	if _, err := NewClient(path).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSocketInUseIsKept(t *testing.T) {
	path := filepath.Join(tempDir(t), "agent.sock")
	run(t, NewServer(path, Handlers{Status: status}, zap.NewNop()))
	if err := NewServer(path, Handlers{}, zap.NewNop()).Serve(t.Context()); !errors.Is(err, ErrInUse) {
		t.Errorf("second server: got error %v, want %v", err, ErrInUse)
	}
	if _, err := NewClient(path).Status(t.Context()); err != nil {
		t.Errorf("first server: %v", err)
	}
}

func TestStopKeepsReplacedSocket(t *testing.T) {
	path := filepath.Join(tempDir(t), "agent.sock")
	stop := run(t, NewServer(path, Handlers{}, zap.NewNop()))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	makeStale(t, path)
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("replacement socket: %v", err)
	}
}

func TestServeFailsWhenSocketIsRemoved(t *testing.T) {
	path := filepath.Join(tempDir(t), "agent.sock")
	s := NewServer(path, Handlers{Status: status}, zap.NewNop())
	s.checkInterval = time.Millisecond
	stop := run(t, s)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "Serve to return", func() bool { return len(s.serving) == 0 })
	if err := stop(); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("Serve: got error %v, want removed", err)
	}
	run(t, s)
	if _, err := NewClient(path).Status(t.Context()); err != nil {
		t.Errorf("Status after serving again: %v", err)
	}
}

func TestInvalidSocketPaths(t *testing.T) {
	dir := tempDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ path, want string }{
		"too long":            {filepath.Join(dir, strings.Repeat("x", 108)), "107"},
		"relative":            {"agent.sock", "absolute"},
		"abstract":            {"@agent", "absolute"},
		"missing directory":   {filepath.Join(dir, "no", "agent.sock"), filepath.Join(dir, "no") + " does not exist"},
		"parent is a file":    {filepath.Join(file, "agent.sock"), "not a directory"},
		"file":                {file, "not a socket"},
		"directory":           {dir, "not a socket"},
		"read-only directory": {"/proc/agent.sock", "/proc"},
	} {
		t.Run(name, func(t *testing.T) {
			err := NewServer(test.path, Handlers{}, zap.NewNop()).Serve(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "control.socket") {
				t.Errorf("got error %v, want %q and control.socket in it", err, test.want)
			}
		})
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("existing file: got %q, %v; want it unchanged", text, err)
	}
}

func TestLongestSocketPath(t *testing.T) {
	dir := tempDir(t)
	path := filepath.Join(dir, strings.Repeat("x", maxPath-len(dir)-1))
	run(t, NewServer(path, Handlers{Status: status}, zap.NewNop()))
	if _, err := NewClient(path).Status(t.Context()); err != nil || len(path) != maxPath {
		t.Errorf("path of %d bytes: %v", len(path), err)
	}
}
