//go:build attack

package attack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/messages/protocol"
)

// resourceAttacks are jobs that want more of the machine than they may have.
var resourceAttacks = []attack{{
	name: "raw video", threat: "T6",
	wants: "to fill the disk",
	run: func(t *testing.T) (got string) {
		b := newBed(t, "FFMPEG_AGENT_JOBS_LIMITS_OUTPUT_BYTES=32MiB")
		b.wantFailure(protocol.ReasonResourceError, map[string]any{"codec": "rawvideo", "resolution": "1920x1080", "duration": 3600, "output": filepath.Join(b.files, "raw.mkv")})
		left, _ := filepath.Glob(filepath.Join(b.files, "*"))
		if len(left) > 0 {
			got = "left " + strings.Join(left, ", ")
		}
		b.wantAlive()
		return got
	},
}, {
	name: "huge pictures", threat: "T6",
	wants: "to use up the memory",
	run: func(t *testing.T) (got string) {
		b := newBed(t, "FFMPEG_AGENT_JOBS_LIMITS_MEMORY=256MiB")
		var outputs []any
		for range 16 {
			outputs = append(outputs, map[string]any{"resolution": "8192x8192"})
		}
		b.wantFailure(protocol.ReasonUserError, map[string]any{"outputs": outputs})
		b.wantFailure(protocol.ReasonResourceError, map[string]any{"resolution": "4096x4096", "duration": 60, "preset": "veryslow"})
		b.wantAlive()
		return ""
	},
}, {
	name: "listening inputs", threat: "T7",
	wants: "a port of the job's choice on this machine",
	run: func(t *testing.T) (got string) {
		b := newBed(t, "FFMPEG_AGENT_JOBS_INPUT_PROTOCOLS=file,srt,tcp,udp,rist")
		for _, input := range []string{
			"srt://0.0.0.0:19991?mode=listener", "srt://127.0.0.1:19991?x=1&mode=listener", "srt://0.0.0.0:19991?x=1#&mode=listener", "tcp://127.0.0.1:19991?listen",
			"udp://127.0.0.1:19991?localport=19991", "rist://@127.0.0.1:19991",
		} {
			b.wantFailure(protocol.ReasonUserError, map[string]any{"input": input, "resolution": "64x64"})
		}
		return ""
	},
}, {
	name: "a playlist by its content", threat: "T7",
	wants: "to read a file of another tenant",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		victim := b.video("victim.ts")
		for _, text := range []string{
			"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" + victim + "\n#EXT-X-ENDLIST\n",
			"ffconcat version 1.0\nfile " + victim + "\n",
		} {
			p := small()
			p["input"] = b.file("a.mp4", text)
			if result, _ := b.run(p); result.Status == protocol.StatusCompleted {
				got += "read it by " + strings.Fields(text)[0] + "; "
			}
		}
		return got
	},
}, {
	name: "a rare demuxer", threat: "T7",
	wants: "code that is seldom tested with hostile files",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		p := small()
		p["input"] = b.file("movie.smk", "SMK2"+strings.Repeat("\x01", 4096))
		b.wantFailure(protocol.ReasonUserError, p)
		return ""
	},
}, {
	name: "a huge parameter", threat: "T11",
	wants: "a journal that grows without bounds",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		p := small()
		p["unknown"] = strings.Repeat("x", 700_000)
		for range 5 {
			if result, _ := b.run(p); result.Status != protocol.StatusCompleted {
				t.Errorf("got %s %q", result.Status, result.Error)
			}
		}
		info, err := os.Stat(filepath.Join(b.dir, "journal.db"))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(b.dir, "journal.db"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), strings.Repeat("x", 10_000)) {
			got = "the parameter is in the journal"
		}
		t.Logf("the journal has %d bytes", info.Size())
		return got
	},
}}
