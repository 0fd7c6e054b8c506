package energy

import "time"

// Curve is a job's power over time: as energy in successive lengths of time, so that
// a coarser curve of a long job still adds up. It is kept within MostPoints.
type Curve struct {
	// Start is when the job's first work began, before FFmpeg's start.
	Start time.Time   `json:"start"`
	Zones []CurveZone `json:"zones"`
	// Points follow each other in time; what lies between the end of one and the
	// beginning of the next was not read.
	Points []CurvePoint `json:"points"`
}

// CurveZone is one column of a Curve.
type CurveZone struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Domain  Domain `json:"domain"`
	Counted bool   `json:"counted"` // part of the machine's total
	Source  Source `json:"source"`
	Method  string `json:"method"`
}

// CurvePoint is what was used in one length of time.
type CurvePoint struct {
	From int64 `json:"from_ms"` // since the curve's start
	To   int64 `json:"to_ms"`
	// Zones are the machine's energy in µJ, in the order of Curve.Zones; nil: the zone
	// was not read.
	Zones []*Microjoules `json:"zones_uj"`
	// Job, Idle and Rest are what the counted zones' energy in this length of time was
	// split into, in µJ: the job's own processes, the idle baseline, and everybody
	// else's (other jobs among them). They never make more than was read. nil: not known of
	// each counted zone that was read, as before FFmpeg's start, without a baseline, or of a
	// card whose users are not told.
	Job  *Microjoules `json:"job_uj,omitempty"`
	Idle *Microjoules `json:"idle_uj,omitempty"`
	Rest *Microjoules `json:"rest_uj,omitempty"`
}

// MaxCurvePoints is how many points a Curve has at most: half as many, each twice as
// long, where there would be more.
const MaxCurvePoints = 400
