package ffmpeg

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

func TestCeilingsRefuseOrReduceWhatJobsAsk(t *testing.T) {
	sixteen := strings.TrimSuffix(strings.Repeat(`{"resolution":"8192x8192"},`, 16), ",")
	long := media{probed: true, length: 25 * time.Hour, size: size{640, 360}, fps: rate{25, 1}}
	for name, c := range map[string]struct {
		ceilings Ceilings
		job      string
		source   media
		problem  string // empty: none
		note     string
	}{
		"sixteen outputs of 8192x8192":   {Ceilings{}, `{"outputs":[` + sixteen + `]}`, media{}, "jobs.limits.pixels", ""},
		"one output of 16384x16384":      {Ceilings{}, `{"resolution":"16384x16384"}`, media{}, "", ""},
		"one of more than the operator":  {Ceilings{Pixels: 640 * 360}, `{"resolution":"1280x720"}`, media{}, "921600 pixels per picture over all outputs, but jobs.limits.pixels allows 230400", ""},
		"more outputs than the operator": {Ceilings{Outputs: 1}, `{"outputs":[{"resolution":"64x64"},{"resolution":"32x32"}]}`, media{}, "1 outputs (jobs.limits.outputs)", ""},
		"longer than the operator":       {Ceilings{Duration: time.Minute}, `{"duration":61}`, media{}, "at most 60 (jobs.limits.duration)", ""},
		"no duration":                    {Ceilings{Duration: time.Second}, `{}`, media{}, "", ""},
		"long input":                     {Ceilings{}, `{"input":"/in.mp4"}`, long, "25h0m0s long, more than the 24h0m0s of jobs.limits.duration", ""},
		"part of a long input":           {Ceilings{}, `{"input":"/in.mp4","duration":60}`, long, "", ""},
		"timeout":                        {Ceilings{Timeout: time.Hour}, `{"resource_limits":{"timeout_sec":7200}}`, media{}, "", "timeout of 2h0m0s reduced to the 1h0m0s of jobs.limits.timeout"},
		"timeout of more than a week":    {Ceilings{}, `{"resource_limits":{"timeout_sec":604801}}`, media{}, "604800", ""},
		"memory":                         {Ceilings{Memory: 1 << 30}, `{"resource_limits":{"max_memory_mb":2048}}`, media{}, "", "memory limit of 2048 MiB reduced to the 1024 MiB of jobs.limits.memory"},
		"less memory":                    {Ceilings{Memory: 1 << 30}, `{"resource_limits":{"max_memory_mb":512}}`, media{}, "", ""},
		"disk":                           {Ceilings{Disk: 1 << 20}, `{"resource_limits":{"max_disk_mb":2}}`, media{}, "", "disk limit of 2 MiB reduced to the 1 MiB of jobs.limits.disk"},
	} {
		var j protocol.Job
		if err := json.Unmarshal([]byte(`{"id":"x","parameters":`+c.job+`}`), &j); err != nil {
			t.Fatal(err)
		}
		on := testNode(knownCaps, nil)
		on.settings.Ceilings = c.ceilings
		p, problems, _ := newPlan(j, on, c.source)
		if got := strings.Join(problems, "; "); (got == "") != (c.problem == "") || !strings.Contains(got, c.problem) {
			t.Errorf("%s: problems %q, want %q", name, got, c.problem)
		}
		if got := strings.Join(p.notes, "; "); !strings.Contains(got, c.note) || c.note == "" && strings.Contains(got, "jobs.limits") {
			t.Errorf("%s: notes %q, want %q", name, got, c.note)
		}
	}
}

func TestCeilingOfMemoryHoldsForEveryJob(t *testing.T) {
	t.Parallel()
	r := withoutControllers(t, func(s *Settings) { s.Ceilings.Memory = 96 << 20 })
	run := r.Begin(lease(t, "hungry", `{"resolution":"1280x720","fps":25,"preset":"veryslow","duration":86400,"audio_codec":"none"}`))
	f := wantFailure(t, walk(testContext(t), run), protocol.ReasonResourceError)
	if !strings.Contains(f.Message, "memory limit of 96 MiB exceeded (jobs.limits.memory)") {
		t.Errorf("message: %s", f.Message)
	}
}

// raw is a job whose output of 1280x720 at 30 fps takes 41 MB a second.
const raw = `{"codec":"rawvideo","resolution":"1280x720","fps":30,"duration":600,"audio_codec":"none"}`

func TestOutputCeilingStopsRawVideo(t *testing.T) {
	t.Parallel()
	r := withoutControllers(t, func(s *Settings) { s.Ceilings.OutputBytes = 8 << 20 })
	run := r.Begin(lease(t, "raw", raw))
	f := wantFailure(t, walk(testContext(t), run), protocol.ReasonResourceError)
	if !strings.Contains(f.Message, "output limit of 8 MiB") || !strings.Contains(f.Message, "jobs.limits.output_bytes") {
		t.Errorf("message: %s", f.Message)
	}
	if written := run.outputBytes(0); written > 8<<20 {
		t.Errorf("%d bytes of output are left", written)
	}
}

func TestDiskGuardStopsAJobBeforeTheDiskIsFull(t *testing.T) {
	t.Parallel()
	var least atomic.Uint64
	r := withoutControllers(t, func(s *Settings) { s.MinFreeDisk = func(uint64) uint64 { return least.Load() } })
	run := r.Begin(lease(t, "raw", raw))
	ctx := testContext(t)
	if err := run.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := run.Start(ctx); err != nil {
		t.Fatal(err)
	}
	least.Store(1 << 60)
	f := wantFailure(t, conclude(ctx, run), protocol.ReasonResourceError)
	if !strings.Contains(f.Message, "jobs.min_free_disk") || strings.Contains(f.Message, r.settings().DataDir) {
		t.Errorf("message: %s", f.Message)
	}
	if written := run.outputBytes(0); written > 0 {
		t.Errorf("%d bytes of output are left", written)
	}
}

func TestLengthCeilingStopsAnInputOfUnknownLength(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := clip(t, filepath.Join(dir, "in.ts"), "12")
	list := filepath.Join(dir, "live.m3u8") // it has no end, so nothing tells its length
	if err := os.WriteFile(list, []byte("#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\n"+filepath.Base(in)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, func(s *Settings) { s.Ceilings.Duration = 2 * time.Second })
	// Large, since FFmpeg reports no progress any more once it waits for the next segment.
	run := r.Begin(lease(t, "endless", `{"input":`+quoted(list)+`,"resolution":"1280x720"}`))
	f := wantFailure(t, walk(testContext(t), run), protocol.ReasonResourceError)
	if !strings.Contains(f.Message, "more than 2s encoded (jobs.limits.duration)") {
		t.Errorf("message: %s", f.Message)
	}
}

// TestCeilingsHoldForWhatWasMadeLast: what FFmpeg made after the last check while it ran.
func TestCeilingsHoldForWhatWasMadeLast(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	in := clip(t, filepath.Join(t.TempDir(), "in.mp4"), "3")
	for name, exceed := range map[string]func(*Run){
		"output_bytes": func(run *Run) { run.settings.Ceilings.OutputBytes = 1 },
		"duration":     func(run *Run) { run.settings.Ceilings.Duration = time.Second },
		"pixels": func(run *Run) {
			run.settings.Ceilings.Pixels, run.learned = 1, []size{{2, 2}}
		},
	} {
		run := r.Begin(lease(t, name, `{"preset":"ultrafast","input":`+quoted(in)+`}`))
		ctx := testContext(t)
		if err := run.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := run.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := run.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		exceed(run)
		if f := wantFailure(t, run.Check(ctx), protocol.ReasonResourceError); !strings.Contains(f.Message, "jobs.limits."+name) {
			t.Errorf("%s: %s", name, f.Message)
		}
	}
}
