package main

import (
	"bytes"
	"context"
	"encoding/json"
	"go/parser"
	"go/token"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ffmpeg-agent/hardware/fakehw"
)

// The expected values are computed by hand.
func TestTrueShares(t *testing.T) {
	// 100 W, 30 W of it idle; a uses one thread, b three from 2 s to 4 s, others two.
	l := load{power: fakehw.Constant(100), idle: 30, otherThreads: fakehw.Constant(2), jobs: []work{
		{from: 0, to: 4 * second, threads: fakehw.Constant(1)},
		{from: 2 * second, to: 4 * second, threads: fakehw.Constant(3)},
	}}
	for i, want := range []cost{
		{total: 200 + 50, idle: 60 + 15, own: 140./3 + 35*2./3, rest: 140*2./3 + 35./3},
		{total: 150, idle: 45, own: 105 * 2. / 3, rest: 105. / 3},
	} {
		got := l.cost(i)
		for _, pair := range [][2]float64{{got.total, want.total}, {got.idle, want.idle}, {got.own, want.own}, {got.rest, want.rest}} {
			if math.Abs(pair[0]-pair[1]) > 1e-6 {
				t.Errorf("job %d: got %+v, want %+v", i, got, want)
			}
		}
	}
}

func TestUnion(t *testing.T) {
	got := union([][2]time.Duration{{5, 7}, {1, 3}, {2, 4}, {9, 10}, {6, 7}})
	if want := [][2]time.Duration{{1, 4}, {5, 7}, {9, 10}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTruthDoesNotImportMeter(t *testing.T) {
	for _, name := range []string{"truth.go", "live/live.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); strings.HasPrefix(path, "ffmpeg-agent/") && path != "ffmpeg-agent/hardware/fakehw" {
				t.Errorf("%s imports %s, want hardware/fakehw only", name, path)
			}
		}
	}
}

func TestRowsAreCheckedAgainstTheirBounds(t *testing.T) {
	reported := func(j float64) *float64 { return &j }
	for name, test := range map[string]struct {
		row  row
		want string
	}{
		"within both":          {row{True: 100, Measured: 100.5, Edge: 1, Reported: reported(0.6)}, ""},
		"beyond the edge":      {row{True: 100, Measured: 98.5, Edge: 1, Reported: reported(2)}, "the edge bound"},
		"relative part":        {row{True: 100, Measured: 98.5, Edge: 1, Relative: 0.01, Reported: reported(2)}, ""},
		"beyond reported":      {row{True: 100, Measured: 100.5, Edge: 1, Reported: reported(0.4)}, "reported bound"},
		"reported unchecked":   {row{True: 100, Measured: 100.5, Edge: 1, Reported: reported(0.4), ReportedUnchecked: true}, ""},
		"live, sum of bounds":  {row{True: 100, Measured: 101.3, Edge: 1, Reported: reported(0.4), Live: true}, ""},
		"live, beyond the sum": {row{True: 100, Measured: 101.5, Edge: 1, Reported: reported(0.4), Live: true}, "reported bound"},
		"unknown":              {row{True: 100, Measured: number(math.NaN()), Edge: 1}, "no figure"},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.row
			r.check()
			got := strings.Join(r.Violations, "; ")
			if (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
				t.Errorf("got violations %q, want %q", got, test.want)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMeterErrorIsDetected lowers the true energy by 1 %.
func TestMeterErrorIsDetected(t *testing.T) {
	s := scenario{name: "1 % too high", zones: packageZone(fakehw.Constant(101)), counted: onePackage, windows: 1}
	r, err := measureTotal(s, &options{seed: 1, windows: 1})
	if err != nil {
		t.Fatal(err)
	}
	r.True, r.Violations = r.True/1.01, nil
	r.check()
	if len(r.Violations) != 2 {
		t.Errorf("got violations %q, want two", r.Violations)
	}
}

func TestSimulatedSectionsAreWithinBounds(t *testing.T) {
	var out bytes.Buffer
	status, err := bench(context.Background(), options{seed: 7, windows: 4, only: "totals,shares"}, &out)
	if err != nil || status != 0 {
		t.Errorf("got status %d and %v, want 0:\n%s", status, err, out.String())
	}
	for line := range strings.Lines(out.String()) {
		if length := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); length > lineWidth {
			t.Errorf("got %d columns, want at most %d: %s", length, lineWidth, line)
		}
	}
	for _, want := range []string{"100 wraps", "four jobs: d, own", "skipped: real", "skipped: cost"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got no line with %q in\n%s", want, out.String())
		}
	}
}
