package ffmpeg

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/messages/job"

	"golang.org/x/sys/unix"
)

// grouped returns a cgroup to run processes in.
func grouped(t *testing.T) (cgroups, *cgroup) {
	t.Helper()
	all := findCgroups(t.TempDir())
	if all.parent == "" {
		t.Skipf("this machine lets us make no cgroup v2: %s", all.why)
	}
	group, err := all.make("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = removeCgroup(group.path) })
	return all, group
}

func TestAProcessIsBornInItsCgroup(t *testing.T) {
	_, group := grouped(t)
	p, err := start(command{path: "/bin/sh", args: []string{"-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 60"}, dir: "/", cgroup: group}, bootID())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(p.id.PID) + "/cgroup")
	if err != nil || !strings.Contains(string(raw), filepath.Base(group.path)) || p.id.Cgroup != group.path {
		t.Errorf("it is in %q (%v), recorded as %q", raw, err, p.id.Cgroup)
	}
	until(t, "CPU time", func() bool { cpu, ok := p.usage(); return ok && cpu > time.Millisecond })
	p.signal(syscall.SIGKILL)
	<-p.done
	if cpu, ok := group.usage(); !ok || p.exit.cpu != cpu {
		t.Errorf("CPU time %s, the cgroup says %s", p.exit.cpu, cpu)
	}
	if err := group.remove(); err != nil {
		t.Error(err)
	}
}

// TestAKillMissesNobody: a child that left the process group and the session ends with
// the cgroup.
func TestAKillMissesNobody(t *testing.T) {
	_, group := grouped(t)
	p, stray := startWithStray(t, group)
	p.signal(syscall.SIGKILL)
	<-p.done
	until(t, "the stray child's end", func() bool { return dead(stray) })
	if err := group.remove(); err != nil {
		t.Error(err)
	}
}

// TestReapEndsWhoeverAFormerLifeLeftInACgroup: FFmpeg is gone, a child of it is not.
func TestReapEndsWhoeverAFormerLifeLeftInACgroup(t *testing.T) {
	all, group := grouped(t)
	p, stray := startWithStray(t, group)
	// As after a kill of the agent: FFmpeg alone was told to die.
	if err := syscall.Kill(p.id.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r := &Runner{bootID: bootID(), cgroups: all}
	record := job.Record{Process: &p.id}
	if err := r.Janitor().Reap(context.Background(), []job.Record{record}); err != nil {
		t.Fatal(err)
	}
	until(t, "the stray child's end", func() bool { return dead(stray) })
	if _, err := os.Stat(group.path); !os.IsNotExist(err) {
		t.Errorf("the cgroup is still there: %v", err)
	}
	<-p.done
}

func TestOnlyOurOwnCgroupsAreTouched(t *testing.T) {
	all, group := grouped(t)
	for path, want := range map[string]bool{
		group.path:                      true,
		filepath.Dir(group.path):        false,
		"":                              false,
		"/tmp/ffmpeg-agent-x":           false,
		group.path + "/../../etc":       false,
		filepath.Dir(group.path) + "/x": false,
	} {
		if got := all.ours(path); got != want {
			t.Errorf("ours(%q) is %v", path, got)
		}
	}
	removed, err := all.sweep(func(name string) bool { return name == "test" })
	if err != nil || removed != 0 {
		t.Errorf("swept %d that are owned (%v)", removed, err)
	}
	if removed, err = all.sweep(func(string) bool { return false }); err != nil || removed != 1 {
		t.Errorf("swept %d, want the one that is left (%v)", removed, err)
	}
}

func TestOnlyWhatIsDelegatedIsRearranged(t *testing.T) {
	_, group := grouped(t)
	if delegated(group.path) && os.Geteuid() == 0 {
		t.Error("a cgroup that nobody delegated counts as ours")
	}
	if err := unix.Setxattr(group.path, "user.delegate", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if !delegated(group.path) {
		t.Error("a delegated cgroup does not count as ours")
	}
	p, err := start(command{path: "/bin/sleep", args: []string{"600"}, dir: "/", cgroup: group}, bootID())
	if err != nil {
		t.Fatal(err)
	}
	if parent, err := handOn(group.path); err == nil || parent != group.path || !strings.Contains(err.Error(), fmt.Sprint("process ", p.id.PID)) {
		t.Errorf("%s, %v", parent, err)
	}
	if _, err := os.Stat(filepath.Join(group.path, agentLeaf)); err == nil {
		t.Error("a leaf was made in a cgroup with another process")
	}
	p.signal(syscall.SIGKILL)
	<-p.done
}

// startWithStray starts a process whose child leaves its group and its session.
func startWithStray(t *testing.T, group *cgroup) (p *process, stray int) {
	t.Helper()
	pidFile := filepath.Join(t.TempDir(), "pid")
	script := "setsid sh -c 'echo $$ > " + pidFile + ".new; mv " + pidFile + ".new " + pidFile + "; exec sleep 600' & sleep 600"
	p, err := start(command{path: "/bin/sh", args: []string{"-c", script}, dir: "/", cgroup: group}, bootID())
	if err != nil {
		t.Fatal(err)
	}
	return p, readPID(t, pidFile)
}

func readPID(t *testing.T, path string) int {
	t.Helper()
	pid := 0
	until(t, "the child's number", func() bool {
		raw, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		return err == nil
	})
	return pid
}

func dead(pid int) bool {
	s, err := readStat(pid)
	return err != nil || s.state == 'Z' || s.state == 'X'
}
