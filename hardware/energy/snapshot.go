package energy

import (
	"maps"
	"time"
)

// Snapshot is what a Ledger knows at a moment. It is immutable and may be read
// from anywhere.
type Snapshot struct {
	Zones    []ZoneState             `json:"zones"` // in the order they were first heard of
	Jobs     []JobState              `json:"jobs"`  // open ones, in the order they began
	Samplers map[string]SamplerState `json:"samplers"`
	// Baseline of the counted zones; nil where one is not known.
	Baseline *Baseline `json:"baseline,omitempty"`
}

// ZoneState is one zone. Energy = Jobs + Idle + Rest + Undivided + Unsettled, to the
// microjoule.
type ZoneState struct {
	*Zone
	// Power in W over the last readings, at least powerSpan apart; nil when
	// unknown.
	Power *Watts `json:"power_watts,omitempty"`
	// Energy in µJ since the ledger began, unwrapped; it never goes back.
	Energy    Microjoules `json:"energy_microjoules"`
	Jobs      Microjoules `json:"jobs_microjoules"`      // by the jobs' own processes
	Idle      Microjoules `json:"idle_microjoules"`      // the baseline, whether jobs ran or not
	Rest      Microjoules `json:"rest_microjoules"`      // by processes of no job
	Undivided Microjoules `json:"undivided_microjoules"` // of times without a baseline, or when it was not known who used what
	Unsettled Microjoules `json:"unsettled_microjoules"` // not yet split for good
	Gaps      int         `json:"gaps"`
	Faults    int         `json:"faults"` // reads that failed
	// LastReading is zero when the zone was never read.
	LastReading time.Time `json:"last_reading,omitzero"`
	// Fault is why the zone cannot be read at present; empty when it can.
	Fault string `json:"fault,omitempty"`
}

// Healthy: the last attempt to read the zone succeeded.
func (z *ZoneState) Healthy() bool { return z.Fault == "" && !z.LastReading.IsZero() }

// JobState is an open job so far.
type JobState struct {
	Job    string    `json:"job"`
	Start  time.Time `json:"start"`
	Source Source    `json:"source"`
	// Energy in J so far, as Account.Total will have it; nil when unknown.
	Energy *Joules `json:"joules,omitempty"`
	// Power in W over the last seconds; nil when unknown.
	Power *Watts `json:"power_watts,omitempty"`
}

// SamplerState is how a sampler fares.
type SamplerState struct {
	At      time.Time `json:"last_sample"` // of its last sample
	Samples int       `json:"samples"`
	Faults  int       `json:"faults"`
}

// Power of the counted zones, in W, and its source; false when none is known.
func (s *Snapshot) Power() (Watts, Source, bool) {
	var sum Watts
	source := Unavailable
	for _, z := range s.Zones {
		if z.Counted && z.Power != nil {
			sum += *z.Power
			if source != Estimated {
				source = z.Source
			}
		}
	}
	return sum, source, source != Unavailable
}

// Job finds an open job.
func (s *Snapshot) Job(job string) (JobState, bool) {
	for _, j := range s.Jobs {
		if j.Job == job {
			return j, true
		}
	}
	return JobState{}, false
}

// Snapshot is what the ledger knows now.
func (l *Ledger) Snapshot() *Snapshot {
	s := &Snapshot{Samplers: maps.Clone(l.samplers)}
	recent := l.recent()
	var counted []*zoneBook
	for _, z := range l.zones {
		if z.gone {
			continue
		}
		s.Zones = append(s.Zones, z.state())
		if z.zone.Counted {
			counted = append(counted, z)
		}
	}
	s.Baseline = sumBaselines(counted, l.wall(l.latest))
	for _, w := range l.open {
		s.Jobs = append(s.Jobs, l.jobState(w, recent[w]))
	}
	return s
}

func (z *zoneBook) state() ZoneState {
	all := z.used
	all.add(z.loose)
	state := ZoneState{
		Zone: z.zone, Energy: z.counter.Total(), Jobs: all.own, Idle: all.idle, Rest: all.rest,
		Undivided: all.vague + all.undivided,
		Gaps:      z.counter.Gaps(), Faults: z.faults, Fault: z.fault,
		Power: z.power.watts(),
	}
	for _, iv := range z.pending {
		state.Unsettled += iv.energy
	}
	if z.counter.hasLast {
		state.LastReading = z.counter.last.At
	}
	return state
}

// recent is what the open windows will get of what is not settled yet, as far as
// can be told now, by zone ID.
func (l *Ledger) recent() map[*window]map[string]*tally {
	all := map[*window]map[string]*tally{}
	for _, w := range l.open {
		all[w] = map[string]*tally{}
	}
	for _, z := range l.zones {
		if !z.zone.Counted {
			continue
		}
		for _, iv := range z.pending {
			for _, s := range split(iv, l.open, &idleBudget{}) {
				for _, one := range s.shares {
					t := all[one.owner][z.zone.ID]
					if t == nil {
						t = newTally()
						all[one.owner][z.zone.ID] = t
					}
					t.take(one.owner, iv, &s, one.parts)
				}
			}
		}
	}
	return all
}

// jobState adds up a window so far: what is settled and what is recent.
func (l *Ledger) jobState(w *window, recent map[string]*tally) JobState {
	state := JobState{Job: w.job, Start: w.start, Source: Unavailable}
	var energy Joules
	var power Watts
	for _, z := range l.zones {
		if !z.zone.Counted {
			continue
		}
		var settled, fresh tally
		if t := w.tallies[z.zone.ID]; t != nil {
			settled = *t
		}
		if t := recent[z.zone.ID]; t != nil {
			fresh = *t
		}
		covered := settled.covered + fresh.covered
		if covered <= 0 || z.zone.Source == Measured && settled.machine+fresh.machine == 0 {
			continue
		}
		share := settled.share.sum() + fresh.share.sum()
		energy += share.Joules()
		if fresh.covered >= powerSpan {
			power += Watts(float64(fresh.share.sum().Joules()) / fresh.covered.Seconds())
		} else {
			power += Watts(float64(share.Joules()) / covered.Seconds())
		}
		if state.Source != Estimated {
			state.Source = z.zone.Source
		}
	}
	if state.Source != Unavailable {
		state.Energy, state.Power = &energy, &power
	}
	return state
}

// powerSpan is the shortest time over which a power is told: over less, a
// sensor's own delay would show as bursts.
const powerSpan = 50 * time.Millisecond

// powerMeter tells a zone's present power from its steps. A counter that does not move
// has none: it was not renewed, or never is.
type powerMeter struct {
	energy Microjoules
	length time.Duration
	power  Watts
	known  bool
}

func (m *powerMeter) add(d Delta) {
	if d.Gap {
		*m = powerMeter{}
		return
	}
	m.energy += d.Energy
	m.length += d.Elapsed
	switch {
	case m.length >= powerSpan && m.energy > 0:
		m.power, m.known = Watts(float64(m.energy.Joules())/m.length.Seconds()), true
		m.energy, m.length = 0, 0
	case m.length >= stuckAfter:
		*m = powerMeter{}
	}
}

func (m *powerMeter) watts() *Watts {
	if !m.known {
		return nil
	}
	power := m.power
	return &power
}
