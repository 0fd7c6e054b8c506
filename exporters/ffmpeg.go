package exporters

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// EncodeTotals are sums over all encodes.
type EncodeTotals struct {
	Frames  uint64        // frames encoded
	Dropped uint64        // frames dropped by FFmpeg
	Media   time.Duration // duration of the output media
}

func (t EncodeTotals) atLeast(o EncodeTotals) EncodeTotals {
	return EncodeTotals{max(t.Frames, o.Frames), max(t.Dropped, o.Dropped), max(t.Media, o.Media)}
}

// ffmpegCollector exports the running encodes. Gauges are labeled with the encode's slot
// and disappear when it ends. Job IDs are not used as labels, because their number is
// unbounded. Counters are totals over all encodes, including ended ones.
type ffmpegCollector struct {
	status func() messages.Status
	ended  func() EncodeTotals

	totals  EncodeTotals // highest values exported so far
	running map[job.Key]*encode

	up, active, streams, uptime   *prometheus.Desc
	frames, dropped, media        *prometheus.Desc
	info, progress, processing    *prometheus.Desc
	fps, speed, load, latency     *prometheus.Desc
	averageBitrate, recentBitrate *prometheus.Desc
	power, energy                 *prometheus.Desc
}

// encode is a running encode.
type encode struct {
	slot   int
	points []job.Progress // oldest first, for the current bitrate
}

// NewFFmpeg returns the collector of port 9506. ended returns the totals of all encodes
// that have ended since the agent started, whatever their outcome. An encode must be added
// to ended only after it has left Status.Jobs, or it would be counted twice; while it is
// in neither, the counters keep their value.
func NewFFmpeg(status func() messages.Status, ended func() EncodeTotals) prometheus.Collector {
	var d describer
	c := &ffmpegCollector{
		status: status, ended: ended,
		running: map[job.Key]*encode{},

		up:      d.desc("ffmpeg_exporter_up", "Whether the exporter is working."),
		active:  d.desc("ffmpeg_stream_active", "Whether an encode is running."),
		streams: d.desc("ffmpeg_streams", "Number of running encodes."),
		uptime:  d.desc("ffmpeg_uptime_seconds", "Time since the agent started."),

		frames:  d.desc("ffmpeg_frames_total", "Frames encoded by all jobs since the agent started."),
		dropped: d.desc("ffmpeg_dropped_frames_total", "Frames dropped by FFmpeg in all jobs since the agent started."),
		media:   d.desc("ffmpeg_media_seconds_total", "Duration of the media encoded by all jobs since the agent started."),

		info:       d.desc("ffmpeg_encode_info", "A running encode, labeled with its encoder.", "slot", "encoder"),
		progress:   d.desc("ffmpeg_encode_progress_ratio", "Progress of the encode, from 0 to 1.", "slot"),
		processing: d.desc("ffmpeg_processing_time_seconds", "Wall time since FFmpeg started.", "slot"),
		fps:        d.desc("ffmpeg_fps", "Frames encoded per second, as reported by FFmpeg.", "slot"),
		speed:      d.desc("ffmpeg_speed", "Seconds of media encoded per second; 1 is real time.", "slot"),
		load:       d.desc("ffmpeg_encoder_load_percent", "Encoding time relative to real time, 100 / speed, capped at 100; at 100 the encode cannot keep up with a live source.", "slot"),
		latency:    d.desc("ffmpeg_encode_latency_ms", "Average encoding time per frame in milliseconds, 1000 / fps.", "slot"),

		averageBitrate: d.desc("ffmpeg_avg_bitrate_kbps", "Average bitrate of the output so far in kbit per second of media.", "slot"),
		recentBitrate:  d.desc("ffmpeg_current_bitrate_kbps", "Bitrate of the most recent seconds of output in kbit per second of media.", "slot"),

		power:  d.desc("ffmpeg_encode_power_watts", "Machine power attributed to the encode, measured or estimated.", "slot", "source"),
		energy: d.desc("ffmpeg_encode_energy_joules", "Machine energy attributed to the running encode so far, measured or estimated.", "slot", "source"),
	}
	return newCollector("ffmpeg", d.all, c.update)
}

func (c *ffmpegCollector) update(m *metrics) {
	ended := c.ended() // before status, so that an encode that ends in between is not counted twice
	s := c.status()
	c.assignSlots(s.Jobs)

	m.gauge(c.up, 1)
	m.flag(c.active, len(c.running) > 0)
	m.gauge(c.streams, float64(len(c.running)))
	if !s.StartedAt.IsZero() {
		m.gauge(c.uptime, s.At.Sub(s.StartedAt).Seconds())
	}
	c.updateTotals(m, ended, s.Jobs)
	for i := range s.Jobs {
		if e, ok := c.running[s.Jobs[i].Key]; ok {
			c.updateEncode(m, &s.Jobs[i], e, s.At)
		}
	}
}

// assignSlots gives each new encode the lowest free slot and drops the ended ones.
func (c *ffmpegCollector) assignSlots(jobs []messages.JobStatus) {
	before := c.running
	c.running = map[job.Key]*encode{}
	var taken []int
	for _, j := range jobs {
		if e, ok := before[j.Key]; ok && encoding(&j) {
			c.running[j.Key] = e
			taken = append(taken, e.slot)
		}
	}
	for _, j := range jobs {
		if _, ok := c.running[j.Key]; ok || !encoding(&j) {
			continue
		}
		slot := 0
		for slices.Contains(taken, slot) {
			slot++
		}
		taken = append(taken, slot)
		c.running[j.Key] = &encode{slot: slot, points: []job.Progress{{At: *j.Started}}}
	}
}

// encoding reports whether FFmpeg is running the job's encode, as opposed to preparation
// or checks.
func encoding(j *messages.JobStatus) bool { return j.Phase == job.PhaseRun && j.Started != nil }

func (c *ffmpegCollector) updateTotals(m *metrics, ended EncodeTotals, jobs []messages.JobStatus) {
	now := ended
	for _, j := range jobs {
		now.Frames += uint64(max(j.Progress.Frames, 0))
		now.Dropped += uint64(max(j.Progress.Dropped, 0))
		now.Media += time.Duration(max(j.Progress.OutTime, 0))
	}
	c.totals = c.totals.atLeast(now)
	m.counter(c.frames, float64(c.totals.Frames))
	m.counter(c.dropped, float64(c.totals.Dropped))
	m.counter(c.media, c.totals.Media.Seconds())
}

// updateEncode exports the known values of a running encode. FFmpeg reports fps and speed
// only after about a second.
func (c *ffmpegCollector) updateEncode(m *metrics, j *messages.JobStatus, e *encode, now time.Time) {
	slot := strconv.Itoa(e.slot)
	p := j.Progress
	if j.Encoder != "" {
		m.gauge(c.info, 1, slot, j.Encoder)
	}
	m.gauge(c.processing, max(now.Sub(*j.Started), 0).Seconds(), slot)
	if p.Percent > 0 {
		m.gauge(c.progress, p.Percent/100, slot)
	}
	if p.FPS > 0 {
		m.gauge(c.fps, p.FPS, slot)
		m.gauge(c.latency, 1000/p.FPS, slot)
	}
	if p.Speed > 0 {
		m.gauge(c.speed, p.Speed, slot)
		m.gauge(c.load, min(100/p.Speed, 100), slot)
	}
	if p.BitrateKbps > 0 {
		m.gauge(c.averageBitrate, p.BitrateKbps, slot)
	}
	if kbps, ok := e.recentBitrate(p); ok {
		m.gauge(c.recentBitrate, kbps, slot)
	}
	if j.Power != nil {
		m.gauge(c.power, float64(*j.Power), slot, string(j.Source))
	}
	if j.Energy != nil {
		m.gauge(c.energy, float64(*j.Energy), slot, string(j.Source))
	}
}

// bitrateWindow is the minimum time that the current bitrate is averaged over. With a
// longer scrape interval, it is averaged over the time since the last scrape.
const bitrateWindow = 10 * time.Second

// recentBitrate returns the bitrate since a progress report about bitrateWindow ago, in
// kbit per second of media. It is unknown until FFmpeg reports a size. Scrapers with
// different intervals get the same value as long as one of them scrapes at least every
// bitrateWindow.
func (e *encode) recentBitrate(latest job.Progress) (kbps float64, ok bool) {
	if latest.SizeBytes <= 0 {
		return 0, false
	}
	if latest.At.After(e.points[len(e.points)-1].At) {
		e.points = append(e.points, latest)
	}
	// The window starts at the newest point that is at least bitrateWindow old.
	for len(e.points) > 2 && latest.At.Sub(e.points[1].At) >= bitrateWindow {
		e.points = e.points[1:]
	}
	first := e.points[0]
	media := (latest.OutTime - first.OutTime).Seconds()
	size := latest.SizeBytes - first.SizeBytes
	if media <= 0 || size < 0 {
		return 0, false
	}
	return float64(size) * 8 / 1000 / media, true
}
