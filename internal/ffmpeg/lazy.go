package ffmpeg

import (
	"context"
	"sync"
)

// lazy is a value that is found out once; a try that fails is made again by the
// next who asks.
type lazy[T any] struct {
	mu    sync.Mutex
	known bool
	value T
}

func (l *lazy[T]) get(ctx context.Context, find func(context.Context) (T, error)) (T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known {
		return l.value, nil
	}
	v, err := find(ctx)
	if err != nil {
		return v, err
	}
	l.value, l.known = v, true
	return v, nil
}
