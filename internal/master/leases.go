package master

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// Held lists the leases that the master holds as ours: the job that it names as
// the node's current one, and those it lists under the node's id. Where the
// current job was found, a list that cannot be had is no error.
func (c *Client) Held(ctx context.Context, s messages.Session) ([]messages.Lease, error) {
	asked := time.Now()
	node, err := c.node(ctx, s)
	if err != nil {
		return nil, err
	}
	var held []messages.Lease
	seen := map[string]bool{}
	keep := func(job protocol.Job) {
		if !seen[job.ID] {
			seen[job.ID] = true
			held = append(held, messages.Lease{Job: job, NodeID: s.NodeID, AcquiredAt: asked})
		}
	}

	current := false
	timeout := c.settings.ListTimeout
	if node.CurrentJobID != "" {
		job, err := c.job(ctx, node.CurrentJobID, node.CurrentJobID)
		switch {
		case err != nil && !elsewhere(err):
			return nil, err
		case job != nil && job.Status.HeldByNode() && (job.NodeID == "" || job.NodeID == s.NodeID):
			keep(*job)
			current = true
			timeout = min(timeout, c.settings.CallTimeout)
		}
	}
	err = c.jobs(ctx, timeout, func(job protocol.Job) bool {
		if job.NodeID == s.NodeID && job.Status.HeldByNode() {
			keep(job)
		}
		return true
	})
	if err != nil && !current {
		return nil, err
	}
	return held, nil
}

// node asks for this node.
func (c *Client) node(ctx context.Context, s messages.Session) (protocol.Node, error) {
	const name = "GET /nodes/{id}"
	var node protocol.Node
	if s.NodeID == "" {
		return node, unregistered(name)
	}
	err := c.do(ctx, call{
		method: http.MethodGet, path: "/nodes/" + url.PathEscape(s.NodeID), timeout: c.settings.CallTimeout,
	}, func(a *answer) error {
		if err := a.json(&node); err != nil {
			return err
		}
		if node.ID == "" {
			return garbledError{errors.New("the answer names no node id")}
		}
		return nil
	})
	if err == nil && node.ID != s.NodeID {
		err = &messages.MasterError{Kind: messages.MasterUnknown, Status: http.StatusOK,
			Err: fmt.Errorf("%s: the master answers with another node", name)}
	}
	return node, err
}

// job asks for the job with an id under a name of it, which is the id itself or
// its sequence number. It is nil without an error when the answer is another job.
func (c *Client) job(ctx context.Context, name, id string) (*protocol.Job, error) {
	var job protocol.Job
	err := c.do(ctx, call{
		method: http.MethodGet, path: "/jobs/" + url.PathEscape(name), timeout: c.settings.CallTimeout,
	}, func(a *answer) error { return a.json(&job) })
	if err != nil || job.ID != id {
		return nil, err
	}
	return &job, nil
}

// elsewhere reports whether a job that could not be had by its name may still be
// found in the list: the master is there, and did not like the question.
func elsewhere(err error) bool {
	var e *messages.MasterError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case messages.MasterUnknown, messages.MasterRefused, messages.MasterBroken, messages.MasterGarbled:
		return true
	}
	return false
}

// Extend asks how a lease stands. Masters in use take a job id that begins with 1
// to 9 for a sequence number, so a job is asked for by its sequence number where
// it has one, then by its id, then looked up in the list of all; only an answer
// with the job's very id counts.
func (c *Client) Extend(ctx context.Context, lease messages.Lease) (messages.Standing, error) {
	for _, name := range names(&lease.Job) {
		job, err := c.job(ctx, name, lease.Job.ID)
		if err != nil && !elsewhere(err) {
			return messages.StandingUnknown, err
		}
		if job != nil {
			return standing(&lease, job), nil
		}
	}
	found := messages.StandingUnknown
	err := c.jobs(ctx, c.settings.ListTimeout, func(job protocol.Job) bool {
		if job.ID != lease.Job.ID {
			return true
		}
		found = standing(&lease, &job)
		return false
	})
	return found, err
}

// names are what a job may be asked for by, best first.
func names(job *protocol.Job) []string {
	if job.SequenceNumber > 0 {
		return []string{strconv.FormatInt(job.SequenceNumber, 10), job.ID}
	}
	return []string{job.ID}
}

// standing compares a lease with the job as the master has it now.
func standing(lease *messages.Lease, job *protocol.Job) messages.Standing {
	mine, now := lease.Job.RetryCount, job.RetryCount
	switch {
	case job.NodeID != "" && job.NodeID != lease.NodeID, now > mine:
		return messages.StandingGivenAway
	case now < mine: // a master that went back in time: nothing to conclude from
		return messages.StandingUnknown
	case job.Status == protocol.StatusCanceled:
		return messages.StandingCanceled
	case job.Status.Terminal():
		return messages.StandingEnded
	case job.Status.HeldByNode(), job.Status == protocol.StatusPaused:
		return messages.StandingHeld
	}
	switch job.Status {
	case protocol.StatusPending, protocol.StatusQueued, protocol.StatusRetrying:
		return messages.StandingGivenAway
	}
	return messages.StandingUnknown // a state to come
}
