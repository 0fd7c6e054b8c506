package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

var _ actors.Journal = (*Journal)(nil)

func TestAnAttemptGoesItsWay(t *testing.T) {
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

	// Spaces, newlines and signs that an encoder would change must come back untouched.
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
		t.Fatalf("what was known is gone: %+v", rec)
	}

	j = reopen(t, j)
	same(t, rec, record(t, j, key))
}

// Each state against each operation: what it leads to, or which error.
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
				key := bring(t, j, fmt.Sprintf("%s-%s", c.from, name), c.from)
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
						t.Fatalf("got error %v, want %v", err, wantErr)
					}
					same(t, before, after)
				case unchanged:
					ok(t, err)
					same(t, before, after)
				default:
					ok(t, err)
					if after.State != want {
						t.Fatalf("is %s, want %s", after.State, want)
					}
				}
			})
		}
	}
}

func TestAcceptingAgainReturnsTheRecordAsItStands(t *testing.T) {
	j := open(t, Settings{})
	for _, state := range []job.RecordState{job.RecordAccepted, job.RecordRunning, job.RecordResult, job.RecordSent} {
		key := bring(t, j, string(state), state)
		before := record(t, j, key)
		other := lease(key.JobID, key.Attempt)
		other.NodeID = "another node"
		rec, err := j.Accept(other)
		ok(t, err)
		same(t, before, rec)
		same(t, before, record(t, j, key))
	}
}

func TestAttemptsAtOneJobAreApart(t *testing.T) {
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
		t.Fatalf("found %s, want the newest attempt last", got)
	}
	if records[0].State != job.RecordAccepted || records[1].State != job.RecordResult {
		t.Fatalf("states %s and %s", records[0].State, records[1].State)
	}
	records, err = j.Find("jo")
	ok(t, err)
	if len(records) != 0 {
		t.Fatalf("found %s for an id that is only a beginning", keys(records))
	}
}

func TestListsAreOldestFirst(t *testing.T) {
	j := open(t, Settings{})
	for _, id := range []string{"c", "a", "d", "b", "e"} {
		_, err := j.Accept(lease(id, 1))
		ok(t, err)
	}
	for _, id := range []string{"b", "c"} { // finished in another order than accepted
		ok(t, j.Finish(job.Key{JobID: id, Attempt: 1}, []byte(`{}`), false))
	}
	ok(t, j.Running(job.Key{JobID: "d", Attempt: 1}, job.Process{PID: 1}))
	j = reopen(t, j)
	unfinished, err := j.Unfinished()
	ok(t, err)
	unsent, err := j.Unsent()
	ok(t, err)
	if keys(unfinished) != "a#1 d#1 e#1" || keys(unsent) != "c#1 b#1" {
		t.Fatalf("unfinished %s, unsent %s", keys(unfinished), keys(unsent))
	}
	for _, id := range []string{"b", "c"} {
		ok(t, j.Settle(job.Key{JobID: id, Attempt: 1}, job.RecordSent, ""))
	}
	settled, err := j.Settled(0)
	ok(t, err)
	newest, err := j.Settled(1)
	ok(t, err)
	if keys(settled) != "c#1 b#1" || keys(newest) != "c#1" {
		t.Fatalf("settled %s, newest %s", keys(settled), keys(newest))
	}
}

func TestAnyJobIDWillDo(t *testing.T) {
	j := open(t, Settings{})
	for _, id := range []string{"", "ä/../\x00\n#1", strings.Repeat("long", 30_000), "broken \xff\xfe utf-8"} {
		key := job.Key{JobID: id, Attempt: 1}
		_, err := j.Accept(lease(id, 1))
		ok(t, err)
		ok(t, j.Finish(key, []byte(`{}`), false))
		j = reopen(t, j)
		if rec := record(t, j, key); rec.State != job.RecordResult {
			t.Errorf("%.20q is %s", id, rec.State)
		}
		records, err := j.Find(id)
		ok(t, err)
		if len(records) != 1 {
			t.Errorf("%.20q found %d times", id, len(records))
		}
	}
}

func TestAResultIsJSON(t *testing.T) {
	j := open(t, Settings{})
	key := bring(t, j, "job", job.RecordRunning)
	for _, bad := range []string{"", "{", "{} {}", "nonsense"} {
		if err := j.Finish(key, []byte(bad), false); err == nil {
			t.Errorf("%q was taken for a result", bad)
		}
	}
	if rec := record(t, j, key); rec.State != job.RecordRunning {
		t.Fatalf("is %s", rec.State)
	}
	ok(t, j.Finish(key, nil, true)) // nothing needs to be said of a job that was never started
	if rec := record(t, j, key); !rec.Release || rec.Result != nil {
		t.Fatalf("released: %+v", rec)
	}
}

func TestSessionIsKept(t *testing.T) {
	j := open(t, Settings{})
	if _, found, err := j.Session(); found || err != nil {
		t.Fatalf("a session from nowhere: %v, %v", found, err)
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

func TestStatsFollowTheRecords(t *testing.T) {
	j := open(t, Settings{})
	states := []job.RecordState{
		job.RecordAccepted, job.RecordRunning, job.RecordResult, job.RecordResult,
		job.RecordSent, job.RecordSent, job.RecordSent, job.RecordSuperseded, job.RecordDeadLetter,
	}
	var oldest *time.Time
	for i, s := range states {
		rec := record(t, j, bring(t, j, fmt.Sprintf("job-%d", i), s))
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

func TestOldSettledRecordsGo(t *testing.T) {
	logs, seen := observer.New(zapcore.WarnLevel)
	s := Settings{KeepSettled: 3, KeepDeadLetters: 2, Logger: zap.New(logs)}
	j := open(t, s)
	bring(t, j, "unsent", job.RecordResult)
	bring(t, j, "open", job.RecordRunning)
	for i := range 5 {
		bring(t, j, fmt.Sprintf("sent-%d", i), job.RecordSent)
		bring(t, j, fmt.Sprintf("dead-%d", i), job.RecordDeadLetter)
	}
	bring(t, j, "given away", job.RecordSuperseded)

	settled, err := j.Settled(0)
	ok(t, err)
	dead, err := j.DeadLetters(0)
	ok(t, err)
	if keys(settled) != "given away#1 sent-4#1 sent-3#1" || keys(dead) != "dead-4#1 dead-3#1" {
		t.Fatalf("settled %s, dead letters %s", keys(settled), keys(dead))
	}
	if dropped := seen.FilterMessageSnippet("dead letters").FilterField(zap.String("job", "dead-0")).Len(); dropped != 1 || seen.Len() != 3 {
		t.Fatalf("dead letters dropped in silence: %v", seen.All())
	}
	if records, _ := j.Find("sent-0"); len(records) != 0 {
		t.Fatal("the index still knows what is gone")
	}
	if got := j.Stats(); got.Sent+got.Superseded != 3 || got.DeadLetters != 2 || got.Unsent != 1 || got.Unfinished != 1 {
		t.Fatalf("stats %+v", got)
	}
	reopen(t, j) // audits itself
}

func TestTheFileStopsGrowing(t *testing.T) {
	t.Parallel()
	j := open(t, Settings{KeepSettled: 20, noSync: true})
	cycle := func(from, to int) int64 {
		for i := from; i < to; i++ {
			id := fmt.Sprintf("job-%d", i)
			key := job.Key{JobID: id, Attempt: 1}
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
		t.Fatalf("from %d to %d bytes", steady, later)
	}
}

func TestManyAtOnce(t *testing.T) {
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

func TestFilesAreThisUsersAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "dir")
	open(t, Settings{Path: filepath.Join(dir, "journal.db")})
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "journal.db"): 0o600, filepath.Join(dir, lockName): 0o600} {
		info, err := os.Stat(path)
		ok(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s is %o, want %o", path, got, want)
		}
	}
}

func TestAfterClosingNothingIsDone(t *testing.T) {
	j := open(t, Settings{})
	ok(t, j.Close())
	ok(t, j.Close())
	_, err := j.Accept(lease("job", 1))
	if !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), j.path) {
		t.Fatalf("got %v", err)
	}
	if _, err := j.Unsent(); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	j := open(t, Settings{})
	key := bring(t, j, "job", job.RecordSent)
	want, stats := record(t, j, key), j.Stats()

	if _, err := OpenReadOnly(j.path); !errors.Is(err, ErrInUse) {
		t.Fatalf("read while the agent runs: %v", err)
	}
	ok(t, j.Close())
	before, err := os.ReadFile(j.path)
	ok(t, err)
	r, err := OpenReadOnly(j.path)
	ok(t, err)
	second, err := OpenReadOnly(j.path)
	ok(t, err)
	ok(t, second.Close())
	got, found, err := r.Record(key)
	ok(t, err)
	if !found {
		t.Fatal("not there")
	}
	same(t, want, got)
	same(t, stats, r.Stats())
	ok(t, r.Close())
	after, err := os.ReadFile(j.path)
	ok(t, err)
	if string(before) != string(after) {
		t.Fatal("reading changed the file")
	}
	if _, err := OpenReadOnly(filepath.Join(t.TempDir(), "none.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no file: %v", err)
	}
}

// ---- what the tests share

func open(t testing.TB, s Settings) *Journal {
	t.Helper()
	if s.Path == "" {
		s.Path = filepath.Join(t.TempDir(), "journal.db")
	}
	j, err := Open(s)
	ok(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func reopen(t testing.TB, j *Journal) *Journal {
	t.Helper()
	ok(t, j.Close())
	return open(t, j.settings)
}

// A master may give back what it gave away; a lease from before that is no such gift.
func TestOnlyALaterLeaseBeginsASupersededAttemptAnew(t *testing.T) {
	j := open(t, Settings{})
	early := lease("a", 1)
	bring(t, j, "a", job.RecordSuperseded)
	rec, err := j.Accept(early)
	ok(t, err)
	if rec.State != job.RecordSuperseded {
		t.Errorf("a lease from before brought it to %q", rec.State)
	}
	rec, err = j.Accept(lease("a", 1))
	ok(t, err)
	if rec.State != job.RecordAccepted {
		t.Errorf("a later lease left it %q", rec.State)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("- want + got\n%s", diff)
	}
}

func lease(id string, attempt int) job.Lease {
	return job.Lease{
		Job: protocol.Job{
			ID: id, RetryCount: attempt - 1, Scenario: "720p30-h264",
			Parameters: protocol.Parameters{"bitrate": "2000k", "duration": json.Number("5"), "outputs": []any{map[string]any{"crf": json.Number("23")}}},
		},
		NodeID:     "node-1",
		AcquiredAt: time.Now(),
	}
}

// resultOf makes a result of about so many bytes.
func resultOf(size int) []byte {
	return fmt.Appendf(nil, `{"logs":%q}`, strings.Repeat("x", size))
}

// bring makes an attempt and brings it to a state; "" is one that is not there.
func bring(t testing.TB, j *Journal, id string, state job.RecordState) job.Key {
	t.Helper()
	key := job.Key{JobID: id, Attempt: 1}
	if state == "" {
		return key
	}
	_, err := j.Accept(lease(id, 1))
	ok(t, err)
	if state == job.RecordAccepted {
		return key
	}
	ok(t, j.Running(key, job.Process{PID: 1}))
	if state == job.RecordRunning {
		return key
	}
	ok(t, j.Finish(key, []byte(`"first"`), false))
	if state == job.RecordResult {
		return key
	}
	ok(t, j.Settle(key, state, "first"))
	return key
}

func record(t testing.TB, j *Journal, key job.Key) job.Record {
	t.Helper()
	rec, found, err := j.Record(key)
	ok(t, err)
	if !found {
		t.Fatalf("%s is not there", key)
	}
	return rec
}

func keys(records []job.Record) string {
	var all []string
	for _, r := range records {
		all = append(all, r.Key().String())
	}
	return strings.Join(all, " ")
}
