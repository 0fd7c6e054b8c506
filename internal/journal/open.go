package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// lockName is the file beside the journal that a running agent keeps locked. The journal
// itself cannot serve as the lock, because a new file may take its place meanwhile.
const lockName = "agent.pid"

// takeLock makes this process the only one to use the journal.
func takeLock(s Settings) (*os.File, error) {
	dir := filepath.Dir(s.Path)
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	if err := flock(file, s.LockTimeout); err != nil {
		owner := make([]byte, 20)
		n, _ := file.ReadAt(owner, 0)
		_ = file.Close()
		if errors.Is(err, ErrInUse) {
			return nil, fmt.Errorf("%w: another agent (pid %s) uses the data directory %s", ErrInUse, strings.TrimSpace(string(owner[:n])), dir)
		}
		return nil, fmt.Errorf("locking %s: %w", file.Name(), err)
	}
	// Overwritten rather than created anew: that works on a full disk, too.
	pid := fmt.Sprintf("%d\n", os.Getpid())
	_, err = file.WriteAt([]byte(pid), 0)
	if err == nil {
		err = file.Truncate(int64(len(pid)))
	}
	if err != nil {
		s.Logger.Warn("could not write the pid file", zap.String("path", file.Name()), zap.Error(err))
	}
	return file, nil
}

// flock locks a file, or fails with ErrInUse if another process holds it for longer than
// the timeout.
func flock(file *os.File, timeout time.Duration) error {
	const pause = 20 * time.Millisecond
	for deadline := time.Now().Add(timeout); ; time.Sleep(pause) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("%w by another process", ErrInUse)
		}
	}
}

// handle is an open database with its file.
type handle struct {
	*bbolt.DB
	file *os.File
}

// openBolt opens a database. The error is *damage where the file is the reason. The free
// list is a map, which finds pages in constant time, and is written with each transaction:
// otherwise bbolt reads the whole file at start, on a goroutine whose panic cannot be
// recovered. Syncing stays on, because durability is the journal's purpose.
func openBolt(path string, o bbolt.Options) (*handle, error) {
	h := &handle{}
	o.FreelistType = bbolt.FreelistMapType
	o.NoStatistics = true
	open := o.OpenFile
	if open == nil {
		open = os.OpenFile
	}
	o.OpenFile = func(name string, flag int, mode fs.FileMode) (file *os.File, err error) {
		h.file, err = open(name, flag|unix.O_NOFOLLOW, mode)
		return h.file, err
	}
	err := guard(func() (err error) {
		h.DB, err = bbolt.Open(path, 0o600, &o)
		return err
	})
	err = withErrno(err)
	var system unix.Errno
	switch {
	case err == nil:
		return h, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%w: another process reads it", ErrInUse)
	case errors.As(err, &system):
		return nil, err
	case h.file != nil:
		h.abandon()
	}
	return nil, asDamage(err)
}

func (s Settings) boltOptions() bbolt.Options {
	return bbolt.Options{Timeout: s.LockTimeout, NoSync: s.noSync, NoGrowSync: s.noSync}
}

// abandon closes the file without bbolt, which may hold locks of its own after a panic.
// The mapping stays until the process ends.
func (h *handle) abandon() {
	_ = unix.Flock(int(h.file.Fd()), unix.LOCK_UN)
	_ = h.file.Close()
}

// open opens the file, after setting it aside if it is damaged.
func (j *Journal) open() error {
	err := j.openFile()
	if !isDamage(err) {
		return err
	}
	if err := j.setAside(err); err != nil {
		return fmt.Errorf("setting the damaged file aside: %w", err)
	}
	j.inspected = true // the new file
	return j.openFile()
}

// openFile opens the file as it is. After a failed commit only bbolt has written to it
// since it was inspected, so it is not inspected again.
func (j *Journal) openFile() error {
	if !j.inspected {
		if err := j.settings.inspector().check(j.path); err != nil {
			return err
		}
		j.inspected = true
	}
	_, missing := os.Lstat(j.path)
	db, err := openBolt(j.path, j.settings.boltOptions())
	if err != nil {
		j.inspected = !isDamage(err)
		if missing != nil {
			_ = os.Remove(j.path) // half a file would count as a damaged one
		}
		return err
	}
	if missing != nil && !j.settings.noSync {
		err = syncDir(filepath.Dir(j.path))
	}
	if err == nil {
		err = guard(func() error { return j.load(db.DB) })
	}
	if err != nil {
		if isDamage(err) {
			j.inspected = false
			db.abandon()
		} else {
			_ = db.Close()
		}
		return err
	}
	j.db = db
	j.stats.Store(j.totals.snapshot())
	j.openReserve(db)
	return nil
}

// load migrates the file if its schema is old, and counts its records.
func (j *Journal) load(db *bbolt.DB) error {
	var schema int
	err := db.View(func(tx *bbolt.Tx) (err error) {
		schema, err = schemaOf(tx)
		return err
	})
	if err == nil && schema != len(migrations) {
		err = db.Update(migrate)
	}
	if err != nil {
		return err
	}
	return db.View(func(tx *bbolt.Tx) (err error) {
		j.totals, err = audit(tx)
		return err
	})
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// damage is the error for a file that is not as the journal wrote it.
type damage struct{ err error }

func (d *damage) Error() string { return "damaged: " + d.err.Error() }
func (d *damage) Unwrap() error { return d.err }

func damagef(format string, args ...any) error { return &damage{fmt.Errorf(format, args...)} }

func isDamage(err error) bool {
	var d *damage
	return errors.As(err, &d)
}

// asDamage makes an error a *damage, once.
func asDamage(err error) error {
	if isDamage(err) {
		return err
	}
	return &damage{err}
}

// guard turns a panic into a *damage error, including the fault of reading a mapped page
// that the file or the disk no longer has.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damagef("panic: %v", p)
		}
	}()
	return fn()
}
