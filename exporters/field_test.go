package exporters_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// fieldState is what a field collector reads.
type fieldState struct {
	status messages.Status
	cards  []energy.GPU
	facts  messages.NodeFacts
	proved bool
}

func (f *fieldState) collector() prometheus.Collector {
	return exporters.NewField(exporters.FieldConfig{
		Status: func() messages.Status { return f.status },
		Cards:  func() []energy.GPU { return f.cards },
		Facts:  func() (messages.NodeFacts, bool) { return f.facts, f.proved },
	})
}

func busyNode() *fieldState {
	f := &fieldState{status: status(encoding("job-a", 500)), proved: true}
	f.status.Host = &messages.HostStatus{
		CPULoadPercent: pointer(37.5), NetworkLoadPercent: pointer(12.5),
		RAMTotalBytes: pointer(uint64(16 << 30)), RAMFreeBytes: pointer(uint64(5 << 30)),
	}
	f.status.Counts = messages.Counts{
		Completed: 6, Failed: 2, Canceled: 3, CanceledForcefully: 1, OnTime: 6, NotOnTime: 2, InputsGenerated: 4,
		InputBytes: 70_000_000, OutputBytes: 30_000_000,
	}
	f.status.LastCompleted = &messages.CompletedJob{InputBytes: pointer(int64(7_000_000)), OutputBytes: pointer(int64(3_000_000)), Wall: job.Seconds(20 * time.Second)}
	f.status.LastGenerated = &messages.GeneratedInput{SizeBytes: 5_000_000, Took: job.Seconds(1500 * time.Millisecond)}
	cool := card(1, "GPU-b")
	cool.TemperatureCelsius, cool.UtilizationPercent, cool.Power = pointer(40.0), pointer(20.0), pointer(energy.Watts(30))
	f.cards = []energy.GPU{card(0, "GPU-a"), cool}
	f.facts = messages.NodeFacts{GPUType: "NVIDIA L4", GPUCapabilities: []string{"nvenc_h264", "vaapi_h264"}}
	return f
}

func TestFieldScrape(t *testing.T) {
	scrape := scrapeOf(t, busyNode().collector())
	golden(t, "field", scrape)
	lint(t, scrape, "ffrtmp_worker_total_inputs_generated")
}

func TestFieldScrapeBeforeRegistration(t *testing.T) {
	f := busyNode()
	f.status.Session = nil
	wantAbsent(t, scrapeOf(t, f.collector()), "ffrtmp_")
}

// What is not known has no series. Counters of what has not happened are 0.
func TestUnknownFieldValuesAreAbsent(t *testing.T) {
	f := &fieldState{status: messages.Status{At: start, StartedAt: start, Session: status().Session}}
	scrape := scrapeOf(t, f.collector())
	golden(t, "field_unknown", scrape)

	f.status.Host = &messages.HostStatus{}
	f.status.LastCompleted = &messages.CompletedJob{OutputBytes: pointer(int64(3)), Wall: job.Seconds(time.Second)} // a stream's input
	f.status.LastGenerated = &messages.GeneratedInput{Took: job.Seconds(time.Second)}
	scrape = scrapeOf(t, f.collector())
	wantAbsent(t, scrape, "ffrtmp_worker_cpu_usage", "ffrtmp_worker_memory", "ffrtmp_worker_bandwidth", "ffrtmp_job_last_input", "ffrtmp_job_last_bandwidth",
		"ffrtmp_worker_input_file_size", "ffrtmp_worker_sla", "ffrtmp_worker_has_gpu", "ffrtmp_worker_nvenc", "ffrtmp_worker_power", "ffrtmp_worker_temperature")
	wantValue(t, scrape, `ffrtmp_job_last_output_bytes{node_id="node-1"}`, "3")
}

func TestFieldHardware(t *testing.T) {
	const node = `{node_id="node-1"}`
	none := messages.SamplerHealth{Name: "nvml", Absent: "libnvidia-ml.so.1 not found"}
	broken := messages.SamplerHealth{Name: "nvml", Error: "driver not loaded"}
	lost, noPower := card(1, "GPU-b"), card(1, "GPU-b")
	lost.Fault, noPower.Power = "GPU is lost", nil
	for name, test := range map[string]struct {
		cards   []energy.GPU
		sampler messages.SamplerHealth
		facts   messages.NodeFacts
		proved  bool
		want    map[string]string
		absent  []string
	}{
		"no card": {nil, none, messages.NodeFacts{}, true,
			map[string]string{"has_gpu": "0", "nvenc_available": "0", "qsv_available": "0", "vaapi_available": "0"}, []string{"power_watts", "temperature_celsius", "gpu_usage"}},
		"trials not over": {nil, none, messages.NodeFacts{}, false,
			nil, []string{"has_gpu", "nvenc_available", "qsv_available", "vaapi_available"}},
		"driver broken": {nil, broken, messages.NodeFacts{}, true,
			map[string]string{"has_gpu": "0", "nvenc_available": "0"}, nil},
		"another maker's": {nil, none, messages.NodeFacts{GPUType: "Intel", GPUCapabilities: []string{"qsv_h265"}}, true,
			map[string]string{"has_gpu": "1", "qsv_available": "1", "nvenc_available": "0"}, []string{"power_watts"}},
		"card lost": {[]energy.GPU{card(0, "GPU-a"), lost}, messages.SamplerHealth{Name: "nvml"}, messages.NodeFacts{}, false,
			map[string]string{"temperature_celsius": "51"}, []string{"has_gpu", "power_watts"}},
		"power of one unknown": {[]energy.GPU{card(0, "GPU-a"), noPower}, messages.SamplerHealth{Name: "nvml"}, messages.NodeFacts{}, true,
			map[string]string{"has_gpu": "0"}, []string{"power_watts"}}, // a card without encoders
	} {
		t.Run(name, func(t *testing.T) {
			f := &fieldState{status: status(), cards: test.cards, facts: test.facts, proved: test.proved}
			f.status.Samplers = []messages.SamplerHealth{test.sampler}
			scrape := scrapeOf(t, f.collector())
			for metric, want := range test.want {
				wantValue(t, scrape, "ffrtmp_worker_"+metric+node, want)
			}
			for _, metric := range test.absent {
				wantAbsent(t, scrape, "ffrtmp_worker_"+metric)
			}
		})
	}
}
