package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// specimen is a journal file with a history.
type specimen struct {
	bytes []byte
	// versions holds each record as it was at any time, by its text.
	versions map[string]bool
	// last holds the records as they stand in the file, by attempt.
	last map[string]job.Record
}

var makeSpecimen = sync.OnceValue(func() specimen {
	dir, err := os.MkdirTemp("", "journal")
	must(err)
	defer func() { _ = os.RemoveAll(dir) }()
	j, err := Open(Settings{Path: filepath.Join(dir, "journal.db"), noSync: true, KeepSettled: 20})
	must(err)
	s := specimen{versions: make(map[string]bool), last: make(map[string]job.Record)}
	note := func(key job.Key) {
		rec, _, err := j.Record(key)
		must(err)
		s.versions[text(rec)] = true
		s.last[key.String()] = rec
	}
	must(j.SaveSession(messages.Session{NodeID: "node-1"}))
	for i := range 60 {
		l := lease(fmt.Sprintf("job-%02d", i), 1)
		key := l.Key()
		_, err := j.Accept(l)
		must(err)
		note(key)
		must(j.Running(key, job.Process{PID: i}))
		note(key)
		if i%10 == 9 {
			continue // stays unfinished
		}
		must(j.Finish(key, fmt.Appendf(nil, `{"result_of":%d,"logs":%q}`, i, strings.Repeat("x", i*150)), false))
		note(key)
		if i%10 == 8 {
			continue // stays unsent
		}
		must(j.Settle(key, []job.RecordState{job.RecordSent, job.RecordSuperseded, job.RecordDeadLetter}[i%3], "why"))
		note(key)
	}
	for key, rec := range s.last {
		if _, known, _ := j.Record(rec.Key()); !known {
			delete(s.last, key)
		}
	}
	must(j.Close())
	s.bytes, err = os.ReadFile(j.path)
	must(err)
	return s
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// text is a record without its times, which differ from one specimen to the next.
func text(rec job.Record) string {
	result := string(rec.Result)
	rec.Result = nil
	rec.Lease.AcquiredAt, rec.AcceptedAt = time.Time{}, time.Time{}
	for _, at := range []**time.Time{&rec.StartedAt, &rec.FinishedAt, &rec.SettledAt} {
		if *at != nil {
			*at = new(time.Time)
		}
	}
	b, err := json.Marshal(rec)
	must(err)
	return string(b) + result
}

// openBytes opens a journal with these contents and checks what must hold for any:
// it opens, what it still has was once written, it works on, and where it says that
// the file was damaged the bytes are kept. It returns the records by attempt.
func openBytes(t *testing.T, contents []byte) (records map[string]job.Record, setAside bool) {
	t.Helper()
	logs, seen := observer.New(zapcore.ErrorLevel)
	path := filepath.Join(t.TempDir(), "journal.db")
	ok(t, os.WriteFile(path, contents, 0o600))
	j := open(t, Settings{Path: path, noSync: true, Logger: zap.New(logs)})

	records = allOf(t, j)
	for key, rec := range records {
		if !makeSpecimen().versions[text(rec)] {
			t.Fatalf("%s never was %.300s", key, text(rec))
		}
	}
	aside := setAsideOf(t, path)
	if len(aside) > 1 || seen.Len() != len(aside) {
		t.Fatalf("set aside as %q, and said %v", aside, seen.All())
	}
	if len(aside) == 1 {
		kept, err := os.ReadFile(aside[0])
		ok(t, err)
		if !bytes.Equal(kept, contents) {
			t.Fatal("what was set aside is not what was there")
		}
	}
	bring(t, j, "a job that comes later", job.RecordSent)
	j = reopen(t, j)
	if again := setAsideOf(t, path); len(again) != len(aside) {
		t.Fatal("the journal found its own file damaged")
	}
	if got := len(allOf(t, j)); got != len(records)+1 {
		t.Fatalf("%d records after %d and another one", got, len(records))
	}
	ok(t, j.Close())
	return records, len(aside) == 1
}

func allOf(t *testing.T, j *Journal) map[string]job.Record {
	t.Helper()
	all := make(map[string]job.Record)
	for _, list := range []func() ([]job.Record, error){
		j.Unfinished, j.Unsent,
		func() ([]job.Record, error) { return j.Settled(0) },
		func() ([]job.Record, error) { return j.DeadLetters(0) },
	} {
		records, err := list()
		ok(t, err)
		for _, rec := range records {
			all[rec.Key().String()] = rec
		}
	}
	return all
}

func setAsideOf(t *testing.T, path string) []string {
	t.Helper()
	found, err := filepath.Glob(path + ".damaged-*")
	ok(t, err)
	return found
}

func TestADamagedFileIsSetAside(t *testing.T) {
	t.Parallel()
	page := os.Getpagesize()
	whole := len(makeSpecimen().last)
	// pagesOf finds the pages of a kind that are in use or were.
	pagesOf := func(b []byte, flag uint16) (offsets []int) {
		for off := 2 * page; off < len(b); off += page {
			if order.Uint16(b[off+8:]) == flag && order.Uint64(b[off:]) == uint64(off/page) {
				offsets = append(offsets, off)
			}
		}
		return offsets
	}
	cases := []struct {
		name   string
		damage func([]byte) []byte
		// records that must still be there
		atLeast int
	}{
		{"text", func([]byte) []byte { return []byte("this is no journal\n") }, 0},
		{"one byte", func(b []byte) []byte { return b[:1] }, 0},
		{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }, 0},
		{"noise", func(b []byte) []byte { return noise(len(b)) }, 0},
		{"both headers gone", func(b []byte) []byte { copy(b, make([]byte, 2*page)); return b }, 0},
		{"only headers left", func(b []byte) []byte { return b[:2*page] }, 0},
		{"noise behind the headers", func(b []byte) []byte { copy(b[2*page:], noise(len(b))); return b }, 0},
		{"branches that lead back to themselves", func(b []byte) []byte {
			for _, off := range pagesOf(b, flagBranch) {
				copy(b[off+pageHeader+8:], b[off:off+8])
			}
			return b
		}, whole / 2},
		{"elements that reach out of their page", func(b []byte) []byte {
			for _, off := range pagesOf(b, flagBranch) {
				order.PutUint32(b[off+pageHeader:], 1<<31)
			}
			return b
		}, whole / 2},
		{"free list of another kind", func(b []byte) []byte {
			for _, off := range pagesOf(b, flagFreelist) {
				order.PutUint16(b[off+8:], flagLeaf)
			}
			return b
		}, whole},
		{"free list that frees what is used", func(b []byte) []byte {
			h, _, err := currentHeader(bytes.NewReader(b))
			ok(t, err)
			free := b[int(h.free)*page:]
			order.PutUint64(free[pageHeader:], h.root)
			return b
		}, whole},
		{"one record changed", func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte(`"id":"job-59"`), []byte(`"id":"job-58"`))
		}, whole - 1},
		{"one result changed", func(b []byte) []byte {
			return spoilResult(b)
		}, whole - 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			records, aside := openBytes(t, c.damage(bytes.Clone(makeSpecimen().bytes)))
			if !aside {
				t.Fatal("taken for sound")
			}
			if len(records) < c.atLeast {
				t.Fatalf("saved %d records of %d, want %d", len(records), whole, c.atLeast)
			}
			t.Logf("saved %d records of %d", len(records), whole)
		})
	}
}

// spoilResult changes one result to another that is JSON as well.
func spoilResult(b []byte) []byte {
	return bytes.ReplaceAll(b, []byte(`"result_of":58`), []byte(`"result_of":85`))
}

func TestASoundFileIsLeftAlone(t *testing.T) {
	records, aside := openBytes(t, makeSpecimen().bytes)
	if aside {
		t.Fatal("set aside")
	}
	same(t, makeSpecimen().last, records)

	// A file that was made and never written, by a crash in its first moment.
	if _, aside := openBytes(t, nil); aside {
		t.Fatal("set aside")
	}
}

// A write that was torn in one header leads back to the transaction before it.
func TestOneHeaderIsEnough(t *testing.T) {
	page := os.Getpagesize()
	for i := range 2 {
		b := bytes.Clone(makeSpecimen().bytes)
		copy(b[i*page+pageHeader:], noise(64))
		records, aside := openBytes(t, b)
		if aside {
			t.Fatal("set aside")
		}
		if whole := len(makeSpecimen().last); len(records) < whole-1 {
			t.Fatalf("%d records of %d", len(records), whole)
		}
	}
}

func TestRecordsGoOnInTheirOrder(t *testing.T) {
	b := spoilResult(makeSpecimen().bytes)
	path := filepath.Join(t.TempDir(), "journal.db")
	ok(t, os.WriteFile(path, b, 0o600))
	ok(t, os.WriteFile(path+".new", noise(100), 0o600)) // an earlier start came no further
	j := open(t, Settings{Path: path})
	unfinished, err := j.Unfinished()
	ok(t, err)
	if got := keys(unfinished); got != "job-09#1 job-19#1 job-29#1 job-39#1 job-49#1 job-59#1" {
		t.Fatal(got)
	}
	session, found, err := j.Session()
	ok(t, err)
	if !found || session.NodeID != "node-1" {
		t.Fatalf("session %v, %+v", found, session)
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	ok(t, open(t, Settings{Path: path}).Close())
	db, err := bbolt.Open(path, 0o600, nil)
	ok(t, err)
	ok(t, db.Update(func(tx *bbolt.Tx) error {
		value, err := seal(len(migrations)+1, nil)
		return errors.Join(err, tx.Bucket(bucketMeta).Put(keySchema, value), tx.DeleteBucket(bucketOpen))
	}))
	ok(t, db.Close())
	before, err := os.ReadFile(path)
	ok(t, err)
	if _, err := Open(Settings{Path: path}); !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), path) {
		t.Fatalf("opened: %v", err)
	}
	if _, err := OpenReadOnly(path); !errors.Is(err, ErrNewerSchema) {
		t.Fatalf("opened to read: %v", err)
	}
	after, err := os.ReadFile(path)
	ok(t, err)
	if !bytes.Equal(before, after) || len(setAsideOf(t, path)) != 0 {
		t.Fatal("a file that is not ours was touched")
	}
}

func TestAnEmptyDatabaseIsMigrated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	db, err := bbolt.Open(path, 0o600, nil)
	ok(t, err)
	ok(t, db.Close())
	j := open(t, Settings{Path: path})
	bring(t, j, "job", job.RecordSent)
	if len(setAsideOf(t, path)) != 0 {
		t.Fatal("set aside")
	}
}

func TestReadingDoesNotTouchADamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	contents := noise(50_000)
	ok(t, os.WriteFile(path, contents, 0o600))
	if _, err := OpenReadOnly(path); !isDamage(err) {
		t.Fatalf("got %v", err)
	}
	after, err := os.ReadFile(path)
	ok(t, err)
	if !bytes.Equal(contents, after) || len(setAsideOf(t, path)) != 0 {
		t.Fatal("touched")
	}
}

// What is not a file can be neither read nor set aside.
func TestNoFileAtAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	ok(t, os.Mkdir(path, 0o700))
	if _, err := Open(Settings{Path: path}); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v", err)
	}
}

// The disk takes pages away below the mapped file: reading them is a fault that
// would end the process.
func TestAFileThatBreaksWhileInUse(t *testing.T) {
	breaks := map[string]func(*testing.T, string){
		"cut": func(t *testing.T, path string) { ok(t, os.Truncate(path, int64(2*os.Getpagesize()))) },
		"overwritten": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			ok(t, err)
			info, err := f.Stat()
			ok(t, err)
			_, err = f.WriteAt(noise(int(info.Size())-2*os.Getpagesize()), int64(2*os.Getpagesize()))
			ok(t, errors.Join(err, f.Close()))
		},
	}
	for name, breakIt := range breaks {
		t.Run(name, func(t *testing.T) {
			j := open(t, Settings{})
			for i := range 30 {
				bring(t, j, fmt.Sprint("job-", i), job.RecordSent)
			}
			breakIt(t, j.path)
			if _, err := j.Settled(0); err == nil {
				t.Fatal("read what is not there")
			}
			bring(t, j, "after", job.RecordResult) // on a fresh file
			if unsent, err := j.Unsent(); err != nil || keys(unsent) != "after#1" {
				t.Fatalf("unsent %s, %v", keys(unsent), err)
			}
			if len(setAsideOf(t, j.path)) != 1 {
				t.Fatal("not set aside")
			}
			reopen(t, j)
		})
	}
}

func TestNoFileSetAsideIsOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	names := make(map[string]bool)
	for i := range 3 {
		ok(t, os.WriteFile(path, []byte{byte(i)}, 0o600))
		aside, err := keepAside(path)
		ok(t, err)
		ok(t, os.Remove(path))
		names[aside] = true
		contents, err := os.ReadFile(aside)
		ok(t, err)
		if contents[0] != byte(i) {
			t.Fatal("overwritten")
		}
	}
	if len(names) != 3 {
		t.Fatalf("names %v", names)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("text"))
	f.Add(makeSpecimen().bytes)
	f.Fuzz(func(t *testing.T, contents []byte) { openBytes(t, contents) })
}

// FuzzPatchedFile changes a sound file in one place, below the headers' checksums too.
func FuzzPatchedFile(f *testing.F) {
	page := uint32(os.Getpagesize())
	f.Add(uint32(0), []byte{1}, false)
	f.Add(page+16+40, []byte{3}, true)
	f.Add(uint32(16+8), []byte{0, 0, 0x70, 0}, true) // pages of another size
	f.Add(2*page+10, []byte{0xff, 0xff}, false)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 25 {
		f.Add(rnd.Uint32N(uint32(len(makeSpecimen().bytes))), noise(1+rnd.IntN(40)), rnd.IntN(2) == 0)
	}
	f.Fuzz(func(t *testing.T, offset uint32, patch []byte, resum bool) {
		b := bytes.Clone(makeSpecimen().bytes)
		copy(b[int(offset)%len(b):], patch)
		if resum {
			for _, h := range [][]byte{b[pageHeader:], b[int(page)+pageHeader:]} {
				sum := fnv.New64a()
				sum.Write(h[:56])
				order.PutUint64(h[56:], sum.Sum64())
			}
		}
		openBytes(t, b)
	})
}

func FuzzDecodeRecord(f *testing.F) {
	for _, key := range []string{"job-58#1", "job-59#1", "job-57#1"} {
		value, err := encodeRecord(makeSpecimen().last[key])
		must(err)
		f.Add(value)
	}
	f.Add([]byte("00000000\n\n"))
	f.Fuzz(func(t *testing.T, value []byte) {
		rec, err := decodeRecord(value)
		if err != nil {
			// The same with a sum that fits: what is behind it must stand alone.
			again, err := seal(json.RawMessage(`{}`), value)
			ok(t, err)
			rec, err := decodeRecord(again)
			ok(t, err)
			if string(rec.Result) != string(value) {
				t.Fatal("the result's bytes have changed")
			}
			return
		}
		again, err := encodeRecord(rec)
		ok(t, err)
		second, err := decodeRecord(again)
		ok(t, err)
		same(t, rec, second)
	})
}
