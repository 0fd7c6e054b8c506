package main

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"ffmpeg-agent/hardware"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// How the virtual machine is read.
const (
	counterUpdate = time.Millisecond       // of the counters' files
	jobPace       = 100 * time.Millisecond // between readings while there is a job
	idlePace      = time.Second            // and otherwise
	usePace       = 400 * time.Millisecond // between words of who uses the processors while one job is known, but for its edges
	// mostSkew is how far a reading's time stamp lies from its moment at most, and
	// mostDelay how long after a job's start or end its extra reading comes, which is
	// never stamped before it.
	mostDelay, mostSkew = 2 * time.Millisecond, time.Millisecond
	readJitter          = mostDelay + mostSkew
	// prepared is how long before FFmpeg's start a job is known of.
	prepared = 300 * time.Millisecond
	// tick is the grain of /proc/stat, and threads its lines.
	tick    = 10 * time.Millisecond
	threads = 16
)

// run is one scenario with its windows: jobs by the order of load.jobs.
type run struct {
	scenario *scenario
	load     load
	length   time.Duration
	rnd      *rand.Rand

	tree   *fakehw.Tree
	zones  map[string]*fakehw.Zone
	rapl   *hardware.RAPL
	ledger *energy.Ledger
	begin  time.Time

	looks    []time.Duration // when it was read
	used     []float64       // thread seconds by job, up to usedTo
	other    float64
	usedTo   time.Duration
	toldAt   time.Duration // when it was told last who uses the processors
	accounts []energy.Account
}

// event is what happens at a moment of a run.
type event struct {
	at   time.Duration
	what func() error
}

// perform plays a scenario with given jobs, from the first reading to the last job's end.
func perform(s *scenario, jobs []work, rnd *rand.Rand) (*run, error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := &run{scenario: s, rnd: rnd, zones: map[string]*fakehw.Zone{}, ledger: energy.NewLedger(), begin: time.Now()}
	r.load = load{power: s.counted(), idle: s.idle, others: s.others, jobs: jobs}
	r.used, r.accounts = make([]float64, len(jobs)), make([]energy.Account, len(jobs))
	if err := r.open(dir); err != nil {
		return nil, err
	}
	defer r.tree.Close()
	defer r.rapl.Close()
	for _, e := range r.events() {
		if err := e.what(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// open makes the machine and opens its counters as the agent does.
func (r *run) open(dir string) (err error) {
	if r.tree, err = fakehw.New(dir); err != nil {
		return err
	}
	for _, config := range r.scenario.zones {
		if r.zones[config.ID], err = r.tree.AddZone(config); err != nil {
			return err
		}
	}
	r.rapl, err = hardware.OpenRAPL(r.tree.Sys())
	return err
}

// events of a run in the order of time: readings at the agent's pace, and at each job's
// edges what the agent does there.
func (r *run) events() []event {
	var events []event
	add := func(at time.Duration, what func() error) { events = append(events, event{at, what}) }
	first := r.load.jobs[0].from
	for _, job := range r.load.jobs {
		first = min(first, job.from)
		r.length = max(r.length, job.to)
	}
	pace := idlePace
	for at := time.Duration(0); at <= r.length; at += pace {
		if !r.blind(at) {
			add(at, func() error { return r.look(at, r.known(at) > 1 || at-r.toldAt >= usePace) })
		}
		if at+idlePace > first-prepared {
			pace = jobPace
		}
	}
	for i, job := range r.load.jobs {
		name := jobName(i)
		opened, closed := job.from+r.delay(), job.to+r.delay()
		add(job.from-prepared, func() error {
			r.ledger.Track(name, r.clock(job.from-prepared))
			return nil
		})
		before := job.from - 2*r.delay() // as FFmpeg is about to start
		add(before, func() error { return r.look(before, true) })
		add(opened, func() error {
			r.ledger.Open(name, r.clock(job.from))
			return r.look(opened, true)
		})
		add(closed, func() error {
			err := r.look(closed, true)
			r.accounts[i] = r.ledger.Close(name, r.clock(job.to))
			return err
		})
	}
	for _, f := range r.scenario.faults {
		at := first + f.after
		add(at, func() error { return errors.Join(r.pass(at), f.what(r.zones)) })
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return events
}

// known is how many jobs the agent knows of at a moment.
func (r *run) known(at time.Duration) (n int) {
	for _, job := range r.load.jobs {
		if job.from-prepared <= at && at < job.to {
			n++
		}
	}
	return n
}

// blind reports whether the machine sleeps at a moment, so that nothing is read.
func (r *run) blind(at time.Duration) bool {
	asleep := r.scenario.asleep
	since := at - r.load.jobs[0].from
	return asleep != [2]time.Duration{} && asleep[0] <= since && since < asleep[1]
}

func jobName(i int) string { return string(rune('a' + i)) }

func (r *run) clock(at time.Duration) time.Time { return r.begin.Add(at) }

func (r *run) delay() time.Duration {
	return mostSkew + time.Duration(r.rnd.Int64N(int64(mostDelay-mostSkew)))
}

func (r *run) skew() time.Duration { return time.Duration(r.rnd.Int64N(int64(2*mostSkew))) - mostSkew }

// pass lets time pass on the machine, whose counters are as old as their last update.
func (r *run) pass(at time.Duration) error {
	if to := at.Truncate(counterUpdate); to > r.tree.Now() {
		return r.tree.AdvanceTo(to)
	}
	return nil
}

// look reads all counters and hands them to the ledger, with time stamps that are a
// little off and, where it is to be told, who used the processors up to a moment a little
// later.
func (r *run) look(at time.Duration, tell bool) error {
	if err := r.pass(at); err != nil {
		return err
	}
	r.looks = append(r.looks, at)
	readings, faults := r.rapl.Read()
	stamp := r.clock(at + r.skew())
	var usage *energy.Usage
	if tell {
		usage, r.toldAt = r.usage(at+r.delay()/2), at
	}
	for i := range readings {
		readings[i].At, readings[i].Usage = stamp, usage
	}
	for i := range faults {
		faults[i].At = stamp
	}
	r.ledger.Record(energy.Sample{Sampler: "rapl", At: stamp, Readings: readings, Faults: faults})
	return nil
}

// usage is what the cgroups and /proc/stat say at a moment.
func (r *run) usage(at time.Duration) *energy.Usage {
	for i, job := range r.load.jobs {
		r.used[i] += job.threads.Joules(max(r.usedTo, job.from), min(at, job.to))
	}
	if r.load.others != nil {
		r.other += r.load.others.Joules(r.usedTo, at)
	}
	r.usedTo = max(r.usedTo, at)
	u := &energy.Usage{Method: "cpu time", Jobs: map[string]time.Duration{}}
	busy := r.other
	for i, job := range r.load.jobs {
		if at >= job.from {
			u.Jobs[jobName(i)] = seconds(r.used[i]).Truncate(time.Microsecond)
		}
		busy += r.used[i]
	}
	u.Busy, u.Capacity = seconds(busy).Truncate(tick), (threads * at).Truncate(tick)
	return u
}

func seconds(s float64) time.Duration { return time.Duration(s * 1e9) }

// around is the last look before a moment and the first at or after it.
func (r *run) around(at time.Duration) (before, after time.Duration) {
	for _, look := range r.looks {
		if look >= at {
			return before, look
		}
		before = look
	}
	return before, r.length
}
