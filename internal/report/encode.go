package report

import (
	"cmp"
	"fmt"
	"strings"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func speedOf(r *result) fact {
	f := fact{Name: "speed", Value: unknown}
	wall, wallOK := r.number(protocol.MetricDuration)
	media, mediaOK := r.number(protocol.MetricMediaDuration)
	if wallOK && mediaOK && wall > 0 && media > 0 {
		f.Value, f.Exact, f.Note = fixed(media/wall, 2)+" ×", exact(media/wall), "seconds of video per second"
	}
	return f
}

// fetchOf returns the size, time and energy of fetching the input; nil if it was not fetched.
func fetchOf(r *result) []fact {
	bytes, ok := r.count("fetch_bytes")
	if !ok {
		return nil
	}
	f := fact{Name: "input fetched", Value: byteSize(bytes), Exact: exact(bytes)}
	if seconds, ok := r.number("fetch_seconds"); ok {
		f.Value += " in " + fixed(seconds, 3) + " s"
	}
	if resumed, ok := r.number("fetch_resumed"); ok {
		f.Value += fmt.Sprintf(", resumed %.0f times", resumed)
	}
	cost := fact{Name: "energy of fetching", Value: unknown, Note: "not part of the job's energy"}
	if joules, ok := r.count("fetch_joules"); ok {
		cost.Value, cost.Exact = fixed(joules, 1)+" J, "+r.text("fetch_energy_source"), exact(joules)
	}
	return []fact{f, cost}
}

func (p *page) addEncode(r *result) {
	if len(r.Metrics) == 0 {
		return
	}
	quantity := func(name, key, unit string, decimals int) fact {
		f := fact{Name: name, Value: unknown}
		if v, ok := r.number(key); ok {
			f.Value, f.Exact = strings.TrimSpace(fixed(v, decimals)+" "+unit), exact(v)
		}
		return f
	}
	text := func(name, key string) fact { return fact{Name: name, Value: cmp.Or(r.text(key), unknown)} }
	size := fact{Name: "output size", Value: unknown}
	if v, ok := r.number("output_bytes"); ok {
		size.Value, size.Exact = byteSize(v), exact(v)
	}
	count := func(name, key string) fact {
		f := fact{Name: name, Value: unknown}
		if v, ok := r.count(key); ok {
			f.Value, f.Exact = fixed(v, 0), exact(v)
		}
		return f
	}
	p.Encode = []fact{
		text("encoder", "encoder"),
		text("resolution", protocol.MetricResolution),
		text("requested bitrate", protocol.MetricBitrate),
		quantity("frames", protocol.MetricFrames, "", 0),
		count("dropped frames", protocol.MetricDroppedFrames),
		count("duplicated frames", "duplicated_frames"),
		count("decode errors", "decode_errors"),
		quantity("average fps", protocol.MetricFPS, "", 2),
		quantity("encoding time", protocol.MetricDuration, "s", 3),
		quantity("video duration", protocol.MetricMediaDuration, "s", 3),
		speedOf(r),
		quantity("CPU time", "cpu_seconds", "s", 3),
		quantity("pixels encoded", protocol.MetricPixelsProcessed, "", 0),
		size,
		{Name: "input", Value: cmp.Or(r.text("input"), unknown)},
		{Name: "output", Value: cmp.Or(r.text("output"), "not kept")},
		quantity("preparation time", "prepare_seconds", "s", 3),
	}
	if missing := quantity("missing input", "input_missing_seconds", "s", 3); missing.Value != unknown {
		p.Encode = append(p.Encode, missing)
	}
	p.Encode = append(p.Encode, fetchOf(r)...)
	if v, ok := r.count("exit_code"); ok {
		p.Encode = append(p.Encode, fact{Name: "exit status", Value: fixed(v, 0), Exact: exact(v)})
	}
	if signal := r.text("signal"); signal != "" {
		p.Encode = append(p.Encode, fact{Name: "killed by signal", Value: signal})
	}
	p.Quality = quality(&r.Quality)
	p.Renditions = renditions(r.Ladder)
	args, _ := r.Metrics["command"].([]any)
	for i, arg := range args {
		if i == maxArguments {
			p.Command = append(p.Command, "…")
			break
		}
		p.Command = append(p.Command, shellQuote(sanitize(fmt.Sprint(arg))))
	}
}

// shellQuote quotes an argument for a shell if necessary.
func shellQuote(arg string) string {
	if arg == "" || strings.ContainsAny(arg, " '\"\\$&;|<>()*?[]#~`!{}") {
		return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return arg
}

// quality returns the measured quality; nil if the job did not request any.
func quality(q *job.Quality) []fact {
	var facts []fact
	for _, m := range []struct {
		name, note string
		value      *float64
		decimals   int
	}{
		{"VMAF", "0 to 100", q.VMAF, 2},
		{"PSNR", "dB, average over planes", q.PSNR, 2},
		{"SSIM", "0 to 1", q.SSIM, 4},
	} {
		if m.value != nil {
			facts = append(facts, fact{Name: m.name, Value: fixed(*m.value, m.decimals), Exact: exact(*m.value), Note: m.note})
		}
	}
	if q.Note != "" {
		name := "missing"
		if len(facts) > 0 {
			name = "note"
		}
		facts = append(facts, fact{Name: name, Value: sanitize(q.Note)})
	}
	return facts
}

// rendition is a row of the table of a ladder's outputs.
type rendition struct{ Resolution, Encoder, Frames, Size, Bitrate, Quality, Output string }

const maxRenditions = 64

func renditions(ladder []job.Rendition) []rendition {
	var rows []rendition
	for i := range ladder[:min(len(ladder), maxRenditions)] {
		o := &ladder[i]
		row := rendition{Resolution: fmt.Sprintf("%dx%d", o.Width, o.Height), Encoder: sanitize(o.Encoder), Frames: fixed(float64(o.Frames), 0),
			Size: unknown, Bitrate: unknown, Quality: unknown, Output: cmp.Or(sanitize(o.Output), "not kept")}
		if o.SizeBytes > 0 {
			row.Size = byteSize(float64(o.SizeBytes))
			row.Bitrate = fixed(o.BitrateKbps, 0) + hardSpace + "kbit/s"
		}
		switch q := o.Quality; {
		case q == nil:
			row.Quality = "not asked for"
		case q.VMAF != nil:
			row.Quality = "VMAF " + fixed(*q.VMAF, 2)
		case q.PSNR != nil:
			row.Quality = "PSNR " + fixed(*q.PSNR, 2) + hardSpace + "dB"
		case q.SSIM != nil:
			row.Quality = "SSIM " + fixed(*q.SSIM, 4)
		}
		rows = append(rows, row)
	}
	return rows
}

// addLog adds the end of FFmpeg's log.
func (p *page) addLog(r *result) {
	text := strings.TrimSpace(r.Logs)
	if text == "" {
		return
	}
	lines := strings.FieldsFunc(text, func(c rune) bool { return c == '\n' || c == '\r' })
	if extra := len(lines) - maxLogLines; extra > 0 {
		lines, p.LogCut = lines[extra:], true
	}
	for _, line := range lines {
		p.Log = append(p.Log, sanitizeTo(line, maxLogLine))
	}
	p.LogOpen = r.Status != protocol.StatusCompleted
}
