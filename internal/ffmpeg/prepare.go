package ffmpeg

import (
	"context"
	"time"

	"ffmpeg-agent/messages/job"
)

// Prepare checks the job and makes its workspace and, where it names no input, a
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
	tried, err := r.runner.tried(ctx, r.caps.Identity, wantsHardware(r.lease.Job))
	if err != nil {
		return err
	}
	if err := r.makePlan(tried); err != nil {
		return err
	}
	if err := r.runner.work.make(r.name); err != nil {
		return err
	}
	r.confine()
	if err := r.hold(); err != nil {
		return err
	}
	if r.plan.input == "" {
		return r.makeInput(ctx)
	}
	return ctx.Err()
}

// makePlan plans the encode and places its files; the error names everything that is
// wrong with the job.
func (r *Run) makePlan(tried map[string]bool) error {
	p, problems, lacks := newPlan(r.lease.Job, r.caps, tried, r.settings.MasterHost, r.settings.Timeout)
	finder := places{settings: r.settings, workspace: r.workspace, name: r.name}
	where, bad := finder.find(&p)
	if f := refusal(append(problems, unique(finder.problems)...), lacks); f != nil {
		return f
	}
	if bad != nil {
		return bad
	}
	var secret secrets
	for _, rd := range p.renditions {
		if rd.url != "" {
			secret.addURL(rd.url)
		}
	}
	if where.input.network {
		secret.addURL(where.input.url)
	}
	first := p.renditions[0]
	r.plan, r.place = p, where
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secret = secret
	if !p.whole || p.input == "" {
		r.expected = p.duration
	}
	e := &r.encode
	e.Encoder, e.Codec, e.Scenario, e.Bitrate = first.encoder, first.codec, p.scenario, first.bitrate
	e.Width, e.Height = first.width, first.height
	e.Notes = p.notes
	return nil
}
