package job

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/protocol"
)

// Outcome is what an attempt came to. It makes the result that is sent to the master.
type Outcome struct {
	Lease    Lease
	Failure  *Failure // why it failed; nil otherwise
	Canceled bool     // at the master; takes precedence over Failure
	Requeued bool     // the master has re-queued the job, and takes a completed result only
	Encode   Encode
	Energy   *energy.Account // nil when FFmpeg never started
	// FetchEnergy is that of fetching the input, which Energy does not contain; nil when
	// nothing was fetched.
	FetchEnergy *energy.Account
	Quality     Quality
	At          time.Time
}

// Status is the status that the result reports.
func (o *Outcome) Status() protocol.Status {
	switch {
	case o.Canceled:
		return protocol.StatusCanceled
	case o.Failure != nil:
		return protocol.StatusFailed
	}
	return protocol.StatusCompleted
}

// Result returns what is sent to the master. Unknown figures are absent, never 0.
func (o *Outcome) Result() protocol.JobResult {
	key := o.Lease.Key()
	r := protocol.JobResult{
		JobID:          key.JobID,
		NodeID:         o.Lease.NodeID,
		Attempt:        key.Attempt,
		Status:         o.Status(),
		Progress:       o.progress(),
		Metrics:        o.metrics(),
		AnalyzerOutput: map[string]any{},
		Logs:           safetext.Lines(o.Encode.Log),
		CompletedAt:    o.At.UTC(),
		VMAFScore:      finite(o.Quality.VMAF),
	}
	if o.Failure != nil && !o.Canceled {
		r.Error, r.FailureReason = safetext.Line(o.Failure.Message), o.Failure.Reason
	}
	if o.Energy != nil {
		scores := energy.Score(*o.Energy, o.work())
		r.EnergyJoules = finite(scores.Joules)
		r.EfficiencyScore = finite(scores.PixelsPerJoule)
		r.QoEScore = finite(scores.QualityWeightedPixelsPerJoule)
		r.AnalyzerOutput["energy"] = o.Energy
		r.AnalyzerOutput["scores"] = scores
	}
	if o.FetchEnergy != nil {
		r.AnalyzerOutput["fetch_energy"] = o.FetchEnergy
	}
	if len(o.Encode.Notes) > 0 {
		r.AnalyzerOutput["notes"] = lines(o.Encode.Notes)
	}
	if len(o.Encode.Renditions) > 1 {
		r.AnalyzerOutput["renditions"] = o.Encode.Renditions
	}
	if o.Quality != (Quality{}) {
		r.AnalyzerOutput["quality"] = o.Quality
	}
	return r
}

// Body returns the result as it is journalled and sent, byte for byte.
func (o *Outcome) Body() ([]byte, error) {
	r := o.Result()
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the result of job %s: %w", r.JobID, err)
	}
	return body, nil
}

func (o *Outcome) progress() int {
	if o.Status() == protocol.StatusCompleted {
		return 100
	}
	return int(math.Max(0, math.Min(100, o.Encode.Progress.Percent)))
}

func (o *Outcome) work() energy.Work {
	w := energy.Work{
		Frames:        o.Encode.Frames,
		Pixels:        o.Encode.Pixels,
		MediaDuration: o.Encode.Media,
		WallTime:      o.Encode.Wall(),
		OutputBits:    o.Encode.SizeBytes * 8,
	}
	if !o.Quality.Partial { // else it is not of all these pixels
		w.VMAF = o.Quality.VMAF
	}
	return w
}

func (o *Outcome) metrics() map[string]any {
	enc := &o.Encode
	m := map[string]any{
		protocol.MetricScenario:        enc.Scenario,
		protocol.MetricEngine:          "ffmpeg",
		protocol.MetricFrames:          enc.Frames,
		protocol.MetricDroppedFrames:   enc.Dropped,
		"duplicated_frames":            enc.Duplicated,
		"decode_errors":                enc.DecodeErrors,
		protocol.MetricPixelsProcessed: enc.Pixels,
		protocol.MetricFPS:             round(enc.MeanFPS(), 3),
		protocol.MetricDuration:        round(enc.Wall().Seconds(), 6),
		protocol.MetricMediaDuration:   round(enc.Media.Seconds(), 6),
		"cpu_seconds":                  round(enc.CPUTime.Seconds(), 6),
		"prepare_seconds":              round(enc.PrepareFor.Seconds(), 6),
	}
	if enc.InputMissing != nil {
		m["input_missing_seconds"] = round(enc.InputMissing.Seconds(), 6)
	}
	if enc.Scenario == "" {
		m[protocol.MetricScenario] = o.Lease.Job.Scenario
	}
	if enc.InputBytes > 0 {
		m["input_bytes"] = enc.InputBytes
	}
	if enc.SizeBytes > 0 {
		m["output_bytes"] = enc.SizeBytes
	}
	if f := enc.Fetch; f != nil {
		m["fetch_bytes"], m["fetch_seconds"], m["fetch_resumed"] = f.Bytes, round(f.Took.Seconds(), 6), f.Resumed
	}
	if cost := o.FetchEnergy; cost != nil {
		m["fetch_energy_source"] = string(cost.Total.Source)
		if cost.Total.Energy != nil {
			m["fetch_joules"] = round(float64(*cost.Total.Energy), 6)
		}
	}
	switch {
	case enc.Bitrate != "":
		m[protocol.MetricBitrate] = enc.Bitrate
	case enc.SizeBytes > 0 && enc.Media > 0:
		// A job with crf names no bitrate: that of the output.
		m[protocol.MetricBitrate] = fmt.Sprintf("%.0fk", float64(enc.SizeBytes)*8/1000/enc.Media.Seconds())
	}
	if enc.Width > 0 && enc.Height > 0 {
		m[protocol.MetricResolution] = fmt.Sprintf("%dx%d", enc.Width, enc.Height)
	}
	if enc.Encoder != "" {
		m["encoder"] = enc.Encoder
	}
	if enc.Input != "" {
		m["input"] = enc.Input
	}
	if enc.Output != "" {
		m["output"] = enc.Output
	}
	if o.Energy != nil {
		m["energy_source"] = string(o.Energy.Total.Source) // of energy_joules, which masters show without it
	}
	if enc.ExitCode != nil {
		m["exit_code"] = *enc.ExitCode
	}
	if enc.Signal != "" {
		m["signal"] = enc.Signal
	}
	if len(enc.Args) > 0 {
		m["command"] = lines(enc.Args)
	}
	return m
}

// lines makes each text one line of printable characters.
func lines(texts []string) []string {
	clean := make([]string, len(texts))
	for i, text := range texts {
		clean[i] = safetext.Line(text)
	}
	return clean
}

func round(f float64, digits int) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	p := math.Pow10(digits)
	return math.Round(f*p) / p
}

func finite(f *float64) *float64 {
	if f == nil || math.IsNaN(*f) || math.IsInf(*f, 0) {
		return nil
	}
	return f
}

// Failure is why an attempt failed: the master's failure reason, and a sentence for people.
// It is an error.
type Failure struct {
	Reason  protocol.FailureReason `json:"reason"`
	Message string                 `json:"message"`
}

func (f *Failure) Error() string { return f.Message }

// PlatformFailure is a failure of the agent or its machine. The master re-queues such a
// job.
func PlatformFailure(message string) *Failure {
	return &Failure{Reason: protocol.ReasonPlatformError, Message: message}
}

// startAllowance is what FFmpeg may take beyond the length of its output, to connect and to
// read ahead.
const startAllowance = 5 * time.Second

// OnTime reports whether the job met its service level: it completed by its timeout_at or,
// where it has none, in real time, that is, FFmpeg ran no longer than 110 % of what its
// output plays and 5 s. A canceled job is not judged.
func (o *Outcome) OnTime() (met, judged bool) {
	switch o.Status() {
	case protocol.StatusCanceled:
		return false, false
	case protocol.StatusCompleted:
	default:
		return false, true
	}
	if by := o.Lease.Job.TimeoutAt; by != nil && !by.IsZero() {
		return !o.At.After(*by), true
	}
	return o.Encode.Wall() <= o.Encode.Media+o.Encode.Media/10+startAllowance, true
}
