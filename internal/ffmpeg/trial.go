package ffmpeg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/hardware/proc"
)

// trialFor bounds one trial encode: a driver may hang.
const trialFor = 10 * time.Second

// Proof is what trial encodes showed: that FFmpeg lists an encoder says only that it
// was compiled in.
type Proof struct {
	// Works are the encoders whose trial came out well.
	Works []string
	// Fails are those whose trial did not, and why.
	Fails map[string]string

	identity string // of the FFmpeg that was tried
}

// errInconclusive: a trial did not come to its own end, but was too slow or was killed.
var errInconclusive = errors.New("the trial did not end by itself")

// Capabilities are the proved hardware encoders in the master's terms: the family,
// then the codec, such as nvenc_h264.
func (p Proof) Capabilities() []string {
	var names []string
	for _, encoder := range p.Works {
		if codec, family, ok := strings.Cut(encoder, "_"); ok && needsHardware(encoder) {
			names = append(names, family+"_"+canonicalCodec(codec))
		}
	}
	slices.Sort(names)
	return names
}

// tried says of each encoder that was tried whether its trial came out well. Before
// the trials of this very FFmpeg are through it is nil, or waited for.
func (r *Runner) tried(ctx context.Context, identity string, wait bool) (map[string]bool, error) {
	p := r.proved.Load()
	if p != nil && p.identity != identity {
		p = nil // FFmpeg was replaced since
	}
	if p == nil && wait {
		proof, err := r.Prove(ctx)
		if err != nil {
			return nil, err
		}
		p = &proof
	}
	if p == nil {
		return nil, nil
	}
	tried := setOf(p.Works)
	for encoder := range p.Fails {
		tried[encoder] = false
	}
	return tried, nil
}

// Prove tries every hardware encoder that this FFmpeg lists, and the encoders of each
// codec that jobs may name, one after another. What worked is remembered on
// disk for this very FFmpeg; what did not is tried again after failureHolds, since a driver
// may have been installed meanwhile.
func (r *Runner) Prove(ctx context.Context) (Proof, error) {
	select {
	case r.proving <- struct{}{}: // one at a time: trials share the hardware
		defer func() { <-r.proving }()
	case <-ctx.Done():
		return Proof{}, ctx.Err()
	}
	caps, err := r.Capabilities(ctx)
	if err != nil {
		return Proof{}, err
	}
	t, err := r.tools()
	if err != nil {
		return Proof{}, err
	}
	known := r.readProved(caps.Identity)
	proof := Proof{Fails: map[string]string{}, identity: caps.Identity}
	for _, encoder := range candidates(caps) {
		if slices.Contains(known.Works, encoder) {
			proof.Works = append(proof.Works, encoder)
			continue
		}
		if why, ok := known.failed(encoder, time.Now()); ok {
			proof.Fails[encoder] = why
			continue
		}
		switch err := r.trial(ctx, t.ffmpeg, encoder); {
		case ctx.Err() != nil:
			return proof, ctx.Err()
		case errors.Is(err, errInconclusive) && !needsHardware(encoder):
			// A busy machine says nothing about software: it counts as not tried.
			r.log.Warn("the trial of an encoder proved nothing", zap.String("encoder", encoder), zap.Error(err))
		case err != nil:
			proof.Fails[encoder] = err.Error()
			known.Fails[encoder] = trialFailure{time.Now(), err.Error()}
		default:
			proof.Works = append(proof.Works, encoder)
			known.Works = append(known.Works, encoder)
			delete(known.Fails, encoder)
		}
		// At once, so that an agent that does not live long does not begin from the beginning.
		if err := r.writeProved(known); err != nil {
			r.log.Warn("the trial of an encoder could not be remembered; it is tried again at the next start", zap.String("encoder", encoder), zap.Error(err))
		}
	}
	slices.Sort(proof.Works)
	r.proved.Store(&proof)
	return proof, nil
}

// candidates are the encoders worth a trial, in a fixed order.
func candidates(caps Capabilities) []string {
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

// trial encodes a few frames as a job would.
func (r *Runner) trial(ctx context.Context, ffmpeg, encoder string) error {
	ctx, cancel := context.WithTimeout(ctx, r.trialFor)
	defer cancel()
	device := deviceOf(encoder)
	args := append([]string{"-nostdin", "-hide_banner", "-loglevel", "error"}, device.global...)
	args = append(args, "-f", "lavfi", "-i", "color=black:size=320x240:rate=25", "-frames:v", "5")
	filter := "null"
	if device.upload != "" {
		filter = device.upload
	}
	args = append(args, "-vf", filter, "-c:v", encoder, "-f", "null", "-")
	var said headTail
	c := command(ffmpeg, "/", args...)
	c.Limits.Nice = r.settings.Nice
	c.Stderr = func(in io.Reader) { _, _ = io.Copy(&said, in) }
	exit, err := proc.Run(ctx, c)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no end after %s", errInconclusive, r.trialFor)
	case err != nil:
		return err
	case exit.Signal != 0:
		return fmt.Errorf("%w: %s", errInconclusive, exit)
	case !exit.OK():
		return fmt.Errorf("%s: %s", exit, lastLine(said.String()))
	}
	return nil
}

// lastLine is what a log ends with, bounded.
func lastLine(log string) string {
	const most = 200
	lines := strings.Split(strings.TrimSpace(log), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if len(last) > most {
		last = strings.ToValidUTF8(last[:most], "") + "…"
	}
	return last
}

// accelerations are the values of a job's hwaccel, with the end of the names of the
// encoders that it stands for.
var accelerations = map[string]string{
	"cuda": "_nvenc", "nvenc": "_nvenc", "nvdec": "_nvenc", "qsv": "_qsv", "vaapi": "_vaapi", "amf": "_amf",
	"videotoolbox": "_videotoolbox", "v4l2m2m": "_v4l2m2m", "vulkan": "_vulkan",
}

// device is how a family of hardware encoders is reached.
type device struct {
	global []string // before the input
	upload string   // ends the filter chain: brings frames to the device
}

func deviceOf(encoder string) device {
	switch {
	case strings.HasSuffix(encoder, "_vaapi"):
		return device{global: []string{"-init_hw_device", "vaapi=hw", "-filter_hw_device", "hw"}, upload: "format=nv12,hwupload"}
	case strings.HasSuffix(encoder, "_qsv"):
		return device{global: []string{"-init_hw_device", "qsv=hw", "-filter_hw_device", "hw"}, upload: "format=nv12,hwupload=extra_hw_frames=64"}
	case strings.HasSuffix(encoder, "_vulkan"):
		return device{global: []string{"-init_hw_device", "vulkan=hw", "-filter_hw_device", "hw"}, upload: "format=nv12,hwupload"}
	}
	return device{}
}

// failureHolds is how long a trial that failed is taken at its word: a card-less machine has
// twenty such encoders, and an agent that is restarted over and over would spend itself on them.
const failureHolds = 2 * time.Minute

// proved is the file that remembers trials.
type proved struct {
	FFmpeg string                  `json:"ffmpeg"` // identity of the binary
	Works  []string                `json:"works"`
	Fails  map[string]trialFailure `json:"fails"`
}

type trialFailure struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// failed reports whether an encoder's trial has failed lately, and why.
func (p *proved) failed(encoder string, now time.Time) (why string, ok bool) {
	f, ok := p.Fails[encoder]
	age := now.Sub(f.At)
	return f.Why, ok && age >= 0 && age < failureHolds
}

func (r *Runner) provedPath() string { return filepath.Join(r.settings.DataDir, "encoders.json") }

// readProved returns what is remembered of this very FFmpeg; a file that is missing, damaged
// or of another FFmpeg counts as empty.
func (r *Runner) readProved(identity string) proved {
	fresh := proved{FFmpeg: identity, Fails: map[string]trialFailure{}}
	raw, err := os.ReadFile(r.provedPath())
	var p proved
	if err != nil || json.Unmarshal(raw, &p) != nil || p.FFmpeg != identity || p.Fails == nil {
		return fresh
	}
	return p
}

func (r *Runner) writeProved(p proved) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(r.settings.DataDir, ".encoders-")
	if err != nil {
		return err
	}
	_, err = temp.Write(raw)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), r.provedPath())
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

func setOf(names []string) map[string]bool {
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	return set
}
