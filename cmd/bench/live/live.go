// Package live runs a fake machine of known power in real time. It records how late its
// counters were updated, so that tests can allow for scheduling delays of the real machine.
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

	mu      sync.Mutex
	updates []update
}

// update is one update of the counters: they hold the energy up to a time, and were written
// at a later one.
type update struct{ to, written time.Duration }

// interval between updates, as of real counters.
const interval = time.Millisecond

// New creates a machine in a directory. Its time starts with Run.
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

// Run starts the machine, which runs until Close.
func (m *Machine) Run() {
	m.epoch = time.Now()
	m.updates = []update{{}}
	go func() {
		defer close(m.done)
		// Updates are more punctual at a higher priority. The locked thread exits with the goroutine.
		runtime.LockOSThread()
		syscall.Setpriority(syscall.PRIO_PROCESS, 0, -10) //nolint:errcheck // not permitted for every user
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
			m.updates = append(m.updates, update{to: to, written: m.Now()})
			m.mu.Unlock()
		}
	}()
}

// Close stops a running machine. It returns the error that stopped it earlier, if any.
func (m *Machine) Close() error {
	close(m.stop)
	<-m.done
	return errors.Join(m.err, m.Tree.Close())
}

// Now returns the time on the machine's clock, which starts with Run.
func (m *Machine) Now() time.Duration { return time.Since(m.epoch) }

// Since converts a time to the machine's clock.
func (m *Machine) Since(t time.Time) time.Duration { return t.Sub(m.epoch) }

// Joules returns the true energy of zones, by ID, between two times on the machine's clock.
func (m *Machine) Joules(from, to time.Duration, ids ...string) float64 {
	sum := 0.0
	for _, id := range ids {
		sum += m.zones[id].Joules(from, to)
	}
	return sum
}

// Late returns the greatest lateness of the counters between two times on the machine's clock:
// how old their contents were at most, whenever they were read.
func (m *Machine) Late(from, to time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	worst := time.Duration(0)
	for i, u := range m.updates {
		until := to // the last update is still in effect
		if i+1 < len(m.updates) {
			until = m.updates[i+1].written
		}
		if u.written <= to && from <= until {
			worst = max(worst, min(until, to)-u.to)
		}
	}
	return worst
}

// near covers the readings before and after the edge of a window, even if they are delayed.
const near = 500 * time.Millisecond

// LateAt returns the greatest lateness within half a second of a time on the machine's clock.
func (m *Machine) LateAt(at time.Duration) time.Duration {
	return m.Late(at-near, at+near)
}

// Dial is a power that can be set while the machine runs.
type Dial struct {
	mu    sync.Mutex
	steps []step
}

type step struct {
	from  time.Duration
	watts float64
}

// NewDial returns a Dial set to a power in W.
func NewDial(watts float64) *Dial { return &Dial{steps: []step{{0, watts}}} }

// Power is the fakehw.Curve of the dial: its setting in W at a time.
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

// dialDelay is the time until a new setting takes effect: the counters may already include the
// current time.
const dialDelay = 5 * time.Millisecond

// Turn sets a dial to a power in W, 5 ms from now.
func (m *Machine) Turn(d *Dial, watts float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps = append(d.steps, step{(m.Now() + dialDelay).Truncate(time.Millisecond), watts})
}

// String returns the running time and the greatest lateness so far.
func (m *Machine) String() string {
	return fmt.Sprintf("%v, counters up to %v late", m.Now().Round(time.Millisecond), m.Late(0, m.Now()))
}
