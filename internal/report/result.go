package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// result is a decoded result. Parts that could not be decoded are zero.
type result struct {
	protocol.JobResult
	Energy   *energy.Account
	Scores   energy.Scores
	Quality  job.Quality
	Notes    []string
	Ladder   []job.Rendition // the outputs, where there are several
	Problems []string        // parts that could not be decoded
}

// decodeResult decodes a record's result as far as possible. It returns nil if there is none.
func decodeResult(rec *job.Record) *result {
	if len(rec.Result) == 0 {
		return nil
	}
	var stored struct {
		protocol.JobResult
		AnalyzerOutput map[string]json.RawMessage `json:"analyzer_output"`
	}
	r := &result{}
	r.decode("the result", rec.Result, &stored)
	r.JobResult = stored.JobResult
	for name, part := range map[string]any{
		"energy": &r.Energy, "scores": &r.Scores, "quality": &r.Quality, "notes": &r.Notes, "renditions": &r.Ladder,
	} {
		if raw, ok := stored.AnalyzerOutput[name]; ok {
			r.decode("the result's "+name, raw, part)
		}
	}
	slices.Sort(r.Problems)
	return r
}

// decode decodes a part. If a field has the wrong type, the others are still decoded.
func (r *result) decode(what string, raw []byte, into any) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	err := d.Decode(into)
	var field *json.UnmarshalTypeError
	switch {
	case errors.As(err, &field):
		r.Problems = append(r.Problems, fmt.Sprintf("Could not decode a field of %s: %s is a %s.", what, cmp.Or(sanitize(strings.TrimPrefix(field.Field, "JobResult.")), "its value"), sanitize(field.Value)))
	case err != nil:
		r.Problems = append(r.Problems, fmt.Sprintf("Could not decode %s: %s.", what, sanitize(err.Error())))
	}
}

// number returns a metric. ok is false if it is absent, not a number, or 0, which means
// unknown except for counts.
func (r *result) number(key string) (value float64, ok bool) {
	n, ok := r.count(key)
	return n, ok && n != 0
}

// count returns a metric that may be 0.
func (r *result) count(key string) (value float64, ok bool) {
	n, ok := r.Metrics[key].(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

// text returns a metric that is a string, or "" if it is absent.
func (r *result) text(key string) string {
	s, _ := r.Metrics[key].(string)
	return sanitize(s)
}
