package ffmpeg

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"ffmpeg-agent/hardware/proc"
)

// failureTTL is how long a failed trial is not repeated: a machine without cards has
// twenty such encoders, and an agent that keeps being restarted would do nothing else.
const failureTTL = 2 * time.Minute

// trialCache is the content of DataDir/encoders.json.
type trialCache struct {
	FFmpeg   string                  `json:"ffmpeg"` // identity of the binaries
	Hardware string                  `json:"hardware"`
	Works    []string                `json:"works"`
	Fails    map[string]trialFailure `json:"fails"`
	// Without is Trials.Without; Sandbox is jobs.sandbox, in which the trials were made.
	Without map[string][]proc.Layer `json:"without"`
	Sandbox SandboxMode             `json:"sandbox"`
}

type trialFailure struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// failed reports whether an encoder's trial has failed within failureTTL, and why.
func (c *trialCache) failed(encoder string, now time.Time) (why string, ok bool) {
	f, ok := c.Fails[encoder]
	age := now.Sub(f.At)
	return f.Why, ok && age >= 0 && age < failureTTL
}

func (r *Runner) trialCachePath() string { return filepath.Join(r.settings().DataDir, "encoders.json") }

// readTrialCache returns the cached trials of this very FFmpeg on this hardware; none where
// the file is missing, damaged or of others.
func (r *Runner) readTrialCache(identity string) trialCache {
	raw, err := os.ReadFile(r.trialCachePath())
	hardware := r.settings().Hardware()
	var c trialCache
	if err != nil || json.Unmarshal(raw, &c) != nil || c.FFmpeg != identity || c.Hardware != hardware || c.Fails == nil || c.Without == nil || c.Sandbox != r.sandboxes.settings.Mode {
		return trialCache{FFmpeg: identity, Hardware: hardware, Sandbox: r.sandboxes.settings.Mode, Fails: map[string]trialFailure{}, Without: map[string][]proc.Layer{}}
	}
	return c
}

func (r *Runner) writeTrialCache(c trialCache) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(r.settings().DataDir, ".encoders-")
	if err != nil {
		return err
	}
	_, err = temp.Write(raw)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), r.trialCachePath())
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}
