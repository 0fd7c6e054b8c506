package actors

import (
	"time"

	"ffmpeg-agent/messages/protocol"

	"go.uber.org/zap"
)

// outage logs a lasting failure: at once, when its reason changes, every minute, and
// when it is over.
type outage struct {
	log     *zap.Logger
	failing string // message while it fails, such as "could not deliver a result"
	over    string // message once it does not: "results are delivered again"

	since  time.Time // of the first failure
	logged time.Time
	last   string // error logged last
	count  int
}

// journalOutage is for failing writes to the journal.
func journalOutage(log *zap.Logger) outage {
	return outage{log: log, failing: "could not write to the journal", over: "the journal is writable again"}
}

const repeatOutage = time.Minute

func (o *outage) failed(err error, fields ...zap.Field) {
	now := time.Now()
	if o.count == 0 {
		o.since = now
	}
	o.count++
	if err.Error() == o.last && now.Sub(o.logged) < repeatOutage {
		return
	}
	o.last, o.logged = err.Error(), now
	fields = append(fields, zap.Error(err), zap.Int("failures", o.count))
	if protocol.KindOf(err) == protocol.Unauthorized {
		o.log.Error(o.failing+": the master rejected this agent's API key", fields...)
		return
	}
	o.log.Warn(o.failing, fields...)
}

func (o *outage) recovered() {
	if o.count > 0 {
		o.log.Info(o.over, zap.Int("failures", o.count), zap.Duration("outage", time.Since(o.since)))
	}
	o.count, o.last = 0, ""
}
