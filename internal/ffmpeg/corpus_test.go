package ffmpeg

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/messages/job"
)

// allMedia runs the kinds of inputs that take longer, too: make media.
var allMedia = flag.Bool("media", false, "test all kinds of inputs")

// corpus makes inputs from a base clip of six seconds, 320x240 at 30, with sound.
type corpus struct {
	t   *testing.T
	dir string
}

func (c corpus) path(name string) string { return filepath.Join(c.dir, name) }

// ffmpeg runs FFmpeg in the corpus' directory.
func (c corpus) ffmpeg(args ...string) {
	c.t.Helper()
	cmd := exec.Command("ffmpeg", append([]string{"-nostdin", "-v", "error", "-y"}, args...)...)
	cmd.Dir = c.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("making an input: %v: ffmpeg %s\n%s", err, strings.Join(args, " "), out)
	}
}

// edit writes a changed copy of a file.
func (c corpus) edit(from, to string, change func([]byte) []byte) {
	c.t.Helper()
	data, err := os.ReadFile(c.path(from))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(c.path(to), change(data), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func half(b []byte) []byte { return b[:len(b)/2] }

// zeroed overwrites a part of a file, as a damaged disk does.
func zeroed(from, to float64) func([]byte) []byte {
	return func(b []byte) []byte {
		clear(b[int(from*float64(len(b))):int(to*float64(len(b)))])
		return b
	}
}

// remux copies the streams of six.mp4.
func (c corpus) remux(name string, args ...string) {
	c.t.Helper()
	c.ffmpeg(append(append([]string{"-i", "six.mp4"}, args...), name)...)
}

// kind is one kind of input with the verdict that its owner expects.
type kind struct {
	name   string
	make   func(c corpus) string // makes the input and returns its name
	job    string                // further parameters in JSON
	want   string                // completed, or the reason with a part of its message
	note   string                // part of a note
	frames int64                 // of the output; 0: any number
	media  time.Duration         // of the output; 0: any
	slow   bool                  // in make media only
}

const second = time.Second

var kinds = []kind{
	// Sound inputs.
	{slow: true, name: "mp4", make: func(c corpus) string { return "six.mp4" }, want: "completed", frames: 180, media: 6 * second},
	{slow: true, name: "transport stream", make: func(c corpus) string { c.remux("six.ts", "-c", "copy"); return "six.ts" }, want: "completed", media: 6 * second},
	{slow: true, name: "broadcast capture that begins between key frames", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-c:v", "libx264", "-g", "90", "-bf", "2", "-c:a", "copy", "gop.ts")
		c.edit("gop.ts", "middle.ts", func(b []byte) []byte { return b[len(b)/188/3*188:] })
		return "middle.ts"
	}, want: "completed"},
	{slow: true, name: "two transport streams joined by cat", make: func(c corpus) string {
		c.remux("one.ts", "-c", "copy")
		c.edit("one.ts", "joined.ts", func(b []byte) []byte { return append(b, b...) })
		return "joined.ts"
	}, want: "completed"},
	{name: "time stamps from 100 s, Matroska", make: func(c corpus) string {
		c.remux("late.mkv", "-c", "copy", "-output_ts_offset", "100")
		return "late.mkv"
	}, want: "completed", media: 6 * second},
	{slow: true, name: "time stamps from 100 s, FLV", make: func(c corpus) string {
		c.remux("late.flv", "-c", "copy", "-output_ts_offset", "100", "-flvflags", "no_duration_filesize")
		return "late.flv"
	}, want: "completed", media: 6 * second},
	{slow: true, name: "FLV without a length", make: func(c corpus) string {
		c.remux("plain.flv", "-c", "copy", "-flvflags", "no_duration_filesize")
		return "plain.flv"
	}, want: "completed", media: 6 * second},
	{name: "subtitles longer than the video", make: func(c corpus) string {
		c.write("long.srt", "1\n00:00:01,000 --> 00:01:40,000\nstill here\n")
		c.ffmpeg("-i", "six.mp4", "-i", "long.srt", "-map", "0", "-map", "1", "-c", "copy", "-c:s", "srt", "subtitled.mkv")
		return "subtitled.mkv"
	}, want: "completed", note: "left out: 1 subtitle track", media: 6 * second},
	{slow: true, name: "second audio longer than the video", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-f", "lavfi", "-i", "sine=d=20", "-map", "0", "-map", "1", "-c:v", "copy", "-c:a", "aac", "two.mkv")
		return "two.mkv"
	}, want: "completed", note: "left out: 1 audio track", media: 6 * second},
	{slow: true, name: "audio longer than the video, left out", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-f", "lavfi", "-i", "sine=d=20", "-map", "0:v", "-map", "1", "-c:v", "copy", "-c:a", "aac", "longer.mkv")
		return "longer.mkv"
	}, job: `"audio_codec":"none"`, want: "completed", note: "left out: 1 audio track", media: 6 * second},
	{slow: true, name: "audio longer than the video", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-f", "lavfi", "-i", "sine=d=20", "-map", "0:v", "-map", "1", "-c:v", "copy", "-c:a", "aac", "longer.mkv")
		return "longer.mkv"
	}, want: "completed"},
	{name: "chapters that end after 600 s", make: func(c corpus) string { return c.chapters("600000") }, want: "completed", media: 6 * second},
	{slow: true, name: "A-law of 8 kHz to AVI", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-c:v", "copy", "-c:a", "pcm_alaw", "-ar", "8000", "cctv.mkv")
		return "cctv.mkv"
	}, job: `"output":"OUT.avi"`, want: "completed", frames: 180},
	{name: "5.1(side) to Opus", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-af", "aformat=channel_layouts=5.1(side)", "-c:v", "copy", "-c:a", "ac3", "side.mkv")
		return "side.mkv"
	}, job: `"audio_codec":"opus"`, want: "completed"},
	{slow: true, name: "16 channels of PCM", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-af", "pan=16c|"+joined(16, "c%d=c0"), "-c:v", "copy", "-c:a", "pcm_s16le", "many.mov")
		return "many.mov"
	}, want: "completed", note: "first two"},
	{name: "audio without a decoder", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-c:v", "copy", "-c:a", "alac", "alac.mov")
		c.edit("alac.mov", "unknown.mov", func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "alac", "apac")) })
		return "unknown.mov"
	}, want: "completed", note: "left out: 1 audio track"},
	{slow: true, name: "audio without a decoder beside another", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c:v", "copy", "-c:a:0", "alac", "-c:a:1", "aac", "pair.mov")
		c.edit("pair.mov", "unknown2.mov", func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "alac", "apac")) })
		return "unknown2.mov"
	}, want: "completed", note: "left out: 1 audio track"},
	{slow: true, name: "default audio track is the second", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-f", "lavfi", "-i", "anullsrc=cl=stereo:d=6", "-map", "0:v", "-map", "0:a", "-map", "1", "-c:v", "copy", "-c:a", "aac",
			"-disposition:a:0", "0", "-disposition:a:1", "default", "second.mkv")
		return "second.mkv"
	}, want: "completed", note: "left out: 1 audio track"},
	{slow: true, name: "variable frame rate", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=30:d=6", "-vf", "select=not(between(mod(n\\,60)\\,20\\,50))", "-fps_mode", "vfr", "-c:v", "libx264", "vfr.mkv")
		return "vfr.mkv"
	}, want: "completed", note: "the input has gaps in its time stamps"},
	{slow: true, name: "one frame", make: func(c corpus) string {
		c.remux("frame.mp4", "-c:v", "libx264", "-frames:v", "1", "-an")
		return "frame.mp4"
	}, want: "completed", frames: 1},
	{slow: true, name: "no audio", make: func(c corpus) string { c.remux("silent.mp4", "-c", "copy", "-an"); return "silent.mp4" }, want: "completed", frames: 180},
	{slow: true, name: "cover picture", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-frames:v", "1", "cover.png")
		c.ffmpeg("-i", "six.mp4", "-i", "cover.png", "-map", "1", "-map", "0", "-c", "copy", "-disposition:v:0", "attached_pic", "covered.mp4")
		return "covered.mp4"
	}, want: "completed", frames: 180},
	{slow: true, name: "fragmented mp4", make: func(c corpus) string {
		c.remux("fragments.mp4", "-c", "copy", "-movflags", "frag_keyframe+empty_moov")
		return "fragments.mp4"
	}, want: "completed", media: 6 * second},
	{slow: true, name: "edit list that cuts two seconds", make: func(c corpus) string {
		c.ffmpeg("-ss", "2.1", "-i", "six.mp4", "-c", "copy", "edited.mp4")
		return "edited.mp4"
	}, want: "completed"},
	{slow: true, name: "video two seconds later than the audio", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-itsoffset", "2", "-i", "six.mp4", "-map", "1:v", "-map", "0:a", "-c", "copy", "delayed.mkv")
		return "delayed.mkv"
	}, want: "completed"},
	{slow: true, name: "program stream", make: func(c corpus) string {
		c.remux("disc.mpg", "-c:v", "mpeg2video", "-c:a", "mp2", "-f", "vob")
		return "disc.mpg"
	}, want: "completed"},
	{slow: true, name: "raw H.264", make: func(c corpus) string { c.remux("raw.h264", "-c", "copy", "-an"); return "raw.h264" }, want: "completed"},
	{slow: true, name: "name with a quote and a percent sign", make: func(c corpus) string {
		c.edit("six.mp4", "it's 100%.mp4", func(b []byte) []byte { return b })
		return "it's 100%.mp4"
	}, want: "completed", frames: 180},
	{slow: true, name: "interlaced", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=50:d=2", "-vf", "interlace", "-c:v", "mpeg2video", "-flags", "+ildct+ilme", "fields.ts")
		return "fields.ts"
	}, want: "completed", note: "marked as interlaced (top field first)"},
	{slow: true, name: "4:3 to 16:9", make: func(c corpus) string { return "six.mp4" }, job: `"resolution":"320x180"`, want: "completed", note: "does not have the input's aspect ratio"},
	{slow: true, name: "HDR10", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=2", "-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le",
			"-x265-params", "log-level=0:hdr10=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc", "hdr.mkv")
		return "hdr.mkv"
	}, want: "completed", note: "HDR (PQ) with 10 bits per sample"},
	{slow: true, name: "ladder", make: func(c corpus) string { return "six.mp4" }, job: `"outputs":[{"resolution":"320x240"},{"resolution":"160x120"}]`,
		want: "completed", note: "key frames are up to 8.33 s apart"},
	{slow: true, name: "unknown parameter", make: func(c corpus) string { return "six.mp4" }, job: `"gop":48`, want: "completed", note: "unknown parameters ignored: \"gop\""},
	{slow: true, name: "sound recording", make: func(c corpus) string { c.remux("sound.m4a", "-vn", "-c", "copy"); return "sound.m4a" }, want: "input_error: no video stream"},

	// Sound inputs of kinds that transcoders' bug reports name.
	{slow: true, name: "stale DURATION tag", make: func(c corpus) string {
		c.remux("long.mkv", "-c", "copy", "-metadata:s:v", "DURATION=00:10:00.000")
		return "long.mkv"
	}, want: "completed", media: 6 * second},
	{slow: true, name: "recording without a length in its header, WebM", make: func(c corpus) string {
		c.remux("live.webm", "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus", "-live", "1")
		return "live.webm"
	}, want: "completed", media: 6 * second},
	{slow: true, name: "AVI of a recorder that lost power", make: func(c corpus) string {
		c.remux("camera.avi", "-c:v", "mpeg4", "-c:a", "libmp3lame")
		c.edit("camera.avi", "lost.avi", func(b []byte) []byte {
			unset := func(tag string, from, by int) int { // a size that is written at the end
				i := from + bytes.Index(b[from:], []byte(tag))
				clear(b[i+by : i+by+4])
				return i + len(tag)
			}
			unset("RIFF", 0, 4)
			unset("movi", 0, -4)
			unset("avih", 0, 8+16)
			unset("strh", unset("strh", 0, 8+32), 8+32)
			return half(b)
		})
		return "lost.avi"
	}, want: "completed"},
	{slow: true, name: "garbage behind an mp4", make: func(c corpus) string {
		c.edit("six.mp4", "tail.mp4", func(b []byte) []byte { return append(b, make([]byte, 5000)...) })
		return "tail.mp4"
	}, want: "completed", frames: 180},
	{slow: true, name: "garbage in front of a transport stream", make: func(c corpus) string {
		c.remux("clean.ts", "-c", "copy")
		c.edit("clean.ts", "garbage.ts", func(b []byte) []byte { return append(bytes.Repeat([]byte("garbage "), 100), b...) })
		return "garbage.ts"
	}, want: "completed"},
	{slow: true, name: "time stamps that wrap after 26.5 h", make: func(c corpus) string {
		c.remux("wrap.ts", "-c", "copy", "-output_ts_offset", "95440", "-muxdelay", "0")
		return "wrap.ts"
	}, want: "completed", media: 6 * second},
	{slow: true, name: "timecode track", make: func(c corpus) string {
		c.remux("timecode.mov", "-c", "copy", "-timecode", "10:00:00:00")
		return "timecode.mov"
	}, want: "completed", frames: 180},
	{slow: true, name: "second video track", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-f", "lavfi", "-i", "testsrc=s=160x120:r=30:d=3", "-map", "0:v", "-map", "0:a", "-map", "1", "-c:v:0", "copy", "-c:v:1", "libx264", "-c:a", "copy", "angles.mkv")
		return "angles.mkv"
	}, want: "completed", note: "left out: 1 video track", media: 6 * second},
	{slow: true, name: "10 bits, 4:2:2", make: func(c corpus) string {
		c.remux("broadcast.mov", "-c:v", "libx264", "-pix_fmt", "yuv422p10le", "-c:a", "copy")
		return "broadcast.mov"
	}, want: "completed", note: "10 bits per sample; encoded with 8"},
	{slow: true, name: "screen recording of one frame a second", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=1:d=6", "-c:v", "libx264", "screen.mp4")
		return "screen.mp4"
	}, want: "completed", media: 6 * second},
	{slow: true, name: "slides whose last one stays for a minute", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=1:d=3", "-vf", "setpts='if(eq(N,2),60/TB,PTS)'", "-fps_mode", "vfr", "-c:v", "libx264", "slides.mkv")
		return "slides.mkv"
	}, want: "completed"},
	{slow: true, name: "audio a second later than the video", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-itsoffset", "1", "-i", "six.mp4", "-map", "0:v", "-map", "1:a", "-c", "copy", "late-audio.mp4")
		return "late-audio.mp4"
	}, want: "completed"},
	{slow: true, name: "open GOPs cut in the middle", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-c:v", "libx264", "-x264-params", "open-gop=1:keyint=30:bframes=3", "-c:a", "copy", "open.ts")
		c.edit("open.ts", "open-cut.ts", func(b []byte) []byte { return b[len(b)/188/2*188:] })
		return "open-cut.ts"
	}, want: "completed"},
	{slow: true, name: "motion JPEG of a camera", make: func(c corpus) string {
		c.remux("camera.mov", "-c:v", "mjpeg", "-pix_fmt", "yuvj422p", "-c:a", "pcm_s16be")
		return "camera.mov"
	}, want: "completed", frames: 180},
	{slow: true, name: "animated GIF", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=10:d=2", "loop.gif")
		return "loop.gif"
	}, want: "completed", frames: 20},
	{slow: true, name: "Ogg Theora", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-c:v", "libtheora", "-c:a", "libvorbis", "old.ogv")
		return "old.ogv"
	}, want: "completed"},

	// Incomplete inputs.
	{slow: true, name: "Matroska cut in half", make: func(c corpus) string {
		c.remux("six.mkv", "-c", "copy")
		c.edit("six.mkv", "half.mkv", half)
		return "half.mkv"
	}, want: "input_error: it ends after 3"},
	{slow: true, name: "Matroska cut in half, accepted", make: func(c corpus) string {
		c.remux("six.mkv", "-c", "copy")
		c.edit("six.mkv", "half.mkv", half)
		return "half.mkv"
	}, job: `"accept_damaged":true`, want: "completed", note: "accepted: input: it ends after 3"},
	{name: "Matroska with chapters cut in half", make: func(c corpus) string { c.edit(c.chapters("6000"), "half.mkv", half); return "half.mkv" }, want: "input_error: it ends after 3"},
	{slow: true, name: "mp4 cut in half, index first", make: func(c corpus) string {
		c.remux("first.mp4", "-c", "copy", "-movflags", "+faststart")
		c.edit("first.mp4", "half.mp4", half)
		return "half.mp4"
	}, want: "input_error: it ends after"},
	{slow: true, name: "mp4 cut in half, index last", make: func(c corpus) string { c.edit("six.mp4", "half.mp4", half); return "half.mp4" }, want: "input_error: the file is cut off: it has"},
	{slow: true, name: "fragmented mp4 cut in half", make: func(c corpus) string {
		c.remux("fragments.mp4", "-c", "copy", "-movflags", "frag_keyframe+empty_moov")
		c.edit("fragments.mp4", "half.mp4", half)
		return "half.mp4"
	}, want: "input_error: the file is cut off: it has"},
	{name: "AVI cut in half", make: func(c corpus) string {
		c.remux("six.avi", "-c:v", "mpeg4", "-c:a", "libmp3lame")
		c.edit("six.avi", "half.avi", half)
		return "half.avi"
	}, want: "input_error: the file is cut off: it has"},
	{slow: true, name: "FLV cut in half", make: func(c corpus) string {
		c.remux("six.flv", "-c", "copy")
		c.edit("six.flv", "half.flv", half)
		return "half.flv"
	}, want: "input_error: the file is cut off"},
	{slow: true, name: "HLS without its last two segments", make: func(c corpus) string { return c.hls(4, 5) }, want: "input_error"},
	{name: "HLS without two segments in the middle", make: func(c corpus) string { return c.hls(2, 3) }, want: "input_error"},
	{name: "transport stream that goes on in other PIDs", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-t", "3", "-c", "copy", "-mpegts_start_pid", "256", "a.ts")
		c.ffmpeg("-ss", "3", "-i", "six.mp4", "-c", "copy", "-output_ts_offset", "3", "-mpegts_start_pid", "512", "b.ts")
		c.edit("a.ts", "pids.ts", func(b []byte) []byte {
			more, err := os.ReadFile(c.path("b.ts"))
			if err != nil {
				c.t.Fatal(err)
			}
			return append(b, more...)
		})
		return "pids.ts"
	}, want: "input_error: goes on in another stream"},
	{name: "picture", make: func(c corpus) string { c.ffmpeg("-i", "six.mp4", "-frames:v", "1", "still.png"); return "still.png" }, want: "input_error: a picture (image/png)"},
	{slow: true, name: "mp4 whose index was never written", make: func(c corpus) string {
		c.edit("six.mp4", "headless.mp4", func(b []byte) []byte { return b[:bytes.Index(b, []byte("moov"))-4] })
		return "headless.mp4"
	}, want: "input_error: moov atom not found"},
	{slow: true, name: "text", make: func(c corpus) string {
		c.write("words.mp4", strings.Repeat("no film at all\n", 1000))
		return "words.mp4"
	}, want: "input_error: Invalid data"},

	// Damaged inputs.
	{name: "transport stream, middle third zeroed", make: func(c corpus) string {
		c.remux("six.ts", "-c", "copy")
		c.edit("six.ts", "zeroed.ts", zeroed(1./3, 2./3))
		return "zeroed.ts"
	}, want: "input_error: frames were corrupt or lost"},
	{slow: true, name: "Matroska, middle third zeroed", make: func(c corpus) string {
		c.remux("six.mkv", "-c", "copy")
		c.edit("six.mkv", "zeroed.mkv", zeroed(1./3, 2./3))
		return "zeroed.mkv"
	}, want: "input_error: frames were corrupt or lost"},
	{slow: true, name: "mp4, middle third zeroed", make: func(c corpus) string { c.edit("six.mp4", "zeroed.mp4", zeroed(1./3, 2./3)); return "zeroed.mp4" }, want: "input_error: frames were corrupt or lost"},
	{name: "mp4, middle third zeroed, accepted", make: func(c corpus) string { c.edit("six.mp4", "zeroed.mp4", zeroed(1./3, 2./3)); return "zeroed.mp4" },
		job: `"accept_damaged":"true"`, want: "completed", note: "accepted: input:"},

	// Kinds that an earlier judge was wrong about, or might be.
	{slow: true, name: "flv audio longer", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-f", "lavfi", "-i", "sine=d=20", "-map", "0:v", "-map", "1", "-c:v", "copy", "-c:a", "aac", "a.flv")
		return "a.flv"
	}, want: "completed"},
	{slow: true, name: "mkv without tags, audio longer", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-f", "lavfi", "-i", "sine=d=20", "-map", "0:v", "-map", "1", "-c:v", "copy", "-c:a", "aac", "-fflags", "+bitexact", "-flags", "+bitexact", "a.mkv")
		return "a.mkv"
	}, want: "completed"},
	{slow: true, name: "asf audio longer", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-f", "lavfi", "-i", "sine=d=20", "-map", "0:v", "-map", "1", "-c:v", "wmv2", "-c:a", "wmav2", "a.wmv")
		return "a.wmv"
	}, want: "completed"},
	{slow: true, name: "second program that begins 3 s later", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-itsoffset", "3", "-i", "six.mp4", "-map", "0:v", "-map", "0:a", "-map", "1:v", "-c", "copy", "-program", "program_num=1:st=0:st=1", "-program", "program_num=2:st=2", "mpts.ts")
		return "mpts.ts"
	}, want: "completed", media: 6 * second},
	{slow: true, name: "video 2 s late, duration 3", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-itsoffset", "2", "-i", "six.mp4", "-map", "1:v", "-map", "0:a", "-c", "copy", "delayed.mkv")
		return "delayed.mkv"
	}, job: `"duration":3`, want: "completed"},
	{slow: true, name: "video 2 s late mp4, duration 3", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-itsoffset", "2", "-i", "six.mp4", "-map", "1:v", "-map", "0:a", "-c", "copy", "delayed.mp4")
		return "delayed.mp4"
	}, job: `"duration":3`, want: "completed"},
	{slow: true, name: "hls integer EXTINF", make: func(c corpus) string {
		c.remux("list.m3u8", "-c:v", "libx264", "-g", "48", "-keyint_min", "48", "-sc_threshold", "0", "-c:a", "copy", "-hls_time", "1.6", "-hls_playlist_type", "vod")
		c.edit("list.m3u8", "list.m3u8", func(b []byte) []byte {
			s := regexp.MustCompile(`#EXTINF:1\.[5-9]\d*,`).ReplaceAllString(string(b), "#EXTINF:2,")
			s = regexp.MustCompile(`#EXTINF:(\d)\.\d*,`).ReplaceAllString(s, "#EXTINF:$1,")
			return []byte(strings.Replace(s, "EXT-X-VERSION:3", "EXT-X-VERSION:2", 1))
		})
		return "list.m3u8"
	}, want: "completed"},
	{slow: true, name: "timelapse 0.1 fps mp4 to 30", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=1/10:d=60", "-c:v", "libx264", "lapse.mp4")
		return "lapse.mp4"
	}, job: `"fps":5`, want: "completed"},
	{slow: true, name: "timelapse 0.1 fps mkv to 5", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=1/10:d=60", "-c:v", "libx264", "lapse.mkv")
		return "lapse.mkv"
	}, job: `"fps":5`, want: "completed"},
	{slow: true, name: "1 fps mkv to 30", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=1:d=6", "-c:v", "libx264", "s.mkv")
		return "s.mkv"
	}, job: `"fps":30`, want: "completed"},
	{slow: true, name: "ladder 30 and 60 fps", make: func(c corpus) string { return "six.mp4" },
		job: `"outputs":[{"resolution":"160x120","fps":30},{"resolution":"80x60","fps":60}]`, want: "completed"},
	{slow: true, name: "ladder 60 and 15 fps", make: func(c corpus) string { return "six.mp4" },
		job: `"outputs":[{"resolution":"160x120","fps":60},{"resolution":"80x60","fps":15}]`, want: "completed"},
	{slow: true, name: "one packet lost, ladder of 30 and 60 fps", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=30:d=20", "-c:v", "libx264", "-g", "30", "-preset", "ultrafast", "l.ts")
		c.edit("l.ts", "l2.ts", func(b []byte) []byte {
			n := len(b) / 188 / 2
			return append(b[:n*188:n*188], b[(n+1)*188:]...)
		})
		return "l2.ts"
	}, job: `"outputs":[{"resolution":"160x120","fps":30},{"resolution":"80x60","fps":60}]`, want: "completed"},
	{slow: true, name: "resolution changes in ts", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-t", "3", "-c", "copy", "a.ts")
		c.ffmpeg("-ss", "3", "-i", "six.mp4", "-vf", "scale=160:120", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "copy", "-output_ts_offset", "3", "b.ts")
		return c.cat("res.ts", "a.ts", "b.ts")
	}, want: "completed"},
	{slow: true, name: "trimmed by edit list (phone)", make: func(c corpus) string {
		c.edit("six.mp4", "trim.mp4", func(b []byte) []byte {
			at := 0
			for {
				i := bytes.Index(b[at:], []byte("elst"))
				if i < 0 {
					return b
				}
				at += i + 4
				// version/flags, count, duration (movie timescale 1000)
				b[at+8], b[at+9], b[at+10], b[at+11] = 0, 0, 0x0B, 0xB8 // 3000 ms
			}
		})
		return "trim.mp4"
	}, want: "completed", media: 3 * second},
	{slow: true, name: "duration of one frame", make: func(c corpus) string { return "six.mp4" }, job: `"duration":0.02`, want: "completed"},
	{slow: true, name: "ts pids change after 2 s gap", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-t", "3", "-c", "copy", "-mpegts_start_pid", "256", "a.ts")
		c.ffmpeg("-ss", "3", "-i", "six.mp4", "-c", "copy", "-output_ts_offset", "5", "-mpegts_start_pid", "512", "b.ts")
		return c.cat("pids.ts", "a.ts", "b.ts")
	}, want: "input_error"},
	{slow: true, name: "ts pids change, clock restarts", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-t", "3", "-c", "copy", "-mpegts_start_pid", "256", "a.ts")
		c.ffmpeg("-ss", "3", "-i", "six.mp4", "-c", "copy", "-mpegts_start_pid", "512", "b.ts")
		return c.cat("pids.ts", "a.ts", "b.ts")
	}, want: "input_error"},
	{slow: true, name: "ts 30 s lost in the middle", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=10:d=60", "-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-b:v", "100k", "l.ts")
		c.edit("l.ts", "hole.ts", zeroed(0.25, 0.75))
		return "hole.ts"
	}, want: "input_error"},
	{slow: true, name: "vfr mkv middle third zeroed", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=30:d=12", "-vf", "select='not(mod(n\\,7)*mod(n\\,5))+gt(mod(n\\,3)\\,0)'", "-fps_mode", "vfr", "-c:v", "libx264", "-g", "15", "vfr.mkv")
		c.edit("vfr.mkv", "v2.mkv", zeroed(1./3, 2./3))
		return "v2.mkv"
	}, want: "input_error"},
	{slow: true, name: "vfr ts middle third zeroed", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=30:d=12", "-vf", "select='not(mod(n\\,7)*mod(n\\,5))+gt(mod(n\\,3)\\,0)'", "-fps_mode", "vfr", "-c:v", "libx264", "-g", "15", "vfr.ts")
		c.edit("vfr.ts", "v2.ts", zeroed(1./3, 2./3))
		return "v2.ts"
	}, want: "input_error"},
	{slow: true, name: "mp4 first 8% zeroed", make: func(c corpus) string { c.edit("six.mp4", "z.mp4", zeroed(0.001, 0.08)); return "z.mp4" }, want: "input_error"},
	{slow: true, name: "mp4 first third zeroed", make: func(c corpus) string { c.edit("six.mp4", "z.mp4", zeroed(0.001, 0.33)); return "z.mp4" }, want: "input_error"},
	{slow: true, name: "mp4 85% zeroed, accepted", make: func(c corpus) string { c.edit("six.mp4", "z.mp4", zeroed(0.12, 0.97)); return "z.mp4" }, job: `"accept_damaged":true`, want: "completed"},
	{slow: true, name: "mkv audio destroyed", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-c", "copy", "-bsf:a", "noise=amount=1", "noisy.mkv")
		return "noisy.mkv"
	}, want: "input_error"},
	{slow: true, name: "half mxf", make: func(c corpus) string {
		return c.halfOf(".mxf", "-c:v", "mpeg2video", "-c:a", "pcm_s16le", "-ar", "48000")
	}, want: "input_error"},
	{slow: true, name: "half nut", make: func(c corpus) string { return c.halfOf(".nut", "-c", "copy") }, want: "input_error"},
	{slow: true, name: "half wmv", make: func(c corpus) string { return c.halfOf(".wmv", "-c:v", "wmv2", "-c:a", "wmav2") }, want: "input_error"},
	{slow: true, name: "half vob", make: func(c corpus) string { return c.halfOf(".vob", "-c:v", "mpeg2video", "-c:a", "mp2") }, want: "input_error"},
	{slow: true, name: "half flv without length", make: func(c corpus) string { return c.halfOf(".flv", "-c", "copy", "-flvflags", "no_duration_filesize") }, want: "input_error"},
	{slow: true, name: "half webm live", make: func(c corpus) string {
		return c.halfOf(".webm", "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus", "-live", "1")
	}, want: "input_error"},
	{slow: true, name: "mkv subtitles, cut in half, tags gone", make: func(c corpus) string {
		c.write("long.srt", "1\n00:00:01,000 --> 00:00:02,000\nhere\n")
		c.ffmpeg("-i", "six.mp4", "-i", "long.srt", "-map", "0", "-map", "1", "-c", "copy", "-c:s", "srt", "-fflags", "+bitexact", "s.mkv")
		c.edit("s.mkv", "h.mkv", half)
		return "h.mkv"
	}, want: "input_error"},
	{slow: true, name: "encrypted mp4 without a key", make: func(c corpus) string {
		c.remux("cenc.mp4", "-c", "copy", "-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "00112233445566778899aabbccddeeff", "-encryption_kid", "00112233445566778899aabbccddeeff")
		return "cenc.mp4"
	}, want: "input_error"},

	{slow: true, name: "long half flv without length", make: func(c corpus) string { return c.long(".flv", "-c", "copy", "-flvflags", "no_duration_filesize") }, want: "input_error"},
	{slow: true, name: "mp4 video second half zeroed in place audio kept", make: func(c corpus) string { c.edit("six.mp4", "z.mp4", zeroed(0.001, 0.33)); return "z.mp4" }, job: `"audio_codec":"none"`, want: "input_error"},
	{slow: true, name: "soft telecine DVD, one TS packet lost", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=24000/1001:d=10", "-c:v", "mpeg2video", "-g", "12", "-f", "mpegts", "x.ts")
		c.edit("x.ts", "y.ts", func(b []byte) []byte { return b })
		return "y.ts"
	}, want: "completed"},
	{slow: true, name: "webcam ts that drops to 15 fps, one packet lost", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=30:d=30", "-vf", "select='lt(n,400)+not(mod(n\\,2))'", "-fps_mode", "vfr", "-c:v", "libx264", "-preset", "ultrafast", "-g", "30", "cam.ts")
		c.edit("cam.ts", "cam2.ts", func(b []byte) []byte { n := len(b) / 188 / 3; return append(b[:n*188:n*188], b[(n+1)*188:]...) })
		return "cam2.ts"
	}, want: "completed"},
	{slow: true, name: "hls with an ad (discontinuity)", make: func(c corpus) string {
		for i, ss := range []string{"0", "0", "2"} {
			c.ffmpeg("-ss", ss, "-i", "six.mp4", "-t", "2", "-c:v", "libx264", "-c:a", "aac", "-muxdelay", "0", "-output_ts_offset", map[int]string{0: "0", 1: "50", 2: "2"}[i], fmt.Sprintf("s%d.ts", i))
		}
		c.write("ad.m3u8", "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\ns0.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:2.0,\ns1.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:2.0,\ns2.ts\n#EXT-X-ENDLIST\n")
		return "ad.m3u8"
	}, want: "completed"},
	{slow: true, name: "1 fps ts", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=1:d=10", "-c:v", "libx264", "one.ts")
		return "one.ts"
	}, want: "completed"},
	{slow: true, name: "1 fps flv to 25", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=1:d=10", "-c:v", "libx264", "one.flv")
		return "one.flv"
	}, job: `"fps":25`, want: "completed"},
	{slow: true, name: "0.2 fps avi to 25", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=1/5:d=60", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "one.avi")
		return "one.avi"
	}, job: `"fps":25`, want: "completed"},
	{slow: true, name: "interlaced fields, damaged", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-c:v", "libx264", "-flags", "+ildct+ilme", "-x264opts", "tff=1", "-c:a", "copy", "p.ts")
		c.edit("p.ts", "p2.ts", zeroed(0.4, 0.5))
		return "p2.ts"
	}, want: "input_error"},
	{slow: true, name: "fragmented mp4 cut between fragments", make: func(c corpus) string {
		c.remux("fr.mp4", "-c", "copy", "-movflags", "frag_keyframe+empty_moov+default_base_moof+global_sidx", "-frag_duration", "1000000")
		c.edit("fr.mp4", "fc.mp4", func(b []byte) []byte { h := b[:len(b)/2]; return h[:bytes.LastIndex(h, []byte("moof"))-4] })
		return "fc.mp4"
	}, want: "input_error"},
	{slow: true, name: "mp4 with a sparse tail", make: func(c corpus) string {
		c.remux("first.mp4", "-c", "copy", "-movflags", "+faststart")
		c.edit("first.mp4", "cut.mp4", func(b []byte) []byte { return b[:len(b)*93/100] })
		return "cut.mp4"
	}, want: "input_error"},
	{slow: true, name: "transport stream, 85 % zeroed, accepted", make: func(c corpus) string {
		c.remux("x.ts", "-c", "copy")
		c.edit("x.ts", "z.ts", zeroed(0.12, 0.97))
		return "z.ts"
	}, job: `"accept_damaged":true`, want: "completed"},
	{slow: true, name: "joined with 8 s jump", make: func(c corpus) string {
		c.remux("a.ts", "-c", "copy")
		c.remux("b.ts", "-c", "copy", "-output_ts_offset", "14")
		return c.cat("j.ts", "a.ts", "b.ts")
	}, want: "completed"},
	{slow: true, name: "turned by a quarter", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-c", "copy", "-metadata:s:v", "rotate=90", "rot.mp4")
		return "rot.mp4"
	}, want: "completed"},
	{slow: true, name: "video with a pause of ten seconds", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-vf", "setpts='if(gt(N,90),PTS+30/TB,PTS)'", "-fps_mode", "vfr", "-an", "-c:v", "libx264", "gap.mp4")
		return "gap.mp4"
	}, want: "completed"},
	{slow: true, name: "audio twice as long as the video, FLV", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-f", "lavfi", "-i", "sine=d=3", "-map", "0:v", "-map", "1", "-c:v", "copy", "-c:a", "aac", "-shortest", "sh.mp4")
		return "sh.mp4"
	}, want: "completed"},

	{slow: true, name: "mkv of a muxer without tags, audio longer", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-f", "lavfi", "-i", "sine=d=20", "-map", "0:v", "-map", "1", "-c:v", "copy", "-c:a", "aac", "a.mkv")
		c.edit("a.mkv", "b.mkv", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("DURATION"), []byte("DURATIOX")) })
		return "b.mkv"
	}, want: "completed"},
	{slow: true, name: "flv of 400 s cut by 7.5 s", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:r=5:d=400", "-c:v", "libx264", "-preset", "ultrafast", "-g", "5", "l.flv")
		c.edit("l.flv", "c.flv", func(b []byte) []byte { return b[:len(b)*982/1000] })
		return "c.flv"
	}, want: "input_error"},
	{slow: true, name: "mkv of 1000 s cut by 2 s", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:r=5:d=1000", "-c:v", "libx264", "-preset", "ultrafast", "-g", "5", "l.mkv")
		c.edit("l.mkv", "c.mkv", func(b []byte) []byte { return b[:len(b)*995/1000] })
		return "c.mkv"
	}, want: "input_error"},
	{slow: true, name: "one packet lost of 20 s ts", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=30:d=20", "-c:v", "libx264", "-g", "30", "-preset", "ultrafast", "l.ts")
		c.edit("l.ts", "l2.ts", func(b []byte) []byte { n := len(b) / 188 / 2; return append(b[:n*188:n*188], b[(n+1)*188:]...) })
		return "l2.ts"
	}, want: "completed"},
	{slow: true, name: "two captures cut mid-GOP and joined", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=20", "-c:v", "libx264", "-g", "50", "-preset", "veryfast", "l.ts")
		c.edit("l.ts", "m.ts", func(b []byte) []byte { return b[len(b)/188*27/100*188 : len(b)/188*83/100*188] })
		return c.cat("j.ts", "m.ts", "m.ts")
	}, want: "completed"},
	{slow: true, name: "audio destroyed, accepted", make: func(c corpus) string {
		c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=10:d=6", "-i", "six.mp4", "-map", "0:v", "-map", "1:a", "-c:v", "libx264", "-c:a", "copy", "-bsf:a", "noise=amount=1", "noisy.mkv")
		return "noisy.mkv"
	}, job: `"accept_damaged":true`, want: "completed"},
	{slow: true, name: "variable rate with a pause of 30 s", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-vf", "setpts='if(gt(N,90),PTS+30/TB,PTS)'", "-fps_mode", "vfr", "-an", "-c:v", "libx264", "gap.mp4")
		return "gap.mp4"
	}, want: "completed"},
	{slow: true, name: "ladder, mp4 third zeroed, second output 60", make: func(c corpus) string { c.edit("six.mp4", "z.mp4", zeroed(1./3, 2./3)); return "z.mp4" },
		job: `"accept_damaged":true,"outputs":[{"resolution":"160x120","fps":60},{"resolution":"80x60","fps":15}]`, want: "completed"},
	{slow: true, name: "ts third zeroed, ladder 30 and 15", make: func(c corpus) string {
		c.remux("six.ts", "-c", "copy")
		c.edit("six.ts", "z.ts", zeroed(1./3, 2./3))
		return "z.ts"
	}, job: `"outputs":[{"resolution":"160x120"},{"resolution":"80x60","fps":15}]`, want: "input_error"},
	{slow: true, name: "mkv third zeroed, ladder 30 and 15", make: func(c corpus) string {
		c.remux("six.mkv", "-c", "copy")
		c.edit("six.mkv", "z.mkv", zeroed(1./3, 2./3))
		return "z.mkv"
	}, job: `"outputs":[{"resolution":"160x120"},{"resolution":"80x60","fps":15}]`, want: "input_error"},
	{slow: true, name: "ts third zeroed, one output of 25 fps", make: func(c corpus) string {
		c.remux("six.ts", "-c", "copy")
		c.edit("six.ts", "z.ts", zeroed(1./3, 2./3))
		return "z.ts"
	}, job: `"fps":5`, want: "input_error"},
	{slow: true, name: "resolution changes, second part zeroed", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-t", "2", "-c", "copy", "a.ts")
		c.ffmpeg("-ss", "2", "-i", "six.mp4", "-vf", "scale=160:120", "-c:v", "libx264", "-g", "15", "-b:v", "500k", "-pix_fmt", "yuv420p", "-c:a", "copy", "-output_ts_offset", "2", "b.ts")
		c.edit("b.ts", "bz.ts", zeroed(0.3, 0.7))
		return c.cat("res.ts", "a.ts", "bz.ts")
	}, want: "input_error"},

	{slow: true, name: "half ivf", make: func(c corpus) string {
		return c.halfOf(".ivf", "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-an")
	}, want: "input_error"},
	{slow: true, name: "half gif", make: func(c corpus) string { return c.halfOf(".gif", "-an") }, want: "input_error"},
	{slow: true, name: "long half wmv", make: func(c corpus) string { return c.long(".wmv", "-c:v", "wmv2", "-c:a", "wmav2") }, want: "input_error: the file is cut off: it has"},

	// Jobs that cannot be done.
	{name: "A-law copied into mp4", make: func(c corpus) string {
		c.ffmpeg("-i", "six.mp4", "-c:v", "copy", "-c:a", "pcm_alaw", "-ar", "8000", "cctv.mkv")
		return "cctv.mkv"
	}, job: `"audio_codec":"copy"`, want: "user_error: Could not find tag for codec pcm_alaw"},
	{slow: true, name: "Opus of 600k", make: func(c corpus) string { return "six.mp4" }, job: `"audio_codec":"opus","audio_bitrate":"600k"`, want: "user_error: The bit rate 600000 bps is unsupported"},
	{slow: true, name: "AV1 of 32x32", make: func(c corpus) string { return "six.mp4" }, job: `"codec":"av1","resolution":"32x32"`, want: "user_error: Source Width must be at least 64"},
}

// cat joins files.
func (c corpus) cat(to string, from ...string) string {
	c.t.Helper()
	var all []byte
	for _, f := range from {
		b, err := os.ReadFile(c.path(f))
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, b...)
	}
	c.write(to, string(all))
	return to
}

// halfOf makes half of a file.
func (c corpus) halfOf(ext string, args ...string) string {
	c.remux("whole"+ext, args...)
	c.edit("whole"+ext, "half"+ext, half)
	return "half" + ext
}

// long makes the first half of 40 s of film.
func (c corpus) long(ext string, args ...string) string {
	c.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=40", "-f", "lavfi", "-i", "sine=d=40", "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", "long.mp4")
	c.ffmpeg(append(append([]string{"-i", "long.mp4"}, args...), "l"+ext)...)
	c.edit("l"+ext, "h"+ext, half)
	return "h" + ext
}

func joined(n int, format string) string {
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprintf(format, i))
	}
	return strings.Join(parts, "|")
}

func (c corpus) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// chapters makes a Matroska file with a chapter that ends at a time in ms.
func (c corpus) chapters(end string) string {
	c.t.Helper()
	c.write("chapters.txt", ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND="+end+"\n")
	c.ffmpeg("-i", "six.mp4", "-i", "chapters.txt", "-map", "0", "-map_chapters", "1", "-c", "copy", "chapters.mkv")
	return "chapters.mkv"
}

// hls makes a playlist of six segments of a second and removes some.
func (c corpus) hls(without ...int) string {
	c.t.Helper()
	c.remux("list.m3u8", "-c:v", "libx264", "-g", "30", "-c:a", "copy", "-hls_time", "1", "-hls_playlist_type", "vod")
	for _, i := range without {
		if err := os.Remove(c.path(fmt.Sprintf("list%d.ts", i))); err != nil {
			c.t.Fatal(err)
		}
	}
	return "list.m3u8"
}

// TestMedia encodes inputs of many kinds and compares the verdicts with what their owners
// expect.
func TestMedia(t *testing.T) {
	t.Parallel()
	base := filepath.Join(t.TempDir(), "six.mp4")
	corpus{t, filepath.Dir(base)}.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=30:d=6", "-f", "lavfi", "-i", "sine=d=6",
		"-c:v", "libx264", "-g", "15", "-pix_fmt", "yuv420p", "-c:a", "aac", base)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			if k.slow && !*allMedia {
				return
			}
			begun := time.Now()
			got, e := k.run(t, base)
			if *allMedia {
				fmt.Printf("%-56s %4.1f s  %s\n", k.name, time.Since(begun).Seconds(), got)
				for _, n := range e.Notes {
					fmt.Printf("%65s note: %s\n", "", n)
				}
			}
		})
	}
}

// run encodes an input of this kind and checks the verdict, which it returns.
func (k kind) run(t *testing.T, base string) (verdict string, e job.Encode) {
	c := corpus{t, t.TempDir()}
	if err := os.Link(base, c.path("six.mp4")); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(c.dir, "out")
	parameters := `{"preset":"ultrafast","output":` + quoted(out+".mp4") + `,"input":` + quoted(c.path(k.make(c))) + `}`
	if k.job != "" {
		extra := strings.ReplaceAll(k.job, "OUT", out)
		if strings.Contains(extra, `"output":`) {
			parameters = strings.Replace(parameters, `"output":`+quoted(out+".mp4")+`,`, "", 1)
		}
		if strings.Contains(extra, `"codec":`) {
			parameters = strings.Replace(parameters, `"preset":"ultrafast",`, "", 1)
		}
		parameters = "{" + extra + "," + parameters[1:]
	}
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{c.dir} })
	run := r.Begin(lease(t, "media", parameters))
	err := walk(testContext(t), run)
	e = run.Snapshot().Encode
	verdict = "completed"
	if err != nil {
		verdict = err.Error()
		if f, ok := err.(*job.Failure); ok {
			verdict = string(f.Reason) + ": " + f.Message
		}
	}
	reason, says, _ := strings.Cut(k.want, ": ")
	if !strings.HasPrefix(verdict, reason) || !strings.Contains(verdict, says) {
		t.Errorf("got %s, want %s\n%s", verdict, k.want, e.Log)
	}
	if k.note != "" && !strings.Contains(strings.Join(e.Notes, "\n"), k.note) {
		t.Errorf("got notes %q, want %q", e.Notes, k.note)
	}
	if k.frames > 0 && e.Frames != k.frames {
		t.Errorf("got %d frames, want %d", e.Frames, k.frames)
	}
	if k.media > 0 && (e.Media < k.media-100*time.Millisecond || e.Media > k.media+100*time.Millisecond) {
		t.Errorf("got %s of media, want %s", e.Media, k.media)
	}
	return verdict, e
}
