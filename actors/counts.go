package actors

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// counts are totals since the agent started. They outlive restarts of actors.
type counts struct {
	completed, failed, canceled, superseded, delivered, deadLetters atomic.Uint64

	canceledForcefully, onTime, notOnTime, inputsGenerated, inputBytes, outputBytes atomic.Uint64

	lastCompleted atomic.Pointer[messages.CompletedJob]
	lastGenerated atomic.Pointer[messages.GeneratedInput]

	mu      sync.Mutex // guards what follows
	ended   Ended
	jobs    map[protocol.Status]*jobSet
	reasons map[protocol.FailureReason]uint64
	walls   map[protocol.Status]*messages.Histogram
	energy  map[chargedTo]float64 // joules
}

// chargedTo is what the energy of attempts is summed up by.
type chargedTo struct {
	codec  string
	source string
}

// jobSet counts jobs, each once. It remembers the last rememberedJobs of them, so that a job
// with that many others between two of its attempts counts twice.
type jobSet struct {
	ids   map[string]bool
	order []string
	n     uint64
}

const rememberedJobs = 10000

func (s *jobSet) add(id string) {
	if s.ids[id] {
		return
	}
	if s.ids == nil {
		s.ids = map[string]bool{}
	}
	if len(s.order) == rememberedJobs {
		delete(s.ids, s.order[0])
		s.order = s.order[1:]
	}
	s.ids[id], s.order = true, append(s.order, id)
	s.n++
}

// Ended sums up the encodes that have ended, whatever their outcome.
type Ended struct {
	Frames, Dropped int64
	Media           time.Duration
}

// Ended returns the sum over all attempts that Status does not list any more.
func (a *Agent) Ended() Ended {
	c := &a.shared.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// left adds an attempt that has ended.
func (c *counts) left(e job.Encode) {
	if e.InputMade {
		c.inputsGenerated.Add(1)
		c.lastGenerated.Store(&messages.GeneratedInput{SizeBytes: e.InputBytes, Took: job.Seconds(e.GenerateFor)})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended.Frames += e.Progress.Frames // as while it ran
	c.ended.Dropped += e.Dropped
	c.ended.Media += e.Media
}

// count adds an attempt whose result is recorded; released: it was returned unstarted. The
// total comes last, so that a reader that sees it sees the rest.
func (c *counts) count(o *job.Outcome, released bool) {
	switch met, judged := o.OnTime(); {
	case released:
	case met:
		c.onTime.Add(1)
	case judged:
		c.notOnTime.Add(1)
	}
	c.sum(o)
	switch {
	case o.Canceled:
		if o.Encode.Signal == "SIGKILL" {
			c.canceledForcefully.Add(1)
		}
		c.canceled.Add(1)
	case o.Failure != nil:
		c.failed.Add(1)
	default:
		c.completedJob(&o.Encode)
		c.completed.Add(1)
	}
}

// wallBounds are the upper bounds of the histogram of how long FFmpeg ran, in seconds.
var wallBounds = []float64{1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600}

// sum adds an attempt to the sums by job, reason, duration and energy.
func (c *counts) sum(o *job.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jobs == nil {
		c.jobs, c.reasons = map[protocol.Status]*jobSet{}, map[protocol.FailureReason]uint64{}
		c.walls, c.energy = map[protocol.Status]*messages.Histogram{}, map[chargedTo]float64{}
	}
	status := o.Status()
	if c.jobs[status] == nil {
		c.jobs[status] = &jobSet{}
	}
	c.jobs[status].add(o.Lease.Job.ID)
	if status == protocol.StatusFailed {
		c.reasons[o.Failure.Reason]++
	}
	if wall := o.Encode.Wall(); wall > 0 {
		if c.walls[status] == nil {
			c.walls[status] = messages.NewHistogram(wallBounds)
		}
		c.walls[status].Observe(wall.Seconds())
	}
	if o.Energy != nil && o.Energy.Total.Energy != nil {
		c.energy[chargedTo{cmp.Or(o.Encode.Codec, "unknown"), string(o.Energy.Total.Source)}] += float64(*o.Energy.Total.Energy)
	}
}

func (c *counts) completedJob(e *job.Encode) {
	last := messages.CompletedJob{Wall: job.Seconds(e.Wall())}
	if e.InputBytes > 0 {
		last.InputBytes = &e.InputBytes
		c.inputBytes.Add(uint64(e.InputBytes))
	}
	if e.SizeBytes > 0 {
		last.OutputBytes = &e.SizeBytes
		c.outputBytes.Add(uint64(e.SizeBytes))
	}
	c.lastCompleted.Store(&last)
}

func (c *counts) read() messages.Counts {
	n := messages.Counts{
		Completed:   c.completed.Load(),
		Failed:      c.failed.Load(),
		Canceled:    c.canceled.Load(),
		Superseded:  c.superseded.Load(),
		Delivered:   c.delivered.Load(),
		DeadLetters: c.deadLetters.Load(),

		CanceledForcefully: c.canceledForcefully.Load(),
		OnTime:             c.onTime.Load(),
		NotOnTime:          c.notOnTime.Load(),
		InputsGenerated:    c.inputsGenerated.Load(),
		InputBytes:         c.inputBytes.Load(),
		OutputBytes:        c.outputBytes.Load(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for status, to := range map[protocol.Status]*uint64{
		protocol.StatusCompleted: &n.JobsCompleted, protocol.StatusFailed: &n.JobsFailed, protocol.StatusCanceled: &n.JobsCanceled,
	} {
		if set := c.jobs[status]; set != nil {
			*to = set.n
		}
	}
	n.FailedByReason = maps.Clone(c.reasons)
	n.Walls = map[protocol.Status]*messages.Histogram{}
	for status, h := range c.walls {
		n.Walls[status] = h.Clone()
	}
	for to, joules := range c.energy {
		n.Energy = append(n.Energy, messages.ChargedEnergy{Codec: to.codec, Source: to.source, Joules: joules})
	}
	slices.SortFunc(n.Energy, func(a, b messages.ChargedEnergy) int {
		return cmp.Or(cmp.Compare(a.Codec, b.Codec), cmp.Compare(a.Source, b.Source))
	})
	return n
}
