package report

import (
	"fmt"
	"strings"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func speedOf(r *result) fact {
	f := fact{Name: "speed", Value: unknown}
	wall, known := r.number(protocol.MetricDuration)
	media, made := r.number(protocol.MetricMediaDuration)
	if known && made && wall > 0 && media > 0 {
		f.Value, f.Exact, f.Note = fixed(media/wall, 2)+" ×", exact(media/wall), "seconds of video per second"
	}
	return f
}

func (p *page) showEncode(r *result) {
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
	named := func(name, key string) fact { return fact{Name: name, Value: or(r.text(key), unknown)} }
	size := fact{Name: "size made", Value: unknown}
	if v, ok := r.number("output_bytes"); ok {
		size.Value, size.Exact = amount(v), exact(v)
	}
	dropped := fact{Name: "frames dropped", Value: unknown}
	if v, ok := r.count(protocol.MetricDroppedFrames); ok {
		dropped.Value, dropped.Exact = fixed(v, 0), exact(v)
	}
	p.Encode = []fact{
		named("encoder", "encoder"),
		named("resolution", protocol.MetricResolution),
		named("bitrate", protocol.MetricBitrate),
		quantity("frames", protocol.MetricFrames, "", 0),
		dropped,
		quantity("frames a second, mean", protocol.MetricFPS, "", 2),
		quantity("FFmpeg ran", protocol.MetricDuration, "s", 3),
		quantity("video made", protocol.MetricMediaDuration, "s", 3),
		speedOf(r),
		quantity("CPU time", "cpu_seconds", "s", 3),
		quantity("pixels encoded", protocol.MetricPixelsProcessed, "", 0),
		size,
		{Name: "output", Value: or(r.text("output"), "not kept")},
		quantity("preparing, not in the energy", "prepare_seconds", "s", 3),
	}
	if v, ok := r.count("exit_code"); ok {
		p.Encode = append(p.Encode, fact{Name: "exit status", Value: fixed(v, 0), Exact: exact(v)})
	}
	if signal := r.text("signal"); signal != "" {
		p.Encode = append(p.Encode, fact{Name: "ended by signal", Value: signal})
	}
	p.Quality = quality(&r.Quality)
	args, _ := r.Metrics["command"].([]any)
	for i, arg := range args {
		if i == mostArguments {
			p.Command = append(p.Command, "…")
			break
		}
		p.Command = append(p.Command, quoted(plain(fmt.Sprint(arg))))
	}
}

// quoted is an argument as one would type it.
func quoted(arg string) string {
	if arg == "" || strings.ContainsAny(arg, " '\"\\$&;|<>()*?[]#~`!{}") {
		return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return arg
}

// quality is empty where none was asked for.
func quality(q *job.Quality) []fact {
	var facts []fact
	for _, m := range []struct {
		name, note string
		value      *float64
		decimals   int
	}{
		{"VMAF", "0 to 100, as people see it", q.VMAF, 2},
		{"PSNR", "dB, average over planes", q.PSNR, 2},
		{"SSIM", "0 to 1, likeness of structure", q.SSIM, 4},
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
		facts = append(facts, fact{Name: name, Value: plain(q.Note)})
	}
	return facts
}

// showLog shows the end of FFmpeg's log.
func (p *page) showLog(r *result) {
	text := strings.TrimSpace(r.Logs)
	if text == "" {
		return
	}
	lines := strings.FieldsFunc(text, func(c rune) bool { return c == '\n' || c == '\r' })
	if extra := len(lines) - mostLogLines; extra > 0 {
		lines, p.LogCut = lines[extra:], true
	}
	for _, line := range lines {
		p.Log = append(p.Log, cut(line, mostLogLine))
	}
	p.LogOpen = r.Status != protocol.StatusCompleted
}
