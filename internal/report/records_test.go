package report

import (
	"math"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// start is the start of all curves.
var start = time.Date(2026, 5, 4, 11, 59, 58, 250e6, time.UTC)

func pointer[T any](v T) *T { return &v }

func at(seconds float64) time.Time {
	return start.Add(time.Duration(math.Round(seconds*1e3)) * time.Millisecond)
}

// scenarioRun is a job on a machine whose zones have known powers.
type scenarioRun struct {
	zones    []energy.CurveZone
	watts    func(zone int, second float64) (float64, bool) // false: not read
	unread   func(second float64) bool                      // whether no zone is read
	from, to float64                                        // energy window, s
	end      float64                                        // end of the recording, s
	step     float64                                        // s
	idle     float64                                        // W; 0: no baseline
	own      float64                                        // fraction of net used by the job's processes
	share    float64                                        // the job's share of the machine's energy
	relative float64                                        // relative error bound
}

// curve returns the power in the middle of each step.
func (c *scenarioRun) curve() energy.Curve {
	curve := energy.Curve{Start: start, Zones: c.zones}
	for t := 0.0; t < c.end-c.step/2; t += c.step {
		if c.unread != nil && c.unread(t+c.step/2) {
			continue
		}
		p := energy.CurvePoint{From: int64(math.Round(t * 1e3)), To: int64(math.Round((t + c.step) * 1e3))}
		complete, sum := true, 0.0
		for i := range c.zones {
			w, ok := c.watts(i, t+c.step/2)
			if !ok {
				p.Zones = append(p.Zones, nil)
				complete = complete && !c.zones[i].Counted
				continue
			}
			e := energy.Microjoules(math.Round(w * c.step * 1e6))
			p.Zones = append(p.Zones, &e)
			if c.zones[i].Counted {
				sum += float64(e)
			}
		}
		if complete && c.idle > 0 && t >= c.from && t < c.to {
			idle := min(sum, c.idle*c.step*1e6)
			job := math.Round((sum - idle) * c.own)
			p.Idle, p.Job = pointer(energy.Microjoules(idle)), pointer(energy.Microjoules(job))
			p.Rest = pointer(energy.Microjoules(sum) - *p.Idle - *p.Job)
		}
		curve.Points = append(curve.Points, p)
	}
	return curve
}

// account returns the account of the curve.
func (c *scenarioRun) account(total energy.Figure) *energy.Account {
	curve := c.curve()
	a := &energy.Account{Start: at(c.from), End: at(c.to), Domains: map[energy.Domain]energy.Breakdown{}, ShareMethod: "alone"}
	figure := func(joules float64, method string) energy.Figure {
		f := total
		f.Energy, f.ErrorBound, f.Method = pointer(energy.Joules(math.Round(joules*1e6)/1e6)), pointer(energy.Joules(joules*c.relative)), method
		return f
	}
	var machine, power float64
	byDomain := map[energy.Domain]float64{}
	for i, z := range c.zones {
		var sum, read float64
		for _, p := range curve.Points {
			if p.Zones[i] != nil && p.From >= int64(c.from*1e3) && p.To <= int64(c.to*1e3) {
				sum += float64(p.Zones[i].Joules())
				read += c.step
			}
		}
		a.Zones = append(a.Zones, energy.ZoneFigure{ID: z.ID, Name: z.Name, Domain: z.Domain, Counted: z.Counted, Figure: figure(sum, z.Method)})
		if z.Counted {
			machine += sum
			power += sum / read
			byDomain[z.Domain] += sum
		}
	}
	split := func(machine, idlePart float64) energy.Breakdown {
		all := machine * c.share
		s := energy.Breakdown{Total: figure(all, total.Method)}
		if c.idle == 0 {
			s.Idle = energy.Figure{Source: energy.Unavailable, Method: "no idle baseline of package-0: the machine has not been idle for long enough"}
			s.Net, s.Job, s.Rest = s.Idle, s.Idle, s.Idle
			return s
		}
		idle := min(all, c.idle*(c.to-c.from)*c.share*idlePart)
		s.Idle, s.Net = figure(idle, "idle baseline × time"), figure(all-idle, "total − idle")
		s.Job, s.Rest = figure((all-idle)*c.own, "net × the job's part of all use"), figure((all-idle)*(1-c.own), "net − job")
		return s
	}
	a.Breakdown, a.Machine = split(machine, 1), figure(machine, total.Method)
	for d, joules := range byDomain {
		a.Domains[d] = split(joules, joules/machine)
	}
	a.MeanPower = pointer(energy.Watts(power * c.share))
	if c.idle > 0 {
		a.Baseline = &energy.Baseline{Power: energy.Watts(c.idle), Spread: energy.Watts(c.idle / 40), LearnedAt: at(-3725), Seconds: 120}
	}
	return a
}

func phasesOf(edges ...float64) []job.PhaseSpan {
	names := []job.Phase{job.PhasePrepare, job.PhaseRun, job.PhaseCheck, job.PhaseQuality, job.PhaseJournal}
	var spans []job.PhaseSpan
	for i := range len(edges) - 1 {
		spans = append(spans, job.PhaseSpan{Phase: names[i], From: at(edges[i]), To: at(edges[i+1])})
	}
	return spans
}

func leaseOf(attempt int) job.Lease {
	return job.Lease{
		Job:    protocol.Job{ID: "7f3a9c52-1d0e-4b6f-9a44-0f6f2f1f8d11", SequenceNumber: 1042, Scenario: "1080p30-h264", RetryCount: attempt - 1, Parameters: protocol.Parameters{"stream_key": "s3cr3t"}},
		NodeID: "node-42", AcquiredAt: at(-1),
	}
}

func recordOf(t testing.TB, e job.Outcome, state job.RecordState, samples *job.Samples) job.Record {
	t.Helper()
	body, err := e.Body()
	if err != nil {
		t.Fatal(err)
	}
	rec := job.Record{
		Lease: e.Lease, State: state, Result: body, AcceptedAt: at(0), StartedAt: e.Encode.Started, FinishedAt: pointer(e.At), Samples: samples,
	}
	if state.Settled() {
		rec.SettledAt = pointer(e.At.Add(420 * time.Millisecond))
	}
	return rec
}

// noise is deterministic noise from -1 to 1.
func noise(seed int, second float64) float64 {
	return math.Sin(second*7.3+float64(seed)) * math.Cos(second*2.1+3*float64(seed))
}

func zone(id, name string, d energy.Domain, counted bool, method string) energy.CurveZone {
	return energy.CurveZone{ID: id, Name: name, Domain: d, Counted: counted, Source: energy.Measured, Method: method}
}

// measured is an encode on two sockets and a GPU. The GPU is not read for 2 s, and nothing is
// read for 1 s.
func measured(t testing.TB, points int) job.Record {
	const end = 32.0
	c := scenarioRun{
		zones: []energy.CurveZone{
			zone("intel-rapl:0", "package-0", energy.DomainCPU, true, "rapl"),
			zone("intel-rapl:0:0", "core", energy.DomainCPU, false, "rapl"),
			zone("intel-rapl:0:1", "dram-0", energy.DomainDRAM, true, "rapl"),
			zone("intel-rapl:1", "package-1", energy.DomainCPU, true, "rapl"),
			zone("intel-rapl:1:1", "dram-1", energy.DomainDRAM, true, "rapl"),
			zone("GPU-6e1f", "NVIDIA L4", energy.DomainGPU, true, "nvml"),
			zone("intel-rapl:2", "psys", energy.DomainPlatform, false, "rapl"),
		},
		from: 2, to: 26, end: end, step: end / float64(points), idle: 96, own: 0.94, share: 1, relative: 0.006,
		unread: func(s float64) bool { return s >= 18 && s < 19 },
	}
	load := func(s float64) float64 {
		switch {
		case s < 0.4, s >= 31.2:
			return 0
		case s < 2:
			return 0.25
		case s < 26:
			return 0.85 + 0.1*noise(1, s)
		case s < 26.4:
			return 0.05
		}
		return 0.6 + 0.05*noise(2, s)
	}
	c.watts = func(zone int, s float64) (float64, bool) {
		l := load(s)
		switch zone {
		case 0:
			return 32 + 118*l + 2*noise(3, s), true
		case 1:
			return 10 + 96*l, true
		case 2:
			return 6 + 9*l, true
		case 3:
			return 30 + 64*l + 2*noise(4, s), true
		case 4:
			return 6 + 4*l, true
		case 5:
			if s >= 9 && s < 11 {
				return 0, false
			}
			if s >= 2 && s < 26 {
				return 58 + 6*noise(5, s), true
			}
			return 17, true
		}
		return 190 + 235*l, true
	}
	account := c.account(energy.Figure{Source: energy.Measured, CoveragePercent: 91.7, Gaps: 3, Method: "rapl: package-0 + dram-0 + package-1 + dram-1; nvml: NVIDIA L4"})
	account.Notes = []string{"NVIDIA L4: energy counter 1402 J, integrated power 1588 J; the error bound covers both"}
	e := job.Outcome{
		Lease: leaseOf(2),
		Encode: job.Encode{
			Args:    []string{"ffmpeg", "-hide_banner", "-i", "input file.y4m", "-c:v", "libx264", "-preset", "slow", "-b:v", "4500k", "-f", "flv", "rtmp://ingest.example/live/***"},
			Encoder: "libx264", Bitrate: "4500k", Width: 1920, Height: 1080, Started: pointer(at(2)), Exited: pointer(at(26)), ExitCode: pointer(0),
			CPUTime: 771*time.Second + 431*time.Millisecond, Frames: 3600, Dropped: 0, Pixels: 3600 * 1920 * 1080, Media: 2 * time.Minute, SizeBytes: 67_512_044,
			Output: "/var/lib/ffmpeg-agent/outputs/7f3a9c52.mp4", Log: "frame= 3600 fps=150\nmuxing overhead: 0.02%\n", PrepareFor: 2 * time.Second,
			Notes: []string{"preset veryslow was asked for; slow is the slowest this node allows"},
		},
		Energy:  account,
		Quality: job.Quality{VMAF: pointer(94.31), PSNR: pointer(41.52), SSIM: pointer(0.98714)},
		At:      at(31.6),
	}
	return recordOf(t, e, job.RecordSent, &job.Samples{Curve: c.curve(), Phases: phasesOf(0, 2, 26, 26.4, 31.5, 31.6)})
}

// estimated is a short encode on a machine without sensors.
func estimated(t testing.TB) job.Record {
	const method = "estimate (TDP 65 W × (0.3 + 0.7 × use), ±40 %)"
	z := zone("estimate:cpu", "cpu", energy.DomainCPU, true, method)
	z.Source = energy.Estimated
	c := scenarioRun{
		zones: []energy.CurveZone{z}, from: 0.3, to: 3.9, end: 4.6, step: 0.1, idle: 19.5, own: 0.9, share: 1, relative: 0.41,
		watts: func(_ int, s float64) (float64, bool) {
			if s < 0.3 || s > 3.9 {
				return 19.6 + 0.4*noise(1, s), true
			}
			return 58 + 4*noise(2, s), true
		},
	}
	e := job.Outcome{
		Lease: leaseOf(1),
		Encode: job.Encode{
			Encoder: "libx264", Bitrate: "2000k", Width: 1280, Height: 720, Started: pointer(at(0.3)), Exited: pointer(at(3.9)), ExitCode: pointer(0),
			CPUTime: 6900 * time.Millisecond, Frames: 300, Dropped: 2, Pixels: 300 * 1280 * 720, Media: 10 * time.Second, SizeBytes: 2_511_904,
			Input: "/media/a.mov", Renditions: []job.Rendition{
				{Encoder: "libx264", Width: 1280, Height: 720, Frames: 300, SizeBytes: 2_011_904, Seconds: 10, BitrateKbps: 1609.523, Quality: &job.Quality{PSNR: pointer(41.25)}},
				{Encoder: "libx264", Width: 640, Height: 360, Frames: 300, SizeBytes: 500_000, Seconds: 10, BitrateKbps: 400},
			},
			Fetch: &job.Fetch{Started: at(0), Took: job.Seconds(250 * time.Millisecond), Done: true, Bytes: 48_211_904, Total: 48_211_904, Resumed: 3},
		},
		FetchEnergy: fetchAccount(),
		Energy:      c.account(energy.Figure{Source: energy.Estimated, CoveragePercent: 100, Method: method + ": cpu"}),
		At:          at(4.6),
	}
	return recordOf(t, e, job.RecordResult, &job.Samples{Curve: c.curve(), Phases: phasesOf(0, 0.3, 3.9, 4.0, 4.55, 4.6)})
}

func fetchAccount() *energy.Account {
	total := energy.Figure{Energy: pointer(energy.Joules(4.92)), ErrorBound: pointer(energy.Joules(2)), Source: energy.Estimated, CoveragePercent: 100}
	return &energy.Account{Start: at(0), End: at(0.25), Breakdown: energy.Breakdown{Total: total}, ShareMethod: "alone"}
}

// overlapped is a long job that shared the machine with other jobs.
func overlapped(t testing.TB, points int) job.Record {
	const end = 3 * 3600.0
	c := scenarioRun{
		zones: []energy.CurveZone{
			zone("intel-rapl:0", "package-0", energy.DomainCPU, true, "rapl"),
			zone("intel-rapl:0:2", "dram", energy.DomainDRAM, true, "rapl"),
		},
		from: end / float64(points), to: end - 2*end/float64(points), end: end, step: end / float64(points), idle: 21, own: 0.37, share: 0.38, relative: 0.001,
		watts: func(zone int, s float64) (float64, bool) {
			l := 0.55 + 0.25*noise(7, s/400)
			if zone == 1 {
				return 4 + 5*l, true
			}
			return 24 + 140*l, true
		},
	}
	a := c.account(energy.Figure{Source: energy.Measured, CoveragePercent: 99.98, Method: "rapl: package-0 + dram"})
	a.ShareMethod = "cpu time 98.2 %, equal 1.8 %"
	e := job.Outcome{
		Lease: leaseOf(1),
		Encode: job.Encode{
			Encoder: "libx265", Width: 3840, Height: 2160, Started: pointer(a.Start), Exited: pointer(a.End), ExitCode: pointer(0), CPUTime: 11 * time.Hour,
			Frames: 323_000, Pixels: 323_000 * 3840 * 2160, Media: 3 * time.Hour, SizeBytes: 16_512_044_102,
		},
		Energy: a, At: at(end),
	}
	return recordOf(t, e, job.RecordSent, &job.Samples{Curve: c.curve(), Phases: phasesOf(0, c.from, c.to, c.to+30, end)})
}

// unavailable is a job on a machine without readable sensors and estimates.
func unavailable(t testing.TB) job.Record {
	account := energy.UnknownAccount(at(1), at(13), "intel-rapl:0/energy_uj: permission denied; estimates are disabled (energy.estimate: off)")
	e := job.Outcome{
		Lease:  leaseOf(1),
		Encode: job.Encode{Encoder: "libx264", Width: 1280, Height: 720, Started: pointer(at(1)), Exited: pointer(at(13)), Frames: 1800, Pixels: 1800 * 1280 * 720, Media: time.Minute, SizeBytes: 15_000_000},
		Energy: &account, At: at(14),
	}
	return recordOf(t, e, job.RecordSent, nil)
}

// failed is a job that failed early, without an idle baseline and with a sensor that failed.
func failed(t testing.TB) job.Record {
	c := scenarioRun{
		zones: []energy.CurveZone{zone("intel-rapl:0", "package-0", energy.DomainCPU, true, "rapl")},
		from:  0.5, to: 5, end: 3.6, step: 0.1, share: 1, relative: 0.02,
		watts: func(_ int, s float64) (float64, bool) { return 20 + 11*min(s, 2), true },
	}
	a := c.account(energy.Figure{Source: energy.Measured, CoveragePercent: 68.9, Gaps: 1, Method: "rapl: package-0"})
	e := job.Outcome{
		Lease:   leaseOf(1),
		Failure: &job.Failure{Reason: protocol.ReasonInputError, Message: "FFmpeg ended with status 1: input.mp4: Invalid data found when processing input"},
		Encode: job.Encode{
			Encoder: "libx264", Width: 1280, Height: 720, Started: pointer(at(0.5)), Exited: pointer(at(5)), ExitCode: pointer(1), Frames: 71, Pixels: 71 * 1280 * 720,
			Log: "[mov,mp4 @ 0x55] moov atom not found\n\x1b[31minput.mp4: Invalid data found\x1b[0m when processing input\nConversion failed!\n",
		},
		Energy: a, At: at(5.2),
	}
	return recordOf(t, e, job.RecordDeadLetter, &job.Samples{Curve: c.curve(), Phases: phasesOf(0, 0.5, 5, 5.2)})
}

// refused failed before FFmpeg was started.
func refused(t testing.TB) job.Record {
	e := job.Outcome{Lease: leaseOf(1), Failure: &job.Failure{Reason: protocol.ReasonUserError, Message: "bitrate: fast is none"}, At: at(1)}
	return recordOf(t, e, job.RecordSuperseded, nil)
}

func running() job.Record {
	return job.Record{Lease: leaseOf(1), State: job.RecordRunning, AcceptedAt: at(0), StartedAt: pointer(at(1))}
}

func returned() job.Record {
	return job.Record{Lease: leaseOf(1), State: job.RecordSent, Release: true, AcceptedAt: at(0), SettledAt: pointer(at(1))}
}

// allRecords returns attempts by the name of their golden files. The last one is selected.
func allRecords(t testing.TB) map[string][]job.Record {
	return map[string][]job.Record{
		"measured":    {refused(t), measured(t, 64)},
		"estimated":   {estimated(t)},
		"overlapped":  {overlapped(t, 40)},
		"unavailable": {unavailable(t)},
		"failed":      {failed(t)},
		"refused":     {refused(t)},
		"running":     {running()},
		"returned":    {returned()},
	}
}
