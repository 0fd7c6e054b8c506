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

	"ffmpeg-agent/messages/job"
)

func TestNoFFmpegOutlivesAKilledAgentAndTheNextLifeCleansUp(t *testing.T) {
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
	if !alive(p, bootID()) {
		t.Fatal("ffmpeg does not run")
	}
	_ = agent.Process.Signal(syscall.SIGKILL)
	_ = agent.Wait()
	until(t, "ffmpeg's end", func() bool { return !alive(p, bootID()) })

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
	if r.cgroups.parent != "" {
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

func TestReapEndsExactlyTheRecordedProcess(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	begin := func() *process {
		p, err := start(command{path: "/bin/sleep", args: []string{"600"}, dir: "/"}, r.bootID)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.signal(syscall.SIGKILL); <-p.done })
		return p
	}
	record := func(p job.Process) job.Record { return job.Record{Process: &p} }
	victim, stranger := begin(), begin()
	reused, rebooted := stranger.id, stranger.id
	reused.StartTicks--
	rebooted.BootID = "another boot"
	err := r.Janitor().Reap(testContext(t), []job.Record{record(reused), record(rebooted), {}, record(victim.id), record(job.Process{PID: 1, BootID: r.bootID})})
	if err != nil {
		t.Fatal(err)
	}
	<-victim.done
	if victim.exit.signal != syscall.SIGKILL {
		t.Errorf("victim: %s", victim.exit)
	}
	if !alive(stranger.id, r.bootID) {
		t.Error("a stranger was killed")
	}
	if err := r.Janitor().Reap(testContext(t), []job.Record{record(victim.id)}); err != nil {
		t.Errorf("reaping the dead: %v", err)
	}
}

func TestManifestIsBelievedForOurNamesOnly(t *testing.T) {
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

func TestAttemptNamesStayInOneFolderAndApart(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, id := range []string{"a", "A", "../../etc", "", ".", "a/b", "a_b", "日本", string(make([]byte, 5000))} {
		for attempt := 1; attempt < 3; attempt++ {
			name := attemptName(job.Key{JobID: id, Attempt: attempt})
			if !filepath.IsLocal(name) || filepath.Base(name) != name || len(name) > 100 || seen[name] {
				t.Errorf("%q is %q", id, name)
			}
			seen[name] = true
		}
	}
}
