package ffmpeg

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ffmpeg-agent/messages/protocol"
)

// knownCaps stand for a usual FFmpeg, so that arguments do not depend on the machine's.
var knownCaps = Capabilities{
	Video: map[string]string{
		"libx264": "h264", "libx265": "hevc", "libvpx": "vp8", "libvpx-vp9": "vp9", "libsvtav1": "av1", "libaom-av1": "av1", "librav1e": "av1",
		"h264_nvenc": "h264", "mpeg4": "mpeg4", "prores_ks": "prores", "mjpeg": "mjpeg",
	},
	Audio:   map[string]string{"aac": "aac", "libopus": "opus", "libmp3lame": "mp3"},
	Filters: map[string]bool{"psnr": true, "ssim": true},
}

// testNode is a node with the default settings.
func testNode(caps Capabilities, tried map[string]bool) node {
	return node{settings: Settings{MasterHost: "master.example", Timeout: time.Hour, EngineFallback: true}, caps: caps, tried: tried}
}

// arguments renders what becomes of a job: its argument vector, or its refusal.
// An input has 1920x1080 at 25.
func arguments(t *testing.T, job string, caps Capabilities, proved map[string]bool) string {
	t.Helper()
	return argumentsOf(t, job, testNode(caps, proved), media{size: size{1920, 1080}, fps: rate{25, 1}})
}

func argumentsOf(t *testing.T, job string, on node, of media) string {
	t.Helper()
	var j protocol.Job
	if err := json.Unmarshal([]byte(job), &j); err != nil {
		t.Fatalf("%s: %v", job, err)
	}
	p, problems, lacks := newPlan(j, on, of)
	if f := refusal(problems, lacks); f != nil {
		return fmt.Sprintf("%s: %s\n", f.Reason, f.Message)
	}
	in := source{url: "file:/in", options: []string{"-protocol_whitelist", "file"}}
	var b strings.Builder
	if p.input == "" {
		fmt.Fprintf(&b, "input: %s\n", strings.Join(p.syntheticArgs(on.caps, "/work/input.mov")[len(globalArgs()):], " "))
		in.looped = p.duration > maxClip
	}
	var to []string
	for i, r := range p.renditions {
		name := r.url
		if name == "" {
			name = fmt.Sprintf("file:/out-%d%s", i, r.extension)
		}
		to = append(to, name)
	}
	fmt.Fprintf(&b, "job: %s\n", strings.Join(p.args(in, to)[len(globalArgs()):], " "))
	for i, r := range p.renditions {
		fmt.Fprintf(&b, "output %d: %s %s at %s, bitrate %q, output %q\n", i, r.codec, r.size, r.fps, r.bitrate, r.output)
	}
	fmt.Fprintf(&b, "quality %q, timeout %s\n", p.quality, p.timeout)
	for _, note := range p.notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	return b.String()
}

// Each line of the list is a job; the golden file says what becomes of each.
func goldenJobs(t *testing.T, name string) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name + ".jobs")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			fmt.Fprintln(&b, line)
			continue
		}
		fmt.Fprintf(&b, "%s\n%s\n", line, arguments(t, line, knownCaps, nil))
	}
	golden(t, name+".golden", b.Bytes())
}

func TestEveryParameterHasItsArguments(t *testing.T) { goldenJobs(t, "parameters") }

func TestHostileValuesAreRefused(t *testing.T) {
	goldenJobs(t, "hostile")
	raw, err := os.ReadFile("testdata/hostile.jobs")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if got := arguments(t, line, knownCaps, nil); !strings.HasPrefix(got, "user_error: ") && !strings.HasPrefix(got, "capability_mismatch: ") {
			t.Errorf("%s is taken:\n%s", line, got)
		}
	}
}

func TestGlobalArguments(t *testing.T) {
	const want = "-nostdin -hide_banner -nostats -loglevel level+verbose -stats_period 0.5 -progress pipe:3 -max_error_rate 1 -y"
	if got := strings.Join(globalArgs(), " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEngineFallbackCanBeTurnedOff(t *testing.T) {
	on := testNode(knownCaps, nil)
	on.settings.EngineFallback = false
	if got := argumentsOf(t, `{"engine":"gstreamer"}`, on, media{}); got != "capability_mismatch: not available on this node: engine \"gstreamer\"\n" {
		t.Errorf("got %s", got)
	}
}

func TestDefaultPresets(t *testing.T) {
	on := testNode(knownCaps, nil)
	on.settings.DefaultPresets = map[string]string{"h264": "superfast", "h265": "slow", "av1": "10", "vp9": "realtime/7"}
	for parameters, want := range map[string]string{
		`{}`:                                 "-preset superfast",
		`{"codec":"libx264"}`:                "-preset superfast",
		`{"codec":"h264","preset":"medium"}`: "-preset medium",
		`{"codec":"h265"}`:                   "-preset slow",
		`{"codec":"av1"}`:                    "-c:v libsvtav1 -preset 10",
		`{"codec":"libaom-av1"}`:             "-cpu-used 4", // its numbers are others
		`{"codec":"vp9"}`:                    "-row-mt 1 -deadline realtime -cpu-used 7",
	} {
		if got := argumentsOf(t, `{"parameters":`+parameters+`}`, on, media{}); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in\n%s", parameters, want, got)
		}
	}
	for codec, preset := range map[string]string{"h266": "fast", "h264": "8", "vp9": "good/6", "av1": "13", "vp8": ""} {
		if _, err := New(Settings{DataDir: t.TempDir(), DefaultPresets: map[string]string{codec: preset}}); err == nil || !strings.Contains(err.Error(), codec) {
			t.Errorf("%s=%s: got error %v", codec, preset, err)
		}
	}
}

func TestAllBadParametersAreNamed(t *testing.T) {
	got := arguments(t, `{"engine":"warp","parameters":{"bitrate":"-f","duration":-3,"resolution":"999999x999999","fps":0,"crf":99,
		"preset":"warp","quality":"good","output_mode":"fax","audio_bitrate":"loud","output":"x.exe","resource_limits":{"timeout_sec":"soon"}}}`, knownCaps, nil)
	if !strings.HasPrefix(got, "user_error: ") {
		t.Errorf("got %s", got)
	}
	for _, name := range []string{"bitrate", "duration", "resolution", "fps", "crf", "preset", "quality", "output_mode", "audio_bitrate", "output", "resource_limits.timeout_sec"} {
		if strings.Count(got, "; "+name+": ")+strings.Count(got, "parameters: "+name+": ") != 1 {
			t.Errorf("%s is not named once in: %s", name, got)
		}
	}
}

func TestParameterDecodeErrorIsUserError(t *testing.T) {
	got := arguments(t, `{"id":"x","parameters":"none"}`, knownCaps, nil)
	if !strings.HasPrefix(got, "user_error: ") || !strings.Contains(got, "parameters") {
		t.Errorf("got %s", got)
	}
}

func TestScenarioFillsTheGaps(t *testing.T) {
	for name, want := range map[string]scenario{
		"720p30-h264":     {size{1280, 720}, rate{30, 1}, "h264", ""},
		"4K60-h265":       {size{3840, 2160}, rate{60, 1}, "h265", ""},
		"1080p-vp9":       {size{1920, 1080}, rate{}, "vp9", ""},
		"480p":            {size{854, 480}, rate{}, "", ""},
		"640x480-24fps":   {size{640, 480}, rate{24, 1}, "", ""},
		"av1_8k":          {size{7680, 4320}, rate{}, "av1", ""},
		"4K60-x265":       {size{3840, 2160}, rate{60, 1}, "h265", ""},
		"720p30-x264":     {size{1280, 720}, rate{30, 1}, "h264", ""},
		"1080p30-HEVC":    {size{1920, 1080}, rate{30, 1}, "h265", ""},
		"1080p-av1":       {size{1920, 1080}, rate{}, "av1", ""},
		"720p-vp8":        {size{1280, 720}, rate{}, "vp8", ""},
		"1080p60-nvenc":   {size{1920, 1080}, rate{60, 1}, "", "nvenc"},
		"4K-hevc_nvenc":   {size{3840, 2160}, rate{}, "h265", "nvenc"},
		"":                {},
		"nightly-run":     {},
		"9999p":           {},
		"123p60":          {},
		"720p999-h264":    {size{1280, 720}, rate{}, "h264", ""},
		"99999x99999":     {},
		"h264-720p60-x y": {size{1280, 720}, rate{60, 1}, "h264", ""},
	} {
		if got, _ := parseScenario(name); got != want {
			t.Errorf("%q is %+v, want %+v", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"720p30-h264": "", "4K60-x265": "", "nightly-run": `"nightly" "run"`, "720p999-h264": `"720p999"`, "1080p-mpeg5": `"mpeg5"`, "": "",
	} {
		if _, unknown := parseScenario(name); strings.Join(unknown, " ") != want {
			t.Errorf("%q: %v are not understood, want %s", name, unknown, want)
		}
	}
}

func TestFrameRates(t *testing.T) {
	for in, want := range map[string]rate{
		`25`: {25, 1}, `"25"`: {25, 1}, `29.97`: {30000, 1001}, `"29.97"`: {30000, 1001}, `"23.976"`: {24000, 1001}, `12.5`: {25, 2},
		`"30000/1001"`: {30000, 1001}, `1e2`: {100, 1}, `" 50 "`: {50, 1}, `0.5`: {1, 2},
		`0`: {}, `-1`: {}, `"x"`: {}, `"1/0"`: {}, `"-30/1"`: {}, `"1/2/3"`: {}, `true`: {}, `1e300`: {}, `"NaN"`: {}, `"Inf"`: {}, `1e-9`: {},
	} {
		var p protocol.Parameters
		if err := json.Unmarshal([]byte(`{"fps":`+in+`}`), &p); err != nil {
			t.Fatal(err)
		}
		got, ok := parseRate(p["fps"])
		if ok != (want != rate{}) || ok && got != want {
			t.Errorf("%s is %v, %v; want %v", in, got, ok, want)
		}
	}
	for _, fps := range []any{29.97, 30, int64(30)} {
		if r, ok := parseRate(fps); !ok || r.num == 0 {
			t.Errorf("%v of a job made in Go is %v", fps, r)
		}
	}
}

func TestLackingEncodersAreNamed(t *testing.T) {
	bare := Capabilities{Video: map[string]string{"libx264": "h264", "libaom-av1": "av1"}, Audio: map[string]string{}}
	for job, want := range map[string]string{
		`{"parameters":{"codec":"h265","audio_codec":"none"}}`: "capability_mismatch: not available on this node: codec h265",
		`{"parameters":{}}`: "capability_mismatch: not available on this node: audio encoder aac",
		`{"parameters":{"codec":"av1","audio_codec":"none"}}`: "libaom-av1", // for want of SVT
	} {
		if got := arguments(t, job, bare, nil); !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", job, got, want)
		}
	}
}

// Whatever a job holds, no value of it begins an argument with a dash, and every
// number is within bounds.
func TestNoValueBecomesAnOption(t *testing.T) {
	keys := []string{"input", "output", "output_mode", "rtmp_url", "stream_key", "codec", "bitrate", "preset", "crf", "resolution", "resolution_width",
		"resolution_height", "fps", "frame_rate", "duration", "duration_seconds", "hwaccel", "audio_codec", "audio_bitrate", "quality"}
	values := rapid.OneOf(
		rapid.SampledFrom([]any{"-f", "--", "-", " -i", "/tmp/a.mp4", "a.webm", "rtmp", "file", "h264", "vp9", "mpeg4", "2000k", "-1", "0", "1e9", "720p", "16x16", "copy", "none", "psnr",
			"rtmp://h/a/b", "key -f mp4", "a\nb", nil, true, []any{"x"}, map[string]any{"a": "b"}}),
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.Float64(), func(f float64) any { return f }),
		rapid.Map(rapid.IntRange(-5, 70000), func(i int) any { return json.Number(fmt.Sprint(i)) }),
	)
	ours := map[string]bool{}
	for _, list := range [][]string{globalArgs(), {"-protocol_whitelist", "-re", "-stream_loop", "-i", "-filter_complex", "-map", "-vf", "-c:v", "-pix_fmt", "-c:a", "-b:a", "-t",
		"-movflags", "-rw_timeout", "-f", "-b:v", "-crf", "-maxrate", "-bufsize", "-g", "-preset", "-deadline", "-cpu-used", "-usage", "-row-mt", "-speed", "-tag:v", "-1"}} {
		for _, a := range list {
			ours[a] = true
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		params := protocol.Parameters(rapid.MapOfN(rapid.SampledFrom(keys), values, 0, 5).Draw(t, "parameters"))
		p, problems, lacks := newPlan(protocol.Job{ID: "job", Parameters: params}, testNode(knownCaps, nil), media{})
		if refusal(problems, lacks) != nil {
			return
		}
		to := make([]string, len(p.renditions))
		for i, r := range p.renditions {
			if to[i] = "file:/out"; r.url != "" {
				to[i] = r.url
			}
			sized := sideOK(r.size.width) && sideOK(r.size.height) || r.sourceSize && p.input != ""
			rated := r.fps.float() > 0 && r.fps.float() <= maxFPS || r.sourceRate && p.input != ""
			if !sized || !rated {
				t.Fatalf("out of bounds: %+v", r)
			}
		}
		if p.duration <= 0 || p.duration > maxDuration {
			t.Fatalf("duration %s", p.duration)
		}
		for _, a := range p.args(source{url: "file:/in"}, to) {
			if strings.HasPrefix(a, "-") && !ours[a] {
				t.Fatalf("option %q in %q", a, p.args(source{}, to))
			}
		}
	})
}

func TestWrongTypeErrorNamesKeyAndValue(t *testing.T) {
	for parameters, says := range map[string][]string{
		`{"codec":{"name":"h264"}}`:                       {`codec: {"name":"h264"}`, "h265"},
		`{"preset":true}`:                                 {"preset: true", "medium"},
		`{"resolution":[640,480]}`:                        {"resolution: [640,480]", "1280x720"},
		`{"duration":"ten"}`:                              {`duration: "ten"`, "86400"},
		`{"fps":"many"}`:                                  {`fps: "many"`, "300"},
		`{"crf":"good"}`:                                  {`crf: "good"`, "0 and 51"},
		`{"resolution_width":"x","resolution_height":64}`: {`resolution_width: "x"`, "16 and 16384 px"},
		`{"resource_limits":{"timeout_sec":[]}}`:          {"resource_limits.timeout_sec: []", "604800 s"},
		`{"resource_limits":5}`:                           {"resource_limits: 5", "timeout_sec"},
		`{"outputs":[7]}`:                                 {"outputs[0]: 7", "resolution"},
		`{"outputs":[{"bitrate":{}}]}`:                    {"outputs[0].bitrate: {}", "2000k"},
	} {
		got := arguments(t, `{"parameters":`+parameters+`}`, knownCaps, nil)
		for _, s := range append(says, "user_error") {
			if !strings.Contains(got, s) {
				t.Errorf("%s: no %s in: %s", parameters, s, got)
			}
		}
	}
	for key, text := range allowedTexts {
		mode := "rtmp"
		if key == "output" {
			mode = "file"
		}
		if got := arguments(t, `{"id":"x","parameters":{"output_mode":`+quoted(mode)+`,`+quoted(key)+`:[1]}}`, knownCaps, nil); key != "output_mode" && !strings.Contains(got, key+": [1] is not text: "+text) {
			t.Errorf("%s: %s", key, got)
		}
	}
}

func TestRefusalsHoldNoSecret(t *testing.T) {
	for _, parameters := range []string{
		`{"output_mode":"rtmp","stream_key":"very\tsecret"}`, `{"output_mode":"rtmp","stream_key":"-verysecret"}`, `{"output_mode":"rtmp","stream_key":"verysecret|"}`,
		`{"output_mode":"rtmp","rtmp_url":"rtmp://h/live/very\tsecret"}`, `{"output_mode":"rtmp","rtmp_url":"rtmp://h/live/verysecret|x"}`,
		`{"input":"http://user:verysecret@h/\tx"}`, `{"input":"-http://user:verysecret@h/x"}`,
	} {
		got := arguments(t, `{"parameters":`+parameters+`}`, knownCaps, nil)
		if !strings.HasPrefix(got, "user_error") || strings.Contains(got, "verysecret") || strings.Contains(got, "secret\"") || strings.Contains(got, `very\t`) {
			t.Errorf("%s: %s", parameters, got)
		}
	}
}

func TestStreamLadderHasDistinctURLs(t *testing.T) {
	got := arguments(t, `{"parameters":{"output_mode":"rtmp","stream_key":"key?auth=1","outputs":[{"resolution":"640x360"},{"resolution":"320x180"}]}}`, knownCaps, nil)
	for _, want := range []string{"rtmp://master.example:1935/live/key-640x360?auth=1", "rtmp://master.example:1935/live/key-320x180?auth=1"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in: %s", want, got)
		}
	}
	s := resolverIn(t.TempDir())
	s.resolve(&plan{streaming: true, renditions: []rendition{{url: "rtmp://h/live/verysecret"}, {url: "rtmp://h/live/verysecret"}}})
	if len(s.problems) != 1 || !strings.Contains(s.problems[0], "rtmp://h/***") || strings.Contains(s.problems[0], "verysecret") {
		t.Errorf("problems: %v", s.problems)
	}
}
