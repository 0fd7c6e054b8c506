package journal

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// The test binary is also the inspector, the process that is killed, and those that meet a
// full disk: its first argument is the role, the others are the role's.
var roles = map[string]func(args []string){
	"inspect": func(args []string) { must(Inspect(args, os.Stdout)) },
	"hang": func([]string) {
		fmt.Println(`{"started":true}`)
		select {}
	},
	"be killed": func([]string) {
		fmt.Println(`{"started":true}`)
		must(syscall.Kill(os.Getpid(), syscall.SIGKILL))
	},
	"refuse":            func([]string) { os.Exit(2) },
	"write":             func(args []string) { writeForever(args[0], args[1]) },
	"fill a small disk": func(args []string) { fillSmallDisk(args[0]) },
	"fill to a limit":   func(args []string) { fillToLimit(args[0]) },
	"use the reserve":   func(args []string) { useReserve(mountDisk(args[0], args[1])) },
	"damage":            func(args []string) { openDamagedOnFullDisk(mountDisk(args[0], args[1])) },
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if act, ok := roles[os.Args[1]]; ok {
			act(os.Args[2:])
			os.Exit(0)
		}
	}
	must(os.Setenv("GORACE", "atexit_sleep_ms=0")) // for the processes that tests start
	_ = flag.Set("rapid.checks", "30")             // unless the command line sets it
	os.Exit(m.Run())
}

const self = "/proc/self/exe"

// process returns a command that runs this binary in a role.
func process(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(self, append([]string{role}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// withMounts runs a role where it may mount file systems.
func withMounts(t *testing.T, role string, args ...string) string {
	t.Helper()
	cmd := process(t, role, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // its end would kill the process
	defer runtime.UnlockOSThread()
	out, err := cmd.Output()
	if ended := new(exec.ExitError); err != nil && !errors.As(err, &ended) {
		t.Skipf("mounting is not allowed here: %v", err)
	}
	if err != nil || !strings.HasSuffix(string(out), done) {
		t.Fatalf("%s: %v: %s", role, err, out)
	}
	return string(out)
}

// done is the last line of a role that got to its end.
const done = "done\n"

func open(t testing.TB, s Settings) *Journal {
	t.Helper()
	if s.Path == "" {
		s.Path = filepath.Join(t.TempDir(), "journal.db")
	}
	if s.Inspector == nil {
		s.Inspector = []string{self, "inspect"}
	}
	j, err := Open(s)
	ok(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func reopen(t testing.TB, j *Journal) *Journal {
	t.Helper()
	ok(t, j.Close())
	return open(t, j.settings)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("- want + got\n%s", diff)
	}
}

func lease(id string, attempt int) job.Lease {
	return job.Lease{
		Job: protocol.Job{
			ID: id, RetryCount: attempt - 1, Scenario: "720p30-h264",
			Parameters: protocol.Parameters{"bitrate": "2000k", "duration": json.Number("5"), "outputs": []any{map[string]any{"crf": json.Number("23")}}},
		},
		NodeID:     "node-1",
		AcquiredAt: time.Now(),
	}
}

func keyOf(id string) job.Key { return job.Key{JobID: id, Attempt: 1} }

// resultOf returns a result of about that many bytes.
func resultOf(size int) []byte {
	return fmt.Appendf(nil, `{"logs":%q}`, strings.Repeat("x", size))
}

// advance takes an attempt to a state; "" is an attempt that is not in the journal.
func advance(t testing.TB, j *Journal, id string, state job.RecordState) job.Key {
	t.Helper()
	key := keyOf(id)
	if state == "" {
		return key
	}
	_, err := j.Accept(lease(id, 1))
	ok(t, err)
	if state == job.RecordAccepted {
		return key
	}
	ok(t, j.Running(key, job.Process{PID: 1}))
	if state == job.RecordRunning {
		return key
	}
	ok(t, j.Finish(key, []byte(`"first"`), false))
	if state == job.RecordResult {
		return key
	}
	ok(t, j.Settle(key, state, "first"))
	return key
}

func record(t testing.TB, j *Journal, key job.Key) job.Record {
	t.Helper()
	rec, found, err := j.Record(key)
	ok(t, err)
	if !found {
		t.Fatalf("no record of %s", key)
	}
	return rec
}

func keys(records []job.Record) string {
	var all []string
	for _, r := range records {
		all = append(all, r.Key().String())
	}
	return strings.Join(all, " ")
}
