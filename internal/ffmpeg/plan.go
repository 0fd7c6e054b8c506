package ffmpeg

import (
	"encoding/json"
	"fmt"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Bounds of what a job may ask for.
const (
	minSide, maxSide = 16, 16384 // px
	maxFPS           = 300
	maxDuration      = 24 * time.Hour
	maxTimeout       = 7 * 24 * time.Hour
	maxOutputs       = 16   // of a ladder
	minBitrate       = 1e3  // bit/s
	maxBitrate       = 2e9  // bit/s
	maxAudioBitrate  = 10e6 // bit/s
)

// What a job is that says nothing.
const (
	defaultWidth, defaultHeight = 1280, 720
	defaultFPS                  = 30
	defaultDuration             = 10 * time.Second
	defaultBitrate              = "2000k"
	defaultCodec                = "h264"
	defaultAudioBitrate         = "128k"
	defaultExtension            = ".mp4"
)

func sideOK(px int) bool { return px >= minSide && px <= maxSide }

// plan is a job understood: nothing in it can be an option, is out of bounds, or
// needs what this FFmpeg has not. Paths are as the job gave them.
type plan struct {
	input      string // empty: none named
	duration   time.Duration
	whole      bool // the job names no duration: an input is taken whole
	streaming  bool // rtmp instead of files
	renditions []rendition
	audio      []string // arguments
	sound      bool     // audio is asked for
	quality    string   // psnr, ssim, vmaf or empty
	timeout    time.Duration
	limits     limits
	scenario   string
	notes      []string // what will be done otherwise than asked
}

// rendition is one output: one encode of the one decode.
type rendition struct {
	width, height int
	fps           rate
	codec         string // our name: h264
	encoder       string // FFmpeg's: libx264
	bitrate       string // as asked; empty where crf rules
	video         []string
	container     container
	extension     string
	output        string // path as given; empty: none named
	url           string // where a stream goes
}

// framesOf is how many frames an output has when the first, which alone FFmpeg counts,
// has so many: all begin and end together, each at its own rate.
func (p *plan) framesOf(i int, first int64) int64 {
	return int64(float64(first)*p.renditions[i].fps.float()/p.renditions[0].fps.float() + 0.5)
}

// planner carries what a plan is made from.
type planner struct {
	params
	job        protocol.Job
	caps       Capabilities
	tried      map[string]bool // encoders that were tried, and whether that came out well
	masterHost string
	timeout    time.Duration // when the job says nothing
	lacks      []string      // what this node has not
	notes      []string      // what will be done otherwise than asked
}

// newPlan understands a job. It looks at nothing but its arguments. problems names
// each bad parameter, lacks what this FFmpeg has not; the plan is good when both
// are empty.
func newPlan(j protocol.Job, caps Capabilities, tried map[string]bool, masterHost string, timeout time.Duration) (p plan, problems, lacks []string) {
	pl := &planner{params: newParams(j.Parameters), job: j, caps: caps, tried: tried, masterHost: masterHost, timeout: timeout}
	*pl.problems = append(*pl.problems, j.Problems...)
	p = pl.plan()
	return p, unique(*pl.problems), unique(pl.lacks) // a ladder meets the same one several times
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
func refusal(problems, lacks []string) *job.Failure {
	switch {
	case len(problems) > 0:
		return failure(protocol.ReasonUserError, "invalid parameters: %s", strings.Join(problems, "; "))
	case len(lacks) > 0:
		return failure(protocol.ReasonCapabilityMismatch, "not to be had on this node: %s", strings.Join(lacks, "; "))
	}
	return nil
}

func (pl *planner) lack(format string, args ...any) {
	pl.lacks = append(pl.lacks, fmt.Sprintf(format, args...))
}

func (pl *planner) plan() plan {
	p := plan{scenario: pl.job.Scenario}
	pl.engine()
	pl.acceleration()
	_, p.input, _ = pl.text("input")
	p.duration, p.whole = pl.duration()
	p.streaming = pl.streaming()
	p.quality = pl.quality()
	p.limits, p.timeout = pl.limits()
	p.renditions = pl.outputs(p.streaming)
	if len(p.renditions) > 0 {
		p.audio, p.sound = pl.audio(p.renditions, p.input == "")
	}
	p.notes = unique(pl.notes)
	return p
}

func (pl *planner) engine() {
	switch strings.ToLower(pl.job.Engine) {
	case "", "auto", "ffmpeg":
	default:
		pl.lack("engine %s", show(pl.job.Engine))
	}
}

// acceleration is the family of hardware encoders that the job wants, such as _nvenc;
// empty when it wants none.
func (pl *planner) acceleration() string {
	_, accel, ok := pl.word("hwaccel")
	if !ok || accel == "none" || accel == "auto" {
		return ""
	}
	family, known := accelerations[accel]
	works := false
	for encoder, well := range pl.tried {
		works = works || well && strings.HasSuffix(encoder, family)
	}
	if !known || !works {
		pl.lack("hwaccel %s (no trial encode of its came out well)", accel)
	}
	return family
}

func (pl *planner) duration() (d time.Duration, whole bool) {
	name, seconds, ok := pl.number(fmt.Sprintf("of seconds above 0 and up to %.0f", maxDuration.Seconds()), "duration", "duration_seconds")
	if !ok {
		return defaultDuration, true
	}
	if seconds <= 0 || seconds > maxDuration.Seconds() {
		pl.problem(name, "%s s is not above 0 and up to %.0f", number(seconds), maxDuration.Seconds())
		return defaultDuration, false
	}
	return max(time.Duration(math.Round(seconds*1e6))*time.Microsecond, time.Microsecond), false
}

func (pl *planner) streaming() bool {
	name, mode, ok := pl.word("output_mode")
	switch {
	case !ok || mode == "file":
		return false
	case mode == "rtmp" || mode == "stream":
		return true
	}
	pl.problem(name, "%s is none of file, rtmp, stream", show(mode))
	return false
}

func (pl *planner) quality() string {
	name, q, ok := pl.word("quality")
	if !ok || q == "none" {
		return ""
	}
	if q != "psnr" && q != "ssim" && q != "vmaf" {
		pl.problem(name, "%s is none of none, psnr, ssim, vmaf", show(q))
		return ""
	}
	return q
}

// outputs makes the job's renditions: one, or those of its ladder.
func (pl *planner) outputs(streaming bool) []rendition {
	name, v, ok := pl.value("outputs")
	if !ok {
		return []rendition{pl.rendition(pl.params, streaming, "")}
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 || len(list) > maxOutputs {
		pl.problem(name, "not a list of 1 to %d outputs", maxOutputs)
		return nil
	}
	var rs []rendition
	taken := map[string]bool{}
	for i, v := range list {
		prefix := fmt.Sprintf("%s[%d]", name, i)
		m, ok := v.(map[string]any)
		if !ok {
			pl.problem(prefix, "%s is not an object such as {\"resolution\":\"640x360\",\"bitrate\":\"800k\"}", show(v))
			continue
		}
		entry := pl.above(prefix+".", m)
		w, h := pl.size(entry)
		suffix := fmt.Sprintf("-%dx%d", w, h)
		if taken[suffix] {
			suffix += "-" + strconv.Itoa(i)
		}
		taken[suffix] = true
		rs = append(rs, pl.rendition(entry, streaming, suffix))
	}
	return rs
}

// rendition reads one output. Those of a ladder that name no output of their own
// take the job's, with a suffix.
func (pl *planner) rendition(from params, streaming bool, suffix string) rendition {
	s := parseScenario(pl.job.Scenario)
	r := rendition{fps: pl.fps(from, s)}
	r.width, r.height = pl.size(from)
	var ffmpegCodec string
	r.encoder, ffmpegCodec = pl.encoder(from, s)
	r.codec = canonicalCodec(ffmpegCodec)
	r.bitrate, r.video = pl.rateControl(from, r, streaming)
	if streaming {
		pl.stream(from, &r, suffix)
	} else {
		pl.file(from, &r, suffix)
	}
	if r.codec == "h265" && (r.container.format == "mp4" || r.container.format == "mov") {
		r.video = append(r.video, "-tag:v", "hvc1") // or Apple's players refuse it
	}
	if r.codec != "" && r.container.video != nil && !slices.Contains(r.container.video, r.codec) {
		pl.problem("codec", "%s does not go into %s", r.codec, r.container.format)
	}
	return r
}

// size reads width and height. Chroma is halved in both directions, so an odd side
// is rounded up to the next even one.
func (pl *planner) size(from params) (w, h int) {
	s := parseScenario(pl.job.Scenario)
	w, h = defaultWidth, defaultHeight
	if s.width > 0 {
		w, h = s.width, s.height
	}
	for _, l := range from.layers {
		at := params{layers: []layer{l}, problems: pl.problems}
		if name, text, ok := at.text("resolution"); ok {
			rw, rh, ok := parseSize(text)
			if !ok {
				at.problem(name, "%s is not WIDTHxHEIGHT within %d and %d px", show(text), minSide, maxSide)
				break
			}
			w, h = rw, rh
			break
		}
		fw, okW := at.between(minSide, maxSide, " px", "resolution_width", "width")
		fh, okH := at.between(minSide, maxSide, " px", "resolution_height", "height")
		_, _, hasW := at.value("resolution_width", "width")
		_, _, hasH := at.value("resolution_height", "height")
		if hasW != hasH {
			at.problem(l.prefix+"resolution", "width and height come together")
		}
		if okW && okH {
			w, h = int(fw), int(fh)
			break
		}
	}
	if w&1+h&1 > 0 {
		pl.notes = append(pl.notes, fmt.Sprintf("resolution %dx%d has an odd side and became %dx%d", w, h, w+w&1, h+h&1))
	}
	return w + w&1, h + h&1
}

func parseSize(s string) (w, h int, ok bool) {
	if m := scenarioSize.FindStringSubmatch(strings.ToLower(s)); m != nil {
		w, _ = strconv.Atoi(m[1])
		h, _ = strconv.Atoi(m[2])
	} else if named := (scenario{}); named.take(strings.ToLower(s)) { // 720p, 4k
		w, h = named.width, named.height
	}
	return w, h, sideOK(w) && sideOK(h)
}

func (pl *planner) fps(from params, s scenario) rate {
	fallback := rate{defaultFPS, 1}
	if s.fps.num > 0 {
		fallback = s.fps
	}
	name, v, ok := from.value("fps", "frame_rate")
	if !ok {
		return fallback
	}
	r, ok := parseRate(v)
	if !ok || r.float() > maxFPS {
		from.problem(name, "%s is not above 0 and up to %d frames a second", show(v), maxFPS)
		return fallback
	}
	return r
}

// encoder finds the encoder for a codec's name or takes an encoder's own.
func (pl *planner) encoder(from params, s scenario) (encoder, codec string) {
	name := defaultCodec
	if s.codec != "" {
		name = s.codec
	}
	if at, word, ok := from.word("codec"); ok {
		name = word
	} else if at != "" {
		return "", ""
	}
	if family := pl.acceleration(); family != "" && codecs[name] != nil {
		return pl.accelerated(name, family)
	}
	for _, e := range codecs[name] {
		if codec, ok := pl.caps.Video[e]; ok && pl.usable(e) {
			return e, codec
		}
	}
	codec, ok := pl.caps.Video[name]
	switch {
	case codecs[name] != nil, !ok:
		pl.lack("codec %s", name)
		return "", ""
	case !pl.usable(name):
		pl.lack("encoder %s (no trial encode came out well)", name)
		return "", ""
	}
	return name, codec
}

// usable: the encoder came out of its trial well, or needs no hardware and was not
// tried yet.
func (pl *planner) usable(encoder string) bool {
	well, tried := pl.tried[encoder]
	return well || (!tried && !needsHardware(encoder))
}

// accelerated is the proved encoder of a family that makes a codec.
func (pl *planner) accelerated(name, family string) (encoder, codec string) {
	if name == "h265" {
		name = "hevc" // FFmpeg's name for it
	}
	encoder = name + family
	codec, ok := pl.caps.Video[encoder]
	if !ok || !pl.usable(encoder) {
		pl.lack("encoder %s (no trial encode came out well)", encoder)
		return "", ""
	}
	return encoder, codec
}

// wantsHardware reports whether a job can only be understood once hardware encoders
// were tried.
func wantsHardware(j protocol.Job) bool {
	pl := &planner{params: newParams(j.Parameters)}
	if pl.acceleration() != "" {
		return true
	}
	raw, err := json.Marshal(j.Parameters)
	return err == nil && slices.ContainsFunc(hardwareSuffixes, func(s string) bool { return strings.Contains(string(raw), s) })
}

// bitratePattern: 2000k, 2M, 1.5M, or plain bits a second.
var bitratePattern = regexp.MustCompile(`^(\d{1,12}(?:\.\d{1,6})?)([kKmM]?)$`)

// bitrate reads a bitrate as FFmpeg takes it; plain bits become kilobits where they can.
func bitrate(from params, high float64, keys ...string) (string, int64, bool) {
	name, text, ok := from.text(keys...)
	if !ok {
		return "", 0, false
	}
	m := bitratePattern.FindStringSubmatch(text)
	if m == nil {
		from.problem(name, "%s is not a bitrate such as 2000k, 2M or 2000000", show(text))
		return "", 0, false
	}
	bits, _ := strconv.ParseFloat(m[1], 64)
	switch m[2] {
	case "k", "K":
		bits *= 1e3
	case "m", "M":
		bits *= 1e6
	}
	if bits < minBitrate || bits > high {
		from.problem(name, "%s is not within %.0fk and %.0fM bit/s", show(text), minBitrate/1e3, high/1e6)
		return "", 0, false
	}
	n := int64(math.Round(bits))
	if m[2] == "" && n%1000 == 0 {
		text = strconv.FormatInt(n/1000, 10) + "k"
	}
	return text, n, true
}

// rateControl chooses the arguments of quality and speed. Without crf the bitrate
// rules; with both the bitrate is a cap where the encoder can have one.
func (pl *planner) rateControl(from params, r rendition, streaming bool) (asked string, args []string) {
	text, bits, hasBitrate := bitrate(from, maxBitrate, "bitrate")
	t, tuned := tunings[r.encoder]
	crf, hasCRF := pl.crf(from, r.encoder, t)
	args = append(append(args, t.always...), pl.preset(from, r.encoder, t, tuned)...)
	buffer := []string{"-maxrate", text, "-bufsize", strconv.FormatInt(2*bits, 10)}
	switch {
	case hasCRF && hasBitrate && t.crf == crfCapped:
		args = append(append(args, "-crf", crf), buffer...)
	case hasCRF && hasBitrate && t.crf == crfConstrained:
		args = append(args, "-crf", crf, "-b:v", text)
	case hasCRF:
		text = ""
		args = append(args, "-crf", crf)
		if t.crf == crfConstrained {
			args = append(args, "-b:v", "0") // or the encoder's default bitrate is its cap
		}
	default:
		if !hasBitrate {
			text, bits = defaultBitrate, 2_000_000
			buffer = []string{"-maxrate", text, "-bufsize", strconv.FormatInt(2*bits, 10)}
		}
		args = append(args, "-b:v", text)
		if streaming {
			args = append(args, buffer...)
		}
	}
	return text, args
}

func (pl *planner) crf(from params, encoder string, t tuning) (string, bool) {
	name, f, ok := from.number(fmt.Sprintf("within %g and %g", t.crfMin, t.crfMax), "crf")
	if !ok || encoder == "" {
		return "", false
	}
	if t.crfMax == t.crfMin {
		from.problem(name, "%s has none", encoder)
		return "", false
	}
	if f < t.crfMin || f > t.crfMax || (t.crfWhole && f != math.Trunc(f)) {
		kind := ""
		if t.crfWhole {
			kind = "a whole number "
		}
		from.problem(name, "%s is not %swithin %g and %g", number(f), kind, t.crfMin, t.crfMax)
		return "", false
	}
	return number(f), true
}

func (pl *planner) preset(from params, encoder string, t tuning, tuned bool) []string {
	name, preset, ok := from.word("preset")
	if encoder == "" {
		return nil
	}
	if !ok {
		args, _ := t.preset(t.standard)
		return args
	}
	if !tuned {
		from.problem(name, "%s has none", encoder)
		return nil
	}
	args, ok := t.preset(preset)
	if !ok {
		from.problem(name, "%s is none of %s's: %s", show(preset), encoder, t.allowed())
	}
	return args
}

// file chooses the file format by the output's extension.
func (pl *planner) file(from params, r *rendition, suffix string) {
	name, output, named := from.text("output")
	r.extension = defaultExtension
	if _, known := tunings[r.encoder]; !known {
		r.extension = ".mkv" // takes nearly every codec
	}
	if named {
		ext := path.Ext(output)
		if _, ok := containers[strings.ToLower(ext)]; !ok {
			from.problem(name, "%s ends in none of %s", show(output), extensions())
			r.output = output // where it lies may be wrong as well
			return
		}
		r.extension = strings.ToLower(ext)
		r.output = output
		if _, _, own := from.own().value("output"); suffix != "" && !own {
			r.output = strings.TrimSuffix(output, ext) + suffix + ext
		}
	}
	r.container = containers[r.extension]
}

// streamKey: what may follow rtmp://HOST/live/.
var streamKey = regexp.MustCompile(`^[A-Za-z0-9._~?=&%/+-]{1,512}$`)

// stream finds out where a stream goes.
func (pl *planner) stream(from params, r *rendition, suffix string) {
	r.container = containers[".flv"]
	r.video = append(r.video, "-g", strconv.Itoa(int(math.Ceil(2*r.fps.float())))) // players wait for a key frame
	if name, text, ok := from.text("rtmp_url"); ok {
		u, err := parseURL(text)
		if err != nil || (u.Scheme != "rtmp" && u.Scheme != "rtmps") {
			from.problem(name, "%s is not rtmp://HOST/… or rtmps://HOST/…", quote(name, text))
			return
		}
		if _, _, own := from.own().value("rtmp_url"); suffix != "" && !own {
			u.Path += suffix
		}
		r.url = u.String()
		return
	} else if name != "" {
		return // a problem already
	}
	name, key, ok := from.text("stream_key")
	if name == "" {
		name, key = "id", pl.job.ID
	} else if !ok {
		return
	}
	if !streamKey.MatchString(key) {
		from.problem(name, "it does not fit into an rtmp URL")
		return
	}
	if pl.masterHost == "" {
		from.problem("rtmp_url", "absent, and the master's host is not known")
		return
	}
	key, query, asked := strings.Cut(key, "?")
	r.url = "rtmp://" + hostPort(pl.masterHost, "1935") + "/live/" + key + suffix
	if asked {
		r.url += "?" + query
	}
}

// audio chooses the audio encoder; every rendition carries the same sound.
func (pl *planner) audio(rs []rendition, synthetic bool) (args []string, sound bool) {
	rate, _, ok := bitrate(pl.params, maxAudioBitrate, "audio_bitrate")
	if !ok {
		rate = defaultAudioBitrate
	}
	fits := rs[0].container.audio
	name, word, named := pl.word("audio_codec")
	if !named {
		if len(fits) == 0 {
			return nil, false
		}
		word = fits[0]
	}
	encoder, known := audioCodecs[word]
	switch {
	case !known:
		pl.lack("audio codec %s", word)
		return nil, false
	case encoder == "none":
		return nil, false
	}
	for _, r := range rs {
		if r.container.audio != nil && !slices.Contains(r.container.audio, encoder) {
			if !named {
				name = "outputs"
			}
			pl.problem(name, "%s does not go into %s", word, r.container.format)
			return nil, false
		}
	}
	if encoder == "copy" && !synthetic {
		return []string{"-c:a", "copy"}, true
	}
	if encoder == "copy" { // there is nothing worth copying in a synthetic input
		if len(fits) == 0 {
			return nil, false
		}
		encoder = fits[0]
	}
	if _, ok := pl.caps.Audio[encoder]; !ok {
		pl.lack("audio encoder %s", encoder)
		return nil, false
	}
	return []string{"-c:a", encoder, "-b:a", rate}, true
}
