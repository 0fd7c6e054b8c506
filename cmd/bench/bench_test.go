package main

import (
	"bytes"
	"context"
	"encoding/json"
	"go/parser"
	"go/token"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ffmpeg-agent/hardware/fakehw"
)

// The truth is what a pencil finds.
func TestTruthOfShares(t *testing.T) {
	// 100 W, 30 W of it idle; a uses one thread, b from 2 s to 4 s three, others two.
	l := load{power: fakehw.Constant(100), idle: 30, others: fakehw.Constant(2), jobs: []work{
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
				t.Errorf("job %d: %+v, want %+v", i, got, want)
			}
		}
	}
}

func TestUnion(t *testing.T) {
	got := union([][2]time.Duration{{5, 7}, {1, 3}, {2, 4}, {9, 10}, {6, 7}})
	if len(got) != 3 || got[0] != [2]time.Duration{1, 4} || got[1] != [2]time.Duration{5, 7} || got[2] != [2]time.Duration{9, 10} {
		t.Errorf("%v", got)
	}
}

// What the truth is made of knows nothing of the meter.
func TestTruthImportsNothingOfTheMeter(t *testing.T) {
	for _, name := range []string{"truth.go", "live/live.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); strings.HasPrefix(path, "ffmpeg-agent/") && path != "ffmpeg-agent/hardware/fakehw" {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
}

// An error beyond a bound is called one.
func TestVerdicts(t *testing.T) {
	promise := func(j float64) *float64 { return &j }
	for name, test := range map[string]struct {
		row  row
		want string
	}{
		"within both":         {row{True: 100, Ours: 100.5, Edge: 1, Promised: promise(0.6)}, ""},
		"beyond the edge":     {row{True: 100, Ours: 98.5, Edge: 1, Promised: promise(2)}, "the edge bound"},
		"relative part helps": {row{True: 100, Ours: 98.5, Edge: 1, Relative: 0.01, Promised: promise(2)}, ""},
		"beyond the promise":  {row{True: 100, Ours: 100.5, Edge: 1, Promised: promise(0.4)}, "promised"},
		"promise only shown":  {row{True: 100, Ours: 100.5, Edge: 1, Promised: promise(0.4), Unjudged: true}, ""},
		"live adds up":        {row{True: 100, Ours: 101.3, Edge: 1, Promised: promise(0.4), Live: true}, ""},
		"live beyond":         {row{True: 100, Ours: 101.5, Edge: 1, Promised: promise(0.4), Live: true}, "promised"},
		"unknown":             {row{True: 100, Ours: number(math.NaN()), Edge: 1}, "no figure"},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.row
			r.judge()
			got := strings.Join(r.Faults, "; ")
			if (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// A meter that is off is found out: the ledger is told of a machine whose counters lie.
func TestAWrongMeterIsFoundOut(t *testing.T) {
	s := scenario{name: "lies", zones: pkg(fakehw.Constant(101)), adds: onePackage, windows: 1}
	right, err := measureTotal(s, &options{seed: 1, windows: 1})
	if err != nil {
		t.Fatal(err)
	}
	right.True, right.Faults = right.True/1.01, nil
	right.judge()
	if len(right.Faults) != 2 {
		t.Errorf("1 %% too much, and the verdict is %q", right.Faults)
	}
}

// The sections in virtual time are within their bounds, whatever the edges, and readable.
func TestVirtualTime(t *testing.T) {
	var out bytes.Buffer
	status, err := bench(context.Background(), options{seed: 7, windows: 4, only: "totals,shares"}, &out)
	if err != nil || status != 0 {
		t.Errorf("status %d, %v:\n%s", status, err, out.String())
	}
	for line := range strings.Lines(out.String()) {
		if length := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); length > wide {
			t.Errorf("%d columns: %s", length, line)
		}
	}
	for _, want := range []string{"100 wraps", "four jobs: d, own", "left out: real", "left out: cost"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line of %q in\n%s", want, out.String())
		}
	}
}
