package actors

import (
	"context"

	"github.com/asynkron/protoactor-go/actor"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// jobActor is the place of one attempt in the tree. It waits for the attempt's goroutine
// and notifies jobs when it has ended.
type jobActor struct {
	*shared
	attempt *attempt
}

func (j *jobActor) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); !ok {
		return
	}
	supervision.Go(ctx, func(work context.Context) (struct{}, error) {
		select {
		case <-j.attempt.done:
			return struct{}{}, nil
		case <-work.Done():
			return struct{}{}, work.Err()
		}
	}, func(_ actor.Context, _ struct{}, err error) {
		if err == nil {
			j.refs.jobs.Tell(&messages.AttemptEnded{Key: j.attempt.key})
		}
	})
}
