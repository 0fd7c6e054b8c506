package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/internal/mounttest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

func TestFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	withMounts(t, "fill a small disk", t.TempDir())
}

func TestFailedWriteLosesNothing(t *testing.T) {
	t.Parallel()
	out, err := process(t, "fill to a limit", t.TempDir()).Output()
	if err != nil || string(out) != done {
		t.Fatalf("%v: %s", err, out)
	}
}

const diskSize = 2 << 20 // bytes

func fillSmallDisk(dir string) {
	must(mounttest.KeepPrivate())
	must(unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskSize)))
	ballast := filepath.Join(dir, "ballast")
	must(os.WriteFile(ballast, make([]byte, diskSize/2), 0o600))
	fillUp(dir, syscall.ENOSPC, func() { must(os.Remove(ballast)) })
}

func fillToLimit(dir string) {
	var whole unix.Rlimit
	must(unix.Getrlimit(unix.RLIMIT_FSIZE, &whole))
	must(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: diskSize / 4, Max: whole.Max}))
	fillUp(dir, syscall.EFBIG, func() { must(unix.Setrlimit(unix.RLIMIT_FSIZE, &whole)) })
}

// fillUp writes results until that fails as wanted, then makes room and continues.
func fillUp(dir string, want syscall.Errno, makeRoom func()) {
	s := Settings{Path: filepath.Join(dir, "journal.db")}
	j, err := Open(s)
	must(err)

	// write writes one result; once that has succeeded it does nothing.
	write := func(key job.Key) error {
		if _, err := j.Accept(lease(key.JobID, key.Attempt)); err != nil {
			return err
		}
		return j.Finish(key, resultOf(100_000), false)
	}
	var written []job.Key
	var key job.Key
	for {
		key = keyOf(fmt.Sprint("job-", len(written)))
		if err = write(key); err != nil {
			break
		}
		written = append(written, key)
	}
	if !errors.Is(err, want) || !strings.Contains(err.Error(), s.Path) {
		panic(fmt.Sprintf("got %v, want %v", err, want))
	}
	check := func() {
		unsent, err := j.Unsent()
		must(err)
		if len(unsent) != len(written) || j.Stats().Unsent != len(written) {
			panic(fmt.Sprintf("got %d unsent (%d counted), want %d", len(unsent), j.Stats().Unsent, len(written)))
		}
		for i, rec := range unsent {
			if rec.Key() != written[i] || string(rec.Result) != string(resultOf(100_000)) {
				panic(fmt.Sprintf("%s: got another result than was written", rec.Key()))
			}
		}
	}
	check()
	for range 3 {
		if err := write(key); !errors.Is(err, want) {
			panic(fmt.Sprintf("retry: got %v, want %v", err, want))
		}
	}
	check()
	must(j.Close()) // an agent that starts on a full disk can read its journal
	j, err = Open(s)
	must(err)
	check()

	makeRoom()
	must(write(key))
	written = append(written, key)
	check()
	must(j.Close())
	j, err = Open(s)
	must(err)
	check()
	must(j.Close())
	fmt.Print(done)
}

// fileSystems are those that the reserve is tried on.
var fileSystems = []string{"tmpfs", "ext4"}

func onEachFileSystem(t *testing.T, role string) {
	for _, name := range fileSystems {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != "tmpfs" {
				_, mkfs := exec.LookPath("mkfs." + name)
				control, loop := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
				if err := errors.Join(mkfs, loop); err != nil {
					t.Skipf("needs root, mkfs.%s and loop devices: %v", name, err)
				}
				_ = control.Close()
			}
			t.Log(strings.TrimSuffix(withMounts(t, role, name, t.TempDir()), done))
		})
	}
}

// mountDisk makes a small file system and returns where it is mounted.
func mountDisk(kind, dir string) string {
	must(mounttest.KeepPrivate())
	at := filepath.Join(dir, "disk")
	must(os.Mkdir(at, 0o700))
	if kind == "tmpfs" {
		must(unix.Mount("tmpfs", at, "tmpfs", 0, "size=96m"))
		return at
	}
	image := filepath.Join(dir, "image")
	must(os.WriteFile(image, nil, 0o600))
	must(os.Truncate(image, 96<<20))
	for _, argv := range [][]string{{"mkfs." + kind, "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			panic(fmt.Sprintf("%v: %v: %s", argv, err, out))
		}
	}
	return at
}

// fill takes all room of a disk, to the last byte, and returns how to give it back.
func fill(dir string) (undo func()) {
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path)
	must(err)
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err := file.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else {
			must(err)
		}
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil && !errors.Is(err, syscall.ENOSPC) {
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "more"), []byte("x"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		panic(fmt.Sprintf("the disk is not full: got %v", err))
	}
	return func() { must(os.Remove(path)) }
}

// largeResult is the largest that an attempt has: 64 KiB of FFmpeg's log, all of it escaped.
var largeResult = resultOf(400 << 10)

// completeAttempts takes n attempts from their leases to their settlement, as those that run
// side by side when the disk becomes full.
func completeAttempts(j *Journal, prefix string, n int) error {
	samples := fullSamples()
	steps := []func(job.Key) error{
		func(key job.Key) error { _, err := j.Accept(lease(key.JobID, 1)); return err },
		func(key job.Key) error { return j.Running(key, job.Process{PID: 1}) },
		func(key job.Key) error {
			return errors.Join(j.SaveSamples(key, samples), j.Finish(key, largeResult, false))
		},
		func(key job.Key) error { return j.Settle(key, job.RecordSent, "") },
	}
	for _, step := range steps {
		for i := range n {
			if err := step(keyOf(fmt.Sprint(prefix, i))); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestResultsAreWrittenOnAFullDisk(t *testing.T) {
	t.Parallel()
	onEachFileSystem(t, "use the reserve")
}

func useReserve(dir string) {
	s := Settings{Path: filepath.Join(dir, "journal.db"), Inspector: []string{self, "inspect"}}
	j, err := Open(s)
	must(err)
	must(completeAttempts(j, "before-", 5))

	undo := fill(dir)
	must(completeAttempts(j, "full-", 8))
	must(j.SaveSession(messages.Session{NodeID: "node-1"}))
	must(j.Close())
	j, err = Open(s) // an agent that starts on a full disk
	must(err)
	for i := range 8 {
		rec, known, err := j.Record(keyOf(fmt.Sprint("full-", i)))
		must(err)
		if !known || rec.State != job.RecordSent || !bytes.Equal(rec.Result, largeResult) {
			panic(fmt.Sprintf("full-%d: got %v in state %q with %d bytes", i, known, rec.State, len(rec.Result)))
		}
	}
	must(completeAttempts(j, "restarted-", 4))
	more := 0
	for ; more < 1000; more++ {
		if err = completeAttempts(j, fmt.Sprint("more-", more, "-"), 1); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		panic(fmt.Sprintf("beyond the reserve: got %v, want ENOSPC", err))
	}
	fmt.Printf("%d attempts with the largest result fit on the full disk\n", 8+4+more)

	undo()
	must(j.Probe()) // as the agent does until it succeeds
	undo = fill(dir)
	must(completeAttempts(j, "full-again-", 8))
	undo()
	must(j.Close())
	fmt.Print(done)
}

// A journal that is damaged while the disk is full is set aside all the same. The attempts
// that matter to the master are saved even if not all records find room.
func TestDamagedJournalOpensOnAFullDisk(t *testing.T) {
	t.Parallel()
	onEachFileSystem(t, "damage")
}

func openDamagedOnFullDisk(dir string) {
	for name, settled := range map[string]int{"all records fit": 3, "few records fit": 16} {
		s := Settings{Path: filepath.Join(dir, "journal.db"), Inspector: []string{self, "inspect"}, Reserve: 5 << 20}
		j, err := Open(s)
		must(err)
		must(completeAttempts(j, "settled-", settled))
		for i := range 4 {
			key := keyOf(fmt.Sprint("unsent-", i))
			_, err := j.Accept(lease(key.JobID, 1))
			must(errors.Join(err, j.Finish(key, resultOf(1000), false)))
		}
		must(j.Close())
		damaged := damageInPlace(s.Path, `"id":"unsent-3"`, `"id":"unsent-5"`)

		undo := fill(dir)
		j, err = Open(s)
		must(err)
		unsent, err := j.Unsent()
		must(err)
		if got := keys(unsent); got != "unsent-0#1 unsent-1#1 unsent-2#1" {
			panic(fmt.Sprintf("%s: got unsent %s", name, got))
		}
		if got := j.Stats().Sent; (got == settled) != (name == "all records fit") {
			panic(fmt.Sprintf("%s: got %d of %d settled records", name, got, settled))
		}
		must(j.Settle(keyOf("unsent-0"), job.RecordSent, ""))
		_, err = j.Accept(lease("next", 1))
		must(errors.Join(err, j.Finish(keyOf("next"), largeResult, false)))
		must(j.Close())
		aside, err := filepath.Glob(s.Path + ".damaged-*")
		must(err)
		kept, err := os.ReadFile(aside[0])
		must(err)
		if len(aside) != 1 || !bytes.Equal(kept, damaged) {
			panic(fmt.Sprintf("%s: set aside as %q, with other contents", name, aside))
		}
		undo()
		for _, path := range append(aside, s.Path) {
			must(os.Remove(path))
		}
	}
	fmt.Print(done)
}

// damageInPlace replaces text in a file, leaves its other blocks as they are, and returns
// the new contents.
func damageInPlace(path, old, replacement string) []byte {
	b, err := os.ReadFile(path)
	must(err)
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(err)
	for at := 0; ; at += len(old) {
		next := bytes.Index(b[at:], []byte(old))
		if next < 0 {
			break
		}
		at += next
		copy(b[at:], replacement)
		_, err := file.WriteAt([]byte(replacement), int64(at))
		must(err)
	}
	must(errors.Join(file.Sync(), file.Close()))
	return b
}

func TestReserveIsAllocated(t *testing.T) {
	j := open(t, Settings{Reserve: 1 << 20})
	advance(t, j, "job", job.RecordSent)
	var info unix.Stat_t
	ok(t, unix.Stat(j.path, &info))
	used, err := j.db.used()
	ok(t, err)
	if err := allocate(j.db.file, 0, 1); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("the file system of the temporary folder does not allocate in advance")
	}
	if allocated := info.Blocks * 512; allocated < used+(1<<20)/4*3 {
		t.Errorf("got %d bytes allocated with %d in use, want %d more", allocated, used, (1<<20)/4*3)
	}
}
