package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/messages/job"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// lockName is the file beside the journal that the agent keeps locked, and that holds
// its pid. The journal itself would not do: it may be replaced while it is held.
const lockName = "agent.pid"

// takeLock makes this process the only one to use the journal.
func takeLock(s Settings) (*os.File, error) {
	dir := filepath.Dir(s.Path)
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	if err := flock(file, unix.LOCK_EX, s.LockTimeout); err != nil {
		owner := make([]byte, 20)
		n, _ := file.ReadAt(owner, 0)
		_ = file.Close()
		if errors.Is(err, ErrInUse) {
			return nil, fmt.Errorf("%w: another agent (pid %s) uses the data directory %s", ErrInUse, strings.TrimSpace(string(owner[:n])), dir)
		}
		return nil, fmt.Errorf("locking %s: %w", file.Name(), err)
	}
	// Written over, not anew: that works on a full disk as well.
	pid := fmt.Sprintf("%d\n", os.Getpid())
	_, err = file.WriteAt([]byte(pid), 0)
	if err == nil {
		err = file.Truncate(int64(len(pid)))
	}
	if err != nil {
		s.Logger.Warn("cannot write down which process has the journal", zap.String("path", file.Name()), zap.Error(err))
	}
	return file, nil
}

// flock locks a file within the timeout; ErrInUse when another holds it for longer.
func flock(file *os.File, how int, timeout time.Duration) error {
	const pause = 20 * time.Millisecond
	for deadline := time.Now().Add(timeout); ; time.Sleep(pause) {
		err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
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

// handle is an open database and the file below it.
type handle struct {
	*bbolt.DB
	file *os.File
}

// openBolt opens a database that was inspected. The free list is kept as a map, which
// finds pages in constant time, and is written with each transaction: to do without
// saves little here, and makes bbolt walk the whole file at start on a goroutine
// that nobody can guard. Syncing stays on: it is what the journal is for.
func openBolt(path string, o bbolt.Options) (*handle, error) {
	h := &handle{}
	o.FreelistType = bbolt.FreelistMapType
	o.NoStatistics = true
	o.OpenFile = func(name string, flag int, mode fs.FileMode) (*os.File, error) {
		var err error
		h.file, err = os.OpenFile(name, flag, mode)
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
	return nil, &damage{err} // what else bbolt says is about what it read
}

func (s Settings) boltOptions() bbolt.Options {
	return bbolt.Options{Timeout: s.LockTimeout, NoSync: s.noSync, NoGrowSync: s.noSync}
}

// abandon lets go of the file without asking bbolt, which may hold locks of its own
// after a panic. The mapping stays until the process ends.
func (h *handle) abandon() {
	_ = unix.Flock(int(h.file.Fd()), unix.LOCK_UN)
	_ = h.file.Close()
}

// open opens the file, after setting it aside when it is damaged.
func (j *Journal) open() error {
	err := j.openFile()
	if !isDamage(err) {
		return err
	}
	if err := j.setAside(err); err != nil {
		return fmt.Errorf("setting the damaged file aside: %w", err)
	}
	return j.openFile()
}

func (j *Journal) openFile() error {
	if err := inspect(j.path, j.settings.Logger); err != nil {
		return err
	}
	_, missing := os.Lstat(j.path)
	db, err := openBolt(j.path, j.settings.boltOptions())
	if err != nil {
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
			db.abandon()
		} else {
			_ = db.Close()
		}
		return err
	}
	j.db = db
	j.stats.Store(j.books.snapshot())
	return nil
}

// load migrates the file where it must, and reads the books from it.
func (j *Journal) load(db *bbolt.DB) error {
	if err := bringUp(db); err != nil {
		return err
	}
	return db.View(func(tx *bbolt.Tx) (err error) {
		j.books, err = audit(tx)
		return err
	})
}

// bringUp migrates a file that is not of the newest schema.
func bringUp(db *bbolt.DB) error {
	var schema int
	err := db.View(func(tx *bbolt.Tx) (err error) {
		schema, err = schemaOf(tx)
		return err
	})
	if err != nil || schema == len(migrations) {
		return err
	}
	return db.Update(migrate)
}

// inspect reads a file's pages; the error is *damage when bbolt must not be given
// it. A file that is missing or empty will be made.
func inspect(path string, log *zap.Logger) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if info.Size() == 0 {
		return nil
	}
	schema := 0
	faults, oneHeader := walk(file, info.Size(), func(bucket string, key, value []byte) {
		if bucket == "/"+string(bucketMeta) && string(key) == string(keySchema) {
			schema, _ = parseSchema(value)
		}
	})
	if err := checkSchema(schema); err != nil {
		return err
	}
	if len(faults) > 0 {
		return &damage{errors.Join(faults...)}
	}
	if oneHeader {
		log.Warn("one of the journal's two headers is unreadable: the last write before this start may be missing",
			zap.String("path", path))
	}
	return nil
}

// setAside puts a fresh file with what is still readable in the place of the damaged
// one, which stays beside it for good. At each moment there is a file in its place.
func (j *Journal) setAside(cause error) error {
	saved, err := salvage(j.path)
	if err != nil {
		return err
	}
	fresh := j.path + ".new"
	if err := j.writeFresh(fresh, saved); err != nil {
		_ = os.Remove(fresh)
		return fmt.Errorf("writing %s: %w", fresh, err)
	}
	aside, err := keepAside(j.path)
	if err != nil {
		return err
	}
	if err := os.Rename(fresh, j.path); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(j.path)); err != nil {
		return err
	}
	j.settings.Logger.Error("the journal was damaged: it has been set aside, and what is readable of it goes on in a fresh one; what is not is lost to the agent",
		zap.String("path", j.path), zap.String("set_aside_as", aside), zap.Error(cause),
		zap.Int("records_saved", len(saved.records)), zap.Bool("session_saved", saved.session != nil))
	return nil
}

// keepAside gives the file a second name that no other file has.
func keepAside(path string) (string, error) {
	base := path + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
	for i := 1; ; i++ {
		aside := base
		if i > 1 {
			aside = fmt.Sprintf("%s-%d", base, i)
		}
		err := os.Link(path, aside)
		switch {
		case err == nil:
			return aside, nil
		case errors.Is(err, fs.ErrExist):
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EMLINK):
			// A filesystem without hard links. The lock on the data directory keeps others
			// from taking the name meanwhile.
			if _, err := os.Lstat(aside); err == nil {
				continue
			}
			return aside, os.Rename(path, aside)
		default:
			return "", err
		}
	}
}

// saved is what could be read of a damaged file.
type saved struct {
	records []placed
	session []byte // its value; nil when there was none
}

// salvage reads what is still sound, in its order. Where an attempt is there twice,
// the further one counts.
func salvage(path string) (saved, error) {
	file, err := os.Open(path)
	if err != nil {
		return saved{}, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return saved{}, err
	}
	var session []byte
	found := make(map[string]placed)
	walk(file, info.Size(), func(bucket string, key, value []byte) {
		if bucket == "/"+string(bucketMeta) && string(key) == string(keySession) {
			if _, err := decodeSession(value); err == nil {
				session = slices.Clone(value)
			}
			return
		}
		rec, err := decodeRecord(value)
		home := bucketOf(rec.State)
		if err != nil || home == nil || bucket != "/"+string(home) || len(key) != 8 {
			return
		}
		id := string(attemptID(rec.Key()))
		if other, twice := found[id]; !twice || rank(rec.State) > rank(other.rec.State) {
			found[id] = placed{rec, ref{home, binary.BigEndian.Uint64(key)}}
		}
	})
	records := make([]placed, 0, len(found))
	for _, p := range found {
		records = append(records, p)
	}
	slices.SortFunc(records, func(a, b placed) int {
		return cmp.Or(cmp.Compare(string(a.at.bucket), string(b.at.bucket)), cmp.Compare(a.at.seq, b.at.seq))
	})
	return saved{records, session}, nil
}

// rank is how far a state is on its way.
func rank(s job.RecordState) int {
	return slices.Index([]job.RecordState{
		job.RecordAccepted, job.RecordRunning, job.RecordResult,
		job.RecordSuperseded, job.RecordDeadLetter, job.RecordSent,
	}, s)
}

// writeFresh makes a new file with these records.
func (j *Journal) writeFresh(path string, s saved) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openBolt(path, j.settings.boltOptions())
	if err != nil {
		return err
	}
	err = guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error { return s.write(tx) })
	})
	return errors.Join(err, db.Close())
}

func (s saved) write(tx *bbolt.Tx) error {
	if err := migrate(tx); err != nil {
		return err
	}
	for _, p := range s.records {
		if _, err := put(tx, p.rec, nil); err != nil {
			return err
		}
	}
	if s.session == nil {
		return nil
	}
	return tx.Bucket(bucketMeta).Put(keySession, s.session)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
