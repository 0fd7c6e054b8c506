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

// UnmarshalJSON decodes a job leniently: numbers may be strings, null and absent fields
// are zero, unknown fields are ignored, and fields that cannot be decoded are described in
// Problems. It fails only if data is not a JSON object, because the master has already
// assigned the job by the time it is decoded.
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
	o.time("created_at", &j.CreatedAt)
	o.time("started_at", &j.StartedAt)
	o.time("last_activity_at", &j.LastActivityAt)
	o.time("completed_at", &j.CompletedAt)
	o.time("timeout_at", &j.TimeoutAt)
	o.count("retry_count", &j.RetryCount)
	o.count("attempt", &j.FencedAttempt)
	o.count("max_retries", &j.MaxRetries)
	o.text("error", &j.Error)
	o.text("failure_reason", (*string)(&j.FailureReason))
	o.constraints("wrapper_constraints", &j.WrapperConstraints)
	_ = json.Unmarshal(o.fields["traceparent"], &j.TraceParent) // no job fails for it
	// A job read from the journal carries the problems of its first decoding.
	var earlier []string
	if raw, ok := o.fields["x_agent_problems"]; ok && json.Unmarshal(raw, &earlier) == nil {
		j.Problems = earlier
	}
	j.Problems = append(j.Problems, o.problems...)
	return nil
}

// UnmarshalJSON decodes a node as leniently as a job.
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
	if o.time("last_heartbeat", &at); at != nil {
		n.LastHeartbeat = *at
	}
	at = nil
	if o.time("registered_at", &at); at != nil {
		n.RegisteredAt = *at
	}
	return nil
}

// UnmarshalJSON keeps numbers as json.Number, so that they are not rounded.
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

// object decodes a JSON object field by field and collects problems instead of failing.
// Fields that are absent or cannot be decoded leave their destination unchanged.
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
		return nil, errors.New("null instead of an object")
	}
	for key, raw := range fields {
		if string(raw) == "null" {
			delete(fields, key)
		}
	}
	return &object{fields: fields}, nil
}

func (o *object) problem(key string, raw json.RawMessage, want string) {
	const maxLen = 60
	value := string(raw)
	if len(value) > maxLen {
		value = value[:maxLen] + "…"
	}
	value = strings.ToValidUTF8(value, "")
	o.problems = append(o.problems, fmt.Sprintf("%s: %s is not %s", key, value, want))
}

// text decodes a string. It also accepts a number, because some masters send numeric IDs.
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

// numberText returns the text of a field that is a number or a string. ok is false if it
// is absent, empty, or of another type; the last is reported as a problem.
func (o *object) numberText(key, want string) (s string, ok bool) {
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
	s, ok := o.numberText(key, want)
	if !ok {
		return
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		*into = n
		return
	}
	// Masters without an integer type write 3.0 or 1e3.
	if r, ok := rational(s); ok && r.IsInt() && r.Num().IsInt64() {
		*into = r.Num().Int64()
		return
	}
	o.problem(key, o.fields[key], want)
}

// rational parses a decimal number exactly. It limits the exponent, because big.Rat would
// expand 1e999999999 in memory.
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
	s, ok := o.numberText(key, want)
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

// time decodes an RFC 3339 time. Masters send Go's zero time for "not yet", which is left
// out. Invalid times are not a problem, because the agent does not depend on the master's
// clock.
func (o *object) time(key string, into **time.Time) {
	var s string
	raw, ok := o.fields[key]
	if !ok || json.Unmarshal(raw, &s) != nil {
		return
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return
	}
	// In UTC, because time.Parse accepts an offset of 24:00 that MarshalJSON rejects.
	if t = t.UTC(); !t.IsZero() && t.Year() >= 0 && t.Year() <= 9999 {
		*into = &t
	}
}

func (o *object) parameters(key string, into *Parameters) {
	raw, ok := o.fields[key]
	if !ok {
		return
	}
	// encoding/json limits the nesting. A job just below that limit could not be decoded
	// again inside the journal's record.
	const maxDepth = 100
	if depth(raw) > maxDepth {
		o.problem(key, raw, fmt.Sprintf("nested at most %d levels deep", maxDepth))
		return
	}
	if err := json.Unmarshal(raw, into); err != nil {
		o.problem(key, raw, "an object")
	}
}

// depth returns the nesting depth of arrays and objects in valid JSON.
func depth(raw []byte) (deepest int) {
	var current int
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
			current++
			deepest = max(deepest, current)
		case b == '}', b == ']':
			current--
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
