package actors

import (
	"errors"
	"time"

	"ffmpeg-agent/messages/protocol"

	"go.uber.org/zap"
)

// outage says in the log that something keeps failing without saying it each time:
// at once, when the reason changes, and then every so often until it works again.
type outage struct {
	log   *zap.Logger
	what  string
	since time.Time
	said  time.Time
	last  string
	count int
}

const repeatOutage = time.Minute

func (o *outage) failed(err error, fields ...zap.Field) {
	now := time.Now()
	if o.count == 0 {
		o.since = now
	}
	o.count++
	if err.Error() == o.last && now.Sub(o.said) < repeatOutage {
		return
	}
	o.last, o.said = err.Error(), now
	fields = append(fields, zap.Error(err), zap.Int("failures", o.count))
	if masterErrorKind(err) == protocol.Unauthorized {
		o.log.Error(o.what+" failed: the master does not accept this agent's key", fields...)
		return
	}
	o.log.Warn(o.what+" failed", fields...)
}

func (o *outage) over() {
	if o.count > 0 {
		o.log.Info(o.what+" works again", zap.Int("failures", o.count), zap.Duration("outage", time.Since(o.since)))
	}
	o.count, o.last = 0, ""
}

// masterErrorKind is the kind of a master's error; any other error counts as unreachable.
func masterErrorKind(err error) protocol.ErrorKind {
	var m *protocol.Error
	if errors.As(err, &m) {
		return m.Kind
	}
	return protocol.Unreachable
}
