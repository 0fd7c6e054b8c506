package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

var _ actors.Journal = (*Journal)(nil)

func TestAttemptLifecycle(t *testing.T) {
	j := open(t, Settings{})
	l := lease("job-1", 2)
	key := l.Key()

	rec, err := j.Accept(l)
	ok(t, err)
	if rec.State != job.RecordAccepted || rec.AcceptedAt.IsZero() || rec.Key() != key {
		t.Fatalf("accepted: %+v", rec)
	}
	same(t, rec, record(t, j, key))

	p := job.Process{PID: 4711, StartTicks: 99, BootID: "boot", Cgroup: "/sys/fs/cgroup/x"}
	ok(t, j.Running(key, p))
	rec = record(t, j, key)
	if rec.State != job.RecordRunning || rec.StartedAt == nil || *rec.Process != p {
		t.Fatalf("running: %+v", rec)
	}

	// Spaces, newlines and characters that a JSON encoder escapes must come back unchanged.
	result := []byte("{ \"job_id\":\"job-1\",\n \"error\":\"a<b && c>d\" }\n")
	ok(t, j.Finish(key, result, false))
	rec = record(t, j, key)
	if rec.State != job.RecordResult || rec.FinishedAt == nil || string(rec.Result) != string(result) {
		t.Fatalf("finished: %+v", rec)
	}

	ok(t, j.Settle(key, job.RecordSent, "taken"))
	rec = record(t, j, key)
	if rec.State != job.RecordSent || rec.SettledAt == nil || rec.Why != "taken" || string(rec.Result) != string(result) {
		t.Fatalf("settled: %+v", rec)
	}
	if *rec.Process != p || rec.StartedAt == nil || rec.FinishedAt == nil {
		t.Fatalf("settling lost earlier fields: %+v", rec)
	}

	j = reopen(t, j)
	same(t, rec, record(t, j, key))
}

// Each operation in each state: the next state, or the error.
func TestStatesMoveOnlyForward(t *testing.T) {
	const (
		accepted   = job.RecordAccepted
		running    = job.RecordRunning
		result     = job.RecordResult
		sent       = job.RecordSent
		superseded = job.RecordSuperseded
		dead       = job.RecordDeadLetter
	)
	operations := map[string]func(*Journal, job.Key) error{
		"running":    func(j *Journal, k job.Key) error { return j.Running(k, job.Process{PID: 7}) },
		"finish":     func(j *Journal, k job.Key) error { return j.Finish(k, []byte(`"second"`), true) },
		"sent":       func(j *Journal, k job.Key) error { return j.Settle(k, sent, "again") },
		"superseded": func(j *Journal, k job.Key) error { return j.Settle(k, superseded, "again") },
		"dead":       func(j *Journal, k job.Key) error { return j.Settle(k, dead, "again") },
		"settled as running": func(j *Journal, k job.Key) error {
			return j.Settle(k, running, "again")
		},
	}
	const unchanged = job.RecordState("unchanged")
	const refused = job.RecordState("refused")
	cases := []struct {
		from job.RecordState
		want map[string]job.RecordState
	}{
		{"", map[string]job.RecordState{}},
		{accepted, map[string]job.RecordState{"running": running, "finish": result, "superseded": superseded}},
		{running, map[string]job.RecordState{"running": running, "finish": result, "superseded": superseded}},
		{result, map[string]job.RecordState{"finish": unchanged, "sent": sent, "superseded": superseded, "dead": dead}},
		{sent, map[string]job.RecordState{"finish": unchanged, "sent": unchanged}},
		{superseded, map[string]job.RecordState{"finish": unchanged, "superseded": unchanged}},
		{dead, map[string]job.RecordState{"finish": unchanged, "dead": unchanged}},
	}
	j := open(t, Settings{noSync: true})
	for _, c := range cases {
		for name, operate := range operations {
			want, allowed := c.want[name]
			if !allowed {
				want = refused
			}
			t.Run(fmt.Sprintf("%s on %q", name, c.from), func(t *testing.T) {
				key := advance(t, j, fmt.Sprintf("%s-%s", c.from, name), c.from)
				before, known, err := j.Record(key)
				ok(t, err)
				err = operate(j, key)
				after, _, err2 := j.Record(key)
				ok(t, err2)
				switch want {
				case refused:
					wantErr := ErrOrder
					if !known {
						wantErr = job.ErrUnknownAttempt
					}
					if !errors.Is(err, wantErr) {
						t.Fatalf("got %v, want %v", err, wantErr)
					}
					same(t, before, after)
				case unchanged:
					ok(t, err)
					same(t, before, after)
				default:
					ok(t, err)
					if after.State != want {
						t.Fatalf("got state %s, want %s", after.State, want)
					}
				}
			})
		}
	}
}

func TestAcceptIsIdempotent(t *testing.T) {
	j := open(t, Settings{})
	for _, state := range []job.RecordState{job.RecordAccepted, job.RecordRunning, job.RecordResult, job.RecordSent} {
		key := advance(t, j, string(state), state)
		before := record(t, j, key)
		other := lease(key.JobID, key.Attempt)
		other.NodeID = "another node"
		rec, err := j.Accept(other)
		ok(t, err)
		same(t, before, rec)
		same(t, before, record(t, j, key))
	}
}

func TestAttemptsOfAJobAreSeparate(t *testing.T) {
	j := open(t, Settings{})
	for _, attempt := range []int{2, 1, 11} {
		_, err := j.Accept(lease("job", attempt))
		ok(t, err)
	}
	_, err := j.Accept(lease("job2", 1))
	ok(t, err)
	ok(t, j.Finish(job.Key{JobID: "job", Attempt: 2}, []byte(`{}`), false))
	records, err := j.Find("job")
	ok(t, err)
	if got := keys(records); got != "job#1 job#2 job#11" {
		t.Fatalf("got %s, want the newest attempt last", got)
	}
	if records[0].State != job.RecordAccepted || records[1].State != job.RecordResult {
		t.Fatalf("got states %s and %s, want accepted and result", records[0].State, records[1].State)
	}
	records, err = j.Find("jo")
	ok(t, err)
	if len(records) != 0 {
		t.Fatalf("got %s for a prefix of an id, want none", keys(records))
	}
}

// TestTransferKeepsWhatTheAttemptDid: its process stays known for the next start, and the mark
// of the re-queueing belongs to the old lease.
func TestTransferKeepsWhatTheAttemptDid(t *testing.T) {
	j := open(t, Settings{})
	key := advance(t, j, "job", job.RecordRunning)
	ok(t, j.Requeued(key))
	before := record(t, j, key)
	if !before.Requeued {
		t.Fatal("the re-queueing is not recorded")
	}
	to := lease("job", key.Attempt+1)
	ok(t, j.Transfer(key, to))
	j = reopen(t, j)
	if _, found, err := j.Record(key); err != nil || found {
		t.Errorf("the old key still has a record (%v)", err)
	}
	want := before
	want.Lease, want.Requeued = to, false
	same(t, want, record(t, j, to.Key()))
}

func TestListsAreOldestFirst(t *testing.T) {
	j := open(t, Settings{})
	for _, id := range []string{"c", "a", "d", "b", "e"} {
		_, err := j.Accept(lease(id, 1))
		ok(t, err)
	}
	for _, id := range []string{"b", "c"} { // finished in reverse order
		ok(t, j.Finish(keyOf(id), []byte(`{}`), false))
	}
	ok(t, j.Running(job.Key{JobID: "d", Attempt: 1}, job.Process{PID: 1}))
	j = reopen(t, j)
	unfinished, err := j.Unfinished()
	ok(t, err)
	unsent, err := j.Unsent()
	ok(t, err)
	if keys(unfinished) != "a#1 d#1 e#1" || keys(unsent) != "c#1 b#1" {
		t.Fatalf("got unfinished %s, unsent %s", keys(unfinished), keys(unsent))
	}
	for _, id := range []string{"b", "c"} {
		ok(t, j.Settle(keyOf(id), job.RecordSent, ""))
	}
	settled, err := j.Settled(0)
	ok(t, err)
	newest, err := j.Settled(1)
	ok(t, err)
	if keys(settled) != "c#1 b#1" || keys(newest) != "c#1" {
		t.Fatalf("got settled %s, newest %s", keys(settled), keys(newest))
	}
}

func TestAnyJobIDIsAccepted(t *testing.T) {
	j := open(t, Settings{})
	for _, id := range []string{"", "ä/../\x00\n#1", strings.Repeat("long", 30_000), "broken \xff\xfe utf-8"} {
		key := keyOf(id)
		_, err := j.Accept(lease(id, 1))
		ok(t, err)
		ok(t, j.Finish(key, []byte(`{}`), false))
		j = reopen(t, j)
		if rec := record(t, j, key); rec.State != job.RecordResult {
			t.Errorf("%.20q: got state %s, want result", id, rec.State)
		}
		records, err := j.Find(id)
		ok(t, err)
		if len(records) != 1 {
			t.Errorf("%.20q: found %d records, want 1", id, len(records))
		}
	}
}

func TestResultMustBeJSON(t *testing.T) {
	j := open(t, Settings{})
	key := advance(t, j, "job", job.RecordRunning)
	for _, bad := range []string{"", "{", "{} {}", "nonsense"} {
		if err := j.Finish(key, []byte(bad), false); err == nil {
			t.Errorf("result %q: got no error", bad)
		}
	}
	if rec := record(t, j, key); rec.State != job.RecordRunning {
		t.Fatalf("got state %s, want running", rec.State)
	}
	ok(t, j.Finish(key, nil, true)) // a release needs no result
	if rec := record(t, j, key); !rec.Release || rec.Result != nil {
		t.Fatalf("got %+v, want a release without result", rec)
	}
}

func TestSessionIsKept(t *testing.T) {
	j := open(t, Settings{})
	if _, found, err := j.Session(); found || err != nil {
		t.Fatalf("new journal: got session %v, %v", found, err)
	}
	want := messages.Session{NodeID: "n1", Address: "host", Master: "http://m:1", Since: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	ok(t, j.SaveSession(messages.Session{NodeID: "old"}))
	ok(t, j.SaveSession(want))
	j = reopen(t, j)
	got, found, err := j.Session()
	ok(t, err)
	if !found {
		t.Fatal("no session")
	}
	same(t, want, got)
}

func TestRenewalsAreKept(t *testing.T) {
	j := open(t, Settings{})
	if all, err := j.Renewals(); len(all) > 0 || err != nil {
		t.Fatalf("new journal: got renewals %v, %v", all, err)
	}
	want := []messages.Renewal{{Master: "http://m:1", Tries: 2, Done: true, Facts: messages.SchedulingFacts{
		HasGPU: true, GPUType: "NVIDIA A10", GPUCapabilities: []string{"nvenc_h264"}, Labels: map[string]string{"os": "linux"}}}, {Tries: 1}}
	ok(t, j.SaveRenewals(want[1:]))
	ok(t, j.SaveRenewals(want))
	j = reopen(t, j)
	got, err := j.Renewals()
	ok(t, err)
	same(t, want, got)
}

func TestStatsMatchRecords(t *testing.T) {
	j := open(t, Settings{})
	states := []job.RecordState{
		job.RecordAccepted, job.RecordRunning, job.RecordResult, job.RecordResult,
		job.RecordSent, job.RecordSent, job.RecordSent, job.RecordSuperseded, job.RecordDeadLetter,
	}
	var oldest *time.Time
	for i, s := range states {
		rec := record(t, j, advance(t, j, fmt.Sprintf("job-%d", i), s))
		if s == job.RecordResult && oldest == nil {
			oldest = rec.FinishedAt
		}
	}
	want := job.JournalStats{Unfinished: 2, Unsent: 2, OldestAt: oldest, Sent: 3, Superseded: 1, DeadLetters: 1}
	same(t, want, j.Stats())
	j = reopen(t, j)
	same(t, want, j.Stats())

	ok(t, j.Settle(job.Key{JobID: "job-2", Attempt: 1}, job.RecordSent, ""))
	want.Unsent, want.Sent, want.OldestAt = 1, 4, record(t, j, job.Key{JobID: "job-3", Attempt: 1}).FinishedAt
	same(t, want, j.Stats())
}

func TestOldestSettledRecordsAreRemoved(t *testing.T) {
	logs, seen := observer.New(zapcore.WarnLevel)
	s := Settings{KeepSettled: 3, KeepDeadLetters: 2, Logger: zap.New(logs)}
	j := open(t, s)
	advance(t, j, "unsent", job.RecordResult)
	advance(t, j, "open", job.RecordRunning)
	for i := range 5 {
		advance(t, j, fmt.Sprintf("sent-%d", i), job.RecordSent)
		advance(t, j, fmt.Sprintf("dead-%d", i), job.RecordDeadLetter)
	}
	advance(t, j, "reassigned", job.RecordSuperseded)

	settled, err := j.Settled(0)
	ok(t, err)
	dead, err := j.DeadLetters(0)
	ok(t, err)
	if keys(settled) != "reassigned#1 sent-4#1 sent-3#1" || keys(dead) != "dead-4#1 dead-3#1" {
		t.Fatalf("got settled %s, dead letters %s", keys(settled), keys(dead))
	}
	if dropped := seen.FilterMessageSnippet("dead letters").FilterField(zap.String("job", "dead-0")).Len(); dropped != 1 || seen.Len() != 3 {
		t.Fatalf("got %v, want 3 warnings of dropped dead letters", seen.All())
	}
	if records, _ := j.Find("sent-0"); len(records) != 0 {
		t.Fatalf("sent-0 is still in the index: %s", keys(records))
	}
	if got := j.Stats(); got.Sent+got.Superseded != 3 || got.DeadLetters != 2 || got.Unsent != 1 || got.Unfinished != 1 {
		t.Fatalf("got stats %+v", got)
	}
	reopen(t, j) // audits the file
}

func TestFileStopsGrowing(t *testing.T) {
	t.Parallel()
	j := open(t, Settings{KeepSettled: 20, noSync: true})
	cycle := func(from, to int) int64 {
		for i := from; i < to; i++ {
			id := fmt.Sprintf("job-%d", i)
			key := keyOf(id)
			_, err := j.Accept(lease(id, 1))
			ok(t, err)
			ok(t, j.Running(key, job.Process{PID: i}))
			ok(t, j.Finish(key, resultOf(i*7919%6_000), false))
			ok(t, j.Settle(key, job.RecordSent, ""))
		}
		info, err := os.Stat(j.path)
		ok(t, err)
		return info.Size()
	}
	steady := cycle(0, 150)
	if later := cycle(150, 700); later > steady*3/2 {
		t.Fatalf("the file grew from %d to %d bytes", steady, later)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	j := open(t, Settings{noSync: true, KeepSettled: 20})
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 25 {
				key := job.Key{JobID: fmt.Sprintf("job-%d-%d", worker, i), Attempt: 1}
				_, err := j.Accept(lease(key.JobID, 1))
				err = errors.Join(err, j.Running(key, job.Process{PID: i}), j.Finish(key, []byte(`{}`), false))
				_, err2 := j.Unsent()
				j.Stats()
				_, err3 := j.Find(key.JobID)
				if err := errors.Join(err, err2, err3, j.Settle(key, job.RecordSent, "")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	same(t, job.JournalStats{Sent: 20}, j.Stats())
	reopen(t, j)
}

func TestFilesAreReadableByOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "dir")
	open(t, Settings{Path: filepath.Join(dir, "journal.db")})
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "journal.db"): 0o600, filepath.Join(dir, lockName): 0o600} {
		info, err := os.Stat(path)
		ok(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: got mode %o, want %o", path, got, want)
		}
	}
}

func TestClosedJournalReturnsErrClosed(t *testing.T) {
	j := open(t, Settings{})
	ok(t, j.Close())
	ok(t, j.Close())
	_, err := j.Accept(lease("job", 1))
	if !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), j.path) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
	if _, err := j.Unsent(); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	j := open(t, Settings{})
	key := advance(t, j, "job", job.RecordSent)
	want, stats := record(t, j, key), j.Stats()

	if _, err := OpenReadOnly(j.path, []string{self, "inspect"}); !errors.Is(err, ErrInUse) {
		t.Fatalf("while the agent runs: got %v, want ErrInUse", err)
	}
	ok(t, j.Close())
	before, err := os.ReadFile(j.path)
	ok(t, err)
	r, err := OpenReadOnly(j.path, []string{self, "inspect"})
	ok(t, err)
	second, err := OpenReadOnly(j.path, []string{self, "inspect"})
	ok(t, err)
	ok(t, second.Close())
	got, found, err := r.Record(key)
	ok(t, err)
	if !found {
		t.Fatalf("no record of %s", key)
	}
	same(t, want, got)
	same(t, stats, r.Stats())
	ok(t, r.Close())
	after, err := os.ReadFile(j.path)
	ok(t, err)
	if string(before) != string(after) {
		t.Fatal("reading changed the file")
	}
	if _, err := OpenReadOnly(filepath.Join(t.TempDir(), "none.db"), []string{self, "inspect"}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no file: got %v, want fs.ErrNotExist", err)
	}
}

// A master may assign an attempt here again that it reassigned; an earlier lease does not
// show that it did.
func TestOnlyLaterLeaseRestartsSupersededAttempt(t *testing.T) {
	j := open(t, Settings{})
	early := lease("a", 1)
	advance(t, j, "a", job.RecordSuperseded)
	rec, err := j.Accept(early)
	ok(t, err)
	if rec.State != job.RecordSuperseded {
		t.Errorf("earlier lease: got state %q, want superseded", rec.State)
	}
	rec, err = j.Accept(lease("a", 1))
	ok(t, err)
	if rec.State != job.RecordAccepted {
		t.Errorf("later lease: got state %q, want accepted", rec.State)
	}
}
