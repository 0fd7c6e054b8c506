package hardware

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// ErrNoRAPL means that the machine has no RAPL counters, as is the case for most virtual and
// many Arm machines.
var ErrNoRAPL = errors.New("no RAPL counters")

// UnreadableError means that the machine has RAPL counters, but this process cannot read them.
type UnreadableError struct {
	Path string // of the first counter
	Err  error
}

func (e *UnreadableError) Error() string {
	text := fmt.Sprintf("reading RAPL counter %s: %v", e.Path, e.Err)
	if errors.Is(e.Err, fs.ErrPermission) {
		text += fmt.Sprintf("; counters are readable by root only since CVE-2020-8694: give the agent's group access "+
			"(deployment/ffmpeg-agent.rules gives it to the group rapl; until the next boot: chgrp ffmpeg %[1]s && chmod g+r %[1]s)", e.Path)
	}
	return text
}

func (e *UnreadableError) Unwrap() error { return e.Err }

// raplUpdateInterval is the time between updates of the counters (Intel SDM volume 3B, section
// 16.10.1).
const raplUpdateInterval = time.Millisecond

// rescanInterval is how often sensors look for zones of drivers that were loaded later.
const rescanInterval = time.Minute

// RAPL reads the energy counters of Intel and AMD processors from Linux's powercap class.
type RAPL struct {
	class     string
	counters  []*raplCounter // ordered by the IDs of their zones
	zones     []*energy.Zone // of the counters
	now       func() time.Time
	suspended func() time.Duration
	scanned   time.Time // when zones were last listed; zero before the first Read
}

var _ PowerSensors = (*RAPL)(nil)

// OpenRAPL lists the zones below a sysfs ("" is /sys) and opens the readable ones. It fails with
// ErrNoRAPL if no zone covers a processor, and with an *UnreadableError if no counted zone can be
// read. psys alone is not used: its scale depends on the firmware.
func OpenRAPL(sysfsPath string) (*RAPL, error) {
	class := filepath.Join(orDefault(sysfsPath, "/sys"), "class", "powercap")
	counters, err := findCounters(class)
	if err != nil {
		return nil, err
	}
	r := &RAPL{class: class, counters: counters, zones: zonesOf(counters), now: time.Now, suspended: suspended}
	var unreadable error
	readable := false
	for _, c := range counters {
		_, err := c.file.read()
		switch {
		case !c.zone.Counted:
		case err == nil:
			readable = true
		case unreadable == nil:
			unreadable = &UnreadableError{Path: c.file.path, Err: err}
		}
	}
	if readable {
		return r, nil
	}
	r.Close()
	if unreadable != nil {
		return nil, unreadable
	}
	return nil, fmt.Errorf("%w that cover a whole processor", ErrNoRAPL)
}

// Name returns "rapl".
func (r *RAPL) Name() string { return "rapl" }

// FallbackReason returns nil: RAPL is the preferred source.
func (r *RAPL) FallbackReason() error { return nil }

// Zones returns the zones, ordered by ID.
func (r *RAPL) Zones() []*energy.Zone { return slices.Clone(r.zones) }

// Read reads every zone. The file of a zone that could not be read is reopened by the next
// call. New zones are added once a minute.
func (r *RAPL) Read() ([]energy.Reading, []energy.Fault) {
	r.rescan()
	readings, suspended := make([]energy.Reading, 0, len(r.counters)), r.suspended()
	var faults []energy.Fault
	for _, c := range r.counters {
		value, at, err := c.file.readAt(r.now)
		if err != nil {
			faults = append(faults, energy.Fault{Zone: c.zone, At: at, Err: err.Error()})
			continue
		}
		readings = append(readings, energy.Reading{Zone: c.zone, At: at, Counter: energy.Microjoules(value), Suspended: suspended})
	}
	return readings, faults
}

// rescan adds zones that have appeared, and redetermines which zones are counted. Zones that
// have disappeared are kept and have a fault at each Read. While some are missing, none is added,
// because which zones are counted can be decided only from all of them.
func (r *RAPL) rescan() {
	now := r.now()
	if r.scanned.IsZero() {
		r.scanned = now
	}
	if now.Sub(r.scanned) < rescanInterval {
		return
	}
	r.scanned = now
	found, err := findCounters(r.class)
	if err != nil || len(found) <= len(r.counters) {
		return
	}
	missing := map[string]*raplCounter{}
	for _, c := range r.counters {
		missing[c.file.path] = c
	}
	for _, c := range found {
		if known := missing[c.file.path]; known != nil {
			c.file = known.file
			delete(missing, c.file.path)
		}
	}
	if len(missing) == 0 {
		r.counters, r.zones = found, zonesOf(found)
	}
}

// Close closes the counters' files.
func (r *RAPL) Close() error {
	var errs []error
	for _, c := range r.counters {
		errs = append(errs, c.file.close())
	}
	return errors.Join(errs...)
}
