package supervision

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

type pong struct {
	n, want int
	done    chan struct{}
}

func (p *pong) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(int); ok {
		if p.n++; p.n == p.want {
			close(p.done)
		}
	}
}

// BenchmarkTell measures a message from Tell to Receive.
func BenchmarkTell(b *testing.B) {
	s := NewSystem(Config{})
	p := &pong{want: b.N, done: make(chan struct{})}
	ref := spawn(b, s, Spec{Name: "a", New: func() actor.Actor { return p }})
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		ref.Tell(1)
	}
	<-p.done
	b.StopTimer()
	if err := s.Stop(within(b, time.Minute)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRestart measures a crash from the message to Started, less the backoff.
func BenchmarkRestart(b *testing.B) {
	s := NewSystem(Config{})
	started := make(chan struct{}, 1)
	ref := spawn(b, s, Spec{Name: "a", New: scripted(&trace{}, script{
		"Started": func(actor.Context) { started <- struct{}{} },
		"bad":     boom,
	})})
	<-started
	s.mu.Lock()
	ref.backoff.InitialInterval, ref.backoff.MaxInterval = 1, 1
	s.mu.Unlock()
	for b.Loop() {
		ref.Tell("bad")
		<-started
	}
	if err := s.Stop(within(b, time.Minute)); err != nil {
		b.Fatal(err)
	}
}
