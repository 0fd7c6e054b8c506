package ffmpeg

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/protocol"
)

func TestWhyFFmpegEndedBadly(t *testing.T) {
	broken := failure(protocol.ReasonInputError, "input: broken")
	for name, c := range map[string]struct {
		e    evidence
		want protocol.FailureReason
		says string
	}{
		"killed":                     {evidence{exit: proc.Exit{Code: -1, Signal: syscall.SIGKILL}}, protocol.ReasonRuntimeError, "SIGKILL"},
		"crashed on a broken input":  {evidence{exit: proc.Exit{Code: -1, Signal: syscall.SIGSEGV}, hasInput: true}, protocol.ReasonRuntimeError, "SIGSEGV"},
		"file too large":             {evidence{exit: proc.Exit{Code: -1, Signal: syscall.SIGXFSZ}}, protocol.ReasonResourceError, "SIGXFSZ"},
		"out of CPU time":            {evidence{exit: proc.Exit{Code: -1, Signal: syscall.SIGXCPU}}, protocol.ReasonResourceError, "SIGXCPU"},
		"disk full":                  {evidence{exit: proc.Exit{Code: 1}, diskFull: true, input: broken}, protocol.ReasonResourceError, "space"},
		"disk full for a time":       {evidence{exit: proc.Exit{Code: 1}, diskWasFull: true}, protocol.ReasonResourceError, "temporarily full"},
		"input broken, disk full":    {evidence{exit: proc.Exit{Code: 1}, diskWasFull: true, hasInput: true, input: broken}, protocol.ReasonInputError, "broken"},
		"input broken":               {evidence{exit: proc.Exit{Code: 1}, hasInput: true, input: broken, streaming: true}, protocol.ReasonInputError, "broken"},
		"too many frames undecoded":  {evidence{exit: proc.Exit{Code: 69}, hasInput: true}, protocol.ReasonInputError, "decoded"},
		"69 without an input":        {evidence{exit: proc.Exit{Code: 69}}, protocol.ReasonRuntimeError, "69"},
		"stream not taken":           {evidence{exit: proc.Exit{Code: 1}, streaming: true}, protocol.ReasonNetworkError, "stream"},
		"anything else":              {evidence{exit: proc.Exit{Code: 234}, hasInput: true}, protocol.ReasonRuntimeError, "exit status 234"},
		"the end was not to be seen": {evidence{exit: proc.Exit{Err: io.ErrUnexpectedEOF}}, protocol.ReasonPlatformError, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			got := classify(c.e)
			if got.Reason != c.want || !strings.Contains(got.Message, c.says) {
				t.Errorf("got %s: %s", got.Reason, got.Message)
			}
		})
	}
}

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
		if got := inputFailure(probeError{Code: c.code, Text: "words"}, c.network); got.Reason != c.want {
			t.Errorf("%d, network %v: got %s, want %s", c.code, c.network, got.Reason, c.want)
		}
	}
}

func TestOutputsAreComparedWithWhatWasAsked(t *testing.T) {
	hd := rendition{size: size{1280, 720}, fps: rate{30, 1}}
	s := time.Second
	for name, c := range map[string]struct {
		want   expectation
		made   product
		reason protocol.FailureReason
	}{
		"synthetic, exact":                {expectation{rendition: hd, asked: 5 * s, written: 150, synthetic: true}, product{frames: 150}, ""},
		"synthetic, one off":              {expectation{rendition: hd, asked: 5 * s, written: 149, synthetic: true}, product{frames: 149}, ""},
		"synthetic, short":                {expectation{rendition: hd, asked: 5 * s, written: 148, synthetic: true}, product{frames: 148}, protocol.ReasonRuntimeError},
		"fewer than FFmpeg wrote":         {expectation{rendition: hd, written: 150}, product{frames: 148, length: 5 * s}, protocol.ReasonRuntimeError},
		"second of a ladder":              {expectation{rendition: hd, asked: 5 * s, written: -1, synthetic: true}, product{frames: 150}, ""},
		"nothing of an input":             {expectation{rendition: hd, written: 0}, product{}, protocol.ReasonInputError},
		"nothing of a synthetic one":      {expectation{rendition: hd, written: 0, synthetic: true}, product{}, protocol.ReasonRuntimeError},
		"the whole input":                 {expectation{rendition: hd, available: 60 * s, written: -1}, product{frames: 1800, length: 60 * s}, ""},
		"sound padded":                    {expectation{rendition: hd, available: 60 * s, written: -1}, product{frames: 1800, length: 59500 * time.Millisecond}, ""},
		"broke off":                       {expectation{rendition: hd, available: 60 * s, written: -1}, product{frames: 900, length: 30 * s}, protocol.ReasonInputError},
		"broke off on the way":            {expectation{rendition: hd, available: 60 * s, written: -1, network: true}, product{frames: 900, length: 30 * s}, protocol.ReasonNetworkError},
		"trimmed":                         {expectation{rendition: hd, available: 60 * s, asked: 10 * s, written: -1}, product{frames: 300, length: 10 * s}, ""},
		"trimmed, but longer":             {expectation{rendition: hd, available: 60 * s, asked: 10 * s, written: -1}, product{frames: 900, length: 30 * s}, protocol.ReasonRuntimeError},
		"asked for more than there is":    {expectation{rendition: hd, available: 5 * s, asked: 10 * s, written: -1}, product{frames: 150, length: 5 * s}, ""},
		"input of unknown length, short":  {expectation{rendition: hd, asked: 10 * s, written: -1}, product{frames: 150, length: 5 * s}, ""},
		"input of unknown length, whole":  {expectation{rendition: hd, written: -1}, product{frames: 150, length: 5 * s}, ""},
		"very short input, few frames/s":  {expectation{rendition: rendition{fps: rate{1, 1}}, available: 3 * s, written: -1}, product{frames: 2, length: 2 * s}, ""},
		"input shorter than the slack is": {expectation{rendition: hd, available: 100 * time.Millisecond, written: -1}, product{frames: 3, length: 100 * time.Millisecond}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.want.check(c.made)
			if got == nil && c.reason != "" || got != nil && got.Reason != c.reason {
				t.Errorf("got %v, want %q", got, c.reason)
			}
		})
	}
}

func TestLengthIsTakenFromContainersThatStateIt(t *testing.T) {
	stream := func(kind, duration string) probedStream { return probedStream{Type: kind, Duration: duration} }
	for name, c := range map[string]struct {
		format, duration string
		streams          []probedStream
		sound            bool
		want             time.Duration
	}{
		"video alone":        {"mov,mp4,m4a", "10.5", []probedStream{stream("video", "10.000000"), stream("audio", "10.5")}, false, 10 * time.Second},
		"the longer one":     {"mov,mp4,m4a", "10.5", []probedStream{stream("video", "10.000000"), stream("audio", "10.5")}, true, 10500 * time.Millisecond},
		"streams do not say": {"matroska,webm", "7.25", []probedStream{stream("video", "")}, true, 7250 * time.Millisecond},
		"guessed by ffprobe": {"mpegts", "7.25", []probedStream{stream("video", "7.25")}, true, 0},
		"raw":                {"h264", "N/A", []probedStream{stream("video", "")}, true, 0},
		"no video":           {"mov,mp4,m4a", "5", []probedStream{stream("audio", "5")}, true, 0},
		"nonsense":           {"mov,mp4,m4a", "-5", []probedStream{stream("video", "NaN")}, true, 0},
		"cover picture is not it": {"mov,mp4,m4a", "5", []probedStream{{Type: "video", Duration: "5", Disposition: struct {
			AttachedPicture int `json:"attached_pic"`
		}{1}}}, true, 0},
	} {
		p := probed{Streams: c.streams}
		p.Format.Name, p.Format.Duration = c.format, c.duration
		if got := p.length(c.sound); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
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

func TestSecretsAreHidden(t *testing.T) {
	var s redactor
	s.addURL("rtmp://h:1935/live/mykey1234")
	s.addURL("https://user:pa55word@h/film.mp4?sig=abcdef")
	s.addURL("rtmp://h/live/abc")
	for in, want := range map[string]string{
		"rtmp://h:1935/live/mykey1234":                "rtmp://h:1935/live/***",
		"to 'rtmp://h:1935/live/mykey1234': refused":  "to 'rtmp://h:1935/live/***': refused",
		"unknown stream mykey1234":                    "unknown stream ***",
		"https://user:pa55word@h/film.mp4?sig=abcdef": "https://***@h/film.mp4?***",
		"pa55word and sig=abcdef":                     "*** and ***",
		"abc is too short to be hidden alone":         "abc is too short to be hidden alone",
		"as rtmp://h/live/abc it is":                  "as rtmp://h/live/*** it is",
		"nothing here":                                "nothing here",
	} {
		if got := s.redact(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	var none redactor
	if got := none.redact("as it is"); got != "as it is" {
		t.Error(got)
	}
	if masked, _ := maskURL("rtmp://%zz:secret@h/x"); strings.Contains(masked, "secret") {
		t.Error(masked)
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
