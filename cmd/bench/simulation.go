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

// How the simulated machine is read.
const (
	counterUpdate = time.Millisecond       // interval of the counters' updates
	jobInterval   = 100 * time.Millisecond // between readings while a job is tracked
	idleInterval  = time.Second            // between readings otherwise
	usageInterval = 400 * time.Millisecond // between usage samples while one job is tracked
	maxSkew       = time.Millisecond       // between a reading and its time stamp
	maxDelay      = 2 * time.Millisecond   // from a job's edge to its extra reading; at least maxSkew
	readJitter    = maxDelay + maxSkew
	trackLead     = 300 * time.Millisecond // from tracking a job to FFmpeg's start
	statTick      = 10 * time.Millisecond  // resolution of /proc/stat
	threads       = 16                     // of the machine
)

// run simulates one scenario with the agent's RAPL reader and energy ledger. used and accounts
// are indexed like load.jobs.
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

	readTimes []time.Duration
	used      []float64 // thread seconds of jobs up to usedTo
	otherUsed float64   // thread seconds of other processes up to usedTo
	usedTo    time.Duration
	usageAt   time.Duration // of the last usage sample
	accounts  []energy.Account
}

// event is a step of a simulation.
type event struct {
	at time.Duration
	do func() error
}

// simulate runs a scenario from the first reading to the last job's end.
func simulate(s *scenario, jobs []work, rnd *rand.Rand) (*run, error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := &run{scenario: s, rnd: rnd, zones: map[string]*fakehw.Zone{}, ledger: energy.NewLedger(), begin: time.Now()}
	r.load = load{power: s.countedPower(), idle: s.idle, otherThreads: s.otherThreads, jobs: jobs}
	r.used, r.accounts = make([]float64, len(jobs)), make([]energy.Account, len(jobs))
	if err := r.open(dir); err != nil {
		return nil, err
	}
	defer r.tree.Close()
	defer r.rapl.Close()
	for _, e := range r.events() {
		if err := e.do(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// open creates the machine and opens its counters as the agent does.
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

// events returns the steps of a run in order of time: readings at the agent's intervals, the
// agent's actions at each job's edges, and sensor faults.
func (r *run) events() []event {
	var events []event
	add := func(at time.Duration, do func() error) { events = append(events, event{at, do}) }
	first := r.load.jobs[0].from
	for _, job := range r.load.jobs {
		first = min(first, job.from)
		r.length = max(r.length, job.to)
	}
	interval := idleInterval
	for at := time.Duration(0); at <= r.length; at += interval {
		if !r.isSuspended(at) {
			add(at, func() error { return r.read(at, r.trackedJobs(at) > 1 || at-r.usageAt >= usageInterval) })
		}
		if at+idleInterval > first-trackLead {
			interval = jobInterval
		}
	}
	for i, job := range r.load.jobs {
		name := jobName(i)
		opened, closed := job.from+r.delay(), job.to+r.delay()
		add(job.from-trackLead, func() error {
			r.ledger.Track(name, r.clock(job.from-trackLead))
			return nil
		})
		before := job.from - 2*r.delay() // just before FFmpeg starts
		add(before, func() error { return r.read(before, true) })
		add(opened, func() error {
			r.ledger.Open(name, r.clock(job.from))
			return r.read(opened, true)
		})
		add(closed, func() error {
			err := r.read(closed, true)
			r.accounts[i] = r.ledger.Close(name, r.clock(job.to))
			return err
		})
	}
	for _, f := range r.scenario.faults {
		at := first + f.after
		add(at, func() error { return errors.Join(r.advance(at), f.inject(r.zones)) })
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return events
}

// trackedJobs returns the number of jobs that are tracked at a moment.
func (r *run) trackedJobs(at time.Duration) (n int) {
	for _, job := range r.load.jobs {
		if job.from-trackLead <= at && at < job.to {
			n++
		}
	}
	return n
}

// isSuspended reports whether the machine is suspended at a moment: nothing is read.
func (r *run) isSuspended(at time.Duration) bool {
	suspended := r.scenario.suspended
	since := at - r.load.jobs[0].from
	return suspended != [2]time.Duration{} && suspended[0] <= since && since < suspended[1]
}

func jobName(i int) string { return string(rune('a' + i)) }

func (r *run) clock(at time.Duration) time.Time { return r.begin.Add(at) }

func (r *run) delay() time.Duration {
	return maxSkew + time.Duration(r.rnd.Int64N(int64(maxDelay-maxSkew)))
}

func (r *run) skew() time.Duration { return time.Duration(r.rnd.Int64N(int64(2*maxSkew))) - maxSkew }

// advance updates the counters as of their last update before a moment.
func (r *run) advance(at time.Duration) error {
	if to := at.Truncate(counterUpdate); to > r.tree.Now() {
		return r.tree.AdvanceTo(to)
	}
	return nil
}

// read records all counters in the ledger, with a skewed time stamp and optionally a usage
// sample that is taken slightly later.
func (r *run) read(at time.Duration, withUsage bool) error {
	if err := r.advance(at); err != nil {
		return err
	}
	r.readTimes = append(r.readTimes, at)
	readings, faults := r.rapl.Read()
	stamp := r.clock(at + r.skew())
	var usage *energy.Usage
	if withUsage {
		usage, r.usageAt = r.usage(at+r.delay()/2), at
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

// usage returns the CPU use that cgroups and /proc/stat report at a moment.
func (r *run) usage(at time.Duration) *energy.Usage {
	for i, job := range r.load.jobs {
		r.used[i] += job.threads.Joules(max(r.usedTo, job.from), min(at, job.to))
	}
	if r.load.otherThreads != nil {
		r.otherUsed += r.load.otherThreads.Joules(r.usedTo, at)
	}
	r.usedTo = max(r.usedTo, at)
	u := &energy.Usage{Method: "cpu time", Jobs: map[string]time.Duration{}}
	busy := r.otherUsed
	for i, job := range r.load.jobs {
		if at >= job.from {
			u.Jobs[jobName(i)] = seconds(r.used[i]).Truncate(time.Microsecond)
		}
		busy += r.used[i]
	}
	u.Busy, u.Capacity = seconds(busy).Truncate(statTick), (threads * at).Truncate(statTick)
	return u
}

func seconds(s float64) time.Duration { return time.Duration(s * 1e9) }

// readsAround returns the times of the last reading before a moment and of the first at or
// after it.
func (r *run) readsAround(at time.Duration) (before, after time.Duration) {
	for _, read := range r.readTimes {
		if read >= at {
			return before, read
		}
		before = read
	}
	return before, r.length
}
