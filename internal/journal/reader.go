package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// Reader reads a journal. It is safe for concurrent use.
type Reader struct {
	path  string
	stats atomic.Pointer[job.JournalStats]

	mu     sync.Mutex // one transaction at a time
	db     *handle    // nil: let go of, or closed
	closed bool
	reopen func() error // gets db back; nil where nothing does
}

// OpenReadOnly opens the journal of an agent that does not run; nothing is changed,
// not even a damaged file. The error wraps ErrInUse while an agent runs, and
// fs.ErrNotExist when there is no journal.
func OpenReadOnly(path string) (*Reader, error) {
	r := &Reader{path: path}
	if err := r.open(time.Second); err != nil {
		return nil, r.fail("opening to read", err)
	}
	return r, nil
}

func (r *Reader) open(timeout time.Duration) error {
	file, err := os.Open(r.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	// bbolt must not be let near the file before it is inspected, and no agent
	// may start between the two.
	if err := flock(file, unix.LOCK_SH, timeout); err != nil {
		return err
	}
	if info, err := file.Stat(); err == nil && info.Size() == 0 {
		return fmt.Errorf("%w: nothing was ever written to it", fs.ErrNotExist)
	}
	if err := inspect(r.path, zap.NewNop()); err != nil {
		return err
	}
	db, err := openBolt(r.path, bbolt.Options{ReadOnly: true, Timeout: timeout})
	if err != nil {
		return err
	}
	var b *books
	err = guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			b, err = audit(tx)
			return err
		})
	})
	if err != nil {
		db.abandon()
		return err
	}
	r.db = db
	r.stats.Store(b.snapshot())
	return nil
}

// Close lets go of the journal. Later calls return ErrClosed; closing twice is no error.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.db == nil {
		return nil
	}
	db := r.db
	r.db = nil
	if err := guard(db.Close); err != nil {
		return r.fail("closing", err)
	}
	return nil
}

// Stats tells how much the journal holds, as of the last write. It never blocks.
func (r *Reader) Stats() job.JournalStats {
	return *r.stats.Load()
}

// Record returns one attempt; false when it is not there.
func (r *Reader) Record(key job.Key) (rec job.Record, found bool, err error) {
	err = r.view(fmt.Sprintf("reading %.100s", key), func(tx *bbolt.Tx) error {
		rec, _, found, err = find(tx, key)
		return err
	})
	return rec, found, err
}

// Unfinished lists attempts without a result, oldest first.
func (r *Reader) Unfinished() ([]job.Record, error) {
	return r.list("listing unfinished attempts", bucketOpen, false, 0, func(rec job.Record) bool {
		return rec.State.Unfinished()
	})
}

// Unsent lists results that are not settled, oldest first.
func (r *Reader) Unsent() ([]job.Record, error) {
	return r.list("listing unsent results", bucketOpen, false, 0, func(rec job.Record) bool {
		return rec.State == job.RecordResult
	})
}

// Settled lists attempts whose result was sent or that were superseded, at most limit
// of them, last settled first; limit 0 is all.
func (r *Reader) Settled(limit int) ([]job.Record, error) {
	return r.list("listing settled attempts", bucketSettled, true, limit, func(job.Record) bool { return true })
}

// DeadLetters lists results that the master refused for good, at most limit of them,
// last settled first; limit 0 is all.
func (r *Reader) DeadLetters(limit int) ([]job.Record, error) {
	return r.list("listing dead letters", bucketDead, true, limit, func(job.Record) bool { return true })
}

// Find lists all attempts at a job that the journal still has, the newest last, with
// their samples.
func (r *Reader) Find(jobID string) (records []job.Record, err error) {
	err = r.view(fmt.Sprintf("looking for job %.100s", jobID), func(tx *bbolt.Tx) error {
		records = nil
		prefix := jobSum(jobID)
		c := tx.Bucket(bucketIndex).Cursor()
		for k, entry := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, entry = c.Next() {
			rec, _, err := follow(tx, entry)
			if err != nil {
				return err
			}
			rec.Samples = samplesOf(tx, rec.Key())
			records = append(records, rec)
		}
		return nil
	})
	return records, err
}

// Session returns the node's session, false when none was saved.
func (r *Reader) Session() (s messages.Session, found bool, err error) {
	err = r.view("reading the session", func(tx *bbolt.Tx) error {
		s, found, err = readSession(tx)
		return err
	})
	return s, found, err
}

func (r *Reader) list(doing string, bucket []byte, newestFirst bool, limit int, want func(job.Record) bool) (records []job.Record, err error) {
	err = r.view(doing, func(tx *bbolt.Tx) error {
		records = nil
		return each(tx, bucket, newestFirst, func(_ uint64, rec job.Record) (bool, error) {
			if want(rec) {
				records = append(records, rec)
			}
			return limit <= 0 || len(records) < limit, nil
		})
	})
	return records, err
}

func (r *Reader) view(doing string, fn func(*bbolt.Tx) error) error {
	return r.fail(doing, r.do(func(db *bbolt.DB) error { return db.View(fn) }))
}

// do runs a transaction, on a file opened afresh where the last one went wrong in
// a way that says nothing good of the file or of what is known of it.
func (r *Reader) do(run func(*bbolt.DB) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.db == nil && !r.closed && r.reopen != nil {
		if err := r.reopen(); err != nil {
			return err
		}
	}
	if r.db == nil {
		return ErrClosed
	}
	err := guard(func() error { return run(r.db.DB) })
	if isDamage(err) && r.db != nil {
		r.db.abandon()
		r.db = nil
	}
	return err
}

// letGo closes the file so that the next transaction reads it afresh.
func (r *Reader) letGo() {
	_ = r.db.Close()
	r.db = nil
}

// fail names the file and what was being done in an error; nil stays nil.
func (r *Reader) fail(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("journal %s: %s: %w", r.path, doing, withErrno(err))
}

// withErrno makes an error wrap what the system said where bbolt passed that on as
// text only.
func withErrno(err error) error {
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) {
		return err
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EIO, syscall.ENOMEM} {
		if rest, ends := strings.CutSuffix(err.Error(), errno.Error()); ends {
			return fmt.Errorf("%s%w", rest, errno)
		}
	}
	return err
}

// guard turns a panic into a *damage error, also the fault of reading a mapped page
// that the file or the disk no longer has.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &damage{fmt.Errorf("panic: %v", p)}
		}
	}()
	return fn()
}
