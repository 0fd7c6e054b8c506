package energy

import (
	"maps"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	pkg   = &Zone{ID: "intel-rapl:0", Name: "package-0", Domain: DomainCPU, Counted: true, Source: Measured, Method: "rapl", Range: 262144e6, UpdateInterval: time.Millisecond}
	core  = &Zone{ID: "intel-rapl:0:0", Name: "core", Domain: DomainCPU, Source: Measured, Method: "rapl", Range: 262144e6, UpdateInterval: time.Millisecond}
	dram  = &Zone{ID: "intel-rapl:0:1", Name: "dram", Domain: DomainDRAM, Counted: true, Source: Measured, Method: "rapl", Range: 65536e6, UpdateInterval: time.Millisecond}
	card  = &Zone{ID: "GPU-1", Name: "gpu0", Domain: DomainGPU, Counted: true, Source: Measured, Method: "nvml"}
	guess = &Zone{ID: "estimate:cpu", Name: "cpu", Domain: DomainCPU, Counted: true, Source: Estimated, Method: "estimate", Model: "P = 2 + 8u W"}
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at returns the time that many seconds after t0.
func at(s float64) time.Time { return t0.Add(seconds(s)) }

func seconds(s float64) time.Duration { return time.Duration(s * 1e9) }

func of[T any](v T) *T { return &v }

// reading returns a reading of a zone with that many joules on the counter.
func reading(zone *Zone, s, joules float64) Reading {
	return Reading{Zone: zone, At: at(s), Counter: Joules(joules).Microjoules()}
}

// record records readings as one sample.
func record(l *Ledger, s float64, readings ...Reading) {
	l.Record(Sample{Sampler: "rapl", At: at(s), Readings: readings})
}

// sample of the sampler "rapl", with counters in J by zone and CPU times by job.
func sample(s float64, cpuTimes map[string]time.Duration, counters map[*Zone]float64) Sample {
	sample := Sample{Sampler: "rapl", At: at(s)}
	for _, zone := range []*Zone{pkg, core, dram} {
		if joules, ok := counters[zone]; ok {
			r := reading(zone, s, joules)
			r.Usage = &Usage{Method: "cpu time", Jobs: cpuTimes}
			sample.Readings = append(sample.Readings, r)
		}
	}
	return sample
}

// steady records a constant power of one zone at 10 Hz.
func steady(l *Ledger, zone *Zone, watts, from, to float64) {
	for i := 0; ; i++ {
		now := from + float64(i)/10
		if now > to+1e-6 {
			return
		}
		record(l, now, reading(zone, now, 1000+watts*now))
	}
}

func joules(t *testing.T, f Figure) float64 {
	t.Helper()
	if f.Energy == nil {
		t.Fatalf("got no energy: %+v", f)
	}
	return float64(*f.Energy)
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > tolerance {
		t.Errorf("%s: got %v, want %v ± %v", what, got, want, tolerance)
	}
}

// machine drives a ledger with one zone, which it reads at 10 Hz.
type machine struct {
	ledger   *Ledger
	zone     *Zone
	now      float64 // s
	joules   float64
	threads  float64
	cpuTimes map[string]time.Duration // by job
	busy     time.Duration            // CPU time of all processes

	hidesUsage  bool     // readings carry no Usage
	utilization *float64 // that readings carry
	crossChecks float64  // factor of the cross-check; 0: there is none
	averages    bool     // the cross-check, or else the counter, is the integral of lastSecond's mean
	lastSecond  [10]float64
	averaged    float64 // that integral, in J
}

func newMachine(zone *Zone) *machine {
	return &machine{ledger: NewLedger(), zone: zone, joules: 1000, cpuTimes: map[string]time.Duration{}, threads: 4}
}

// run lets time pass at a power in W. use is the number of busy threads by job; "" stands for
// other processes.
func (m *machine) run(length float64, watts func() float64, use map[string]float64) {
	for range int(length*10 + 0.5) {
		power := watts()
		m.joules += power / 10
		copy(m.lastSecond[:], m.lastSecond[1:])
		m.lastSecond[len(m.lastSecond)-1] = power
		for _, p := range m.lastSecond {
			m.averaged += p / 10 / float64(len(m.lastSecond))
		}
		for job, threads := range use {
			used := seconds(threads / 10)
			m.busy += used
			if job != "" {
				m.cpuTimes[job] += used
			}
		}
		m.now += 0.1
		m.read()
	}
}

func (m *machine) read() {
	r := reading(m.zone, m.now, m.joules)
	r.Utilization = m.utilization
	if !m.hidesUsage {
		r.Usage = &Usage{Method: "cpu time", Jobs: maps.Clone(m.cpuTimes), Busy: m.busy, Capacity: seconds(m.threads * m.now)}
	}
	switch {
	case m.crossChecks > 0 && m.averages:
		r.CrossCheck = of(Joules(m.crossChecks * m.averaged).Microjoules())
	case m.crossChecks > 0:
		r.CrossCheck = of(Joules(m.crossChecks * m.joules).Microjoules())
	case m.averages:
		r.Counter = Joules(m.averaged).Microjoules()
	}
	record(m.ledger, m.now, r)
}

func (m *machine) open(job string) { m.cpuTimes[job] = 0; m.ledger.Open(job, at(m.now)) }

func (m *machine) close(job string) Account { return m.ledger.Close(job, at(m.now)) }

func constant(watts float64) func() float64 { return func() float64 { return watts } }

func noisy(watts, swing float64) func() float64 {
	random := rand.New(rand.NewPCG(1, 2))
	return func() float64 { return watts + swing*(2*random.Float64()-1) }
}
