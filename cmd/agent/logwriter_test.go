package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/configs"
)

// scriptedOutput accepts lines as its test decides.
type scriptedOutput struct {
	mu      sync.Mutex
	blocked chan struct{} // a write waits until it is closed; nil: none does
	err     error         // of each write
	room    int           // bytes accepted of each write that fails
	text    bytes.Buffer
}

func (o *scriptedOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	blocked := o.blocked
	o.mu.Unlock()
	if blocked != nil {
		<-blocked
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		n := min(o.room, len(b))
		o.text.Write(b[:n])
		return n, o.err
	}
	return o.text.Write(b)
}

func (o *scriptedOutput) set(err error, room int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err, o.room = err, room
}

// written is what the output holds, and empties it.
func (o *scriptedOutput) written() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.text.Reset()
	return o.text.String()
}

func newTestWriter(out io.Writer) *logWriter {
	return newLogWriter(out, func(dropped int, since time.Time) []byte {
		return fmt.Appendf(nil, "%d dropped in %v\n", dropped, time.Since(since))
	})
}

func TestLogLinesKeepTheirOrder(t *testing.T) {
	var out scriptedOutput
	w := newTestWriter(&out)
	var want strings.Builder
	line := []byte("x\n")
	for i := range byte(26) {
		line[0] = 'a' + i // the caller may use its buffer again
		want.Write(line)
		w.Write(line)
	}
	w.close()
	if got := out.written(); got != want.String() || w.droppedLines() != 0 {
		t.Errorf("got %q and %d dropped lines, want %q and none", got, w.droppedLines(), want.String())
	}
}

func TestStalledLogOutputCostsLinesOnly(t *testing.T) {
	for name, test := range map[string]struct {
		line   string
		queued int
	}{
		"many lines": {line: "short\n", queued: maxQueuedLines},
		"long lines": {line: strings.Repeat("x", 1<<16-1) + "\n", queued: maxQueuedBytes>>16 - 1}, // beside the first
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := scriptedOutput{blocked: make(chan struct{})}
				w := newTestWriter(&out)
				w.Write([]byte("first\n"))
				synctest.Wait() // out of the queue, and counted with its bytes
				for range test.queued + 100 {
					w.Write([]byte(test.line))
				}
				if got := w.droppedLines(); got != 100 {
					t.Errorf("dropped %d lines, want 100", got)
				}
				if err := w.Sync(); !errors.Is(err, errFlushTimeout) {
					t.Errorf("Sync of a stalled output: got %v, want %v", err, errFlushTimeout)
				}
				close(out.blocked)
				if err := w.Sync(); err != nil {
					t.Errorf("Sync: %v", err)
				}
				want := "first\n" + strings.Repeat(test.line, test.queued) + fmt.Sprintf("100 dropped in %v\n", flushTimeout)
				if got := out.written(); got != want {
					t.Errorf("got %d bytes ending in %q, want %d bytes ending in %q", len(got), tail(got), len(want), tail(want))
				}
				w.Write([]byte("next\n"))
				w.close()
				if got := out.written(); got != "next\n" {
					t.Errorf("afterwards got %q, want only the next line", got)
				}
			})
		})
	}
}

func tail(s string) string { return s[max(0, len(s)-60):] }

func TestFailingLogOutputIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out scriptedOutput
		w := newTestWriter(&out)
		defer w.close()
		out.set(os.ErrClosed, 0)
		for range 3 {
			w.Write([]byte("lost\n"))
		}
		synctest.Wait()
		if got := w.droppedLines(); got != 3 {
			t.Errorf("dropped %d lines, want 3", got)
		}
		time.Sleep(time.Minute)
		out.set(nil, 0)
		w.Write([]byte("back\n"))
		synctest.Wait()
		if got, want := out.written(), "back\n3 dropped in 1m0s\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestTornLogLineEndsBeforeTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out scriptedOutput
		w := newTestWriter(&out)
		defer w.close()
		out.set(errors.New("disk full"), 3)
		w.Write([]byte("half a line\n"))
		synctest.Wait()
		out.set(nil, 0)
		w.Write([]byte("whole\n"))
		synctest.Wait()
		if got, want := out.written(), "hal\nwhole\n1 dropped in 0s\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestStalledLogOutputDoesNotDelayExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := scriptedOutput{blocked: make(chan struct{})}
		w := newTestWriter(&out)
		w.Write([]byte("never accepted\n"))
		start := time.Now()
		w.close()
		if took := time.Since(start); took != flushTimeout {
			t.Errorf("close took %v, want %v", took, flushTimeout)
		}
		close(out.blocked) // ends the goroutine
	})
}

func TestInterruptedWriterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := scriptedOutput{blocked: make(chan struct{})}
		interrupted := make(chan struct{})
		w := &interruptibleWriter{out: &out, interrupted: interrupted}
		time.AfterFunc(time.Hour, func() { close(interrupted) })
		start := time.Now()
		for range 3 {
			if _, err := w.Write([]byte("line\n")); !errors.Is(err, errFlushTimeout) {
				t.Errorf("Write: got %v, want %v", err, errFlushTimeout)
			}
		}
		if took, want := time.Since(start), time.Hour+flushTimeout; took != want {
			t.Errorf("three writes took %v, want %v", took, want)
		}
		close(out.blocked) // ends the goroutine
	})
}

func TestDurationsInTheLogAreRounded(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		var out bytes.Buffer
		log := newLogger(configs.Log{Level: "info", Format: format}, &out)
		log.Info("draining", zap.Duration("left", 10*time.Minute-41*time.Microsecond))
		log.close()
		if got := out.String(); !strings.Contains(got, `"10m0s"`) {
			t.Errorf("%s: got %q, want 10m0s in it", format, got)
		}
	}
}
