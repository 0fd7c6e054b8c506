package energy

import "time"

// Figure is an amount of energy with its provenance.
type Figure struct {
	// Energy in J; nil when Source is Unavailable.
	Energy *Joules `json:"joules,omitempty"`
	Source Source  `json:"source"`
	// Method names the sensors and, for a total, its formula, such as
	// "rapl: package-0 + package-1 + dram".
	Method string `json:"method,omitempty"`
	// CoveragePercent is the part of the window in which the sensors were read
	// without a gap, 0 to 100; of a total, that of its least covered zone, which is 0 where
	// one that counts gave no reading in it. Method says "without" it, and without a sensor
	// that never counts anything, which lowers no coverage.
	CoveragePercent float64 `json:"coverage_percent"`
	// Gaps is how often the reading broke off inside the window, summed over the
	// zones of a total.
	Gaps int `json:"gaps"`
	// ErrorBound in J: the true value lies within Energy ± ErrorBound, what was
	// missed in gaps not included, and if at the window's edges power was not above the highest
	// mean between two readings in it. Of a share it holds all that was divided equally for
	// want of knowing who used it. nil when Source is Unavailable.
	ErrorBound *Joules `json:"error_bound_joules,omitempty"`
}

// ZoneFigure is a figure of one zone.
type ZoneFigure struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Domain  Domain `json:"domain"`
	Counted bool   `json:"counted"` // part of the total
	Figure
}

// Breakdown is an amount of energy and what it is made of. Where all parts are known,
// Total = Job + Rest + Idle and Net = Job + Rest, to the microjoule.
type Breakdown struct {
	Total Figure `json:"total"`
	// Idle is what the machine would have used in the window without any job, by
	// the calibrated baseline. Unavailable without one; Method says why.
	Idle Figure `json:"idle"`
	// Net is Total less Idle: what was used because the machine worked.
	Net Figure `json:"net"`
	// Job is the part of Net that the job's own processes used, by their part of all
	// CPU time (of a card: of all use).
	Job Figure `json:"job"`
	// Rest is the part of Net that processes used which belong to no job.
	Rest Figure `json:"rest"`
}

// Account is what one job cost.
type Account struct {
	Start time.Time `json:"start"` // FFmpeg's start
	End   time.Time `json:"end"`   // FFmpeg's exit
	// Breakdown is the job's: its Total is the machine's energy in the window, idle
	// included, for a job that ran alone, and the job's conserved share where jobs
	// overlapped.
	Breakdown
	// Machine is the machine's energy in the window, whoever used it.
	Machine Figure `json:"machine"`
	// Domains splits what the job is charged by domain (cpu, dram, gpu).
	Domains map[Domain]Breakdown `json:"domains,omitempty"`
	// Zones are the machine's figures zone by zone, those that are reported and
	// not added (core, psys) among them.
	Zones []ZoneFigure `json:"zones,omitempty"`
	// ShareMethod says how Total was split off: "alone", "cpu time", "equal"
	// where CPU times were not known, or both of the last two with their parts;
	// "none" where Total is unavailable.
	ShareMethod string `json:"share_method"`
	// MeanPower of Total in W over the covered part of the window; nil when
	// unknown.
	MeanPower *Watts `json:"mean_power_watts,omitempty"`
	// Baseline is the idle power that Idle was computed with; nil without one.
	Baseline *Baseline `json:"baseline,omitempty"`
	// Notes are what else is to be known of the figures: sensors that contradict
	// each other.
	Notes []string `json:"notes,omitempty"`
}

// Duration is the length of the window.
func (a *Account) Duration() time.Duration { return a.End.Sub(a.Start) }

// UnknownAccount is the account of a window that nothing measured.
func UnknownAccount(start, end time.Time, why string) Account {
	f := Figure{Source: Unavailable, Method: why}
	return Account{Start: start, End: end, Breakdown: Breakdown{Total: f, Idle: f, Net: f, Job: f, Rest: f}, Machine: f, ShareMethod: "none"}
}
