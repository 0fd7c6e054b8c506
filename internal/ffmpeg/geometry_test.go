package ffmpeg

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shape is how a player sees a file's video.
type shape struct {
	Width  int    `json:"width"`
	Height int    `json:"height"`
	SAR    string `json:"sample_aspect_ratio"`
	Rate   string `json:"avg_frame_rate"`
}

func shapeOf(t *testing.T, path string) shape {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-of", "json", "-select_streams", "v:0",
		"-show_entries", "stream=width,height,sample_aspect_ratio,avg_frame_rate", path).Output()
	if err != nil {
		t.Fatalf("probing %s: %v", path, err)
	}
	var report struct{ Streams []shape }
	if err := json.Unmarshal(out, &report); err != nil || len(report.Streams) != 1 {
		t.Fatalf("%s: %v", out, err)
	}
	return report.Streams[0]
}

// footage makes a clip of a second with a test picture of this description.
func footage(t *testing.T, path, picture string, more ...string) string {
	t.Helper()
	return clip(t, path, "1", append([]string{"-filter_complex", "testsrc2=duration=1:" + picture + "[v]", "-map", "[v]", "-map", "1:a"}, more...)...)
}

func TestOutputKeepsTheInputsGeometry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{dir} })
	turned := filepath.Join(dir, "turned.mp4")
	remux := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-i", footage(t, filepath.Join(dir, "flat.mp4"), "size=160x120:rate=25"),
		"-c", "copy", "-metadata:s:v", "rotate=90", turned)
	if out, err := remux.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	uneven := []string{"-filter_complex", "testsrc2=size=160x120:rate=30:duration=2,select='lt(t,1)+not(mod(n,3))'[v]", "-map", "[v]", "-fps_mode", "vfr"}
	for name, c := range map[string]struct {
		input, job string
		want       shape
		note       string
	}{
		"4:3":              {footage(t, filepath.Join(dir, "a.mp4"), "size=160x120:rate=25"), ``, shape{160, 120, "1:1", "25/1"}, ""},
		"NTSC in Matroska": {footage(t, filepath.Join(dir, "b.mkv"), "size=176x144:rate=30000/1001"), ``, shape{176, 144, "1:1", "30000/1001"}, ""},
		"MPEG-TS":          {footage(t, filepath.Join(dir, "c.ts"), "size=160x90:rate=50"), ``, shape{160, 90, "1:1", "50/1"}, ""},
		"anamorphic":       {footage(t, filepath.Join(dir, "d.mp4"), "size=180x144:rate=25,setsar=16/15"), ``, shape{180, 144, "16:15", "25/1"}, ""},
		"turned":           {turned, ``, shape{120, 160, "1:1", "25/1"}, ""},
		"odd":              {footage(t, filepath.Join(dir, "e.mkv"), "size=161x121:rate=25", "-pix_fmt", "yuv444p"), ``, shape{162, 122, "9821:9801", "25/1"}, "161x121 has an odd side"},
		"uneven":           {clip(t, filepath.Join(dir, "f.mp4"), "2", uneven...), ``, shape{160, 120, "1:1", "30/1"}, "frame rate varies"},
		"size of the job":  {filepath.Join(dir, "a.mp4"), `"resolution":"320x180",`, shape{320, 180, "3:4", "25/1"}, "its pixels are 0.75 times as wide"},
		"rate of the job":  {filepath.Join(dir, "a.mp4"), `"fps":50,`, shape{160, 120, "1:1", "50/1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(dir, "out-"+strings.NewReplacer(" ", "-", ":", "-").Replace(name)+".mp4")
			ctx := testContext(t)
			run := r.Begin(lease(t, name, `{"bitrate":"200k",`+c.job+`"quality":"psnr","input":`+quoted(c.input)+`,"output":`+quoted(out)+`}`))
			if err := walk(ctx, run); err != nil {
				t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
			}
			got, e := shapeOf(t, out), run.Snapshot().Encode
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if e.Width != got.Width || e.Height != got.Height || e.Pixels != e.Frames*int64(got.Width*got.Height) {
				t.Errorf("reported %dx%d and %d pixels in %d frames", e.Width, e.Height, e.Pixels, e.Frames)
			}
			if notes := strings.Join(e.Notes, "\n"); !strings.Contains(notes, c.note) || c.note == "" && strings.Contains(notes, "resolution") {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
			if q := run.Measure(ctx); q.PSNR == nil || *q.PSNR < 20 {
				t.Errorf("quality %+v", q)
			}
		})
	}
}

func TestInputOverHTTPKeepsItsGeometry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	footage(t, filepath.Join(dir, "in.mp4"), "size=160x120:rate=25", "-movflags", "+faststart")
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)
	run := newRunner(t).Begin(lease(t, "http", `{"input":`+quoted(server.URL+"/in.mp4")+`}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatal(err)
	}
	if e := run.Snapshot().Encode; e.Width != 160 || e.Height != 120 || e.Frames != 25 {
		t.Errorf("%dx%d, %d frames; want 160x120, 25", e.Width, e.Height, e.Frames)
	}
}

// TestPlanFollowsTheInputOfLimitedRoots: there FFmpeg and ffprobe get the open file.
func TestPlanFollowsTheInputOfLimitedRoots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := footage(t, filepath.Join(dir, "in.mp4"), "size=160x120:rate=25")
	r := newRunner(t, func(s *Settings) { s.Inputs.Roots, s.OutputRoots = []string{dir}, []string{dir} })
	run := r.Begin(lease(t, "ladder", `{"input":`+quoted(in)+`,"output":"x.mp4","bitrate":"200k","outputs":[{},{"resolution":"80x60","fps":50}]}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
	}
	if got := listing(t, dir); got != "in.mp4 x-80x60.mp4 x-source.mp4" {
		t.Errorf("the directory contains %s", got)
	}
	e := run.Snapshot().Encode
	if want := int64(25*160*120 + 50*80*60); e.Pixels != want || e.Width != 160 || e.Frames != 75 {
		t.Errorf("%d pixels, want %d; %d frames, width %d", e.Pixels, want, e.Frames, e.Width)
	}
	if shown := strings.Join(e.Args, " "); !strings.Contains(shown, in) || strings.Contains(shown, "/proc/self/fd") {
		t.Errorf("the input is shown otherwise than by its path: %s", shown)
	}
}

func TestBadInputIsJudgedWithoutItsGeometry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sound := clip(t, filepath.Join(dir, "sound.mka"), "1", "-vn", "-map", "1:a")
	f := wantFailure(t, walk(testContext(t), newRunner(t).Begin(lease(t, "sound", `{"input":`+quoted(sound)+`}`))), "input_error")
	if !strings.Contains(f.Message, "no video stream") {
		t.Errorf("message: %s", f.Message)
	}
}

func TestFrameRateOfAStream(t *testing.T) {
	for _, c := range []struct {
		mean, base string
		want       rate
		uneven     bool
	}{
		{"25/1", "25/1", rate{25, 1}, false},
		{"25/1", "50/1", rate{25, 1}, false}, // fields
		{"30000/1001", "30000/1001", rate{30000, 1001}, false},
		{"359/12", "30/1", rate{30, 1}, false},               // the last frame is longer
		{"2997/100", "60000/1001", rate{60000, 2002}, false}, // rounded, fields
		{"1437/100", "60/1", rate{60, 1}, true},
		{"1437/100", "90000/1", rate{1437, 100}, true}, // the base is that of the time stamps
		{"0/0", "24/1", rate{24, 1}, false},
		{"25/1", "0/0", rate{25, 1}, false},
		{"0/0", "0/0", rate{}, false},
		{"", "", rate{}, false},
	} {
		s := probedStream{Rate: c.mean, BaseRate: c.base}
		if got, uneven := s.rate(); got != c.want || uneven != c.uneven {
			t.Errorf("mean %s, base %s: got %v, uneven %v; want %v, %v", c.mean, c.base, got, uneven, c.want, c.uneven)
		}
	}
}

func TestUnusualInputSizeIsClamped(t *testing.T) {
	for _, c := range []struct {
		of   media
		says []string
	}{
		{media{size: size{8, 20000}, fps: rate{25, 1}}, []string{"output 0: h264 16x16384 at 25", "resolution 8x20000 of the input is not between 16 and 16384 px per side; encoded as 16x16384"}},
		{media{size: size{640, 480}, fps: rate{1000, 1}}, []string{"output 0: h264 640x480 at 300", "the input has 1000 frames per second; encoded at 300"}},
		{media{size: size{640, 480}, fps: rate{1437, 100}, uneven: true}, []string{"at 1437/100", "at 14.37 frames per second"}},
	} {
		got := argumentsOf(t, `{"parameters":{"input":"/in.mp4"}}`, testNode(knownCaps, nil), c.of)
		for _, s := range c.says {
			if !strings.Contains(got, s) {
				t.Errorf("%+v: %q is not in\n%s", c.of, s, got)
			}
		}
	}
}

func TestSizesAreLearnedFromTheLog(t *testing.T) {
	const log = `[info] Input #0, flv, from 'rtmp://h/live/x':
[info]   Metadata:
[info]     title           : Output #0, Stream #0:0: Video: x, 1x1 
[info]   Stream #0:0: Video: h264 (High), yuv420p(progressive), 640x480 [SAR 1:1 DAR 4:3], 25 fps, 25 tbr, 1k tbn
[info] Output #0, flv, to 'rtmp://h/live/y':
[info]   Stream #0:0: Video: h264 ([7][0][0][0] / 0x0007), yuv420p(tv, progressive), 640x480 [SAR 1:1 DAR 4:3], q=2-31, 2000 kb/s, 25 fps, 1k tbn
[info]   Stream #0:1: Audio: aac (LC) ([10][0][0][0] / 0x000A), 48000 Hz, mono, fltp, 128 kb/s
[info] Output #1, mp4, to 'file:/x.mp4':
[info]   Stream #1:0(und): Video: h264 (avc1 / 0x31637661), yuv420p, 320x240, q=2-31, 25 fps, 12800 tbn (default)
`
	sizes := []size{{}, {}}
	if !learnSizes(log, sizes) || sizes[0] != (size{640, 480}) || sizes[1] != (size{320, 240}) {
		t.Errorf("sizes %v", sizes)
	}
	if sizes = []size{{}, {100, 100}}; learnSizes(log[:300], sizes) || sizes[0].known() {
		t.Errorf("before FFmpeg named them: %v", sizes)
	}
}

// TestTagsDescribeTheOutput: what players go by is true of the samples that were written.
func TestTagsDescribeTheOutput(t *testing.T) {
	t.Parallel()
	c := corpus{t, t.TempDir()}
	c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=1", "-c:v", "libx264rgb", "rgb.mkv")
	c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=1", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "full.mkv")
	c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=1", "-c:v", "libx265", "-pix_fmt", "yuv420p10le",
		"-x265-params", "log-level=0:colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc", "hlg.mkv")
	for name, want := range map[string]string{
		"rgb.mkv":  "yuv420p|tv|bt709|unknown", // RGB has no matrix; the encode's is stated
		"full.mkv": "yuv420p|tv|bt470bg|unknown",
		"hlg.mkv":  "yuv420p|tv|bt2020nc|arib-std-b67", // fewer bits, but not tone-mapped
	} {
		out := c.path(name + ".mp4")
		run := newRunner(t, func(s *Settings) { s.OutputRoots = []string{c.dir} }).Begin(lease(t, "tags", `{"preset":"ultrafast","input":`+quoted(c.path(name))+`,"output":`+quoted(out)+`}`))
		if err := walk(testContext(t), run); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tags, err := exec.Command("ffprobe", "-v", "error", "-of", "compact=p=0:nk=1", "-select_streams", "v:0",
			"-show_entries", "stream=pix_fmt,color_range,color_space,color_transfer", out).Output()
		if got := strings.TrimSpace(string(tags)); err != nil || got != want {
			t.Errorf("%s: got %s (%v), want %s", name, got, err, want)
		}
	}
}
