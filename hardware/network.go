package hardware

import (
	"path/filepath"
	"strconv"
	"time"
)

// traffic is the bytes that a network interface has received and sent so far.
type traffic struct {
	at             time.Time
	received, sent uint64
}

// networkLoad returns the load of the busiest network interface since the previous call: the
// traffic of its busier direction in percent of its speed, 0 to 100. It is nil in the first
// call, and if no physical interface reports its speed.
func (h *Host) networkLoad() *float64 {
	before := h.traffic
	h.traffic = map[string]traffic{}
	var busiest *float64
	// Virtual interfaces have no device. Their traffic passes through a physical one if it leaves
	// the machine.
	devices, _ := filepath.Glob(filepath.Join(h.config.SysfsPath, "class", "net", "*", "device"))
	for _, device := range devices {
		dir := filepath.Dir(device)
		speed, err := strconv.ParseUint(readWord(dir, "speed"), 10, 32) // Mbit/s; -1 or an error: unknown
		now, ok := readTraffic(dir)
		if err != nil || speed == 0 || !ok {
			continue
		}
		h.traffic[dir] = now
		last, seen := before[dir]
		seconds := now.at.Sub(last.at).Seconds()
		if !seen || seconds <= 0 || now.received < last.received || now.sent < last.sent {
			continue
		}
		bits := 8 * float64(max(now.received-last.received, now.sent-last.sent))
		percent := min(100, 100*bits/seconds/(float64(speed)*1e6))
		if busiest == nil || percent > *busiest {
			busiest = &percent
		}
	}
	return busiest
}

func readTraffic(dir string) (t traffic, ok bool) {
	received, err := strconv.ParseUint(readWord(dir, "statistics", "rx_bytes"), 10, 64)
	if err != nil {
		return t, false
	}
	sent, err := strconv.ParseUint(readWord(dir, "statistics", "tx_bytes"), 10, 64)
	return traffic{at: time.Now(), received: received, sent: sent}, err == nil
}
