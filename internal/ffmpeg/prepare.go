package ffmpeg

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/job"

	"go.uber.org/zap"
)

// Prepare checks the job, creates its workspace, and fetches its input or, where it names
// none, makes a synthetic one.
func (r *Run) Prepare(ctx context.Context) error {
	begun := time.Now()
	defer func() { r.update(func(e *job.Encode) { e.PrepareFor = time.Since(begun) }) }()
	return r.step(ctx, r.prepare)
}

func (r *Run) prepare(ctx context.Context) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.tools, err = r.runner.tools(); err != nil {
		return err
	}
	on := node{settings: r.settings}
	err = r.mayTake(triesWithin, func() (err error) { // each of their processes has a time limit
		if r.caps, err = r.runner.Capabilities(ctx); err != nil {
			return err
		}
		on.caps = r.caps
		on.tried, err = r.runner.triedEncoders(ctx, r.caps.Identity, wantsHardware(r.lease.Job, r.settings))
		return err
	})
	if err != nil {
		return err
	}
	if trials := r.runner.trials.Load(); trials != nil {
		r.withoutLayers = trials.Without
	}
	if r.files, err = r.makePlan(on, media{}); err != nil {
		return err
	}
	r.hideSecrets()
	if err := r.runner.work.create(r.name); err != nil {
		return err
	}
	if err := os.Mkdir(r.scratch(), 0o700); err != nil {
		return fmt.Errorf("creating a workspace: %w", err)
	}
	r.applyLimits()
	if err := r.openInput(); err != nil {
		return err
	}
	if err := r.obtainInput(ctx); err != nil {
		return err
	}
	if r.plan.input != "" && r.files.input.finite { // a live one may serve a single reader
		if err := r.planFromInput(ctx, on); err != nil {
			return err
		}
	}
	if err := r.openOutputs(); err != nil {
		return err
	}
	if len(r.plan.ignored) > 0 {
		r.log.Info("parameters of the job had no effect", zap.String("parameters", few(r.plan.ignored)))
	}
	if r.plan.input == "" {
		return r.makeInput(ctx)
	}
	return ctx.Err()
}

// triesWithin is how long the trial of all encoders, and waiting for one that is going on, may take.
const triesWithin = time.Hour

// measureInput takes down the size of a stored input, and whether it is cut off. What is
// appended later is not damage.
func (r *Run) measureInput() {
	if r.files.reads.Format != "" || r.files.fetched.Format != "" {
		return // a playlist is not the media
	}
	f, err := reach.OpenRegular(r.files.inputPath)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return
	}
	r.lacks, r.cutOff = cutOff(f, info.Size())
	r.update(func(e *job.Encode) { e.InputBytes = info.Size() })
}

// regularSize is the size of a regular file in bytes; 0 where it is none.
func regularSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

// planFromInput plans the encode again from the probed input. An input that cannot be opened
// fails; one that takes long to probe is for FFmpeg to judge.
func (r *Run) planFromInput(ctx context.Context, on node) error {
	p, err := r.probeInput(ctx)
	if err != nil {
		return ctx.Err()
	}
	r.measureInput()
	if f := r.checkMedia(p); f != nil {
		return f
	}
	r.source = p.media()
	files, err := r.makePlan(on, r.source)
	if err == nil {
		r.files.targets = files.targets
	}
	return err
}

// makePlan plans the encode and places its files; the error names everything that is
// wrong with the job.
func (r *Run) makePlan(on node, source media) (jobFiles, error) {
	p, problems, missing := newPlan(r.lease.Job, on, source)
	paths := pathResolver{settings: r.settings, workspace: r.workspace, name: r.name}
	files, bad := paths.resolve(&p)
	if f := refusal(append(problems, unique(paths.problems)...), missing); f != nil {
		return jobFiles{}, f
	}
	if bad != nil {
		return jobFiles{}, bad
	}
	first := p.renditions[0]
	r.plan = p
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expected = source.guessed
	if source.length > 0 {
		r.expected = source.length
	}
	if !p.whole || p.input == "" {
		r.expected = p.duration
	}
	e := &r.encode
	e.Encoder, e.Codec, e.Scenario, e.Bitrate = first.encoder, first.codec, p.scenario, first.bitrate
	e.Width, e.Height = first.size.width, first.size.height
	e.Notes = unique(slices.Concat(e.Notes, p.notes, paths.notes))
	return files, nil
}

// hideSecrets makes known what must not be shown of the files' URLs, which may be written
// otherwise in the job.
func (r *Run) hideSecrets() {
	for _, t := range r.files.targets {
		if t.url != "" {
			r.redactor.addURL(t.url)
		}
	}
	if u := r.files.reads.URL; u != nil {
		r.redactor.addURL(u.String())
	}
	input := cmp.Or(r.plan.input, job.SyntheticInput)
	if strings.Contains(input, "://") {
		input = safetext.URL(input)
	} else {
		input = safetext.URLs(input)
	}
	r.update(func(e *job.Encode) { e.Input = input })
}
