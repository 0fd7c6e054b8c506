//go:build guest

package ffmpeg

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/protocol"
)

// These tests need a cgroup v2 tree with all controllers that was delegated to them: they
// run in the machine that `make guest` boots.

func TestControllers(t *testing.T) {
	r := newRunner(t) // one for all: FFmpeg is asked only once what it has
	if len(r.cgroups.Controllers) < len(proc.LimitControllers) {
		t.Fatalf("the attempts' cgroups have the controllers %q: %s%s", r.cgroups.Controllers, r.cgroups.Missing, r.cgroups.Unavailable)
	}
	if err := ask(r); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(*testing.T, *Runner){
		"are handed on below a leaf of the agent's": controllersAreHandedOnBelowALeafOfTheAgents,
		"bound a whole attempt":                     controllersBoundAWholeAttempt,
		"kill for memory, a resource error":         controllersKillForMemoryIsAResourceError,
		"leave a kill from outside what it is":      controllersLeaveAKillFromOutsideWhatItIs,
		"throttle":                                  controllersThrottle,
		"refuse more processes":                     controllersRefuseMoreProcesses,
		"slow the disk":                             controllersSlowTheDisk,
	} {
		t.Run(name, func(t *testing.T) { test(t, r) })
	}
}

// limitedGroup is an attempt's cgroup for processes that are no FFmpeg.
func limitedGroup(t *testing.T, r *Runner, name string) *proc.Cgroup {
	t.Helper()
	group, err := r.cgroups.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := group.Remove(); err != nil {
			t.Error(err)
		}
	})
	return group
}

// shellIn runs a script in a cgroup.
func shellIn(t *testing.T, group *proc.Cgroup, script string) *proc.Child {
	t.Helper()
	c := command("/bin/sh", "/", "-c", script)
	c.Cgroup = group
	child, err := proc.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	return child
}

func mustSet(t *testing.T, group *proc.Cgroup, controller, file, value string) {
	t.Helper()
	if err := group.Set(controller, file, value); err != nil {
		t.Fatal(err)
	}
}

func controllersAreHandedOnBelowALeafOfTheAgents(t *testing.T, r *Runner) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if want := "/" + filepath.Base(r.cgroups.Dir) + "/agent\n"; err != nil || !strings.HasSuffix(string(own), want) {
		t.Errorf("the agent's cgroup is %q, %v; want %q beside the attempts'", own, err, want)
	}
	if pids, err := os.ReadFile(filepath.Join(r.cgroups.Dir, "cgroup.procs")); len(pids) > 0 || err != nil {
		t.Errorf("processes %q beside the attempts, %v", pids, err)
	}
	if said := r.Cgroups(); !strings.Contains(said, "limits on cpu, memory, pids, io") {
		t.Errorf("said: %s", said)
	}
	again := newRunner(t)
	if again.cgroups.Dir != r.cgroups.Dir || !slices.Equal(again.cgroups.Controllers, r.cgroups.Controllers) {
		t.Errorf("the next life finds %+v, this one %+v", again.cgroups, r.cgroups)
	}
}

func controllersBoundAWholeAttempt(t *testing.T, r *Runner) {
	l := limited(lease(t, "bound", `{`+small+`,"duration":1,"quality":"psnr"}`), `{"max_memory_mb":400}`)
	l.Job.WrapperConstraints = &protocol.Constraints{CPUMax: "190000 100000", CPUWeight: 50}
	run := r.Begin(l)
	if err := walk(testContext(t), run); err != nil {
		t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
	}
	if q := run.Measure(testContext(t)); q.PSNR == nil {
		t.Errorf("quality %+v", q)
	}
	group := run.limiter.cgroup
	for file, want := range map[string]string{"cpu.max": "190000 100000", "cpu.weight": "50", "memory.max": "419430400", "memory.oom.group": "1", "pids.max": fmt.Sprint(maxTasks())} {
		if raw, err := os.ReadFile(filepath.Join(group.Path(), file)); strings.TrimSpace(string(raw)) != want {
			t.Errorf("%s is %q, want %s (%v)", file, raw, want, err)
		}
	}
	whole, _ := group.CPUTime()
	if encode, _ := run.CPUTime(); encode <= 0 || whole <= encode {
		t.Errorf("the encode used %s, with input, probes and quality %s", encode, whole)
	}
	if peak, ok := group.Value("memory.peak"); !ok || peak < 10*mib {
		t.Errorf("the attempt used %d bytes", peak)
	}
	wantNote(t, run, "CPU limited to 190 % by cpu.max", "memory limited to 400 MiB by memory.max")
	if err := run.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(group.Path()); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
}

func controllersKillForMemoryIsAResourceError(t *testing.T, r *Runner) {
	in := clip(t, filepath.Join(t.TempDir(), "in.mp4"), "5")
	for name, params := range map[string]string{
		"the encode":    `{"resolution":"1920x1080","fps":25,"preset":"medium","audio_codec":"none","input":` + quoted(in) + `}`,
		"the synthetic": `{"resolution":"1920x1080","fps":25,"preset":"medium","audio_codec":"none"}`,
	} {
		t.Run(name, func(t *testing.T) {
			run := r.Begin(limited(lease(t, name, params), `{"max_memory_mb":64}`))
			f := wantFailure(t, walk(testContext(t), run), protocol.ReasonResourceError)
			if !strings.Contains(f.Message, "out of memory") || !strings.Contains(f.Message, "limited to 64 MiB, used at most 64 MiB") {
				t.Errorf("message: %s", f.Message)
			}
			t.Log(f.Message)
		})
	}
}

func controllersLeaveAKillFromOutsideWhatItIs(t *testing.T, r *Runner) {
	run := r.Begin(limited(endless(t, "victim"), `{"max_memory_mb":800}`))
	p := running(t, run)
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, conclude(testContext(t), run), protocol.ReasonRuntimeError)
}

func controllersThrottle(t *testing.T, r *Runner) {
	group := limitedGroup(t, r, "busy")
	mustSet(t, group, "cpu", "cpu.max", "20000 100000")
	begun := time.Now()
	child := shellIn(t, group, "while :; do :; done")
	until(t, "throttled periods", func() bool { return group.Count("cpu.stat", "nr_throttled") >= 20 })
	used, _ := group.CPUTime()
	elapsed := time.Since(begun)
	child.Signal(syscall.SIGKILL)
	<-child.Done()
	t.Logf("%s of CPU time in %s", used, elapsed)
	if most := elapsed/5 + elapsed/20 + 50*time.Millisecond; used > most {
		t.Errorf("%s of CPU time in %s, want 20 %%", used, elapsed)
	}
}

func controllersRefuseMoreProcesses(t *testing.T, r *Runner) {
	group := limitedGroup(t, r, "forks")
	mustSet(t, group, "pids", "pids.max", "8")
	exit := shellIn(t, group, "i=0; while [ $i -lt 30 ]; do sleep 600 & i=$((i+1)); done").Exit()
	run := &Run{limiter: limiter{cgroup: group}}
	if f := run.kernelLimitFailure(exit); f == nil || f.Reason != protocol.ReasonResourceError || !strings.Contains(f.Message, "threads") {
		t.Errorf("%v after %s", f, exit)
	}
}

func controllersSlowTheDisk(t *testing.T, r *Runner) {
	dir := os.Getenv("FFMPEG_TEST_DISK") // a folder on a real block device
	var info unix.Stat_t
	if err := unix.Stat(dir, &info); err != nil {
		t.Fatalf("no disk to write to: %q, %v", dir, err)
	}
	group := limitedGroup(t, r, "writes")
	mustSet(t, group, "io", "io.max", fmt.Sprintf("%d:%d wbps=1048576", unix.Major(info.Dev), unix.Minor(info.Dev)))
	begun := time.Now()
	exit := shellIn(t, group, "dd if=/dev/zero of="+dir+"/x bs=65536 count=64 oflag=direct").Exit()
	elapsed := time.Since(begun)
	t.Logf("4 MiB in %s", elapsed)
	if !exit.OK() || elapsed < 2*time.Second {
		t.Errorf("%s after %s, want 4 MiB at 1 MiB/s", exit, elapsed)
	}
	if err := group.Set("io", "io.max", "250:250 wbps=1048576"); err == nil {
		t.Error("a device that is not there was limited")
	}
}
