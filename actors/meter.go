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

// baselineSaving is how often the learned idle baseline is saved.
const baselineSaving = time.Minute

// postDelay bounds the age of the posted snapshot.
const postDelay = 250 * time.Millisecond

// meter owns the energy ledger: it records the samplers' readings, opens and closes the
// attempts' windows, and posts a snapshot for readers.
type meter struct {
	*shared
	log      *zap.Logger
	ledger   *energy.Ledger
	running  map[job.Key]bool // attempts that are followed
	closed   map[phaseOf]bool // windows of these that are closed
	closing  map[uint64]*closing
	readings uint64          // ID of the last TakeReading
	health   map[string]bool // power samplers, by name: does it work
	everRead map[string]bool // those that have given a reading
	saved    map[string]energy.Baseline
	posting  bool      // a snapshot will be posted
	saveAt   time.Time // when baselines may be saved next; zero while they are being read or saved
}

// phaseOf names a window: an attempt has one for each phase whose energy is accounted, one
// after the other.
type phaseOf struct {
	key   job.Key
	phase job.Phase
}

// closing is a window that waits for the readings at its end.
type closing struct {
	request *messages.CloseWindow
	waiting map[string]bool // samplers that have not answered yet
	giveUp  *supervision.Timer
}

func newMeter(s *shared) *meter {
	return &meter{
		shared:   s,
		log:      s.log.Named("meter"),
		ledger:   energy.NewLedger(),
		running:  map[job.Key]bool{},
		closed:   map[phaseOf]bool{},
		closing:  map[uint64]*closing{},
		health:   map[string]bool{},
		everRead: map[string]bool{},
	}
}

func (m *meter) Receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		m.refs.jobs.Tell(&messages.SendState{})
		m.setPace()
		m.restoreBaselines(ctx)
	case *messages.SendState, *messages.SettingsChanged:
		m.setPace()
	case *messages.SamplerHealth:
		m.health[msg.Name] = msg.Error == "" && msg.Absent == ""
		if msg.Have != nil {
			m.ledger.SetZones(msg.Name, msg.Have)
		}
	case *messages.Sampled:
		m.sampled(ctx, msg)
	case *messages.RunningAttempts:
		m.follow(msg.Attempts)
	case *messages.OpenWindow:
		m.open(phaseOf{msg.Key, msg.Phase}, msg.At)
		m.takeReading()
	case *messages.CloseWindow:
		m.closeWindow(ctx, msg)
	case *messages.GetCurve:
		msg.Reply(m.ledger.Curve(msg.Key.String()))
	}
}

// follow makes the ledger follow exactly these attempts. One that is new to it may have
// been running for a while: this incarnation may just have started.
func (m *meter) follow(attempts []messages.RunningAttempt) {
	now := map[job.Key]bool{}
	for _, a := range attempts {
		now[a.Key] = true
		m.run(a.Key, a.Since)
		if a.Started != nil {
			m.open(phaseOf{a.Key, job.PhaseRun}, *a.Started)
		}
	}
	for key := range m.running {
		if !now[key] {
			delete(m.running, key)
			maps.DeleteFunc(m.closed, func(w phaseOf, _ bool) bool { return w.key == key })
			m.ledger.Forget(key.String())
		}
	}
	m.setPace()
}

func (m *meter) run(key job.Key, since time.Time) {
	if !m.running[key] {
		m.running[key] = true
		m.ledger.Track(key.String(), since)
	}
}

// open opens a window. One of another phase of the attempt that still waits for its last
// reading is closed first: the ledger has one at a time.
func (m *meter) open(w phaseOf, at time.Time) {
	if m.closed[w] {
		return
	}
	for id, c := range m.closing {
		if c.request.Key == w.key && c.request.Phase != w.phase {
			m.close(id)
		}
	}
	m.run(w.key, at)
	m.ledger.Open(w.key.String(), at)
}

func (m *meter) sampled(ctx actor.Context, s *messages.Sampled) {
	if m.Prove != nil && m.proved.Load() == nil {
		m.ledger.MarkBusy(s.Sample.At) // trial encodes are running
	}
	m.ledger.Record(s.Sample)
	if len(s.Sample.Readings) > 0 {
		m.health[s.Sample.Sampler], m.everRead[s.Sample.Sampler] = true, true
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

// post posts a snapshot: one for samples that come close together.
func (m *meter) post(ctx actor.Context) {
	if m.posting {
		return
	}
	m.posting = true
	supervision.After(ctx, postDelay, func(actor.Context) {
		m.posting = false
		m.snapshots.energy.Store(m.ledger.Snapshot())
	})
}

// restoreBaselines restores the idle baseline that a previous process learned.
func (m *meter) restoreBaselines(ctx actor.Context) {
	if m.Journal == nil {
		return // exporters alone: the baseline is not kept
	}
	supervision.Go(ctx, func(context.Context) (energy.Baselines, error) {
		saved, _, err := m.Journal.Baselines()
		return saved, err
	}, func(_ actor.Context, saved energy.Baselines, err error) {
		if err != nil {
			m.log.Warn("could not read the saved idle baseline", zap.Error(err))
		}
		if saved.Machine == m.Facts.CPUModel {
			m.saved = saved.Zones
			m.ledger.RestoreBaselines(saved.Zones)
		}
		m.saveAt = time.Now()
	})
}

// saveBaselines saves the idle baseline once a minute where it changed.
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
			m.log.Debug("could not save the idle baseline", zap.Error(err))
		} else {
			m.saved = learned
		}
		m.saveAt = time.Now().Add(baselineSaving)
	})
}

// takeReading asks every sampler for a reading now, and returns the ID of the request.
func (m *meter) takeReading() uint64 {
	m.readings++
	m.refs.samplers.Tell(&messages.TakeReading{ID: m.readings})
	return m.readings
}

// closeWindow waits for one last reading of each working sampler before it accounts for
// the window.
func (m *meter) closeWindow(ctx actor.Context, request *messages.CloseWindow) {
	m.open(phaseOf{request.Key, request.Phase}, request.Start) // if that got lost with an earlier incarnation
	id := m.takeReading()
	c := &closing{request: request, waiting: map[string]bool{}}
	maps.Copy(c.waiting, m.health)
	maps.DeleteFunc(c.waiting, func(_ string, works bool) bool { return !works })
	m.closing[id] = c
	if len(c.waiting) == 0 {
		m.close(id)
		return
	}
	c.giveUp = supervision.After(ctx, request.Within, func(actor.Context) {
		m.log.Debug("no reading of a sampler at the end of a job", zap.String("job", request.Key.JobID))
		m.close(id)
	})
}

func (m *meter) close(id uint64) {
	c := m.closing[id]
	if c == nil {
		return
	}
	delete(m.closing, id)
	c.giveUp.Stop()
	m.closed[phaseOf{c.request.Key, c.request.Phase}] = true
	c.request.Reply(m.account(c.request))
}

// account is the ledger's account of a window, with a note for each sampler that should
// have read something and never did: no zone shows that.
func (m *meter) account(request *messages.CloseWindow) energy.Account {
	account := m.ledger.Close(request.Key.String(), request.At)
	for _, sampler := range m.snapshots.Samplers() {
		if sampler.Error != "" && !m.everRead[sampler.Name] {
			account.Notes = append(account.Notes, fmt.Sprintf("%s sensors could not be read: %s", sampler.Name, sampler.Error))
		}
	}
	return account
}

// setPace has the samplers read often while there is a job, and seldom otherwise.
func (m *meter) setPace() {
	s := m.settings()
	interval := s.IdleSampleInterval
	if len(m.running) > 0 {
		interval = s.SampleInterval
	}
	m.refs.samplers.Tell(&messages.SampleEvery{Interval: max(interval, time.Millisecond)})
}
