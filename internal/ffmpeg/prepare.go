package ffmpeg

import (
	"context"
	"os"
	"time"

	"ffmpeg-agent/messages/job"
)

// Prepare checks the job and creates its workspace and, where it names no input, a
// synthetic one.
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
	if r.caps, err = r.runner.Capabilities(ctx); err != nil {
		return err
	}
	tried, err := r.runner.triedEncoders(ctx, r.caps.Identity, wantsHardware(r.lease.Job))
	if err != nil {
		return err
	}
	if err := r.makePlan(tried); err != nil {
		return err
	}
	if err := r.runner.work.create(r.name); err != nil {
		return err
	}
	r.applyLimits()
	if err := r.openFiles(); err != nil {
		return err
	}
	if r.plan.input == "" {
		return r.makeInput(ctx)
	}
	if path := r.files.inputPath; path != "" {
		r.update(func(e *job.Encode) { e.InputBytes = regularSize(path) })
	}
	return ctx.Err()
}

// regularSize is the size of a regular file in bytes; 0 where it is none.
func regularSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

// makePlan plans the encode and places its files; the error names everything that is
// wrong with the job.
func (r *Run) makePlan(tried map[string]bool) error {
	p, problems, missing := newPlan(r.lease.Job, r.caps, tried, r.settings.MasterHost, r.settings.Timeout)
	paths := pathResolver{settings: r.settings, workspace: r.workspace, name: r.name}
	files, bad := paths.resolve(&p)
	if f := refusal(append(problems, unique(paths.problems)...), missing); f != nil {
		return f
	}
	if bad != nil {
		return bad
	}
	var redact redactor
	for _, rd := range p.renditions {
		if rd.url != "" {
			redact.addURL(rd.url)
		}
	}
	if files.input.network {
		redact.addURL(files.input.url)
	}
	first := p.renditions[0]
	r.plan, r.files = p, files
	r.mu.Lock()
	defer r.mu.Unlock()
	r.redactor = redact
	if !p.whole || p.input == "" {
		r.expected = p.duration
	}
	e := &r.encode
	e.Encoder, e.Codec, e.Scenario, e.Bitrate = first.encoder, first.codec, p.scenario, first.bitrate
	e.Width, e.Height = first.width, first.height
	e.Notes = p.notes
	return nil
}
