package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// Reader reads a journal. It is safe for concurrent use.
type Reader struct {
	path  string
	stats atomic.Pointer[job.JournalStats]

	mu        sync.Mutex // one transaction at a time
	db        *handle    // nil: closed, or to be opened again
	inspected bool       // the file was found sound, and no damage was met since
	closed    bool
	reopen    func() error // sets db again; nil if nothing does
}

// OpenReadOnly opens the journal while no agent runs. It changes nothing, not even a
// damaged file. The inspector is that of Settings. The error wraps ErrInUse while an agent
// runs, and fs.ErrNotExist if there is no journal.
func OpenReadOnly(path string, inspector []string) (*Reader, error) {
	r := &Reader{path: path}
	if err := r.openReadOnly(inspector); err != nil {
		return nil, r.wrap("opening to read", err)
	}
	return r, nil
}

func (r *Reader) openReadOnly(command []string) error {
	info, err := os.Stat(r.path)
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return fmt.Errorf("%w: nothing was written to it yet", fs.ErrNotExist)
	}
	if err := (inspector{command: command, log: zap.NewNop()}).check(r.path); err != nil {
		return err
	}
	db, err := openToInspect(r.path)
	if err != nil {
		return err
	}
	var t *totals
	err = guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			t, err = audit(tx)
			return err
		})
	})
	if err != nil {
		db.abandon()
		return err
	}
	r.db = db
	r.stats.Store(t.snapshot())
	return nil
}

// Close closes the journal. Later calls return ErrClosed; closing twice is not an error.
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
		return r.wrap("closing", err)
	}
	return nil
}

// Stats returns how much the journal holds, as of the last write. It never blocks.
func (r *Reader) Stats() job.JournalStats {
	return *r.stats.Load()
}

// Record returns the record of one attempt; false if there is none.
func (r *Reader) Record(key job.Key) (job.Record, bool, error) {
	var found located
	var known bool
	err := r.view(fmt.Sprintf("reading %.100s", key), func(tx *bbolt.Tx) (err error) {
		found, known, err = find(tx, key)
		return err
	})
	return found.rec, known, err
}

// Unfinished returns the attempts without a result, oldest first.
func (r *Reader) Unfinished() ([]job.Record, error) {
	return r.list("listing unfinished attempts", bucketOpen, false, 0, func(rec job.Record) bool {
		return rec.State.Unfinished()
	})
}

// Unsent returns the attempts whose result is not settled, oldest first.
func (r *Reader) Unsent() ([]job.Record, error) {
	return r.list("listing unsent results", bucketOpen, false, 0, func(rec job.Record) bool {
		return rec.State == job.RecordResult
	})
}

// Settled returns at most limit of the attempts whose result was sent or that were
// superseded, last settled first; limit 0 is all.
func (r *Reader) Settled(limit int) ([]job.Record, error) {
	return r.list("listing settled attempts", bucketSettled, true, limit, func(job.Record) bool { return true })
}

// DeadLetters returns at most limit of the results that the master refused for good, last
// settled first; limit 0 is all.
func (r *Reader) DeadLetters(limit int) ([]job.Record, error) {
	return r.list("listing dead letters", bucketDead, true, limit, func(job.Record) bool { return true })
}

// Find returns all attempts at a job that the journal still has, the newest last, with
// their samples.
func (r *Reader) Find(jobID string) (records []job.Record, err error) {
	err = r.view(fmt.Sprintf("looking for job %.100s", jobID), func(tx *bbolt.Tx) error {
		records = nil
		prefix := jobSum(jobID)
		c := tx.Bucket(bucketIndex).Cursor()
		for k, value := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, value = c.Next() {
			found, err := follow(tx, value)
			if err != nil {
				return err
			}
			found.rec.Samples = samplesOf(tx, found.rec.Key())
			records = append(records, found.rec)
		}
		return nil
	})
	return records, err
}

// Recent summarizes all attempts, last accepted first.
func (r *Reader) Recent() (all []job.Summary, err error) {
	err = r.view("listing attempts", func(tx *bbolt.Tx) error {
		all = nil
		for _, bucket := range recordBuckets {
			if err := each(tx, bucket, true, func(found located) (bool, error) {
				all = append(all, job.Summarize(found.rec))
				return true, nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b job.Summary) int { return b.AcceptedAt.Compare(a.AcceptedAt) })
	return all, err
}

// Session returns the node's session, false if none was saved.
func (r *Reader) Session() (s messages.Session, found bool, err error) {
	err = r.view("reading the session", func(tx *bbolt.Tx) error {
		s, found, err = readSession(tx)
		return err
	})
	return s, found, err
}

// Renewals returns what was done about facts that masters did not store; none if it is
// unreadable.
func (r *Reader) Renewals() (all []messages.Renewal, err error) {
	if found, err := r.getMeta("reading the renewals of the node", keyRenewals, &all); !found {
		return nil, err
	}
	return all, nil
}

// getMeta reads a document of the meta bucket, false if there is none or it is unreadable.
func (r *Reader) getMeta(doing string, key []byte, doc any) (found bool, err error) {
	err = r.view(doing, func(tx *bbolt.Tx) error {
		line, _, err := unseal(tx.Bucket(bucketMeta).Get(key))
		found = err == nil && json.Unmarshal(line, doc) == nil
		return nil
	})
	return found, err
}

func (r *Reader) list(doing string, bucket []byte, newestFirst bool, limit int, want func(job.Record) bool) (records []job.Record, err error) {
	err = r.view(doing, func(tx *bbolt.Tx) error {
		records = nil
		return each(tx, bucket, newestFirst, func(r located) (bool, error) {
			if want(r.rec) {
				records = append(records, r.rec)
			}
			return limit <= 0 || len(records) < limit, nil
		})
	})
	return records, err
}

func (r *Reader) view(doing string, fn func(*bbolt.Tx) error) error {
	return r.wrap(doing, r.do(func(db *handle) error { return db.View(fn) }))
}

// do runs a transaction. If the last one met damage or failed to commit, the file is
// opened again before.
func (r *Reader) do(run func(*handle) error) error {
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
	err := guard(func() error { return run(r.db) })
	if isDamage(err) && r.db != nil {
		r.db.abandon()
		r.db, r.inspected = nil, false
	}
	return err
}

// closeToReopen closes the file, so that the next transaction reads it anew.
func (r *Reader) closeToReopen() {
	_ = r.db.Close()
	r.db = nil
}

// wrap adds the file and what was being done to an error; nil stays nil.
func (r *Reader) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("journal %s: %s: %w", r.path, doing, withErrno(err))
}

// withErrno makes an error wrap the system's error where bbolt included only its text.
func withErrno(err error) error {
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) {
		return err
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EIO, syscall.ENOMEM} {
		if text, ok := strings.CutSuffix(err.Error(), errno.Error()); ok {
			return fmt.Errorf("%s%w", text, errno)
		}
	}
	return err
}
