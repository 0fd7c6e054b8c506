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

func TestDecodeJob(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 891234567, time.UTC)
	got := decodeJob(t, `{
		"id": "0b1c", "sequence_number": 12, "scenario": "4K60-h264", "confidence": "auto", "engine": "ffmpeg",
		"classification": "live", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "parameters": {"bitrate": "2000k", "fps": 29.97, "outputs": [{"crf": 23}]},
		"status": "assigned", "queue": "live", "priority": "high", "progress": 12.5, "node_id": "n1",
		"created_at": "2026-03-04T05:06:07.891234567Z", "started_at": "2026-03-04T06:06:07.891234567+01:00",
		"last_activity_at": "2026-03-04T05:06:07.891234567Z", "completed_at": "0001-01-01T00:00:00Z", "timeout_at": null,
		"retry_count": 2, "max_retries": 3, "error": "e", "failure_reason": "timeout",
		"wrapper_constraints": {"cpu_max": "50000 100000", "cpu_weight": 100, "memory_max_mb": 512, "io_max": "8:0 rbps=1"},
		"unknown_field": {"x": [1, 2]}
	}`)
	want := Job{
		ID: "0b1c", SequenceNumber: 12, Scenario: "4K60-h264", Confidence: "auto", Engine: "ffmpeg", Classification: "live", TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		Parameters: Parameters{"bitrate": "2000k", "fps": json.Number("29.97"), "outputs": []any{map[string]any{"crf": json.Number("23")}}},
		Status:     StatusAssigned, Queue: "live", Priority: "high", Progress: 12.5, NodeID: "n1",
		CreatedAt: &at, StartedAt: &at, LastActivityAt: &at,
		RetryCount: 2, MaxRetries: 3, Error: "e", FailureReason: ReasonTimeout,
		WrapperConstraints: &Constraints{CPUMax: "50000 100000", CPUWeight: 100, MemoryMaxMB: 512, IOMax: "8:0 rbps=1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("job (-want +got):\n%s", diff)
	}
	if got.Attempt() != 3 {
		t.Errorf("got attempt %d, want 3", got.Attempt())
	}
}

func TestDecodeJobLeniently(t *testing.T) {
	for name, c := range map[string]struct {
		sent string
		want Job
	}{
		"empty":                {`{}`, Job{}},
		"all null":             {`{"id":null,"sequence_number":null,"parameters":null,"status":null,"retry_count":null,"created_at":null,"wrapper_constraints":null}`, Job{}},
		"numbers as strings":   {`{"id":"a","sequence_number":"12","retry_count":" 2 ","progress":"99.5"}`, Job{ID: "a", SequenceNumber: 12, RetryCount: 2, Progress: 99.5}},
		"empty number strings": {`{"id":"a","sequence_number":"","retry_count":"  "}`, Job{ID: "a"}},
		"floats for integers":  {`{"id":"a","sequence_number":1.2e1,"retry_count":2.0}`, Job{ID: "a", SequenceNumber: 12, RetryCount: 2}},
		"numbers for strings":  {`{"id":17,"priority":5}`, Job{ID: "17", Priority: "5"}},
		"huge integer ID": {`{"id":123456789012345678901234567890}`,
			Job{ID: "123456789012345678901234567890"}},
		"unknown status": {`{"id":"a","status":"levitating"}`, Job{ID: "a", Status: "levitating"}},
		"invalid times":  {`{"id":"a","created_at":"yesterday","started_at":17,"timeout_at":""}`, Job{ID: "a"}},
		"times that cannot be encoded": {`{"id":"a","created_at":"9999-12-31T23:59:59-23:00","started_at":"0000-01-01T00:00:00+23:00"}`,
			Job{ID: "a"}},
		"null parameter": {`{"id":"a","parameters":{"crf":null,"preset":"fast"}}`,
			Job{ID: "a", Parameters: Parameters{"crf": nil, "preset": "fast"}}},
		"numbers keep their text": {`{"parameters":{"a":25,"b":"25","c":29.970,"d":1e999999999,"e":12345678901234567890}}`,
			Job{Parameters: Parameters{"a": json.Number("25"), "b": "25", "c": json.Number("29.970"), "d": json.Number("1e999999999"), "e": json.Number("12345678901234567890")}}},
		"duplicate key": {`{"id":"a","id":"b"}`, Job{ID: "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, decodeJob(t, c.sent)); diff != "" {
				t.Errorf("job (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJobProblems(t *testing.T) {
	for name, c := range map[string]struct {
		sent   string
		fields []string // with a problem
	}{
		"wrong types":        {`{"id":"a","scenario":{},"retry_count":[],"progress":true,"parameters":[1],"wrapper_constraints":"none"}`, []string{"scenario", "retry_count", "progress", "parameters", "wrapper_constraints"}},
		"nested wrong types": {`{"id":"a","wrapper_constraints":{"cpu_weight":"heavy","cpu_max":[]}}`, []string{"wrapper_constraints.cpu_max", "wrapper_constraints.cpu_weight"}},
		"huge numbers":       {`{"id":"a","sequence_number":1e999999999,"progress":1e999999999}`, []string{"sequence_number", "progress"}},
		"huge exponents": {`{"id":"a","sequence_number":"1e-999999999","retry_count":"0x1p9999999"}`,
			[]string{"sequence_number", "retry_count"}},
		"not numbers":              {`{"id":"a","progress":"NaN","retry_count":"Infinity","sequence_number":"twelve"}`, []string{"progress", "retry_count", "sequence_number"}},
		"fractional count":         {`{"id":"a","retry_count":1.5}`, []string{"retry_count"}},
		"negative count":           {`{"id":"a","retry_count":-1}`, []string{"retry_count"}},
		"huge count":               {`{"id":"a","retry_count":3000000000}`, []string{"retry_count"}},
		"deeply nested parameters": {`{"id":"a","parameters":{"x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}}`, []string{"parameters"}},
	} {
		t.Run(name, func(t *testing.T) {
			job := decodeJob(t, c.sent)
			if job.ID != "a" {
				t.Errorf("got id %q, want a", job.ID)
			}
			if len(job.Problems) != len(c.fields) {
				t.Errorf("got %d problems, want %d: %q", len(job.Problems), len(c.fields), job.Problems)
			}
			for _, field := range c.fields {
				if !strings.Contains(strings.Join(job.Problems, "\n"), field+": ") {
					t.Errorf("got problems %q, want one with %s", job.Problems, field)
				}
			}
			if job.Attempt() != 1 {
				t.Errorf("got attempt %d, want 1", job.Attempt())
			}
		})
	}
}

func TestProblemsAreShort(t *testing.T) {
	job := decodeJob(t, `{"id":"a","retry_count":"`+strings.Repeat("ä", 5000)+`"}`)
	if len(job.Problems) != 1 || len(job.Problems[0]) > 120 {
		t.Errorf("got problems %q, want one of up to 120 bytes", job.Problems)
	}
}

func TestBracketsInStringsAreNotNesting(t *testing.T) {
	job := decodeJob(t, `{"parameters":{"a":"`+strings.Repeat("[", 500)+`","b":"\"`+strings.Repeat("{", 500)+`\\"}}`)
	if len(job.Problems) != 0 || len(job.Parameters) != 2 {
		t.Errorf("got parameters %v, problems %q; want 2 parameters, no problems", job.Parameters, job.Problems)
	}
}

func TestDecodeJobRejectsNonObjects(t *testing.T) {
	for _, text := range []string{`[]`, `"job"`, `17`, `true`, `{"id":`, `{"id":"a"} {}`, ``, `{id:1}`} {
		var job Job
		if err := json.Unmarshal([]byte(text), &job); err == nil {
			t.Errorf("%q: got %+v, want an error", text, job)
		}
	}
	var job Job
	if err := job.UnmarshalJSON([]byte(`null`)); err == nil {
		t.Errorf("null: got %+v, want an error", job)
	}
}

func TestDecodeNextJobWithoutJob(t *testing.T) {
	for _, text := range []string{`{"job":null}`, `{"job":null,"wait":3}`} {
		var next NextJobResponse
		if err := json.Unmarshal([]byte(text), &next); err != nil || next.Job != nil {
			t.Errorf("%s: got job %v, error %v; want neither", text, next.Job, err)
		}
	}
}

func TestDecodeNodeLeniently(t *testing.T) {
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
		t.Errorf("node (-want +got):\n%s", diff)
	}
}

var seeds = []string{
	`{}`, `null`, `[]`, `{"id":"a"}`, `{"id":1e999999999}`, `{"retry_count":"1e999999999"}`, `{"progress":"0x1p-9"}`,
	`{"parameters":null}`, `{"parameters":{"a":null,"b":[1,{"c":"d"}],"e":1e999999999}}`, `{"x_agent_problems":["a"],"retry_count":-1}`,
	`{"created_at":"2024-01-01T00:00:00+24:00"}`, `{"created_at":"9999-12-31T23:59:59-23:59"}`,
	"{\"scenario\":[\"\xff\"]}", "{\"id\":\"\xff\xfe\"}", `{"sequence_number":9223372036854775808}`,
	`{"wrapper_constraints":{"cpu_weight":"1.0e2","memory_max_mb":null,"io_max":3}}`,
	`{"labels":{"a":"b"},"gpu_capabilities":["nvenc_h264"],"last_heartbeat":"2024-01-01T00:00:00Z"}`,
	`-1`, `0.000`, `0e000`, `""`, `A`, `n`, "\"\x00", "\a", "\n\x04", "0.\r", "0\x10", "[0\x0e", "{ \"\b",
	"\"\xe20000\"", "\"\xc50\"", "\"\xbc00\"", "\"\x85\x9b\xff\xf6\xf6\xf6\xf6\"", "\"\xbc00000000000000000000000000Ӳ000\"",
}

// FuzzJob checks that every JSON object decodes as a job without a panic, and that the job
// can be encoded and decoded again without loss.
func FuzzJob(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var job Job
		err := json.Unmarshal(data, &job)
		isObject := json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
		if isObject && err != nil {
			t.Fatalf("decoding a JSON object: %v", err)
		}
		if !isObject {
			return
		}
		if job.RetryCount < 0 || job.Attempt() < 1 {
			t.Fatalf("got attempt %d, want at least 1", job.Attempt())
		}
		checkRoundTrip(t, job)
	})
}

// FuzzNode checks the same as FuzzJob for nodes.
func FuzzNode(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var node Node
		err := json.Unmarshal(data, &node)
		isObject := json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
		if isObject && err != nil {
			t.Fatalf("decoding a JSON object: %v", err)
		}
		if isObject {
			checkRoundTrip(t, node)
		}
	})
}

func checkRoundTrip[T any](t *testing.T, value T) {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("encoding a decoded value: %v", err)
	}
	var got T
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("decoding %s: %v", text, err)
	}
	if diff := cmp.Diff(value, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("after encoding as %s (-want +got):\n%s", text, diff)
	}
}
