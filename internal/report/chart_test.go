package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
)

// integral returns the area below a path, in the coordinates of the drawing.
func integral(t rapid.TB, path string) float64 {
	t.Helper()
	var sum, x, y float64
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatalf("path %s: %v", path, err)
		}
		return v
	}
	spaced := strings.NewReplacer("M", " M ", "H", " H ", "V", " V ", "Z", " Z ").Replace(path)
	words := strings.Fields(spaced)
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "M":
			x, y = number(words[i+1]), number(words[i+2])
			i += 2
		case "H":
			next := number(words[i+1])
			sum += (next - x) * (drawingHeight - y)
			x = next
			i++
		case "V":
			y = number(words[i+1])
			i++
		case "Z":
		default:
			t.Fatalf("path %s: %s", path, words[i])
		}
	}
	return sum
}

// topOf returns the end of a panel's power axis in W.
func topOf(t rapid.TB, d *panel) float64 {
	t.Helper()
	last := d.YTicks[len(d.YTicks)-1]
	v, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSuffix(last.Text, " W"), thinSpace, ""), 64)
	if err != nil || last.At != "0.000%" {
		t.Fatalf("last tick is %+v: %v", last, err)
	}
	return v
}

// The stacked areas add up to the counted energy of the curve, also with gaps.
func TestDrawnAreaEqualsEnergy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := rapid.IntRange(1, 4).Draw(t, "zones")
		s := &job.Samples{Curve: energy.Curve{Start: start}}
		for i := range zones {
			s.Curve.Zones = append(s.Curve.Zones, zone(fmt.Sprint(i), fmt.Sprint("z", i), rapid.SampledFrom(domainOrder).Draw(t, "domain"), rapid.Bool().Draw(t, "counted") || i == 0, "rapl"))
		}
		var counted, divided float64
		from := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "points") {
			from += 100 * rapid.SampledFrom([]int64{0, 0, 0, 1, 5}).Draw(t, "gap")
			p := energy.CurvePoint{From: from, To: from + 100}
			from = p.To
			for i := range zones {
				if rapid.IntRange(0, 9).Draw(t, "unread") == 0 {
					p.Zones = append(p.Zones, nil)
					continue
				}
				e := energy.Microjoules(rapid.IntRange(0, 30e6).Draw(t, "energy"))
				p.Zones = append(p.Zones, &e)
				if s.Curve.Zones[i].Counted {
					counted += float64(e)
				}
			}
			if rapid.Bool().Draw(t, "divided") {
				p.Job, p.Idle, p.Rest = pointer(energy.Microjoules(rapid.IntRange(0, 9e6).Draw(t, "job"))), pointer(energy.Microjoules(4e6)), pointer(energy.Microjoules(1e6))
				if slices.ContainsFunc(p.Zones, func(e *energy.Microjoules) bool { return e != nil }) {
					divided += float64(*p.Job + *p.Idle + *p.Rest)
				}
			}
			s.Curve.Points = append(s.Curve.Points, p)
		}
		p := newPlot(s, nil)
		if p == nil {
			return
		}
		c := p.chart("")
		joules := func(d *panel, class string) float64 {
			var sum float64
			for i, a := range d.Areas {
				if a.Class == class || class == "" && i == 0 {
					sum += integral(t, a.Path)
				}
			}
			return sum / drawingWidth / drawingHeight * float64(p.span) * topOf(t, d) * 1e3
		}
		// Rounding: half a unit of height over the whole width, and a unit of width at each point.
		tolerance := func(d *panel) float64 {
			return (0.5/drawingHeight + float64(len(s.Curve.Points)+1)/drawingWidth) * float64(p.span) * topOf(t, d) * 1e3
		}
		if got := joules(&c.Panels[0], ""); math.Abs(got-counted) > tolerance(&c.Panels[0]) {
			t.Errorf("by source: drew %.0f µJ, want %.0f", got, counted)
		}
		if len(c.Panels) == 2 {
			if got := joules(&c.Panels[1], "u-rest"); math.Abs(got-divided) > tolerance(&c.Panels[1]) {
				t.Errorf("by use: drew %.0f µJ, want %.0f", got, divided)
			}
		} else if divided > 0 {
			t.Errorf("by use: no panel, want %.0f µJ", divided)
		}
	})
}

func chartOf(t testing.TB, rec job.Record) *chart {
	t.Helper()
	p := newPlot(rec.Samples, decodeResult(&rec).Energy)
	if p == nil {
		t.Fatal("got no plot")
	}
	return p.chart("")
}

func TestGaps(t *testing.T) {
	c := chartOf(t, measured(t, 64))
	want := []string{"9.0 s to 11.0 s: no readings of NVIDIA L4", "18.0 s to 19.0 s: no readings of any sensor"}
	if !slices.Equal(c.Gaps, want) {
		t.Errorf("got gaps %q, want %q", c.Gaps, want)
	}
	for _, d := range c.Panels {
		if len(d.Gaps) != 2 || d.Gaps[0].X != "28.125%" || d.Gaps[0].Width != "6.250%" {
			t.Errorf("%s: got gaps %+v, want 2, the first at 28.125%%", d.Title, d.Gaps)
		}
		for _, a := range d.Areas {
			if strings.Count(a.Path, "M") < 2 {
				t.Errorf("%s: %s is drawn over a gap: %s", d.Title, a.Class, a.Path)
			}
		}
	}
	c = chartOf(t, failed(t))
	if want := []string{"3.6 s to 5.2 s: no readings of any sensor"}; !slices.Equal(c.Gaps, want) {
		t.Errorf("failed sensor: got gaps %q, want %q", c.Gaps, want)
	}
	if c.UseUnknown == "" || len(c.Panels) != 1 {
		t.Errorf("no baseline: got reason %q and %d panels, want a reason and 1", c.UseUnknown, len(c.Panels))
	}
}

func TestZonesNotCountedAreLines(t *testing.T) {
	d := chartOf(t, measured(t, 64)).Panels[0]
	var stacked, lines []string
	for _, k := range d.Legend {
		if k.Line {
			lines = append(lines, k.Name)
		} else {
			stacked = append(stacked, k.Name)
		}
	}
	if want := []string{"package-0", "package-1", "dram-0", "dram-1", "NVIDIA L4"}; !slices.Equal(stacked, want) || len(d.Areas) != len(want) {
		t.Errorf("got %d areas %q, want %q", len(d.Areas), stacked, want)
	}
	if want := []string{"core", "psys"}; !slices.Equal(lines, want) || len(d.Lines) != len(want) {
		t.Errorf("got lines %q, want %q", lines, want)
	}
}

func TestPhasesAndEnergyWindow(t *testing.T) {
	c := chartOf(t, measured(t, 64))
	var got []string
	for _, b := range c.Phases {
		got = append(got, b.Note)
	}
	if want := []string{"prepare: 2.000 s", "run: 24.000 s", "check: 0.400 s", "quality: 5.100 s", "journal: 0.100 s"}; !slices.Equal(got, want) {
		t.Errorf("got phases %q, want %q", got, want)
	}
	if c.Window == nil || c.Window.X != "6.250%" || c.Window.Width != "75.000%" {
		t.Errorf("got window %+v, want it from 6.25 to 81.25 %%", c.Window)
	}
	for _, d := range c.Panels {
		if n := len(d.Outside); n != 2 {
			t.Errorf("%s: got %d intervals outside of the window, want 2", d.Title, n)
		}
		if want := []string{"6.250%", "81.250%", "82.500%", "98.438%"}; !slices.Equal(d.PhaseStarts, want) {
			t.Errorf("%s: got phase starts %q, want %q", d.Title, d.PhaseStarts, want)
		}
	}
}

func TestInvalidCurves(t *testing.T) {
	samples := func(points ...energy.CurvePoint) *job.Samples {
		return &job.Samples{Curve: energy.Curve{Start: start, Zones: []energy.CurveZone{zone("a", "a", energy.DomainCPU, true, "rapl")}, Points: points}}
	}
	e := []*energy.Microjoules{pointer(energy.Microjoules(5e6))}
	for name, test := range map[string]struct {
		samples *job.Samples
		points  int
	}{
		"none":              {nil, 0},
		"no points":         {samples(), 0},
		"nothing read":      {samples(energy.CurvePoint{From: 0, To: 100, Zones: []*energy.Microjoules{nil}}), 0},
		"no zones in point": {samples(energy.CurvePoint{From: 0, To: 100}), 0},
		"too many zones":    {samples(energy.CurvePoint{From: 0, To: 100, Zones: append(e, e...)}), 1},
		"empty interval":    {samples(energy.CurvePoint{From: 100, To: 100, Zones: e}), 0},
		"before the start":  {samples(energy.CurvePoint{From: -5, To: 100, Zones: e}), 0},
		"out of order":      {samples(energy.CurvePoint{From: 100, To: 200, Zones: e}, energy.CurvePoint{From: 50, To: 150, Zones: e}), 1},
		"negative energy":   {samples(energy.CurvePoint{From: 0, To: 100, Zones: []*energy.Microjoules{pointer(energy.Microjoules(-1))}}), 0},
		"huge interval":     {samples(energy.CurvePoint{From: 0, To: math.MaxInt64, Zones: e}), 1},
	} {
		t.Run(name, func(t *testing.T) {
			account := energy.UnknownAccount(start.AddDate(-300, 0, 0), start.AddDate(3000, 0, 0), "")
			p := newPlot(test.samples, &account)
			if p == nil {
				if test.points > 0 {
					t.Errorf("got no plot, want %d points", test.points)
				}
				return
			}
			if len(p.points) != test.points {
				t.Errorf("got %d points, want %d", len(p.points), test.points)
			}
			p.chart("")
		})
	}
}

func TestTimeTicks(t *testing.T) {
	for span, want := range map[time.Duration]string{
		3 * time.Millisecond:     "0 s 0.001 s 0.002 s 0.003 s",
		4600 * time.Millisecond:  "0 s 0.5 s 1 s 1.5 s 2 s 2.5 s 3 s 3.5 s 4 s 4.5 s",
		32 * time.Second:         "0 s 5 s 10 s 15 s 20 s 25 s 30 s",
		4 * time.Minute:          "0 s 30 s 60 s 90 s 120 s 150 s 180 s 210 s 240 s",
		20 * time.Minute:         "0 min 5 min 10 min 15 min 20 min",
		3 * time.Hour:            "0 h 0.5 h 1 h 1.5 h 2 h 2.5 h 3 h",
		30 * time.Hour:           "0 h 6 h 12 h 18 h 24 h 30 h",
		5 * 24 * time.Hour:       "0 d 1 d 2 d 3 d 4 d 5 d",
		9 * 24 * time.Hour:       "0 d 1 d 2 d 3 d 4 d 5 d 6 d 7 d 8 d 9 d",
		0:                        "0 s",
		time.Duration(1<<63 - 1): "",
	} {
		var got []string
		ticks := timeTicks(span)
		for _, mark := range ticks {
			got = append(got, mark.Text)
		}
		if text := strings.Join(got, " "); want != "" && text != want || len(ticks) > 10 {
			t.Errorf("%v: got %s, want %s", span, text, want)
		}
	}
}

func TestPowerTicks(t *testing.T) {
	for _, test := range []struct {
		highest float64
		want    string
	}{
		{0, "0.0 W 0.5 W 1.0 W 1.5 W"},
		{0.03, "0.00 W 0.01 W 0.02 W 0.03 W 0.04 W"},
		{61.5, "0 W 20 W 40 W 60 W 80 W"},
		{313, "0 W 100 W 200 W 300 W 400 W"},
		{12_000, "0 W 5000 W 10\u202f000 W 15\u202f000 W"},
		{math.Inf(1), "0.0 W 0.5 W 1.0 W 1.5 W"},
	} {
		ticks, top := powerTicks(test.highest, 5)
		var got []string
		for _, mark := range ticks {
			got = append(got, mark.Text)
		}
		if text := strings.Join(got, " "); text != test.want || !math.IsInf(test.highest, 0) && top < test.highest {
			t.Errorf("%v W: got %s up to %v, want %s", test.highest, text, top, test.want)
		}
	}
}

// If the job ran alone, the average power of the chart equals that of the account.
func TestAverageMatchesAccount(t *testing.T) {
	rec := measured(t, 64)
	mean := chartOf(t, rec).Summary[0]
	got, err := strconv.ParseFloat(mean.Exact, 64)
	if want := float64(*decodeResult(&rec).Energy.MeanPower); err != nil || math.Abs(got-want) > want/100 {
		t.Errorf("got average %s (%v), want %v", mean.Exact, err, want)
	}
}

func TestTextClass(t *testing.T) {
	for percent, want := range map[int64]string{6: "", 12: "wide", 20: "wide", 25: "always", 100: "always"} {
		if got := textClass("6.6 %", percent, 100); got != want {
			t.Errorf("%d %% of the width: got %q, want %q", percent, got, want)
		}
	}
}
