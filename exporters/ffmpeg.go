package exporters

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// EncodeTotals add up what encodes made.
type EncodeTotals struct {
	Frames  uint64
	Dropped uint64
	Media   time.Duration // length of the media made
}

func (t EncodeTotals) atLeast(o EncodeTotals) EncodeTotals {
	return EncodeTotals{max(t.Frames, o.Frames), max(t.Dropped, o.Dropped), max(t.Media, o.Media)}
}

// ffmpegCollector exports the running encodes. What an encode is like now stands
// under its slot and goes away with it; a job's id is no label, for there is no end
// of those. What encodes made are counters of all of them together, those that ended
// included.
type ffmpegCollector struct {
	status func() messages.Status
	ended  func() EncodeTotals

	totals  EncodeTotals // the highest told so far
	running map[job.Key]*encode

	up, active, streams, uptime   *prometheus.Desc
	frames, dropped, media        *prometheus.Desc
	info, progress, processing    *prometheus.Desc
	fps, speed, load, latency     *prometheus.Desc
	averageBitrate, recentBitrate *prometheus.Desc
	power, energy                 *prometheus.Desc
}

// encode is what the collector remembers of a running one.
type encode struct {
	slot   int
	points []job.Progress // to tell the present bitrate by, oldest first
}

// NewFFmpeg collects for port 9506 from the agent's status. ended adds up the encodes
// that ended since the agent began, however they did: one is to be added to it as soon
// as it has left Status.Jobs, not before. The counters never go back; while an encode
// is in neither, they stand still.
func NewFFmpeg(status func() messages.Status, ended func() EncodeTotals) prometheus.Collector {
	var d describer
	c := &ffmpegCollector{
		status: status, ended: ended,
		running: map[job.Key]*encode{},

		up:      d.desc("ffmpeg_exporter_up", "Whether the exporter works."),
		active:  d.desc("ffmpeg_stream_active", "Whether an encode runs."),
		streams: d.desc("ffmpeg_streams", "Encodes that run."),
		uptime:  d.desc("ffmpeg_uptime_seconds", "Time since the agent started."),

		frames:  d.desc("ffmpeg_frames_total", "Frames encoded, of all jobs since the agent started."),
		dropped: d.desc("ffmpeg_dropped_frames_total", "Frames that FFmpeg dropped, of all jobs since the agent started."),
		media:   d.desc("ffmpeg_media_seconds_total", "Length of the media made, of all jobs since the agent started."),

		info:       d.desc("ffmpeg_encode_info", "A running encode: its encoder.", "slot", "encoder"),
		progress:   d.desc("ffmpeg_encode_progress_ratio", "How much of the media asked for is made, 0 to 1.", "slot"),
		processing: d.desc("ffmpeg_processing_time_seconds", "Wall time since FFmpeg was started.", "slot"),
		fps:        d.desc("ffmpeg_fps", "Frames encoded a second, as FFmpeg reports it.", "slot"),
		speed:      d.desc("ffmpeg_speed", "Media seconds made a second; 1 is real time.", "slot"),
		load:       d.desc("ffmpeg_encoder_load_percent", "Share of real time that the encode takes, 100 divided by its speed, at most 100; at 100 it does not keep up with a live source.", "slot"),
		latency:    d.desc("ffmpeg_encode_latency_ms", "Mean wall time of a frame in milliseconds, 1000 divided by the frames a second.", "slot"),

		averageBitrate: d.desc("ffmpeg_avg_bitrate_kbps", "Bitrate of all the output so far in kbit per second of media.", "slot"),
		recentBitrate:  d.desc("ffmpeg_current_bitrate_kbps", "Bitrate of the output's last seconds in kbit per second of media.", "slot"),

		power:  d.desc("ffmpeg_encode_power_watts", "Power of the machine that falls to the encode, measured or estimated.", "slot", "source"),
		energy: d.desc("ffmpeg_encode_energy_joules", "Energy of the machine that has fallen to the running encode so far, measured or estimated.", "slot", "source"),
	}
	return newCollector("ffmpeg", d.all, c.update)
}

func (c *ffmpegCollector) update(m *metrics) {
	ended := c.ended() // before the status: an encode in between is in neither, not in both
	s := c.status()
	c.remember(s.Jobs)

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

// remember gives each running encode a slot, the lowest that is free, and forgets the
// others.
func (c *ffmpegCollector) remember(jobs []messages.JobStatus) {
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

// encoding: FFmpeg runs on the job itself, not on what comes before or after.
func encoding(j *messages.JobStatus) bool { return j.Phase == job.PhaseRun && j.Started != nil }

func (c *ffmpegCollector) updateTotals(m *metrics, ended EncodeTotals, jobs []messages.JobStatus) {
	now := ended
	for _, j := range jobs {
		now.Frames += uint64(max(j.Progress.Frames, 0))
		now.Dropped += uint64(max(j.Progress.Dropped, 0))
		now.Media += max(j.Progress.OutTime, 0)
	}
	c.totals = c.totals.atLeast(now)
	m.counter(c.frames, float64(c.totals.Frames))
	m.counter(c.dropped, float64(c.totals.Dropped))
	m.counter(c.media, c.totals.Media.Seconds())
}

// updateEncode exports what is known of a running encode; FFmpeg takes a second to
// know its pace.
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
	if kbps, ok := e.bitrate(p); ok {
		m.gauge(c.recentBitrate, kbps, slot)
	}
	if j.Power != nil {
		m.gauge(c.power, float64(*j.Power), slot, string(j.Source))
	}
	if j.Energy != nil {
		m.gauge(c.energy, float64(*j.Energy), slot, string(j.Source))
	}
}

// recent is the time that the present bitrate is taken over, where scrapes come often
// enough; with rarer ones, it is the time since the last.
const recent = 10 * time.Second

// bitrate of what was written between the latest progress and one about recent before
// it, in kbit per second of media; false while FFmpeg does not know a size. Scrapers at
// different intervals get the same as long as the rarest comes within recent.
func (e *encode) bitrate(latest job.Progress) (float64, bool) {
	if latest.SizeBytes <= 0 {
		return 0, false
	}
	if latest.At.After(e.points[len(e.points)-1].At) {
		e.points = append(e.points, latest)
	}
	// The newest point that is at least recent old starts the stretch.
	for len(e.points) > 2 && latest.At.Sub(e.points[1].At) >= recent {
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
