package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
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

var update = flag.Bool("update", false, "update the golden files")

// htmlOf returns the page of the last record.
func htmlOf(t testing.TB, records ...job.Record) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, records, len(records)-1); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// golden compares text with a golden file.
func golden(t *testing.T, file, text string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestHTML(t *testing.T) {
	for name, records := range allRecords(t) {
		t.Run(name, func(t *testing.T) {
			got := htmlOf(t, records...)
			golden(t, name+".html", strings.Replace(got, styles, "(page.css)", 1))
			check(t, got)
			for _, word := range []string{"http:", "https:", "url(", "@import", "s3cr3t", "src=", "href="} {
				if strings.Contains(got, word) {
					t.Errorf("page contains %q", word)
				}
			}
		})
	}
}

// Allowed elements and attributes. None of them loads or runs anything.
var (
	elements = strings.Fields(`html head meta title style body header main section footer h1 h2 h3 p span small strong div dl dt dd ul li
		table caption thead tbody tr th td data time figure figcaption details summary pre svg g rect line path circle text`)
	attributes = strings.Fields(`lang charset http-equiv content name class id value datetime open scope tabindex role aria-label aria-labelledby aria-hidden
		x y x1 x2 y1 y2 dy cx cy r width height viewbox preserveaspectratio transform d`)
	void = []string{"meta"}
)

// check checks that a page is well formed, has only allowed elements and attributes, and that
// IDs are unique and exist.
func check(t testing.TB, page string) {
	t.Helper()
	z := html.NewTokenizer(strings.NewReader(page))
	var open []string
	ids := map[string]int{}
	var references []string
	for {
		kind := z.Next()
		token := z.Token()
		switch kind {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("elements not closed: %v", open)
			}
			for _, id := range references {
				if ids[id] != 1 {
					t.Errorf("got %d elements with id %q, want 1", ids[id], id)
				}
			}
			return
		case html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				t.Fatalf("got </%s>, open elements are %v", token.Data, open)
			}
			open = open[:len(open)-1]
		case html.StartTagToken, html.SelfClosingTagToken:
			if !slices.Contains(elements, token.Data) {
				t.Errorf("element %s is not allowed", token.Data)
			}
			if kind == html.StartTagToken && !slices.Contains(void, token.Data) {
				open = append(open, token.Data)
			}
			for _, a := range token.Attr {
				checkAttribute(t, token.Data, a)
				switch a.Key {
				case "id":
					ids[a.Val]++
					references = append(references, a.Val)
				case "aria-labelledby":
					references = append(references, a.Val)
				}
			}
		}
	}
}

func checkAttribute(t testing.TB, element string, a html.Attribute) {
	t.Helper()
	if !slices.Contains(attributes, a.Key) {
		t.Errorf("attribute %s of %s is not allowed", a.Key, element)
	}
	anyText := []string{"aria-label", "content", "value", "datetime", "transform"}
	if strings.ContainsAny(a.Val, `<>"'(){};:&\`) && !slices.Contains(anyText, a.Key) {
		t.Errorf("%s=%q of %s is not allowed", a.Key, a.Val, element)
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

// tree parses a page as a browser does.
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

func TestContentSecurityPolicy(t *testing.T) {
	root := tree(t, htmlOf(t, estimated(t)))
	sum := sha256.Sum256([]byte(textOf(all(root, "style")[0])))
	policy := ""
	for _, m := range all(root, "meta") {
		if attribute(m, "http-equiv") == "Content-Security-Policy" {
			policy = attribute(m, "content")
		}
	}
	if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, "default-src 'none'; style-src "+want+";") {
		t.Errorf("got policy %s, want %s in it", policy, want)
	}
}

// evil is put into all texts that can come from a job or its master.
const evil = "\"'></style></title></textarea><script src=https://evil.example/x.js>alert(1)</script><img src=x onerror=alert(1)>" +
	"<svg onload=alert(1)>{{.}}`;}*{background:url(https://evil.example/)}@import 'x';javascript:alert(1)\x00\x1b[31m\u202e\r\n--><!--"

// poison replaces all strings in a value, except for keys of maps.
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

// poisoned returns a record with all texts replaced.
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
	// JobResult.MarshalJSON would encode its own analyzer_output, so it is replaced here.
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

func TestHostileTextIsEscaped(t *testing.T) {
	rec := poisoned(t, measured(t, 64), evil)
	page := htmlOf(t, poisoned(t, estimated(t), evil), rec)
	check(t, page)
	root := tree(t, page)
	if n := len(all(root, "style")); n != 1 {
		t.Errorf("got %d style elements, want 1", n)
	}
	if got := textOf(all(root, "style")[0]); got != styles {
		t.Errorf("got style sheet %q, want the page's own", got)
	}
	for _, hidden := range []string{"\x00", "\x1b", "\u202e", "\r"} {
		if strings.Contains(page, hidden) {
			t.Errorf("page contains %q", hidden)
		}
	}
	// The text must be on the page, or this test would prove nothing.
	for _, place := range []string{"h1", "dd", "li", "th", "pre", "h2", "title"} {
		if !slices.ContainsFunc(all(root, place), func(n *html.Node) bool { return strings.Contains(textOf(n), "<script src=https://evil.example/x.js>") }) {
			t.Errorf("no %s contains the text", place)
		}
	}
}

func TestLongTextIsTruncated(t *testing.T) {
	plain := len(htmlOf(t, poisoned(t, measured(t, 64), "x")))
	long := len(htmlOf(t, poisoned(t, measured(t, 64), strings.Repeat("ä<", 1<<14))))
	if long > plain+1<<18 {
		t.Errorf("got a page of %d bytes, %d with short texts", long, plain)
	}
	lines := strings.Repeat(strings.Repeat("y", 1000)+"\n", 10_000)
	rec := failed(t)
	var r protocol.JobResult
	if err := json.Unmarshal(rec.Result, &r); err != nil {
		t.Fatal(err)
	}
	r.Logs = lines + "last line\n"
	rec.Result, _ = json.Marshal(r)
	page := htmlOf(t, rec)
	if len(page) > 100_000 || !strings.Contains(page, "last line") || !strings.Contains(page, "Last 60 lines") {
		t.Errorf("got a page of %d bytes for a log of %d, want the last 60 lines in up to 100000 bytes", len(page), len(lines))
	}
}

func TestLargestPage(t *testing.T) {
	page := htmlOf(t, measured(t, energy.MaxCurvePoints))
	check(t, page)
	if len(page) > 400_000 {
		t.Errorf("got %d bytes for %d points of 7 zones, want at most 400000", len(page), energy.MaxCurvePoints)
	}
}

// The page must not depend on time zones or on the order of maps.
func TestPageIsDeterministic(t *testing.T) {
	rec := measured(t, 64)
	want := htmlOf(t, rec)
	zone := time.FixedZone("CHADT", 13*3600+45*60)
	var whole map[string]any
	if err := json.Unmarshal(rec.Result, &whole); err != nil {
		t.Fatal(err)
	}
	account := whole["analyzer_output"].(map[string]any)["energy"].(map[string]any)
	for _, key := range []string{"start", "end"} {
		at, err := time.Parse(time.RFC3339Nano, account[key].(string))
		if err != nil {
			t.Fatal(err)
		}
		account[key] = at.In(zone)
	}
	rec.Result, _ = json.Marshal(whole)
	rec.Samples = clone(t, rec.Samples)
	rec.Samples.Curve.Start = rec.Samples.Curve.Start.In(zone)
	for i := range rec.Samples.Phases {
		rec.Samples.Phases[i].From = rec.Samples.Phases[i].From.In(zone)
	}
	rec.AcceptedAt, *rec.StartedAt = rec.AcceptedAt.In(zone), rec.StartedAt.In(zone)
	for range 10 {
		if diff := cmp.Diff(want, htmlOf(t, rec)); diff != "" {
			t.Fatalf("page (-want +got):\n%s", diff)
		}
	}
}

// FuzzHTML checks that any record makes a well-formed page with allowed elements only.
func FuzzHTML(f *testing.F) {
	for _, rec := range []job.Record{measured(f, 16), estimated(f), failed(f), unavailable(f)} {
		samples, err := json.Marshal(rec.Samples)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(rec.Result), samples)
	}
	f.Add([]byte(`{"analyzer_output":{"energy":{"domains":{"<x>":{}},"zones":[{}]}}}`), []byte(`{"curve":{"points":[{"from_ms":-1,"to_ms":9223372036854775807,"zones_uj":[1,2]}]}}`))
	f.Fuzz(func(t *testing.T, result, samples []byte) {
		rec := measured(t, 8)
		rec.Result, rec.Samples = result, &job.Samples{}
		if json.Unmarshal(samples, rec.Samples) != nil {
			rec.Samples = nil
		}
		check(t, htmlOf(t, rec))
	})
}
