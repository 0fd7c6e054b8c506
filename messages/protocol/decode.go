package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// UnmarshalJSON reads a job leniently: numbers may be strings, null or absent
// fields stay zero, unknown fields are ignored, and a field that cannot be
// understood is named in Problems instead of refusing the whole job, since the
// master has already assigned it. Only input that is no JSON object is an error.
func (j *Job) UnmarshalJSON(data []byte) error {
	o, err := decodeObject(data)
	if err != nil {
		return fmt.Errorf("decoding job: %w", err)
	}
	*j = Job{}
	o.text("id", &j.ID)
	o.integer("sequence_number", &j.SequenceNumber)
	o.text("scenario", &j.Scenario)
	o.text("confidence", &j.Confidence)
	o.text("engine", &j.Engine)
	o.text("classification", &j.Classification)
	o.parameters("parameters", &j.Parameters)
	o.text("status", (*string)(&j.Status))
	o.text("queue", &j.Queue)
	o.text("priority", &j.Priority)
	o.number("progress", &j.Progress)
	o.text("node_id", &j.NodeID)
	o.moment("created_at", &j.CreatedAt)
	o.moment("started_at", &j.StartedAt)
	o.moment("last_activity_at", &j.LastActivityAt)
	o.moment("completed_at", &j.CompletedAt)
	o.moment("timeout_at", &j.TimeoutAt)
	o.count("retry_count", &j.RetryCount)
	o.count("max_retries", &j.MaxRetries)
	o.text("error", &j.Error)
	o.text("failure_reason", (*string)(&j.FailureReason))
	o.constraints("wrapper_constraints", &j.WrapperConstraints)
	// A job that went through our own journal carries what was found the first time.
	var earlier []string
	if raw, ok := o.fields["x_agent_problems"]; ok && json.Unmarshal(raw, &earlier) == nil {
		j.Problems = earlier
	}
	j.Problems = append(j.Problems, o.problems...)
	return nil
}

// UnmarshalJSON reads a node as leniently as a job.
func (n *Node) UnmarshalJSON(data []byte) error {
	o, err := decodeObject(data)
	if err != nil {
		return fmt.Errorf("decoding node: %w", err)
	}
	*n = Node{}
	o.text("id", &n.ID)
	o.text("name", &n.Name)
	o.text("status", &n.Status)
	o.text("address", &n.Address)
	o.text("type", &n.Type)
	o.count("cpu_threads", &n.CPUThreads)
	o.text("cpu_model", &n.CPUModel)
	if raw, ok := o.fields["has_gpu"]; ok {
		_ = json.Unmarshal(raw, &n.HasGPU)
	}
	o.text("gpu_type", &n.GPUType)
	if raw, ok := o.fields["gpu_capabilities"]; ok {
		_ = json.Unmarshal(raw, &n.GPUCapabilities)
	}
	o.bytes("ram_total_bytes", &n.RAMTotalBytes)
	o.bytes("ram_free_bytes", &n.RAMFreeBytes)
	o.number("cpu_load_percent", &n.CPULoadPercent)
	if raw, ok := o.fields["labels"]; ok {
		_ = json.Unmarshal(raw, &n.Labels)
	}
	o.text("current_job_id", &n.CurrentJobID)
	var at *time.Time
	if o.moment("last_heartbeat", &at); at != nil {
		n.LastHeartbeat = *at
	}
	at = nil
	if o.moment("registered_at", &at); at != nil {
		n.RegisteredAt = *at
	}
	return nil
}

// UnmarshalJSON keeps numbers as they were written, so that 25 and "25" and
// 29.97 all reach the reader unrounded.
func (p *Parameters) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var m map[string]any
	if err := dec.Decode(&m); err != nil {
		return err
	}
	*p = m
	return nil
}

// object is a JSON object being read field by field; what cannot be
// understood is collected instead of ending the reading.
type object struct {
	fields   map[string]json.RawMessage
	problems []string
}

func decodeObject(data []byte) (*object, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	if fields == nil {
		return nil, errors.New("null where an object was expected")
	}
	for key, raw := range fields {
		if string(raw) == "null" {
			delete(fields, key)
		}
	}
	return &object{fields: fields}, nil
}

func (o *object) problem(key string, raw json.RawMessage, want string) {
	const most = 60
	shown := string(raw)
	if len(shown) > most {
		shown = shown[:most] + "…"
	}
	shown = strings.ToValidUTF8(shown, "")
	o.problems = append(o.problems, fmt.Sprintf("%s: %s is not %s", key, shown, want))
}

// text reads a string; a number is taken by its digits, as some masters send ids so.
func (o *object) text(key string, into *string) {
	raw, ok := o.fields[key]
	if !ok {
		return
	}
	if json.Unmarshal(raw, into) == nil {
		return
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		*into = n.String()
		return
	}
	o.problem(key, raw, "a string")
}

// digits returns the text of a number given as number or string; ok is false
// when the field is absent.
func (o *object) digits(key, want string) (s string, ok bool) {
	raw, present := o.fields[key]
	if !present {
		return "", false
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		return n.String(), true
	}
	if json.Unmarshal(raw, &s) == nil {
		if s = strings.TrimSpace(s); s == "" {
			return "", false
		}
		return s, true
	}
	o.problem(key, raw, want)
	return "", false
}

func (o *object) integer(key string, into *int64) {
	const want = "an integer"
	s, ok := o.digits(key, want)
	if !ok {
		return
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		*into = n
		return
	}
	// 3.0 and 1e3 are integers as well, written by masters without an integer type.
	if r, ok := rational(s); ok && r.IsInt() && r.Num().IsInt64() {
		*into = r.Num().Int64()
		return
	}
	o.problem(key, o.fields[key], want)
}

// rational reads a decimal exactly. The exponent is bounded, since 1e999999999
// would otherwise be spelled out in memory.
func rational(s string) (*big.Rat, bool) {
	if f, err := strconv.ParseFloat(s, 64); err != nil || math.Abs(f) > 1e19 || (f != 0 && math.Abs(f) < 1e-19) || len(s) > 64 {
		return nil, false
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if e, err := strconv.Atoi(s[i+1:]); err != nil || e > 64 || e < -64 {
			return nil, false
		}
	}
	return new(big.Rat).SetString(s)
}

func (o *object) count(key string, into *int) {
	var n int64
	before := len(o.problems)
	o.integer(key, &n)
	if len(o.problems) == before && (n < 0 || n > math.MaxInt32) {
		o.problem(key, o.fields[key], "a count")
		return
	}
	*into = int(n)
}

func (o *object) bytes(key string, into *uint64) {
	var n int64
	if o.integer(key, &n); n >= 0 {
		*into = uint64(n)
	}
}

func (o *object) number(key string, into *float64) {
	const want = "a number"
	s, ok := o.digits(key, want)
	if !ok {
		return
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		o.problem(key, o.fields[key], want)
		return
	}
	*into = f
}

// moment reads an RFC 3339 time. Masters write Go's zero time for "not yet".
func (o *object) moment(key string, into **time.Time) {
	var s string
	raw, ok := o.fields[key]
	if !ok {
		return
	}
	if json.Unmarshal(raw, &s) == nil {
		if s == "" {
			return
		}
		// In UTC, since an offset of 24:00 can be read and never be written again.
		if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
			if t = t.UTC(); !t.IsZero() && t.Year() >= 0 && t.Year() <= 9999 {
				*into = &t
			}
			return
		}
	}
	// No decision of ours hangs on the master's clock, so a time that cannot
	// be read is no reason to fail a job.
}

func (o *object) parameters(key string, into *Parameters) {
	raw, ok := o.fields[key]
	if !ok {
		return
	}
	// What is nested deeper than the decoder goes could be read here, and not again
	// from inside the journal's record.
	const deepest = 100
	if depth(raw) > deepest {
		o.problem(key, raw, fmt.Sprintf("nested at most %d deep", deepest))
		return
	}
	if err := json.Unmarshal(raw, into); err != nil {
		o.problem(key, raw, "an object")
	}
}

// depth is how deep arrays and objects lie in each other in valid JSON.
func depth(raw []byte) (deepest int) {
	var now int
	var quoted, escaped bool
	for _, b := range raw {
		switch {
		case escaped:
			escaped = false
		case quoted && b == '\\':
			escaped = true
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{', b == '[':
			now++
			deepest = max(deepest, now)
		case b == '}', b == ']':
			now--
		}
	}
	return deepest
}

func (o *object) constraints(key string, into **Constraints) {
	raw, ok := o.fields[key]
	if !ok {
		return
	}
	inner, err := decodeObject(raw)
	if err != nil {
		o.problem(key, raw, "an object")
		return
	}
	c := &Constraints{}
	inner.text("cpu_max", &c.CPUMax)
	inner.integer("cpu_weight", &c.CPUWeight)
	inner.integer("memory_max_mb", &c.MemoryMaxMB)
	inner.text("io_max", &c.IOMax)
	for _, p := range inner.problems {
		o.problems = append(o.problems, key+"."+p)
	}
	*into = c
}
