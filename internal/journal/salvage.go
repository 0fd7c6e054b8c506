package journal

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"ffmpeg-agent/messages/job"
)

// salvaged is what could be read of a damaged file.
type salvaged struct {
	records []located
	session []byte // its value; nil if there was none
}

// setAside puts a new file with the salvaged records in the place of the damaged one, which
// keeps its contents under another name. There is a file under the journal's name at any
// moment.
func (j *Journal) setAside(cause error) error {
	found, err := j.settings.inspector().salvage(j.path)
	if err != nil {
		return fmt.Errorf("reading what is left of it: %w", err)
	}
	fresh := j.path + ".new"
	saved, err := j.writeFresh(fresh, found)
	if err != nil {
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
	j.settings.Logger.Error("the journal was damaged: renamed it and copied the readable records to a new one; the others could not be recovered",
		zap.String("path", j.path), zap.String("set_aside_as", aside), zap.Error(cause),
		zap.Int("records_saved", len(saved.records)), zap.Int("records_readable", len(found.records)),
		zap.Bool("session_saved", saved.session != nil))
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
			// A file system without hard links. The lock on the data directory keeps other
			// agents from taking the name meanwhile.
			if _, err := os.Lstat(aside); err == nil {
				continue
			}
			return aside, os.Rename(path, aside)
		default:
			return "", err
		}
	}
}

// writeFresh creates a file with what was salvaged and returns what it holds. On a full
// disk it makes room of the damaged file's reserve, and as a last resort writes only
// attempts that are not settled, and the session.
func (j *Journal) writeFresh(path string, all salvaged) (salvaged, error) {
	err := j.createFrom(path, all)
	if !isFull(err) {
		return all, err
	}
	if err := releaseZeros(j.path); err != nil {
		j.settings.Logger.Warn("could not free the reserve of the damaged journal", zap.String("path", j.path), zap.Error(err))
	}
	if err = j.createFrom(path, all); !isFull(err) {
		return all, err
	}
	open := salvaged{session: all.session}
	for _, r := range all.records {
		if !r.rec.State.Settled() {
			open.records = append(open.records, r)
		}
	}
	return open, j.createFrom(path, open)
}

func (j *Journal) createFrom(path string, s salvaged) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openBolt(path, j.settings.boltOptions())
	if err != nil {
		return err
	}
	err = guard(func() error { return db.Update(s.write) })
	return errors.Join(withErrno(err), db.Close())
}

func (s salvaged) write(tx *bbolt.Tx) error {
	if err := migrate(tx); err != nil {
		return err
	}
	for _, r := range s.records {
		if _, err := put(tx, r.rec, nil); err != nil {
			return err
		}
	}
	if s.session == nil {
		return nil
	}
	return tx.Bucket(bucketMeta).Put(keySession, s.session)
}

// releaseZeros returns the blocks of a file that hold nothing but zeros to the file system.
// The file's contents and size stay as they are.
func releaseZeros(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	block := make([]byte, minReserve)
	zeros := make([]byte, minReserve)
	for offset := int64(0); ; offset += minReserve {
		n, err := file.ReadAt(block, offset)
		if n < len(block) { // the end, or unreadable
			return nil
		}
		if err == nil && bytes.Equal(block, zeros) {
			if err := deallocate(file, offset, minReserve); err != nil {
				return err
			}
		}
	}
}

// The directions in which a bucket is read.
const (
	forward  = "forward"
	backward = "backward"
)

// salvage reads what is sound in a damaged file, each bucket in a process of its own, since
// the file may crash it. Then the bucket is read once more from its end, up to the entry
// that did. If an attempt is found twice, the record that is further on counts.
func (i inspector) salvage(path string) (salvaged, error) {
	info, err := os.Stat(path)
	if err != nil {
		return salvaged{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), i.deadline(info.Size()))
	defer cancel()
	var session []byte
	found := make(map[string]located)
	for _, bucket := range append([][]byte{bucketMeta}, recordBuckets...) {
		each := func(e entry) {
			if string(bucket) == string(bucketMeta) {
				if _, err := decodeSession(e.Value); err == nil {
					session = e.Value
				}
				return
			}
			r, sound := decodeEntry(bucket, e)
			id := string(attemptID(r.rec.Key()))
			if other, twice := found[id]; sound && (!twice || progress(r.rec.State) > progress(other.rec.State)) {
				found[id] = r
			}
		}
		for _, direction := range []string{forward, backward} {
			v, err := i.run(ctx, each, inspectSalvage, path, string(bucket), direction)
			if err == nil && !isDamage(v.err()) {
				err = v.err()
			}
			if err == nil {
				break
			}
			if !isDamage(err) {
				return salvaged{}, err
			}
		}
	}
	records := make([]located, 0, len(found))
	for _, r := range found {
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b located) int {
		return cmp.Or(cmp.Compare(string(a.at.bucket), string(b.at.bucket)), cmp.Compare(a.at.seq, b.at.seq))
	})
	return salvaged{records, session}, nil
}

// decodeEntry decodes a record that may be damaged; false if it is, or is in a bucket where
// it does not belong.
func decodeEntry(bucket []byte, e entry) (located, bool) {
	rec, err := decodeRecord(e.Value)
	if err != nil || string(bucketOf(rec.State)) != string(bucket) || len(e.Key) != 8 {
		return located{}, false
	}
	return located{rec, location{bucket, binary.BigEndian.Uint64(e.Key)}, len(e.Value)}, true
}

// progress orders the states by how far on an attempt is.
func progress(s job.RecordState) int {
	return slices.Index([]job.RecordState{
		job.RecordAccepted, job.RecordRunning, job.RecordResult,
		job.RecordSuperseded, job.RecordDeadLetter, job.RecordSent,
	}, s)
}

// salvageBucket is the inspector's part: it reads one bucket of a damaged file, of the meta
// bucket the session. The error is *damage if the bucket cannot be read at all.
func salvageBucket(path, name, direction string, emit func(entry) error) error {
	db, err := openToInspect(path)
	if err != nil {
		return err
	}
	defer db.abandon()
	return guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket([]byte(name))
			switch {
			case bucket == nil:
				return damagef("bucket %s is missing", name)
			case name == string(bucketMeta):
				return emit(entry{keySession, bucket.Get(keySession)})
			}
			s := salvager{bucket.Cursor(), bucket.Sequence(), make(map[uint64]bool), emit}
			if direction == backward {
				return s.backward()
			}
			return s.forward()
		})
	})
}

// salvager reads what is readable of a damaged bucket of records.
type salvager struct {
	cursor *bbolt.Cursor
	last   uint64          // no record has a higher number
	seen   map[uint64]bool // numbers read so far
	emit   func(entry) error
}

// maxProbes bounds the keys that are looked for behind unreadable pages.
const maxProbes = 1 << 20

// forward reads from the first record. Behind a page that cannot be read it goes on at the
// first key that is found again: keys are numbers, and mostly consecutive.
func (s *salvager) forward() error {
	at, err := s.read(s.cursor.First, s.cursor.Next)
	for next := at; isDamage(err); {
		next = max(next, at) + 1
		if next > s.last || next > at+maxProbes {
			return nil
		}
		var reached uint64
		reached, err = s.read(func() (key, value []byte) { return s.cursor.Seek(seqKey(next)) }, s.cursor.Next)
		at = max(at, reached)
	}
	return err
}

// backward reads from the last record to the first page that cannot be read.
func (s *salvager) backward() error {
	_, err := s.read(s.cursor.Last, s.cursor.Prev)
	if isDamage(err) {
		return nil
	}
	return err
}

// read emits entries until there are no more, and returns the number of the last one. A
// number that comes again means that the pages lead back to themselves.
func (s *salvager) read(first, next func() (key, value []byte)) (at uint64, err error) {
	err = guard(func() error {
		for key, value := first(); key != nil; key, value = next() {
			if len(key) != 8 {
				continue
			}
			seq := binary.BigEndian.Uint64(key)
			if s.seen[seq] {
				return damagef("record %d comes again", seq)
			}
			if err := s.emit(entry{key, value}); err != nil {
				return err
			}
			s.seen[seq] = true
			if seq <= s.last {
				at = seq
			}
		}
		return nil
	})
	return at, err
}
