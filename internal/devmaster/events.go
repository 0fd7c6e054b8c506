package devmaster

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"ffmpeg-agent/messages/protocol"
)

// EventKind says what happened, in plain words.
type EventKind string

// What a master notes.
const (
	NodeRegistered EventKind = "node registered" // Code 201: new; 200: the same address again
	NodeRemoved    EventKind = "node removed"
	NodeOffline    EventKind = "node offline"
	Heartbeat      EventKind = "heartbeat"        // Code 200, or 404 for an unknown node
	Polled         EventKind = "poll without job" // Code 200: no work; 400 or 500: refused
	JobSubmitted   EventKind = "job submitted"
	JobAssigned    EventKind = "job assigned"
	JobReassigned  EventKind = "job taken from silent node" // Status queued, or failed when no retry was left
	JobCanceled    EventKind = "job canceled"
	JobPaused      EventKind = "job paused"
	JobResumed     EventKind = "job resumed"
	ResultAccepted EventKind = "result accepted"
	ResultRefused  EventKind = "result refused"              // Code 400, 409, 413 or 500
	Unauthorized   EventKind = "request refused for its key" // Code 401 or 403
)

func (k EventKind) level() zapcore.Level {
	switch k {
	case Heartbeat, Polled:
		return zap.DebugLevel
	case NodeOffline, JobReassigned, ResultRefused, Unauthorized:
		return zap.WarnLevel
	}
	return zap.InfoLevel
}

// Event is one thing that happened at the master.
type Event struct {
	At      time.Time // when the state changed, before it was written or answered
	Kind    EventKind
	Code    int // the HTTP status it was answered with; 0 where no request caused it
	NodeID  string
	JobID   string
	Attempt int             // the job's attempt; of a result: as the result states it
	Status  protocol.Status // of a result: as reported; of a reassigned job: what it became
	Detail  string
}

// maxEvents bounds the events kept; beyond it the oldest tenth is dropped.
const maxEvents = 100_000

// eventLog is the list of events; its zero value is empty and ready.
type eventLog struct {
	mu      sync.Mutex
	list    []Event
	dropped int
	grown   chan struct{} // closed at the next event; nil while nobody waits
}

func (l *eventLog) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) >= maxEvents {
		l.list = slices.Delete(l.list, 0, maxEvents/10)
		l.dropped += maxEvents / 10
	}
	l.list = append(l.list, e)
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
}

// since copies the events from position from on, counted from the very first,
// and returns the position after them and a channel that closes at the next event.
func (l *eventLog) since(from int) (events []Event, next int, grown <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grown == nil {
		l.grown = make(chan struct{})
	}
	events = slices.Clone(l.list[max(from-l.dropped, 0):])
	return events, l.dropped + len(l.list), l.grown
}

// Events returns what happened so far, oldest first: at least the last 90 000 events.
func (m *Master) Events() []Event {
	events, _, _ := m.events.since(0)
	return events
}

// Await returns the first event, past or to come, that match accepts. It
// returns ctx's error when ctx ends first.
func (m *Master) Await(ctx context.Context, match func(Event) bool) (Event, error) {
	next := 0
	for {
		var events []Event
		var grown <-chan struct{}
		events, next, grown = m.events.since(next)
		for _, e := range events {
			if match(e) {
				return e, nil
			}
		}
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-grown:
		}
	}
}

// note keeps an event and logs it. Where it records a change of state it is
// called with m.mu held, so that events and changes have one order.
func (m *Master) note(e Event) {
	e.At = time.Now()
	m.events.add(e)
	entry := m.log.Check(e.Kind.level(), string(e.Kind))
	if entry == nil {
		return
	}
	var fields []zap.Field
	text := func(key, value string) {
		if value != "" {
			fields = append(fields, zap.String(key, value))
		}
	}
	text("job", e.JobID)
	text("node", e.NodeID)
	if e.Attempt != 0 {
		fields = append(fields, zap.Int("attempt", e.Attempt))
	}
	text("status", string(e.Status))
	if e.Code != 0 {
		fields = append(fields, zap.Int("code", e.Code))
	}
	text("detail", e.Detail)
	entry.Write(fields...)
}
