// Package journal is the agent's durable record of attempts: the leases it accepted, the
// FFmpeg processes it started, the results, and how each attempt ended. A record is on
// disk when the call that wrote it returns, and survives a crash at any moment.
//
// The journal stores decisions and makes none: the caller decides when to send, discard or
// give up. Of measurements it keeps each attempt's power over time, bounded, and as long
// as the attempt's record.
//
// The file is a bbolt database with one writer. bbolt trusts what it reads, so a process
// of its own inspects the file before it is opened here (inspect.go). A damaged file is set
// aside, never deleted, and its readable records are copied to a new one (salvage.go).
// Disk space for some results stays allocated ahead of need (reserve.go).
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

// Errors that callers decide by; returned errors wrap them. A full disk is
// syscall.ENOSPC: nothing was written, and the call may be repeated.
var (
	// ErrInUse: another process has the journal open.
	ErrInUse = errors.New("in use")
	// ErrNewerSchema: a newer agent wrote the file. It was not changed.
	ErrNewerSchema = errors.New("written by a newer agent")
	// ErrOrder: the attempt cannot go from its state to the requested one.
	ErrOrder = errors.New("out of order")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("closed")
)

// errUnchanged ends a transaction that has nothing to write.
var errUnchanged = errors.New("unchanged")

// Settings of a journal. Zero values take the defaults.
type Settings struct {
	// Path of the file, such as /var/lib/ffmpeg-agent/journal.db. A missing folder is
	// created. agent.pid beside it holds the pid of the process that has the journal open.
	Path string
	// Inspector is the command line of a process that calls Inspect with the arguments
	// that are appended. Empty: the file is inspected in this process, which a damaged file
	// can then crash or hang.
	Inspector []string
	// KeepSettled is how many sent and superseded records are kept, newest first;
	// default 1000.
	KeepSettled int
	// KeepDeadLetters is how many dead letters are kept; default 10000. Dropping the oldest
	// beyond that is logged.
	KeepDeadLetters int
	// KeepBytes is how much the sent and superseded records may have together, and likewise the
	// dead letters, in bytes with their samples; default 64 MiB.
	KeepBytes int64
	// Reserve is how much disk space is kept allocated for records to come, in bytes;
	// default DefaultReserve.
	Reserve int64
	// LockTimeout is how long Open waits for another process to close the journal;
	// default 2 s.
	LockTimeout time.Duration
	// Logger; default none.
	Logger *zap.Logger

	noSync        bool          // for tests that do not depend on it
	inspectWithin time.Duration // 0: by the file's size
}

func (s Settings) withDefaults() Settings {
	if s.KeepSettled <= 0 {
		s.KeepSettled = 1000
	}
	if s.KeepDeadLetters <= 0 {
		s.KeepDeadLetters = 10000
	}
	if s.KeepBytes <= 0 {
		s.KeepBytes = 64 << 20
	}
	if s.Reserve <= 0 {
		s.Reserve = DefaultReserve
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

	// Guarded by Reader.mu.
	totals  *totals
	reserve reserve
}

// Open opens the journal for this process alone, and creates it if there is none. The
// error wraps ErrInUse or ErrNewerSchema where one applies. A damaged file is not an error;
// see the package comment.
func Open(s Settings) (*Journal, error) {
	s = s.withDefaults()
	if err := os.MkdirAll(filepath.Dir(s.Path), 0o700); err != nil {
		return nil, fmt.Errorf("journal %s: creating its folder: %w", s.Path, err)
	}
	lock, err := takeLock(s)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", s.Path, err)
	}
	j := &Journal{settings: s, lock: lock, Reader: Reader{path: s.Path}}
	j.reopen = j.open
	if err := j.open(); err != nil {
		_ = lock.Close()
		return nil, j.wrap("opening", err)
	}
	return j, nil
}

// Close closes the journal. Later calls return ErrClosed.
func (j *Journal) Close() error {
	err := j.Reader.Close()
	if j.lock != nil {
		_ = j.lock.Close() // releases the lock; the file stays for the next process
	}
	return err
}

// Accept records a lease before anything is done for it. Accepting an attempt that is in
// the journal changes nothing and returns its record, with one exception: a superseded
// attempt begins anew, because a master that reassigned it may assign it here again under
// the same number. A lease acquired before the attempt was superseded does not count as
// such an assignment.
func (j *Journal) Accept(lease job.Lease) (job.Record, error) {
	var rec job.Record
	lease = bounded(lease)
	err := j.write("accepting", lease.Key(), func(tx *bbolt.Tx) error {
		previous, known, err := find(tx, lease.Key())
		if err != nil {
			return err
		}
		if known && !begunAnewBy(lease, previous.rec) {
			rec = previous.rec
			return errUnchanged
		}
		rec, err = roundTrip(job.Record{Lease: lease, State: job.RecordAccepted, AcceptedAt: now()})
		if err != nil {
			return err
		}
		if !known {
			return j.replace(tx, rec, nil)
		}
		return j.replace(tx, rec, &previous)
	})
	return rec, err
}

// begunAnewBy reports whether a lease makes a recorded attempt begin anew.
func begunAnewBy(lease job.Lease, rec job.Record) bool {
	return rec.State == job.RecordSuperseded && (rec.SettledAt == nil || !lease.AcquiredAt.Before(*rec.SettledAt))
}

// Running records which process FFmpeg is. The last call counts. It is an error once the
// attempt has a result.
func (j *Journal) Running(key job.Key, process job.Process) error {
	return j.change("recording FFmpeg of", key, func(rec *job.Record) error {
		if !rec.State.Unfinished() {
			return fmt.Errorf("%w: the attempt is %s", ErrOrder, rec.State)
		}
		if rec.Process != nil && *rec.Process == process {
			return errUnchanged
		}
		at := now()
		rec.State, rec.Process, rec.StartedAt = job.RecordRunning, &process, &at
		return nil
	})
}

// Requeued records that the master re-queued the job while the attempt runs.
func (j *Journal) Requeued(key job.Key) error {
	return j.change("recording the re-queueing of", key, func(rec *job.Record) error {
		switch {
		case rec.Requeued:
			return errUnchanged
		case !rec.State.Unfinished():
			return fmt.Errorf("%w: the attempt is %s", ErrOrder, rec.State)
		}
		rec.Requeued = true
		return nil
	})
}

// Transfer makes an unfinished attempt answer for another lease of its job: its record gets
// the lease and its key. job.ErrNotTransferable: it has a result, or the journal has a record
// of that key.
func (j *Journal) Transfer(key job.Key, to job.Lease) error {
	return j.write("transferring to a new lease", key, func(tx *bbolt.Tx) error {
		previous, known, err := find(tx, key)
		if err != nil {
			return err
		}
		if !known {
			return job.ErrUnknownAttempt
		}
		_, taken, err := find(tx, to.Key())
		if err != nil {
			return err
		}
		if taken {
			return fmt.Errorf("%w: attempt %d is in the journal already", job.ErrNotTransferable, to.Key().Attempt)
		}
		if !previous.rec.State.Unfinished() {
			return fmt.Errorf("%w: the attempt is %s", job.ErrNotTransferable, previous.rec.State)
		}
		rec := previous.rec
		rec.Lease, rec.Requeued = bounded(to), false
		if rec, err = roundTrip(rec); err != nil {
			return err
		}
		if err := j.remove(tx, previous); err != nil {
			return err
		}
		return j.replace(tx, rec, nil)
	})
}

// Finish writes the attempt's result, byte for byte: one JSON value, which may be absent
// only if the attempt is released. An attempt that has a result or is settled stays
// unchanged, without an error.
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

// Settle ends an attempt as sent, superseded or dead letter, with the reason. An attempt
// without a result can only be superseded. Settling it the same way again changes nothing.
func (j *Journal) Settle(key job.Key, end job.RecordState, why string) error {
	return j.change("settling", key, func(rec *job.Record) error {
		switch {
		case !end.Settled():
			return fmt.Errorf("%w: %q does not settle an attempt", ErrOrder, end)
		case rec.State == end:
			return errUnchanged
		case rec.State.Settled(), rec.State.Unfinished() && end != job.RecordSuperseded:
			return fmt.Errorf("%w: the attempt is %s and cannot become %s", ErrOrder, rec.State, end)
		}
		at := now()
		rec.State, rec.Why, rec.SettledAt = end, why, &at
		return nil
	})
}

// SaveSession stores the node's session.
func (j *Journal) SaveSession(s messages.Session) error {
	return j.putMeta("saving the session", keySession, s)
}

// SaveRenewals stores what was done about facts that masters did not store.
func (j *Journal) SaveRenewals(all []messages.Renewal) error {
	return j.putMeta("saving the renewals of the node", keyRenewals, all)
}

// Probe writes a few bytes, to find out whether the journal can be written again.
func (j *Journal) Probe() error {
	return j.putMeta("probing", keyProbe, now())
}

func (j *Journal) putMeta(doing string, key []byte, doc any) error {
	return j.update(doing, func(tx *bbolt.Tx) error {
		value, err := seal(doc, nil)
		if err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(key, value)
	})
}

// change applies a step to the record of one attempt.
func (j *Journal) change(doing string, key job.Key, step func(*job.Record) error) error {
	return j.write(doing, key, func(tx *bbolt.Tx) error {
		previous, known, err := find(tx, key)
		if err != nil {
			return err
		}
		if !known {
			return job.ErrUnknownAttempt
		}
		rec := previous.rec
		if err := step(&rec); err != nil {
			return err
		}
		return j.replace(tx, rec, &previous)
	})
}

// replace writes a record in place of the previous one, nil if there is none, and updates
// the totals.
func (j *Journal) replace(tx *bbolt.Tx, rec job.Record, previous *located) error {
	var from *location
	if previous != nil {
		from = &previous.at
	}
	now, err := put(tx, rec, from)
	if err != nil {
		return err
	}
	if previous != nil {
		j.totals.add(*previous, -1)
	}
	j.totals.add(now, 1)
	return j.trim(tx)
}

// trim removes the oldest settled records beyond those to keep, in number and in bytes.
func (j *Journal) trim(tx *bbolt.Tx) error {
	stats := &j.totals.stats
	settled := stats.Sent + stats.Superseded - j.settings.KeepSettled
	if err := j.removeOldest(tx, bucketSettled, settled, j.totals.settledBytes-j.settings.KeepBytes, func(job.Record) {}); err != nil {
		return err
	}
	dead := stats.DeadLetters - j.settings.KeepDeadLetters
	return j.removeOldest(tx, bucketDead, dead, j.totals.deadBytes-j.settings.KeepBytes, func(rec job.Record) {
		j.settings.Logger.Warn("too many dead letters: dropping the oldest from the journal",
			zap.String("job", rec.Lease.Job.ID), zap.Int("attempt", rec.Key().Attempt),
			zap.String("why", rec.Why), zap.Int("kept", j.settings.KeepDeadLetters), zap.Int64("kept_bytes", j.settings.KeepBytes))
	})
}

// removeOldest removes the oldest records of a bucket: as many as n and as many as have so many
// bytes, none where neither is positive.
func (j *Journal) removeOldest(tx *bbolt.Tx, bucket []byte, n int, bytes int64, removed func(job.Record)) error {
	if n <= 0 && bytes <= 0 {
		return nil
	}
	var oldest []located
	err := each(tx, bucket, false, func(r located) (bool, error) {
		oldest = append(oldest, r)
		bytes -= int64(r.size)
		return len(oldest) < n || bytes > 0, nil
	})
	if err != nil {
		return err
	}
	for _, r := range oldest {
		if err := j.remove(tx, r); err != nil {
			return err
		}
		removed(r.rec)
	}
	return nil
}

// remove removes a record and its samples, and updates the totals.
func (j *Journal) remove(tx *bbolt.Tx, r located) error {
	if err := tx.Bucket(r.at.bucket).Delete(seqKey(r.at.seq)); err != nil {
		return err
	}
	for _, name := range [][]byte{bucketIndex, bucketSamples} {
		if err := tx.Bucket(name).Delete(attemptID(r.rec.Key())); err != nil {
			return err
		}
	}
	j.totals.add(r, -1)
	return nil
}

// write is update for one attempt.
func (j *Journal) write(doing string, key job.Key, fn func(*bbolt.Tx) error) error {
	return j.update(fmt.Sprintf("%s %.100s", doing, key), fn)
}

// update runs one transaction. It is on disk when update returns nil, and without effect
// otherwise.
func (j *Journal) update(doing string, fn func(*bbolt.Tx) error) error {
	var refused error
	err := j.do(func(db *handle) error {
		err := db.Update(func(tx *bbolt.Tx) error {
			refused = fn(tx)
			return refused
		})
		switch {
		case err == nil:
			j.stats.Store(j.totals.snapshot())
			j.topUpReserve(db)
		case refused == nil:
			// The commit failed. Only the file shows how much of it was written.
			j.closeToReopen()
		}
		return err
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	err = j.wrap(doing, err)
	if err != nil && refused == nil {
		stats := j.Stats()
		stats.Error = err.Error()
		j.stats.Store(&stats)
	}
	return err
}

// roundTrip returns the record as it will be read back.
func roundTrip(rec job.Record) (job.Record, error) {
	value, err := encodeRecord(rec)
	if err != nil {
		return rec, fmt.Errorf("encoding record: %w", err)
	}
	decoded, err := decodeRecord(value)
	if err != nil {
		return rec, err
	}
	if string(attemptID(decoded.Key())) != string(attemptID(rec.Key())) {
		return rec, fmt.Errorf("the job's key does not survive encoding: it becomes %.100s", decoded.Key())
	}
	return decoded, nil
}

func now() time.Time { return time.Now().UTC().Round(0) }
