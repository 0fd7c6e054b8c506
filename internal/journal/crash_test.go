package journal

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ffmpeg-agent/messages/job"

	"golang.org/x/sys/unix"
)

// The test binary is also the process that is killed, that holds the lock, and that
// meets the full disk.
func TestMain(m *testing.M) {
	role, dir := os.Getenv("JOURNAL_TEST_ROLE"), os.Getenv("JOURNAL_TEST_DIR")
	switch role {
	case "":
		_ = flag.Set("rapid.checks", "30") // unless the command line says otherwise
		os.Exit(m.Run())
	case "writer":
		writeForEver(dir, os.Getenv("JOURNAL_TEST_PREFIX"))
	case "full disk":
		fillASmallDisk(dir)
	case "file limit":
		fillUpToALimit(dir)
	}
}

func helper(t *testing.T, role, dir, prefix string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	ok(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "JOURNAL_TEST_ROLE="+role, "JOURNAL_TEST_DIR="+dir, "JOURNAL_TEST_PREFIX="+prefix)
	cmd.Stderr = os.Stderr
	return cmd
}

// writeForEver brings job after job to its end and prints each step once it is done.
func writeForEver(dir, prefix string) {
	j, err := Open(Settings{Path: filepath.Join(dir, "journal.db"), KeepSettled: 100_000})
	must(err)
	for i := 0; ; i++ {
		key := job.Key{JobID: fmt.Sprintf("%s-%d", prefix, i), Attempt: 1}
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

func TestNothingAcknowledgedIsLostWhenTheAgentIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acknowledged := make(map[string]job.RecordState)
	for round := range 24 {
		cmd := helper(t, "writer", dir, fmt.Sprint("round-", round))
		out, err := cmd.StdoutPipe()
		ok(t, err)
		ok(t, cmd.Start())
		lines := bufio.NewReader(out)
		for left := rand.IntN(30); ; left-- {
			if left == 0 {
				ok(t, cmd.Process.Kill())
			}
			line, err := lines.ReadString('\n')
			if err != nil { // the end; half a line was not said
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
	j, err := Open(Settings{Path: filepath.Join(dir, "journal.db"), KeepSettled: 100_000})
	ok(t, err)
	defer func() { ok(t, j.Close()) }()
	for id, state := range acknowledged {
		rec := record(t, j, job.Key{JobID: id, Attempt: 1})
		if rank(rec.State) < rank(state) {
			t.Fatalf("%s is %s, and was %s before", id, rec.State, state)
		}
		var number, round int
		_, err := fmt.Sscanf(id, "round-%d-%d", &round, &number)
		ok(t, err)
		if state == job.RecordSent && string(rec.Result) != string(resultOf(number*100)) {
			t.Fatalf("%s has another result", id)
		}
	}
	if len(setAsideOf(t, j.path)) != 0 {
		t.Fatal("the kill left a damaged file")
	}
}

func TestASecondAgentIsTurnedAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := helper(t, "writer", dir, "first")
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n') // it has the journal
	ok(t, err)

	path := filepath.Join(dir, "journal.db")
	_, err = Open(Settings{Path: path, LockTimeout: 1})
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("opened: %v", err)
	}
	for _, want := range []string{path, "another agent", fmt.Sprintf("pid %d)", cmd.Process.Pid)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}

	ok(t, cmd.Process.Kill())
	_ = cmd.Wait()
	j := open(t, Settings{Path: path}) // what a killed agent leaves is in nobody's way
	pid, err := os.ReadFile(filepath.Join(dir, lockName))
	ok(t, err)
	if string(pid) != fmt.Sprintf("%d\n", os.Getpid()) {
		t.Fatalf("agent.pid says %q", pid)
	}
	ok(t, j.Close())
}

func TestAFullDisk(t *testing.T) {
	t.Parallel()
	cmd := helper(t, "full disk", t.TempDir(), "")
	cmd.SysProcAttr = &syscall.SysProcAttr{ // in a namespace where it may mount a disk of its own
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.Output()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EACCES) {
		t.Logf("no namespaces here (%v): what a write that fails half-way leaves is shown by a limit instead", err)
		return
	}
	if err != nil || !strings.Contains(string(out), "all is well") {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestAWriteThatFails(t *testing.T) {
	t.Parallel()
	out, err := helper(t, "file limit", t.TempDir(), "").Output()
	if err != nil || !strings.Contains(string(out), "all is well") {
		t.Fatalf("%v: %s", err, out)
	}
}

const diskSize = 2 << 20 // bytes

func fillASmallDisk(dir string) {
	must(unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskSize)))
	ballast := filepath.Join(dir, "ballast")
	must(os.WriteFile(ballast, make([]byte, diskSize/2), 0o600))
	fillTheDisk(dir, syscall.ENOSPC, func() { must(os.Remove(ballast)) })
}

func fillUpToALimit(dir string) {
	var whole unix.Rlimit
	must(unix.Getrlimit(unix.RLIMIT_FSIZE, &whole))
	must(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: diskSize / 4, Max: whole.Max}))
	fillTheDisk(dir, syscall.EFBIG, func() { must(unix.Setrlimit(unix.RLIMIT_FSIZE, &whole)) })
}

// fillTheDisk writes until that fails as wanted, then makes room and goes on.
func fillTheDisk(dir string, want syscall.Errno, makeRoom func()) {
	s := Settings{Path: filepath.Join(dir, "journal.db")}
	j, err := Open(s)
	must(err)

	// write does one job's writing; done before, it does nothing.
	write := func(key job.Key) error {
		if _, err := j.Accept(lease(key.JobID, key.Attempt)); err != nil {
			return err
		}
		return j.Finish(key, resultOf(100_000), false)
	}
	var done []job.Key
	var key job.Key
	for {
		key = job.Key{JobID: fmt.Sprint("job-", len(done)), Attempt: 1}
		if err = write(key); err != nil {
			break
		}
		done = append(done, key)
	}
	if !errors.Is(err, want) || !strings.Contains(err.Error(), s.Path) {
		panic(fmt.Sprintf("got %v, want %v", err, want))
	}
	check := func() {
		unsent, err := j.Unsent()
		must(err)
		if len(unsent) != len(done) || j.Stats().Unsent != len(done) {
			panic(fmt.Sprintf("%d unsent (%d counted), want %d", len(unsent), j.Stats().Unsent, len(done)))
		}
		for i, rec := range unsent {
			if rec.Key() != done[i] || string(rec.Result) != string(resultOf(100_000)) {
				panic(fmt.Sprintf("%s is not whole", rec.Key()))
			}
		}
	}
	check()
	for range 3 { // trying again does no harm
		if err := write(key); !errors.Is(err, want) {
			panic(fmt.Sprintf("again: got %v, want %v", err, want))
		}
	}
	check()
	must(j.Close()) // an agent that is started on a full disk still reads its journal
	j, err = Open(s)
	must(err)
	check()

	makeRoom()
	must(write(key))
	done = append(done, key)
	check()
	must(j.Close())
	j, err = Open(s)
	must(err)
	check()
	must(j.Close())
	fmt.Println("all is well")
	os.Exit(0)
}
