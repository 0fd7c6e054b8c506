package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cleanupTimeout is how long an agent that can work may take to clean up after the one
// before it.
const cleanupTimeout = 20 * time.Second

// findLeftovers are what a dead process has left for the next to clean up, each with a way to
// see whether it is still there. It is called while the agent is dead.
func (a *agent) findLeftovers() map[string]func() bool {
	exists := func(path string) func() bool {
		return func() bool { _, err := os.Lstat(path); return err == nil }
	}
	items := map[string]func() bool{}
	workspaces, _ := filepath.Glob(filepath.Join(a.data.dir, "work", "*"))
	for _, w := range workspaces {
		items["workspace "+filepath.Base(w)] = exists(w)
		var manifest struct {
			Temps []string `json:"temporary_outputs"`
		}
		raw, _ := os.ReadFile(filepath.Join(w, "manifest.json"))
		if json.Unmarshal(raw, &manifest) == nil {
			for _, output := range manifest.Temps {
				items["temporary output "+output] = exists(output)
			}
		}
		if at, ok := (Proc{Dir: w}).attempt(); ok {
			items[journalEntry(at)] = func() bool { return a.isUnfinished(at) }
		}
	}
	for _, c := range a.jobCgroups() {
		items["cgroup "+c] = exists(c)
	}
	return items
}

// isUnfinished reports whether the journal still takes an attempt for running; true as
// long as it cannot be asked.
func (a *agent) isUnfinished(at Attempt) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	states, err := a.control.records(ctx, at.Job)
	return err != nil || states[at.Number].State == "accepted" || states[at.Number].State == "running"
}

func journalEntry(at Attempt) string { return fmt.Sprintf("journal entry %s#%d", at.Job, at.Number) }

// cleanupWatch watches a process clean up after those before it.
type cleanupWatch struct {
	process   int
	done      bool
	available time.Duration // for how long the process could have cleaned up
	checked   time.Time
	items     int
	lastItem  string   // one that was still there at the last look
	reruns    []string // attempts of the dead that run again
}

func (c *cleanupWatch) check(a *agent, process int) {
	now := time.Now()
	if process != c.process {
		a.mu.Lock()
		*c = cleanupWatch{process: process, checked: now, items: len(a.leftovers)}
		a.mu.Unlock()
	}
	elapsed := min(now.Sub(c.checked), time.Second)
	c.checked = now
	if c.done {
		return
	}
	c.noteReruns(a)
	if a.blocked.Load() == 0 {
		c.available += elapsed
	}
	a.mu.Lock()
	leftovers := a.leftovers
	a.mu.Unlock()
	var remaining []string
	for name, exists := range leftovers {
		if exists() {
			remaining = append(remaining, name)
		}
	}
	remaining = append(remaining, c.reruns...)
	slices.Sort(remaining)
	if len(remaining) > len(c.reruns) && c.available < cleanupTimeout {
		c.lastItem = remaining[0]
		return
	}
	c.done = true
	a.mu.Lock()
	a.leftovers, a.journalDamaged = nil, false
	a.mu.Unlock()
	if c.items > 0 {
		a.recorder.update(func(h *History) {
			h.Cleanups = append(h.Cleanups, Cleanup{a.n, process, c.items, remaining, c.available, c.lastItem})
		})
	}
}

// noteReruns notes attempts that a dead process had begun and that are begun again: they are to
// be reported as failed instead.
func (c *cleanupWatch) noteReruns(a *agent) {
	now := a.status()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range now.Jobs {
		if j.Phase == "prepare" {
			continue // so far the journal may still say that it has ended
		}
		entry := journalEntry(Attempt{j.Key.Job, j.Key.Attempt})
		if _, begun := a.leftovers[entry]; begun && !a.journalDamaged {
			rerun := entry + " runs again"
			if !slices.Contains(c.reruns, rerun) {
				c.reruns = append(c.reruns, rerun)
			}
		}
	}
}

// jobCgroups are the cgroups of the agent's jobs.
func (a *agent) jobCgroups() []string {
	a.mu.Lock()
	pattern := a.cgroupPattern
	a.mu.Unlock()
	if pattern == "" {
		return nil
	}
	groups, _ := filepath.Glob(pattern)
	return groups
}

func (a *agent) cgroupPatternUnknown() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cgroupPattern == ""
}

// learnCgroupPattern finds out how the agent names its jobs' cgroups, from one of their processes.
func (a *agent) learnCgroupPattern(p Proc) {
	pattern := cgroupPatternOf(p.cgroup())
	if pattern == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cgroupPattern = filepath.Join(cgroupMount(), pattern)
}

// cgroupPatternOf is what the cgroups of all jobs of an agent look like, given the path of one
// or of one below it; empty: it is no job's.
func cgroupPatternOf(path string) string {
	const prefix = "ffmpeg-agent-"
	const hash = 9 // what distinguishes agents, and a dash
	for ; len(path) > 1; path = filepath.Dir(path) {
		if base := filepath.Base(path); strings.HasPrefix(base, prefix) && len(base) >= len(prefix)+hash {
			return filepath.Join(filepath.Dir(path), base[:len(prefix)+hash]+"*")
		}
	}
	return ""
}

// jobLeftovers is what only a job at work may have: cgroups, and outputs that are not final
// yet, in the folder of all agents.
func (a *agent) jobLeftovers() []string {
	partial, _ := filepath.Glob(filepath.Join(a.outputs, ".*.partial-*"))
	return append(partial, a.jobCgroups()...)
}
