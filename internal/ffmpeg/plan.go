package ffmpeg

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Bounds of what a job may ask for.
const (
	maxDuration = 24 * time.Hour
	maxTimeout  = 7 * 24 * time.Hour
	maxOutputs  = 16 // of a ladder
)

// defaultDuration is the length of a synthetic input for a job that names none.
const defaultDuration = 10 * time.Second

// plan is what a job comes to on this node: every value in it is within bounds, cannot
// be taken for an option, and is supported by this FFmpeg. Paths are as in the job.
type plan struct {
	input      string // empty: synthetic
	reading    reading
	duration   time.Duration
	whole      bool // the job names no duration: an input is encoded whole
	streaming  bool // rtmp instead of files
	renditions []rendition
	audio      audio
	accept     bool   // damage to the input is noted and fails no job
	quality    string // psnr, ssim, vmaf or empty
	timeout    time.Duration
	limits     limits
	scenario   string
	notes      []string // what is done otherwise than asked
	ignored    []string // parameters that are not known or have no effect
}

// rendition is one output: one encode of the one decode.
type rendition struct {
	size       size
	sourceSize bool   // the size is that of the input
	fromRGB    bool   // the input is RGB
	fps        rate   // zero: that of the input, which is not known
	sourceRate bool   // the rate is that of the input
	codec      string // the master's name: h264
	encoder    string // FFmpeg's name: libx264
	bitrate    string // as asked; empty where crf decides
	video      []string
	container  container
	extension  string
	output     string // path as in the job; empty: none named
	url        string // destination of a stream
	preset     string // file with options that are secret; empty: none
}

// frameTime is the time between two frames; of an unknown rate, that of a low one.
func (r *rendition) frameTime() time.Duration {
	if !r.fps.known() {
		return 100 * time.Millisecond
	}
	return time.Duration(float64(time.Second) / r.fps.float())
}

// size is that of a picture, px. Zero: not known.
type size struct{ width, height int }

func (s size) known() bool { return s.width > 0 }

func (s size) String() string { return fmt.Sprintf("%dx%d", s.width, s.height) }

func (s size) pixels() int64 { return int64(s.width) * int64(s.height) }

// framesOf is the number of frames of an output when the first one has so many, which is
// the only one that FFmpeg counts: all begin and end together, each at its own rate. Where
// a rate is not known it is taken to be that of the first.
func (p *plan) framesOf(i int, first int64) int64 {
	own, of := p.renditions[i].fps, p.renditions[0].fps
	if !own.known() || !of.known() {
		return first
	}
	return int64(float64(first)*own.float()/of.float() + 0.5)
}

// endsAtTimeout: the job is a live output with an input of unknown end, and its timeout
// is when it is complete.
func (p *plan) endsAtTimeout() bool { return p.streaming && p.input != "" && p.whole }

// software: no encoder needs hardware.
func (p *plan) software() bool {
	return !slices.ContainsFunc(p.renditions, func(r rendition) bool { return needsHardware(r.encoder) })
}

// maxMedia is how much of the input the job can use.
func (p *plan) maxMedia() time.Duration {
	if p.whole {
		return maxDuration
	}
	return p.duration
}

// node is what a plan depends on beside the job.
type node struct {
	settings Settings
	caps     Capabilities
	tried    map[string]bool // encoders that were tried, and whether they worked
}

// planner holds what a plan is made from.
type planner struct {
	params
	node
	job      protocol.Job
	ceilings Ceilings
	scenario scenario
	unknown  []string // words of the scenario's name
	hasInput bool
	source   media
	family   string   // of the hardware encoders that were preferred so far, such as _nvenc
	missing  []string // what the job needs and this node does not have
	notes    []string // what is done otherwise than asked
}

func newPlanner(j protocol.Job, on node) *planner {
	pl := &planner{params: newParams(j.Parameters), node: on, job: j, ceilings: on.settings.Ceilings.withDefaults()}
	pl.scenario, pl.unknown = parseScenario(j.Scenario)
	return pl
}

// newPlan makes a job's plan. It does no I/O. problems names each bad parameter, missing
// what this FFmpeg does not support; the plan is valid when both are empty.
func newPlan(j protocol.Job, on node, source media) (p plan, problems, missing []string) {
	pl := newPlanner(j, on)
	pl.source = source
	*pl.problems = append(*pl.problems, j.Problems...)
	p = pl.plan()
	return p, unique(*pl.problems), unique(pl.missing) // a ladder may find the same one several times
}

func unique(texts []string) []string {
	var kept []string
	for _, t := range texts {
		if !slices.Contains(kept, t) {
			kept = append(kept, t)
		}
	}
	return kept
}

// refusal is the failure of a job that cannot be run as it is; nil when it can.
func refusal(problems, missing []string) *job.Failure {
	switch {
	case len(problems) > 0:
		return failure(protocol.ReasonUserError, "invalid parameters: %s", strings.Join(problems, "; "))
	case len(missing) > 0:
		return failure(protocol.ReasonCapabilityMismatch, "not available on this node: %s", strings.Join(missing, "; "))
	}
	return nil
}

func (pl *planner) lacks(format string, args ...any) {
	pl.missing = append(pl.missing, fmt.Sprintf(format, args...))
}

func (pl *planner) plan() plan {
	p := plan{scenario: pl.job.Scenario}
	pl.checkEngine()
	pl.acceleration()
	_, p.input, _ = pl.text("input")
	pl.hasInput = p.input != ""
	p.reading = pl.reading()
	p.duration, p.whole = pl.duration()
	p.streaming = pl.streaming()
	p.quality = pl.quality()
	p.limits, p.timeout = pl.limits()
	p.renditions = pl.outputs(p.streaming)
	pl.checkPixels(p.renditions)
	pl.checkLength(p.whole)
	if p.endsAtTimeout() {
		p.timeout = min(p.timeout, pl.ceilings.Duration)
	}
	if len(p.renditions) > 0 {
		p.audio = pl.audio(p.renditions)
	}
	p.accept = pl.acceptDamage()
	if pl.source.probed {
		pl.noteChanges(p)
	}
	pl.noteIgnored(&p)
	p.notes = unique(pl.notes)
	return p
}

func (pl *planner) note(format string, args ...any) {
	pl.notes = append(pl.notes, fmt.Sprintf(format, args...))
}

func (pl *planner) checkEngine() {
	switch engine := strings.ToLower(pl.job.Engine); {
	case engine == "" || engine == "auto" || engine == "ffmpeg":
	case engine == "gstreamer" && pl.settings.EngineFallback:
		pl.note("engine gstreamer is not available on this node; FFmpeg ran the job (jobs.engine_fallback)")
	default:
		pl.lacks("engine %s", show(pl.job.Engine))
	}
}

// noteIgnored notes what of the job was not used.
func (pl *planner) noteIgnored(p *plan) {
	if len(pl.unknown) > 0 {
		pl.note("scenario words not recognized: %s", few(pl.unknown))
	}
	unknown, idle := pl.unread()
	p.ignored = slices.Concat(unknown, idle)
	if len(unknown) > 0 {
		pl.note("unknown parameters ignored: %s", few(unknown))
	}
	if len(idle) > 0 {
		pl.note("parameters without effect on this job: %s", few(idle))
	}
}

// few lists names, the first ones of many.
func few(names []string) string {
	const most = 20
	if n := len(names); n > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return strings.Join(names, ", ")
}

func (pl *planner) duration() (d time.Duration, whole bool) {
	most, key := pl.ceilings.Duration, byOperator("duration", pl.ceilings.Duration < maxDuration)
	name, seconds, ok := pl.number(fmt.Sprintf("of seconds above 0 and up to %.0f%s", most.Seconds(), key), "duration", "duration_seconds")
	if !ok {
		return min(defaultDuration, most), true
	}
	if seconds <= 0 || seconds > most.Seconds() {
		pl.problem(name, "%s s must be above 0 and at most %.0f%s", number(seconds), most.Seconds(), key)
		return defaultDuration, false
	}
	return max(time.Duration(math.Round(seconds*1e6))*time.Microsecond, time.Microsecond), false
}

// acceptDamage reports whether the job or this node accepts damaged inputs.
func (pl *planner) acceptDamage() bool {
	accept, ok := pl.boolean("accept_damaged")
	return accept || !ok && pl.settings.AcceptDamaged
}

func (pl *planner) streaming() bool {
	name, mode, ok := pl.word("output_mode")
	switch {
	case !ok || mode == "file":
		return false
	case mode == "rtmp" || mode == "stream":
		return true
	}
	pl.problem(name, "%s is not file, rtmp or stream", show(mode))
	return false
}

func (pl *planner) quality() string {
	name, q, ok := pl.word("quality")
	if !ok || q == "none" {
		return ""
	}
	if q != "psnr" && q != "ssim" && q != "vmaf" {
		pl.problem(name, "%s is not none, psnr, ssim or vmaf", show(q))
		return ""
	}
	return q
}
