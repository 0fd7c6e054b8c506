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
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Held lists the leases that the master holds as ours: the job that it names as
// the node's current one, and those it lists under the node's id. Where the
// current job was found, a list that cannot be had is no error.
func (c *Client) Held(ctx context.Context, s messages.Session) ([]job.Lease, error) {
	asked := time.Now()
	node, err := c.node(ctx, s)
	if err != nil {
		return nil, err
	}
	var held []job.Lease
	seen := map[string]bool{}
	keep := func(j protocol.Job) {
		if !seen[j.ID] {
			seen[j.ID] = true
			held = append(held, job.Lease{Job: j, NodeID: s.NodeID, AcquiredAt: asked})
		}
	}

	current := false
	timeout := c.settings.ListTimeout
	if node.CurrentJobID != "" {
		j, err := c.job(ctx, node.CurrentJobID, node.CurrentJobID)
		switch {
		case err != nil && !elsewhere(err):
			return nil, err
		case j != nil && j.Status.HeldByNode() && (j.NodeID == "" || j.NodeID == s.NodeID):
			keep(*j)
			current = true
			timeout = min(timeout, c.settings.CallTimeout)
		}
	}
	err = c.jobs(ctx, timeout, func(j protocol.Job) bool {
		if j.NodeID == s.NodeID && j.Status.HeldByNode() {
			keep(j)
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
		err = &protocol.Error{Kind: protocol.NotFound, Status: http.StatusOK,
			Err: fmt.Errorf("%s: the master answers with another node", name)}
	}
	return node, err
}

// job asks for the job with an id under a name of it, which is the id itself or
// its sequence number. It is nil without an error when the answer is another job.
func (c *Client) job(ctx context.Context, name, id string) (*protocol.Job, error) {
	var j protocol.Job
	err := c.do(ctx, call{
		method: http.MethodGet, path: "/jobs/" + url.PathEscape(name), timeout: c.settings.CallTimeout,
	}, func(a *answer) error { return a.json(&j) })
	if err != nil || j.ID != id {
		return nil, err
	}
	return &j, nil
}

// elsewhere reports whether a job that could not be had by its name may still be
// found in the list: the master is there, and did not like the question.
func elsewhere(err error) bool {
	var e *protocol.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case protocol.NotFound, protocol.Rejected, protocol.ServerError, protocol.Malformed:
		return true
	}
	return false
}

// Extend asks how a lease stands. Masters in use take a job id that begins with 1
// to 9 for a sequence number, so a job is asked for by its sequence number where
// it has one, then by its id, then looked up in the list of all; only an answer
// with the job's very id counts.
func (c *Client) Extend(ctx context.Context, lease job.Lease) (job.LeaseStatus, error) {
	for _, name := range names(&lease.Job) {
		j, err := c.job(ctx, name, lease.Job.ID)
		if err != nil && !elsewhere(err) {
			return job.LeaseUnknown, err
		}
		if j != nil {
			return standing(&lease, j), nil
		}
	}
	found := job.LeaseUnknown
	err := c.jobs(ctx, c.settings.ListTimeout, func(j protocol.Job) bool {
		if j.ID != lease.Job.ID {
			return true
		}
		found = standing(&lease, &j)
		return false
	})
	return found, err
}

// names are what a job may be asked for by, best first.
func names(j *protocol.Job) []string {
	if j.SequenceNumber > 0 {
		return []string{strconv.FormatInt(j.SequenceNumber, 10), j.ID}
	}
	return []string{j.ID}
}

// standing compares a lease with the job as the master has it now.
func standing(lease *job.Lease, j *protocol.Job) job.LeaseStatus {
	mine, now := lease.Job.RetryCount, j.RetryCount
	switch {
	case j.NodeID != "" && j.NodeID != lease.NodeID, now > mine:
		return job.LeaseReassigned
	case now < mine: // a master that went back in time: nothing to conclude from
		return job.LeaseUnknown
	case j.Status == protocol.StatusCanceled:
		return job.LeaseCanceled
	case j.Status.Terminal():
		return job.LeaseEnded
	case j.Status.HeldByNode(), j.Status == protocol.StatusPaused:
		return job.LeaseHeld
	}
	switch j.Status {
	case protocol.StatusPending, protocol.StatusQueued, protocol.StatusRetrying:
		return job.LeaseReassigned
	}
	return job.LeaseUnknown // a state to come
}
