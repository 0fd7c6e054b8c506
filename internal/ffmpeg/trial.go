package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/hardware/proc"
)

// trialTimeout bounds one trial encode: a driver may hang.
const trialTimeout = 10 * time.Second

// Trials are the results of trial encodes. That FFmpeg lists an encoder only means that
// it was compiled in.
type Trials struct {
	Works []string          // encoders whose trial succeeded
	Fails map[string]string // those whose trial failed, and why
	// Without are the layers of the sandbox, by encoder, that its trial succeeds only without.
	Without map[string][]proc.Layer

	identity string // of the FFmpeg that was tried
}

// Capabilities are the hardware encoders that work, in the master's terms: the family,
// then the codec, such as nvenc_h264.
func (t Trials) Capabilities() []string {
	var names []string
	for _, encoder := range t.Works {
		if codec, family, ok := strings.Cut(encoder, "_"); ok && needsHardware(encoder) {
			names = append(names, family+"_"+canonicalCodec(codec))
		}
	}
	slices.Sort(names)
	return names
}

// byEncoder holds for each encoder that was tried whether it works.
func (t Trials) byEncoder() map[string]bool {
	tried := make(map[string]bool, len(t.Works)+len(t.Fails))
	for _, encoder := range t.Works {
		tried[encoder] = true
	}
	for encoder := range t.Fails {
		tried[encoder] = false
	}
	return tried
}

// triedEncoders are the trials of this FFmpeg as a map from encoder to success; nil
// before they are complete, unless it is to wait for them.
func (r *Runner) triedEncoders(ctx context.Context, identity string, wait bool) (map[string]bool, error) {
	if t := r.trials.Load(); t != nil && t.identity == identity {
		return t.byEncoder(), nil
	}
	if !wait {
		return nil, nil
	}
	t, err := r.TryEncoders(ctx)
	if err != nil {
		return nil, err
	}
	return t.byEncoder(), nil
}

// CachedTrials are the successes of earlier trials with this very FFmpeg on this hardware.
func (r *Runner) CachedTrials() (Trials, error) {
	_, identity, err := r.identify()
	if err != nil {
		return Trials{}, err
	}
	works := slices.Sorted(slices.Values(r.readTrialCache(identity).Works))
	return Trials{Works: works, identity: identity}, nil
}

// TryHardware tries the hardware encoders only, as TryEncoders does. Where it is cut short,
// the result has those that were proved.
func (r *Runner) TryHardware(ctx context.Context) (Trials, error) {
	return r.try(ctx, needsHardware)
}

// TryEncoders tries every hardware encoder that this FFmpeg lists, and the encoders of
// each codec that jobs may name, one after another. Successes are cached on disk for this
// very FFmpeg and hardware; failures are tried again after failureTTL, since a driver may
// have been installed in the meantime.
func (r *Runner) TryEncoders(ctx context.Context) (Trials, error) {
	trials, err := r.try(ctx, func(string) bool { return true })
	if err == nil {
		r.trials.Store(&trials)
	}
	return trials, err
}

// try tries the encoders that want accepts.
func (r *Runner) try(ctx context.Context, want func(encoder string) bool) (Trials, error) {
	select {
	case r.trying <- struct{}{}: // one at a time: trials share the hardware
		defer func() { <-r.trying }()
	case <-ctx.Done():
		return Trials{}, ctx.Err()
	}
	caps, err := r.Capabilities(ctx)
	if err != nil {
		return Trials{}, err
	}
	t, err := r.tools()
	if err != nil {
		return Trials{}, err
	}
	cache := r.readTrialCache(caps.Identity)
	trials := Trials{Fails: map[string]string{}, Without: map[string][]proc.Layer{}, identity: caps.Identity}
	for _, encoder := range trialCandidates(caps) {
		if !want(encoder) {
			continue
		}
		if slices.Contains(cache.Works, encoder) {
			trials.Works = append(trials.Works, encoder)
			if without := cache.Without[encoder]; len(without) > 0 {
				// What kept it from working in the whole sandbox may have passed.
				if r.tryEncoder(ctx, t.ffmpeg, encoder, nil) != nil {
					trials.Without[encoder] = without
					continue
				}
				delete(cache.Without, encoder)
				r.keepTrials(cache, encoder)
			}
			continue
		}
		if why, ok := cache.failed(encoder, time.Now()); ok {
			trials.Fails[encoder] = why
			continue
		}
		without, why, err := r.sandboxes.lightest(ctx, func(without []proc.Layer) error { return r.tryEncoder(ctx, t.ffmpeg, encoder, without) })
		if len(without) > 0 {
			r.log.Warn("an encoder works only without a part of its sandbox", zap.String("encoder", encoder), zap.Any("without", without), zap.String("with", why))
		}
		switch {
		case ctx.Err() != nil:
			return trials, ctx.Err()
		case errors.Is(err, errInconclusive) && !needsHardware(encoder):
			// A busy machine proves nothing about software: the encoder counts as not tried.
			r.log.Warn("trial encode was inconclusive", zap.String("encoder", encoder), zap.Error(err))
		case err != nil:
			trials.Fails[encoder] = err.Error()
			cache.Fails[encoder] = trialFailure{time.Now(), err.Error()}
		default:
			trials.Works = append(trials.Works, encoder)
			cache.Works = append(cache.Works, encoder)
			delete(cache.Fails, encoder)
			if len(without) > 0 {
				trials.Without[encoder], cache.Without[encoder] = without, without
			}
		}
		// After each trial, so that an agent that is killed early keeps what it has.
		r.keepTrials(cache, encoder)
	}
	slices.Sort(trials.Works)
	return trials, nil
}

// keepTrials caches trials after that of an encoder.
func (r *Runner) keepTrials(cache trialCache, encoder string) {
	if err := r.writeTrialCache(cache); err != nil {
		r.log.Warn("could not cache a trial encode; the next start repeats it", zap.String("encoder", encoder), zap.Error(err))
	}
}

// trialCandidates are the encoders to try, sorted.
func trialCandidates(caps Capabilities) []string {
	var names []string
	for encoder := range caps.Video {
		if needsHardware(encoder) {
			names = append(names, encoder)
		}
	}
	for _, encoders := range codecs {
		for _, e := range encoders {
			if _, ok := caps.Video[e]; ok && !slices.Contains(names, e) {
				names = append(names, e)
			}
		}
	}
	slices.Sort(names)
	return names
}

// errInconclusive: a trial encode was too slow, or killed.
var errInconclusive = errors.New("the trial encode did not end by itself")

// tryEncoder encodes a few frames in the way of a job.
func (r *Runner) tryEncoder(ctx context.Context, ffmpeg, encoder string, without []proc.Layer) error {
	ctx, cancel := context.WithTimeout(ctx, r.trialTimeout)
	defer cancel()
	device := deviceOf(encoder)
	args := append([]string{"-nostdin", "-hide_banner", "-loglevel", "error"}, device.global...)
	args = append(args, "-f", "lavfi", "-i", "color=black:size=320x240:rate=25", "-frames:v", "5")
	filter := "null"
	if device.upload != "" {
		filter = device.upload
	}
	args = append(args, "-vf", filter, "-c:v", encoder, "-f", "null", "-")
	var log logBuffer
	c := command(ffmpeg, "/", args...)
	c.Limits.Nice = r.settings().Nice
	c.Stderr = func(in io.Reader) { _, _ = io.Copy(&log, in) }
	r.sandboxes.around(&c, proc.Sandbox{Without: without}, needsHardware(encoder))
	exit, err := proc.Run(ctx, c)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: timeout after %s", errInconclusive, r.trialTimeout)
	case err != nil:
		return err
	case exit.Signal != 0:
		return fmt.Errorf("%w: %s", errInconclusive, exit)
	case !exit.OK():
		return fmt.Errorf("%s: %s", exit, lastLine(log.String()))
	}
	return nil
}

// lastLine is the last line of a log, shortened.
func lastLine(log string) string {
	const maxBytes = 200
	lines := strings.Split(strings.TrimSpace(log), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if len(last) > maxBytes {
		last = strings.ToValidUTF8(last[:maxBytes], "") + "…"
	}
	return last
}
