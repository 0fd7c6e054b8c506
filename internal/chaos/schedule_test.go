package chaos

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const scheduleLength = 2 * time.Minute

func TestSeedDecidesTheSchedule(t *testing.T) {
	draw := func(seed uint64) Schedule { return NewSchedule(seed, 2, 420, scheduleLength, 30*time.Second, Kinds()) }
	if !reflect.DeepEqual(draw(7), draw(7)) {
		t.Error("one seed, two schedules")
	}
	if reflect.DeepEqual(draw(7).Faults, draw(8).Faults) {
		t.Error("two seeds, one schedule")
	}
}

func TestEveryKindComesUp(t *testing.T) {
	s := NewSchedule(1, 2, len(Kinds()), scheduleLength, 30*time.Second, Kinds())
	came := map[string]int{}
	for i, f := range s.Faults {
		came[f.Kind]++
		if f.At < 0 || f.At >= scheduleLength || f.Agent < 0 || f.Agent > 1 || f.Number != i+1 || i > 0 && f.At < s.Faults[i-1].At {
			t.Errorf("fault %+v", f)
		}
	}
	if len(came) != len(Kinds()) {
		t.Errorf("%d of %d kinds came", len(came), len(Kinds()))
	}
}

// TestAgentsEndInTurn: an agent is ended in every other burst only, except by what it does to
// itself.
func TestAgentsEndInTurn(t *testing.T) {
	ends := map[string]bool{}
	for _, k := range Kinds() {
		ends[k.Name] = k.EndsAgent
	}
	for _, f := range NewSchedule(3, 2, 420, scheduleLength, 30*time.Second, Kinds()).Faults {
		if ends[f.Kind] && f.Agent != int(f.At/(30*time.Second))%2 {
			t.Errorf("%+v", f)
		}
	}
}

func TestKindNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if seen[k.Name] || k.Weight <= 0 || k.inject == nil {
			t.Errorf("%q: weight %v", k.Name, k.Weight)
		}
		seen[k.Name] = true
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		prefixes []string
		want     int // kinds
		err      string
	}{
		{nil, len(Kinds()), ""},
		{[]string{"master: "}, 4, ""},
		{[]string{"net: reset", "net: reset before"}, 2, ""},
		{[]string{"net: reset", "gnu"}, 0, `"gnu"`},
	} {
		got, err := SelectKinds(Kinds(), c.prefixes)
		if len(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %d kinds, %v", c.prefixes, len(got), err)
		}
	}
}

func TestScheduleIsReplayed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "schedule.json")
	s := NewSchedule(5, 2, 60, scheduleLength, 30*time.Second, Kinds())
	if err := s.Save(path); err != nil {
		t.Fatal(err)
	}
	if again, err := LoadSchedule(path); err != nil || !reflect.DeepEqual(s, again) {
		t.Errorf("%v: read otherwise than written", err)
	}
}

func TestInvalidScheduleIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":       `{`,
		"no agents":     `{"length_ns":1,"burst_ns":1}`,
		"no length":     `{"agents":1,"burst_ns":1}`,
		"unknown kind":  `{"agents":1,"length_ns":1,"burst_ns":1,"faults":[{"kind":"gnus"}]}`,
		"unknown agent": `{"agents":1,"length_ns":1,"burst_ns":1,"faults":[{"kind":"net: 5xx","agent":1}]}`,
	} {
		path := filepath.Join(t.TempDir(), "schedule.json")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if s, err := LoadSchedule(path); err == nil {
			t.Errorf("%s: taken as %+v", name, s)
		}
	}
}
