package ffmpeg

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// outputs returns the job's renditions: one, or those of its ladder.
func (pl *planner) outputs(streaming bool) []rendition {
	name, v, ok := pl.value("outputs")
	if !ok {
		return []rendition{pl.rendition(pl.params, streaming, "")}
	}
	list, ok := v.([]any)
	if most := pl.ceilings.Outputs; !ok || len(list) == 0 || len(list) > most {
		pl.problem(name, "not a list of 1 to %d outputs%s", most, byOperator("outputs", most < maxOutputs))
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
		suffix := "-source"
		if s, ofSource := pl.size(entry); !ofSource {
			suffix = "-" + s.String()
		}
		if taken[suffix] {
			suffix += "-" + strconv.Itoa(i)
		}
		taken[suffix] = true
		rs = append(rs, pl.rendition(entry, streaming, suffix))
	}
	return rs
}

// rendition reads one output. An entry of a ladder that names no output of its own takes
// the job's, with a suffix.
func (pl *planner) rendition(from params, streaming bool, suffix string) rendition {
	var r rendition
	r.size, r.sourceSize = pl.size(from)
	r.fps, r.sourceRate = pl.fps(from)
	r.fromRGB = pl.source.rgb
	var ffmpegCodec string
	r.encoder, ffmpegCodec = pl.encoder(from, r.size)
	r.codec = canonicalCodec(ffmpegCodec)
	r.bitrate, r.video = pl.rateControl(from, r, streaming)
	if streaming {
		pl.stream(from, &r, suffix)
	} else {
		pl.file(from, &r, suffix)
	}
	if r.codec == "h265" && (r.container.format == "mp4" || r.container.format == "mov") {
		r.video = append(r.video, "-tag:v", "hvc1") // Apple's players require it
	}
	if r.codec != "" && !r.container.takes(r.codec) {
		pl.problem("codec", "%s is not supported in %s", r.codec, r.container.format)
	}
	return r
}

// file chooses the file format by the output's extension.
func (pl *planner) file(from params, r *rendition, suffix string) {
	name, output, named := from.text("output")
	r.extension = defaultExtension
	if _, known := tunings[r.encoder]; !known || !containers[r.extension].takes(r.codec) {
		r.extension = ".mkv" // takes nearly every codec
	}
	if named {
		ext := path.Ext(output)
		if _, ok := containers[strings.ToLower(ext)]; !ok {
			from.problem(name, "%s does not end in one of %s", quote(name, output), extensions())
			r.output = output // its location may be a problem as well
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

// streamKey matches what may follow rtmp://HOST/live/.
var streamKey = regexp.MustCompile(`^[A-Za-z0-9._~?=&%/+-]{1,512}$`)

// stream finds the destination of a stream.
func (pl *planner) stream(from params, r *rendition, suffix string) {
	r.container = containers[".flv"]
	keyFrames := 2 * float64(defaultFPS)
	if r.fps.known() {
		keyFrames = 2 * r.fps.float()
	}
	r.video = append(r.video, "-g", strconv.Itoa(int(math.Ceil(keyFrames)))) // players wait for a key frame
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
		from.problem(name, "not valid in an rtmp URL")
		return
	}
	if pl.settings.MasterHost == "" {
		from.problem("rtmp_url", "absent, and the master's host is unknown")
		return
	}
	key, query, hasQuery := strings.Cut(key, "?")
	r.url = "rtmp://" + net.JoinHostPort(strings.Trim(pl.settings.MasterHost, "[]"), "1935") + "/live/" + key + suffix
	if hasQuery {
		r.url += "?" + query
	}
}

// parseURL accepts URLs with a host and without characters that FFmpeg could take for
// more than a URL.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("not a URL")
	}
	if u.Host == "" || u.Opaque != "" || strings.ContainsAny(s, " |\\\"'<>") {
		return nil, fmt.Errorf("not a URL with a host")
	}
	u.Scheme = strings.ToLower(u.Scheme)
	return u, nil
}
