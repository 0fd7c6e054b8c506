package ffmpeg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/internal/mounttest"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// overlay is a FUSE file system that can stop answering.
type overlay struct {
	dir    string
	server *os.Process
}

func mountOverlay(t *testing.T) overlay {
	t.Helper()
	needsFUSE(t)
	program, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		t.Skip("fuse-overlayfs is not installed")
	}
	dir := t.TempDir()
	server := exec.Command(program, "-f", "-o", "lowerdir="+t.TempDir()+",upperdir="+t.TempDir()+",workdir="+t.TempDir(), dir)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGCONT)
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	until(t, "the mount", func() bool {
		var s unix.Statfs_t
		return unix.Statfs(dir, &s) == nil && s.Type == unix.FUSE_SUPER_MAGIC
	})
	return overlay{dir, server.Process}
}

func (o overlay) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := o.server.Signal(s); err != nil {
		t.Error(err)
	}
}

// A job ends by itself, or when it is canceled, when the file system of its output stops answering,
// in whichever step that is. A failed one leaves no output once the file system answers again.
func TestFileSystemThatStopsAnswering(t *testing.T) {
	for name, c := range map[string]struct {
		step  string
		stall time.Duration
		want  string
	}{
		"encode":          {"encode", 2 * time.Second, "did not answer"},
		"encode canceled": {"encode", time.Hour, "canceled"},
		"check":           {"check", 2 * time.Second, "did not answer"},
		"check canceled":  {"check", time.Hour, "canceled"},
		"measure":         {"measure", 2 * time.Second, "did not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := mountOverlay(t)
			r := newRunner(t, func(s *Settings) {
				s.OutputRoots, s.StopGrace = []string{disk.dir}, 100*time.Millisecond
			})
			final, length := filepath.Join(disk.dir, "x.mkv"), 1
			if c.step == "encode" {
				length = 80000
			}
			run := r.Begin(lease(t, name, fmt.Sprintf(`{`+small+`,"duration":%d,"quality":"psnr","output":%q}`, length, final)))
			ctx := testContext(t)
			if err := run.Prepare(ctx); err != nil {
				t.Fatal(err)
			}
			p, err := run.Start(ctx)
			if err != nil {
				t.Fatal(err)
			}
			var step func() error
			switch c.step {
			case "encode":
				until(t, "progress", func() bool { return run.Snapshot().Encode.Progress.Frames > 0 })
				step = func() error { return run.Wait(ctx) }
			case "check":
				if err := run.Wait(ctx); err != nil {
					t.Fatal(err)
				}
				step = func() error { return run.Check(ctx) }
			case "measure":
				if err := conclude(ctx, run); err != nil {
					t.Fatal(err)
				}
				step = func() error { return errors.New(run.Measure(ctx).Note) }
			}
			run.settings.StallTimeout, run.settings.StopSlack = c.stall, time.Second // only now: the steps before may be slow
			disk.signal(t, syscall.SIGSTOP)
			defer disk.signal(t, syscall.SIGCONT)
			if c.want == "canceled" {
				time.AfterFunc(time.Second, func() { run.Stop(job.StopCanceled) })
			}
			ended := make(chan error, 1)
			go func() { ended <- step() }()
			select {
			case err = <-ended:
			case <-time.After(hang):
				t.Fatal("the step has not ended")
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			disk.signal(t, syscall.SIGCONT)
			until(t, "the end of FFmpeg", func() bool { return errors.Is(syscall.Kill(p.PID, 0), syscall.ESRCH) })
			if err := run.Close(ctx); err != nil {
				t.Error(err)
			}
			if n := r.countStuck(); n != 0 {
				t.Errorf("%d runs count as stuck", n)
			}
			want := ""
			if c.step == "measure" {
				want = "x.mkv"
			}
			if names := listing(t, disk.dir); names != want {
				t.Errorf("beside the output's name there is %q, want %q", names, want)
			}
		})
	}
}

// A file system is frozen when the output is to get its final name, and answers again after the
// attempt has failed.
func TestFailedAttemptPlacesNoOutputLater(t *testing.T) { withOwnMounts(t, onFrozenDisk) }

func onFrozenDisk(t *testing.T, dir string) {
	_, mkfs := exec.LookPath("mkfs.ext4")
	control, loop := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err := errors.Join(mkfs, loop, mounttest.KeepPrivate()); err != nil {
		t.Skipf("needs root, mkfs.ext4 and loop devices: %v", err)
	}
	_ = control.Close()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	command := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	command("mkdir", at)
	command("truncate", "--size=16M", image)
	command("mkfs.ext4", "-q", image)
	command("mount", "-o", "loop", image, at)
	final := filepath.Join(at, "x.mkv")
	r := newRunner(t, func(s *Settings) {
		s.DataDir, s.OutputRoots = filepath.Join(dir, "data"), []string{at}
		s.StopGrace = 100 * time.Millisecond
	})
	run := r.Begin(lease(t, "late", `{`+small+`,"duration":1,"output":`+quoted(final)+`}`))
	ctx := testContext(t)
	if err := run.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := run.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := run.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	run.settings.StallTimeout, run.settings.StopSlack = 2*time.Second, time.Second // only now: the steps before may be slow
	command("fsfreeze", "-f", at)
	thawed := false
	defer func() {
		if !thawed {
			command("fsfreeze", "-u", at)
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- run.Check(ctx) }()
	select {
	case err := <-ended:
		if f := wantFailure(t, err, protocol.ReasonTimeout); !strings.Contains(f.Message, "did not answer") {
			t.Errorf("got %q", f.Message)
		}
	case <-time.After(hang / 2):
		t.Fatal("the check has not ended")
	}
	if n := r.countStuck(); n != 1 {
		t.Errorf("%d runs count as stuck, want 1", n)
	}
	command("fsfreeze", "-u", at)
	thawed = true
	if err := run.Close(ctx); err != nil {
		t.Error(err)
	}
	if names := listing(t, at); names != "lost+found" {
		t.Errorf("the failed attempt left %s", names)
	}
}

func TestCheckThatWasGivenUpPlacesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{dir} })
	run := r.Begin(lease(t, "late", `{`+small+`,"duration":1,"output":`+quoted(filepath.Join(dir, "x.mkv"))+`}`))
	ctx := testContext(t)
	if err := run.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := run.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := run.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	run.placing.Store(givenUp)
	if err := run.Check(ctx); err == nil {
		t.Error("the check succeeded")
	}
	if names := listing(t, dir); names != "" {
		t.Errorf("it left %s", names)
	}
}

func TestOutputOfAnotherAttemptIsNotWithdrawn(t *testing.T) {
	t.Parallel()
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	file, err := dir.Create("x.mp4")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ours := &target{final: filepath.Join(dir.Name(), "x.mp4"), dir: dir, file: file, published: true}
	if err := dir.WriteFile("other", []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dir.Rename("other", "x.mp4"); err != nil {
		t.Fatal(err)
	}
	ours.withdraw()
	if raw, err := dir.ReadFile("x.mp4"); string(raw) != "theirs" {
		t.Errorf("it has %q, %v", raw, err)
	}
}

// A file system that answers late, and with an error, is named as what was waited for.
func TestFileSystemThatAnswersLate(t *testing.T) {
	t.Parallel()
	dir, server := mountFUSE(t, 0)
	r := newRunner(t, func(s *Settings) { s.StallTimeout, s.StopGrace = 500*time.Millisecond, time.Second })
	run := r.Begin(lease(t, "slow", fmt.Sprintf(`{"input":%q}`, filepath.Join(dir, "x.mp4"))))
	go func() {
		for run.stopCause() == "" {
			time.Sleep(10 * time.Millisecond)
		}
		_ = server.Close()
	}()
	f := wantFailure(t, run.Prepare(testContext(t)), protocol.ReasonTimeout)
	if f.Message != "a file system that the job uses did not answer for 500ms" {
		t.Errorf("got %q", f.Message)
	}
}

// What an earlier job left on a file system that does not answer holds up no other job.
func TestSweepThatHangsBlocksNoJob(t *testing.T) {
	t.Parallel()
	dir, server := mountFUSE(t, 0)
	r := newRunner(t)
	w := &r.work
	if err := w.create("orphan"); err != nil {
		t.Fatal(err)
	}
	if err := writeManifest(w.path("orphan"), []string{newTempName(filepath.Join(dir, "x.mp4"))}); err != nil {
		t.Fatal(err)
	}
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		_, _ = r.Janitor().Sweep(testContext(t))
	}()
	stacks := make([]byte, 1<<20)
	until(t, "the sweep to wait", func() bool {
		for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(stack, "sweepOne") && strings.Contains(stack, "os.Remove(") {
				return true
			}
		}
		return false
	})
	created := make(chan error, 1)
	go func() { created <- w.create("other") }()
	select {
	case err := <-created:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(hang):
		t.Error("no workspace can be created while a sweep waits")
	}
	_ = server.Close()
	<-swept
}

func TestNoJobsWhileManyRunsAreStuck(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	runs := make([]*Run, maxStuck)
	for i := range runs {
		runs[i] = r.Begin(lease(t, fmt.Sprint(i), `{}`))
		runs[i].stuck.Store(true)
	}
	if err := r.Ready(testContext(t)); err == nil || !strings.Contains(err.Error(), "16 attempts have ended and still wait for file systems") {
		t.Errorf("got %v", err)
	}
	if err := runs[0].Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := r.Ready(testContext(t)); err != nil && strings.Contains(err.Error(), "attempts") {
		t.Error(err)
	}
}
