package ffmpeg

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/protocol"
)

// TestVerdicts lists what judge decides in testdata/verdicts.golden.
func TestVerdicts(t *testing.T) {
	const s = time.Second
	failed := proc.Exit{Code: 1}
	broken := failure(protocol.ReasonInputError, "input: broken")
	hd := rendition{size: size{1280, 720}, fps: rate{30, 1}}
	// film is the evidence of a whole minute that was read and encoded well.
	film := func(change ...func(*evidence)) evidence {
		e := evidence{
			origin: originStored, whole: true, software: true, found: findings{Packets: 1800, Frames: 1800, FramesIn: 1800, FramesOut: 1800},
			source:  media{probed: true, fps: rate{30, 1}, length: 60 * s, exact: true, guessed: 60 * s},
			outputs: []output{{rendition: hd, written: 1800, made: product{size: hd.size, frames: 1800, length: 60 * s}}},
		}
		for _, c := range change {
			c(&e)
		}
		return e
	}
	ended := func(exit proc.Exit) func(*evidence) { return func(e *evidence) { e.exit, e.outputs = exit, nil } }
	made := func(frames int64) func(*evidence) {
		return func(e *evidence) {
			o := &e.outputs[0]
			o.written, o.made.frames, o.made.length = frames, frames, time.Duration(frames)*s/30
		}
	}
	read := func(from origin) func(*evidence) { return func(e *evidence) { e.origin = from } }
	found := func(change func(*findings)) func(*evidence) { return func(e *evidence) { change(&e.found) } }
	asked := func(d time.Duration) func(*evidence) { return func(e *evidence) { e.whole, e.asked = false, d } }
	lengthUnknown := func(e *evidence) { e.source.length = 0 }
	accepting := func(e *evidence) { e.accept = true }
	synthetic := func(frames int64) func(*evidence) {
		return func(e *evidence) {
			*e = evidence{origin: originSynthetic, asked: 5 * s, software: true, outputs: []output{{rendition: hd, written: frames, made: product{size: hd.size, frames: frames}}}}
		}
	}
	refused := found(func(f *findings) { f.DecodeErrors, f.Frames = 60, 1740 })
	zeroed := func(e *evidence) {
		e.found.Damaged, e.found.Packets, e.found.Frames, e.found.FramesIn, e.scan.lost = 2, 1200, 1200, 1200, 20*s
	}

	var table bytes.Buffer
	for _, c := range []struct {
		name string
		e    evidence
	}{
		{"FFmpeg killed", film(ended(proc.Exit{Code: -1, Signal: syscall.SIGKILL}))},
		{"FFmpeg crashed", film(ended(proc.Exit{Code: -1, Signal: syscall.SIGSEGV}))},
		{"file size limit of the agent", film(ended(proc.Exit{Code: -1, Signal: syscall.SIGXFSZ}))},
		{"CPU time limit of the agent", film(ended(proc.Exit{Code: -1, Signal: syscall.SIGXCPU}))},
		{"exit not seen", film(ended(proc.Exit{Err: io.ErrUnexpectedEOF}))},
		{"exit status of ENOSPC", film(ended(proc.Exit{Code: 228}))},
		{"disk full, input broken", film(ended(failed), func(e *evidence) { e.diskFull, e.input = true, broken })},
		{"disk was full", film(ended(failed), func(e *evidence) { e.diskWasFull = true })},
		{"disk was full, input broken", film(ended(failed), func(e *evidence) { e.diskWasFull, e.input = true, broken })},
		{"input broken, streaming", film(ended(failed), func(e *evidence) { e.input, e.streaming = broken, true })},
		{"stream refused", film(ended(failed), func(e *evidence) { e.streaming = true })},
		{"server overloaded", film(ended(failed), read(originNetwork), found(func(f *findings) { f.HTTPStatus = 503 }), func(e *evidence) { e.input = broken })},
		{"server limits requests", film(ended(failed), read(originNetwork), found(func(f *findings) { f.HTTPStatus = 429 }))},
		{"read error of a live input", film(ended(failed), read(originLive), found(func(f *findings) { f.ReadError = "Connection reset by peer" }))},
		{"encoder refuses parameters", film(ended(failed), found(func(f *findings) { f.EncoderError = "The bit rate 600000 bps is unsupported." }))},
		{"hardware encoder fails", film(ended(failed), func(e *evidence) { e.software = false }, found(func(f *findings) {
			f.EncoderError, f.FirstError = "OpenEncodeSessionEx failed", "OpenEncodeSessionEx failed"
		}))},
		{"container refuses copied audio", film(ended(failed), func(e *evidence) { e.copied = true }, found(func(f *findings) {
			f.HeaderError, f.FirstError = true, "Could not find tag for codec pcm_alaw in stream #1"
		}))},
		{"anything else", film(ended(proc.Exit{Code: 234}), found(func(f *findings) { f.FirstError = "the first error" }))},

		{"synthetic, exact", film(synthetic(150))},
		{"synthetic, one frame off", film(synthetic(149))},
		{"synthetic, two frames off", film(synthetic(148))},
		{"synthetic, no frame", film(synthetic(0))},
		{"output with fewer frames than FFmpeg wrote", film(func(e *evidence) { e.outputs[0].written = 1802 })},
		{"output unreadable", film(func(e *evidence) { e.outputs[0].unread = "End of file" })},
		{"output unreadable, disk full", film(func(e *evidence) { e.outputs[0].unread, e.diskFull = "End of file", true })},
		{"output unreadable, disk was full", film(func(e *evidence) { e.outputs[0].unread, e.diskWasFull = "End of file", true })},
		{"output of another size", film(func(e *evidence) { e.outputs[0].made.size = size{640, 360} })},
		{"no frame decoded", film(made(0))},
		{"longer than asked", film(asked(10 * s))},

		{"whole film", film()},
		{"half a second short", film(made(1785))},
		{"half a film", film(made(900))},
		{"half a film, accepted", film(made(900), accepting)},
		{"half a film of a file that grew", film(made(900), func(e *evidence) { e.grew = true })},
		{"half a film over the network", film(made(900), read(originNetwork))},
		{"10 s of a film, as asked", film(made(300), asked(10*s))},
		{"10 s asked of 5", film(made(150), asked(10*s), func(e *evidence) { e.source.length = 5 * s })},
		{"length unknown", film(lengthUnknown)},
		{"length unknown, shorter than asked", film(made(150), asked(10*s), lengthUnknown)},
		{"length unknown, read error", film(made(900), lengthUnknown, found(func(f *findings) { f.ReadError = "Input/output error" }))},
		{"length unknown, read error after what was asked", film(made(300), asked(10*s), lengthUnknown, found(func(f *findings) { f.ReadError = "Input/output error" }))},
		{"length unknown, transfer ended early", film(made(900), lengthUnknown, read(originNetwork), found(func(f *findings) { f.ReadError = "the transfer ended early" }))},
		{"length unknown, file cut off", film(made(900), lengthUnknown, found(func(f *findings) { f.CutOff = true }))},
		{"file cut off within its audio", film(found(func(f *findings) { f.CutOff = true }))},
		{"index at the end cut off", film(found(func(f *findings) { f.CutOff = true }), func(e *evidence) { e.source.indexLast, e.cutOff, e.lacks, e.bytes = true, true, 100, 900 })},
		{"length guessed, file cut off", film(made(900), func(e *evidence) { e.source.length, e.cutOff, e.lacks, e.bytes = 30*s, true, 100, 100 })},
		{"read error behind the video", film(found(func(f *findings) { f.ReadError = "Input/output error" }))},
		{"segments missing", film(found(func(f *findings) { f.PartsMissing = 2 }))},
		{"segments missing, accepted", film(found(func(f *findings) { f.PartsMissing = 2 }), accepting)},
		{"segments missing over the network", film(read(originNetwork), found(func(f *findings) { f.PartsMissing = 2 }))},
		{"segments of a live input missing", film(read(originLive), found(func(f *findings) { f.PartsMissing = 2 }))},
		{"video goes on in another stream", film(made(900), lengthUnknown, func(e *evidence) { e.scan.elsewhere = true })},
		{"read error of a file that grew", film(made(900), func(e *evidence) { e.grew = true }, found(func(f *findings) { f.ReadError = "Input/output error" }))},
		{"two hours without the last 14 s", film(func(e *evidence) { e.source.length = 2 * time.Hour }, made(2*60*60*30-14*30))},
		{"playlist with lengths in whole seconds", film(made(1728), func(e *evidence) { e.source.playlist = true })},

		{"frames refused", film(refused)},
		{"frames refused, accepted", film(refused, accepting)},
		{"frames refused of a live input", film(refused, read(originLive), lengthUnknown)},
		{"few frames refused", film(found(func(f *findings) { f.DecodeErrors, f.Frames = 10, 1790 }))},
		{"a third of the container zeroed", film(zeroed)},
		{"a third of the container zeroed, accepted", film(zeroed, accepting)},
		{"a third of a transport stream zeroed", film(zeroed, lengthUnknown)},
		{"gaps in time stamps", film(found(func(f *findings) { f.Packets, f.Frames, f.FramesIn = 1200, 1200, 1200 }))},
		{"gaps of an uneven rate", film(found(func(f *findings) { f.Packets, f.Frames, f.FramesIn = 1200, 1200, 1200 }), func(e *evidence) { e.source.uneven = true })},
		{"rate doubled", film(found(func(f *findings) { f.Packets, f.Frames, f.FramesIn = 900, 900, 900 }), func(e *evidence) { e.source.fps = rate{15, 1} })},
		{"damage beside gaps in time stamps", film(found(func(f *findings) { f.Packets, f.Frames, f.FramesIn, f.Damaged = 1200, 1200, 1200, 1 }))},
		{"audio lost", film(found(func(f *findings) { f.AudioErrors, f.AudioPackets = 260, 260 }))},
		{"audio that cannot be decoded", film(ended(failed), found(func(f *findings) { f.AudioErrors, f.EncoderError = 260, "Error while opening encoder" }))},
		{"encoder refuses parameters, audio damaged", film(ended(failed), found(func(f *findings) { f.AudioErrors, f.EncoderError = 1, "The bit rate 600000 bps is unsupported." }))},
		{"hardware encoder fails while streaming", film(ended(failed), func(e *evidence) { e.software, e.streaming = false, true }, found(func(f *findings) { f.EncoderError = "out of memory" }))},
		{"audio damaged", film(found(func(f *findings) { f.AudioErrors, f.AudioPackets = 3, 400 }))},
		{"stream ended at its timeout", film(made(900), read(originLive), func(e *evidence) {
			e.timeUp, e.exit, e.outputs[0].streamed = true, proc.Exit{Code: stoppedExit}, true
		})},
	} {
		v := judge(c.e)
		said := "completed"
		if v.failure != nil {
			said = fmt.Sprintf("%s: %s", v.failure.Reason, v.failure.Message)
		}
		fmt.Fprintf(&table, "%s\n\t%s\n", c.name, said)
		if v.decodeErrors+v.duplicated > 0 || v.missing != nil && *v.missing > 0 {
			missing := "unknown"
			if v.missing != nil {
				missing = v.missing.String()
			}
			fmt.Fprintf(&table, "\tdecode_errors %d, duplicated_frames %d, missing %s\n", v.decodeErrors, v.duplicated, missing)
		}
		for _, n := range v.notes {
			fmt.Fprintf(&table, "\tnote: %s\n", n)
		}
	}
	golden(t, "verdicts.golden", table.Bytes())
}

func TestCutOffFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := corpus{t, dir}
	clip(t, c.path("six.mp4"), "6")
	c.remux("first.mp4", "-c", "copy", "-movflags", "+faststart")
	c.remux("fragments.mp4", "-c", "copy", "-movflags", "frag_keyframe+empty_moov")
	c.remux("six.mkv", "-c", "copy")
	c.remux("six.flv", "-c", "copy")
	c.remux("six.wmv", "-c:v", "wmv2", "-c:a", "wmav2")
	c.remux("six.ivf", "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-an")
	c.remux("six.gif", "-an")
	c.remux("six.avi", "-c:v", "mpeg4", "-c:a", "libmp3lame")
	for _, name := range []string{"first.mp4", "fragments.mp4", "six.mkv", "six.avi", "six.flv", "six.wmv", "six.ivf", "six.gif", "six.mp4"} {
		data, err := os.ReadFile(c.path(name))
		if err != nil {
			t.Fatal(err)
		}
		size := int64(len(data))
		if lacks, cut := cutOff(bytes.NewReader(data), size); lacks != 0 || cut {
			t.Errorf("%s: got %d bytes missing, cut off: %t; want 0, false", name, lacks, cut)
		}
		lacks, cut := cutOff(bytes.NewReader(data[:size/2]), size/2)
		if known := name != "six.flv" && name != "six.ivf" && name != "six.gif"; !cut || known && lacks <= 0 || lacks > size-size/2 {
			t.Errorf("half of %s: got %d bytes missing, cut off: %t; want 1 to %d, true", name, lacks, cut, size-size/2)
		}
	}
}

func FuzzCutOff(f *testing.F) {
	f.Add([]byte("RIFF\x04\x00\x00\x00AVI LIST\xff\xff\xff\x7fmovi"))
	f.Add([]byte("\x00\x00\x00\x18ftypisom\x00\x00\x00\x00\x00\x00\x00\x01mdat\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte("\x1a\x45\xdf\xa3\x81\x00\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if lacks, _ := cutOff(bytes.NewReader(data), int64(len(data))); lacks < 0 {
			t.Errorf("got %d bytes missing", lacks)
		}
	})
}
