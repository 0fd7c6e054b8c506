package ffmpeg

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"ffmpeg-agent/messages/protocol"
)

func TestBestAudio(t *testing.T) {
	track := func(format string, isDefault int) (s probedStream) {
		s.SampleFormat, s.Channels, s.Disposition.Default = format, 2, isDefault
		return s
	}
	for name, c := range map[string]struct {
		tracks []probedStream
		want   int
	}{
		"none":                      {nil, -1},
		"first":                     {[]probedStream{track("fltp", 0), track("fltp", 0)}, 0},
		"default":                   {[]probedStream{track("fltp", 0), track("fltp", 1)}, 1},
		"first of two defaults":     {[]probedStream{track("fltp", 1), track("fltp", 1)}, 0},
		"no decoder":                {[]probedStream{track("", 1)}, -1},
		"default without a decoder": {[]probedStream{track("", 1), track("fltp", 0)}, 1},
	} {
		if got := bestAudio(c.tracks); got != c.want {
			t.Errorf("%s: got track %d, want %d", name, got, c.want)
		}
	}
}

// TestVideoLength: a length that another track may have is none of the video.
func TestVideoLength(t *testing.T) {
	const s = time.Second
	for name, c := range map[string]struct {
		report string
		want   time.Duration
	}{
		"index":                {`{"format":{"format_name":"mov,mp4","duration":"20"},"streams":[{"codec_type":"video","duration":"6"},{"codec_type":"audio","duration":"20"}]}`, 6 * s},
		"tag":                  {`{"format":{"format_name":"matroska,webm","duration":"20"},"streams":[{"codec_type":"video","tags":{"DURATION":"00:00:06.000"}},{"codec_type":"audio"}]}`, 6 * s},
		"tag after an offset":  {`{"format":{"format_name":"matroska,webm","start_time":"100","duration":"106"},"streams":[{"codec_type":"video","start_time":"100","tags":{"DURATION":"00:01:46.000"}}]}`, 6 * s},
		"stale tag":            {`{"format":{"format_name":"matroska,webm","duration":"6"},"streams":[{"codec_type":"video","tags":{"DURATION":"00:10:00.000"}}]}`, 6 * s},
		"video alone":          {`{"format":{"format_name":"matroska,webm","duration":"6"},"streams":[{"codec_type":"video"}]}`, 6 * s},
		"audio beside it":      {`{"format":{"format_name":"matroska,webm","duration":"6"},"streams":[{"codec_type":"video"},{"codec_type":"audio"}]}`, 0},
		"chapters":             {`{"format":{"format_name":"matroska,webm","duration":"600"},"streams":[{"codec_type":"video"}],"chapters":[{"id":0}]}`, 0},
		"guessed":              {`{"format":{"format_name":"mpegts","duration":"6"},"streams":[{"codec_type":"video","duration":"6"}]}`, 0},
		"playlist":             {`{"format":{"format_name":"hls","duration":"6"},"streams":[{"codec_type":"video"}]}`, 6 * s},
		"nonsense":             {`{"format":{"format_name":"mov,mp4","duration":"-5"},"streams":[{"codec_type":"video","duration":"NaN"}]}`, 0},
		"cover picture":        {`{"format":{"format_name":"mov,mp4","duration":"5"},"streams":[{"codec_type":"video","duration":"5","disposition":{"attached_pic":1}}]}`, 0},
		"longer than the file": {`{"format":{"format_name":"flv","start_time":"100","duration":"6"},"streams":[{"codec_type":"video"}]}`, 0},
	} {
		var p probed
		if err := json.Unmarshal([]byte(c.report), &p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := p.media().length; got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// TestChangesAreNoted: also what has an effect on the arguments.
func TestChangesAreNoted(t *testing.T) {
	sound := func(channels int) []probedStream {
		return []probedStream{{Type: "audio", Codec: "pcm_s16le", SampleFormat: "s16", Channels: channels}}
	}
	base := media{probed: true, size: size{640, 480}, fps: rate{30, 1}, bits: 8, track: -1}
	with := func(change func(*media)) media { m := base; change(&m); return m }
	for name, c := range map[string]struct {
		job  string
		of   media
		says []string
	}{
		"nothing":      {``, base, nil},
		"interlaced":   {``, with(func(m *media) { m.interlaced = "top field first" }), []string{"interlaced (top field first); encoded as progressive"}},
		"HDR":          {``, with(func(m *media) { m.bits, m.transfer = 10, "smpte2084" }), []string{"HDR (PQ) with 10 bits per sample; encoded with 8 bits and not tone-mapped"}},
		"10 bits":      {``, with(func(m *media) { m.bits = 10 }), []string{"10 bits per sample; encoded with 8"}},
		"aspect ratio": {`,"resolution":"1280x720"`, base, []string{"aspect ratio of 1.333:1; its pixels are 0.75 times as wide"}},
		"other tracks": {``, with(func(m *media) {
			m.audio, m.track, m.leftOut = append(sound(2), sound(2)...), 0, []string{"1 subtitle track"}
		}), []string{"left out: 1 audio track, 1 subtitle track", "-map 0:a:0 "}},
		"second track":       {``, with(func(m *media) { m.audio, m.track = append(sound(2), sound(2)...), 1 }), []string{"-map 0:a:1 "}},
		"no audio asked":     {`,"audio_codec":"none"`, with(func(m *media) { m.audio, m.track = sound(2), 0 }), []string{"left out: 1 audio track"}},
		"no decoder":         {``, with(func(m *media) { m.audio = []probedStream{{Type: "audio", Codec: "apac"}} }), []string{"left out: 1 audio track (no decoder for apac)"}},
		"16 channels":        {``, with(func(m *media) { m.audio, m.track = sound(16), 0 }), []string{"16 channels without a layout", "-af pan=stereo|c0=c0|c1=c1"}},
		"six channels, Opus": {`,"audio_codec":"opus"`, with(func(m *media) { m.audio, m.track = sound(6), 0 }), []string{"-af aformat=channel_layouts=mono|stereo"}},
		"ladder":             {`,"outputs":[{"resolution":"640x480"},{"resolution":"320x240"}]`, base, []string{"key frames are up to 8.33 s apart"}},
	} {
		got := argumentsOf(t, `{"parameters":{"input":"/in.mp4"`+c.job+`}}`, testNode(knownCaps, nil), c.of)
		for _, want := range c.says {
			if !strings.Contains(got, want) {
				t.Errorf("%s: got\n%s\nwant %q in it", name, got, want)
			}
		}
		if len(c.says) == 0 && strings.Contains(got, "note:") {
			t.Errorf("%s: got\n%s\nwant no note", name, got)
		}
	}
}

func TestIgnoredParametersAreLoggedOnce(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	in := clip(t, filepath.Join(t.TempDir(), "in.mp4"), "1") // is planned twice: without the input, and with it
	run := newRunner(t, func(s *Settings) { s.Logger = zap.New(core) }).Begin(lease(t, "ignored", `{`+small+`,"gop":12,"maxrate":"2M","input":`+quoted(in)+`}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatal(err)
	}
	var logged []string
	for _, l := range logs.FilterMessage("parameters of the job had no effect").All() {
		logged = append(logged, fmt.Sprint(l.ContextMap()["parameters"]))
	}
	if len(logged) != 1 || logged[0] != `"gop", "maxrate"` {
		t.Errorf("logged %v, want gop and maxrate once", logged)
	}
}

// TestDamagedInputPolicy: what the node says holds where the job says nothing.
func TestDamagedInputPolicy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := corpus{t, dir}
	clip(t, c.path("six.mp4"), "2")
	c.remux("six.mkv", "-c", "copy")
	c.edit("six.mkv", "half.mkv", half)
	for name, c := range map[string]struct {
		node bool
		job  string
		want protocol.FailureReason
	}{
		"default":        {false, ``, protocol.ReasonInputError},
		"node accepts":   {true, ``, ""},
		"job accepts":    {false, `"accept_damaged":true,`, ""},
		"job overrides":  {true, `"accept_damaged":false,`, protocol.ReasonInputError},
		"neither of two": {true, `"accept_damaged":"perhaps",`, protocol.ReasonUserError},
	} {
		r := newRunner(t, func(s *Settings) { s.AcceptDamaged = c.node })
		err := walk(testContext(t), r.Begin(lease(t, "policy", `{`+c.job+small+`,"input":`+quoted(filepath.Join(dir, "half.mkv"))+`}`)))
		switch {
		case c.want != "":
			wantFailure(t, err, c.want)
		case err != nil:
			t.Errorf("%s: got %v, want completed", name, err)
		}
	}
}
