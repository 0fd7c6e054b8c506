package ffmpeg

import (
	"flag"
	"path/filepath"
	"testing"
	"time"

	"ffmpeg-agent/hardware/proc"
)

// helperBinary is the agent whose helper BenchmarkSandbox measures, such as ../../bin/agent; the
// test binary by default.
var helperBinary = flag.String("sandbox.helper", "", "agent whose sandbox helper is measured")

// BenchmarkSandbox compares, in turns and by medians, FFmpeg's start with and without a
// sandbox, and the wall time of a job of a 5 s clip.
func BenchmarkSandbox(b *testing.B) {
	box := testSandbox()
	if *helperBinary != "" {
		box.Helper = []string{*helperBinary, "sandbox-helper"}
	}
	dir := b.TempDir()
	runners := map[string]*Runner{}
	for name, s := range map[string]SandboxSettings{"plain": {}, "sandbox": box} {
		r, err := New(Settings{DataDir: filepath.Join(dir, name), GenerateInput: true, Sandbox: s})
		if err != nil {
			b.Fatal(err)
		}
		defer r.Close(b.Context())
		if err := r.Ready(b.Context()); err != nil {
			b.Fatal(err)
		}
		runners[name] = r
	}
	starts, cpu, jobs := map[string][]time.Duration{}, map[string][]time.Duration{}, map[string][]time.Duration{}
	for b.Loop() {
		for name, r := range runners {
			for range 5 {
				t, err := r.tools()
				if err != nil {
					b.Fatal(err)
				}
				c := command(t.ffmpeg, "/", "-version")
				r.sandboxes.around(&c, proc.Sandbox{}, false)
				begun := time.Now()
				exit, err := proc.Run(b.Context(), c)
				if err != nil || !exit.OK() {
					b.Fatal(exit, err)
				}
				starts[name], cpu[name] = append(starts[name], time.Since(begun)), append(cpu[name], exit.CPU)
			}
			begun := time.Now()
			run := r.Begin(lease(b, "cost", `{"resolution":"1280x720","duration":5,"preset":"fast"}`))
			if err := walk(b.Context(), run); err != nil {
				b.Fatal(err)
			}
			jobs[name] = append(jobs[name], time.Since(begun))
			if err := run.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(median(starts["plain"])), "ms-start-plain")
	b.ReportMetric(ms(median(starts["sandbox"])), "ms-start-sandbox")
	b.ReportMetric(ms(median(cpu["plain"])), "cpu-ms-start-plain")
	b.ReportMetric(ms(median(cpu["sandbox"])), "cpu-ms-start-sandbox")
	b.ReportMetric(float64(median(jobs["sandbox"]))/float64(median(jobs["plain"])), "job-sandbox/plain")
}
