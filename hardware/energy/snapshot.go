package energy

import (
	"maps"
	"time"
)

// Snapshot is the state of a Ledger at a time. It is immutable and safe for concurrent use.
type Snapshot struct {
	Zones    []ZoneState             `json:"zones"` // in the order of their first sample
	Jobs     []JobState              `json:"jobs"`  // with an open window, in the order of Open
	Samplers map[string]SamplerState `json:"samplers"`
	// Baseline is that of the counted zones together; nil if that of one is unknown.
	Baseline *Baseline `json:"baseline,omitempty"`
}

// ZoneState is the state of one zone. Energy = Jobs + Idle + Rest + Undivided + Unsettled, to the
// microjoule.
type ZoneState struct {
	*Zone
	// Power is in W, over the last readings at least minPowerTime apart; nil if unknown.
	Power *Watts `json:"power_watts,omitempty"`
	// Energy is the unwrapped counter in µJ since the ledger's creation; it never decreases.
	Energy    Microjoules `json:"energy_microjoules"`
	Jobs      Microjoules `json:"jobs_microjoules"`      // processes of jobs
	Idle      Microjoules `json:"idle_microjoules"`      // the baseline, with and without jobs
	Rest      Microjoules `json:"rest_microjoules"`      // processes of no job
	Undivided Microjoules `json:"undivided_microjoules"` // without a baseline, or with unknown use by process
	Unsettled Microjoules `json:"unsettled_microjoules"` // pending
	Gaps      int         `json:"gaps"`
	Faults    int         `json:"faults"` // failed reads
	// LastReading is zero if the zone has never been read.
	LastReading time.Time `json:"last_reading,omitzero"`
	// Fault is why the zone cannot be read at present; empty if it can.
	Fault string `json:"fault,omitempty"`
}

// Healthy reports whether the last read of the zone succeeded.
func (z *ZoneState) Healthy() bool { return z.Fault == "" && !z.LastReading.IsZero() }

// JobState is the energy of an open window so far.
type JobState struct {
	Job    string    `json:"job"`
	Start  time.Time `json:"start"`
	Source Source    `json:"source"`
	// Energy is in J so far, as in Account.Total; nil if unknown.
	Energy *Joules `json:"joules,omitempty"`
	// Power is in W over the last seconds; nil if unknown.
	Power *Watts `json:"power_watts,omitempty"`
}

// SamplerState counts the samples of a sampler.
type SamplerState struct {
	At      time.Time `json:"last_sample"` // of the last sample
	Samples int       `json:"samples"`
	Faults  int       `json:"faults"`
}

// Power returns the power of the counted zones in W and its source; false if none is known.
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

// Job returns the state of a job; false if it has no open window.
func (s *Snapshot) Job(job string) (JobState, bool) {
	for _, j := range s.Jobs {
		if j.Job == job {
			return j, true
		}
	}
	return JobState{}, false
}

// Snapshot returns the current state of the ledger.
func (l *Ledger) Snapshot() *Snapshot {
	s := &Snapshot{Samplers: maps.Clone(l.samplers)}
	var counted []*zoneLedger
	for _, z := range l.zones {
		if z.removed {
			continue
		}
		s.Zones = append(s.Zones, z.state())
		if z.zone.Counted {
			counted = append(counted, z)
		}
	}
	s.Baseline = sumBaselines(counted, l.time(l.latest))
	pending := l.pendingTallies()
	for _, w := range l.open {
		s.Jobs = append(s.Jobs, l.jobState(w, pending[w]))
	}
	return s
}

func (z *zoneLedger) state() ZoneState {
	all := z.used.plus(z.outside)
	state := ZoneState{
		Zone: z.zone, Energy: z.counter.Total(), Jobs: all.job, Idle: all.idle, Rest: all.rest,
		Undivided: all.ambiguous + all.undivided,
		Gaps:      z.counter.Gaps(), Faults: z.faults, Fault: z.fault,
		Power: z.power.watts(),
	}
	for _, s := range z.pending {
		state.Unsettled += s.energy
	}
	if z.counter.hasLast {
		state.LastReading = z.counter.last.At
	}
	return state
}

// pendingTallies returns the open windows' parts of the pending steps, if these were settled now,
// by window and zone ID.
func (l *Ledger) pendingTallies() map[*window]map[string]*tally {
	pending := map[*window]map[string]*tally{}
	for _, w := range l.open {
		pending[w] = map[string]*tally{}
	}
	for _, z := range l.zones {
		if !z.zone.Counted {
			continue
		}
		for _, s := range z.pending {
			for _, piece := range s.pieces(l.open) {
				a := piece.allocate(l.open, &idleAllocator{})
				for _, share := range a.shares {
					t := pending[share.window][z.zone.ID]
					if t == nil {
						t = newTally()
						pending[share.window][z.zone.ID] = t
					}
					t.add(share.window, piece, a.method, share.attribution)
				}
			}
		}
	}
	return pending
}

// jobState sums up the settled and pending energy of a window.
func (l *Ledger) jobState(w *window, pending map[string]*tally) JobState {
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
		if t := pending[z.zone.ID]; t != nil {
			fresh = *t
		}
		covered := settled.covered + fresh.covered
		if covered == 0 || z.zone.Source == Measured && settled.machine+fresh.machine == 0 {
			continue
		}
		share := settled.share.total() + fresh.share.total()
		energy += share.Joules()
		if fresh.covered >= minPowerTime {
			power += meanPower(fresh.share.total(), fresh.covered)
		} else {
			power += meanPower(share, covered)
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

// minPowerTime is the shortest time over which the current power is computed: over a shorter one,
// the updates of a sensor would look like bursts.
const minPowerTime = 50 * time.Millisecond

// powerMeter computes a zone's current power from its deltas. It is unknown while the counter does
// not move: the sensor has not updated it, or it is stuck.
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
	case m.energy > 0 && m.length >= minPowerTime:
		*m = powerMeter{power: meanPower(m.energy, m.length), known: true}
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
