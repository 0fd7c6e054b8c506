package actors

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// notChecked closes a gate until its check has been made.
const notChecked = "not checked yet"

// poller asks the master for work whenever a slot is free, and looks for leases whose
// response was lost. It makes one call at a time.
type poller struct {
	*shared
	log     *zap.Logger
	session *messages.Session
	free    int               // slots
	gates   map[string]string // by name, why no job is taken; empty: the check passes
	drain   *messages.Drain

	calling   bool               // a call is in flight
	pollDue   bool               // a poll came due meanwhile
	findDue   bool               // a look for lost leases came due meanwhile
	findLater bool               // a lease may have been lost: look again at the next interval, busy or not
	pause     time.Time          // after a failure: no poll before
	refused   bool               // the last call failed and may succeed with another key
	repeated  time.Time          // after an offer of an attempt that has ended here: no poll before
	leftOut   bool               // the last look found new leases, and they were not taken
	offers    map[job.Key]int    // of attempts that have ended here, since the master last had no job
	nextPoll  *supervision.Timer // of an idle or failing agent
	interval  time.Duration      // PollInterval when nextPoll was set
	nextFind  *supervision.Timer // for lost leases
	backoff   *callBackoff
	failures  outage
}

func newPoller(s *shared) *poller {
	log := s.log.Named("poller")
	return &poller{
		shared:   s,
		log:      log,
		session:  s.snapshots.Session(),
		gates:    map[string]string{gateDisk: notChecked, gateFFmpeg: notChecked, gateJournal: notChecked},
		offers:   map[job.Key]int{},
		drain:    s.stop.drainOf("poller"),
		backoff:  registrationBackoff(),
		failures: outage{log: log, failing: "could not poll the master for jobs", over: "polling the master for jobs again"},
	}
}

func (p *poller) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		p.postGates()
		p.refs.jobs.Tell(&messages.SendState{})
		p.refs.janitor.Tell(&messages.SendState{})
		p.findLeases(ctx, p.poll)
		p.checkDrained()
	case *messages.SessionChanged:
		p.session, p.pause = &m.Session, time.Time{}
		p.findLeases(ctx, p.poll)
	case *messages.FindLeases:
		p.findLater = true
		p.findLeases(ctx, p.poll)
	case *messages.Slots:
		p.free = m.Free
		p.poll(ctx)
	case *messages.OfferRepeated:
		p.offers[m.Key]++
		wait := jitter(p.settings().PollInterval)
		p.repeated = time.Now().Add(wait)
		p.pollAfter(ctx, wait)
	case *messages.ResultTaken:
		p.pause = time.Time{}
		// A master that offers an attempt a second time, though it has the result, would
		// be asked for ever without a pause.
		if p.offers[m.Key] == 1 {
			p.repeated = time.Time{}
		}
		p.poll(ctx)
	case *messages.Gate:
		p.gate(ctx, m)
	case *messages.SettingsChanged:
		p.settingsChanged(ctx)
	case *messages.UndoDrain:
		p.drain = nil
		p.findLeases(ctx, p.poll)
	case *messages.Drain:
		p.drain = m
		p.checkDrained()
	}
}

// settingsChanged polls again at once where the last call was refused, and applies a changed
// interval.
func (p *poller) settingsChanged(ctx actor.Context) {
	if p.refused {
		p.pause = time.Time{}
		p.poll(ctx)
	}
	if interval := p.settings().PollInterval; p.nextPoll != nil && p.interval != interval && time.Now().After(p.pause) && time.Now().After(p.repeated) {
		p.pollAfter(ctx, jitter(interval))
	}
}

func (p *poller) gate(ctx actor.Context, g *messages.Gate) {
	old := p.gates[g.Name]
	if old == g.Reason {
		return
	}
	// A reason in which only a figure changes is not logged again.
	switch wasClosed := old != "" && old != notChecked; {
	case g.Reason == "" && wasClosed:
		p.log.Info("taking jobs again", zap.String("check", g.Name))
	case g.Reason != "" && !wasClosed:
		p.log.Warn("taking no jobs", zap.String("check", g.Name), zap.String("reason", g.Reason))
	}
	p.gates[g.Name] = g.Reason
	p.postGates()
	if p.leftOut && p.gates[gateJournal] == "" {
		p.findLeases(ctx, p.poll)
		return
	}
	p.poll(ctx)
}

func (p *poller) postGates() {
	gates := maps.Clone(p.gates)
	p.snapshots.gates.Store(&gates)
}

func (p *poller) mayPoll() bool {
	for _, reason := range p.gates {
		if reason != "" {
			return false
		}
	}
	return p.session != nil && p.free > 0 && !p.calling &&
		!time.Now().Before(p.pause) && !time.Now().Before(p.repeated) && !p.snapshots.Draining()
}

// poll asks for one job now, if nothing forbids it.
func (p *poller) poll(ctx actor.Context) {
	if p.calling {
		p.pollDue = true // there may be no timer that polls later
		return
	}
	if !p.mayPoll() {
		return
	}
	p.calling, p.pollDue = true, false
	session := *p.session
	supervision.Go(ctx, func(work context.Context) (*job.Lease, error) {
		return p.Master.Next(work, session)
	}, func(ctx actor.Context, lease *job.Lease, err error) {
		p.calling = false
		switch {
		case err != nil:
			p.pollFailed(ctx, err)
		case lease == nil:
			p.log.Debug("polled: the master has no job")
			clear(p.offers)
			p.pollSucceeded()
			p.pollAfter(ctx, jitter(p.settings().PollInterval))
		default:
			p.log.Debug("polled: the master gave a job", jobFields(lease.Key())...)
			p.pollSucceeded()
			p.free-- // until jobs sends its slots
			p.refs.jobs.Tell(&messages.Offer{Leases: []job.Lease{*lease}})
		}
		p.called(ctx)
	})
}

func (p *poller) pollSucceeded() {
	p.refused = false
	p.failures.recovered()
	p.backoff.reset()
}

// pollFailed waits before the next poll, whatever slots become free meanwhile, and looks
// for a lease that was lost with the response.
func (p *poller) pollFailed(ctx actor.Context, err error) {
	p.refused = dependsOnKey(err)
	p.failures.failed(err)
	p.pauseFor(ctx, max(p.backoff.next(time.Now(), err), jitter(p.settings().PollInterval)))
	switch protocol.KindOf(err) {
	case protocol.Unauthorized, protocol.Busy:
	default:
		p.findDue = true
		p.findLater = true // the master may assign the job only after this look
	}
}

// pauseFor polls after a while, and not before, whatever slots become free.
func (p *poller) pauseFor(ctx actor.Context, d time.Duration) {
	p.pause = time.Now().Add(d)
	p.pollAfter(ctx, d)
}

// pollAfter polls after a while, or earlier when a slot becomes free.
func (p *poller) pollAfter(ctx actor.Context, d time.Duration) {
	p.nextPoll.Stop()
	p.interval = p.settings().PollInterval
	p.nextPoll = supervision.After(ctx, d, func(ctx actor.Context) {
		p.pause, p.repeated = time.Time{}, time.Time{}
		p.poll(ctx)
	})
}

// called does what came due while a call was in flight.
func (p *poller) called(ctx actor.Context) {
	if p.findDue {
		p.findLeases(ctx, p.poll)
	}
	if p.pollDue {
		p.pollDue = false
		p.poll(ctx)
	}
	p.checkDrained()
}

// findLeases asks the master for the leases it holds as ours and offers them to jobs,
// which has a list of those it runs or has run. While the journal takes no more results it
// offers no new ones.
func (p *poller) findLeases(ctx actor.Context, then func(actor.Context)) {
	p.nextFind.Stop()
	p.nextFind = supervision.After(ctx, p.settings().ReconcileInterval, p.findLeasesIdle)
	if p.session == nil || p.drain != nil {
		return
	}
	if p.calling {
		p.findDue = true
		return
	}
	p.calling, p.findDue = true, false
	session, begunOnly := *p.session, p.gates[gateJournal] != ""
	type found struct {
		held  messages.Held
		taken []job.Lease
	}
	supervision.Go(ctx, func(work context.Context) (f found, err error) {
		f.held, err = p.Master.Held(work, session)
		f.taken = f.held.Leases
		if begunOnly {
			f.taken = slices.DeleteFunc(slices.Clone(f.taken), func(l job.Lease) bool { return !p.begun(l.Key()) })
		}
		return f, err
	}, func(ctx actor.Context, f found, err error) {
		p.calling = false
		held := f.held
		switch {
		case err == nil:
			if p.gates[gateJournal] == "" { // since the look began, perhaps
				f.taken = held.Leases
			}
			p.leftOut = len(f.taken) < len(held.Leases)
			if len(f.taken) > 0 {
				p.free -= len(f.taken) // until jobs sends its slots
				p.refs.jobs.Tell(&messages.Offer{Leases: f.taken})
			}
			if p.checkListed(session, held); p.mayRenew(session, held) {
				p.renew(ctx, session, held.Facts, then)
				return
			}
		case protocol.KindOf(err) == protocol.NotFound:
			p.refs.registrar.Tell(&messages.RegisterAgain{Session: session, Reason: "the master does not know this node any more"})
			p.pauseFor(ctx, jitter(p.settings().PollInterval))
		default:
			p.findLater = true
			p.log.Debug("could not get the leases that the master holds as ours", zap.Error(err))
		}
		then(ctx)
		p.called(ctx)
	})
}

// begun reports whether a lease is of a job that runs here or of an attempt that the journal has.
func (p *poller) begun(key job.Key) bool {
	if p.attempts.find(key) != nil || p.attempts.earlier(key) != nil {
		return true
	}
	_, known, err := p.Journal.Record(key)
	return known && err == nil
}

// checkListed asks for a new registration where the master does not treat the node as
// available. A session that is younger than the interval between looks has just been tried.
func (p *poller) checkListed(session messages.Session, held messages.Held) {
	reason := ""
	switch {
	case held.Unlisted:
		reason = "the master does not list this node"
	case held.Offline:
		reason = "the master lists this node as offline"
	}
	if reason != "" && time.Since(session.Since) >= p.settings().ReconcileInterval {
		p.refs.registrar.Tell(&messages.RegisterAgain{Session: session, Reason: reason})
	}
}

// findLeasesIdle is the look at every interval. Only an idle agent needs it, and one that
// may have lost a lease.
func (p *poller) findLeasesIdle(ctx actor.Context) {
	if p.free > 0 || p.findLater {
		p.findLater = false
		p.findLeases(ctx, func(actor.Context) {})
		return
	}
	p.nextFind = supervision.After(ctx, p.settings().ReconcileInterval, p.findLeasesIdle)
}

// checkDrained waits for a call in flight: it may bring a lease, which jobs returns.
func (p *poller) checkDrained() {
	if p.drain != nil && !p.calling {
		p.drain.Ready()
	}
}

// jitter spreads d by ±10 %, so that the agents of a fleet do not poll in step.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
