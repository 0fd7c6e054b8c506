package ffmpeg

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStatOfACommandWithAnAwkwardName(t *testing.T) {
	const line = "4242 (a) b (c) R) S 1 4242 4242 0 -1 4194304 100 0 0 0 150 50 7 7 20 5 1 0 987654321 1000 200 18446744073709551615 0 0\n"
	got, err := parseStat([]byte(line))
	want := procStat{state: 'S', cpu: 2 * time.Second, startTicks: 987654321}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "1 (x", "1 (x)", "1 (x) S 1 2", strings.Replace(line, "987654321", "x", 1), strings.Replace(line, " 150 ", " -150 ", 1)} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("4242 (a) b (c) R) S 1 4242 4242 0 -1 4194304 100 0 0 0 150 50 7 7 20 5 1 0 987654321 1000"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if s, err := parseStat(raw); err == nil && s.state == 0 {
			t.Errorf("%q has no state", raw)
		}
	})
}

// shell runs a script as a child like FFmpeg and returns what it said.
func shell(t *testing.T, dir string, nice int, script string) (said string, exit exitStatus) {
	t.Helper()
	exit, err := finish(testContext(t), command{
		path: "/bin/sh", args: []string{"-c", script}, dir: dir, bounds: bounds{nice: nice},
		stdout: func(in io.Reader) { raw, _ := io.ReadAll(in); said = string(raw) },
	}, bootID())
	if err != nil {
		t.Fatal(err)
	}
	return said, exit
}

func TestChildGetsNothingOfTheAgentsEnvironmentButWhatItNeeds(t *testing.T) {
	t.Setenv("MASTER_API_KEY", "verysecret")
	t.Setenv("FFMPEG_AGENT_MASTER_API_KEY", "verysecret")
	t.Setenv("NVIDIA_TOKEN", "verysecret")
	t.Setenv("NVIDIA_VISIBLE_DEVICES", "all")
	t.Setenv("CUDA_VISIBLE_DEVICES", "1")
	dir := t.TempDir()
	said, _ := shell(t, dir, 0, "env; pwd")
	if strings.Contains(said, "verysecret") {
		t.Errorf("a key in:\n%s", said)
	}
	lines := strings.Split(said, "\n")
	for _, want := range []string{"HOME=" + dir, "TMPDIR=" + dir, "LANG=C", "NVIDIA_VISIBLE_DEVICES=all", "CUDA_VISIBLE_DEVICES=1", "PATH=" + os.Getenv("PATH"), dir} {
		if !slices.Contains(lines, want) {
			t.Errorf("no %s in:\n%s", want, said)
		}
	}
}

func TestChildIsNiceUnprivilegedAndInItsOwnGroup(t *testing.T) {
	priority, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	own := 20 - priority // the tests may be nice themselves
	said, _ := shell(t, t.TempDir(), 7, `nice; grep -E 'NoNewPrivs|CapAmb' /proc/self/status; echo "$$ $(cut -d' ' -f5 /proc/$$/stat)"`)
	fields := strings.Fields(said)
	if len(fields) != 7 || fields[0] != strconv.Itoa(min(19, own+7)) || strings.Trim(fields[2], "0")+fields[4] != "1" && strings.Trim(fields[4], "0")+fields[2] != "1" || fields[5] != fields[6] {
		t.Errorf("said:\n%s", said)
	}
	if again, _ := shell(t, t.TempDir(), 0, "nice"); strings.TrimSpace(again) != strconv.Itoa(own) {
		t.Errorf("the next child is as nice as the one before: %s", again)
	}
}

func TestChildInheritsNoDescriptorOfTheAgents(t *testing.T) {
	secret, err := os.Create(filepath.Join(t.TempDir(), "agents-own"))
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	said, _ := shell(t, "/", 0, "ls -l /proc/$$/fd")
	if strings.Contains(said, "agents-own") || !strings.Contains(said, "/dev/null") {
		t.Errorf("descriptors:\n%s", said)
	}
}

func TestExitStatus(t *testing.T) {
	for script, want := range map[string]string{"exit 0": "exit status 0", "exit 69": "exit status 69", "kill -KILL $$": "killed by SIGKILL", "kill -XFSZ $$": "killed by SIGXFSZ"} {
		if _, exit := shell(t, "/", 0, script); exit.String() != want || exit.ok() != (script == "exit 0") {
			t.Errorf("%s: %s, good: %v", script, exit, exit.ok())
		}
	}
	if _, err := start(command{path: "/nonexistent", dir: "/"}, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("starting what is not there: %v", err)
	}
}

func TestGroupIsKilledWithWhoeverDoesNotListen(t *testing.T) {
	t.Parallel()
	heard := make(chan string, 1)
	p, err := start(command{
		path: "/bin/sh", args: []string{"-c", `trap '' TERM; sleep 600 & echo $!; while :; do wait; done`}, dir: "/",
		stdout: func(in io.Reader) {
			buf := make([]byte, 100)
			n, _ := in.Read(buf)
			heard <- string(buf[:n])
			_, _ = io.Copy(io.Discard, in)
		},
	}, bootID())
	if err != nil {
		t.Fatal(err)
	}
	if child := <-heard; strings.TrimSpace(child) == "" {
		t.Fatal("no grandchild")
	}
	p.stop(50 * time.Millisecond) // returns when the pipe has ended: the grandchild holds it as well
	if p.exit.signal != syscall.SIGKILL {
		t.Errorf("ended: %s", p.exit)
	}
	if err := syscall.Kill(-p.id.PID, 0); !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EPERM) {
		// A zombie of init may stand in the group for a moment.
		until(t, "the group's end", func() bool { return errors.Is(syscall.Kill(-p.id.PID, 0), syscall.ESRCH) })
	}
}

func TestPanicInASinkNeitherBlocksNorKills(t *testing.T) {
	t.Parallel()
	p, err := start(command{
		path: "/bin/sh", args: []string{"-c", "head -c 1000000 /dev/zero; exit 3"}, dir: "/",
		stdout: func(io.Reader) { panic("sink") },
	}, bootID())
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	if p.exit.code != 3 {
		t.Errorf("ended: %s", p.exit)
	}
}

func TestGivenUpCommandIsKilled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	exit, err := finish(ctx, command{path: "/bin/sleep", args: []string{"600"}, dir: "/"}, bootID())
	if !errors.Is(err, context.DeadlineExceeded) || exit.signal != syscall.SIGKILL {
		t.Errorf("%s, %v", exit, err)
	}
}
