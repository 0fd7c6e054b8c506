package actors

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// meter owns the energy ledger: it gets the samplers' readings, opens and closes
// the jobs' windows, and posts a snapshot for readers.
type meter struct {
	*env
	log      *zap.Logger
	ledger   *energy.Ledger
	taken    map[job.Key]bool // worked for
	closed   map[job.Key]energy.Account
	closing  map[uint64]*closing
	readings uint64          // last ID given to a TakeReading
	health   map[string]bool // power samplers, by name: does it work
	heard    map[string]bool // those that have given a reading
	saved    map[string]energy.Baseline
	posting  bool      // a snapshot will be posted
	saveAt   time.Time // when baselines may be saved next; zero while they are being read or saved
}

// baselineSaving is how often what is learned of the idle machine is saved.
const baselineSaving = time.Minute

// postDelay is how old what readers see may be.
const postDelay = 250 * time.Millisecond

// closing is a window that waits for the readings at its end.
type closing struct {
	exited  *messages.JobExited
	waiting map[string]bool // samplers that have not answered yet
	giveUp  *supervision.Timer
}

func newMeter(e *env) *meter {
	return &meter{
		env:     e,
		log:     e.log.Named("meter"),
		ledger:  energy.NewLedger(),
		taken:   map[job.Key]bool{},
		closed:  map[job.Key]energy.Account{},
		closing: map[uint64]*closing{},
		health:  map[string]bool{},
		heard:   map[string]bool{},
	}
}

func (m *meter) Receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		m.refs.jobs.Tell(&messages.MeterStarted{})
		m.setPace()
		m.restoreBaselines(ctx)
	case *messages.SamplersStarted:
		m.setPace()
	case *messages.SamplerHealth:
		m.health[msg.Name] = msg.Error == "" && msg.Absent == ""
		if msg.Have != nil {
			m.ledger.SetZones(msg.Name, msg.Have)
		}
	case *messages.Sampled:
		m.sampled(ctx, msg)
	case *messages.JobTaken:
		m.take(msg.Key, msg.At)
	case *messages.JobStarting:
		m.takeReading()
	case *messages.JobStarted:
		m.started(msg)
	case *messages.JobExited:
		m.exited(ctx, msg)
	case *messages.CurveWanted:
		msg.Reply(m.ledger.Curve(msg.Key.String()))
	case *messages.JobGone:
		m.forget(msg.Key)
	}
}

func (m *meter) take(key job.Key, at time.Time) {
	m.taken[key] = true
	m.ledger.Track(key.String(), at)
	m.setPace()
}

func (m *meter) started(msg *messages.JobStarted) {
	if _, closed := m.closed[msg.Key]; closed {
		return // an actor that adopts the job walks through its steps again
	}
	m.take(msg.Key, msg.At)
	m.ledger.Open(msg.Key.String(), msg.At)
	m.takeReading()
}

func (m *meter) sampled(ctx actor.Context, s *messages.Sampled) {
	if m.Prove != nil && m.proved.Load() == nil {
		m.ledger.MarkBusy(s.Sample.At) // encoders are being tried
	}
	m.ledger.Record(s.Sample)
	if len(s.Sample.Readings) > 0 {
		m.health[s.Sample.Sampler], m.heard[s.Sample.Sampler] = true, true
	}
	for _, id := range s.Answers {
		if c := m.closing[id]; c != nil {
			delete(c.waiting, s.Sample.Sampler)
			if len(c.waiting) == 0 {
				m.close(id)
			}
		}
	}
	m.post(ctx)
	m.saveBaselines(ctx)
}

// post has readers see what was recorded: once for samples that come close together.
func (m *meter) post(ctx actor.Context) {
	if m.posting {
		return
	}
	m.posting = true
	supervision.After(ctx, postDelay, func(actor.Context) {
		m.posting = false
		m.board.energy.Store(m.ledger.Snapshot())
	})
}

// restoreBaselines takes over what an earlier life learned of this machine while it was
// idle.
func (m *meter) restoreBaselines(ctx actor.Context) {
	if m.Journal == nil {
		return // what is learned is not kept
	}
	supervision.Go(ctx, func(context.Context) (energy.Baselines, error) {
		saved, _, err := m.Journal.Baselines()
		return saved, err
	}, func(_ actor.Context, saved energy.Baselines, err error) {
		if err != nil {
			m.log.Warn("what was learned of the idle machine cannot be read", zap.Error(err))
		}
		if saved.Machine == m.Facts.CPUModel {
			m.saved = saved.Zones
			m.ledger.RestoreBaselines(saved.Zones)
		}
		m.saveAt = time.Now()
	})
}

// saveBaselines saves what was learned since the last time, now and then.
func (m *meter) saveBaselines(ctx actor.Context) {
	if m.saveAt.IsZero() || time.Now().Before(m.saveAt) {
		return
	}
	learned := m.ledger.Baselines()
	if maps.Equal(learned, m.saved) {
		return
	}
	m.saveAt = time.Time{}
	supervision.Go(ctx, func(context.Context) (struct{}, error) {
		return struct{}{}, m.Journal.SaveBaselines(energy.Baselines{Machine: m.Facts.CPUModel, Zones: learned})
	}, func(_ actor.Context, _ struct{}, err error) {
		if err != nil {
			m.log.Debug("what was learned of the idle machine cannot be saved", zap.Error(err))
		} else {
			m.saved = learned
		}
		m.saveAt = time.Now().Add(baselineSaving)
	})
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
	if account, closed := m.closed[msg.Key]; closed {
		msg.Reply(account)
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
	account := m.account(c.exited)
	m.closed[c.exited.Key] = account
	c.exited.Reply(account)
}

// account is the ledger's, and names the samplers that should read something and never did: no
// zone tells of them.
func (m *meter) account(exited *messages.JobExited) energy.Account {
	account := m.ledger.Close(exited.Key.String(), exited.At)
	for _, sampler := range m.board.Samplers() {
		if sampler.Error != "" && !m.heard[sampler.Name] {
			account.Notes = append(account.Notes, fmt.Sprintf("%s sensors are not read: %s", sampler.Name, sampler.Error))
		}
	}
	return account
}

func (m *meter) forget(key job.Key) {
	delete(m.taken, key)
	delete(m.closed, key)
	m.ledger.Forget(key.String())
	m.setPace()
}

// setPace has the samplers read often while there is a job, and seldom otherwise.
func (m *meter) setPace() {
	s := m.settings.Load()
	interval := s.IdleSampleInterval
	if len(m.taken) > 0 {
		interval = s.SampleInterval
	}
	m.refs.samplers.Tell(&messages.SampleEvery{Interval: max(interval, time.Millisecond)})
}
