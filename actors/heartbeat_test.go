package actors

import (
	"testing"
	"time"

	"ffmpeg-agent/messages"
)

func TestWatchdogJudgesHeartbeatAttempts(t *testing.T) {
	start := time.Now()
	at := func(d time.Duration) *time.Time { t := start.Add(d); return &t }
	session := &messages.Session{Since: start.Add(-24 * time.Hour)} // resumed
	failing := func(last *time.Time) *messages.HeartbeatStatus {
		return &messages.HeartbeatStatus{LastAttempt: last, Error: "connection refused"}
	}
	for name, test := range map[string]struct {
		session   *messages.Session
		heartbeat *messages.HeartbeatStatus
		now       time.Duration
		late      bool
	}{
		"before a session":              {now: time.Hour},
		"just resumed":                  {session: session, now: 59 * time.Second},
		"resumed, none attempted":       {session: session, now: 61 * time.Second, late: true},
		"just registered":               {session: &messages.Session{Since: *at(time.Hour)}, now: time.Hour + 59*time.Second},
		"attempted, not answered":       {session: session, heartbeat: failing(at(time.Hour)), now: time.Hour + 59*time.Second},
		"no longer attempted":           {session: session, heartbeat: failing(at(time.Hour)), now: time.Hour + 61*time.Second, late: true},
		"answered by an earlier master": {session: &messages.Session{Since: *at(time.Hour)}, heartbeat: failing(at(0)), now: time.Hour + 59*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shared{started: start}
			s.current.Store(&Settings{HeartbeatInterval: 30 * time.Second})
			s.snapshots.session.Store(test.session)
			s.snapshots.heartbeat.Store(test.heartbeat)
			if err := s.heartbeatLate(start.Add(test.now)); (err != nil) != test.late {
				t.Errorf("got %v, want late: %v", err, test.late)
			}
		})
	}
}
