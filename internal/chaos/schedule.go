package chaos

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

// PlannedFault is one fault of a schedule.
type PlannedFault struct {
	Number int           `json:"number"`
	At     time.Duration `json:"at_ns"` // after the first fault could have come; rests do not count
	Kind   string        `json:"kind"`
	Agent  int           `json:"agent"` // from 0
	Seed   uint64        `json:"draw"`  // seeds what the fault itself chooses
}

// Schedule is all that a run does to its agents, and when.
type Schedule struct {
	Seed   uint64         `json:"seed"`
	Agents int            `json:"agents"`
	Length time.Duration  `json:"length_ns"`
	Burst  time.Duration  `json:"burst_ns"` // faults come in bursts; after each the agents are let rest
	Faults []PlannedFault `json:"faults"`
}

// NewSchedule makes a schedule from a seed: the same arguments give the same one. Each kind
// comes once at least, the rest by weight. Agents end by turns, one in each burst, so
// that the others live long enough to show what they accumulate; all at once where
// nothing else is to be shown.
func NewSchedule(seed uint64, agents, faults int, length, burst time.Duration, kinds []Kind) Schedule {
	s := Schedule{Seed: seed, Agents: agents, Length: length, Burst: burst}
	if len(kinds) == 0 || faults <= 0 {
		return s
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	inTurn := slices.ContainsFunc(kinds, func(k Kind) bool { return !k.EndsAgent })
	chosen := slices.Clone(kinds)
	rnd.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	chosen = chosen[:min(len(chosen), faults)]
	for len(chosen) < faults {
		chosen = append(chosen, pickWeighted(rnd, kinds))
	}
	rnd.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	for _, k := range chosen {
		p := PlannedFault{At: time.Duration(rnd.Int64N(int64(length))), Kind: k.Name, Agent: rnd.IntN(agents), Seed: rnd.Uint64()}
		if k.EndsAgent && inTurn {
			p.Agent = int(p.At/burst) % agents
		}
		s.Faults = append(s.Faults, p)
	}
	slices.SortStableFunc(s.Faults, func(a, b PlannedFault) int { return cmp.Compare(a.At, b.At) })
	for i := range s.Faults {
		s.Faults[i].Number = i + 1
	}
	return s
}

func pickWeighted(rnd *rand.Rand, kinds []Kind) Kind {
	total := 0.0
	for _, k := range kinds {
		total += k.Weight
	}
	x := rnd.Float64() * total
	for _, k := range kinds {
		if x -= k.Weight; x < 0 {
			return k
		}
	}
	return kinds[len(kinds)-1]
}

// SelectKinds returns the kinds whose names begin with one of the prefixes; all for none. A
// prefix that fits nothing is an error that names what there is.
func SelectKinds(kinds []Kind, prefixes []string) ([]Kind, error) {
	if len(prefixes) == 0 {
		return kinds, nil
	}
	var chosen []Kind
	used := map[string]bool{}
	for _, k := range kinds {
		for _, p := range prefixes {
			if strings.HasPrefix(k.Name, p) {
				used[p] = true
				if !slices.ContainsFunc(chosen, func(c Kind) bool { return c.Name == k.Name }) {
					chosen = append(chosen, k)
				}
			}
		}
	}
	for _, p := range prefixes {
		if !used[p] {
			var names []string
			for _, k := range kinds {
				names = append(names, k.Name)
			}
			return nil, fmt.Errorf("no kind of fault begins with %q; there are: %s", p, strings.Join(names, ", "))
		}
	}
	return chosen, nil
}

// Save writes a schedule to be replayed.
func (s Schedule) Save(path string) error {
	raw, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

// LoadSchedule reads a schedule that was saved, whole or cut down by hand.
func LoadSchedule(path string) (Schedule, error) {
	var s Schedule
	raw, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("reading the schedule %s: %w", path, err)
	}
	if s.Agents < 1 || s.Burst <= 0 || s.Length <= 0 {
		return s, fmt.Errorf("the schedule %s names no agents, or no length", path)
	}
	known := map[string]bool{}
	for _, k := range Kinds() {
		known[k.Name] = true
	}
	for _, f := range s.Faults {
		if !known[f.Kind] || f.Agent < 0 || f.Agent >= s.Agents {
			return s, fmt.Errorf("the schedule %s: fault %d: no kind %q for agent %d", path, f.Number, f.Kind, f.Agent)
		}
	}
	return s, nil
}
