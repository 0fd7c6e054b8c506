package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func encode(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func ptr(f float64) *float64 { return &f }

func TestEncodeResult(t *testing.T) {
	got := encode(t, JobResult{
		JobID: "j", NodeID: "n", Status: StatusCompleted, Progress: 100, Attempt: 2,
		CompletedAt: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		Metrics: map[string]any{
			MetricBitrate: "2000k", MetricResolution: "1280x720", MetricScenario: "720p30-h264", MetricEngine: "ffmpeg",
			MetricFrames: int64(1_000_000), MetricDroppedFrames: int64(0), MetricPixelsProcessed: int64(921_600_000_000_000_000),
			MetricFPS: 1e6, MetricDuration: 2.5, MetricMediaDuration: 10.0,
		},
		EnergyJoules: ptr(1e6), EfficiencyScore: ptr(0.25), Logs: "frame=<1>\n\xff",
	})
	want := `{"job_id":"j","node_id":"n","status":"completed","progress":100,` +
		`"metrics":{"bitrate":"2000k","dropped_frames":0,"duration":2.5,"engine":"ffmpeg","fps":1000000,"frames":1000000,` +
		`"media_duration":10,"pixels_processed":921600000000000000,"resolution":"1280x720","scenario":"720p30-h264"},` +
		`"logs":"frame=\u003c1\u003e\n\ufffd","completed_at":"2026-03-04T05:06:07Z","efficiency_score":0.25,"energy_joules":1000000,"attempt":2}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestUnknownScoresAreAbsentButZeroIsNot(t *testing.T) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(encode(t, JobResult{EnergyJoules: ptr(0)})), &fields); err != nil {
		t.Fatal(err)
	}
	if string(fields["energy_joules"]) != "0" {
		t.Errorf("energy_joules: got %s, want 0", fields["energy_joules"])
	}
	for _, name := range []string{"qoe_score", "efficiency_score", "vmaf_score", "metrics", "analyzer_output"} {
		if raw, ok := fields[name]; ok {
			t.Errorf("%s: got %s, want it absent", name, raw)
		}
	}
	for _, name := range []string{"job_id", "node_id", "status", "progress", "completed_at", "attempt"} {
		if _, ok := fields[name]; !ok {
			t.Errorf("%s: absent, want it present", name)
		}
	}
}

type unencodable struct{}

func (unencodable) MarshalJSON() ([]byte, error) { return nil, errors.New("no") }

func TestResultOmitsUnencodableValues(t *testing.T) {
	type account struct {
		Joules float64 `json:"joules"`
	}
	result := JobResult{
		JobID: "j", QoEScore: ptr(math.NaN()), EfficiencyScore: ptr(math.Inf(1)), EnergyJoules: ptr(3), VMAFScore: ptr(math.Inf(-1)),
		Metrics: map[string]any{"a": math.NaN(), "b": float32(math.Inf(1)), "c": 1, "d": func() {}, "e": unencodable{}},
		AnalyzerOutput: map[string]any{
			"deep": map[string]any{"x": math.Inf(1), "y": []any{1, math.NaN(), "s"}},
			"bad":  account{math.NaN()}, "good": &account{2}, "none": nil, "pointer": ptr(math.NaN()),
		},
	}
	got := encode(t, result)
	for _, want := range []string{
		`"metrics":{"c":1}`, `"energy_joules":3`,
		`"analyzer_output":{"deep":{"y":[1,null,"s"]},"good":{"joules":2},"none":null}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	}
	for _, name := range []string{"qoe_score", "efficiency_score", "vmaf_score"} {
		if strings.Contains(got, name) {
			t.Errorf("got %s, want it without %s", got, name)
		}
	}
	if !math.IsNaN(*result.QoEScore) || len(result.Metrics) != 5 {
		t.Errorf("encoding modified the result: %+v", result)
	}
}

func TestAnyResultCanBeEncoded(t *testing.T) {
	value := rapid.OneOf(
		rapid.Map(rapid.Float64(), func(f float64) any { return f }),
		rapid.Just(any(math.NaN())), rapid.Just(any(math.Inf(-1))),
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.Int64(), func(n int64) any { return n }),
		rapid.Map(rapid.SliceOf(rapid.Float64()), func(f []float64) any { return f }),
	)
	rapid.Check(t, func(t *rapid.T) {
		in := JobResult{
			JobID: rapid.String().Draw(t, "id"), Progress: rapid.IntRange(0, 100).Draw(t, "progress"),
			Logs: string(rapid.SliceOf(rapid.Byte()).Draw(t, "logs")), Metrics: rapid.MapOf(rapid.String(), value).Draw(t, "metrics"),
			EnergyJoules: rapid.Ptr(rapid.Float64(), true).Draw(t, "joules"), Attempt: rapid.IntRange(1, 9).Draw(t, "attempt"),
		}
		text, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		strict := json.NewDecoder(bytes.NewReader(text))
		strict.DisallowUnknownFields()
		var out JobResult
		if err := strict.Decode(&out); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if out.Progress != in.Progress || out.Attempt != in.Attempt || (in.EnergyJoules != nil && *in.EnergyJoules != *out.EnergyJoules) {
			t.Fatalf("got %+v, want %+v", out, in)
		}
	})
}

func TestEncodeRequests(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string
	}{
		{NodeRegistration{Address: "h", Type: NodeServer, CPUThreads: 4, CPUModel: "c", RAMTotalBytes: 17179869184},
			`{"address":"h","type":"server","cpu_threads":4,"cpu_model":"c","has_gpu":false,"ram_total_bytes":17179869184}`},
		{NodeRegistration{HasGPU: true, GPUType: "g", GPUCapabilities: []string{"nvenc_h264"}, Labels: map[string]string{"a": "b"}},
			`{"address":"","type":"","cpu_threads":0,"cpu_model":"","has_gpu":true,"gpu_type":"g","gpu_capabilities":["nvenc_h264"],"ram_total_bytes":0,"labels":{"a":"b"}}`},
		{NextJobResponse{}, `{"job":null}`},
		{JobRequest{Scenario: "720p30-h264", Parameters: map[string]any{"duration": 5}}, `{"scenario":"720p30-h264","parameters":{"duration":5}}`},
	} {
		if got := encode(t, c.value); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestStatusPredicates(t *testing.T) {
	held := map[Status]bool{StatusAssigned: true, StatusProcessing: true, StatusRunning: true}
	ended := map[Status]bool{StatusCompleted: true, StatusFailed: true, StatusTimedOut: true, StatusCanceled: true, StatusRejected: true}
	for _, s := range []Status{
		StatusPending, StatusQueued, StatusAssigned, StatusProcessing, StatusRunning, StatusCompleted,
		StatusFailed, StatusTimedOut, StatusRetrying, StatusPaused, StatusCanceled, StatusRejected, "", "unknown",
	} {
		if s.HeldByNode() != held[s] || s.Terminal() != ended[s] {
			t.Errorf("%q: got held %v, terminal %v; want %v, %v", s, s.HeldByNode(), s.Terminal(), held[s], ended[s])
		}
	}
}
