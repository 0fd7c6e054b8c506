package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// result is what could be read of a stored result.
type result struct {
	protocol.JobResult
	Energy   *energy.Account
	Scores   energy.Scores
	Quality  job.Quality
	Notes    []string
	Problems []string // what could not be read
}

// readResult reads as much as it can; nil where the attempt has no result.
func readResult(rec *job.Record) *result {
	if len(rec.Result) == 0 {
		return nil
	}
	var stored struct {
		protocol.JobResult
		AnalyzerOutput map[string]json.RawMessage `json:"analyzer_output"`
	}
	r := &result{}
	r.read("the stored result", rec.Result, &stored)
	r.JobResult = stored.JobResult
	for name, part := range map[string]any{
		"energy": &r.Energy, "scores": &r.Scores, "quality": &r.Quality, "notes": &r.Notes,
	} {
		if raw, ok := stored.AnalyzerOutput[name]; ok {
			r.read("the stored result's "+name, raw, part)
		}
	}
	slices.Sort(r.Problems)
	return r
}

// read decodes into a part. A field of the wrong type costs only that field.
func (r *result) read(what string, raw []byte, into any) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	err := d.Decode(into)
	var field *json.UnmarshalTypeError
	switch {
	case errors.As(err, &field):
		r.Problems = append(r.Problems, fmt.Sprintf("A field of %s could not be read and is missing here: %s is a %s.", what, or(plain(strings.TrimPrefix(field.Field, "JobResult.")), "its value"), plain(field.Value)))
	case err != nil:
		r.Problems = append(r.Problems, fmt.Sprintf("%s could not be read: %s.", upper(what), plain(err.Error())))
	}
}

// number is a metric; false where it is absent, no number, or 0, which stands for
// unknown in all but counts.
func (r *result) number(key string) (float64, bool) {
	n, ok := r.count(key)
	return n, ok && n != 0
}

// count is a metric of which 0 is a figure.
func (r *result) count(key string) (float64, bool) {
	n, ok := r.Metrics[key].(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

// text is a metric in words; empty where it is absent.
func (r *result) text(key string) string {
	s, _ := r.Metrics[key].(string)
	return plain(s)
}
