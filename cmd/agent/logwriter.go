package main

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"ffmpeg-agent/internal/safetext"
)

// The log lines that wait for an output that does not accept them. More are dropped.
const (
	maxQueuedLines = 4096
	maxQueuedBytes = 1 << 20
)

// flushTimeout bounds the wait for an output that does not accept lines before exit.
const flushTimeout = time.Second

var errFlushTimeout = errors.New("log output does not accept lines")

// logWriter is a zapcore.WriteSyncer for an output that may block or fail, such as a pipe
// that nobody reads. Write queues a line and returns at once; one goroutine writes the
// queue. A line that finds the queue full, or that the output refuses, is dropped and
// counted, and each following line is tried again. When a write has succeeded and the queue
// is empty, one line reports how many were dropped.
type logWriter struct {
	out     io.Writer
	notice  func(dropped int, since time.Time) []byte
	lines   chan []byte
	bytes   atomic.Int64 // in lines
	flushes chan chan<- struct{}
	stop    chan struct{} // closed by close
	stopped chan struct{} // closed when the goroutine has ended
	torn    bool          // the output holds the beginning of a line; used by the goroutine alone

	mu         sync.Mutex
	dropped    uint64    // since the start
	unreported int       // of dropped
	since      time.Time // of the first unreported one
}

// newLogWriter starts a writer to out. notice formats the line that reports dropped lines.
func newLogWriter(out io.Writer, notice func(dropped int, since time.Time) []byte) *logWriter {
	w := &logWriter{
		out: out, notice: notice, lines: make(chan []byte, maxQueuedLines), flushes: make(chan chan<- struct{}),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go w.run()
	return w
}

// Write queues a copy of a line, without the characters that terminals obey. It never blocks
// and never fails.
func (w *logWriter) Write(line []byte) (int, error) {
	clean := safetext.Lines(string(line))
	if w.bytes.Add(int64(len(clean))) <= maxQueuedBytes {
		select {
		case w.lines <- []byte(clean):
			return len(line), nil
		default:
		}
	}
	w.bytes.Add(-int64(len(clean)))
	w.drop()
	return len(line), nil
}

// Sync waits until the queued lines are written, flushTimeout at most. Zap calls it after
// a line of a level above error.
func (w *logWriter) Sync() error {
	timeout := time.After(flushTimeout)
	flushed := make(chan struct{})
	select {
	case w.flushes <- flushed:
	case <-w.stopped:
		return nil
	case <-timeout:
		return errFlushTimeout
	}
	select {
	case <-flushed:
		return nil
	case <-timeout:
		return errFlushTimeout
	}
}

// close writes the queued lines and ends the goroutine. Where the output blocks it returns
// after flushTimeout and leaves the goroutine to it. Lines written later are lost.
func (w *logWriter) close() {
	close(w.stop)
	select {
	case <-w.stopped:
	case <-time.After(flushTimeout):
	}
}

// droppedLines is the number of lines dropped since the start.
func (w *logWriter) droppedLines() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

func (w *logWriter) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unreported == 0 {
		w.since = time.Now()
	}
	w.dropped++
	w.unreported++
}

func (w *logWriter) run() {
	defer close(w.stopped)
	for {
		select {
		case line := <-w.lines:
			w.put(line)
		case flushed := <-w.flushes:
			w.drain()
			close(flushed)
		case <-w.stop:
			w.drain()
			return
		}
	}
}

func (w *logWriter) drain() {
	for {
		select {
		case line := <-w.lines:
			w.put(line)
		default:
			return
		}
	}
}

func (w *logWriter) put(line []byte) {
	written := w.write(line)
	w.bytes.Add(-int64(len(line)))
	switch {
	case !written:
		w.drop()
	case len(w.lines) == 0:
		w.report()
	}
}

// report writes a line about the dropped lines, if there are any.
func (w *logWriter) report() {
	w.mu.Lock()
	dropped, since := w.unreported, w.since
	w.mu.Unlock()
	if dropped == 0 || !w.write(w.notice(dropped, since)) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unreported -= dropped
	w.since = time.Now()
}

// write reports whether the output accepted the whole line. A line after one that was
// accepted in part only, for want of disk space for instance, begins on a fresh line.
func (w *logWriter) write(line []byte) bool {
	if w.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := w.out.Write(line)
	if n > 0 {
		w.torn = n < len(line) && line[n-1] != '\n'
	}
	return err == nil
}

// interruptibleWriter writes like its output until it is interrupted, and then waits for it
// no longer than flushTimeout in all: a command that a signal ends must not hang because
// nobody reads what it prints. Not for concurrent use.
type interruptibleWriter struct {
	out         io.Writer
	interrupted <-chan struct{}
	gaveUp      bool
}

func (w *interruptibleWriter) Write(text []byte) (int, error) {
	if w.gaveUp {
		return 0, errFlushTimeout
	}
	var n int
	var err error
	text = append([]byte(nil), text...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err = w.out.Write(text)
	}()
	select {
	case <-done:
		return n, err
	case <-w.interrupted:
	}
	select {
	case <-done:
		return n, err
	case <-time.After(flushTimeout):
		w.gaveUp = true
		return 0, errFlushTimeout
	}
}
