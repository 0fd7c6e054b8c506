package ffmpeg

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/job"
)

func TestRestartCleansUpAfterSIGKILL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), "FFMPEG_TEST_AGENT="+dir)
	agent.Stderr = os.Stderr
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	var p job.Process
	if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
		t.Fatalf("%v: %s", err, lines.Bytes())
	}
	if !proc.ID(p).Alive() {
		t.Fatal("ffmpeg does not run")
	}
	_ = agent.Process.Signal(syscall.SIGKILL)
	_ = agent.Wait()
	until(t, "ffmpeg's end", func() bool { return !proc.ID(p).Alive() })

	r := newRunner(t, func(s *Settings) { s.DataDir = filepath.Join(dir, "data") })
	if names := listing(t, dir); names == "data" {
		t.Fatal("the killed agent has left no temporary output, so this test shows nothing")
	}
	if err := ask(r); err != nil {
		t.Fatal(err)
	}
	live := r.Begin(lease(t, "live", `{`+small+`,"duration":1}`))
	if err := live.Prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
	janitor := r.Janitor()
	left := 2 // a workspace and an output
	if r.cgroups.Dir != "" {
		left++
	}
	if n, err := janitor.Sweep(testContext(t)); n != left || err != nil {
		t.Errorf("swept %d, %v; want %d", n, err, left)
	}
	if names := listing(t, dir); names != "data" {
		t.Errorf("left behind: %s", names)
	}
	if n, err := janitor.Sweep(testContext(t)); n != 0 || err != nil {
		t.Errorf("swept again %d, %v", n, err)
	}
	if err := walk(testContext(t), live); err != nil {
		t.Errorf("the sweep harmed a live run: %v", err)
	}
}

// sleeper starts a process that is killed when the test ends.
func sleeper(t *testing.T, group *proc.Cgroup) *proc.Child {
	t.Helper()
	c := command("/bin/sleep", "/", "600")
	c.Cgroup = group
	child, err := proc.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		child.Signal(syscall.SIGKILL)
		<-child.Done()
	})
	return child
}

func record(id proc.ID) job.Record {
	p := job.Process(id)
	return job.Record{Process: &p}
}

func TestReapKillsExactlyTheRecordedProcesses(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	victim, other := sleeper(t, nil), sleeper(t, nil)
	reused := other.ID()
	reused.StartTicks--
	err := r.Janitor().Reap(testContext(t), []job.Record{record(reused), {}, record(victim.ID())})
	if err != nil {
		t.Fatal(err)
	}
	if exit := victim.Exit(); exit.Signal != syscall.SIGKILL {
		t.Errorf("recorded process: %s, want SIGKILL", exit)
	}
	if !other.ID().Alive() {
		t.Error("a process with a reused PID was killed")
	}
	if err := r.Janitor().Reap(testContext(t), []job.Record{record(victim.ID())}); err != nil {
		t.Errorf("reaping an ended process: %v", err)
	}
}

// FFmpeg has ended, and a process that it started has not.
func TestReapKillsWhatIsLeftInTheCgroup(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	if r.cgroups.Dir == "" {
		t.Skipf("no cgroup v2 can be created on this machine: %s", r.cgroups.Unavailable)
	}
	group, err := r.cgroups.Create("reaped")
	if err != nil {
		t.Fatal(err)
	}
	left := sleeper(t, group)
	gone := left.ID()
	gone.StartTicks--
	if err := r.Janitor().Reap(testContext(t), []job.Record{record(gone)}); err != nil {
		t.Fatal(err)
	}
	if exit := left.Exit(); exit.Signal != syscall.SIGKILL {
		t.Errorf("process left in the cgroup: %s, want SIGKILL", exit)
	}
	if _, err := os.Stat(group.Path()); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
}

func TestOnlyAgentsCgroupsAreReaped(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	if r.cgroups.Dir == "" {
		t.Skipf("no cgroup v2 can be created on this machine: %s", r.cgroups.Unavailable)
	}
	for path, want := range map[string]bool{
		filepath.Join(r.cgroups.Dir, r.cgroups.Prefix+"x"): true,
		r.cgroups.Dir:                     false,
		filepath.Join(r.cgroups.Dir, "x"): false,
		"/tmp/" + cgroupPrefix + "x":      false,
		"":                                false,
	} {
		if got := ownsCgroup(path); got != want {
			t.Errorf("ownsCgroup(%q) is %t, want %t", path, got, want)
		}
	}
}

func TestManifestRejectsForeignNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours := newTempName(filepath.Join(dir, "a film.mp4"))
	if err := writeManifest(dir, []string{"/etc/passwd", ours, "relative/" + filepath.Base(ours), filepath.Join(dir, "film.mp4")}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(readManifest(dir)); got != "["+ours+"]" {
		t.Errorf("believed %s", got)
	}
}

func TestAttemptNamesAreDistinctFileNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, id := range []string{"a", "A", "../../etc", "", ".", "a/b", "a_b", "日本", string(make([]byte, 5000))} {
		for attempt := 1; attempt < 3; attempt++ {
			name := attemptName(job.Key{JobID: id, Attempt: attempt})
			if !filepath.IsLocal(name) || filepath.Base(name) != name || len(name) > 128 || seen[name] {
				t.Errorf("%q is %q", id, name)
			}
			seen[name] = true
		}
	}
}
