package energy

import "slices"

// settle attributes the pending steps that end by until. Their attribution is then final.
func (l *Ledger) settle(until instant) {
	for _, z := range l.zones {
		for len(z.pending) > 0 && z.pending[0].to <= until {
			l.settleStep(z, z.pending[0])
			z.pending = slices.Delete(z.pending, 0, 1)
		}
	}
}

func (l *Ledger) settleStep(z *zoneLedger, s *step) {
	z.settledTo = s.to
	l.learnBaseline(z, s)
	z.idle.setBaseline(z.learner.baseline(l.time(s.to)))
	for _, piece := range s.pieces(l.open) {
		a := piece.allocate(l.open, &z.idle)
		z.outside = z.outside.plus(a.outside)
		for _, share := range a.shares {
			z.used = z.used.plus(share.attribution)
			share.window.tally(z.zone.ID).add(share.window, piece, a.method, share.attribution)
			l.tracked[share.window.job].addShare(z.zone, piece, a, share.attribution) // each open window is tracked
		}
	}
}

// learnBaseline adds a step to the idle samples if the machine was idle during all of it. Unknown
// use does not count as idle.
func (l *Ledger) learnBaseline(z *zoneLedger, s *step) {
	use := s.usage.orPrevious(s.from).utilization()
	if use == nil {
		use = s.utilization
	}
	idle := use != nil && *use <= maxIdleUse && len(l.tracked) == 0 && s.from >= l.busyUntil
	if !idle || s.gap {
		z.learner.interrupt()
		return
	}
	z.learner.add(s.energy, s.length(), l.time(s.to))
}

// cutPending cuts each zone's pending step that contains at.
func (l *Ledger) cutPending(at instant) {
	for _, z := range l.zones {
		i := slices.IndexFunc(z.pending, func(s *step) bool { return s.from < at && at < s.to })
		if i >= 0 {
			head, tail := z.pending[i].cut(at)
			z.pending = slices.Replace(z.pending, i, i+1, head, tail)
		}
	}
}

// moveOutside removes a zone's energy from a window and attributes it to the time outside windows.
func (z *zoneLedger) moveOutside(w *window) {
	t := w.tallies[z.zone.ID]
	if t == nil {
		return
	}
	z.used = z.used.minus(t.share)
	z.outside = z.outside.plus(attribution{
		idle: t.share.idle, rest: t.share.job + t.share.rest, ambiguous: t.share.ambiguous, undivided: t.share.undivided,
	})
}
