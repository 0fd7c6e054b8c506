package ffmpeg

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// withoutControllers makes a runner as on a machine whose cgroups have no controllers, or
// that has no cgroups.
func withoutControllers(t *testing.T, change ...func(*Settings)) *Runner {
	t.Helper()
	r := newRunner(t, change...)
	r.cgroups.Controllers, r.cgroups.Missing = nil, "not on this machine"
	if r.cgroups.Dir == "" {
		r.cgroups.Unavailable = "not on this machine"
	}
	return r
}

func limited(l job.Lease, resourceLimits string) job.Lease {
	var m map[string]any
	if err := json.Unmarshal([]byte(resourceLimits), &m); err != nil {
		panic(err)
	}
	l.Job.Parameters["resource_limits"] = m
	return l
}

func wantNote(t *testing.T, run *Run, parts ...string) {
	t.Helper()
	notes := strings.Join(run.Snapshot().Encode.Notes, "\n")
	for _, part := range parts {
		if !strings.Contains(notes, part) {
			t.Errorf("no %q in the notes %q", part, notes)
		}
	}
}

// controlTree makes a file tree that looks like an attempt's cgroup with controllers.
func controlTree(t *testing.T, name string, files map[string]string) proc.CgroupParent {
	t.Helper()
	c := proc.CgroupParent{Dir: t.TempDir(), Prefix: cgroupPrefix, Controllers: proc.LimitControllers}
	dir := filepath.Join(c.Dir, c.Prefix+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestLimitsAreWrittenToTheAttemptsCgroup(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	l := limited(lease(t, "written", `{`+small+`,"duration":1}`), `{"max_memory_mb":512}`)
	l.Job.WrapperConstraints = &protocol.Constraints{CPUMax: "150000 100000", CPUWeight: 50, IOMax: "8:0 wbps=1048576"}
	run := r.Begin(l)
	r.cgroups = controlTree(t, run.name, map[string]string{
		"cpu.max": "", "cpu.weight": "", "memory.max": "", "memory.oom.group": "", "memory.swap.max": "", "pids.max": "", "io.max": "",
	})
	if err := walk(testContext(t), run); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(r.cgroups.Dir, r.cgroups.Prefix+run.name)
	for file, want := range map[string]string{
		"cpu.max": "150000 100000", "cpu.weight": "50", "memory.max": "536870912", "memory.oom.group": "1", "memory.swap.max": "0",
		"pids.max": fmt.Sprint(1024 + 64*runtime.NumCPU()), "io.max": "8:0 wbps=1048576",
	} {
		if raw, err := os.ReadFile(filepath.Join(dir, file)); string(raw) != want {
			t.Errorf("%s holds %q, want %q (%v)", file, raw, want, err)
		}
	}
	wantNote(t, run, "CPU limited to 150 % by cpu.max", "CPU weight 50 by cpu.weight", "memory limited to 512 MiB by memory.max", "io.max 8:0 wbps=1048576")
	// Starting in a directory that is not a cgroup fails, and a note says so.
	wantNote(t, run, "encode ran outside the job's cgroup")
	// The fake tree cannot be removed as a cgroup is.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

func TestKillReasonComesFromCgroupEvents(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		exit  proc.Exit
		says  string // empty: no limit
	}{
		"out of memory":           {map[string]string{"memory.events": "low 0\nhigh 0\nmax 31\noom 1\noom_kill 2\noom_group_kill 1\n", "memory.peak": "67108864\n"}, proc.Exit{Code: -1, Signal: syscall.SIGKILL}, "64 MiB"},
		"killed from outside":     {map[string]string{"memory.events": "max 31\noom 0\noom_kill 0\n"}, proc.Exit{Code: -1, Signal: syscall.SIGKILL}, ""},
		"no counts":               {nil, proc.Exit{Code: -1, Signal: syscall.SIGKILL}, ""},
		"ended well all the same": {map[string]string{"memory.events": "oom_kill 1\n", "pids.events": "max 4\n"}, proc.Exit{}, ""},
		"refused threads":         {map[string]string{"pids.events": "max 4\n"}, proc.Exit{Code: 1}, "threads"},
		"failed otherwise":        {map[string]string{"pids.events": "max 0\n"}, proc.Exit{Code: 1}, ""},
	} {
		all := controlTree(t, "x", c.files)
		group, err := all.Create("x")
		if err != nil {
			t.Fatal(err)
		}
		run := &Run{limiter: limiter{cgroup: group}}
		f := run.kernelLimitFailure(c.exit)
		if (f != nil) != (c.says != "") || f != nil && (f.Reason != protocol.ReasonResourceError || !strings.Contains(f.Message, c.says)) {
			t.Errorf("%s: %v, want %q", name, f, c.says)
		}
		_ = group.Remove() // closes its files; the tree is no cgroup and stays
	}
}

func TestMemoryIsPolledWithoutController(t *testing.T) {
	t.Parallel()
	r := withoutControllers(t)
	l := limited(lease(t, "hungry", `{"resolution":"1280x720","fps":25,"preset":"veryslow","duration":86400,"audio_codec":"none"}`), `{"max_memory_mb":96}`)
	run := r.Begin(l)
	f := wantFailure(t, walk(testContext(t), run), protocol.ReasonResourceError)
	if !strings.Contains(f.Message, "memory limit of 96 MiB") {
		t.Errorf("message: %s", f.Message)
	}
	wantNote(t, run, "memory limited to 96 MiB by checks", "RLIMIT_DATA", "not on this machine")
	if run.limiter.threads != maxTasks() {
		t.Errorf("threads are limited to %d without a controller, want %d", run.limiter.threads, maxTasks())
	}
}

func TestThreadsAreCountedWithoutController(t *testing.T) {
	t.Parallel()
	r := withoutControllers(t)
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatal(err)
	}
	args := "-nostdin -v error -re -f lavfi -i testsrc2=size=64x64 -c:v libx264 -threads 4 -f null -"
	child, err := proc.Start(proc.Command{Path: path, Args: strings.Fields(args)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { child.Signal(syscall.SIGKILL); child.Exit() }()
	run := r.Begin(lease(t, "many threads", `{`+small+`}`))
	p := &process{Child: child}
	run.limiter.threads = 2
	var f *job.Failure
	for ctx := testContext(t); f == nil && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		f, _ = run.processExceeded(p)
	}
	if f == nil || f.Reason != protocol.ReasonResourceError || !strings.Contains(f.Message, "more than 2 threads") {
		t.Errorf("got %v, want a resource_error that names the limit", f)
	}
	run.limiter.threads = 1000
	if f, _ := run.processExceeded(p); f != nil {
		t.Errorf("with fewer threads than the limit: %v", f)
	}
}

func TestProcessesAreCheckedMoreOftenNearTheirLimits(t *testing.T) {
	t.Parallel()
	r := withoutControllers(t)
	child, err := proc.Start(proc.Command{Path: "/bin/sleep", Args: []string{"60"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { child.Signal(syscall.SIGKILL); child.Exit() }()
	run := r.Begin(lease(t, "sleep", `{`+small+`}`))
	p := &process{Child: child}
	check := func(what string, memory int64, threads int, want time.Duration) {
		run.plan.limits.memory, run.limiter.threads = memory, threads
		run.limiter.checkMemory = memory > 0
		if f, wait := run.processExceeded(p); f != nil || wait != want {
			t.Errorf("%s: %v, next check after %s; want %s", what, f, wait, want)
		}
	}
	check("far from both", 1<<60, 1000, time.Second)
	check("near the limit of memory", 100*mib, 1000, checkInterval)
	check("near the limit of threads", 1<<60, 1, checkInterval)
	check("no memory limit", 0, 1000, time.Second)
	child.Signal(syscall.SIGKILL)
	child.Exit()
	check("memory unknown", 1<<60, 0, checkInterval)
	check("threads unknown", 0, 1000, checkInterval)
}

func TestSyntheticInputObeysLimits(t *testing.T) {
	t.Parallel()
	r := withoutControllers(t)
	run := r.Begin(limited(lease(t, "large", `{"resolution":"1920x1080","fps":60,"duration":10}`), `{"max_disk_mb":1}`))
	f := wantFailure(t, run.Prepare(testContext(t)), protocol.ReasonResourceError)
	if !strings.Contains(f.Message, "disk limit of 1 MiB") {
		t.Errorf("message: %s", f.Message)
	}
}

func TestDiskLimitCountsOutputsElsewhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := clip(t, filepath.Join(dir, "in.mp4"), "20")
	out := filepath.Join(dir, "out")
	r := withoutControllers(t, func(s *Settings) { s.OutputRoots = []string{out} })
	// Each output ends below the limit, at 8 MiB.
	run := r.Begin(limited(lease(t, "two", `{"fps":25,"preset":"ultrafast","crf":0,"audio_codec":"none","input":`+quoted(in)+`,"output":`+quoted(filepath.Join(out, "o.mp4"))+`,
		"outputs":[{"resolution":"320x240"},{"resolution":"322x240"}]}`), `{"max_disk_mb":12}`))
	f := wantFailure(t, walk(testContext(t), run), protocol.ReasonResourceError)
	if !strings.Contains(f.Message, "disk limit of 12 MiB exceeded") || !strings.Contains(f.Message, "the job has written") {
		t.Errorf("message: %s", f.Message)
	}
	if names := listing(t, out); names != "" {
		t.Errorf("left behind: %s", names)
	}
	wantNote(t, run, "disk limited to 12 MiB", "RLIMIT_FSIZE")
}

func TestNotesSayHowLimitsAreEnforced(t *testing.T) {
	t.Parallel()
	r := withoutControllers(t)
	l := limited(lease(t, "modest", `{`+small+`,"duration":1,"quality":"psnr"}`), `{"max_cpu_percent":50,"max_memory_mb":2048,"max_disk_mb":100}`)
	l.Job.WrapperConstraints = &protocol.Constraints{CPUWeight: 51, IOMax: "8:0 wbps=5"}
	run := r.Begin(l)
	if err := walk(testContext(t), run); err != nil {
		t.Fatal(err)
	}
	if q := run.Measure(testContext(t)); q.PSNR == nil {
		t.Errorf("quality %+v", q)
	}
	wantNote(t, run, "CPU limited to 50 %, rounded up to whole CPUs (1)", "CPU weight 51 by nice 3", "memory limited to 2048 MiB", "disk limited to 100 MiB", "io_max 8:0 wbps=5 is not enforced")
	heavy := lease(t, "heavy", `{`+small+`,"duration":1}`)
	heavy.Job.WrapperConstraints = &protocol.Constraints{CPUWeight: 500}
	run = r.Begin(heavy)
	if err := run.Prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
	wantNote(t, run, "CPU weight 500 is not enforced")
}

func TestOutputSizeLimitFailsJob(t *testing.T) {
	t.Parallel()
	c := command("/bin/sh", t.TempDir(), "-c", "sleep 0.2; head -c 2000000 /dev/zero >x; kill -XFSZ $$")
	c.Limits.FileBytes = 1 << 20
	exit, err := proc.Run(testContext(t), c)
	if err != nil {
		t.Fatal(err)
	}
	run := &Run{plan: plan{limits: limits{disk: 1 << 20}}}
	if f := run.kernelLimitFailure(exit); f == nil || f.Reason != protocol.ReasonResourceError || !strings.Contains(f.Message, "1 MiB") {
		t.Errorf("%v after %s", f, exit)
	}
}

func TestExitStatusOfMissingResources(t *testing.T) {
	for code, want := range map[int]protocol.FailureReason{
		244: protocol.ReasonResourceError, 228: protocol.ReasonResourceError, 229: protocol.ReasonResourceError, 134: protocol.ReasonResourceError,
		1: protocol.ReasonRuntimeError, 255: protocol.ReasonRuntimeError, 183: protocol.ReasonRuntimeError,
	} {
		if f := judge(evidence{exit: proc.Exit{Code: code}}).failure; f.Reason != want {
			t.Errorf("exit status %d is %s, want %s", code, f.Reason, want)
		}
	}
}

func TestNoteExplainsMissingCgroup(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	r.cgroups = proc.CgroupParent{Unavailable: "no cgroup v2 tree is mounted"}
	run := r.Begin(limited(lease(t, "none", `{`+small+`,"duration":1}`), `{"max_cpu_percent":100}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatal(err)
	}
	wantNote(t, run, "CPU limited to 100 %", "no cgroup (no cgroup v2 tree is mounted)")
}
