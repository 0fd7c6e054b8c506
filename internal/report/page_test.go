package report

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
)

func TestValuesMatchTheRecord(t *testing.T) {
	for name, rec := range map[string]job.Record{"measured": measured(t, 64), "estimated": estimated(t), "overlapped": overlapped(t, 40), "failed": failed(t)} {
		t.Run(name, func(t *testing.T) {
			r := decodeResult(&rec)
			if len(r.Problems) > 0 || r.Energy == nil {
				t.Fatal(r.Problems)
			}
			a, s := r.Energy, r.Scores
			got := valuesOf(t, htmlOf(t, rec))
			want := map[string]*float64{
				"headline": r.EnergyJoules, "this job, total": r.EnergyJoules, "J per frame": s.JoulesPerFrame, "J per second of video": s.JoulesPerMediaSecond,
				"µJ per pixel": s.MicrojoulesPerPixel, "pixels per J": s.PixelsPerJoule, "frames per J": s.FramesPerJoule, "Mbit/s per W": s.MegabitsPerSecondPerWatt,
				"quality-weighted pixels per J": s.QualityWeightedPixelsPerJoule, "VMAF": r.VMAFScore, "PSNR": r.Quality.PSNR, "SSIM": r.Quality.SSIM,
				"idle baseline": (*float64)(a.Idle.Energy), "own work": (*float64)(a.Job.Energy), "rest": (*float64)(a.Rest.Energy), "net of idle": (*float64)(a.Net.Energy),
				"machine, total": (*float64)(a.Machine.Energy), "average power": (*float64)(a.MeanPower),
			}
			for i := range a.Zones {
				want[a.Zones[i].Name] = (*float64)(a.Zones[i].Energy)
			}
			for title, key := range map[string]string{"frames": "frames", "encoding time": "duration", "video duration": "media_duration", "pixels encoded": "pixels_processed"} {
				if v, ok := r.number(key); ok {
					want[title] = &v
				} else {
					want[title] = nil
				}
			}
			for title, value := range want {
				shown, present := got[title]
				if value == nil || !present {
					if (value == nil) == present {
						t.Errorf("%s: got %v, want %v", title, shown, value)
					}
					continue
				}
				if v, err := strconv.ParseFloat(shown[0], 64); err != nil || v != *value {
					t.Errorf("%s: got exact value %s, want %v", title, shown[0], *value)
				}
				tolerance := max(0.05, math.Abs(*value)/1000)
				if title == "headline" || title == "net of idle" {
					tolerance = float64(*a.Total.ErrorBound) / 10
				}
				text := plainSpaces.Replace(shown[1])
				if v, err := strconv.ParseFloat(strings.Fields(text)[0], 64); err != nil || math.Abs(v-*value) > tolerance {
					t.Errorf("%s: got text %q, want %v", title, shown[1], *value)
				}
			}
		})
	}
}

func TestUnknownIsNeverZero(t *testing.T) {
	page := htmlOf(t, unavailable(t))
	if got := valuesOf(t, page); got["headline"][0] != "" || got["J per frame"][0] != "" {
		t.Errorf("got values %v, want no energy", got)
	}
	for _, want := range []string{`<p class="big">unknown</p>`, "permission denied", "unavailable"} {
		if !strings.Contains(page, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	for _, zero := range []string{">0.000", ">0 J", " 0 J", "0.000 J", "0.0 W"} {
		if strings.Contains(page, zero) {
			t.Errorf("page contains %q", zero)
		}
	}
}

func TestHeadlineForSharedMachine(t *testing.T) {
	for name, test := range map[string]struct {
		rec  job.Record
		want string
	}{
		"alone": {measured(t, 64), "All energy that the machine used"}, "overlapped": {overlapped(t, 40), "This job's share of the energy"},
	} {
		if got := recordPage(&test.rec).Headline.Text; !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, want %q in it", name, got, test.want)
		}
	}
}

func TestAttemptWithoutEncode(t *testing.T) {
	for name, test := range map[string]struct {
		rec              job.Record
		started, noChart string
	}{
		"refused":  {refused(t), "never", "FFmpeg was not started"},
		"accepted": {job.Record{Lease: leaseOf(1), State: job.RecordAccepted, AcceptedAt: at(0)}, "not yet", "when there is a result"},
		"running":  {running(), unknown, "when there is a result"},
	} {
		t.Run(name, func(t *testing.T) {
			p := recordPage(&test.rec)
			if len(p.Encode) > 0 {
				t.Errorf("got encode %+v, want none", p.Encode)
			}
			if started := p.Meta[3]; started.Value != test.started && started.Time == nil {
				t.Errorf("got started %q, want %q", started.Value, test.started)
			}
			if !strings.Contains(p.NoChart, test.noChart) {
				t.Errorf("got no chart because %q, want %q in it", p.NoChart, test.noChart)
			}
		})
	}
}

func TestHeadlineForPartialEstimate(t *testing.T) {
	figure := func(s energy.Source) energy.Figure {
		return energy.Figure{Energy: pointer(energy.Joules(50)), Source: s, CoveragePercent: 100}
	}
	zone := func(name string, counted bool, s energy.Source) energy.ZoneFigure {
		return energy.ZoneFigure{ID: name, Name: name, Counted: counted, Figure: figure(s)}
	}
	cpu := zone("cpu", true, energy.Estimated)
	for name, test := range map[string]struct {
		zones []energy.ZoneFigure
		want  string
	}{
		"estimate only":    {[]energy.ZoneFigure{cpu}, "nothing was measured"},
		"measured GPU":     {[]energy.ZoneFigure{cpu, zone("gpu0", true, energy.Measured)}, "Only a part was measured (gpu0); the rest is estimated by a model (cpu)."},
		"not counted zone": {[]energy.ZoneFigure{cpu, zone("psys", false, energy.Measured)}, "nothing was measured"},
		"unreadable GPU":   {[]energy.ZoneFigure{cpu, {ID: "gpu0", Counted: true, Figure: energy.Figure{Source: energy.Unavailable}}}, "nothing was measured"},
		"no zones":         {nil, "At least one part of it is estimated"},
	} {
		a := &energy.Account{Breakdown: energy.Breakdown{Total: figure(energy.Estimated)}, Zones: test.zones}
		if got := headlineOf(a).Text; !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, want %q in it", name, got, test.want)
		}
	}
}

func TestDeletedOutputIsNotUnknown(t *testing.T) {
	rec := estimated(t)
	if facts := recordPage(&rec).Encode; !slices.ContainsFunc(facts, func(f fact) bool { return f.Name == "output" && f.Value == "not kept" }) {
		t.Errorf("got encode %+v, want an output that is not kept", facts)
	}
}

// A note is labeled "missing" only if there is no value.
func TestQualityNote(t *testing.T) {
	vmaf := 93.5
	for name, q := range map[string]job.Quality{
		"note":    {VMAF: &vmaf, Note: "vmaf of the first of 2 outputs (640x360)"},
		"missing": {Note: "vmaf not measured: FFmpeg lacks libvmaf"},
	} {
		facts := quality(&q)
		if last := facts[len(facts)-1]; last.Name != name || last.Value != q.Note {
			t.Errorf("got fact %+v, want it named %s", last, name)
		}
	}
}

// valuesOf returns the exact value and the text of all values in the tables and lists of a
// page, by name. The first of a name counts.
func valuesOf(t testing.TB, page string) map[string][2]string {
	t.Helper()
	values := map[string][2]string{}
	add := func(name, place *html.Node) {
		title := ""
		for c := range name.ChildNodes() {
			if c.Type == html.TextNode && strings.TrimSpace(c.Data) != "" {
				title = strings.TrimSpace(c.Data)
				break
			}
		}
		if datas := all(place, "data"); len(datas) > 0 {
			if _, twice := values[title]; !twice {
				values[title] = [2]string{attribute(datas[0], "value"), textOf(datas[0])}
			}
		}
	}
	root := tree(t, page)
	for _, tr := range all(root, "tr") {
		if th := all(tr, "th"); len(th) == 1 {
			add(th[0], tr)
		}
	}
	for _, dt := range all(root, "dt") {
		add(dt, dt.Parent)
	}
	for _, p := range all(root, "p") {
		if attribute(p, "class") == "big" {
			if datas := all(p, "data"); len(datas) > 0 {
				values["headline"] = [2]string{attribute(datas[0], "value"), textOf(datas[0])}
			}
		}
	}
	return values
}
