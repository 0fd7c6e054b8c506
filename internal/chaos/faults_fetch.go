package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// fetchDiskKind fills the disk that an input is being fetched to.
const fetchDiskKind = "fetch: disk full"

// fetchKinds are what befalls the inputs that agents fetch.
func fetchKinds() []Kind {
	return []Kind{
		{Name: "fetch: server dies", Weight: 1.5, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.breakFetch(ctx, func(w http.ResponseWriter, _ *http.Request, film []byte) {
				sendHalf(w, film)
				panic(http.ErrAbortHandler)
			})
		}},
		{Name: "fetch: server stalls", Weight: 1, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.breakFetch(ctx, func(w http.ResponseWriter, r *http.Request, film []byte) {
				sendHalf(w, film)
				<-r.Context().Done() // the agent gives it up
			})
		}},
		{Name: "fetch: server lies about the length", Weight: 1, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.submitFailing(ctx, protocol.ReasonInputError, protocol.JobRequest{
				Scenario: "chaos-h264", Parameters: map[string]any{"input": filmHost + liesFilm, "resolution": "320x180"},
			})
		}},
		{Name: fetchDiskKind, Weight: 0.6, Exclusive: true, inject: fillDiskDuringFetch},
	}
}

// breakFetch has a fault befall the agent's next transfer of the clip, and waits until the agent
// asks again: it goes on with what it has, or begins anew. It submits a job that reads the clip,
// which another agent may take.
func (s *injector) breakFetch(ctx context.Context, play func(http.ResponseWriter, *http.Request, []byte)) (effect, error) {
	rule := s.films.arm(clipFilm, play)
	defer s.films.disarm(rule)
	_, err := s.master.submit(ctx, protocol.JobRequest{Scenario: "chaos-h264", Queue: "live", Priority: "high", Parameters: clipJob()}, Job{})
	if err != nil {
		return effect{}, err
	}
	var number int
	select {
	case number = <-rule.matched:
	case <-ctx.Done():
		return effect{}, fmt.Errorf("%w: no input was fetched", errNoTarget)
	}
	// The agent notices a stall later than any other effect.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stallTimeout+observeWithin)
	defer cancel()
	for {
		requests, changed := s.films.seen()
		if requests > number {
			return observed("request %d after request %d", requests, number), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return effect{}, errors.New("the agent did not ask again")
		}
	}
}

// clipJob are the parameters of a job that reads the clip from its server.
func clipJob() map[string]any {
	return map[string]any{"input": filmHost + clipFilm, "resolution": "320x180", "preset": "veryfast", "fps": clipRate}
}

// fillDiskDuringFetch has an agent fetch a large input slowly, and fills the disk meanwhile.
func fillDiskDuringFetch(ctx context.Context, s *injector) (effect, error) {
	if !s.data.mounted {
		return effect{}, errNoDisk
	}
	full := make(chan struct{})
	rule := s.films.arm(largeFilm, func(w http.ResponseWriter, r *http.Request, film []byte) {
		sendHalf(w, film)
		select {
		case <-full:
		case <-r.Context().Done():
			return
		}
		_, _ = w.Write(film[len(film)/2:])
	})
	defer s.films.disarm(rule)
	parameters := clipJob()
	parameters["input"] = filmHost + largeFilm
	job, err := s.master.submit(ctx, protocol.JobRequest{Scenario: "chaos-h264", Queue: "live", Priority: "high", Parameters: parameters}, Job{})
	if err != nil {
		return effect{}, err
	}
	select {
	case <-rule.matched:
	case <-ctx.Done():
		return effect{}, fmt.Errorf("%w: another agent took job %s", errNoTarget, job.ID)
	}
	s.blocked.Add(1)
	defer s.blocked.Add(-1)
	undo := s.fillDisk(s.data)
	select {
	case <-time.After(time.Second): // for what is free to be taken
	case <-ctx.Done():
	}
	close(full)
	select {
	case <-time.After(time.Second): // in which the agent writes
	case <-ctx.Done():
	}
	undo() // the journal needs room for the result
	x, ok := s.recorder.awaitExchange(ctx, s.started, func(x *Exchange) bool {
		return x.Result != nil && x.Result.JobID == job.ID && x.Result.FailureReason == protocol.ReasonResourceError
	})
	if !ok {
		return effect{}, fmt.Errorf("job %s did not fail for it", job.ID)
	}
	return observed("%s: %s", x.Result.JobID, x.Result.Error), nil
}
