package exporters_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// fakeAgent provides the jobs for the FFmpeg collector.
type fakeAgent struct {
	mu    sync.Mutex
	jobs  []messages.JobStatus
	ended exporters.EncodeTotals
}

func (a *fakeAgent) set(ended exporters.EncodeTotals, jobs ...messages.JobStatus) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended, a.jobs = ended, jobs
}

func (a *fakeAgent) status() messages.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return status(a.jobs...)
}

func (a *fakeAgent) totals() exporters.EncodeTotals {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended
}

func serveFFmpeg(t *testing.T) (*fakeAgent, *testServer) {
	a := &fakeAgent{}
	return a, serve(t, exporters.Config{
		Name: "ffmpeg", Collectors: []prometheus.Collector{exporters.NewFFmpeg(a.status, a.totals)},
	})
}

func TestFFmpegScrape(t *testing.T) {
	w, server := serveFFmpeg(t)
	golden(t, "ffmpeg_idle", server.scrape())

	fresh := encoding("job-b", 0)
	fresh.Encoder, fresh.Progress, fresh.Power, fresh.Energy = "", job.Progress{}, nil, nil
	w.set(exporters.EncodeTotals{}, encoding("job-a", 500), fresh)
	scrape := server.scrape()
	golden(t, "ffmpeg_running", scrape)
	lint(t, scrape, "ffmpeg_encode_latency_ms")
	if strings.Contains(scrape, "job-a") || strings.Contains(scrape, "job-b") {
		t.Errorf("scrape contains a job ID:\n%s", scrape)
	}
}

func TestEndedEncodeKeepsOnlyItsCounters(t *testing.T) {
	w, server := serveFFmpeg(t)
	w.set(exporters.EncodeTotals{}, encoding("a", 500))
	before := server.scrape()
	wantValue(t, before, `ffmpeg_fps{slot="0"}`, "50")
	wantValue(t, before, "ffmpeg_frames_total", "500")
	wantValue(t, before, "ffmpeg_stream_active", "1")

	checked := encoding("a", 600)
	checked.Phase = job.PhaseCheck
	w.set(exporters.EncodeTotals{}, checked)
	checking := server.scrape()
	wantAbsent(t, checking, "ffmpeg_fps{", "ffmpeg_encode_info{")
	wantValue(t, checking, "ffmpeg_frames_total", "600")
	wantValue(t, checking, "ffmpeg_stream_active", "0")

	w.set(exporters.EncodeTotals{}) // neither running nor in the totals yet
	wantValue(t, server.scrape(), "ffmpeg_frames_total", "600")

	w.set(exporters.EncodeTotals{Frames: 610, Dropped: 2, Media: 24 * time.Second})
	after := server.scrape()
	for line := range strings.Lines(after) {
		if strings.Contains(line, `slot="`) {
			t.Errorf("got a per-encode series after the encode ended: %s", line)
		}
	}
	wantValue(t, after, "ffmpeg_frames_total", "610")
	wantValue(t, after, "ffmpeg_dropped_frames_total", "2")
	wantValue(t, after, "ffmpeg_media_seconds_total", "24")
}

func TestEncodeBetweenScrapesIsCounted(t *testing.T) {
	w, server := serveFFmpeg(t)
	server.scrape()
	w.set(exporters.EncodeTotals{Frames: 300})
	wantValue(t, server.scrape(), "ffmpeg_frames_total", "300")
}

func TestCountersNeverDecrease(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	w, server := serveFFmpeg(t)
	var last float64
	var ended, left uint64 // frames in the totals; frames of an ended job not in the totals yet
	var frames int64
	for i := range 60 {
		frames += random.Int64N(50)
		switch {
		case left > 0:
			ended, left = ended+left, 0
			w.set(exporters.EncodeTotals{Frames: ended}, encoding(strconv.Itoa(i), frames))
		case random.IntN(3) == 0:
			left, frames = uint64(frames), 0
			w.set(exporters.EncodeTotals{Frames: ended})
		default:
			w.set(exporters.EncodeTotals{Frames: ended}, encoding("running", frames))
		}
		text, _ := value(server.scrape(), "ffmpeg_frames_total")
		got, err := strconv.ParseFloat(text, 64)
		if err != nil || got < last {
			t.Fatalf("ffmpeg_frames_total: got %q after %v (%v)", text, last, err)
		}
		last = got
	}
	all := strconv.FormatUint(ended+left+uint64(frames), 10)
	w.set(exporters.EncodeTotals{Frames: ended + left + uint64(frames)})
	wantValue(t, server.scrape(), "ffmpeg_frames_total", all)
}

func TestEncodeKeepsItsSlot(t *testing.T) {
	w, server := serveFFmpeg(t)
	named := func(id, encoder string) messages.JobStatus {
		j := encoding(id, 1)
		j.Encoder = encoder
		return j
	}
	slotOf := func(encoder string) string {
		t.Helper()
		scrape := server.scrape()
		for slot := range 4 {
			if _, ok := value(scrape, fmt.Sprintf(`ffmpeg_encode_info{encoder=%q,slot="%d"}`, encoder, slot)); ok {
				return strconv.Itoa(slot)
			}
		}
		return "none"
	}
	want := func(encoder, slot string) {
		t.Helper()
		if got := slotOf(encoder); got != slot {
			t.Errorf("slot of %s: got %s, want %s", encoder, got, slot)
		}
	}
	w.set(exporters.EncodeTotals{}, named("m", "first"))
	want("first", "0")
	w.set(exporters.EncodeTotals{}, named("a", "second"), named("m", "first"))
	want("first", "0")
	want("second", "1")
	w.set(exporters.EncodeTotals{}, named("a", "second"))
	want("second", "1")
	w.set(exporters.EncodeTotals{}, named("a", "second"), named("z", "third"))
	want("third", "0")
	want("second", "1")
}

func TestCurrentBitrateWindow(t *testing.T) {
	w, server := serveFFmpeg(t)
	progress := func(after time.Duration, size int64) {
		j := encoding("a", 1)
		j.Progress.At, j.Progress.OutTime, j.Progress.SizeBytes = j.Started.Add(after), job.Seconds(after), size
		w.set(exporters.EncodeTotals{}, j)
	}
	const series = `ffmpeg_current_bitrate_kbps{slot="0"}`
	progress(8*time.Second, 1_000_000)
	wantValue(t, server.scrape(), series, "1000") // since the start
	progress(24*time.Second, 5_000_000)
	for range 2 { // a second scraper gets the same value
		wantValue(t, server.scrape(), series, "2000") // 4 MB in the 16 s since the first scrape
	}
	progress(30*time.Second, 5_000_000)
	wantValue(t, server.scrape(), series, "1454.5454545454545") // 4 MB in 22 s, since the window is at least 10 s
	progress(36*time.Second, 5_750_000)
	wantValue(t, server.scrape(), series, "500") // 0.75 MB in 12 s
	progress(40*time.Second, 0)
	wantAbsent(t, server.scrape(), "ffmpeg_current_bitrate_kbps{") // size unknown
}
