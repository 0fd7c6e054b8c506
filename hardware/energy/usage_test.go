package energy

import (
	"slices"
	"testing"
	"time"
)

func TestUtilizationIsBusyOverCapacity(t *testing.T) {
	usage := func(busy, capacity time.Duration) *Usage { return &Usage{Busy: busy, Capacity: capacity} }
	for name, test := range map[string]struct {
		before, after *Usage
		want          *float64
	}{
		"a quarter":      {usage(5, 100), usage(10, 120), of(0.25)},
		"none":           {usage(5, 100), usage(5, 120), of(0.0)},
		"still open":     {usage(5, 100), nil, nil},
		"a nanosecond":   {usage(5, 100), usage(5, 101), of(0.0)},
		"no time":        {usage(5, 100), usage(10, 100), nil},
		"went back":      {usage(5, 100), usage(4, 120), nil},
		"clock set back": {usage(5, 100), usage(10, 90), nil},
	} {
		d := &usageDelta{before: test.before, after: test.after}
		if got := d.utilization(); (got == nil) != (test.want == nil) || got != nil && *got != *test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
	if (*usageDelta)(nil).utilization() != nil {
		t.Error("got a utilization without a delta")
	}
}

func TestUseByOthersExcludesJobs(t *testing.T) {
	jobs := func(a, b time.Duration) map[string]time.Duration { return map[string]time.Duration{"a": a, "b": b} }
	before := &Usage{Jobs: jobs(10, 20), Busy: 50, Capacity: 1000}
	for name, test := range map[string]struct {
		after        Usage
		ahead        time.Duration
		others, then time.Duration
		unknown      bool
	}{
		"all":                  {Usage{Jobs: jobs(13, 25), Busy: 70, Capacity: 1100}, 0, 12, 0, false},
		"less what is ahead":   {Usage{Jobs: jobs(13, 25), Busy: 70, Capacity: 1100}, 5, 7, 0, false},
		"nothing":              {Usage{Jobs: jobs(13, 25), Busy: 58, Capacity: 1100}, 0, 0, 0, false},
		"jobs get ahead":       {Usage{Jobs: jobs(13, 25), Busy: 55, Capacity: 1100}, 2, 0, 5, false},
		"at most the capacity": {Usage{Jobs: jobs(13, 925), Busy: 55, Capacity: 1100}, 0, 0, 100, false},
		"a job went back":      {Usage{Jobs: jobs(13, 5), Busy: 70, Capacity: 1100}, 0, 17, 0, false},
		"a new job":            {Usage{Jobs: map[string]time.Duration{"c": 4}, Busy: 70, Capacity: 1100}, 0, 16, 0, false},
		"unknown":              {Usage{Jobs: jobs(13, 25)}, 7, 0, 0, true},
	} {
		d := &usageDelta{from: 1, before: before, previous: &usageDelta{}}
		ahead := d.close(&test.after, 2, test.ahead)
		if (d.others == nil) != test.unknown || d.others != nil && *d.others != test.others || ahead != test.then {
			t.Errorf("%s: got others %v, ahead %v; want %v, %v", name, d.others, ahead, test.others, test.then)
		}
		if d.to != 2 || d.after != &test.after || d.previous != nil {
			t.Errorf("%s: got %+v, want it closed", name, d)
		}
	}
}

func TestLastClosedUsageReplacesAnOpenOne(t *testing.T) {
	closed := &usageDelta{to: 10, after: &Usage{}}
	open := &usageDelta{from: 10, previous: closed}
	first := &usageDelta{from: 10}
	for name, test := range map[string]struct {
		d    *usageDelta
		at   instant
		want *usageDelta
	}{
		"open":              {open, 10 + maxUsageAge - 1, closed},
		"open for too long": {open, 10 + maxUsageAge, open},
		"the first":         {first, 11, first},
		"closed":            {&usageDelta{after: &Usage{}, previous: nil}, 11, nil},
		"none":              {nil, 11, nil},
	} {
		want := test.want
		if name == "closed" {
			want = test.d
		}
		if got := test.d.orPrevious(test.at); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func TestRateOfAJob(t *testing.T) {
	s := time.Second
	usage := func(used time.Duration) *Usage { return &Usage{Jobs: map[string]time.Duration{"job": used}} }
	none := &Usage{}
	for name, test := range map[string]struct {
		before, after *Usage
		from, to      instant // of the window; the delta is from 10 s to 14 s
		rate          int64
		known         bool
	}{
		"all of the delta":       {usage(5 * s), usage(11 * s), 0, 20 * s, 15e8, true},
		"opened in it":           {usage(0), usage(6 * s), 12 * s, 20 * s, 3e9, true},
		"opened in it, first":    {none, usage(6 * s), 12 * s, 20 * s, 3e9, true},
		"opened with it, first":  {none, usage(6 * s), 10 * s, 20 * s, 15e8, true},
		"opened before, first":   {none, usage(6 * s), 9 * s, 20 * s, 0, false},
		"closed in it":           {usage(5 * s), usage(11 * s), 0, 11 * s, 6e9, true},
		"closed before":          {usage(5 * s), usage(11 * s), 0, 10 * s, 0, false},
		"used nothing":           {usage(5 * s), usage(5 * s), 0, 20 * s, 0, true},
		"closed before, unused":  {usage(5 * s), usage(5 * s), 0, 10 * s, 0, false},
		"closed in it, unused":   {usage(5 * s), usage(5 * s), 0, 10*s + 1, 0, true},
		"went back":              {usage(5 * s), usage(4 * s), 0, 20 * s, 0, false},
		"unknown after":          {usage(5 * s), none, 0, 20 * s, 0, false},
		"the highest plausible":  {usage(0), usage(4 * s << 20), 0, 20 * s, 1e9 << 20, true},
		"above it":               {usage(0), usage(4*s<<20 + 4<<20), 0, 20 * s, 0, false},
		"after a later opening":  {usage(5 * s), usage(11 * s), 14 * s, 20 * s, 0, false},
		"unknown before, closed": {none, usage(6 * s), 12 * s, 13 * s, 6e9, true},
	} {
		d := &usageDelta{from: 10 * s, to: 14 * s, before: test.before, after: test.after}
		rate, known := d.rate(&window{job: "job", from: test.from, to: test.to})
		if rate != test.rate || known != test.known {
			t.Errorf("%s: got %d, known: %v; want %d, %v", name, rate, known, test.rate, test.known)
		}
	}
}

func TestUseRatesAreKnownForAllOrNone(t *testing.T) {
	closed := &usageDelta{
		to:     10,
		before: &Usage{Jobs: map[string]time.Duration{"a": 0, "b": 0, "new": 0}},
		after:  &Usage{Jobs: map[string]time.Duration{"a": 2, "b": 5}, Method: "cpu time"},
	}
	open := &usageDelta{before: &Usage{}}
	for name, test := range map[string]struct {
		d       *usageDelta
		jobs    []string
		weights []int64
		method  string
	}{
		"all known":     {closed, []string{"a", "b"}, []int64{2e8, 5e8}, "cpu time"},
		"first unknown": {closed, []string{"new", "b"}, []int64{1, 1}, shareEqual},
		"one unit":      {&usageDelta{to: time.Second, before: &Usage{Jobs: map[string]time.Duration{"a": 0, "b": 0}}, after: &Usage{Jobs: map[string]time.Duration{"a": 1, "b": 0}, Method: "cpu time"}}, []string{"a", "b"}, []int64{1, 0}, "cpu time"},
		"last unknown":  {closed, []string{"a", "new"}, []int64{1, 1}, shareEqual},
		"still open":    {open, []string{"a", "b"}, []int64{1, 1}, shareEqual},
		"no usage":      {nil, []string{"a", "b"}, []int64{1, 1}, shareEqual},
	} {
		var windows []*window
		for _, job := range test.jobs {
			windows = append(windows, &window{job: job, to: stillOpen})
		}
		if weights, method := newUseRates(test.d, windows).weights(); !slices.Equal(weights, test.weights) || method != test.method {
			t.Errorf("%s: got %v by %q, want %v by %q", name, weights, method, test.weights, test.method)
		}
	}
}
