package hardware

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// processSample is what a process used of a card since the last look, in percent of
// the time.
type processSample struct {
	pid                  int
	sm, encoder, decoder uint32
}

// processUse adds up each process's use of one card. It is known only where the
// processes that the driver names are ours to see: with a PID namespace between, their
// numbers are other processes'.
type processUse struct {
	procfs string
	host   bool // this is the machine's first PID namespace: all processes are ours to see
	last   time.Time
	used   map[int]energy.GPUTime
	latest map[int]time.Time // when a process was last seen
}

// firstPIDNamespace is how the kernel names the namespace that the machine booted
// with (PROC_PID_INIT_INO in include/linux/proc_ns.h).
const firstPIDNamespace = "pid:[4026531836]"

// forgetAfter is how long what an ended process has used is still told.
const forgetAfter = time.Minute

func newProcessUse(procfs string) *processUse {
	namespace, _ := os.Readlink(filepath.Join(procfs, "self/ns/pid"))
	return &processUse{
		procfs: procfs, host: namespace == firstPIDNamespace, last: time.Now(),
		used: map[int]energy.GPUTime{}, latest: map[int]time.Time{},
	}
}

// since is the moment of the last look.
func (p *processUse) since() time.Time { return p.last }

// add takes what was used up to now and returns the sums; nil where they are not
// known. ok is false where the card did not tell.
func (p *processUse) add(samples []processSample, ok bool, now time.Time) map[int]energy.GPUTime {
	elapsed := now.Sub(p.last)
	p.last = now
	if !ok || p.strangers(samples) {
		return nil
	}
	for _, s := range samples {
		if s.pid <= 0 || s.sm > 100 || s.encoder > 100 || s.decoder > 100 {
			continue // some drivers fill up with such
		}
		use := p.used[s.pid]
		use.SM += share(s.sm, elapsed)
		use.Encoder += share(s.encoder, elapsed)
		use.Decoder += share(s.decoder, elapsed)
		p.used[s.pid], p.latest[s.pid] = use, now
	}
	p.forget(now)
	return maps.Clone(p.used)
}

func share(percent uint32, of time.Duration) time.Duration {
	return of / 100 * time.Duration(percent)
}

// strangers: there is a process that is not ours to see and never was.
func (p *processUse) strangers(samples []processSample) bool {
	if p.host {
		return false
	}
	for _, s := range samples {
		if _, known := p.used[s.pid]; !known && s.pid > 0 && !visible(p.procfs, s.pid) {
			return true
		}
	}
	return false
}

func visible(procfs string, pid int) bool {
	_, err := os.Stat(filepath.Join(procfs, strconv.Itoa(pid)))
	return err == nil
}

func (p *processUse) forget(now time.Time) {
	for pid, seen := range p.latest {
		if now.Sub(seen) > forgetAfter && !visible(p.procfs, pid) {
			delete(p.used, pid)
			delete(p.latest, pid)
		}
	}
}

// useTotals goes on adding up where a new child begins at 0.
type useTotals struct {
	procfs string
	teller any                    // whose sums told are
	told   map[int]energy.GPUTime // at the last look
	total  map[int]energy.GPUTime
}

// add takes a child's sums and returns those of all children; nil where they are not
// known.
func (u *useTotals) add(teller any, sums map[int]energy.GPUTime) map[int]energy.GPUTime {
	if sums == nil {
		return nil
	}
	if u.teller != teller {
		u.teller, u.told = teller, nil
	}
	if u.total == nil {
		u.total = map[int]energy.GPUTime{}
	}
	for pid, now := range sums {
		before, total := u.told[pid], u.total[pid]
		if now.Total() < before.Total() {
			before = energy.GPUTime{} // another process of that number
		}
		u.total[pid] = total.Add(now).Sub(before)
	}
	for pid, total := range u.total {
		if _, told := sums[pid]; !told && pid != energy.ExitedPID && !visible(u.procfs, pid) {
			u.total[energy.ExitedPID] = u.total[energy.ExitedPID].Add(total)
			delete(u.total, pid)
		}
	}
	u.told = sums
	return maps.Clone(u.total)
}

// throttleBits are NVML's reasons for lower clocks, by bit (nvmlClocksEventReason… in
// nvml.h). That the card is idle, the first one, is none here.
var throttleBits = []string{
	"", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal_slowdown",
	"hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clock_setting", "board_limit", "reliability",
}

// throttleNames are the reasons in a mask. Bits that got a meaning later go by their
// number.
func throttleNames(mask uint64) []string {
	names := []string{}
	for bit := range 64 {
		switch {
		case mask>>bit&1 == 0, bit == 0:
		case bit < len(throttleBits):
			names = append(names, throttleBits[bit])
		default:
			names = append(names, fmt.Sprintf("bit_%d", bit))
		}
	}
	return names
}
