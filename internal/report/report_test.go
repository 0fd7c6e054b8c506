package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"html"
	"io"
	"strings"
	"testing"

	"ffmpeg-agent/messages/job"
)

func TestMissingAttempt(t *testing.T) {
	for _, selected := range []int{-1, 1} {
		for name, write := range writers {
			if err := write(io.Discard, []job.Record{running()}, selected); err == nil {
				t.Errorf("%s of attempt %d of 1: got no error", name, selected)
			}
		}
	}
}

func TestWriteError(t *testing.T) {
	for name, write := range writers {
		if err := write(failingWriter{}, []job.Record{running()}, 0); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("%s: got error %v, want that of the writer", name, err)
		}
	}
}

// The result is written exactly as it is sent to the master.
func TestJSON(t *testing.T) {
	rec := running()
	if err := JSON(io.Discard, &rec); err == nil || !strings.Contains(err.Error(), "has no result (running") {
		t.Errorf("without a result: got error %v", err)
	}
	rec.Result = json.RawMessage("{ \"job_id\":\"a\",  \"logs\":\"<&> ü\" }\n")
	var b bytes.Buffer
	if err := JSON(&b, &rec); err != nil || b.String() != string(rec.Result) {
		t.Errorf("got %q, %v; want %q", b.String(), err, rec.Result)
	}
}

var writers = map[string]func(io.Writer, []job.Record, int) error{"HTML": HTML, "Text": Text}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestInvalidResults(t *testing.T) {
	for name, test := range map[string]struct{ result, want string }{
		"not JSON":               {`{"status":`, "Could not decode the result"},
		"wrong type":             {`{"status":"completed","progress":"all"}`, "Could not decode a field of the result: progress is a string."},
		"null":                   {`null`, "outcome unknown"},
		"list":                   {`[]`, "Could not decode"},
		"empty":                  {`{}`, "No energy was measured"},
		"parts of wrong types":   {`{"analyzer_output":{"energy":5,"scores":[],"quality":"x","notes":{}}}`, "Could not decode a field of the result's energy"},
		"empty energy":           {`{"analyzer_output":{"energy":{}}}`, "The energy of the job is unknown"},
		"one wrong field":        {`{"analyzer_output":{"energy":{"total":{"joules":12.5,"source":"measured","gaps":1.5}}}}`, `<data value="12.5">12.500`},
		"huge numbers":           {`{"energy_joules":1e999,"analyzer_output":{"energy":{"total":{"joules":1e300,"source":"measured"}}}}`, "1e+300"},
		"metrics of wrong types": {`{"metrics":{"frames":"many","duration":-1,"command":"x","encoder":[]}}`, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := measured(t, 32)
			rec.Result = json.RawMessage(test.result)
			page := htmlOf(t, rec)
			check(t, page)
			if !strings.Contains(html.UnescapeString(page), test.want) {
				t.Errorf("page lacks %q: %s", test.want, textOf(all(tree(t, page), "main")[0]))
			}
			if err := Text(io.Discard, []job.Record{rec}, 0); err != nil {
				t.Errorf("Text: %v", err)
			}
		})
	}
}
