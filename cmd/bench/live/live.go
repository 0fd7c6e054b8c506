// Package live is a fake machine of known power that runs in real time, and that knows
// how late it was: its counters are renewed when this machine schedules it, which is no
// fault of whoever reads them.
package live

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

// Machine is a running fake machine.
type Machine struct {
	Tree  *fakehw.Tree
	epoch time.Time
	zones map[string]*fakehw.Zone
	stop  chan struct{}
	done  chan struct{}
	err   error // once done is closed

	mu    sync.Mutex
	beats []beat
}

// beat is one renewal of the counters: what they say, and since when they do.
type beat struct{ to, written time.Duration }

// interval at which counters are renewed, as real ones are.
const interval = time.Millisecond

// New makes a machine in a directory; it stands still until Run.
func New(dir string, zones ...fakehw.ZoneConfig) (*Machine, error) {
	tree, err := fakehw.New(dir)
	if err != nil {
		return nil, err
	}
	m := &Machine{Tree: tree, zones: map[string]*fakehw.Zone{}, stop: make(chan struct{}), done: make(chan struct{})}
	for _, config := range zones {
		if m.zones[config.ID], err = tree.AddZone(config); err != nil {
			return nil, errors.Join(err, tree.Close())
		}
	}
	return m, nil
}

// Run lets time pass, until Close.
func (m *Machine) Run() {
	m.epoch = time.Now()
	m.beats = []beat{{}}
	go func() {
		defer close(m.done)
		// What keeps time goes first, where this process may say so; the thread ends with it.
		runtime.LockOSThread()
		syscall.Setpriority(syscall.PRIO_PROCESS, 0, -10) //nolint:errcheck // else it is later, and says so
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-m.stop:
				return
			case <-ticker.C:
			}
			to := m.Now()
			if m.err = m.Tree.AdvanceTo(to); m.err != nil {
				return
			}
			m.mu.Lock()
			m.beats = append(m.beats, beat{to: to, written: m.Now()})
			m.mu.Unlock()
		}
	}()
}

// Close stops a running machine; the error is why it stopped before that, if it did.
func (m *Machine) Close() error {
	close(m.stop)
	<-m.done
	return errors.Join(m.err, m.Tree.Close())
}

// Now is how long the machine has run.
func (m *Machine) Now() time.Duration { return time.Since(m.epoch) }

// Since puts a moment on the machine's clock.
func (m *Machine) Since(moment time.Time) time.Duration { return moment.Sub(m.epoch) }

// Joules is what zones truly used between two moments on the machine's clock.
func (m *Machine) Joules(from, to time.Duration, ids ...string) float64 {
	sum := 0.0
	for _, id := range ids {
		sum += m.zones[id].Joules(from, to)
	}
	return sum
}

// Late is how much older than it should be a counter was at most, whenever it was read
// between two moments on the machine's clock.
func (m *Machine) Late(from, to time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	worst := time.Duration(0)
	for i, b := range m.beats {
		until := to // the last one holds on
		if i+1 < len(m.beats) {
			until = m.beats[i+1].written
		}
		if b.written <= to && from <= until {
			worst = max(worst, min(until, to)-b.to)
		}
	}
	return worst
}

// near a window's edge lie the readings between which it is cut, also where whoever reads
// was held up.
const near = 500 * time.Millisecond

// LateAt is Late at the readings around a moment.
func (m *Machine) LateAt(moment time.Duration) time.Duration {
	return m.Late(moment-near, moment+near)
}

// Dial is power in W that can be set while the machine runs.
type Dial struct {
	mu    sync.Mutex
	steps []step
}

type step struct {
	from  time.Duration
	watts float64
}

// NewDial begins at a power.
func NewDial(watts float64) *Dial { return &Dial{steps: []step{{0, watts}}} }

// Power is the dial's curve.
func (d *Dial) Power(at time.Duration) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	watts := 0.0
	for _, s := range d.steps {
		if s.from <= at {
			watts = s.watts
		}
	}
	return watts
}

// soon is how far ahead a dial is set, since the past has been counted.
const soon = 5 * time.Millisecond

// Turn sets a dial from now on.
func (m *Machine) Turn(d *Dial, watts float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps = append(d.steps, step{(m.Now() + soon).Truncate(time.Millisecond), watts})
}

// String tells how the machine fares.
func (m *Machine) String() string {
	return fmt.Sprintf("%v, counters up to %v late", m.Now().Round(time.Millisecond), m.Late(0, m.Now()))
}
