package chaos

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// A history is saved as one JSON value a line, each an object of one field that names its
// kind: "run", then the findings, which are for readers alone, and one kind after the other.

// runInfo is what a run was, and how it ended.
type runInfo struct {
	HeartbeatInterval     time.Duration
	TruePower             map[string]float64
	NestedZones           map[string]bool
	Unsettled             string
	UnexpectedDeadLetters int
	UnreadSensors         []string
}

// section is one kind of what a history holds.
type section struct {
	write func(write func(any))
	add   func(raw []byte) error
}

func sectionOf[T any](all *[]T) section {
	return section{
		write: func(write func(any)) {
			for _, x := range *all {
				write(x)
			}
		},
		add: func(raw []byte) error {
			var x T
			err := json.Unmarshal(raw, &x)
			*all = append(*all, x)
			return err
		},
	}
}

// sectionNames are in the order in which they are written.
var sectionNames = []string{"fault", "process", "cleanup", "usage", "epoch", "stall", "heartbeat", "event", "output", "request", "job"}

func sectionsOf(h *History, jobs *[]*Job) map[string]section {
	return map[string]section{
		"fault": sectionOf(&h.Faults), "process": sectionOf(&h.Processes), "cleanup": sectionOf(&h.Cleanups), "usage": sectionOf(&h.IdleUsage), "epoch": sectionOf(&h.Epochs),
		"stall": sectionOf(&h.Stalls), "heartbeat": sectionOf(&h.Heartbeats), "event": sectionOf(&h.Events), "output": sectionOf(&h.Outputs), "request": sectionOf(&h.Exchanges), "job": sectionOf(jobs),
	}
}

// Save writes what was seen and what was found, but of results only what is judged.
func (h *History) Save(path string, findings []Finding) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buffered := bufio.NewWriter(f)
	out := json.NewEncoder(buffered)
	write := func(kind string, value any) {
		if err == nil {
			err = out.Encode(map[string]any{kind: value})
		}
	}
	write("run", runInfo{h.HeartbeatInterval, h.TruePower, h.NestedZones, h.Unsettled, h.UnexpectedDeadLetters, h.UnreadSensors})
	for _, x := range findings {
		write("finding", x)
	}
	jobs := h.sortedJobs()
	parts := sectionsOf(h, &jobs)
	for _, name := range sectionNames {
		parts[name].write(func(value any) {
			if x, ok := value.(Exchange); ok {
				value = x.trimmed()
			}
			write(name, value)
		})
	}
	if err != nil {
		return err
	}
	return buffered.Flush()
}

// trimmed is an exchange without what is not judged.
func (x Exchange) trimmed() Exchange {
	if x.Result != nil {
		brief := *x.Result
		brief.Logs, brief.Metrics, brief.AnalyzerOutput = "", nil, nil
		if e := x.Result.AnalyzerOutput["energy"]; e != nil {
			brief.AnalyzerOutput = map[string]any{"energy": e}
		}
		x.Result = &brief
	}
	return x
}

// LoadHistory reads what Save has written, so that it can be judged again.
func LoadHistory(path string) (*History, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := &History{HeartbeatInterval: heartbeatInterval, Jobs: map[string]*Job{}}
	var jobs []*Job
	parts := sectionsOf(h, &jobs)
	in := json.NewDecoder(bufio.NewReader(f))
	for n := 1; in.More(); n++ {
		var line map[string]json.RawMessage
		if err := in.Decode(&line); err != nil {
			return nil, fmt.Errorf("reading %s, value %d: %w", path, n, err)
		}
		for name, raw := range line {
			if err := h.restore(parts, name, raw); err != nil {
				return nil, fmt.Errorf("reading %s, value %d, a %s: %w", path, n, name, err)
			}
		}
	}
	for _, j := range jobs {
		h.Jobs[j.ID] = j
	}
	return h, nil
}

func (h *History) restore(parts map[string]section, name string, raw []byte) error {
	switch name {
	case "finding":
		return nil
	case "run":
		var a runInfo
		if err := json.Unmarshal(raw, &a); err != nil {
			return err
		}
		h.HeartbeatInterval, h.TruePower, h.NestedZones, h.Unsettled, h.UnexpectedDeadLetters, h.UnreadSensors = a.HeartbeatInterval, a.TruePower, a.NestedZones, a.Unsettled, a.UnexpectedDeadLetters, a.UnreadSensors
		return nil
	}
	k, known := parts[name]
	if !known {
		return fmt.Errorf("there is no such kind")
	}
	return k.add(raw)
}
