package journal

import (
	"bytes"
	"encoding/binary"
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
	// versions holds the text of each record as it was at any time.
	versions map[string]bool
	// last holds the records that are in the file, by attempt.
	last map[string]job.Record
}

var makeSpecimen = sync.OnceValue(func() specimen {
	dir, err := os.MkdirTemp("", "journal")
	must(err)
	defer func() { _ = os.RemoveAll(dir) }()
	j, err := Open(Settings{Path: filepath.Join(dir, "journal.db"), noSync: true, KeepSettled: 20, Reserve: 1})
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

// text returns a record without its times, which differ between specimens.
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

// openBytes opens a journal with these contents and checks what must hold for any: it
// opens, each record in it was once written, it can be written and opened again, and if it
// reports damage the contents are kept. It returns the records by attempt.
func openBytes(t *testing.T, contents []byte) (records map[string]job.Record, setAside bool) {
	t.Helper()
	logs, seen := observer.New(zapcore.ErrorLevel)
	path := filepath.Join(t.TempDir(), "journal.db")
	ok(t, os.WriteFile(path, contents, 0o600))
	j := open(t, Settings{Path: path, noSync: true, Logger: zap.New(logs)})

	records = recordsOf(t, j)
	for key, rec := range records {
		if !makeSpecimen().versions[text(rec)] {
			t.Fatalf("%s: got %.300s, which was never written", key, text(rec))
		}
	}
	aside := setAsideOf(t, path)
	if len(aside) > 1 || seen.Len() != len(aside) {
		t.Fatalf("set aside as %q, and logged %v", aside, seen.All())
	}
	if len(aside) == 1 {
		kept, err := os.ReadFile(aside[0])
		ok(t, err)
		if !bytes.Equal(kept, contents) {
			t.Fatal("the file that was set aside has other contents")
		}
	}
	advance(t, j, "a later job", job.RecordSent)
	j = reopen(t, j)
	if again := setAsideOf(t, path); len(again) != len(aside) {
		t.Fatal("the journal found its new file damaged")
	}
	if got, want := len(recordsOf(t, j)), len(records)+1; got != want {
		t.Fatalf("got %d records, want %d", got, want)
	}
	ok(t, j.Close())
	return records, len(aside) == 1
}

func recordsOf(t *testing.T, j *Journal) map[string]job.Record {
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

// The parts of bbolt's page format at which the damage is aimed. A page begins with its id;
// at 8 are its flags, at 10 the number of elements, at 16 the elements.
const (
	pageHeader   = 16
	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
)

var order = binary.NativeEndian

// pagesOf returns the offsets of the pages of a kind that are or were in use.
func pagesOf(file []byte, flag uint16) (offsets []int) {
	page := os.Getpagesize()
	for at := 2 * page; at < len(file); at += page {
		if order.Uint16(file[at+8:]) == flag && order.Uint64(file[at:]) == uint64(at/page) {
			offsets = append(offsets, at)
		}
	}
	return offsets
}

// newestHeader returns the pages of the root and the free list.
func newestHeader(file []byte) (root, free uint64) {
	var newest uint64
	for _, page := range []int{0, os.Getpagesize()} {
		b := file[page+pageHeader:]
		if txn := order.Uint64(b[48:]); txn >= newest {
			root, free, newest = order.Uint64(b[16:]), order.Uint64(b[32:]), txn
		}
	}
	return root, free
}

func TestDamagedFileIsSetAside(t *testing.T) {
	t.Parallel()
	page := os.Getpagesize()
	whole := len(makeSpecimen().last)
	cases := []struct {
		name   string
		damage func([]byte) []byte
		// records that must be saved
		atLeast int
	}{
		{"text", func([]byte) []byte { return []byte("this is no journal\n") }, 0},
		{"one byte", func(b []byte) []byte { return b[:1] }, 0},
		{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }, 0},
		{"noise", func(b []byte) []byte { return noise(len(b)) }, 0},
		{"no header", func(b []byte) []byte { copy(b, make([]byte, 2*page)); return b }, 0},
		{"only headers", func(b []byte) []byte { return b[:2*page] }, 0},
		{"noise behind the headers", func(b []byte) []byte { copy(b[2*page:], noise(len(b))); return b }, 0},
		{"branches that lead to themselves", func(b []byte) []byte {
			for _, at := range pagesOf(b, flagBranch) {
				copy(b[at+pageHeader+8:], b[at:at+8])
			}
			return b
		}, whole / 2},
		{"elements that reach out of their page", func(b []byte) []byte {
			for _, at := range pagesOf(b, flagBranch) {
				order.PutUint32(b[at+pageHeader:], 1<<31)
			}
			return b
		}, whole / 2},
		{"a leaf of each bucket lost", func(b []byte) []byte {
			for _, at := range pagesOf(b, flagBranch) {
				second := int(order.Uint64(b[at+pageHeader+16+8:])) * page
				copy(b[second:second+page], make([]byte, page))
			}
			return b
		}, whole / 2},
		{"keys out of order", func(b []byte) []byte {
			for _, at := range pagesOf(b, flagLeaf) {
				if order.Uint16(b[at+10:]) < 2 {
					continue
				}
				first, second := b[at+pageHeader:], b[at+pageHeader+16:]
				a, z := first[order.Uint32(first[4:]):], second[order.Uint32(second[4:]):]
				if order.Uint32(first[8:]) == 8 && order.Uint32(second[8:]) == 8 {
					swapped := bytes.Clone(a[:8])
					copy(a, z[:8])
					copy(z, swapped)
				}
			}
			return b
		}, whole / 2},
		{"free list of another kind", func(b []byte) []byte {
			for _, at := range pagesOf(b, flagFreelist) {
				order.PutUint16(b[at+8:], flagLeaf)
			}
			return b
		}, whole},
		{"free list with a page in use", func(b []byte) []byte {
			root, free := newestHeader(b)
			order.PutUint64(b[int(free)*page+pageHeader:], root)
			return b
		}, whole},
		{"one record changed", func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte(`"id":"job-59"`), []byte(`"id":"job-58"`))
		}, whole - 1},
		{"one result changed", spoilResult, whole - 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			records, aside := openBytes(t, c.damage(bytes.Clone(makeSpecimen().bytes)))
			if !aside {
				t.Fatal("the file was not set aside")
			}
			if len(records) < c.atLeast {
				t.Fatalf("saved %d of %d records, want at least %d", len(records), whole, c.atLeast)
			}
			t.Logf("saved %d of %d records", len(records), whole)
		})
	}
}

// spoilResult replaces a result with another valid one.
func spoilResult(b []byte) []byte {
	return bytes.ReplaceAll(b, []byte(`"result_of":58`), []byte(`"result_of":85`))
}

func TestSoundFileIsKept(t *testing.T) {
	records, aside := openBytes(t, makeSpecimen().bytes)
	if aside {
		t.Fatal("the file was set aside")
	}
	same(t, makeSpecimen().last, records)

	// A crash between creating the file and writing to it leaves it empty.
	if _, aside := openBytes(t, nil); aside {
		t.Fatal("an empty file was set aside")
	}
}

// A torn write of one header leads back to the transaction before it.
func TestOneHeaderIsEnough(t *testing.T) {
	page := os.Getpagesize()
	for i := range 2 {
		b := bytes.Clone(makeSpecimen().bytes)
		copy(b[i*page+pageHeader:], noise(64))
		records, aside := openBytes(t, b)
		if aside {
			t.Fatal("the file was set aside")
		}
		if whole := len(makeSpecimen().last); len(records) < whole-1 {
			t.Fatalf("got %d records, want %d or one less", len(records), whole)
		}
	}
}

func TestTornHeaderIsLogged(t *testing.T) {
	for torn, want := range map[int]int{-1: 0, 0: 1, 1: 1} {
		b := bytes.Clone(makeSpecimen().bytes)
		if torn >= 0 {
			copy(b[torn*os.Getpagesize()+pageHeader:], noise(64))
		}
		logs, seen := observer.New(zapcore.WarnLevel)
		path := filepath.Join(t.TempDir(), "journal.db")
		ok(t, os.WriteFile(path, b, 0o600))
		open(t, Settings{Path: path, Logger: zap.New(logs)})
		if got := seen.FilterMessageSnippet("headers").Len(); got != want {
			t.Errorf("header %d torn: got %d warnings, want %d: %v", torn, got, want, seen.All())
		}
	}
}

func TestSalvageKeepsOrderAndSession(t *testing.T) {
	b := spoilResult(bytes.Clone(makeSpecimen().bytes))
	path := filepath.Join(t.TempDir(), "journal.db")
	ok(t, os.WriteFile(path, b, 0o600))
	ok(t, os.WriteFile(path+".new", noise(100), 0o600)) // left by an interrupted start
	j := open(t, Settings{Path: path})
	unfinished, err := j.Unfinished()
	ok(t, err)
	if got, want := keys(unfinished), "job-09#1 job-19#1 job-29#1 job-39#1 job-49#1 job-59#1"; got != want {
		t.Fatalf("got unfinished %s, want %s", got, want)
	}
	session, found, err := j.Session()
	ok(t, err)
	if !found || session.NodeID != "node-1" {
		t.Fatalf("got session %v, %+v, want node-1", found, session)
	}
}

// What a child does on a file that ends it depends on luck. What counts is that this
// process goes on.
func TestCrashedInspectorMeansDamage(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]Settings{
		"hangs":   {Inspector: []string{self, "hang"}, inspectWithin: 200 * time.Millisecond},
		"crashes": {Inspector: []string{"/bin/sh", "-c", `echo '{"started":true}'; kill -SEGV $$`}},
		"exits":   {Inspector: []string{"/bin/sh", "-c", `echo '{"started":true}'; exit 2`}},
		"babbles": {Inspector: []string{"/bin/sh", "-c", `echo '{"started":true}'; echo nonsense`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.Path = filepath.Join(t.TempDir(), "journal.db")
			ok(t, os.WriteFile(s.Path, makeSpecimen().bytes, 0o600))
			j := open(t, s)
			advance(t, j, "job", job.RecordSent)
			if aside := setAsideOf(t, s.Path); len(aside) != 1 {
				t.Errorf("got %d files set aside, want 1", len(aside))
			}
		})
	}
}

// A failure of the inspector that says nothing of the file must not have it set aside.
func TestFailedInspectorLeavesFile(t *testing.T) {
	t.Parallel()
	for name, command := range map[string][]string{
		"is missing":        {"/nonexistent"},
		"does not start":    {self, "refuse"},
		"is killed":         {self, "be killed"},
		"is something else": {"/bin/true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "journal.db")
			ok(t, os.WriteFile(path, makeSpecimen().bytes, 0o600))
			_, err := Open(Settings{Path: path, Inspector: command})
			if err == nil || isDamage(err) || !strings.Contains(err.Error(), "inspector") {
				t.Errorf("got %v, want an error of the inspector", err)
			}
			after, err := os.ReadFile(path)
			ok(t, err)
			if !bytes.Equal(after, makeSpecimen().bytes) || len(setAsideOf(t, path)) != 0 {
				t.Error("the file was touched")
			}
		})
	}
}

// The inspector's findings reach the caller, whatever they are.
func TestVerdictErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	ok(t, os.WriteFile(path, makeSpecimen().bytes, 0o600))
	db, err := bbolt.Open(path, 0o600, nil) // another process with the file open
	ok(t, err)
	if err := (Settings{Inspector: []string{self, "inspect"}}).withDefaults().inspector().check(path); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	ok(t, db.Close())
	if err := (verdict{Error: "opening", Errno: 5}).err(); err == nil || isDamage(err) || !strings.HasSuffix(err.Error(), "input/output error") {
		t.Errorf("got %v, want an input/output error", err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
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
	inspector := []string{self, "inspect"}
	if _, err := Open(Settings{Path: path, Inspector: inspector}); !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v, want ErrNewerSchema", err)
	}
	if _, err := OpenReadOnly(path, inspector); !errors.Is(err, ErrNewerSchema) {
		t.Fatalf("read-only: got %v, want ErrNewerSchema", err)
	}
	after, err := os.ReadFile(path)
	ok(t, err)
	if !bytes.Equal(before, after) || len(setAsideOf(t, path)) != 0 {
		t.Fatal("the file of a newer agent was touched")
	}
}

func TestEmptyDatabaseIsMigrated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	db, err := bbolt.Open(path, 0o600, nil)
	ok(t, err)
	ok(t, db.Close())
	j := open(t, Settings{Path: path})
	advance(t, j, "job", job.RecordSent)
	if aside := setAsideOf(t, path); len(aside) != 0 {
		t.Fatalf("set aside as %q", aside)
	}
}

func TestReaderDoesNotTouchADamagedFile(t *testing.T) {
	for name, contents := range map[string][]byte{
		"noise":          noise(50_000),
		"spoiled record": spoilResult(bytes.Clone(makeSpecimen().bytes)),
	} {
		path := filepath.Join(t.TempDir(), "journal.db")
		ok(t, os.WriteFile(path, contents, 0o600))
		if _, err := OpenReadOnly(path, []string{self, "inspect"}); !isDamage(err) {
			t.Fatalf("%s: got %v, want damage", name, err)
		}
		after, err := os.ReadFile(path)
		ok(t, err)
		if !bytes.Equal(contents, after) || len(setAsideOf(t, path)) != 0 {
			t.Fatalf("%s: the file was touched", name)
		}
	}
}

func TestFolderInPlaceOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	ok(t, os.Mkdir(path, 0o700))
	if _, err := Open(Settings{Path: path}); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v, want an error that names %s", err, path)
	}
}

// Reading a mapped page that the disk no longer has is a fault that would end the process.
func TestFileThatBreaksWhileInUse(t *testing.T) {
	breaks := map[string]func(*testing.T, string){
		"truncated": func(t *testing.T, path string) { ok(t, os.Truncate(path, int64(2*os.Getpagesize()))) },
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
				advance(t, j, fmt.Sprint("job-", i), job.RecordSent)
			}
			breakIt(t, j.path)
			if _, err := j.Settled(0); err == nil {
				t.Fatal("read records that are not in the file")
			}
			advance(t, j, "after", job.RecordResult) // in a new file
			if unsent, err := j.Unsent(); err != nil || keys(unsent) != "after#1" {
				t.Fatalf("got unsent %s, %v, want after#1", keys(unsent), err)
			}
			if aside := setAsideOf(t, j.path); len(aside) != 1 {
				t.Fatalf("got %d files set aside, want 1", len(aside))
			}
			reopen(t, j)
		})
	}
}

func TestFilesSetAsideAreNotOverwritten(t *testing.T) {
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
			t.Fatalf("%s was overwritten", aside)
		}
	}
	if len(names) != 3 {
		t.Fatalf("got names %v, want 3", names)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func FuzzOpen(f *testing.F) {
	for _, contents := range []string{"text", "0", "1b1"} {
		f.Add([]byte(contents))
	}
	f.Add(makeSpecimen().bytes)
	f.Fuzz(func(t *testing.T, contents []byte) { openBytes(t, contents) })
}

// FuzzPatchedFile changes a sound file in one place, with resum below the headers'
// checksums.
func FuzzPatchedFile(f *testing.F) {
	page := uint32(os.Getpagesize())
	f.Add(uint32(0), []byte{1}, false)
	f.Add(page+16+40, []byte{3}, true)
	f.Add(uint32(16+8), []byte{0, 0, 0x70, 0}, true) // another page size
	f.Add(uint32(65), []byte{0, 0, 0x70, 0}, true)
	f.Add(2*page+10, []byte{0xff, 0xff}, false)
	f.Add(2*page+10, []byte("7&"), false)
	f.Add(uint32(309564), []byte("j\xe6x?O\xbd\xe9\x1bn"), false)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 8 {
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
	f.Add([]byte("00000000\n2xa"))
	f.Fuzz(func(t *testing.T, value []byte) {
		rec, err := decodeRecord(value)
		if err != nil {
			// As a result with the right checksum the same bytes must survive.
			sealed, err := seal(json.RawMessage(`{}`), value)
			ok(t, err)
			rec, err := decodeRecord(sealed)
			ok(t, err)
			if string(rec.Result) != string(value) {
				t.Fatalf("got result %q, want %q", rec.Result, value)
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
