package journal

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ffmpeg-agent/messages/job"
)

// writeForever takes job after job to its end and prints each step once it is on disk.
func writeForever(dir, prefix string) {
	j, err := Open(Settings{Path: filepath.Join(dir, "journal.db"), KeepSettled: 100_000})
	must(err)
	for i := 0; ; i++ {
		key := keyOf(fmt.Sprintf("%s-%d", prefix, i))
		_, err := j.Accept(lease(key.JobID, 1))
		must(err)
		fmt.Println(key.JobID, job.RecordAccepted)
		must(j.Running(key, job.Process{PID: i + 1}))
		fmt.Println(key.JobID, job.RecordRunning)
		must(j.Finish(key, resultOf(i*100), false))
		fmt.Println(key.JobID, job.RecordResult)
		must(j.Settle(key, job.RecordSent, ""))
		fmt.Println(key.JobID, job.RecordSent)
	}
}

func TestKillLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acknowledged := make(map[string]job.RecordState)
	for round := range 24 {
		cmd := process(t, "write", dir, fmt.Sprint("round-", round))
		out, err := cmd.StdoutPipe()
		ok(t, err)
		ok(t, cmd.Start())
		lines := bufio.NewReader(out)
		for left := rand.IntN(30); ; left-- {
			if left == 0 {
				ok(t, cmd.Process.Kill())
			}
			line, err := lines.ReadString('\n')
			if err != nil { // the end; half a line does not count
				break
			}
			id, state, _ := strings.Cut(strings.TrimSpace(line), " ")
			acknowledged[id] = job.RecordState(state)
			if left == 0 {
				left = -1
			}
		}
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the writer ended by itself: %v", err)
		}
		checkAcknowledged(t, dir, acknowledged)
	}
	t.Logf("%d jobs over all rounds", len(acknowledged))
}

func checkAcknowledged(t *testing.T, dir string, acknowledged map[string]job.RecordState) {
	t.Helper()
	j := open(t, Settings{Path: filepath.Join(dir, "journal.db"), KeepSettled: 100_000})
	defer func() { ok(t, j.Close()) }()
	for id, state := range acknowledged {
		rec := record(t, j, keyOf(id))
		if progress(rec.State) < progress(state) {
			t.Fatalf("%s: got state %s, want at least %s", id, rec.State, state)
		}
		var number, round int
		_, err := fmt.Sscanf(id, "round-%d-%d", &round, &number)
		ok(t, err)
		if state == job.RecordSent && string(rec.Result) != string(resultOf(number*100)) {
			t.Fatalf("%s: got another result than was written", id)
		}
	}
	if aside := setAsideOf(t, j.path); len(aside) != 0 {
		t.Fatalf("a kill left a damaged file: %q", aside)
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := process(t, "write", dir, "first")
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n') // it has the journal open
	ok(t, err)

	path := filepath.Join(dir, "journal.db")
	_, err = Open(Settings{Path: path, LockTimeout: 1})
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	for _, want := range []string{path, "another agent", fmt.Sprintf("pid %d)", cmd.Process.Pid)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}

	ok(t, cmd.Process.Kill())
	_ = cmd.Wait()
	j := open(t, Settings{Path: path}) // the files of a killed agent do not matter
	pid, err := os.ReadFile(filepath.Join(dir, lockName))
	ok(t, err)
	if want := fmt.Sprintf("%d\n", os.Getpid()); string(pid) != want {
		t.Fatalf("agent.pid: got %q, want %q", pid, want)
	}
	ok(t, j.Close())
}
