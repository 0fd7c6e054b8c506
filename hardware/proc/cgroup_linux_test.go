package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newCgroup creates a cgroup, or skips the test where none can be created.
func newCgroup(t *testing.T) (CgroupParent, *Cgroup) {
	t.Helper()
	parent := FindCgroupParent(fmt.Sprintf("ffmpeg-agent-test-%d-", os.Getpid()))
	if parent.Dir == "" {
		t.Skipf("no cgroup v2 can be created on this machine: %s", parent.Unavailable)
	}
	group, err := parent.Create(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = RemoveCgroup(group.Path()) })
	return parent, group
}

func in(group *Cgroup) func(*Command) { return func(c *Command) { c.Cgroup = group } }

func TestChildStartsInItsCgroup(t *testing.T) { testChildInCgroup(t) }

// As under a filter of system calls that forbids clone3.
func TestChildIsMovedToItsCgroup(t *testing.T) {
	born := bornInCgroup
	t.Cleanup(func() { bornInCgroup = born })
	bornInCgroup = func() bool { return false }
	testChildInCgroup(t)
}

func testChildInCgroup(t *testing.T) {
	_, outer := newCgroup(t)
	group, err := outer.Child("encode")
	if err != nil {
		t.Fatal(err)
	}
	child := start(t, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 60", in(group))
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(child.ID().PID) + "/cgroup")
	if want := filepath.Base(outer.Path()) + "/encode\n"; err != nil || !strings.Contains(string(raw), want) {
		t.Errorf("its cgroups are %q, %v; want %s", raw, err, want)
	}
	if got := child.ID().Cgroup; got != outer.Path() {
		t.Errorf("its ID names %s, want the outermost cgroup %s", got, outer.Path())
	}
	until(t, "CPU time", func() bool { cpu, ok := child.CPUTime(); return ok && cpu > time.Millisecond })
	child.Signal(syscall.SIGKILL)
	exit := child.Exit()
	if cpu, ok := group.CPUTime(); !ok || exit.CPU != cpu {
		t.Errorf("CPU time is %s, want the cgroup's %s", exit.CPU, cpu)
	}
	if err := outer.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(outer.Path()); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
}

func TestKillReachesStrayInCgroup(t *testing.T) {
	_, group := newCgroup(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	child := start(t, stray(pidFile)+" sleep 600", in(group))
	pid := readPID(t, pidFile)
	child.Signal(syscall.SIGKILL)
	<-child.Done()
	until(t, "end of the stray process", func() bool { return ended(pid) })
	if err := group.Remove(); err != nil {
		t.Error(err)
	}
}

func TestRemoveCgroupKillsWhatIsLeftInIt(t *testing.T) {
	_, group := newCgroup(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	child := start(t, stray(pidFile)+" sleep 600", in(group))
	pid := readPID(t, pidFile)
	if err := RemoveCgroup(group.Path()); err != nil {
		t.Fatal(err)
	}
	until(t, "end of the stray process", func() bool { return ended(pid) })
	if _, err := os.Stat(group.Path()); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
	<-child.Done()
	if err := RemoveCgroup(group.Path()); err != nil {
		t.Errorf("removing it again: %v", err)
	}
}

func TestSweepKeepsNamedAndBusyCgroups(t *testing.T) {
	parent, empty := newCgroup(t)
	busy, err := parent.Create("busy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = RemoveCgroup(busy.Path()) })
	start(t, "exec sleep 600", in(busy))
	if n, err := parent.Sweep(func(name string) bool { return name == t.Name() }); n != 0 || err != nil {
		t.Errorf("removed %d, %v; want the named and the busy one kept", n, err)
	}
	if n, err := parent.Sweep(func(string) bool { return false }); n != 1 || err != nil {
		t.Errorf("removed %d, %v; want the empty one", n, err)
	}
	if _, err := os.Stat(empty.Path()); !os.IsNotExist(err) {
		t.Errorf("the empty cgroup is left: %v", err)
	}
}

func TestIsCgroup(t *testing.T) {
	_, group := newCgroup(t)
	mount, err := cgroupMount()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		group.Path():          true,
		"":                    false,
		"/tmp/ffmpeg-agent-x": false,
		mount:                 false,
		mount + "/../x":       false,
	} {
		if got := IsCgroup(path); got != want {
			t.Errorf("IsCgroup(%q) is %t, want %t", path, got, want)
		}
	}
}

func TestNilCgroupHasNothing(t *testing.T) {
	var none *Cgroup
	child, err := none.Child("x")
	if child != nil || err != nil {
		t.Errorf("child is %v, %v", child, err)
	}
	if none.Path() != "" || none.outermost() != "" || none.Count("memory.events", "oom_kill") != 0 || none.Remove() != nil {
		t.Error("a nil cgroup has something")
	}
	if err := none.Set("memory", "memory.max", "1"); err == nil {
		t.Error("a limit was set on a nil cgroup")
	}
	if _, ok := none.CPUTime(); ok {
		t.Error("a nil cgroup has CPU time")
	}
	if group, err := (CgroupParent{Unavailable: "test"}).Create("x"); group != nil || err != nil {
		t.Errorf("created %v, %v where none can be", group, err)
	}
}

func TestOnlyDelegatedCgroupIsRearranged(t *testing.T) {
	_, group := newCgroup(t)
	if delegated(group.Path()) && os.Geteuid() == 0 {
		t.Error("a cgroup that nobody delegated counts as delegated")
	}
	if err := unix.Setxattr(group.Path(), "user.delegate", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if !delegated(group.Path()) {
		t.Error("a delegated cgroup does not count as such")
	}
	child := start(t, "exec sleep 600", in(group))
	want := fmt.Sprint("process ", child.ID().PID)
	if dir, err := enableControllers(group.Path()); err == nil || dir != group.Path() || !strings.Contains(err.Error(), want) {
		t.Errorf("got %s, %v; want it to be kept for %s", dir, err, want)
	}
	if _, err := os.Stat(filepath.Join(group.Path(), agentLeaf)); err == nil {
		t.Error("a leaf was created in a cgroup that holds another process")
	}
}
