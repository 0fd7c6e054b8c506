package chaos

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// resultEnergy is what is read of a result's energy.
type resultEnergy struct {
	Start, End time.Time
	Machine    energyValue
	Zones      []struct {
		ID, Domain string
		Counted    bool
		energyValue
	}
}

// energyValue is an amount of energy with what is said of it.
type energyValue struct {
	Joules   *float64
	Source   string
	Coverage float64  `json:"coverage_percent"`
	Bound    *float64 `json:"error_bound_joules"`
}

// The fake counters of a zone are written by this program, so that they come late when it
// does; readings of cards are as old as their library lets them be.
const (
	counterLag      = 100 * time.Millisecond
	counterCatchUp  = time.Second // after a stall of this program
	joulesTolerance = 0.01        // of the truth
)

// checkJoules: each zone's joules are the true ones of the part of the encode that they
// are said to cover, an unknown figure is absent, nothing is measured and estimated at once,
// and the whole is the sum of the counted zones, of which none is part of another.
func (h *History) checkJoules() Finding {
	f := Finding{Invariant: "joules are true, or say what they miss"}
	zones, gaps, absent, maxError := 0, 0, 0, 0.0
	for i := range h.Exchanges {
		x := &h.Exchanges[i]
		e, ok := x.energy()
		if !ok {
			continue
		}
		f.Checked++
		name := fmt.Sprintf("job %s, attempt %d, of agent %d", x.Result.JobID, x.Result.Attempt, x.Agent)
		window := e.End.Sub(e.Start).Seconds()
		sum, estimated, counters := 0.0, 0.0, 0.0
		for _, z := range e.Zones {
			if z.Counted && h.NestedZones[z.ID] {
				f.violate("%s: %s counts, and so does the zone around it", name, z.ID)
			}
			watts, known := h.TruePower[z.ID]
			switch {
			case z.Source == "estimated" && z.Joules != nil: // a model's, and named so
				if z.Counted { // else it stood in until something better came
					sum += *z.Joules
					estimated = z.Coverage
				}
				continue
			case !known:
				f.violate("%s has a zone %s, which there is not", name, z.ID)
				continue
			case z.Joules == nil:
				absent++
				if z.Source == "measured" {
					f.violate("%s: %s is measured, and absent", name, z.ID)
				}
				continue
			}
			zones++
			if z.Counted {
				sum += *z.Joules
			}
			if z.Domain == "cpu" {
				counters = max(counters, z.Coverage)
			}
			if z.Coverage < 100 {
				gaps++
			}
			truth := watts * window * z.Coverage / 100
			allowed := watts*(counterLag+h.stalledFor(e.Start.Add(-counterCatchUp), e.End)).Seconds() + joulesTolerance*truth
			if z.Bound != nil {
				allowed += *z.Bound
			}
			deviation := math.Abs(*z.Joules - truth)
			if window >= 1 && z.Coverage == 100 {
				maxError = max(maxError, deviation/truth)
			}
			if deviation > allowed {
				f.violate("%s: %s is %.2f J of %.1f %% of %.2f s, and was %.2f J (allowed are %.2f J)", name, z.ID, *z.Joules, z.Coverage, window, truth, allowed)
			}
		}
		if estimated+counters > 101 {
			f.violate("%s: %.1f %% of the processors' energy are estimated, and %.1f %% are measured as well", name, estimated, counters)
		}
		if e.Machine.Joules != nil && math.Abs(*e.Machine.Joules-sum) > 1e-3 {
			f.violate("%s: the machine's %.3f J are not the counted zones' %.3f J", name, *e.Machine.Joules, sum)
		}
	}
	f.Note = fmt.Sprintf("%d zones, %d with gaps, %d absent; at most %.1f %% off in a second or more, where covered", zones, gaps, absent, 100*maxError)
	return f
}

// energy is that of a result; false where it has none.
func (x *Exchange) energy() (e resultEnergy, ok bool) {
	if x.Result == nil || x.Result.AnalyzerOutput["energy"] == nil {
		return e, false
	}
	raw, err := json.Marshal(x.Result.AnalyzerOutput["energy"])
	if err != nil || json.Unmarshal(raw, &e) != nil || !e.End.After(e.Start) {
		return e, false
	}
	return e, true
}
