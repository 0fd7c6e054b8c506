package chaos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// disk is a small file system of its own, where one can be mounted: it can be filled.
type disk struct {
	dir     string
	mounted bool
}

// newDisk mounts a file system of some MiB on a folder; where that is not allowed the
// folder stays what it is, and why says so.
func newDisk(dir string, mib int) (d *disk, why error) {
	d = &disk{dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return d, err
	}
	if err := runCommand("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm,mode=755", mib), "chaos", dir); err != nil {
		return d, err
	}
	d.mounted = true
	return d, nil
}

func (d *disk) remove() {
	if d.mounted {
		_ = runCommand("umount", "-l", d.dir)
	}
}

const ballast = "ballast"

// fill takes what room there is, and goes on taking what becomes free until stop is closed.
func (d *disk) fill(stop <-chan struct{}) error {
	f, err := os.OpenFile(filepath.Join(d.dir, ballast), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for {
		for len(chunk) >= 1 {
			if _, err := f.Write(chunk); err == nil {
				continue
			} else if !errors.Is(err, syscall.ENOSPC) {
				return err
			}
			if len(chunk) <= 4096 {
				break
			}
			chunk = chunk[:len(chunk)/2]
		}
		select {
		case <-stop:
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *disk) free() error { return os.Remove(filepath.Join(d.dir, ballast)) }

// sizeBelow is what the files below a folder take, without those that skip names.
func sizeBelow(dir string, skip func(name string) bool) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || skip(e.Name()) {
			return nil // what is gone meanwhile takes nothing
		}
		if info, err := e.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
