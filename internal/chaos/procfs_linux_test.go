package chaos

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProcessesAreFoundByTheirMark: those that inherit it as well, and no others; one
// that has ended is not found, though nobody has asked how.
func TestProcessesAreFoundByTheirMark(t *testing.T) {
	mark := "PATH=" + t.TempDir() + "/bin:"
	dir := filepath.Join(t.TempDir(), "work", "0b1c-"+strings.Repeat("89abcdef", 8)+"-3", "scratch")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	begin := func(environ ...string) *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", "sleep 60 & wait")
		cmd.Dir, cmd.Env = dir, environ
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
		return cmd
	}
	marked := begin(mark + os.Getenv("PATH"))
	begin("PATH=" + os.Getenv("PATH"))
	var found []Proc
	both := func() bool {
		found, _ = findProcesses(mark)
		return len(found) == 2 && strings.Contains(found[0].Name+found[1].Name, "sleep")
	}
	if !waitUntil(20*time.Second, both) {
		t.Fatalf("found %v", found)
	}
	for _, p := range found {
		if at, ok := p.attempt(); !ok || at != (Attempt{"0b1c", 3}) {
			t.Errorf("%v works for %v", p, at)
		}
	}
	if err := syscall.Kill(-marked.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone := func() bool { left, err := findProcesses(mark); return err == nil && len(left) == 0 }
	if !waitUntil(20*time.Second, gone) {
		t.Error("they are found after their end")
	}
	// An exiting process loses its environment before its state changes.
	exited := func() bool { _, alive := found[0].refresh(); return !alive }
	if !waitUntil(20*time.Second, exited) {
		t.Error("still alive after SIGKILL")
	}
	if err := found[0].signal(syscall.SIGKILL); err != syscall.ESRCH {
		t.Errorf("signalled after its end: %v", err)
	}
}
