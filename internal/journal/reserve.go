package journal

import (
	"errors"
	"syscall"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// bbolt grows its file sparsely, so on a full disk a transaction fails as soon as no free
// page of the file fits: just when a job that ran for hours has to record its result.
// Therefore blocks are allocated behind the pages in use, and topped up after each commit
// while the disk has room. New pages of any kind (records, branches, the free list) come
// from there; the two header pages are overwritten in place.
//
// File systems that copy on write (btrfs, ZFS) may need room to overwrite a page that was
// in use before. There the reserve covers its own first use only.

// DefaultReserve is for the last jobs of a node whose disk is full; it takes no new ones
// then. It holds 30 attempts with the largest result (FFmpeg's log of 64 KiB, all of it
// escaped in JSON: 400 KiB), or some hundred usual ones.
const DefaultReserve = 16 << 20

// minReserve is the least that is worth allocating.
const minReserve = 64 << 10

// reserve is the state of the allocated blocks of one open file.
type reserve struct {
	end         int64 // blocks are known to be allocated up to this offset
	short       bool  // logged
	unsupported bool  // by the file system; logged
}

// openReserve finds out what an opened file has, and completes it.
func (j *Journal) openReserve(db *handle) {
	j.reserve = reserve{}
	var info unix.Stat_t
	if err := unix.Fstat(int(db.file.Fd()), &info); err == nil && int64(info.Blocks)*512 >= info.Size {
		j.reserve.end = info.Size // without holes
	}
	j.topUpReserve(db)
}

// SetReserve changes Settings.Reserve. Blocks are allocated as the journal is written.
func (j *Journal) SetReserve(bytes int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.settings.Reserve = bytes
}

// topUpReserve allocates blocks once a quarter of the reserve is used, as many as the disk
// has. Without them the journal still works until the disk is full, so errors are only
// logged.
func (j *Journal) topUpReserve(db *handle) {
	r := &j.reserve
	used, err := db.used()
	if err != nil || r.unsupported || r.end-used >= j.settings.Reserve/4*3 {
		return
	}
	left := max(0, r.end-used)
	size := min(j.settings.Reserve, left+freeSpace(db))
	for ; size >= left+minReserve; size /= 2 {
		err = allocate(db.file, used, size)
		if err == nil || !isFull(err) {
			break
		}
	}
	switch {
	case err != nil && !isFull(err):
		r.unsupported = errors.Is(err, errors.ErrUnsupported)
		j.settings.Logger.Warn("could not allocate disk space for the journal in advance: on a full disk results may be kept only in memory",
			zap.String("path", j.path), zap.Error(err))
		return
	case err == nil && size >= left+minReserve:
		r.end = used + size
		if !j.settings.noSync {
			err = db.file.Sync()
		}
	}
	j.logReserve(r.end-used, err)
}

func (j *Journal) logReserve(left int64, err error) {
	short := left < j.settings.Reserve/4*3
	if short == j.reserve.short {
		return
	}
	j.reserve.short = short
	if short {
		j.settings.Logger.Warn("disk full: could not restore the journal's reserve",
			zap.String("path", j.path), zap.Int64("reserve_bytes", left), zap.Int64("want_bytes", j.settings.Reserve), zap.Error(err))
		return
	}
	j.settings.Logger.Info("the journal's reserve is restored", zap.String("path", j.path), zap.Int64("reserve_bytes", left))
}

// used is the offset behind the last page in use or once used, in bytes.
func (h *handle) used() (size int64, err error) {
	err = h.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	return size, err
}

// freeSpace is what the file system has free for this user, in bytes; 0 if unknown.
func freeSpace(db *handle) int64 {
	var info unix.Statfs_t
	if err := unix.Fstatfs(int(db.file.Fd()), &info); err != nil {
		return 0
	}
	return int64(info.Bavail) * int64(info.Bsize)
}

// isFull reports whether an error means that no more can be written: the disk, a quota, or
// the limit of a file's size.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
