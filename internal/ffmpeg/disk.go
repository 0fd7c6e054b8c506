package ffmpeg

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// diskFull reports whether the file system of a directory has no space left.
func diskFull(dir string) bool {
	const minFree = 1 << 20
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return false
	}
	return uint64(s.Bavail)*uint64(s.Bsize) < minFree || s.Files > 0 && s.Ffree == 0
}

// outputDiskFull reports whether a file system with an output has no space left.
func (r *Run) outputDiskFull() bool {
	return slices.ContainsFunc(r.files.targets, func(t target) bool {
		return t.file != nil && diskFull(filepath.Dir(t.temp))
	})
}

// fullBeforeExit is how long before FFmpeg's exit a full disk may have been its cause:
// FFmpeg exits at the next frame that it writes.
const fullBeforeExit = 10 * time.Second

// diskWasFull reports whether the disk of an output was full shortly before FFmpeg's exit.
func (r *Run) diskWasFull() bool {
	return r.ffmpeg.Load().Exit().At.Sub(time.Unix(0, r.fullAt.Load())) < fullBeforeExit
}

// diskIsFull reports whether there is no space left for what the attempt writes: by the
// file systems' figures, and for its outputs by trying, since a quota does not show in
// the figures.
func (r *Run) diskIsFull() bool {
	return diskFull(r.workspace) || r.outputDiskFull() || slices.ContainsFunc(r.files.targets, func(t target) bool {
		return t.file != nil && refusesWrites(t.file)
	})
}

// refusesWrites tries to append to the file of a failed attempt.
func refusesWrites(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	_, err = f.WriteAt(make([]byte, 64<<10), info.Size())
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
