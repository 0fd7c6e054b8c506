package job

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/protocol"
)

// Outcome is all that is known of an attempt when it ends.
type Outcome struct {
	Lease    Lease
	Failure  *Failure // why it failed; nil otherwise
	Canceled bool     // by the user at the master; rules over Failure
	Encode   Encode
	Energy   *energy.Account // nil when FFmpeg never started
	Quality  Quality
	At       time.Time
}

// Status is what the master is told the attempt came to.
func (e *Outcome) Status() protocol.Status {
	switch {
	case e.Canceled:
		return protocol.StatusCanceled
	case e.Failure != nil:
		return protocol.StatusFailed
	}
	return protocol.StatusCompleted
}

// Result composes what is sent to the master. Figures that are not known are
// absent; energy is never 0 for unknown.
func (e *Outcome) Result() protocol.JobResult {
	key := e.Lease.Key()
	r := protocol.JobResult{
		JobID:          key.JobID,
		NodeID:         e.Lease.NodeID,
		Attempt:        key.Attempt,
		Status:         e.Status(),
		Progress:       e.progress(),
		Metrics:        e.metrics(),
		AnalyzerOutput: map[string]any{},
		Logs:           e.Encode.Log,
		CompletedAt:    e.At.UTC(),
		VMAFScore:      finite(e.Quality.VMAF),
	}
	if e.Failure != nil && !e.Canceled {
		r.Error, r.FailureReason = e.Failure.Message, e.Failure.Reason
	}
	if e.Energy != nil {
		scores := energy.Score(*e.Energy, e.work())
		r.EnergyJoules = finite(scores.Joules)
		r.EfficiencyScore = finite(scores.PixelsPerJoule)
		r.QoEScore = finite(scores.QualityWeightedPixelsPerJoule)
		r.AnalyzerOutput["energy"] = e.Energy
		r.AnalyzerOutput["scores"] = scores
	}
	if len(e.Encode.Notes) > 0 {
		r.AnalyzerOutput["notes"] = e.Encode.Notes
	}
	if e.Quality != (Quality{}) {
		r.AnalyzerOutput["quality"] = e.Quality
	}
	return r
}

// Body is the result as it is journalled and sent, byte for byte.
func (e *Outcome) Body() ([]byte, error) {
	r := e.Result()
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the result of job %s: %w", r.JobID, err)
	}
	return body, nil
}

func (e *Outcome) progress() int {
	if e.Status() == protocol.StatusCompleted {
		return 100
	}
	return int(math.Max(0, math.Min(100, e.Encode.Progress.Percent)))
}

func (e *Outcome) work() energy.Work {
	w := energy.Work{
		Frames:        e.Encode.Frames,
		Pixels:        e.Encode.Pixels,
		MediaDuration: e.Encode.Media,
		WallTime:      e.Encode.Wall(),
		OutputBits:    e.Encode.SizeBytes * 8,
	}
	if !e.Quality.Partial { // else it is not of all these pixels
		w.VMAF = e.Quality.VMAF
	}
	return w
}

func (e *Outcome) metrics() map[string]any {
	enc := &e.Encode
	m := map[string]any{
		protocol.MetricScenario:        enc.Scenario,
		protocol.MetricEngine:          "ffmpeg",
		protocol.MetricFrames:          enc.Frames,
		protocol.MetricDroppedFrames:   enc.Dropped,
		protocol.MetricPixelsProcessed: enc.Pixels,
		protocol.MetricFPS:             round(enc.MeanFPS(), 3),
		protocol.MetricDuration:        round(enc.Wall().Seconds(), 6),
		protocol.MetricMediaDuration:   round(enc.Media.Seconds(), 6),
		"cpu_seconds":                  round(enc.CPUTime.Seconds(), 6),
		"prepare_seconds":              round(enc.PrepareFor.Seconds(), 6),
	}
	if enc.Scenario == "" {
		m[protocol.MetricScenario] = e.Lease.Job.Scenario
	}
	if enc.SizeBytes > 0 {
		m["output_bytes"] = enc.SizeBytes
	}
	switch {
	case enc.Bitrate != "":
		m[protocol.MetricBitrate] = enc.Bitrate
	case enc.SizeBytes > 0 && enc.Media > 0:
		// A job that asked for a quality asked for no bitrate: what came out, then.
		m[protocol.MetricBitrate] = fmt.Sprintf("%.0fk", float64(enc.SizeBytes)*8/1000/enc.Media.Seconds())
	}
	if enc.Width > 0 && enc.Height > 0 {
		m[protocol.MetricResolution] = fmt.Sprintf("%dx%d", enc.Width, enc.Height)
	}
	if enc.Encoder != "" {
		m["encoder"] = enc.Encoder
	}
	if enc.Output != "" {
		m["output"] = enc.Output
	}
	if enc.ExitCode != nil {
		m["exit_code"] = *enc.ExitCode
	}
	if enc.Signal != "" {
		m["signal"] = enc.Signal
	}
	if len(enc.Args) > 0 {
		m["command"] = enc.Args
	}
	return m
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
