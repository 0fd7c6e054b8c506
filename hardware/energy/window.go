package energy

import "time"

// window is the time a job ran in, and what was used in it so far zone by zone.
type window struct {
	job      string
	start    time.Time
	from, to instant
	tallies  map[string]*tally // by zone ID
}

// tally is what one zone brought to one window.
type tally struct {
	share     parts         // the job's
	machine   Microjoules   // everybody's
	covered   time.Duration // read without a gap
	doubt     Microjoules   // of machine, by the sensor's own error
	gaps      int
	lastGap   *span                     // counted already, also when it is cut
	power     extent                    // of the spans that touch the window
	head      time.Duration             // from the window's start to the reading nearest to it
	cutAt     struct{ start, end bool } // a step was cut at the window's edge
	shared    map[string]time.Duration  // by method, where not alone
	guessed   Microjoules               // by how much share may be off where nobody's use was known
	crossed   Microjoules               // of machine, what there was a second opinion on
	cross     Microjoules               // and that opinion
	crossTime time.Duration
	told      extent // the power by that opinion
}

// extent is the least and the greatest of some powers.
type extent struct {
	least, most Watts
	known       bool
}

func (e *extent) add(w Watts) {
	if !e.known {
		e.least, e.most, e.known = w, w, true
	}
	e.least, e.most = min(e.least, w), max(e.most, w)
}

// late is by how much energy may be off where these powers are each the mean of so much of the
// past: it misses, or has too much of, what they changed by in that time.
func (e *extent) late(mean time.Duration) Joules {
	return Joules(float64(e.most-e.least) * mean.Seconds())
}

func newWindow(job string, start time.Time, from instant) *window {
	return &window{job: job, start: start, from: from, to: stillOpen, tallies: map[string]*tally{}}
}

// tally of a zone, made when it is first asked for.
func (w *window) tally(z *zoneBook) *tally {
	t := w.tallies[z.zone.ID]
	if t == nil {
		t = newTally()
		w.tallies[z.zone.ID] = t
	}
	return t
}

func newTally() *tally { return &tally{head: -1, shared: map[string]time.Duration{}} }

// near notes a reading of a zone, of which the nearest to the start counts.
func (w *window) near(z *zoneBook, reading instant) {
	t := w.tally(z)
	distance := (reading - w.from).Abs()
	if t.head < 0 || distance < t.head {
		t.head = distance
	}
}

// take adds the window's share of a stretch.
func (t *tally) take(w *window, iv interval, s *stretch, mine parts) {
	if iv.gap {
		if t.lastGap != iv.span {
			t.gaps++
			t.lastGap = iv.span
		}
		return
	}
	t.share.add(mine)
	t.cutAt.start = t.cutAt.start || iv.span.from < w.from
	t.cutAt.end = t.cutAt.end || iv.span.to > w.to
	t.machine += s.energy
	t.covered += s.length
	t.doubt += portion(iv.doubt, s.length, iv.span.to-iv.span.from)
	t.power.add(iv.power)
	if s.method != shareAlone {
		t.shared[s.method] += s.length
	}
	if s.method == shareEqual { // it may have used nothing, or all of it
		t.guessed += max(mine.sum(), s.energy-mine.sum())
	}
	if iv.cross != nil {
		t.crossed += s.energy
		t.cross += portion(*iv.cross, s.length, iv.span.to-iv.span.from)
		t.told.add(Watts(iv.cross.Joules()) / Watts((iv.span.to - iv.span.from).Seconds()))
		t.crossTime += s.length
	}
}
