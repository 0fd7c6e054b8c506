package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

// nodeSeries returns the values of the node's series by name.
func nodeSeries(t *testing.T, scrape, nodeID string) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^(ff\w+)(\{.*\})? (\S+)$`).FindAllStringSubmatch(scrape, -1) {
		if m[2] != "" && m[2] != `{node_id="`+nodeID+`"}` {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		values[m[1]] = v
	}
	return values
}

// timeoutOfJobs makes the master give out each job with the timeout_at that is stored.
func timeoutOfJobs(bed *testbed) *atomic.Pointer[time.Time] {
	var due atomic.Pointer[time.Time]
	next := *bed.handler.Load()
	bed.handler.Store(of(http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jobs/next" {
			next.ServeHTTP(w, r)
			return
		}
		recorder := httptest.NewRecorder()
		next.ServeHTTP(recorder, r)
		var answer struct {
			Job map[string]any `json:"job"`
		}
		if json.Unmarshal(recorder.Body.Bytes(), &answer) == nil && answer.Job != nil {
			answer.Job["timeout_at"] = due.Load()
			json.NewEncoder(w).Encode(answer)
			return
		}
		w.WriteHeader(recorder.Code)
		w.Write(recorder.Body.Bytes())
	}))))
	return &due
}

// What dashboards in use show after real jobs, against the files and the results.
func TestFieldNamesAreTrue(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	port := freePort(t)
	startAgent(t, append(bed.environment(), "FFMPEG_AGENT_JOBS_KEEP_INPUTS=true"), append(bed.flags(), "--metrics-port", fmt.Sprint(port))...)
	bed.awaitRegistration()
	due := timeoutOfJobs(bed)
	scrape := func() map[string]float64 {
		t.Helper()
		return nodeSeries(t, get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", port)), bed.master.Nodes()[0].ID)
	}
	metrics := func(job string) map[string]float64 {
		t.Helper()
		bed.awaitResult(job, protocol.StatusCompleted)
		_, raw, _ := bed.master.Result(job)
		var r struct{ Metrics map[string]any }
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		numbers := map[string]float64{}
		for name, v := range r.Metrics {
			if n, ok := v.(float64); ok {
				numbers[name] = n
			}
		}
		return numbers
	}

	// A synthetic input. The job is on time on any machine.
	due.Store(of(time.Now().Add(time.Hour)))
	first := metrics(bed.submit(ffmpegtest.Quick()).ID)
	waitFor(t, "count of the first job", func() bool { return scrape()["ffrtmp_worker_total_inputs_generated"] == 1 })
	made, err := filepath.Glob(filepath.Join(bed.dir, "inputs", "*"))
	if err != nil || len(made) != 1 {
		t.Fatalf("got inputs %v, %v; want one", made, err)
	}
	got := scrape()
	size := fileSize(t, made[0])
	const tolerance = 1e-3 // a result has its times in whole microseconds
	expect := func(name string, want float64) {
		t.Helper()
		if v, ok := got[name]; !ok || v < want*(1-tolerance) || v > want*(1+tolerance) {
			t.Errorf("%s: got %v (present: %v), want %v", name, v, ok, want)
		}
	}
	expect("ffrtmp_worker_input_file_size_bytes", size)
	expect("ffrtmp_job_last_input_bytes", size)
	if took := got["ffrtmp_worker_input_generation_duration_seconds"]; took <= 0 || took > first["prepare_seconds"] {
		t.Errorf("generating the input took %v s, want more than 0 and at most the %v s of the preparation", took, first["prepare_seconds"])
	}

	// A file as input. The job is late on any machine.
	due.Store(of(time.Now().Add(-time.Hour)))
	input := filepath.Join(t.TempDir(), "clip.mov")
	if err := os.Rename(made[0], input); err != nil {
		t.Fatal(err)
	}
	parameters := ffmpegtest.Quick()
	parameters["input"] = input
	second := metrics(bed.submit(parameters).ID)
	waitFor(t, "count of the second job", func() bool { return scrape()["ffrtmp_worker_jobs_completed_total"] == 2 })
	got = scrape()
	if second["input_bytes"] != size || second["output_bytes"] <= 0 {
		t.Errorf("got result with input_bytes %v and output_bytes %v, want %v and more than 0", second["input_bytes"], second["output_bytes"], size)
	}
	expect("ffrtmp_worker_total_inputs_generated", 1)
	expect("ffrtmp_job_last_input_bytes", size)
	expect("ffrtmp_job_last_output_bytes", second["output_bytes"])
	expect("ffrtmp_job_input_bytes_total", 2*size)
	expect("ffrtmp_job_output_bytes_total", first["output_bytes"]+second["output_bytes"])
	expect("ffmpeg_agent_input_bytes_total", 2*size)
	expect("ffmpeg_agent_output_bytes_total", first["output_bytes"]+second["output_bytes"])
	expect("ffrtmp_job_last_bandwidth_mbps", 8*(size+second["output_bytes"])/1e6/second["duration"])
	expect("ffrtmp_worker_jobs_sla_compliant_total", 1)
	expect("ffrtmp_worker_jobs_sla_violation_total", 1)
	expect("ffrtmp_worker_sla_compliance_rate", 50)

	// A job that fails, with three retries, and a canceled one.
	bed.submit(map[string]any{"input": "/nowhere/clip.mov"})
	waitFor(t, "four failed attempts", func() bool { got = scrape(); return got["ffrtmp_worker_jobs_failed_total"] == 4 })
	expect("ffrtmp_worker_jobs_sla_violation_total", 5)
	long := bed.submit(ffmpegtest.Long()).ID
	bed.awaitFFmpeg()
	waitFor(t, "the running job", func() bool { got = scrape(); return got["ffrtmp_worker_active_jobs"] == 1 })
	bed.cancel(long)
	waitFor(t, "count of the canceled job", func() bool { got = scrape(); return got["ffrtmp_worker_jobs_canceled_total"] == 1 })
	expect("ffrtmp_worker_jobs_canceled_graceful_total", 1)
	expect("ffrtmp_worker_jobs_canceled_forceful_total", 0)
	expect("ffrtmp_worker_jobs_sla_compliant_total", 1)
	expect("ffrtmp_worker_jobs_sla_violation_total", 5)
	expect("ffrtmp_worker_sla_compliance_rate", 100/6.)
	if got["ffrtmp_worker_heartbeats_total"] < 1 || got["ffrtmp_worker_uptime_seconds"] <= 0 {
		t.Errorf("got %v heartbeats, uptime %v; want more than 0 of both", got["ffrtmp_worker_heartbeats_total"], got["ffrtmp_worker_uptime_seconds"])
	}

	// The machine.
	waitFor(t, "load of the machine", func() bool { got = scrape(); _, ok := got["ffrtmp_worker_cpu_usage"]; return ok })
	if load := got["ffrtmp_worker_cpu_usage"]; load <= 0 || load > 100 {
		t.Errorf("CPU load %v %%, want more than 0, at most 100", load)
	}
	total := memoryTotal(t)
	if used := got["ffrtmp_worker_memory_bytes"]; used < total/1000 || used >= total {
		t.Errorf("memory in use %v of %v bytes", used, total)
	}
}

func fileSize(t *testing.T, path string) float64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return float64(info.Size())
}

func memoryTotal(t *testing.T) float64 {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	kib, err := strconv.ParseFloat(regexp.MustCompile(`MemTotal: +(\d+) kB`).FindStringSubmatch(string(text))[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib * 1024
}

// Two fake cards of known power.
func TestFieldNamesOfCards(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cards := fakehw.NVMLCards(120, 60)
	nvml, err := fakehw.NewNVML(dir, fakehw.NVMLScenario{Driver: "550.1", Cards: cards})
	if err != nil {
		t.Fatal(err)
	}
	bed := newTestbed(t)
	port, gpuPort := freePort(t), freePort(t)
	startAgent(t, append(bed.environment(), "FFMPEG_AGENT_HARDWARE_NVML_LIBRARY="+nvml.Library, "FFMPEG_AGENT_EXPORTERS_GPU_ENABLED=true",
		fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_GPU_PORT=%d", gpuPort)), append(bed.flags(), "--metrics-port", fmt.Sprint(port))...)
	bed.awaitRegistration()
	var got map[string]float64
	waitFor(t, "power of the cards", func() bool {
		got = nodeSeries(t, get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", port)), bed.master.Nodes()[0].ID)
		_, told := got["ffrtmp_worker_has_gpu"]
		return got["ffrtmp_worker_power_watts"] != 0 && told
	})
	// The cards have no encoder, which is what masters ask for.
	if has, registered := got["ffrtmp_worker_has_gpu"], bed.master.Nodes()[0].HasGPU; has != 0 || registered {
		t.Errorf("got has_gpu %v in the metrics and %t in the registration, want neither", has, registered)
	}
	if watts := got["ffrtmp_worker_power_watts"]; watts != 180 {
		t.Errorf("got %v W, want 180 W", watts)
	}
	hottest := 0.0
	for _, m := range regexp.MustCompile(`(?m)^gpu_temperature_celsius\{.*\} (\S+)$`).FindAllStringSubmatch(get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", gpuPort)), -1) {
		celsius, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		hottest = max(hottest, celsius)
	}
	if got["ffrtmp_worker_temperature_celsius"] != hottest || hottest == 0 {
		t.Errorf("got %v °C, want the %v °C of the hottest card", got["ffrtmp_worker_temperature_celsius"], hottest)
	}
}

func TestFieldNamesCanBeTurnedOff(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	port := freePort(t)
	startAgent(t, append(bed.environment(), "FFMPEG_AGENT_EXPORTERS_FIELD_NAMES=false"), append(bed.flags(), "--metrics-port", fmt.Sprint(port))...)
	url := fmt.Sprintf("http://127.0.0.1:%d/metrics", port)
	waitFor(t, "registration", func() bool { return strings.Contains(get(t, url), "ffmpeg_agent_registered 1") })
	if scrape := get(t, url); strings.Contains(scrape, "ffrtmp_") {
		t.Errorf("got\n%s\nwant no ffrtmp_*", scrape)
	}
}

// ready returns the reason of a failed check of /ready; "" where it passes or is not there.
func ready(t *testing.T, port int, check string) string {
	t.Helper()
	var r struct {
		Ready  bool
		Checks []struct{ Name, Reason string }
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/ready", port))
	if err != nil {
		return "" // not listening yet
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if c.Name == check && c.Reason != "" {
			if r.Ready || resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("/ready: got status %d with the failed check %q, want 503", resp.StatusCode, check)
			}
			return c.Reason
		}
	}
	http.DefaultClient.CloseIdleConnections()
	return ""
}

func TestNotReadyWithoutMaster(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	port := freePort(t)
	bed.stopMaster()
	startAgent(t, append(bed.environment(), "FFMPEG_AGENT_MASTER_UNAVAILABLE_AFTER=1s"), append(bed.flags(), "--metrics-port", fmt.Sprint(port))...)
	var reason string
	waitFor(t, "reason of the failed registration", func() bool {
		reason = ready(t, port, "registered")
		return strings.Contains(reason, "/nodes/register")
	})
	bed.startMaster(devmaster.Config{MaxRetries: 3, FenceAttempts: true})
	get(t, fmt.Sprintf("http://127.0.0.1:%d/ready", port))
	bed.stopMaster()
	stopped := time.Now()
	waitFor(t, "reason of the silence", func() bool { reason = ready(t, port, "master"); return reason != "" })
	if took := time.Since(stopped); took < 500*time.Millisecond {
		t.Errorf("not ready after %s, want about 1s", took)
	}
	for _, want := range []string{"no heartbeat answered for", "master.unavailable_after", "heartbeat"} {
		if !strings.Contains(reason, want) {
			t.Errorf("got reason %q, want %q in it", reason, want)
		}
	}
	bed.startMaster(devmaster.Config{MaxRetries: 3, FenceAttempts: true})
	get(t, fmt.Sprintf("http://127.0.0.1:%d/ready", port))
}
