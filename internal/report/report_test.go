package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

var update = flag.Bool("update", false, "write the golden files anew")

// htmlOf is the page of the last record.
func htmlOf(t testing.TB, records ...job.Record) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, records, len(records)-1); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPages(t *testing.T) {
	all := allSamples(t)
	for _, name := range names(all) {
		t.Run(name, func(t *testing.T) {
			got := htmlOf(t, all[name]...)
			path := filepath.Join("testdata", name+".html")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
			check(t, got)
			for _, word := range []string{"http:", "https:", "url(", "@import", "s3cr3t", "src=", "href="} {
				if strings.Contains(got, word) {
					t.Errorf("the page has %q in it", word)
				}
			}
		})
	}
}

// Elements and attributes that a page may have: none of them loads or runs anything.
var (
	elements = strings.Fields(`html head meta title style body header main section footer h1 h2 h3 p span small strong div dl dt dd ul li
		table caption thead tbody tr th td data time figure figcaption details summary pre svg g rect line path circle text`)
	attributes = strings.Fields(`lang charset http-equiv content name class id value datetime open scope tabindex role aria-label aria-labelledby aria-hidden
		x y x1 x2 y1 y2 dy cx cy r width height viewbox preserveaspectratio transform d`)
	void = []string{"meta"}
)

// check finds what a page must not have: elements that are not closed in order, or
// not allowed, ids that are there twice or missing, anything from outside.
func check(t testing.TB, page string) {
	t.Helper()
	z := html.NewTokenizer(strings.NewReader(page))
	var open []string
	ids := map[string]int{}
	var wanted []string
	for {
		kind := z.Next()
		token := z.Token()
		switch kind {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("not closed: %v", open)
			}
			for _, id := range wanted {
				if ids[id] != 1 {
					t.Errorf("%d elements have the id %q", ids[id], id)
				}
			}
			return
		case html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				t.Fatalf("</%s> closes %v", token.Data, open)
			}
			open = open[:len(open)-1]
		case html.StartTagToken, html.SelfClosingTagToken:
			if !slices.Contains(elements, token.Data) {
				t.Errorf("element %s", token.Data)
			}
			if kind == html.StartTagToken && !slices.Contains(void, token.Data) {
				open = append(open, token.Data)
			}
			for _, a := range token.Attr {
				checkAttribute(t, token.Data, a)
				switch a.Key {
				case "id":
					ids[a.Val]++
					wanted = append(wanted, a.Val)
				case "aria-labelledby":
					wanted = append(wanted, a.Val)
				}
			}
		}
	}
}

func checkAttribute(t testing.TB, element string, a html.Attribute) {
	t.Helper()
	if !slices.Contains(attributes, a.Key) {
		t.Errorf("attribute %s of %s", a.Key, element)
	}
	free := []string{"aria-label", "content", "value", "datetime"}
	if strings.ContainsAny(a.Val, `<>"'(){};:&\`) && !slices.Contains(free, a.Key) && a.Key != "transform" {
		t.Errorf("%s=%q of %s", a.Key, a.Val, element)
	}
	if a.Key == "value" {
		if _, err := strconv.ParseFloat(a.Val, 64); err != nil {
			t.Error(err)
		}
	}
	if a.Key == "datetime" {
		if _, err := time.Parse(time.RFC3339Nano, a.Val); err != nil {
			t.Error(err)
		}
	}
}

// tree is the page as a browser sees it.
func tree(t testing.TB, page string) *html.Node {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func all(root *html.Node, name string) []*html.Node {
	var found []*html.Node
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == name {
			found = append(found, n)
		}
	}
	return found
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func TestAPageTakesNoStylesButItsOwn(t *testing.T) {
	root := tree(t, htmlOf(t, demo(t)))
	sum := sha256.Sum256([]byte(textOf(all(root, "style")[0])))
	policy := ""
	for _, m := range all(root, "meta") {
		if attribute(m, "http-equiv") == "Content-Security-Policy" {
			policy = attribute(m, "content")
		}
	}
	if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, "default-src 'none'; style-src "+want+";") {
		t.Errorf("policy %s, want %s in it", policy, want)
	}
}

// evil is put wherever a text may come from a job or its master.
const evil = "\"'></style></title></textarea><script src=https://evil.example/x.js>alert(1)</script><img src=x onerror=alert(1)>" +
	"<svg onload=alert(1)>{{.}}`;}*{background:url(https://evil.example/)}@import 'x';javascript:alert(1)\x00\x1b[31m\u202e\r\n--><!--"

// poison puts a text into every string that a value holds, keys of maps but not
// their types.
func poison(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		if v.CanSet() {
			v.SetString(text)
		}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			poison(v.Elem(), text)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			poison(v.Field(i), text)
		}
	case reflect.Slice:
		for i := range v.Len() {
			poison(v.Index(i), text)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			value := reflect.New(v.Type().Elem()).Elem()
			value.Set(v.MapIndex(key))
			if value.Kind() == reflect.Interface {
				if _, isText := value.Interface().(string); isText {
					value.Set(reflect.ValueOf(text))
				}
				if list, isList := value.Interface().([]any); isList {
					for i := range list {
						list[i] = text
					}
				}
			}
			poison(value, text)
			v.SetMapIndex(key, value)
		}
	}
}

// poisoned is a record all of whose texts are another.
func poisoned(t testing.TB, rec job.Record, text string) job.Record {
	t.Helper()
	var r struct {
		protocol.JobResult
		AnalyzerOutput struct {
			Energy  *energy.Account `json:"energy"`
			Scores  energy.Scores   `json:"scores"`
			Quality job.Quality     `json:"quality"`
			Notes   []string        `json:"notes"`
		} `json:"analyzer_output"`
	}
	if err := json.Unmarshal(rec.Result, &r); err != nil {
		t.Fatal(err)
	}
	r.AnalyzerOutput.Notes = []string{text}
	r.AnalyzerOutput.Quality.Note, r.Error, r.FailureReason, rec.Why = text, text, "x", text
	r.Metrics["signal"] = text
	if e := r.AnalyzerOutput.Energy; e != nil {
		e.Notes = []string{text}
		e.Domains[energy.Domain(text)] = e.Breakdown
	}
	poison(reflect.ValueOf(&r).Elem(), text)
	rec.Samples = clone(t, rec.Samples)
	poison(reflect.ValueOf(&rec).Elem().FieldByName("Lease"), text)
	poison(reflect.ValueOf(&rec).Elem().FieldByName("Samples"), text)
	rec.Why, rec.State = text, job.RecordState(text)
	// JobResult has its own encoding: the parts are put together by hand.
	body, err := json.Marshal(r.JobResult)
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := json.Unmarshal(body, &whole); err != nil {
		t.Fatal(err)
	}
	whole["analyzer_output"] = r.AnalyzerOutput
	if rec.Result, err = json.Marshal(whole); err != nil {
		t.Fatal(err)
	}
	return rec
}

func clone[T any](t testing.TB, v *T) *T {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	copied := new(T)
	if err := json.Unmarshal(raw, copied); err != nil {
		t.Fatal(err)
	}
	return copied
}

func TestHostileTextsStayTexts(t *testing.T) {
	rec := poisoned(t, server(t, 64), evil)
	page := htmlOf(t, poisoned(t, demo(t), evil), rec)
	check(t, page)
	root := tree(t, page)
	if n := len(all(root, "style")); n != 1 {
		t.Errorf("%d style elements", n)
	}
	if got := textOf(all(root, "style")[0]); got != styles {
		t.Error("the styles are not the page's own")
	}
	for _, hidden := range []string{"\x00", "\x1b", "\u202e", "\r"} {
		if strings.Contains(page, hidden) {
			t.Errorf("%q is in the page", hidden)
		}
	}
	// The texts must have come that far for all this to say something.
	for _, place := range []string{"h1", "dd", "li", "th", "pre", "h2", "title"} {
		if !slices.ContainsFunc(all(root, place), func(n *html.Node) bool { return strings.Contains(textOf(n), "<script src=https://evil.example/x.js>") }) {
			t.Errorf("no %s has the text in it", place)
		}
	}
}

func TestLongTextsAreCut(t *testing.T) {
	plain := len(htmlOf(t, poisoned(t, server(t, 64), "x")))
	long := len(htmlOf(t, poisoned(t, server(t, 64), strings.Repeat("ä<", 1<<14))))
	if long > plain+1<<18 {
		t.Errorf("a page of %d bytes grew to %d", plain, long)
	}
	lines := strings.Repeat(strings.Repeat("y", 1000)+"\n", 10_000)
	rec := failure(t)
	var r protocol.JobResult
	if err := json.Unmarshal(rec.Result, &r); err != nil {
		t.Fatal(err)
	}
	r.Logs = lines + "the end\n"
	rec.Result, _ = json.Marshal(r)
	page := htmlOf(t, rec)
	if len(page) > 100_000 || !strings.Contains(page, "the end") || !strings.Contains(page, "The last 60 lines") {
		t.Errorf("a log of %d bytes makes a page of %d", len(lines), len(page))
	}
}

// TestTheLargestPage says how large a page gets.
func TestTheLargestPage(t *testing.T) {
	page := htmlOf(t, server(t, energy.MaxCurvePoints))
	check(t, page)
	t.Logf("%d points of 7 zones: %d bytes", energy.MaxCurvePoints, len(page))
	if len(page) > 400_000 {
		t.Errorf("the page has %d bytes", len(page))
	}
}

// TestAPageIsTheSameEverywhere: neither the zone that times were written in nor the
// order of a map matters.
func TestAPageIsTheSameEverywhere(t *testing.T) {
	rec := server(t, 64)
	want := htmlOf(t, rec)
	far := time.FixedZone("far", 13*3600+45*60)
	var whole map[string]any
	if err := json.Unmarshal(rec.Result, &whole); err != nil {
		t.Fatal(err)
	}
	account := whole["analyzer_output"].(map[string]any)["energy"].(map[string]any)
	for _, key := range []string{"start", "end"} {
		moment, err := time.Parse(time.RFC3339Nano, account[key].(string))
		if err != nil {
			t.Fatal(err)
		}
		account[key] = moment.In(far)
	}
	rec.Result, _ = json.Marshal(whole)
	rec.Samples = clone(t, rec.Samples)
	rec.Samples.Curve.Start = rec.Samples.Curve.Start.In(far)
	for i := range rec.Samples.Phases {
		rec.Samples.Phases[i].From = rec.Samples.Phases[i].From.In(far)
	}
	rec.AcceptedAt, *rec.StartedAt = rec.AcceptedAt.In(far), rec.StartedAt.In(far)
	for range 10 {
		if diff := cmp.Diff(want, htmlOf(t, rec)); diff != "" {
			t.Fatal(diff)
		}
	}
}

// shown are the figures of the page's tables and lists by their names, exact and as
// people read them. The last of a name counts.
func shown(t testing.TB, page string) map[string][2]string {
	t.Helper()
	figures := map[string][2]string{}
	put := func(name, place *html.Node) {
		title := ""
		for c := range name.ChildNodes() {
			if c.Type == html.TextNode && strings.TrimSpace(c.Data) != "" {
				title = strings.TrimSpace(c.Data)
				break
			}
		}
		if datas := all(place, "data"); len(datas) > 0 {
			if _, twice := figures[title]; !twice {
				figures[title] = [2]string{attribute(datas[0], "value"), textOf(datas[0])}
			}
		}
	}
	root := tree(t, page)
	for _, tr := range all(root, "tr") {
		if th := all(tr, "th"); len(th) == 1 {
			put(th[0], tr)
		}
	}
	for _, dt := range all(root, "dt") {
		put(dt, dt.Parent)
	}
	for _, p := range all(root, "p") {
		if attribute(p, "class") == "big" {
			if datas := all(p, "data"); len(datas) > 0 {
				figures["headline"] = [2]string{attribute(datas[0], "value"), textOf(datas[0])}
			}
		}
	}
	return figures
}

func TestFiguresAreTheRecords(t *testing.T) {
	for name, rec := range map[string]job.Record{"measured": server(t, 64), "estimated": demo(t), "overlapped": crowd(t, 40), "failed": failure(t)} {
		t.Run(name, func(t *testing.T) {
			r := readResult(&rec)
			if len(r.Problems) > 0 || r.Energy == nil {
				t.Fatal(r.Problems)
			}
			a, s := r.Energy, r.Scores
			got := shown(t, htmlOf(t, rec))
			want := map[string]*float64{
				"headline": r.EnergyJoules, "this job, in all": r.EnergyJoules, "J per frame": s.JoulesPerFrame, "J per second of video": s.JoulesPerMediaSecond,
				"µJ per pixel": s.MicrojoulesPerPixel, "pixels per J": s.PixelsPerJoule, "frames per J": s.FramesPerJoule, "Mbit/s per W": s.MegabitsPerSecondPerWatt,
				"quality-weighted pixels per J": s.QualityWeightedPixelsPerJoule, "VMAF": r.VMAFScore, "PSNR": r.Quality.PSNR, "SSIM": r.Quality.SSIM,
				"idle baseline": (*float64)(a.Idle.Energy), "own work": (*float64)(a.Job.Energy), "rest": (*float64)(a.Rest.Energy), "net of idle": (*float64)(a.Net.Energy),
				"machine, in all": (*float64)(a.Machine.Energy), "mean power": (*float64)(a.MeanPower),
			}
			for i := range a.Zones {
				want[a.Zones[i].Name] = (*float64)(a.Zones[i].Energy)
			}
			for title, key := range map[string]string{"frames": "frames", "FFmpeg ran": "duration", "video made": "media_duration", "pixels encoded": "pixels_processed"} {
				if v, ok := r.number(key); ok {
					want[title] = &v
				} else {
					want[title] = nil
				}
			}
			for title, figure := range want {
				shown, there := got[title]
				if figure == nil || !there {
					if (figure == nil) == there {
						t.Errorf("%s: shown %v, the record has %v", title, shown, figure)
					}
					continue
				}
				if v, err := strconv.ParseFloat(shown[0], 64); err != nil || v != *figure {
					t.Errorf("%s: %s, want %v", title, shown[0], *figure)
				}
				text := strings.NewReplacer(thin, "", hard, " ").Replace(shown[1])
				grain := max(0.05, math.Abs(*figure)/1000)
				if title == "headline" || title == "net of idle" {
					grain = float64(*a.Total.ErrorBound) / 10
				}
				if v, err := strconv.ParseFloat(strings.Fields(text)[0], 64); err != nil || math.Abs(v-*figure) > grain {
					t.Errorf("%s: reads %q, want %v", title, shown[1], *figure)
				}
			}
		})
	}
}

func TestUnknownIsNeverZero(t *testing.T) {
	page := htmlOf(t, blind(t))
	if got := shown(t, page); got["headline"][0] != "" || got["J per frame"][0] != "" {
		t.Errorf("figures out of nothing: %v", got)
	}
	for _, want := range []string{`<p class="big">unknown</p>`, "permission denied", "unavailable"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, zero := range []string{">0.000", ">0 J", " 0 J", "0.000 J", "0.0 W"} {
		if strings.Contains(page, zero) {
			t.Errorf("an unknown energy is shown as %q", zero)
		}
	}
}

func TestResultsThatCannotBeReadWhole(t *testing.T) {
	for name, test := range map[string]struct{ result, want string }{
		"no JSON":         {`{"status":`, "The stored result could not be read"},
		"a wrong type":    {`{"status":"completed","progress":"all"}`, "A field of the stored result could not be read and is missing here: progress is a string."},
		"null":            {`null`, "outcome unknown"},
		"a list":          {`[]`, "could not be read"},
		"nothing":         {`{}`, "No energy was counted"},
		"wrong parts":     {`{"analyzer_output":{"energy":5,"scores":[],"quality":"x","notes":{}}}`, "A field of the stored result's energy"},
		"an empty energy": {`{"analyzer_output":{"energy":{}}}`, "What the job cost is not known"},
		"one bad figure":  {`{"analyzer_output":{"energy":{"total":{"joules":12.5,"source":"measured","gaps":1.5}}}}`, `<data value="12.5">12.500`},
		"too large":       {`{"energy_joules":1e999,"analyzer_output":{"energy":{"total":{"joules":1e300,"source":"measured"}}}}`, "1e+300"},
		"odd metrics":     {`{"metrics":{"frames":"many","duration":-1,"command":"x","encoder":[]}}`, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := server(t, 32)
			rec.Result = json.RawMessage(test.result)
			page := htmlOf(t, rec)
			check(t, page)
			if !strings.Contains(html.UnescapeString(page), test.want) {
				t.Errorf("%q is missing in %s", test.want, textOf(all(tree(t, page), "main")[0]))
			}
		})
	}
}

func TestAnAttemptThatIsNotThere(t *testing.T) {
	for _, chosen := range []int{-1, 1} {
		if err := HTML(&bytes.Buffer{}, []job.Record{running()}, chosen); err == nil {
			t.Errorf("attempt %d of 1 is shown", chosen)
		}
	}
}

func TestAnErrorOfTheWriterComesBack(t *testing.T) {
	if err := HTML(refusing{}, []job.Record{running()}, 0); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("got %v", err)
	}
}

type refusing struct{}

func (refusing) Write([]byte) (int, error) { return 0, fmt.Errorf("no room") }

// FuzzHTML: whatever the journal has, there is a page and nothing in it runs or loads.
func FuzzHTML(f *testing.F) {
	for _, rec := range []job.Record{server(f, 16), demo(f), failure(f), blind(f)} {
		samples, err := json.Marshal(rec.Samples)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(rec.Result), samples)
	}
	f.Add([]byte(`{"analyzer_output":{"energy":{"domains":{"<x>":{}},"zones":[{}]}}}`), []byte(`{"curve":{"points":[{"from_ms":-1,"to_ms":9223372036854775807,"zones_uj":[1,2]}]}}`))
	f.Fuzz(func(t *testing.T, result, samples []byte) {
		rec := server(t, 8)
		rec.Result, rec.Samples = result, &job.Samples{}
		if json.Unmarshal(samples, rec.Samples) != nil {
			rec.Samples = nil
		}
		check(t, htmlOf(t, rec))
	})
}

func TestWhatIsNotAddedSaysWhy(t *testing.T) {
	for _, test := range []struct {
		zone energy.ZoneFigure
		want string
	}{
		{energy.ZoneFigure{ID: "intel-rapl:0:0", Name: "core"}, "inside its package"},
		{energy.ZoneFigure{ID: "intel-rapl:1:0", Name: "package-1-core"}, "inside its package"},
		{energy.ZoneFigure{ID: "intel-rapl:2:1", Name: "package-1-die-0-uncore"}, "inside its package"},
		{energy.ZoneFigure{ID: "intel-rapl-mmio:0", Name: "mmio-package-0"}, "read in another way"},
		{energy.ZoneFigure{ID: "intel-rapl:2", Name: "psys", Domain: energy.DomainPlatform}, "at its supply"},
		{energy.ZoneFigure{ID: "intel-rapl:3", Name: "multicore"}, "part of another zone"},
	} {
		if got := whyNotAdded(&test.zone); !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want something of %q", test.zone.Name, got, test.want)
		}
	}
}

// TestADomainThatIsDividedInPartShowsWhatIsUnknown: what is missing of a domain's energy is
// named, so that its parts do not seem to be all.
func TestADomainThatIsDividedInPartShowsWhatIsUnknown(t *testing.T) {
	known := func(j energy.Joules) energy.Figure {
		return energy.Figure{Energy: &j, Source: energy.Measured, CoveragePercent: 100, ErrorBound: of(energy.Joules(0.5))}
	}
	vague := energy.Figure{Source: energy.Unavailable, Method: "who used the card is not known"}
	a := &energy.Account{Breakdown: energy.Breakdown{Total: known(70), Idle: known(50), Net: known(20), Job: vague, Rest: vague}}
	a.Domains = map[energy.Domain]energy.Breakdown{energy.DomainGPU: a.Breakdown}
	var got []string
	for _, r := range chargedRows(a)[5:] {
		got = append(got, r.Name+" "+r.Energy+" "+r.Origin)
	}
	want := []string{"GPU 70.000 measured, 100.0 % read, no gaps", "idle baseline 50.000 ", "own work unknown who used the card is not known", "rest unknown ", "net of idle 20.000 "}
	if !slices.Equal(got, want) {
		t.Errorf("rows are %q, want %q", got, want)
	}
	a.Domains[energy.DomainGPU] = energy.Breakdown{Total: known(70), Idle: vague, Net: vague, Job: vague, Rest: vague}
	if rows := chargedRows(a)[5:]; len(rows) != 1 {
		t.Errorf("nothing of it is divided: %+v", rows)
	}
}

func TestTheHeadlineSaysWhoseEnergyItIs(t *testing.T) {
	for name, test := range map[string]struct {
		rec  job.Record
		want string
	}{
		"alone": {server(t, 64), "All that the machine used while FFmpeg ran"}, "overlapped": {crowd(t, 40), "This job's share of what the machine used"},
	} {
		if got := newPage(&test.rec).Headline.Text; !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want something of %q", name, got, test.want)
		}
	}
}

// TestWhatCannotBeKnownIsNotAskedFor: of an attempt without an encode the page has no list of
// unknowns, and says why it has no drawing.
func TestWhatCannotBeKnownIsNotAskedFor(t *testing.T) {
	for name, test := range map[string]struct {
		rec              job.Record
		started, noChart string
	}{
		"refused": {refused(t), "never", "FFmpeg did not start"},
		"taken":   {job.Record{Lease: leaseOf(1), State: job.RecordAccepted, AcceptedAt: at(0)}, "not yet", "with the result"},
		"running": {running(), unknown, "with the result"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPage(&test.rec)
			if len(p.Encode) > 0 {
				t.Errorf("an encode: %+v", p.Encode)
			}
			if started := p.Meta[3]; started.Value != test.started && started.Time == nil {
				t.Errorf("started %q, want %q", started.Value, test.started)
			}
			if !strings.Contains(p.NoChart, test.noChart) {
				t.Errorf("no drawing: %q, want something of %q", p.NoChart, test.noChart)
			}
		})
	}
}

// TestTheHeadlineSaysWhatWasMeasured: an estimate of the processor beside a measured card is
// not a figure of which nothing was measured.
func TestTheHeadlineSaysWhatWasMeasured(t *testing.T) {
	figure := func(s energy.Source) energy.Figure {
		return energy.Figure{Energy: of(energy.Joules(50)), Source: s, CoveragePercent: 100}
	}
	zone := func(name string, counted bool, s energy.Source) energy.ZoneFigure {
		return energy.ZoneFigure{ID: name, Name: name, Counted: counted, Figure: figure(s)}
	}
	cpu := zone("cpu", true, energy.Estimated)
	for name, test := range map[string]struct {
		zones []energy.ZoneFigure
		want  string
	}{
		"nothing":                {[]energy.ZoneFigure{cpu}, "Nothing was measured"},
		"a card":                 {[]energy.ZoneFigure{cpu, zone("gpu0", true, energy.Measured)}, "Only a part was measured (gpu0); the rest comes from a model (cpu)."},
		"what does not count":    {[]energy.ZoneFigure{cpu, zone("psys", false, energy.Measured)}, "Nothing was measured"},
		"a card that was silent": {[]energy.ZoneFigure{cpu, {ID: "gpu0", Counted: true, Figure: energy.Figure{Source: energy.Unavailable}}}, "Nothing was measured"},
		"unknown":                {nil, "At least one part of it was not measured"},
	} {
		a := &energy.Account{Breakdown: energy.Breakdown{Total: figure(energy.Estimated)}, Zones: test.zones}
		if got := headlineOf(a).Text; !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want something of %q", name, got, test.want)
		}
	}
}

// TestAnOutputThatIsGoneIsNotUnknown: it was looked at and removed.
func TestAnOutputThatIsGoneIsNotUnknown(t *testing.T) {
	rec := demo(t)
	if facts := newPage(&rec).Encode; !slices.ContainsFunc(facts, func(f fact) bool { return f.Name == "output" && f.Value == "not kept" }) {
		t.Errorf("the encode is %+v, want an output that is not kept", facts)
	}
}

// TestWhatTheQualityIsOf: a note beside a figure does not say that the figure is missing.
func TestWhatTheQualityIsOf(t *testing.T) {
	vmaf := 93.5
	for name, q := range map[string]job.Quality{
		"note":    {VMAF: &vmaf, Note: "vmaf of the first output (640x360) alone; the job made 2"},
		"missing": {Note: "vmaf not measured: this ffmpeg has no filter libvmaf"},
	} {
		facts := quality(&q)
		if last := facts[len(facts)-1]; last.Name != name || last.Value != q.Note {
			t.Errorf("%+v, want a fact named %s", last, name)
		}
	}
}
