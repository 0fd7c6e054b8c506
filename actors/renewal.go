package actors

import (
	"context"
	"fmt"
	"slices"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// Some masters store the facts of a node's first registration only, and answer a later one as
// if they had stored its facts too. With old facts the node is not given jobs for its
// hardware. So where the master lists other facts than were posted, the poller removes the
// node, and the registrar registers it again. The poller does it because it makes one call at
// a time, so no job can be assigned unnoticed to the node that is being removed.

const (
	// maxRenewals is how often the removal for one set of facts is tried.
	maxRenewals = 3
	// maxKnownFacts bounds the sets of facts that are remembered. Facts may alternate, as where
	// a card fails its trial now and then.
	maxKnownFacts = 32
)

// mayRenew reports whether the master has other facts than this process posted with the
// session, and nothing is held or unsent that belongs to the node's id.
func (p *poller) mayRenew(session messages.Session, held messages.Held) bool {
	posted := p.posted.Load()
	switch {
	case posted == nil, session.New, held.Unlisted, posted.Scheduling().Equal(held.Facts):
		return false
	case p.Prove != nil && p.proved.Load() == nil:
		return false // the facts may still change
	}
	stats := p.Journal.Stats()
	return len(held.Leases) == 0 && !held.Busy && p.free == p.settings().Slots && len(p.attempts.list()) == 0 &&
		stats.Unsent == 0 && stats.Unfinished == 0 && !p.snapshots.Draining()
}

// renew removes the node from the master, so that it is registered again with its facts.
func (p *poller) renew(ctx actor.Context, session messages.Session, listed messages.SchedulingFacts, then func(actor.Context)) {
	p.calling = true
	facts := p.posted.Load().Scheduling()
	supervision.Go(ctx, func(work context.Context) (removed bool, err error) {
		return p.removeFor(work, session, facts)
	}, func(ctx actor.Context, removed bool, err error) {
		p.calling = false
		switch {
		case err != nil:
			p.log.Warn("could not remove this node from the master to update its facts; the master keeps scheduling it by outdated facts",
				zap.String("node", session.NodeID), zap.Any("master_has", listed), zap.Any("facts", facts), zap.Error(err))
		case removed:
			p.log.Info("removed this node from the master, which had old facts; registering again",
				zap.String("node", session.NodeID), zap.Any("master_had", listed), zap.Any("facts", facts))
			p.session = nil
			p.refs.registrar.Tell(&messages.RegisterAgain{Session: session, Reason: "the node was removed to update its facts"})
		}
		then(ctx)
		p.called(ctx)
	})
}

// removeFor removes the node, unless that was done for the same facts before or has failed
// too often. A try is on disk before it is made.
func (p *poller) removeFor(ctx context.Context, session messages.Session, facts messages.SchedulingFacts) (removed bool, err error) {
	all, err := p.Journal.Renewals()
	if err != nil {
		return false, fmt.Errorf("reading the journal: %w", err)
	}
	i := slices.IndexFunc(all, func(r messages.Renewal) bool { return r.Master == session.Master && r.Facts.Equal(facts) })
	if i < 0 {
		all = append(all[max(0, len(all)+1-maxKnownFacts):], messages.Renewal{Master: session.Master, Facts: facts})
		i = len(all) - 1
	}
	renewal := &all[i]
	if renewal.Done || renewal.Tries >= maxRenewals {
		return false, nil
	}
	renewal.Tries++
	if err := p.Journal.SaveRenewals(all); err != nil {
		return false, fmt.Errorf("writing to the journal: %w", err)
	}
	err = p.Master.Remove(ctx, session)
	if err != nil && protocol.KindOf(err) != protocol.NotFound {
		return false, fmt.Errorf("try %d of %d: %w", renewal.Tries, maxRenewals, err)
	}
	renewal.Done = true
	if err := p.Journal.SaveRenewals(all); err != nil {
		p.log.Warn("could not record the removal of this node in the journal; it may be repeated", zap.Error(err))
	}
	return true, nil
}
