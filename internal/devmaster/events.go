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

// EventKind is the type of an Event, in the form that is logged.
type EventKind string

// All kinds of events.
const (
	NodeRegistered EventKind = "node registered" // Code 201 for a new node, 200 for a known address
	NodeRemoved    EventKind = "node removed"
	NodeOffline    EventKind = "node offline"
	Heartbeat      EventKind = "heartbeat"        // Code 200, or 404 for an unknown node
	PollWithoutJob EventKind = "poll without job" // Code 200, or 400 or 500 if it was rejected
	JobSubmitted   EventKind = "job submitted"
	JobAssigned    EventKind = "job assigned"
	JobReassigned  EventKind = "job reassigned" // from an offline node; Status queued, or failed if no retry was left
	JobCanceled    EventKind = "job canceled"
	JobPaused      EventKind = "job paused"
	JobResumed     EventKind = "job resumed"
	ResultAccepted EventKind = "result accepted"
	ResultRejected EventKind = "result rejected"      // Code 400, 409, 413 or 500
	Unauthorized   EventKind = "unauthorized request" // Code 401 or 403
)

func (k EventKind) level() zapcore.Level {
	switch k {
	case Heartbeat, PollWithoutJob:
		return zap.DebugLevel
	case NodeOffline, JobReassigned, ResultRejected, Unauthorized:
		return zap.WarnLevel
	}
	return zap.InfoLevel
}

// Event is a request to the master or a change of its state.
type Event struct {
	At      time.Time // when the state changed, before it was stored and the response sent
	Kind    EventKind
	Code    int // HTTP status of the response; 0 if no request caused the event
	NodeID  string
	JobID   string
	Attempt int             // attempt of the job; for a result, the attempt it states
	Status  protocol.Status // reported status of a result, or new status of a job
	Detail  string
}

// maxEvents is the maximum number of events kept. When it is reached, the oldest tenth is
// dropped.
const maxEvents = 100_000

// eventLog is a list of events. The zero value is an empty list.
type eventLog struct {
	mu      sync.Mutex
	list    []Event
	dropped int
	added   chan struct{} // closed by the next add; nil if since has not been called
}

func (l *eventLog) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) >= maxEvents {
		l.list = slices.Delete(l.list, 0, maxEvents/10)
		l.dropped += maxEvents / 10
	}
	l.list = append(l.list, e)
	if l.added != nil {
		close(l.added)
		l.added = nil
	}
}

// since returns the events from index from on, the index of the next event, and a channel
// that is closed when it is added. Dropped events count toward the index.
func (l *eventLog) since(from int) (events []Event, next int, added <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.added == nil {
		l.added = make(chan struct{})
	}
	events = slices.Clone(l.list[max(from-l.dropped, 0):])
	return events, l.dropped + len(l.list), l.added
}

// Events returns the past events, oldest first, up to at least the last 90 000.
func (m *Master) Events() []Event {
	events, _, _ := m.events.since(0)
	return events
}

// Await returns the first past or future event that match accepts, or an error when ctx is
// done.
func (m *Master) Await(ctx context.Context, match func(Event) bool) (Event, error) {
	next := 0
	for {
		var events []Event
		var added <-chan struct{}
		events, next, added = m.events.since(next)
		for _, e := range events {
			if match(e) {
				return e, nil
			}
		}
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-added:
		}
	}
}

// record adds an event and logs it. m.mu must be held if the event reports a change of
// state, so that events are in the order of the changes.
func (m *Master) record(e Event) {
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
