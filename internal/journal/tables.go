package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// The buckets. A record lies in the one that its state belongs to, under a number
// that grows: in order of acceptance while it is open, in order of settlement later.
var (
	bucketMeta    = []byte("meta")    // schema, session, baselines, probe
	bucketOpen    = []byte("open")    // number → record: accepted, running, result
	bucketSettled = []byte("settled") // number → record: sent, superseded
	bucketDead    = []byte("dead")    // number → record: dead letter
	bucketIndex   = []byte("index")   // attemptID → bucket's letter, number
	bucketSamples = []byte("samples") // attemptID → power over time

	recordBuckets = [][]byte{bucketOpen, bucketSettled, bucketDead}

	keySchema    = []byte("schema")
	keySession   = []byte("session")
	keyBaselines = []byte("baselines")
	keyProbe     = []byte("probe") // when it was last tried whether writing works
)

// bucketOf tells where a record in this state lies; nil for a state that is none.
func bucketOf(s job.RecordState) []byte {
	switch {
	case s.Unfinished(), s == job.RecordResult:
		return bucketOpen
	case s == job.RecordDeadLetter:
		return bucketDead
	case s.Settled():
		return bucketSettled
	}
	return nil
}

// migrations lead from each schema to the next: the first from an empty file to
// schema 1. Their number is the newest schema.
var migrations = []func(*bbolt.Tx) error{
	func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketOpen, bucketSettled, bucketDead, bucketIndex, bucketSamples} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return fmt.Errorf("creating bucket %s: %w", name, err)
			}
		}
		return nil
	},
}

// schemaOf reads the schema; 0 for a file without one.
func schemaOf(tx *bbolt.Tx) (int, error) {
	b := tx.Bucket(bucketMeta)
	if b == nil {
		return 0, nil
	}
	return parseSchema(b.Get(keySchema))
}

func parseSchema(value []byte) (schema int, err error) {
	if value == nil {
		return 0, nil
	}
	doc, _, err := unseal(value)
	if err == nil {
		err = json.Unmarshal(doc, &schema)
	}
	if err != nil || schema < 0 {
		return 0, &damage{fmt.Errorf("schema version unreadable: %.40q", value)}
	}
	return schema, nil
}

// migrate brings a file to the newest schema.
func migrate(tx *bbolt.Tx) error {
	from, err := schemaOf(tx)
	if err != nil {
		return err
	}
	if err := checkSchema(from); err != nil {
		return err
	}
	for i, step := range migrations[from:] {
		if err := step(tx); err != nil {
			return fmt.Errorf("migrating from schema %d: %w", from+i, err)
		}
	}
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	value, err := seal(len(migrations), nil)
	if err != nil {
		return err
	}
	return meta.Put(keySchema, value)
}

// checkSchema refuses a schema newer than ours.
func checkSchema(schema int) error {
	if schema > len(migrations) {
		return fmt.Errorf("%w: it has schema %d, this agent knows up to %d", ErrNewerSchema, schema, len(migrations))
	}
	return nil
}

// ref is where a record lies.
type ref struct {
	bucket []byte
	seq    uint64
}

func (r ref) bytes() []byte {
	return binary.BigEndian.AppendUint64([]byte{r.bucket[0]}, r.seq)
}

func parseRef(value []byte) (ref, bool) {
	if len(value) != 9 {
		return ref{}, false
	}
	for _, name := range recordBuckets {
		if name[0] == value[0] {
			return ref{name, binary.BigEndian.Uint64(value[1:])}, true
		}
	}
	return ref{}, false
}

// find looks an attempt up; false when it is not there.
func find(tx *bbolt.Tx, key job.Key) (job.Record, ref, bool, error) {
	value := tx.Bucket(bucketIndex).Get(attemptID(key))
	if value == nil {
		return job.Record{}, ref{}, false, nil
	}
	rec, at, err := follow(tx, value)
	return rec, at, err == nil, err
}

// follow reads the record that an index entry points to.
func follow(tx *bbolt.Tx, entry []byte) (job.Record, ref, error) {
	at, ok := parseRef(entry)
	if !ok {
		return job.Record{}, ref{}, &damage{fmt.Errorf("index entry %x is none", entry)}
	}
	value := tx.Bucket(at.bucket).Get(seqKey(at.seq))
	if value == nil {
		return job.Record{}, ref{}, &damage{fmt.Errorf("%s %d is missing", at.bucket, at.seq)}
	}
	rec, err := decodeRecord(value)
	if err != nil {
		return rec, at, &damage{fmt.Errorf("%s %d: %w", at.bucket, at.seq, err)}
	}
	return rec, at, nil
}

// put writes a record, under a new number when it was nowhere or moves to another
// bucket, and returns where it lies now.
func put(tx *bbolt.Tx, rec job.Record, was *ref) (ref, error) {
	at := ref{bucket: bucketOf(rec.State)}
	if was != nil && string(was.bucket) == string(at.bucket) {
		at = *was
	} else {
		if was != nil {
			if err := tx.Bucket(was.bucket).Delete(seqKey(was.seq)); err != nil {
				return ref{}, err
			}
		}
		seq, err := tx.Bucket(at.bucket).NextSequence()
		if err != nil {
			return ref{}, err
		}
		at.seq = seq
		if err := tx.Bucket(bucketIndex).Put(attemptID(rec.Key()), at.bytes()); err != nil {
			return ref{}, err
		}
	}
	value, err := encodeRecord(rec)
	if err != nil {
		return ref{}, fmt.Errorf("encoding record: %w", err)
	}
	return at, tx.Bucket(at.bucket).Put(seqKey(at.seq), value)
}

// each reads a bucket's records, oldest first or newest first, until it is told to stop.
func each(tx *bbolt.Tx, bucket []byte, newestFirst bool, visit func(uint64, job.Record) (more bool, err error)) error {
	c := tx.Bucket(bucket).Cursor()
	first, next := c.First, c.Next
	if newestFirst {
		first, next = c.Last, c.Prev
	}
	for k, v := first(); k != nil; k, v = next() {
		if len(k) != 8 {
			return &damage{fmt.Errorf("%s: key %x is no number", bucket, k)}
		}
		seq := binary.BigEndian.Uint64(k)
		rec, err := decodeRecord(v)
		if err != nil {
			return &damage{fmt.Errorf("%s %d: %w", bucket, seq, err)}
		}
		if more, err := visit(seq, rec); err != nil || !more {
			return err
		}
	}
	return nil
}

// books are the counts kept in memory beside the file.
type books struct {
	stats  job.JournalStats
	unsent map[uint64]time.Time // number in the open bucket → when it was finished
}

// count adds n records in this state: 1 or -1.
func (b *books) count(rec job.Record, at ref, n int) {
	switch rec.State {
	case job.RecordAccepted, job.RecordRunning:
		b.stats.Unfinished += n
	case job.RecordResult:
		b.stats.Unsent += n
		if n < 0 {
			delete(b.unsent, at.seq)
		} else if rec.FinishedAt != nil {
			b.unsent[at.seq] = *rec.FinishedAt
		}
	case job.RecordSent:
		b.stats.Sent += n
	case job.RecordSuperseded:
		b.stats.Superseded += n
	case job.RecordDeadLetter:
		b.stats.DeadLetters += n
	}
}

// snapshot is the statistics as they stand.
func (b *books) snapshot() *job.JournalStats {
	s := b.stats
	for _, at := range b.unsent {
		if s.OldestAt == nil || at.Before(*s.OldestAt) {
			s.OldestAt = &at
		}
	}
	return &s
}

// audit reads everything and counts it. The error is *damage when something is not as
// the journal writes it.
func audit(tx *bbolt.Tx) (*books, error) {
	for _, name := range [][]byte{bucketMeta, bucketOpen, bucketSettled, bucketDead, bucketIndex} {
		if tx.Bucket(name) == nil {
			return nil, &damage{fmt.Errorf("bucket %s is missing", name)}
		}
	}
	if _, _, err := readSession(tx); err != nil {
		return nil, err
	}
	b := &books{unsent: make(map[uint64]time.Time)}
	index := tx.Bucket(bucketIndex)
	records := 0
	for _, name := range recordBuckets {
		var last uint64
		err := each(tx, name, false, func(seq uint64, rec job.Record) (bool, error) {
			at := ref{name, seq}
			switch {
			case string(bucketOf(rec.State)) != string(name):
				return false, &damage{fmt.Errorf("%s %d is in state %q", name, seq, rec.State)}
			case string(index.Get(attemptID(rec.Key()))) != string(at.bytes()):
				return false, &damage{fmt.Errorf("%s %d is not in the index", name, seq)}
			}
			b.count(rec, at, 1)
			records++
			last = seq
			return true, nil
		})
		if err != nil {
			return nil, err
		}
		if tx.Bucket(name).Sequence() < last {
			return nil, &damage{fmt.Errorf("%s counts from below its records", name)}
		}
	}
	entries := 0
	if err := index.ForEach(func(_, _ []byte) error { entries++; return nil }); err != nil {
		return nil, err
	}
	if entries != records {
		return nil, &damage{fmt.Errorf("%d records and %d index entries", records, entries)}
	}
	return b, nil
}

func readSession(tx *bbolt.Tx) (s messages.Session, found bool, err error) {
	value := tx.Bucket(bucketMeta).Get(keySession)
	if value == nil {
		return s, false, nil
	}
	s, err = decodeSession(value)
	if err != nil {
		return s, false, &damage{err}
	}
	return s, true, nil
}

func decodeSession(value []byte) (s messages.Session, err error) {
	doc, _, err := unseal(value)
	if err == nil {
		err = json.Unmarshal(doc, &s)
	}
	if err != nil {
		return s, fmt.Errorf("reading session: %w", err)
	}
	return s, nil
}

// damage is a file that is not as the journal wrote it.
type damage struct{ err error }

func (d *damage) Error() string { return "damaged: " + d.err.Error() }
func (d *damage) Unwrap() error { return d.err }

func isDamage(err error) bool {
	var d *damage
	return errors.As(err, &d)
}
