package ffmpeg

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/internal/mounttest"
	"ffmpeg-agent/messages/protocol"
)

func TestRefusedWriteIsNoticed(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	free, err := os.Create(filepath.Join(t.TempDir(), "o"))
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	if !refusesWrites(full) || refusesWrites(free) {
		t.Errorf("full: %t, free: %t; want true, false", refusesWrites(full), refusesWrites(free))
	}
}

// TestFullDiskIsAResourceError uses small file systems.
func TestFullDiskIsAResourceError(t *testing.T) { withOwnMounts(t, onFullDisks) }

// TestReadErrorIsInputError uses a disk whose end cannot be read.
func TestReadErrorIsInputError(t *testing.T) { withOwnMounts(t, onBadDisk) }

// withOwnMounts runs a test in a process of its own, which alone sees what it mounts.
func withOwnMounts(t *testing.T, test func(t *testing.T, dir string)) {
	if dir := os.Getenv("FFMPEG_TEST_MOUNTS"); dir != "" {
		test(t, dir)
		return
	}
	t.Parallel()
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), "FFMPEG_TEST_MOUNTS="+t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // its end would be the child's
	defer runtime.UnlockOSThread()
	out, err := child.CombinedOutput()
	if ended := new(exec.ExitError); err != nil && !errors.As(err, &ended) {
		t.Skipf("this machine does not allow mounts in a namespace: %v", err)
	}
	switch {
	case err != nil, !bytes.Contains(out, []byte(": "+t.Name())):
		t.Errorf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP: "+t.Name())):
		t.Skipf("%s", out)
	}
}

// onBadDisk encodes a transport stream, whose container states no length, from a disk that
// is cut off below it: reading fails there, and FFmpeg exits with 0.
func onBadDisk(t *testing.T, dir string) {
	_, mkfs := exec.LookPath("mkfs.ext4")
	control, loop := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err := errors.Join(mkfs, loop, mounttest.KeepPrivate()); err != nil {
		t.Skipf("needs root, mkfs.ext4 and loop devices: %v", err)
	}
	_ = control.Close()
	files, image, at := filepath.Join(dir, "files"), filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	run := func(argv ...string) string {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
		return string(out)
	}
	run("mkdir", files, at)
	clip(t, filepath.Join(files, "film.ts"), "20")
	run("truncate", "--size=32M", image)
	run("mkfs.ext4", "-q", "-b", "4096", "-d", files, image) // lays the file out in one piece
	run("mount", "-o", "loop,ro", image, at)
	blocks := regularSize(filepath.Join(at, "film.ts")) / 4096
	bmap := run("debugfs", "-R", fmt.Sprintf("bmap /film.ts %d", blocks*2/5), image)
	lines := strings.Fields(bmap)
	end, err := strconv.ParseInt(lines[len(lines)-1], 10, 64)
	if err != nil {
		t.Fatalf("block of the film: %s", bmap)
	}
	if err := os.Truncate(image, end*4096); err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, func(s *Settings) { s.DataDir = filepath.Join(dir, "data") })
	for job, reason := range map[string]protocol.FailureReason{"": protocol.ReasonInputError, `"accept_damaged":true,`: "", `"duration":2,`: ""} {
		run := r.Begin(lease(t, "bad", `{`+job+`"preset":"ultrafast","input":`+quoted(filepath.Join(at, "film.ts"))+`}`))
		err := walk(testContext(t), run)
		e := run.Snapshot().Encode
		if err := run.Close(testContext(t)); err != nil {
			t.Error(err)
		}
		if reason == "" {
			if err != nil {
				t.Errorf("%s: got %v, want completed", job, err)
			}
			continue
		}
		if f := wantFailure(t, err, reason); !strings.Contains(f.Message, "Input/output error") || e.InputMissing == nil || *e.InputMissing < 5*time.Second {
			t.Errorf("got %q, missing %v; want an input/output error and more than 5 s", f.Message, e.InputMissing)
		}
	}
}

func onFullDisks(t *testing.T, dir string) {
	if err := mounttest.KeepPrivate(); err != nil {
		t.Skipf("this machine does not allow private mounts: %v", err)
	}
	for name, options := range map[string]string{"work": "size=4m", "out": "size=1m", "again": "size=8m", "nodes": "size=100m,nr_inodes=4", "few": "size=100m,nr_inodes=2000"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", filepath.Join(dir, name), "tmpfs", 0, options); err != nil {
			t.Skipf("this machine does not allow mounts: %v", err)
		}
	}
	in := clip(t, filepath.Join(t.TempDir(), "in.mp4"), "20")
	data := t.TempDir()
	lossless := func(output string) string {
		return `{"resolution":"640x480","fps":25,"preset":"ultrafast","crf":0,"audio_codec":"none","input":` + quoted(in) + `,"output":` + quoted(filepath.Join(dir, output)) + `}`
	}
	for name, c := range map[string]struct{ data, params string }{
		"output":              {data, lossless("out/o.mp4")},
		"output in fragments": {data, lossless("out/o.ts")},
		"synthetic input":     {filepath.Join(dir, "work"), `{"resolution":"1920x1080","fps":60,"duration":10}`},
		"output in workspace": {filepath.Join(dir, "work"), `{"resolution":"640x480","fps":25,"preset":"ultrafast","crf":0,"input":` + quoted(in) + `}`},
		"no inodes":           {data, `{` + small + `,"duration":1,"outputs":[{"output":` + quoted(filepath.Join(dir, "nodes/a/b/c/d/e.mp4")) + `}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRunner(t, func(s *Settings) { s.DataDir, s.OutputRoots = c.data, []string{dir} })
			run := r.Begin(lease(t, name, c.params))
			f := wantFailure(t, walk(testContext(t), run), protocol.ReasonResourceError)
			if !strings.Contains(f.Message, "no space left") {
				t.Errorf("message is %q, want no space left", f.Message)
			}
			if err := run.Close(testContext(t)); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("few inodes", func(t *testing.T) {
		for i := range 1990 {
			if err := os.WriteFile(filepath.Join(dir, "few", fmt.Sprint(i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := newRunner(t, func(s *Settings) {
			s.DataDir, s.OutputRoots, s.MinFreeDisk = data, []string{dir}, func(uint64) uint64 { return 1 }
		})
		run := r.Begin(lease(t, "few inodes", `{`+small+`,"duration":3600,"output":`+quoted(filepath.Join(dir, "few/o.mp4"))+`}`))
		f := wantFailure(t, walk(testContext(t), run), protocol.ReasonResourceError)
		if want := "no inode left: 8 inodes free, 20 needed"; !strings.Contains(f.Message, want) {
			t.Errorf("message is %q, want %s", f.Message, want)
		}
	})
	t.Run("full until FFmpeg exits", func(t *testing.T) {
		ballast := filepath.Join(dir, "again/ballast")
		if err := os.WriteFile(ballast, make([]byte, 7<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		// It exits only once there is space again.
		program := filepath.Join(t.TempDir(), "ffmpeg")
		script := "#!/bin/sh\nffmpeg \"$@\"; status=$?\ncase \"$*\" in *\" -progress \"*) >failed; while [ -e '" + ballast + "' ]; do sleep 0.05; done ;; esac\nexit $status\n"
		if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		r := newRunner(t, func(s *Settings) { s.DataDir, s.OutputRoots, s.FFmpeg = data, []string{dir}, program })
		run := r.Begin(lease(t, "again", lossless("again/o.mp4")))
		walked := make(chan error, 1)
		go func() { walked <- walk(testContext(t), run) }()
		until(t, "the full disk to be noticed", func() bool { return run.fullAt.Load() > 0 })
		until(t, "FFmpeg's failure", func() bool { _, err := os.Stat(filepath.Join(run.workspace, scratchDir, "failed")); return err == nil })
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		f := wantFailure(t, <-walked, protocol.ReasonResourceError)
		if !strings.Contains(f.Message, "temporarily full") {
			t.Errorf("message is %q, want temporarily full", f.Message)
		}
	})
}
