package ffmpeg

import (
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// evidence is what is known once FFmpeg has exited. judge decides by it alone.
type evidence struct {
	exit        proc.Exit
	timeUp      bool // FFmpeg was asked to end a stream at the job's timeout
	timeout     time.Duration
	diskFull    bool // where it wrote
	diskWasFull bool // shortly before its exit, and may have space again
	streaming   bool // it wrote to the network
	found       findings

	origin   origin
	input    *job.Failure // what an inspection after a failure found wrong with the input
	bytes    int64        // of the input when it was opened; 0 if unknown
	cutOff   bool         // it ends before all of the media that its container declares
	scan     scanned
	filled   int64         // frames repeated at the beginning and the end of the outputs
	lacks    int64         // bytes of media that it declares and does not have
	gaps     time.Duration // of media that the input's playlist marks as missing
	readable int64         // bytes in front of the first that cannot be read; 0: not looked for
	grew     bool          // the input grew while FFmpeg read it
	accept   bool          // damage is noted and does not fail the job
	whole    bool          // the job encodes all of the input
	asked    time.Duration
	source   media
	software bool     // no encoder needs hardware
	copied   bool     // the audio is copied as it is
	outputs  []output // of an FFmpeg that ended well
}

// origin is where FFmpeg read from.
type origin string

const (
	originSynthetic origin = "synthetic"
	originStored    origin = "stored"  // a local or a fetched file
	originNetwork   origin = "network" // over the network, with an end
	originLive      origin = "live"    // over the network, without one
)

// output is what became of one rendition.
type output struct {
	rendition
	made     product
	unread   string // why it cannot be read; empty if it can
	written  int64  // frames that FFmpeg reported; -1 if unknown
	streamed bool
}

// product is what an output contains.
type product struct {
	size   size
	frames int64
	length time.Duration // of the video, from its packets
	bytes  int64         // 0 while unknown
}

// verdict is what the evidence comes to.
type verdict struct {
	failure *job.Failure // nil: completed
	notes   []string
	// decodeErrors are frames of the input that were corrupt or lost, duplicated those of the
	// first output that fill their place.
	decodeErrors, duplicated int64
	missing                  *time.Duration // of the input; nil where it is not known how much
}

// A rule of judge. The first one that applies to the evidence decides.
type rule struct {
	applies bool
	reason  protocol.FailureReason
	says    string
}

// judge decides whether an attempt completed and why not.
func judge(e evidence) verdict {
	v := verdict{decodeErrors: e.badFrames(), duplicated: e.repeated() + e.filled, missing: e.missing()}
	if !e.ended() {
		v.failure = first(e.exitRules())
		return v
	}
	if e.timeUp {
		v.note("the stream ended at the job's timeout of %s; its input had not ended", e.timeout)
	}
	if v.failure = first(e.outputRules()); v.failure != nil {
		v.failure = e.blameDisk(v.failure)
		return v
	}
	damage := first(e.inputRules())
	switch {
	case damage != nil && e.accept:
		v.note("accepted: %s", damage.Message)
	case damage != nil:
		v.failure = e.blameDisk(damage)
	case v.decodeErrors > 0:
		v.note("input: %s", e.framesText())
	}
	if v.failure != nil {
		return v
	}
	if e.short() && e.grew {
		v.note("the input was still growing; only the part present when FFmpeg reached its end was encoded")
	}
	if why := e.found.ReadError; why != "" && e.origin == originLive {
		v.note("the live input ended: %s", why)
	}
	if n := e.found.AudioErrors; n > 0 {
		v.note("input: %s of its audio could not be decoded", plural(n, "packet"))
	}
	if n := e.repeated(); n > 0 && v.decodeErrors == 0 {
		v.note("the input has gaps in its time stamps; %s repeated to fill them", plural(n, "frame was", "frames were"))
	}
	return v
}

// ended: FFmpeg did all that it was asked to, by its exit status.
func (e *evidence) ended() bool {
	return e.exit.OK() || e.timeUp && e.exit.Signal == 0 && e.exit.Code == stoppedExit
}

// blameDisk makes a full disk the cause of a bad output: FFmpeg may exit with 0 there.
func (e *evidence) blameDisk(f *job.Failure) *job.Failure {
	switch {
	case e.diskFull:
		return failure(protocol.ReasonResourceError, "no space left on the disk of the output: %s", f.Message)
	case e.diskWasFull && f.Reason == protocol.ReasonRuntimeError:
		return failure(protocol.ReasonResourceError, "the disk of the output was temporarily full: %s", f.Message)
	}
	return f
}

func (v *verdict) note(format string, args ...any) {
	v.notes = append(v.notes, fmt.Sprintf(format, args...))
}

// first is the failure of the first rule that applies; nil if none does.
func first(rules []rule) *job.Failure {
	for _, r := range rules {
		if r.applies {
			return failure(r.reason, "%s", r.says)
		}
	}
	return nil
}

// exitRules are for an FFmpeg that failed.
func (e *evidence) exitRules() []rule {
	exit, found := e.exit, e.found
	because := ""
	if found.FirstError != "" {
		because = ": " + found.FirstError
	}
	serverFault := found.HTTPStatus == 429 || found.HTTPStatus >= 500
	inputReason, inputText := protocol.ReasonInputError, ""
	if e.input != nil {
		inputReason, inputText = e.input.Reason, e.input.Message
	}
	return []rule{
		{exit.Err != nil, protocol.ReasonPlatformError, fmt.Sprintf("FFmpeg: %v", exit.Err)},
		// Limits that the agent itself runs under.
		{exit.Signal == syscall.SIGXFSZ || exit.Signal == syscall.SIGXCPU, protocol.ReasonResourceError, fmt.Sprintf("FFmpeg was %s", exit)},
		{exit.Signal != 0, protocol.ReasonRuntimeError, fmt.Sprintf("FFmpeg was %s", exit)},
		{ranOutOfResources(exit), protocol.ReasonResourceError, fmt.Sprintf("FFmpeg: %s: %v", exit, syscall.Errno(256-exit.Code))},
		{found.RefusedFormat != "", formatRefused(found.RefusedFormat).Reason, "input: " + formatRefused(found.RefusedFormat).Message},
		{e.diskFull, protocol.ReasonResourceError, fmt.Sprintf("FFmpeg: %s: no space left on the disk of the output", exit)},
		{e.network() && serverFault, protocol.ReasonNetworkError, fmt.Sprintf("input: the server answered HTTP status %d", found.HTTPStatus)},
		{e.input != nil, inputReason, inputText},
		{e.diskWasFull, protocol.ReasonResourceError, fmt.Sprintf("FFmpeg: %s: the disk of the output was temporarily full", exit)},
		{strings.Contains(found.EncoderError, encoderFailed) && found.AudioErrors > 0, protocol.ReasonInputError, "input: its audio cannot be decoded"},
		{found.EncoderError != "" && e.software, protocol.ReasonUserError, "the encoder does not accept these parameters: " + found.EncoderError},
		{found.EncoderError != "", protocol.ReasonRuntimeError, "the encoder could not be opened: " + found.EncoderError},
		{found.HeaderError && e.copied, protocol.ReasonUserError, "the output format cannot hold the copied audio" + because},
		{found.ReadError != "" && e.network(), protocol.ReasonNetworkError, "input: reading it failed: " + found.ReadError},
		{e.streaming, protocol.ReasonNetworkError, fmt.Sprintf("FFmpeg: %s: sending the stream failed%s", exit, because)},
		{true, protocol.ReasonRuntimeError, fmt.Sprintf("FFmpeg: %s%s", exit, because)},
	}
}

// outputRules compare the outputs with what was asked for: each must have the frames that
// FFmpeg reported; from a synthetic input, those of rate and duration.
func (e *evidence) outputRules() (rules []rule) {
	for _, o := range e.outputs {
		want := int64(e.asked.Seconds()*o.fps.float() + 0.5)
		empty := rule{o.made.frames == 0 && o.unread == "" || o.unread != "" && o.written == 0, protocol.ReasonInputError, "input: no frame of it could be decoded"}
		if !e.hasInput() {
			empty.reason, empty.says = protocol.ReasonRuntimeError, "FFmpeg exited with 0, but wrote no frame"
		}
		rules = append(rules, empty,
			rule{o.unread != "", protocol.ReasonRuntimeError, "FFmpeg exited with 0, but its output cannot be read: " + o.unread},
			rule{o.made.size != o.size && !o.sourceSize && !o.streamed, protocol.ReasonRuntimeError, fmt.Sprintf("the output is %s instead of %s", o.made.size, o.size)},
			rule{o.written >= 0 && abs(o.made.frames-o.written) > 1, protocol.ReasonRuntimeError,
				fmt.Sprintf("the output has %d frames, but FFmpeg reported %d", o.made.frames, o.written)},
			rule{!e.hasInput() && abs(o.made.frames-want) > 1, protocol.ReasonRuntimeError, fmt.Sprintf("the output has %d frames instead of %d", o.made.frames, want)},
			rule{e.hasInput() && !e.whole && o.made.length > e.asked+slack(e.asked, false)+2*o.frameTime(), protocol.ReasonRuntimeError,
				fmt.Sprintf("the output is %s long instead of %s", o.made.length, e.asked)},
		)
	}
	return rules
}

// inputRules find what is missing from an input or damaged in it.
func (e *evidence) inputRules() []rule {
	if !e.hasInput() || e.timeUp {
		return nil
	}
	found, made := e.found, e.outputs[0].made.length
	reason := protocol.ReasonInputError
	if e.network() {
		reason = protocol.ReasonNetworkError
	}
	ends := fmt.Sprintf("input: it ends after %s", made.Round(10*time.Millisecond))
	if want := e.expected(); want > 0 {
		ends += fmt.Sprintf(" of %s", want.Round(10*time.Millisecond))
	}
	// The length is not stated, and the job did not get as much as it asked for.
	open := e.expected() == 0 && !e.satisfied() && e.origin != originLive
	return []rule{
		{e.gaps > 0, protocol.ReasonInputError, fmt.Sprintf("input: its playlist marks %s of it as missing", e.gaps)},
		{found.PartsMissing > 0 && e.origin != originLive, reason, fmt.Sprintf("input: %s could not be read", plural(found.PartsMissing, "segment"))},
		{(e.short() || open) && found.ReadError != "", reason, fmt.Sprintf("%s: %s", ends, found.ReadError)},
		{e.damagedShare() > maxDamagedShare && e.origin == originStored && !e.cut(), protocol.ReasonInputError, "input: " + e.framesText()},
		{e.audioShare() > maxDamagedShare && e.origin == originStored && !e.cut(), protocol.ReasonInputError,
			fmt.Sprintf("input: %d of %d packets of its audio could not be decoded", found.AudioErrors, found.AudioPackets)},
		{e.scan.elsewhere && !e.satisfied() && !e.grew, protocol.ReasonInputError, ends + "; the video goes on in another stream"},
		{e.short() && !e.grew, reason, ends},
		{e.cut() && !e.grew, reason, "input: the file is cut off" + e.lacksText()},
		{e.damagedShare() > maxDamagedShare && e.origin == originStored, protocol.ReasonInputError, "input: " + e.framesText()},
	}
}

// maxDamagedShare of the frames of a stored input may be corrupt or lost.
const maxDamagedShare = 0.01

func (e *evidence) hasInput() bool { return e.origin != originSynthetic }

func (e *evidence) network() bool { return e.origin == originNetwork || e.origin == originLive }

// expected is how much media the first output must have; 0 if unknown.
func (e *evidence) expected() time.Duration {
	switch want := e.source.length; {
	case want == 0 || e.origin == originLive:
		return 0
	case e.whole:
		return want
	default:
		return min(want, e.asked)
	}
}

// short: the first output lacks some of what the input has.
func (e *evidence) short() bool {
	want := e.expected()
	differs := slack(want, e.source.exact)
	if e.source.playlist {
		differs = playlistSlack(want)
	}
	return want > 0 && e.outputs[0].made.length < want-differs-2*e.outputs[0].frameTime()
}

// satisfied: the first output has all that the job asked for, whatever more the input has.
func (e *evidence) satisfied() bool {
	return !e.whole && e.outputs[0].made.length >= e.asked-slack(e.asked, true)-2*e.outputs[0].frameTime()
}

// cut: the input ends before all of its media. A Matroska file may lack what follows its
// clusters; the length of its video decides.
func (e *evidence) cut() bool {
	switch {
	case e.satisfied() || e.origin == originLive:
		return false
	case e.expected() > 0 && e.source.indexLast:
		return e.short()
	}
	return e.found.CutOff || e.cutOff
}

func (e *evidence) lacksText() string {
	if e.lacks == 0 || e.bytes == 0 {
		return ""
	}
	return fmt.Sprintf(": it has %d of %d bytes", e.bytes, e.bytes+e.lacks)
}

// slack is by how much a length may differ: by half a second, and by what its container
// rounds or is often wrong.
func slack(d time.Duration, exact bool) time.Duration {
	if exact {
		return min(d/500+500*time.Millisecond, time.Second)
	}
	return min(d/50+500*time.Millisecond, 3*time.Second)
}

// playlistSlack is that of the segments of a playlist, whose lengths may be rounded to
// seconds (RFC 8216, 4.3.2.1). Each of them was found.
func playlistSlack(d time.Duration) time.Duration { return d/10 + time.Second }

// repeated is how many frames of the first output are repetitions beyond those that
// converting the rate needs.
func (e *evidence) repeated() int64 {
	f, from := e.found, e.source.fps
	if len(e.outputs) == 0 || f.FramesIn <= 0 || !from.known() || e.source.uneven || !e.outputs[0].fps.known() {
		return 0
	}
	beyond := float64(f.FramesOut) - float64(f.FramesIn)*e.outputs[0].fps.float()/from.float()
	if beyond < 2+float64(f.FramesOut)/1000 {
		return 0
	}
	return int64(math.Round(beyond))
}

// lostTime is how much of the video damage to its container took away.
func (e *evidence) lostTime() time.Duration {
	if !e.scan.stopped || len(e.outputs) == 0 || !e.outputs[0].fps.known() {
		return e.scan.lost
	}
	// How much is beyond the damage is not known: all that the output repeats or lacks.
	repeats := time.Duration(float64(e.repeated()) / e.outputs[0].fps.float() * float64(time.Second))
	return repeats + max(0, e.source.guessed-e.outputs[0].made.length)
}

// lost is the number of the input's frames that damage to its container took away.
func (e *evidence) lost() int64 {
	if !e.source.fps.known() {
		return 0
	}
	return int64(math.Round(e.lostTime().Seconds() * e.source.fps.float()))
}

// badFrames is the number of frames that were corrupt or lost.
func (e *evidence) badFrames() int64 { return e.found.DecodeErrors + e.lost() }

// allFrames is the number of frames that the video had.
func (e *evidence) allFrames() int64 {
	return max(e.found.Frames+e.badFrames(), e.found.Packets+e.lost())
}

func (e *evidence) damagedShare() float64 { return share(e.badFrames(), e.allFrames()) }

func (e *evidence) audioShare() float64 { return share(e.found.AudioErrors, e.found.AudioPackets) }

func share(part, all int64) float64 {
	if all <= 0 {
		return 0
	}
	return float64(part) / float64(all)
}

// framesText says how many frames were bad.
func (e *evidence) framesText() string {
	bad := plural(e.badFrames(), "frame was", "frames were")
	if e.found.Frames > 0 {
		bad = fmt.Sprintf("%d of %s", e.badFrames(), plural(e.allFrames(), "frame was", "frames were"))
	}
	return bad + " corrupt or lost"
}

// plural is a number with what it counts; without a form for several, that is one with s.
func plural(n int64, one string, several ...string) string {
	switch {
	case n == 1:
		return "1 " + one
	case len(several) > 0:
		return fmt.Sprintf("%d %s", n, several[0])
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// missing is how much of the input's media was not encoded; nil where that is not known.
func (e *evidence) missing() *time.Duration {
	var missing time.Duration
	if len(e.outputs) == 0 || !e.hasInput() {
		return nil
	}
	made, want := e.outputs[0].made.length, e.expected()
	switch {
	case want > 0 && !e.source.playlist && made < want-2*e.outputs[0].frameTime(), e.short():
		missing = want - made
	case e.lacks > 0 && e.bytes > 0 && e.cut(): // in proportion
		missing = time.Duration(float64(made) * float64(e.lacks) / float64(e.bytes))
	case want == 0 && !e.satisfied():
		if missing = e.guessMissing(); missing <= 0 && e.lost() == 0 {
			return nil
		}
	}
	missing += e.lostTime()
	return &missing
}

// guessMissing is how much an input that breaks off lacks: by the length that ffprobe
// guessed, else in proportion to the bytes that can be read. 0: it does not break off, or
// neither is known.
func (e *evidence) guessMissing() time.Duration {
	made := e.outputs[0].made.length
	switch read := e.readable; {
	case e.found.ReadError == "" && !e.cut() && !e.scan.elsewhere:
		return 0
	case e.source.guessed > made:
		return e.source.guessed - made
	case read > 0 && read < e.bytes:
		return time.Duration(float64(made) * float64(e.bytes-read) / float64(read))
	}
	return 0
}

func abs(n int64) int64 { return max(n, -n) }
