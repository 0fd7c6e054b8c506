// Package journal is the agent's durable record of attempts: which leases it took,
// which FFmpeg ran for them, their results and how each ended. A record is on disk
// when the call that wrote it returns, and survives a crash at any moment.
//
// It keeps what was decided and decides nothing itself: when to send, to discard or
// to give up is the caller's. Of measurements it keeps each attempt's power over time,
// within a bound, as long as its record.
//
// The file is a bbolt database of one writer. A damaged one is set aside, never
// deleted, and its readable records go on in a fresh one.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// What callers may decide by; errors wrap them. A full disk is syscall.ENOSPC: nothing
// was written then, and the call may be repeated.
var (
	// ErrInUse: another process has the journal.
	ErrInUse = errors.New("in use")
	// ErrNewerSchema: the file was written by a newer agent. It was left alone.
	ErrNewerSchema = errors.New("written by a newer agent")
	// ErrOrder: the attempt's state would not move forward.
	ErrOrder = errors.New("out of order")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("closed")
)

// errUnchanged ends a transaction that found nothing to write.
var errUnchanged = errors.New("unchanged")

// Settings say where the journal lies and how much it keeps.
type Settings struct {
	// Path of the file, such as /var/lib/ffmpeg-agent/journal.db. Its folder is made
	// when missing; agent.pid beside it tells who has the journal.
	Path string
	// KeepSettled is how many sent and superseded records are kept, the newest
	// ones; 0: 1000.
	KeepSettled int
	// KeepDeadLetters is how many dead letters are kept; beyond it the oldest is
	// dropped with a warning; 0: 10000.
	KeepDeadLetters int
	// LockTimeout is how long Open waits for another process to let go of the
	// journal; 0: 2 s.
	LockTimeout time.Duration
	// Logger gets what an operator should know; nil: nobody does.
	Logger *zap.Logger

	noSync bool // for tests of what does not depend on it
}

func (s Settings) withDefaults() Settings {
	if s.KeepSettled <= 0 {
		s.KeepSettled = 1000
	}
	if s.KeepDeadLetters <= 0 {
		s.KeepDeadLetters = 10000
	}
	if s.LockTimeout <= 0 {
		s.LockTimeout = 2 * time.Second
	}
	if s.Logger == nil {
		s.Logger = zap.NewNop()
	}
	return s
}

// Journal is the journal of a running agent. It is safe for concurrent use.
type Journal struct {
	Reader
	settings Settings
	lock     *os.File
	books    *books // guarded by Reader.mu
}

// Open opens the journal, or makes it, for this process alone. The error wraps ErrInUse
// or ErrNewerSchema where it is that; damage is no error (see the package comment).
func Open(s Settings) (*Journal, error) {
	s = s.withDefaults()
	if err := os.MkdirAll(filepath.Dir(s.Path), 0o700); err != nil {
		return nil, fmt.Errorf("journal %s: making its folder: %w", s.Path, err)
	}
	lock, err := takeLock(s)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", s.Path, err)
	}
	j := &Journal{settings: s, lock: lock, Reader: Reader{path: s.Path}}
	j.reopen = j.open
	if err := j.open(); err != nil {
		_ = lock.Close()
		return nil, j.fail("opening", err)
	}
	return j, nil
}

// Close lets go of the journal. Later calls return ErrClosed.
func (j *Journal) Close() error {
	err := j.Reader.Close()
	if j.lock != nil {
		_ = j.lock.Close() // the lock goes with it; the file stays for the next
	}
	return err
}

// Accept records a lease before anything is done for it. Accepting an attempt
// that is there already changes nothing and returns the record as it stands; but one
// that was superseded begins anew, since a master that gave it away may give it back
// under the same number. A lease from before that is not such a one: it has waited meanwhile.
func (j *Journal) Accept(lease job.Lease) (job.Record, error) {
	var rec job.Record
	err := j.write("accepting", lease.Key(), func(tx *bbolt.Tx) error {
		found, at, known, err := find(tx, lease.Key())
		if err != nil {
			return err
		}
		var before *placed
		if known {
			if found.State != job.RecordSuperseded || found.SettledAt != nil && lease.AcquiredAt.Before(*found.SettledAt) {
				rec = found
				return errUnchanged
			}
			before = &placed{found, at}
		}
		fresh := job.Record{Lease: lease, State: job.RecordAccepted, AcceptedAt: now()}
		if rec, err = asWritten(fresh); err != nil {
			return err
		}
		return j.replace(tx, rec, before)
	})
	return rec, err
}

// Running records FFmpeg's identity. It may be repeated, the last one counts; with
// a result on disk it is an error.
func (j *Journal) Running(key job.Key, process job.Process) error {
	return j.change("recording FFmpeg of", key, func(rec *job.Record) error {
		if !rec.State.Unfinished() {
			return fmt.Errorf("%w: it is %s", ErrOrder, rec.State)
		}
		if rec.Process != nil && *rec.Process == process {
			return errUnchanged
		}
		at := now()
		rec.State, rec.Process, rec.StartedAt = job.RecordRunning, &process, &at
		return nil
	})
}

// Finish puts the attempt's result on disk, byte for byte: one JSON value, which may
// be absent only when the attempt is released. What was finished or has ended stays
// as it was, and that is no error.
func (j *Journal) Finish(key job.Key, result []byte, release bool) error {
	return j.change("finishing", key, func(rec *job.Record) error {
		if !rec.State.Unfinished() {
			return errUnchanged
		}
		if !json.Valid(result) && !(release && len(result) == 0) {
			return errors.New("the result is not JSON")
		}
		at := now()
		rec.State, rec.Result, rec.Release, rec.FinishedAt = job.RecordResult, result, release, &at
		return nil
	})
}

// Settle ends an attempt: sent, superseded or dead letter, and why. Only superseded
// may end one that has no result. Settling it the same way again changes nothing.
func (j *Journal) Settle(key job.Key, end job.RecordState, why string) error {
	return j.change("settling", key, func(rec *job.Record) error {
		switch {
		case !end.Settled():
			return fmt.Errorf("%w: %q is no end", ErrOrder, end)
		case rec.State == end:
			return errUnchanged
		case rec.State.Settled(), rec.State.Unfinished() && end != job.RecordSuperseded:
			return fmt.Errorf("%w: it is %s and cannot become %s", ErrOrder, rec.State, end)
		}
		at := now()
		rec.State, rec.Why, rec.SettledAt = end, why, &at
		return nil
	})
}

// SaveSession keeps the node's session.
func (j *Journal) SaveSession(s messages.Session) error {
	return j.update("saving the session", func(tx *bbolt.Tx) error {
		value, err := seal(s, nil)
		if err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keySession, value)
	})
}

// change applies a step to one attempt's record.
func (j *Journal) change(doing string, key job.Key, step func(*job.Record) error) error {
	return j.write(doing, key, func(tx *bbolt.Tx) error {
		rec, at, known, err := find(tx, key)
		if err != nil {
			return err
		}
		if !known {
			return job.ErrUnknownAttempt
		}
		before := placed{rec, at}
		if err := step(&rec); err != nil {
			return err
		}
		return j.replace(tx, rec, &before)
	})
}

// placed is a record and where it lies.
type placed struct {
	rec job.Record
	at  ref
}

// replace writes a record in the place of what it was before, nil for nothing, and
// keeps the books.
func (j *Journal) replace(tx *bbolt.Tx, rec job.Record, before *placed) error {
	var was *ref
	if before != nil {
		was = &before.at
	}
	at, err := put(tx, rec, was)
	if err != nil {
		return err
	}
	if before != nil {
		j.books.count(before.rec, before.at, -1)
	}
	j.books.count(rec, at, 1)
	return j.trim(tx)
}

// trim removes the oldest ended records beyond what is kept.
func (j *Journal) trim(tx *bbolt.Tx) error {
	stats := &j.books.stats
	settled := stats.Sent + stats.Superseded - j.settings.KeepSettled
	if err := j.remove(tx, bucketSettled, settled, func(job.Record) {}); err != nil {
		return err
	}
	dead := stats.DeadLetters - j.settings.KeepDeadLetters
	return j.remove(tx, bucketDead, dead, func(rec job.Record) {
		j.settings.Logger.Warn("too many dead letters: the oldest is dropped from the journal",
			zap.String("job", rec.Lease.Job.ID), zap.Int("attempt", rec.Key().Attempt),
			zap.String("why", rec.Why), zap.Int("kept", j.settings.KeepDeadLetters))
	})
}

// remove deletes the n oldest records of a bucket; none when n is not positive.
func (j *Journal) remove(tx *bbolt.Tx, bucket []byte, n int, removed func(job.Record)) error {
	if n <= 0 {
		return nil
	}
	oldest := make([]placed, 0, n)
	err := each(tx, bucket, false, func(seq uint64, rec job.Record) (bool, error) {
		oldest = append(oldest, placed{rec, ref{bucket, seq}})
		return len(oldest) < n, nil
	})
	if err != nil {
		return err
	}
	for _, p := range oldest {
		if err := tx.Bucket(bucket).Delete(seqKey(p.at.seq)); err != nil {
			return err
		}
		for _, name := range [][]byte{bucketIndex, bucketSamples} {
			if err := tx.Bucket(name).Delete(attemptID(p.rec.Key())); err != nil {
				return err
			}
		}
		j.books.count(p.rec, p.at, -1)
		removed(p.rec)
	}
	return nil
}

// write is update for one attempt.
func (j *Journal) write(doing string, key job.Key, fn func(*bbolt.Tx) error) error {
	return j.update(fmt.Sprintf("%s %.100s", doing, key), fn)
}

// update runs one transaction. When it returns nil the transaction is on disk, and
// otherwise nothing of it counts.
func (j *Journal) update(doing string, fn func(*bbolt.Tx) error) error {
	var refused error
	err := j.do(func(db *bbolt.DB) error {
		err := db.Update(func(tx *bbolt.Tx) error {
			refused = fn(tx)
			return refused
		})
		switch {
		case err == nil:
			j.stats.Store(j.books.snapshot())
		case refused == nil:
			// The commit failed: how far it came only the file knows.
			j.letGo()
		}
		return err
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	err = j.fail(doing, err)
	if err != nil && refused == nil {
		stats := j.Stats()
		stats.Error = err.Error()
		j.stats.Store(&stats)
	}
	return err
}

// Probe writes something small, to learn whether the journal can be written again.
func (j *Journal) Probe() error {
	return j.update("trying to write", func(tx *bbolt.Tx) error {
		value, err := seal(now(), nil)
		if err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keyProbe, value)
	})
}

// asWritten is the record as reading it again gives it.
func asWritten(rec job.Record) (job.Record, error) {
	value, err := encodeRecord(rec)
	if err != nil {
		return rec, fmt.Errorf("encoding record: %w", err)
	}
	again, err := decodeRecord(value)
	if err != nil {
		return rec, err
	}
	if string(attemptID(again.Key())) != string(attemptID(rec.Key())) {
		return rec, fmt.Errorf("the job does not survive being written: its key becomes %.100s", again.Key())
	}
	return again, nil
}

func now() time.Time { return time.Now().UTC().Round(0) }
