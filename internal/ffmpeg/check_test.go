package ffmpeg

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"ffmpeg-agent/messages/protocol"
)

func TestWhatTheAgentItselfMet(t *testing.T) {
	for err, want := range map[error]protocol.FailureReason{
		syscall.ENOSPC: protocol.ReasonResourceError, syscall.EDQUOT: protocol.ReasonResourceError, syscall.EMFILE: protocol.ReasonResourceError,
		syscall.ENOMEM: protocol.ReasonResourceError, syscall.EACCES: protocol.ReasonPlatformError, syscall.EIO: protocol.ReasonPlatformError,
	} {
		if got := osFailure(fmt.Errorf("doing something: %w", err)); got.Reason != want || !strings.Contains(got.Message, "doing something") {
			t.Errorf("%v: got %s: %s", err, got.Reason, got.Message)
		}
	}
}

func TestInputErrorNumbers(t *testing.T) {
	for _, c := range []struct {
		code    int
		network bool
		want    protocol.FailureReason
	}{
		{-1094995529, false, protocol.ReasonInputError},
		{-1094995529, true, protocol.ReasonInputError},
		{-int(syscall.ENOENT), false, protocol.ReasonInputError},
		{-int(syscall.EIO), false, protocol.ReasonInputError},
		{-int(syscall.EIO), true, protocol.ReasonNetworkError},
		{-int(syscall.ECONNREFUSED), true, protocol.ReasonNetworkError},
		{-int(syscall.ETIMEDOUT), true, protocol.ReasonNetworkError},
		{-875574520, true, protocol.ReasonInputError},    // HTTP 404
		{-1482175736, true, protocol.ReasonInputError},   // HTTP 4XX
		{-1482175992, true, protocol.ReasonNetworkError}, // HTTP 5XX
	} {
		if text := (&probeError{Code: c.code}).String(); !strings.Contains(text, fmt.Sprint(c.code)) {
			t.Errorf("an error without text is %q", text)
		}
		if got := inputFailure(probeError{Code: c.code, Text: "words"}, c.network); got.Reason != c.want {
			t.Errorf("%d, network %v: got %s, want %s", c.code, c.network, got.Reason, c.want)
		}
	}
}

func TestParseQualityFilters(t *testing.T) {
	psnr, err := readPSNR(strings.NewReader("n:1 mse_avg:1.00 mse_y:0.84 psnr_avg:48.13 psnr_y:48.88 \nn:2 mse_avg:3.00 psnr_avg:43.36 \n"))
	if want := 10 * math.Log10(255*255/2.0); err != nil || math.Abs(psnr-want) > 1e-9 {
		t.Errorf("psnr %v, %v; want %v", psnr, err, want)
	}
	if same, err := readPSNR(strings.NewReader("n:1 mse_avg:0.00 psnr_avg:inf\n")); err != nil || same != maxPSNR {
		t.Errorf("psnr of equal pictures %v, %v", same, err)
	}
	ssim, err := readSSIM(strings.NewReader("n:1 Y:0.9 U:0.9 V:0.9 All:0.96 (25.1)\nn:2 Y:0.9 All:0.98 (inf)\ngarbage\n"))
	if err != nil || math.Abs(ssim-0.97) > 1e-9 {
		t.Errorf("ssim %v, %v", ssim, err)
	}
	vmaf, err := readVMAF(strings.NewReader(`{"frames":[],"pooled_metrics":{"vmaf":{"min":90,"mean":95.25}}}`))
	if err != nil || vmaf != 95.25 {
		t.Errorf("vmaf %v, %v", vmaf, err)
	}
	for _, bad := range []string{"", "nothing", `{}`, `{"pooled_metrics":{"vmaf":{"mean":101}}}`, `{"pooled_metrics":{"vmaf":{}}}`} {
		if v, err := readVMAF(strings.NewReader(bad)); err == nil {
			t.Errorf("vmaf of %q is %v", bad, v)
		}
		if v, err := readPSNR(strings.NewReader(bad)); err == nil {
			t.Errorf("psnr of %q is %v", bad, v)
		}
		if v, err := readSSIM(strings.NewReader(bad)); err == nil {
			t.Errorf("ssim of %q is %v", bad, v)
		}
	}
}

func TestLogKeepsHeadAndTail(t *testing.T) {
	var whole bytes.Buffer
	var log logBuffer
	for i := 0; whole.Len() < 10*(logHead+logTail); i++ {
		line := fmt.Sprintf("line %d with some words\n", i)
		whole.WriteString(line)
		if n, err := log.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	got := log.String()
	head, tail, cut := strings.Cut(got, "\n… ")
	_, tail, _ = strings.Cut(tail, " …\n")
	if !cut || len(got) > logHead+logTail+100 || len(head) < logHead-100 || len(tail) < logTail-100 {
		t.Errorf("%d bytes of head, %d of tail", len(head), len(tail))
	}
	if !strings.HasPrefix(whole.String(), head) || !strings.HasSuffix(whole.String(), tail) || !strings.HasPrefix(tail, "line ") {
		t.Errorf("not the head and the tail:\n%.100s\n%.100s", head, tail)
	}
	if lost := fmt.Sprintf("… %d bytes left out …", whole.Len()-len(head)-len(tail)); !strings.Contains(got, lost) {
		t.Errorf("not said: %s", lost)
	}
	log.reset()
	if log.String() != "" {
		t.Error("not empty after a reset")
	}
}

func TestLogTakesAnyBytes(t *testing.T) {
	for _, size := range []int{0, 1, logHead, logHead + 1, logHead + logTail, logHead + logTail + 1, 5 * logTail} {
		var log logBuffer
		_, _ = log.Write(bytes.Repeat([]byte{0xff}, size))
		if got := log.String(); !utf8.ValidString(got) || size <= 1 && len(got) > 3 {
			t.Errorf("%d bytes become %d", size, len(got))
		}
		if size > 0 && size <= logHead+logTail && strings.Contains(log.String(), "left out") {
			t.Errorf("%d bytes: something is left out", size)
		}
	}
}

func TestParseCapabilities(t *testing.T) {
	video, audio := parseEncoders(strings.NewReader(`Encoders:
 V..... = Video
 ------
 V....D libx264              libx264 H.264 / AVC / MPEG-4 AVC / MPEG-4 part 10 (codec h264)
 V..X.. magic                Experimental (codec av1)
 V..... mjpeg                MJPEG (Motion JPEG)
 A....D aac                  AAC (Advanced Audio Coding)
 A....D libopus              libopus Opus (codec opus)
 S..... srt                  SubRip subtitle (codec subrip)
`))
	if fmt.Sprint(video) != "map[libx264:h264 mjpeg:mjpeg]" || fmt.Sprint(audio) != "map[aac:aac libopus:opus]" {
		t.Errorf("video %v, audio %v", video, audio)
	}
	filters := parseFilters(strings.NewReader("Filters:\n  T.. = Timeline support\n TS. psnr              VV->V      Calculate\n ... nullsrc           |->V       Null\n"))
	if fmt.Sprint(filters) != "map[nullsrc:true psnr:true]" {
		t.Errorf("filters %v", filters)
	}
}

func TestRealFFmpegHasWhatJobsNeed(t *testing.T) {
	t.Parallel()
	caps, err := newIgnorantRunner(t).Capabilities(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if caps.Video["libx264"] != "h264" || caps.Audio["aac"] != "aac" || !caps.Filters["psnr"] || !caps.Filters["ssim"] {
		t.Errorf("%d video encoders, %d audio, %d filters", len(caps.Video), len(caps.Audio), len(caps.Filters))
	}
}
