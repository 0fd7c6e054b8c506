package chaos

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestSpawnedProgramIsWatchedToItsEnd(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := spawn(log, os.Environ(), "/bin/sh", "-c", "echo said; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	said, _ := os.ReadFile(log)
	if string(said) != "said\n" || p.exit() != "exit status 3" || !p.ended() || p.signal(syscall.SIGTERM) != syscall.ESRCH {
		t.Errorf("said %q, ended as %s", said, p.exit())
	}
	if _, err := spawn(log, nil, "/nonexistent"); err == nil {
		t.Error("what does not exist was started")
	}
}
