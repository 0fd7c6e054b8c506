package messages

import "slices"

// Histogram counts values by size.
type Histogram struct {
	Bounds []float64 // upper bounds, ascending
	Counts []uint64  // values up to each bound, not cumulative
	Count  uint64    // all values
	Sum    float64
}

// NewHistogram returns an empty histogram with these upper bounds.
func NewHistogram(bounds []float64) *Histogram {
	return &Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds))}
}

// Observe adds a value.
func (h *Histogram) Observe(value float64) {
	h.Count++
	h.Sum += value
	if i, _ := slices.BinarySearch(h.Bounds, value); i < len(h.Bounds) {
		h.Counts[i]++
	}
}

// Cumulative returns how many values are up to each bound.
func (h *Histogram) Cumulative() map[float64]uint64 {
	all, n := make(map[float64]uint64, len(h.Bounds)), uint64(0)
	for i, bound := range h.Bounds {
		n += h.Counts[i]
		all[bound] = n
	}
	return all
}

// Clone returns a copy that later observations do not change.
func (h *Histogram) Clone() *Histogram {
	c := *h
	c.Counts = slices.Clone(h.Counts)
	return &c
}
