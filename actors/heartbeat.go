package actors

import (
	"context"
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// heartbeat sends heartbeats on schedule, whatever else the agent does. It waits for no
// other actor and takes its session from the snapshots, so its own restart delays no heartbeat.
type heartbeat struct {
	*shared
	log      *zap.Logger
	status   messages.HeartbeatStatus
	next     *supervision.Timer
	interval time.Duration // from the last attempt to next
	refused  bool          // the last one may succeed with another key
	inFlight *supervision.Task
	failures outage
}

func newHeartbeat(s *shared) *heartbeat {
	log := s.log.Named("heartbeat")
	h := &heartbeat{shared: s, log: log, failures: outage{log: log, failing: "heartbeat failed", over: "heartbeats are answered again"}}
	if s := s.snapshots.Heartbeat(); s != nil {
		h.status = *s
	}
	return h
}

func (h *heartbeat) Receive(ctx actor.Context) {
	switch ctx.Message().(type) {
	case *actor.Started, *messages.SessionChanged:
		if h.snapshots.Session() != nil {
			h.beat(ctx)
		}
	case *messages.SettingsChanged:
		h.reschedule(ctx)
	}
}

// reschedule applies a changed interval from the last heartbeat on. One that was refused is
// sent again at once.
func (h *heartbeat) reschedule(ctx actor.Context) {
	if h.next == nil || (h.interval == h.settings().HeartbeatInterval && !h.refused) {
		return
	}
	due := time.Duration(0)
	if !h.refused {
		due = h.settings().HeartbeatInterval - age(*h.status.LastAttempt)
	}
	h.interval = h.settings().HeartbeatInterval
	h.next.Stop()
	h.next = supervision.After(ctx, max(0, due), h.beat)
}

// beat sends one heartbeat and schedules the next from now, not from the response. One
// that is still in flight by then is past its deadline and dropped.
func (h *heartbeat) beat(ctx actor.Context) {
	if h.next != nil {
		h.next.Stop()
	}
	if h.inFlight != nil {
		h.inFlight.Cancel()
	}
	interval := h.settings().HeartbeatInterval
	h.interval, h.refused = interval, false
	h.next = supervision.After(ctx, interval, h.beat)

	session := *h.snapshots.Session()
	status := h.nodeStatus()
	now := time.Now()
	h.status.LastAttempt = &now
	h.status.Attempts++
	h.post()
	h.inFlight = supervision.Go(ctx, func(work context.Context) (struct{}, error) {
		work, cancel := context.WithTimeout(work, interval/2)
		defer cancel()
		return struct{}{}, h.Master.Heartbeat(work, session, status)
	}, func(_ actor.Context, _ struct{}, err error) {
		h.inFlight = nil
		h.answered(session, now, err)
	})
}

func (h *heartbeat) answered(session messages.Session, sentAt time.Time, err error) {
	defer h.post()
	if err != nil {
		h.status.Failed++
		h.refused = dependsOnKey(err)
		h.status.Error, h.status.KeyRefused = err.Error(), protocol.KindOf(err) == protocol.Unauthorized
		if protocol.KindOf(err) == protocol.NotFound {
			h.refs.registrar.Tell(&messages.RegisterAgain{Session: session, Reason: "the master does not know this node any more"})
			return
		}
		h.failures.failed(err)
		return
	}
	if silence := h.contact.answered(sentAt, h.settings().UnavailableAfter); silence > 0 {
		h.refs.registrar.Tell(&messages.RegisterAgain{Session: session,
			Reason: fmt.Sprintf("no heartbeat was answered for %s", silence.Round(time.Second))})
	}
	now := time.Now()
	h.status.Sent++
	h.status.LastSuccess, h.status.Error, h.status.KeyRefused = &now, "", false
	h.log.Debug("heartbeat answered", zap.Duration("took", now.Sub(sentAt)))
	h.failures.recovered()
}

func (h *heartbeat) post() {
	s := h.status
	h.snapshots.heartbeat.Store(&s)
}

// heartbeatSlack is how much later than an interval after the last one a heartbeat may be
// attempted before it counts as late: the machine may be busy, or the heartbeat restarting.
const heartbeatSlack = 30 * time.Second

// heartbeatLate returns an error if the attempt at a heartbeat is overdue.
func (s *shared) heartbeatLate(now time.Time) error {
	session := s.snapshots.Session()
	if session == nil {
		return nil // none is due before there is one
	}
	last := s.started // a session may be resumed, that is, older than this process
	if session.Since.After(last) {
		last = session.Since
	}
	if h := s.snapshots.Heartbeat(); h != nil && h.LastAttempt != nil && h.LastAttempt.After(last) {
		last = *h.LastAttempt
	}
	if silence := now.Sub(last); silence > s.settings().HeartbeatInterval+heartbeatSlack {
		return fmt.Errorf("no heartbeat attempted for %s, and the interval is %s", silence.Round(time.Second), s.settings().HeartbeatInterval)
	}
	return nil
}

func (h *heartbeat) nodeStatus() messages.NodeStatus {
	s := messages.NodeStatus{Status: "available", RunningJobs: []string{}}
	for _, a := range h.attempts.list() {
		s.RunningJobs = append(s.RunningJobs, a.key.JobID)
		s.Status = "busy"
	}
	if h.snapshots.Draining() {
		s.Status = "draining"
	}
	if host := h.snapshots.Host(); host != nil {
		s.HostStatus = *host
	}
	return s
}
