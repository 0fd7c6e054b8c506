package hardware

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// processSample is a process's utilization of a card since the previous read, in percent.
type processSample struct {
	pid                  int
	sm, encoder, decoder uint32
}

// processTimes sums up, in the child, the time for which each process has used one card. The
// times are known only in the PID namespace whose PIDs the driver reports: in another one, the
// same PIDs belong to other processes.
type processTimes struct {
	procfs  string
	rootNS  bool // this is the initial PID namespace, in which all processes are visible
	readAt  time.Time
	used    map[int]energy.GPUTime
	sampled map[int]time.Time // when a process was last sampled
}

// rootPIDNamespace is the initial PID namespace (PROC_PID_INIT_INO in include/linux/proc_ns.h).
const rootPIDNamespace = "pid:[4026531836]"

// exitedRetention is how long the time of a process is reported separately after its exit.
const exitedRetention = time.Minute

func newProcessTimes(procfs string) *processTimes {
	namespace, _ := os.Readlink(filepath.Join(procfs, "self/ns/pid"))
	return &processTimes{
		procfs: procfs, rootNS: namespace == rootPIDNamespace, readAt: time.Now(),
		used: map[int]energy.GPUTime{}, sampled: map[int]time.Time{},
	}
}

// add adds the samples since the previous read and returns the sums; nil if they are unknown. ok
// is false if the card does not report samples.
func (p *processTimes) add(samples []processSample, ok bool, now time.Time) map[int]energy.GPUTime {
	elapsed := now.Sub(p.readAt)
	p.readAt = now
	if !ok || p.foreign(samples) {
		return nil
	}
	for _, s := range samples {
		if s.pid <= 0 || s.sm > 100 || s.encoder > 100 || s.decoder > 100 {
			continue // padding of some drivers
		}
		p.used[s.pid] = p.used[s.pid].Add(energy.GPUTime{
			SM: share(s.sm, elapsed), Encoder: share(s.encoder, elapsed), Decoder: share(s.decoder, elapsed),
		})
		p.sampled[s.pid] = now
	}
	for pid, at := range p.sampled {
		if now.Sub(at) > exitedRetention && !exists(p.procfs, pid) {
			delete(p.used, pid)
			delete(p.sampled, pid)
		}
	}
	return maps.Clone(p.used)
}

func share(percent uint32, of time.Duration) time.Duration {
	return of / 100 * time.Duration(percent)
}

// foreign reports whether a sampled process is outside of this PID namespace.
func (p *processTimes) foreign(samples []processSample) bool {
	if p.rootNS {
		return false
	}
	for _, s := range samples {
		if _, known := p.used[s.pid]; !known && s.pid > 0 && !exists(p.procfs, s.pid) {
			return true
		}
	}
	return false
}

func exists(procfs string, pid int) bool {
	_, err := os.Stat(filepath.Join(procfs, strconv.Itoa(pid)))
	return err == nil
}

// processTotals adds up, in the parent, the sums of successive children, each of which starts
// at 0.
type processTotals struct {
	procfs string
	source any                    // the child that reported latest
	latest map[int]energy.GPUTime // its sums
	total  map[int]energy.GPUTime
}

// add updates the sums of one child and returns the totals; nil if they are unknown.
func (p *processTotals) add(source any, sums map[int]energy.GPUTime) map[int]energy.GPUTime {
	if sums == nil {
		return nil
	}
	if p.source != source {
		p.source, p.latest = source, nil
	}
	if p.total == nil {
		p.total = map[int]energy.GPUTime{}
	}
	for pid, now := range sums {
		before := p.latest[pid]
		if now.Total() < before.Total() {
			before = energy.GPUTime{} // the PID was reused
		}
		p.total[pid] = p.total[pid].Add(now).Sub(before)
	}
	for pid, total := range p.total {
		if _, reported := sums[pid]; !reported && pid != energy.ExitedPID && !exists(p.procfs, pid) {
			p.total[energy.ExitedPID] = p.total[energy.ExitedPID].Add(total)
			delete(p.total, pid)
		}
	}
	p.latest = sums
	return maps.Clone(p.total)
}
