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
	share   Microjoules   // the job's
	machine Microjoules   // everybody's
	covered time.Duration // read without a gap
	gaps    int
	lastGap *span         // counted already, also when it is cut
	peak    Watts         // of the spans that touch the window
	head    time.Duration // from the window's start to the reading nearest to it
	byCPU   time.Duration // shared by CPU time
	equally time.Duration // shared without knowing CPU times
}

func newWindow(job string, start time.Time, from instant) *window {
	return &window{job: job, start: start, from: from, to: stillOpen, tallies: map[string]*tally{}}
}

// tally of a zone, made when it is first asked for.
func (w *window) tally(z *zoneBook) *tally {
	t := w.tallies[z.zone.ID]
	if t == nil {
		t = &tally{head: -1}
		w.tallies[z.zone.ID] = t
	}
	return t
}

// near notes a reading of a zone, of which the nearest to the start counts.
func (w *window) near(z *zoneBook, reading instant) {
	t := w.tally(z)
	distance := (reading - w.from).Abs()
	if t.head < 0 || distance < t.head {
		t.head = distance
	}
}

// take adds a piece of an interval.
func (t *tally) take(iv interval, p piece, power Watts) {
	if iv.gap {
		if t.lastGap != iv.span {
			t.gaps++
			t.lastGap = iv.span
		}
		return
	}
	t.share += p.share
	t.machine += p.machine
	t.covered += p.length
	t.peak = max(t.peak, power)
	switch p.method {
	case cpuTime:
		t.byCPU += p.length
	case equal:
		t.equally += p.length
	}
}
