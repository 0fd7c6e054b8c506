package chaos

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// masterKinds are faults of the master.
func masterKinds() []Kind {
	return []Kind{
		{Name: "master: restarted with its memory", Weight: 1.2, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.disruptMaster(ctx, func() error {
				s.master.stop(syscall.SIGTERM)
				time.Sleep(s.between(0, 2*time.Second)) // how long it is away
				return s.master.start()
			}, CallHeartbeat)
		}},
		{Name: "master: SIGKILL", Weight: 1, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.disruptMaster(ctx, func() error {
				s.master.stop(syscall.SIGKILL)
				time.Sleep(s.between(0, 2*time.Second)) // how long it is away
				return s.master.start()
			}, CallHeartbeat)
		}},
		{Name: "master: restarted without its memory", Weight: 0.4, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.disruptMaster(ctx, s.master.restartEmpty, CallRegister)
		}},
		{Name: "master: SIGSTOP", Weight: 0.8, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.disruptMaster(ctx, func() error {
				p, _ := s.master.running()
				err := p.signal(syscall.SIGSTOP)
				time.Sleep(s.between(500*time.Millisecond, 3*time.Second)) // how long it is stopped
				return errors.Join(err, p.signal(syscall.SIGCONT))
			}, CallHeartbeat)
		}},
	}
}

// disruptMaster does something to the master, and waits until the agent has found it again
// by a call that succeeds.
func (s *injector) disruptMaster(ctx context.Context, do func() error, call Call) (effect, error) {
	s.master.restartMu.Lock()
	defer s.master.restartMu.Unlock()
	begun := time.Now()
	if err := do(); err != nil {
		s.abort(err)
		return effect{}, err
	}
	back := time.Now()
	x, ok := s.recorder.awaitExchange(ctx, begun, func(x *Exchange) bool {
		return x.Agent == s.n && x.Call == call && x.To.After(back) && x.AgentStatus/100 == 2
	})
	if !ok {
		return effect{}, fmt.Errorf("agent %d did not find it again", s.n)
	}
	return observed("found again %s after it was back, by %s", x.To.Sub(back).Round(time.Millisecond), call), nil
}

// jobKinds are what users do to jobs, and jobs that must fail.
func jobKinds() []Kind {
	hostile := func(name string, weight float64, want protocol.FailureReason, request func(*injector) protocol.JobRequest) Kind {
		return Kind{Name: name, Weight: weight, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.submitFailing(ctx, want, request(s))
		}}
	}
	with := func(p map[string]any) func(*injector) protocol.JobRequest {
		return func(*injector) protocol.JobRequest { return protocol.JobRequest{Scenario: "chaos-h264", Parameters: p} }
	}
	return []Kind{
		{Name: "job: canceled", Weight: 4, inject: cancelJob},
		hostile("job: invalid parameters", 1, protocol.ReasonUserError, with(map[string]any{"resolution": "1x1", "fps": -3})),
		hostile("job: option for a value", 1, protocol.ReasonUserError, with(map[string]any{"preset": "-y", "codec": "h264"})),
		hostile("job: output out of bounds", 1, protocol.ReasonUserError, with(map[string]any{"output": "/etc/chaos.mp4", "duration": 1})),
		hostile("job: input missing", 1, protocol.ReasonInputError, with(map[string]any{"input": "/nonexistent/film.mp4"})),
		hostile("job: input corrupt", 1, protocol.ReasonInputError, func(s *injector) protocol.JobRequest {
			return protocol.JobRequest{Scenario: "chaos-h264", Parameters: map[string]any{"input": s.submitter.corrupt}}
		}),
		hostile("job: engine unknown here", 1, protocol.ReasonCapabilityMismatch, func(*injector) protocol.JobRequest {
			return protocol.JobRequest{Scenario: "chaos-h264", Engine: "no-such-engine"}
		}),
		hostile("job: out of time", 1, protocol.ReasonTimeout, func(s *injector) protocol.JobRequest {
			return protocol.JobRequest{Scenario: "chaos-h264", Parameters: map[string]any{
				"resolution": "640x360", "duration": 2000, "preset": "veryslow", "resource_limits": map[string]any{"timeout_sec": 1},
			}}
		}),
	}
}

// submitFailing submits a job that must fail, ahead of all others, and waits for a result that
// says why.
func (s *injector) submitFailing(ctx context.Context, want protocol.FailureReason, req protocol.JobRequest) (effect, error) {
	req.Queue, req.Priority = "live", "high"
	job, err := s.master.submit(ctx, req, Job{WantFailure: want})
	if err != nil {
		return effect{}, err
	}
	x, ok := s.recorder.awaitExchange(ctx, s.started, func(x *Exchange) bool {
		return x.Result != nil && x.Result.JobID == job.ID && x.Result.FailureReason == want
	})
	if !ok {
		return effect{}, fmt.Errorf("no result of job %s has %s", job.ID, want)
	}
	return observed("%s: %s", x.Result.FailureReason, x.Result.Error), nil
}

// cancelJob cancels a job that an agent encodes, and waits for the end of its FFmpeg.
func cancelJob(ctx context.Context, s *injector) (effect, error) {
	p, at, err := s.awaitEncoder(ctx)
	if err != nil {
		return effect{}, err
	}
	s.recorder.update(func(h *History) { // before: the answer may get lost
		if j := h.Jobs[at.Job]; j != nil {
			j.Canceled = true
		}
	})
	if err := s.master.cancel(ctx, at.Job); err != nil {
		return effect{}, err
	}
	x, ok := s.recorder.awaitExchange(ctx, s.started, func(x *Exchange) bool {
		return x.Result != nil && x.Attempt() == at && x.Result.Status == protocol.StatusCanceled
	})
	if !ok {
		return effect{attempt: at}, errors.New("no result reports it")
	}
	e := observed("result %s, FFmpeg %d of %s", x.Result.Status, p.PID, filepath.Base(p.Dir))
	e.attempt = at
	return e, nil
}
