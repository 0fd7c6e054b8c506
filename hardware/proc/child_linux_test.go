package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// hang is when a test that waits has waited too long.
const hang = 60 * time.Second

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine {
		fmt.Fprintln(os.Stderr, Confine(os.Args[2:]))
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == hardened {
		actHardened()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == confines {
		actConfined(os.Args[2:])
		return
	}
	if os.Getenv("PROC_TEST_PARENT") != "" {
		c := script("exec sleep 600")
		switch os.Getenv("PROC_TEST_PARENT") {
		case "with a sandbox":
			c.Sandbox = sandbox(Sandbox{})
		case "with a sandbox of another user":
			c.Sandbox = sandbox(Sandbox{User: &User{UID: 65534, GID: 65534}})
		}
		child, err := Start(c)
		if err != nil {
			panic(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(child.ID()); err != nil {
			panic(err)
		}
		<-child.Done()
		return
	}
	goleak.VerifyTestMain(m)
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	return ctx
}

// until waits for a state.
func until(t *testing.T, what string, reached func() bool) {
	t.Helper()
	deadline := time.After(hang)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !reached() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("timeout: %s", what)
		}
	}
}

// script is a command that runs a shell script.
func script(text string, change ...func(*Command)) Command {
	c := Command{Path: "/bin/sh", Args: []string{"-c", text}, Dir: "/", Env: []string{"PATH=" + os.Getenv("PATH")}}
	for _, f := range change {
		f(&c)
	}
	return c
}

// start starts a script, which is killed when the test ends.
func start(t *testing.T, text string, change ...func(*Command)) *Child {
	t.Helper()
	child, err := Start(script(text, change...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		child.Signal(syscall.SIGKILL)
		<-child.Done()
	})
	return child
}

// capture runs a script to its end and returns what it wrote to standard output.
func capture(t *testing.T, text string, change ...func(*Command)) (string, Exit) {
	t.Helper()
	var written string
	c := script(text, change...)
	c.Stdout = func(in io.Reader) {
		raw, _ := io.ReadAll(in)
		written = string(raw)
	}
	exit, err := Run(testContext(t), c)
	if err != nil {
		t.Fatal(err)
	}
	return written, exit
}

func TestChildInheritsOnlyNamedVariables(t *testing.T) {
	t.Setenv("MASTER_API_KEY", "verysecret")
	t.Setenv("CUDA_VISIBLE_DEVICES", "1")
	env, _ := capture(t, "env", func(c *Command) {
		c.Env = append(c.Env, "LANG=C")
		c.PassEnv = func(name string) bool { return name == "CUDA_VISIBLE_DEVICES" }
	})
	lines := strings.Split(env, "\n")
	for _, want := range []string{"LANG=C", "CUDA_VISIBLE_DEVICES=1"} {
		if !slices.Contains(lines, want) {
			t.Errorf("%s is missing from:\n%s", want, env)
		}
	}
	if strings.Contains(env, "verysecret") {
		t.Errorf("a key in:\n%s", env)
	}
	if env, _ := capture(t, "/usr/bin/env", func(c *Command) { c.Env = nil }); strings.Contains(env, "verysecret") {
		t.Errorf("without an environment of its own it gets the agent's:\n%s", env)
	}
}

func TestChildIsUnprivilegedInItsOwnGroup(t *testing.T) {
	priority, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	own := 20 - priority // the test itself may be nice
	const report = `echo "nice $(nice)"; grep -E 'NoNewPrivs|CapAmb' /proc/self/status; echo "group $(($$ - $(cut -d' ' -f5 /proc/$$/stat)))"`
	for name, c := range map[string]struct {
		change func(*Command)
		want   []string
	}{
		"bounded":       {func(c *Command) { c.Limits.Nice = 7 }, []string{"nice " + strconv.Itoa(min(19, own+7)), "NoNewPrivs: 1", "CapAmb: 0000000000000000", "group 0"}},
		"the next one":  {func(*Command) {}, []string{"nice " + strconv.Itoa(own), "NoNewPrivs: 1"}},
		"setuid allows": {func(c *Command) { c.AllowSetuid = true }, []string{"NoNewPrivs: 0", "CapAmb: 0000000000000000", "group 0"}},
	} {
		written, _ := capture(t, report, c.change)
		lines := strings.Split(strings.ReplaceAll(written, "\t", " "), "\n")
		for _, want := range c.want {
			if !slices.Contains(lines, want) && !(want == "NoNewPrivs: 0" && ownNoNewPrivs(t)) {
				t.Errorf("%s: %q is missing from:\n%s", name, want, written)
			}
		}
	}
}

func ownNoNewPrivs(t *testing.T) bool {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(raw), "NoNewPrivs:\t1")
}

func TestChildInheritsNoDescriptors(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "agents-own"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if list, _ := capture(t, "ls -l /proc/$$/fd"); strings.Contains(list, "agents-own") || !strings.Contains(list, "/dev/null") {
		t.Errorf("descriptors:\n%s", list)
	}
}

func TestChildFindsItsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got, err := CurrentPath(file); got != path {
		t.Errorf("current path is %s, %v; want %s", got, err, path)
	}
	// Another file at the same path does not take its place.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd3 := make(chan string, 1)
	got, _ := capture(t, "cat "+FilePath(file, FirstFile+1)+"; [ -e /proc/self/fd/4 ] && echo open; echo three >&3", func(c *Command) {
		c.Files = []*os.File{nil, file}
		c.FD3 = func(in io.Reader) {
			raw, _ := io.ReadAll(in)
			fd3 <- string(raw)
		}
	})
	if got != "content" {
		t.Errorf("standard output is %q, want the file's content and descriptor 4 closed", got)
	}
	if got := <-fd3; got != "three\n" {
		t.Errorf("descriptor 3 got %q, want three", got)
	}
}

func TestChildReadsStdin(t *testing.T) {
	lines := make(chan string, 1)
	child := start(t, "read line; echo \"$line\"; cat", func(c *Command) {
		c.Stdin = true
		c.Stdout = func(in io.Reader) {
			raw, _ := io.ReadAll(in)
			lines <- string(raw)
		}
	})
	if _, err := child.Stdin().WriteString("one\ntwo\n"); err != nil {
		t.Fatal(err)
	}
	if err := child.Stdin().Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-lines; got != "one\ntwo\n" {
		t.Errorf("read %q", got)
	}
	if exit := child.Exit(); !exit.OK() {
		t.Errorf("exit: %s", exit)
	}
	if got, _ := capture(t, "cat; echo end"); got != "end\n" {
		t.Errorf("without a pipe it reads %q, want end of file", got)
	}
}

func TestChildIsLimited(t *testing.T) {
	t.Parallel()
	const report = `sleep 0.2; grep Cpus_allowed_list /proc/self/status; grep -E 'Max (file|data) size' /proc/self/limits`
	written, exit := capture(t, report, func(c *Command) {
		c.Limits = Limits{CPUs: 1, FirstCPU: 1, FileBytes: 3 << 20, DataBytes: 1 << 30}
	})
	if !exit.OK() {
		t.Fatal(exit)
	}
	words := strings.Join(strings.Fields(written), " ")
	for _, want := range []string{"Max data size 1073741824 1073741824", "Max file size 3145728 3145728"} {
		if !strings.Contains(words, want) {
			t.Errorf("%q is missing from %s", want, words)
		}
	}
	if cpus := strings.Fields(written)[1]; strings.ContainsAny(cpus, ",-") {
		t.Errorf("allowed CPUs are %s, want one", cpus)
	}
	var own unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil || own.Count() != runtime.NumCPU() {
		t.Errorf("the agent's own CPUs are %d, %v; want %d", own.Count(), err, runtime.NumCPU())
	}
}

func TestExit(t *testing.T) {
	for text, want := range map[string]string{"exit 0": "exit status 0", "exit 69": "exit status 69", "kill -KILL $$": "killed by SIGKILL", "kill -XFSZ $$": "killed by SIGXFSZ"} {
		if _, exit := capture(t, text); exit.String() != want || exit.OK() != (text == "exit 0") {
			t.Errorf("%s: got %s, OK %t; want %s", text, exit, exit.OK(), want)
		}
	}
	if _, err := Start(Command{Path: "/nonexistent", Dir: "/"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("starting a missing program: got %v, want %v", err, os.ErrNotExist)
	}
}

func TestStopKillsGroupThatIgnoresSIGTERM(t *testing.T) {
	t.Parallel()
	ready := make(chan string, 1)
	child := start(t, `trap '' TERM; sleep 600 & echo $!; while :; do wait; done`, func(c *Command) {
		c.Stdout = func(in io.Reader) {
			buf := make([]byte, 100)
			n, _ := in.Read(buf)
			ready <- string(buf[:n])
		}
	})
	if grandchild := <-ready; strings.TrimSpace(grandchild) == "" {
		t.Fatal("no grandchild")
	}
	child.Stop(50 * time.Millisecond) // returns at the pipe's end: the grandchild holds it as well
	if exit := child.Exit(); exit.Signal != syscall.SIGKILL {
		t.Errorf("exit: %s, want SIGKILL", exit)
	}
	// A zombie of init may stay in the group for a moment.
	until(t, "end of the group", func() bool { return errors.Is(syscall.Kill(-child.ID().PID, 0), syscall.ESRCH) })
}

func TestStopContinuesStoppedProcess(t *testing.T) {
	t.Parallel()
	child := start(t, "trap 'exit 7' TERM; kill -STOP $$; exit 8")
	until(t, "stopped state", func() bool {
		s, err := ReadStat(child.ID().PID)
		return err == nil && s.State == 'T'
	})
	child.Stop(hang)
	if exit := child.Exit(); exit.Code != 7 {
		t.Errorf("exit: %s, want exit status 7 by its own handler", exit)
	}
}

func TestSinkPanicNeitherBlocksNorKills(t *testing.T) {
	t.Parallel()
	child := start(t, "head -c 1000000 /dev/zero; exit 3", func(c *Command) {
		c.Stdout = func(io.Reader) { panic("sink") }
	})
	if exit := child.Exit(); exit.Code != 3 {
		t.Errorf("exit: %s, want exit status 3", exit)
	}
}

// A process that left the group still holds the child's standard output.
func TestPipeHeldByStrayIsGivenUp(t *testing.T) {
	t.Parallel()
	pidFile := filepath.Join(t.TempDir(), "pid")
	child := start(t, stray(pidFile)+" while [ ! -e "+pidFile+" ]; do sleep 0.01; done", func(c *Command) {
		c.Stdout = func(in io.Reader) { _, _ = io.Copy(io.Discard, in) }
		c.DrainTimeout = 50 * time.Millisecond
	})
	defer func() { _ = syscall.Kill(readPID(t, pidFile), syscall.SIGKILL) }()
	select {
	case <-child.Done():
	case <-time.After(hang):
		t.Fatal("the child is never done")
	}
}

func TestRunKillsWhenContextIsDone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	exit, err := Run(ctx, script("exec sleep 600"))
	if !errors.Is(err, context.DeadlineExceeded) || exit.Signal != syscall.SIGKILL {
		t.Errorf("got %s, %v; want SIGKILL, %v", exit, err, context.DeadlineExceeded)
	}
}

func TestChildDiesWithKilledParent(t *testing.T) {
	for _, how := range []string{"without a sandbox", "with a sandbox", "with a sandbox of another user"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			if strings.HasSuffix(how, "user") && os.Geteuid() != 0 {
				t.Skip("only root may switch users")
			}
			parent := exec.Command(os.Args[0])
			parent.Env = append(os.Environ(), "PROC_TEST_PARENT="+how)
			parent.Stderr = os.Stderr
			out, err := parent.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := parent.Start(); err != nil {
				t.Fatal(err)
			}
			var id ID
			if err := json.NewDecoder(out).Decode(&id); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = id.Kill(context.Background()) })
			if !id.Alive() {
				t.Fatalf("child %+v is not alive", id)
			}
			_ = parent.Process.Kill()
			_ = parent.Wait()
			until(t, "end of the child", func() bool { return !id.Alive() })
		})
	}
}

func TestUsageOfRunningAndEndedChild(t *testing.T) {
	t.Parallel()
	child := start(t, "while :; do :; done")
	until(t, "CPU time", func() bool {
		cpu, ok := child.CPUTime()
		return ok && cpu > 0
	})
	if bytes, ok := child.Resident(); !ok || bytes < 100<<10 {
		t.Errorf("resident memory is %d, %t", bytes, ok)
	}
	child.Signal(syscall.SIGKILL)
	exit := child.Exit()
	if cpu, ok := child.CPUTime(); !ok || cpu != exit.CPU || cpu <= 0 {
		t.Errorf("CPU time after the end is %s, %t; want %s", cpu, ok, exit.CPU)
	}
	if _, ok := child.Resident(); ok {
		t.Error("an ended child has resident memory")
	}
}

func TestKillReachesExactlyTheRecordedProcess(t *testing.T) {
	t.Parallel()
	victim, other := start(t, "exec sleep 600"), start(t, "exec sleep 600")
	reused, rebooted := other.ID(), other.ID()
	reused.StartTicks--
	rebooted.BootID = "another boot"
	for _, id := range []ID{{}, {PID: 1, BootID: BootID()}, reused, rebooted, victim.ID()} {
		if err := id.Kill(testContext(t)); err != nil {
			t.Errorf("killing %+v: %v", id, err)
		}
	}
	if exit := victim.Exit(); exit.Signal != syscall.SIGKILL {
		t.Errorf("the recorded process: %s, want SIGKILL", exit)
	}
	if !other.ID().Alive() {
		t.Error("another process was killed")
	}
	if err := victim.ID().Kill(testContext(t)); err != nil {
		t.Errorf("killing an ended process: %v", err)
	}
	if victim.ID().Alive() {
		t.Error("an ended process is alive")
	}
}

// stray is a script's part that starts a process which leaves group and session, and
// writes that one's PID to a file.
func stray(pidFile string) string {
	return "setsid sh -c 'echo $$ > " + pidFile + ".new; mv " + pidFile + ".new " + pidFile + "; exec sleep 600' &"
}

func readPID(t *testing.T, path string) int {
	t.Helper()
	pid := 0
	until(t, "PID of the stray process", func() bool {
		raw, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		return err == nil
	})
	return pid
}

func ended(pid int) bool {
	s, err := ReadStat(pid)
	return err != nil || s.Ended()
}
