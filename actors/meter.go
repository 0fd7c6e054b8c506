package actors

import (
	"maps"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
)

// meter owns the energy ledger: it gets the samplers' readings, opens and closes
// the jobs' windows, and posts a snapshot for readers.
type meter struct {
	*env
	log      *zap.Logger
	ledger   *energy.Ledger
	starting map[messages.AttemptKey]bool
	open     map[messages.AttemptKey]bool
	closed   map[messages.AttemptKey]bool // accounted for; the ledger can say it again
	closing  map[uint64]*closing
	readings uint64          // last ID given to a TakeReading
	health   map[string]bool // power samplers, by name: does it work
}

// closing is a window that waits for the readings at its end.
type closing struct {
	exited  *messages.JobExited
	waiting map[string]bool // samplers that have not answered yet
	giveUp  *supervision.Timer
}

func newMeter(e *env) *meter {
	return &meter{
		env:      e,
		log:      e.log.Named("meter"),
		ledger:   energy.NewLedger(energy.LedgerConfig{}),
		starting: map[messages.AttemptKey]bool{},
		open:     map[messages.AttemptKey]bool{},
		closed:   map[messages.AttemptKey]bool{},
		closing:  map[uint64]*closing{},
		health:   map[string]bool{},
	}
}

func (m *meter) Receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		m.refs.jobs.Tell(&messages.MeterStarted{})
		m.setPace()
	case *messages.SamplersStarted:
		m.setPace()
	case *messages.SamplerHealth:
		m.health[msg.Name] = msg.Error == ""
	case *messages.Sampled:
		m.sampled(msg)
	case *messages.JobStarting:
		m.starting[msg.Key] = true
		m.setPace()
		m.takeReading()
	case *messages.JobStarted:
		m.started(msg)
	case *messages.JobExited:
		m.exited(ctx, msg)
	case *messages.JobAbandoned:
		m.forget(msg.Key)
	}
}

func (m *meter) started(msg *messages.JobStarted) {
	delete(m.starting, msg.Key)
	if m.closed[msg.Key] {
		return // an actor that adopts the job walks through its steps again
	}
	m.open[msg.Key] = true
	m.ledger.Open(msg.Key.String(), msg.At)
	m.setPace()
	m.takeReading()
}

func (m *meter) sampled(s *messages.Sampled) {
	m.ledger.Record(s.Sample)
	m.health[s.Sample.Sampler] = true
	for _, id := range s.Answers {
		if c := m.closing[id]; c != nil {
			delete(c.waiting, s.Sample.Sampler)
			if len(c.waiting) == 0 {
				m.close(id)
			}
		}
	}
	m.board.energy.Store(m.ledger.Snapshot())
}

// takeReading asks every sampler for a reading now, and returns what it will answer to.
func (m *meter) takeReading() uint64 {
	m.readings++
	m.refs.samplers.Tell(&messages.TakeReading{ID: m.readings})
	return m.readings
}

// exited waits for one last reading of each working sampler before it accounts for
// the window.
func (m *meter) exited(ctx actor.Context, msg *messages.JobExited) {
	if m.closed[msg.Key] {
		msg.Reply(m.ledger.Close(msg.Key.String(), msg.At))
		return
	}
	// A window whose opening was lost with an earlier incarnation starts where it started.
	m.ledger.Open(msg.Key.String(), msg.Start)
	id := m.takeReading()
	c := &closing{exited: msg, waiting: map[string]bool{}}
	maps.Copy(c.waiting, m.health)
	maps.DeleteFunc(c.waiting, func(_ string, works bool) bool { return !works })
	m.closing[id] = c
	if len(c.waiting) == 0 {
		m.close(id)
		return
	}
	c.giveUp = supervision.After(ctx, msg.Within, func(actor.Context) {
		m.log.Debug("a sampler did not read at the end of a job", zap.String("job", msg.Key.JobID))
		m.close(id)
	})
}

func (m *meter) close(id uint64) {
	c := m.closing[id]
	if c == nil {
		return
	}
	delete(m.closing, id)
	if c.giveUp != nil {
		c.giveUp.Stop()
	}
	account := m.ledger.Close(c.exited.Key.String(), c.exited.At)
	delete(m.open, c.exited.Key)
	m.closed[c.exited.Key] = true
	m.setPace()
	c.exited.Reply(account)
}

func (m *meter) forget(key messages.AttemptKey) {
	delete(m.starting, key)
	delete(m.open, key)
	delete(m.closed, key)
	m.ledger.Forget(key.String())
	m.setPace()
}

// setPace has the samplers read often while a job runs, and seldom otherwise.
func (m *meter) setPace() {
	s := m.settings.Load()
	interval := s.IdleSampleInterval
	if len(m.open)+len(m.starting) > 0 {
		interval = s.SampleInterval
	}
	m.refs.samplers.Tell(&messages.SampleEvery{Interval: max(interval, time.Millisecond)})
}
