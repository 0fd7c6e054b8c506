package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// model is the journal as plain lists.
type model struct {
	open, settled, dead []*attempt // in their order, oldest first
	session             *messages.Session
}

type attempt struct {
	key     job.Key
	state   job.RecordState
	process int
	result  string
	why     string
}

const modelKeeps = 3

func (m *model) find(key job.Key) *attempt {
	for _, list := range [][]*attempt{m.open, m.settled, m.dead} {
		for _, a := range list {
			if a.key == key {
				return a
			}
		}
	}
	return nil
}

func (m *model) accept(key job.Key) {
	if a := m.find(key); a != nil && a.state == job.RecordSuperseded {
		// A superseded attempt begins anew.
		m.settled = slices.DeleteFunc(m.settled, func(b *attempt) bool { return a == b })
	}
	if m.find(key) == nil {
		m.open = append(m.open, &attempt{key: key, state: job.RecordAccepted})
	}
}

func (m *model) running(key job.Key, pid int) error {
	a := m.find(key)
	switch {
	case a == nil:
		return job.ErrUnknownAttempt
	case a.state != job.RecordAccepted && a.state != job.RecordRunning:
		return ErrOrder
	}
	a.state, a.process = job.RecordRunning, pid
	return nil
}

func (m *model) finish(key job.Key, result string) error {
	a := m.find(key)
	if a == nil {
		return job.ErrUnknownAttempt
	}
	if a.state == job.RecordAccepted || a.state == job.RecordRunning {
		a.state, a.result = job.RecordResult, result
	}
	return nil
}

func (m *model) settle(key job.Key, end job.RecordState, why string) error {
	a := m.find(key)
	switch {
	case a == nil:
		return job.ErrUnknownAttempt
	case a.state == end:
		return nil
	case a.state == job.RecordResult:
	case a.state.Unfinished() && end == job.RecordSuperseded:
	default:
		return ErrOrder
	}
	a.state, a.why = end, why
	m.open = slices.DeleteFunc(m.open, func(b *attempt) bool { return a == b })
	into := &m.settled
	if end == job.RecordDeadLetter {
		into = &m.dead
	}
	*into = append(*into, a)
	if len(*into) > modelKeeps {
		*into = (*into)[1:]
	}
	return nil
}

// transfer gives an unfinished attempt another key; it becomes the newest.
func (m *model) transfer(key, to job.Key) error {
	a := m.find(key)
	switch {
	case a == nil:
		return job.ErrUnknownAttempt
	case m.find(to) != nil, !a.state.Unfinished():
		return job.ErrNotTransferable
	}
	m.open = append(slices.DeleteFunc(m.open, func(b *attempt) bool { return b == a }), a)
	a.key = to
	return nil
}

func (m *model) stats() (s job.JournalStats) {
	for _, list := range [][]*attempt{m.open, m.settled, m.dead} {
		for _, a := range list {
			switch a.state {
			case job.RecordAccepted, job.RecordRunning:
				s.Unfinished++
			case job.RecordResult:
				s.Unsent++
			case job.RecordSent:
				s.Sent++
			case job.RecordSuperseded:
				s.Superseded++
			case job.RecordDeadLetter:
				s.DeadLetters++
			}
		}
	}
	return s
}

// Any operations in any order must leave the journal equal to the plain lists.
func TestJournalMatchesModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		settings := Settings{
			Path:        filepath.Join(dir, fmt.Sprint(run), "journal.db"),
			KeepSettled: modelKeeps, KeepDeadLetters: modelKeeps, noSync: true,
		}
		j, err := Open(settings)
		must(err)
		defer func() { _ = j.Close() }()
		m := &model{}

		aKey := rapid.Custom(func(t *rapid.T) job.Key {
			return job.Key{
				JobID:   rapid.SampledFrom([]string{"a", "b", "b#1", "ü\xff"}).Draw(t, "job"),
				Attempt: rapid.IntRange(1, 3).Draw(t, "attempt"),
			}
		})
		agree := func(doing string, want, got error) {
			if !errors.Is(got, want) {
				rt.Fatalf("%s: got %v, want %v", doing, got, want)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"accept": func(t *rapid.T) {
				key := aKey.Draw(t, "key")
				m.accept(key)
				_, err := j.Accept(lease(key.JobID, key.Attempt))
				must(err)
			},
			"running": func(t *rapid.T) {
				key, pid := aKey.Draw(t, "key"), rapid.IntRange(1, 2).Draw(t, "pid")
				agree("running", m.running(key, pid), j.Running(key, job.Process{PID: pid}))
			},
			"finish": func(t *rapid.T) {
				key, result := aKey.Draw(t, "key"), fmt.Sprint(rapid.Int().Draw(t, "result"))
				agree("finish", m.finish(key, result), j.Finish(key, []byte(result), false))
			},
			"transfer": func(t *rapid.T) {
				key := aKey.Draw(t, "key")
				to := lease(key.JobID, rapid.IntRange(1, 3).Draw(t, "to attempt"))
				agree("transfer", m.transfer(key, to.Key()), j.Transfer(key, to))
			},
			"settle": func(t *rapid.T) {
				key, why := aKey.Draw(t, "key"), rapid.StringMatching("[a-z]{0,3}").Draw(t, "why")
				end := rapid.SampledFrom([]job.RecordState{
					job.RecordSent, job.RecordSuperseded, job.RecordDeadLetter,
				}).Draw(t, "end")
				agree("settle", m.settle(key, end, why), j.Settle(key, end, why))
			},
			"session": func(t *rapid.T) {
				m.session = &messages.Session{NodeID: rapid.String().Draw(t, "node")}
				must(j.SaveSession(*m.session))
			},
			"open again": func(*rapid.T) {
				must(j.Close())
				j, err = Open(settings)
				must(err)
			},
			"": func(t *rapid.T) { compare(t, m, j) },
		})
	})
}

func compare(t *rapid.T, m *model, j *Journal) {
	t.Helper()
	pick := func(list []*attempt, want func(*attempt) bool, newestFirst bool) (out []string) {
		for _, a := range list {
			if want(a) {
				out = append(out, fmt.Sprintf("%+v", *normal(a)))
			}
		}
		if newestFirst {
			slices.Reverse(out)
		}
		return out
	}
	all := func(*attempt) bool { return true }
	check := func(name string, want []string, records []job.Record, err error) {
		must(err)
		var got []string
		for _, rec := range records {
			got = append(got, fmt.Sprintf("%+v", *asAttempt(rec)))
		}
		if !slices.Equal(want, got) {
			t.Fatalf("%s:\nwant %v\ngot  %v", name, want, got)
		}
	}
	records, err := j.Unfinished()
	check("unfinished", pick(m.open, func(a *attempt) bool { return a.state.Unfinished() }, false), records, err)
	records, err = j.Unsent()
	check("unsent", pick(m.open, func(a *attempt) bool { return a.state == job.RecordResult }, false), records, err)
	records, err = j.Settled(0)
	check("settled", pick(m.settled, all, true), records, err)
	records, err = j.DeadLetters(0)
	check("dead letters", pick(m.dead, all, true), records, err)

	for _, a := range slices.Concat(m.open, m.settled, m.dead) {
		rec, found, err := j.Record(a.key)
		if err != nil || !found || *asAttempt(rec) != *normal(a) {
			t.Fatalf("%s got %+v (%v, %v), want %+v", a.key, rec, found, err, a)
		}
	}
	got := j.Stats()
	if (got.OldestAt != nil) != (got.Unsent > 0) {
		t.Fatalf("got oldest %v of %d unsent", got.OldestAt, got.Unsent)
	}
	got.OldestAt = nil
	if got != m.stats() {
		t.Fatalf("stats: got %+v, want %+v", got, m.stats())
	}
	session, found, err := j.Session()
	must(err)
	if found != (m.session != nil) || found && session != *m.session {
		t.Fatalf("session: got %+v %v, want %+v", session, found, m.session)
	}
}

// normal returns an attempt with its job's id as JSON decodes it.
func normal(a *attempt) *attempt {
	b := *a
	b.key.JobID = string([]rune(b.key.JobID))
	return &b
}

func asAttempt(rec job.Record) *attempt {
	a := &attempt{key: rec.Key(), state: rec.State, result: string(rec.Result), why: rec.Why}
	if rec.Process != nil {
		a.process = rec.Process.PID
	}
	return a
}
