package journal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// The buckets. A record is in the bucket of its state, under a growing number: in order of
// acceptance while the attempt is open, in order of settlement afterwards.
var (
	bucketMeta    = []byte("meta")    // schema, session, renewals, baselines, probe
	bucketOpen    = []byte("open")    // number → record: accepted, running, result
	bucketSettled = []byte("settled") // number → record: sent, superseded
	bucketDead    = []byte("dead")    // number → record: dead letter
	bucketIndex   = []byte("index")   // attemptID → first letter of the bucket, number
	bucketSamples = []byte("samples") // attemptID → power over time

	recordBuckets = [][]byte{bucketOpen, bucketSettled, bucketDead}

	keySchema    = []byte("schema")
	keySession   = []byte("session")
	keyRenewals  = []byte("renewals")
	keyBaselines = []byte("baselines")
	keyProbe     = []byte("probe") // time of the last probe
)

// bucketOf returns the bucket for records in this state; nil for an unknown state.
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

// migrations lead from each schema to the next, the first from an empty file to schema 1.
// Their number is the newest schema.
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

// schemaOf returns the file's schema, 0 if it has none.
func schemaOf(tx *bbolt.Tx) (schema int, err error) {
	b := tx.Bucket(bucketMeta)
	if b == nil {
		return 0, nil
	}
	value := b.Get(keySchema)
	if value == nil {
		return 0, nil
	}
	doc, _, err := unseal(value)
	if err == nil {
		err = json.Unmarshal(doc, &schema)
	}
	if err != nil || schema < 0 {
		return 0, damagef("schema version unreadable: %.40q", value)
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

// checkSchema returns a *newerSchema for a schema newer than ours.
func checkSchema(schema int) error {
	if schema > len(migrations) {
		return &newerSchema{schema}
	}
	return nil
}

// newerSchema is ErrNewerSchema with the file's schema.
type newerSchema struct{ schema int }

func (e *newerSchema) Error() string {
	return fmt.Sprintf("%v: it has schema %d, this agent supports up to %d", ErrNewerSchema, e.schema, len(migrations))
}

func (e *newerSchema) Unwrap() error { return ErrNewerSchema }

// location is where a record is.
type location struct {
	bucket []byte
	seq    uint64
}

// located is a record with its location.
type located struct {
	rec  job.Record
	at   location
	size int // bytes in the file, its samples included
}

func (l location) bytes() []byte {
	return binary.BigEndian.AppendUint64([]byte{l.bucket[0]}, l.seq)
}

func parseLocation(value []byte) (location, bool) {
	if len(value) != 9 {
		return location{}, false
	}
	for _, name := range recordBuckets {
		if name[0] == value[0] {
			return location{name, binary.BigEndian.Uint64(value[1:])}, true
		}
	}
	return location{}, false
}

// find looks an attempt up; false if it is not in the journal.
func find(tx *bbolt.Tx, key job.Key) (located, bool, error) {
	value := tx.Bucket(bucketIndex).Get(attemptID(key))
	if value == nil {
		return located{}, false, nil
	}
	r, err := follow(tx, value)
	return r, err == nil, err
}

// follow reads the record that an index entry points to.
func follow(tx *bbolt.Tx, value []byte) (located, error) {
	at, ok := parseLocation(value)
	if !ok {
		return located{}, damagef("index entry %x is not a location", value)
	}
	value = tx.Bucket(at.bucket).Get(seqKey(at.seq))
	if value == nil {
		return located{}, damagef("%s %d is missing", at.bucket, at.seq)
	}
	rec, err := decodeRecord(value)
	if err != nil {
		return located{}, damagef("%s %d: %w", at.bucket, at.seq, err)
	}
	return located{rec, at, sizeOf(tx, rec, value)}, nil
}

// sizeOf is the size of a record's value and of its samples.
func sizeOf(tx *bbolt.Tx, rec job.Record, value []byte) int {
	samples := tx.Bucket(bucketSamples)
	if samples == nil { // only a damaged file has none
		return len(value)
	}
	return len(value) + len(samples.Get(attemptID(rec.Key())))
}

// put writes a record and returns where: at a new number if it had none or moves to another
// bucket.
func put(tx *bbolt.Tx, rec job.Record, from *location) (located, error) {
	at := location{bucket: bucketOf(rec.State)}
	if from != nil && string(from.bucket) == string(at.bucket) {
		at = *from
	} else {
		if from != nil {
			if err := tx.Bucket(from.bucket).Delete(seqKey(from.seq)); err != nil {
				return located{}, err
			}
		}
		seq, err := tx.Bucket(at.bucket).NextSequence()
		if err != nil {
			return located{}, err
		}
		at.seq = seq
		if err := tx.Bucket(bucketIndex).Put(attemptID(rec.Key()), at.bytes()); err != nil {
			return located{}, err
		}
	}
	value, err := encodeRecord(rec)
	if err != nil {
		return located{}, fmt.Errorf("encoding record: %w", err)
	}
	return located{rec, at, sizeOf(tx, rec, value)}, tx.Bucket(at.bucket).Put(seqKey(at.seq), value)
}

// each calls visit for a bucket's records in order until it returns false.
func each(tx *bbolt.Tx, bucket []byte, newestFirst bool, visit func(located) (more bool, err error)) error {
	c := tx.Bucket(bucket).Cursor()
	first, next := c.First, c.Next
	if newestFirst {
		first, next = c.Last, c.Prev
	}
	for k, v := first(); k != nil; k, v = next() {
		if len(k) != 8 {
			return damagef("%s: key %x is not a number", bucket, k)
		}
		seq := binary.BigEndian.Uint64(k)
		rec, err := decodeRecord(v)
		if err != nil {
			return damagef("%s %d: %w", bucket, seq, err)
		}
		if more, err := visit(located{rec, location{bucket, seq}, sizeOf(tx, rec, v)}); err != nil || !more {
			return err
		}
	}
	return nil
}

// totals are the counts of records, kept in memory beside the file.
type totals struct {
	stats  job.JournalStats
	unsent map[uint64]time.Time // number in the open bucket → when it was finished

	settledBytes, deadBytes int64
}

// add counts a record n times: 1 or -1.
func (t *totals) add(r located, n int) {
	switch string(r.at.bucket) {
	case string(bucketSettled):
		t.settledBytes += int64(n * r.size)
	case string(bucketDead):
		t.deadBytes += int64(n * r.size)
	}
	switch r.rec.State {
	case job.RecordAccepted, job.RecordRunning:
		t.stats.Unfinished += n
	case job.RecordResult:
		t.stats.Unsent += n
		if n < 0 {
			delete(t.unsent, r.at.seq)
		} else if r.rec.FinishedAt != nil {
			t.unsent[r.at.seq] = *r.rec.FinishedAt
		}
	case job.RecordSent:
		t.stats.Sent += n
	case job.RecordSuperseded:
		t.stats.Superseded += n
	case job.RecordDeadLetter:
		t.stats.DeadLetters += n
	}
}

// snapshot returns the present statistics.
func (t *totals) snapshot() *job.JournalStats {
	s := t.stats
	for _, at := range t.unsent {
		if s.OldestAt == nil || at.Before(*s.OldestAt) {
			s.OldestAt = &at
		}
	}
	return &s
}

// audit reads all records and counts them. The error is *damage if anything is not as the
// journal writes it.
func audit(tx *bbolt.Tx) (*totals, error) {
	for _, name := range [][]byte{bucketMeta, bucketOpen, bucketSettled, bucketDead, bucketIndex} {
		if tx.Bucket(name) == nil {
			return nil, damagef("bucket %s is missing", name)
		}
	}
	if _, _, err := readSession(tx); err != nil {
		return nil, err
	}
	t := &totals{unsent: make(map[uint64]time.Time)}
	index := tx.Bucket(bucketIndex)
	records := 0
	for _, name := range recordBuckets {
		var last uint64
		err := each(tx, name, false, func(r located) (bool, error) {
			switch {
			case string(bucketOf(r.rec.State)) != string(name):
				return false, damagef("%s %d is in state %q", name, r.at.seq, r.rec.State)
			case string(index.Get(attemptID(r.rec.Key()))) != string(r.at.bytes()):
				return false, damagef("%s %d is not in the index", name, r.at.seq)
			}
			t.add(r, 1)
			records++
			last = r.at.seq
			return true, nil
		})
		if err != nil {
			return nil, err
		}
		if sequence := tx.Bucket(name).Sequence(); sequence < last {
			return nil, damagef("%s: sequence %d is below record %d", name, sequence, last)
		}
	}
	entries := 0
	if err := index.ForEach(func(_, _ []byte) error { entries++; return nil }); err != nil {
		return nil, err
	}
	if entries != records {
		return nil, damagef("%d records and %d index entries", records, entries)
	}
	return t, nil
}

// readSession returns the saved session, false if there is none.
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
		return s, fmt.Errorf("decoding session: %w", err)
	}
	return s, nil
}
