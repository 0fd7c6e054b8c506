package protocol

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func decodeJob(t *testing.T, text string) Job {
	t.Helper()
	var job Job
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		t.Fatalf("decoding %s: %v", text, err)
	}
	return job
}

func TestJobIsReadWhole(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 891234567, time.UTC)
	got := decodeJob(t, `{
		"id": "0b1c", "sequence_number": 12, "scenario": "4K60-h264", "confidence": "auto", "engine": "ffmpeg",
		"classification": "live", "parameters": {"bitrate": "2000k", "fps": 29.97, "outputs": [{"crf": 23}]},
		"status": "assigned", "queue": "live", "priority": "high", "progress": 12.5, "node_id": "n1",
		"created_at": "2026-03-04T05:06:07.891234567Z", "started_at": "2026-03-04T06:06:07.891234567+01:00",
		"last_activity_at": "2026-03-04T05:06:07.891234567Z", "completed_at": "0001-01-01T00:00:00Z", "timeout_at": null,
		"retry_count": 2, "max_retries": 3, "error": "e", "failure_reason": "timeout",
		"wrapper_constraints": {"cpu_max": "50000 100000", "cpu_weight": 100, "memory_max_mb": 512, "io_max": "8:0 rbps=1"},
		"a_field_to_come": {"x": [1, 2]}
	}`)
	want := Job{
		ID: "0b1c", SequenceNumber: 12, Scenario: "4K60-h264", Confidence: "auto", Engine: "ffmpeg", Classification: "live",
		Parameters: Parameters{"bitrate": "2000k", "fps": json.Number("29.97"), "outputs": []any{map[string]any{"crf": json.Number("23")}}},
		Status:     StatusAssigned, Queue: "live", Priority: "high", Progress: 12.5, NodeID: "n1",
		CreatedAt: &at, StartedAt: &at, LastActivityAt: &at,
		RetryCount: 2, MaxRetries: 3, Error: "e", FailureReason: ReasonTimeout,
		WrapperConstraints: &Constraints{CPUMax: "50000 100000", CPUWeight: 100, MemoryMaxMB: 512, IOMax: "8:0 rbps=1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.Attempt() != 3 {
		t.Errorf("attempt %d, want 3", got.Attempt())
	}
}

func TestJobToleratesWhatMastersSend(t *testing.T) {
	for name, c := range map[string]struct {
		sent string
		want Job
	}{
		"nothing at all":       {`{}`, Job{}},
		"all null":             {`{"id":null,"sequence_number":null,"parameters":null,"status":null,"retry_count":null,"created_at":null,"wrapper_constraints":null}`, Job{}},
		"numbers as strings":   {`{"id":"a","sequence_number":"12","retry_count":" 2 ","progress":"99.5"}`, Job{ID: "a", SequenceNumber: 12, RetryCount: 2, Progress: 99.5}},
		"empty number strings": {`{"id":"a","sequence_number":"","retry_count":"  "}`, Job{ID: "a"}},
		"floats for integers":  {`{"id":"a","sequence_number":1.2e1,"retry_count":2.0}`, Job{ID: "a", SequenceNumber: 12, RetryCount: 2}},
		"numbers for strings":  {`{"id":17,"priority":5}`, Job{ID: "17", Priority: "5"}},
		"an id beyond integers": {`{"id":123456789012345678901234567890}`,
			Job{ID: "123456789012345678901234567890"}},
		"an unknown status":  {`{"id":"a","status":"levitating"}`, Job{ID: "a", Status: "levitating"}},
		"times nobody needs": {`{"id":"a","created_at":"yesterday","started_at":17,"timeout_at":""}`, Job{ID: "a"}},
		"times that could not be written again": {`{"id":"a","created_at":"9999-12-31T23:59:59-23:00","started_at":"0000-01-01T00:00:00+23:00"}`,
			Job{ID: "a"}},
		"a null parameter": {`{"id":"a","parameters":{"crf":null,"preset":"fast"}}`,
			Job{ID: "a", Parameters: Parameters{"crf": nil, "preset": "fast"}}},
		"numbers keep how they were written": {`{"parameters":{"a":25,"b":"25","c":29.970,"d":1e999999999,"e":12345678901234567890}}`,
			Job{Parameters: Parameters{"a": json.Number("25"), "b": "25", "c": json.Number("29.970"), "d": json.Number("1e999999999"), "e": json.Number("12345678901234567890")}}},
		"the last of two keys": {`{"id":"a","id":"b"}`, Job{ID: "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, decodeJob(t, c.sent)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The master has assigned the job by the time we read it: what cannot be
// understood is said, so that the job can be failed instead of lost.
func TestJobNamesWhatCannotBeUnderstood(t *testing.T) {
	for name, c := range map[string]struct {
		sent  string
		names []string // of fields
	}{
		"wrong types":          {`{"id":"a","scenario":{},"retry_count":[],"progress":true,"parameters":[1],"wrapper_constraints":"none"}`, []string{"scenario", "retry_count", "progress", "parameters", "wrapper_constraints"}},
		"wrong types within":   {`{"id":"a","wrapper_constraints":{"cpu_weight":"heavy","cpu_max":[]}}`, []string{"wrapper_constraints.cpu_max", "wrapper_constraints.cpu_weight"}},
		"a number off the end": {`{"id":"a","sequence_number":1e999999999,"progress":1e999999999}`, []string{"sequence_number", "progress"}},
		"tiny and enormous exponents": {`{"id":"a","sequence_number":"1e-999999999","retry_count":"0x1p9999999"}`,
			[]string{"sequence_number", "retry_count"}},
		"not a number":          {`{"id":"a","progress":"NaN","retry_count":"Infinity","sequence_number":"twelve"}`, []string{"progress", "retry_count", "sequence_number"}},
		"a fraction of a count": {`{"id":"a","retry_count":1.5}`, []string{"retry_count"}},
		"a count below zero":    {`{"id":"a","retry_count":-1}`, []string{"retry_count"}},
		"a count past counting": {`{"id":"a","retry_count":3000000000}`, []string{"retry_count"}},
		"bottomless parameters": {`{"id":"a","parameters":{"x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}}`, []string{"parameters"}},
	} {
		t.Run(name, func(t *testing.T) {
			job := decodeJob(t, c.sent)
			if job.ID != "a" {
				t.Errorf("id %q, want a", job.ID)
			}
			if len(job.Problems) != len(c.names) {
				t.Errorf("%d problems, want %d: %q", len(job.Problems), len(c.names), job.Problems)
			}
			for _, name := range c.names {
				if !strings.Contains(strings.Join(job.Problems, "\n"), name+": ") {
					t.Errorf("no problem names %s: %q", name, job.Problems)
				}
			}
			if job.Attempt() != 1 {
				t.Errorf("attempt %d, want 1", job.Attempt())
			}
		})
	}
}

func TestProblemsAreShort(t *testing.T) {
	job := decodeJob(t, `{"id":"a","retry_count":"`+strings.Repeat("ä", 5000)+`"}`)
	if len(job.Problems) != 1 || len(job.Problems[0]) > 120 {
		t.Errorf("problems: %q", job.Problems)
	}
}

func TestJobsBracketsInStringsAreNoDepth(t *testing.T) {
	job := decodeJob(t, `{"parameters":{"a":"`+strings.Repeat("[", 500)+`","b":"\"`+strings.Repeat("{", 500)+`\\"}}`)
	if len(job.Problems) != 0 || len(job.Parameters) != 2 {
		t.Errorf("parameters %v, problems %q", job.Parameters, job.Problems)
	}
}

func TestOnlyWhatIsNoObjectIsNoJob(t *testing.T) {
	for _, text := range []string{`[]`, `"job"`, `17`, `true`, `{"id":`, `{"id":"a"} {}`, ``, `{id:1}`} {
		var job Job
		if err := json.Unmarshal([]byte(text), &job); err == nil {
			t.Errorf("%q was read as a job: %+v", text, job)
		}
	}
	var job Job
	if err := job.UnmarshalJSON([]byte(`null`)); err == nil {
		t.Error("null was read as a job")
	}
}

func TestNextAnswerWithoutWork(t *testing.T) {
	for _, text := range []string{`{"job":null}`, `{"job":null,"wait":3}`} {
		var next NextAnswer
		if err := json.Unmarshal([]byte(text), &next); err != nil || next.Job != nil {
			t.Errorf("%s: job %v, error %v", text, next.Job, err)
		}
	}
}

func TestNodeIsReadAsLenientlyAsAJob(t *testing.T) {
	var node Node
	text := `{"id":7,"name":null,"address":"h","type":"server","cpu_threads":"8","cpu_model":"c","has_gpu":"yes",
		"gpu_capabilities":{},"labels":[1],"ram_total_bytes":"16000000000","ram_free_bytes":-1,"cpu_load_percent":"12.5",
		"status":"busy","current_job_id":42,"last_heartbeat":"2026-03-04T05:06:07+01:00","registered_at":"soon","more":1}`
	if err := json.Unmarshal([]byte(text), &node); err != nil {
		t.Fatal(err)
	}
	want := Node{
		NodeRegistration: NodeRegistration{Address: "h", Type: "server", CPUThreads: 8, CPUModel: "c", RAMTotalBytes: 16000000000},
		ID:               "7", Status: "busy", CurrentJobID: "42", CPULoadPercent: 12.5,
		LastHeartbeat: time.Date(2026, 3, 4, 4, 6, 7, 0, time.UTC),
	}
	if diff := cmp.Diff(want, node); diff != "" {
		t.Error(diff)
	}
}

var seeds = []string{
	`{}`, `null`, `[]`, `{"id":"a"}`, `{"id":1e999999999}`, `{"retry_count":"1e999999999"}`, `{"progress":"0x1p-9"}`,
	`{"parameters":null}`, `{"parameters":{"a":null,"b":[1,{"c":"d"}],"e":1e999999999}}`, `{"x_agent_problems":["a"],"retry_count":-1}`,
	`{"created_at":"2024-01-01T00:00:00+24:00"}`, `{"created_at":"9999-12-31T23:59:59-23:59"}`,
	"{\"scenario\":[\"\xff\"]}", "{\"id\":\"\xff\xfe\"}", `{"sequence_number":9223372036854775808}`,
	`{"wrapper_constraints":{"cpu_weight":"1.0e2","memory_max_mb":null,"io_max":3}}`,
	`{"labels":{"a":"b"},"gpu_capabilities":["nvenc_h264"],"last_heartbeat":"2024-01-01T00:00:00Z"}`,
}

// FuzzJob: no input panics, every JSON object is a job, and a job that went
// through the journal comes out as it went in.
func FuzzJob(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var job Job
		err := json.Unmarshal(data, &job)
		isObject := json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
		if isObject && err != nil {
			t.Fatalf("a JSON object was refused as a job: %v", err)
		}
		if !isObject {
			return
		}
		if job.RetryCount < 0 || job.Attempt() < 1 {
			t.Fatalf("attempt %d", job.Attempt())
		}
		roundTrip(t, job, func(text []byte, into *Job) error { return json.Unmarshal(text, into) })
	})
}

// FuzzNode: as FuzzJob.
func FuzzNode(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var node Node
		err := json.Unmarshal(data, &node)
		isObject := json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
		if isObject && err != nil {
			t.Fatalf("a JSON object was refused as a node: %v", err)
		}
		if isObject {
			roundTrip(t, node, func(text []byte, into *Node) error { return json.Unmarshal(text, into) })
		}
	})
}

func roundTrip[T any](t *testing.T, value T, decode func([]byte, *T) error) {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	var again T
	if err := decode(text, &again); err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	if diff := cmp.Diff(value, again, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("changed on its way through %s:\n%s", text, diff)
	}
}
