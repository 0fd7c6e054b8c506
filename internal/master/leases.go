package master

import (
	"context"
	"encoding/json"
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

// Held returns how the master lists this node, and the leases that the master has assigned
// to it: its current job, and all jobs listed with its ID. If the current job was found, a
// failure to get the list of jobs is ignored.
func (c *Client) Held(ctx context.Context, s messages.Session) (messages.Held, error) {
	sentAt := time.Now()
	var held messages.Held
	node, err := c.node(ctx, s)
	switch {
	case protocol.KindOf(err) == protocol.ServerError && c.unlisted(ctx, s):
		held.Unlisted = true
	case err != nil:
		return messages.Held{}, err
	default:
		held.Offline, held.Busy = node.Status == "offline", node.Status == "busy" || node.CurrentJobID != ""
		held.Facts = messages.SchedulingFacts{
			HasGPU: node.HasGPU, GPUType: node.GPUType, GPUCapabilities: node.GPUCapabilities, Labels: node.Labels,
		}
	}
	held.Leases, err = c.leases(ctx, s, node.CurrentJobID, sentAt)
	return held, err
}

// unlisted reports whether the master lists its nodes, but not this one: after a failover,
// masters in use answer a node's heartbeats but can neither list nor return it.
func (c *Client) unlisted(ctx context.Context, s messages.Session) bool {
	found := false
	err := c.list(ctx, "nodes", c.cfg.ListTimeout, func(raw json.RawMessage) bool {
		var node protocol.Node
		found = found || json.Unmarshal(raw, &node) == nil && node.ID == s.NodeID
		return !found
	})
	return err == nil && !found
}

func (c *Client) leases(ctx context.Context, s messages.Session, currentJob string, sentAt time.Time) ([]job.Lease, error) {
	var held []job.Lease
	seen := map[string]bool{}
	add := func(j protocol.Job) {
		if !seen[j.ID] {
			seen[j.ID] = true
			held = append(held, job.Lease{Job: j, NodeID: s.NodeID, AcquiredAt: sentAt})
		}
	}

	foundCurrent := false
	timeout := c.cfg.ListTimeout
	if currentJob != "" {
		j, err := c.job(ctx, currentJob, currentJob)
		switch {
		case err != nil && !maybeListed(err):
			return nil, err
		case j != nil && j.Status.HeldByNode() && (j.NodeID == "" || j.NodeID == s.NodeID):
			add(*j)
			foundCurrent = true
			timeout = min(timeout, c.cfg.CallTimeout)
		}
	}
	err := c.jobs(ctx, timeout, func(j protocol.Job) bool {
		if j.NodeID == s.NodeID && j.Status.HeldByNode() {
			add(j)
		}
		return len(held) < maxLeases
	})
	if err != nil && !foundCurrent {
		return nil, err
	}
	return held, nil
}

// node gets this node.
func (c *Client) node(ctx context.Context, s messages.Session) (protocol.Node, error) {
	const name = "GET /nodes/{id}"
	var node protocol.Node
	if s.NodeID == "" {
		return node, unregistered(name)
	}
	err := c.do(ctx, call{
		method: http.MethodGet, path: "/nodes/" + url.PathEscape(s.NodeID), timeout: c.cfg.CallTimeout,
	}, func(r *response) error {
		if err := r.json(&node); err != nil {
			return err
		}
		if node.ID == "" {
			return malformedError{errors.New("no node id")}
		}
		return nil
	})
	if err == nil && node.ID != s.NodeID {
		err = &protocol.Error{Kind: protocol.NotFound, Status: http.StatusOK,
			Err: fmt.Errorf("%s: the master returned another node", name)}
	}
	return node, err
}

// job gets a job by reference, which is its ID or sequence number. It returns nil without
// an error if the response is a job with another ID.
func (c *Client) job(ctx context.Context, reference, id string) (*protocol.Job, error) {
	var j protocol.Job
	err := c.do(ctx, call{
		method: http.MethodGet, path: "/jobs/" + url.PathEscape(reference), timeout: c.cfg.CallTimeout,
	}, func(r *response) error { return r.json(&j) })
	if err != nil || j.ID != id {
		return nil, err
	}
	return &j, nil
}

// maybeListed reports whether a job may be in the list although getting it directly
// failed: the master responded, but did not find it or rejected the reference.
func maybeListed(err error) bool {
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

// Extend returns the current status of a lease. Existing masters interpret a job ID that
// starts with 1 to 9 as a sequence number, so Extend gets the job by its sequence number
// if it has one, then by its ID, then from the list of all jobs. It ignores responses with
// another ID.
func (c *Client) Extend(ctx context.Context, lease job.Lease) (job.LeaseStatus, error) {
	for _, reference := range references(&lease.Job) {
		j, err := c.job(ctx, reference, lease.Job.ID)
		if err != nil && !maybeListed(err) {
			return job.LeaseUnknown, err
		}
		if j != nil {
			return leaseStatus(&lease, j), nil
		}
	}
	status := job.LeaseUnknown
	err := c.jobs(ctx, c.cfg.ListTimeout, func(j protocol.Job) bool {
		if j.ID != lease.Job.ID {
			return true
		}
		status = leaseStatus(&lease, &j)
		return false
	})
	return status, err
}

// references returns the references to a job for GET /jobs/…, most reliable first.
func references(j *protocol.Job) []string {
	if j.SequenceNumber > 0 {
		return []string{strconv.FormatInt(j.SequenceNumber, 10), j.ID}
	}
	return []string{j.ID}
}

// leaseStatus compares a lease with the current job at the master.
func leaseStatus(lease *job.Lease, j *protocol.Job) job.LeaseStatus {
	leased, current := lease.Job.RetryCount, j.RetryCount
	elsewhere := j.NodeID != "" && j.NodeID != lease.NodeID
	reassigned := elsewhere || current > leased
	switch {
	// A master that does not fence takes the result of a job that it has re-queued.
	case reassigned && !elsewhere && j.Status == protocol.StatusCompleted && !lease.Job.Fenced():
		return job.LeaseEnded
	case reassigned && j.Status.Terminal() && j.Status != protocol.StatusFailed:
		return job.LeaseOver
	case reassigned:
		return job.LeaseReassigned
	case current < leased: // the master lost state
		return job.LeaseUnknown
	case j.Status == protocol.StatusCanceled:
		return job.LeaseCanceled
	case j.Status == protocol.StatusCompleted:
		return job.LeaseEnded
	case j.Status == protocol.StatusFailed:
		return job.LeaseFailed
	case j.Status == protocol.StatusTimedOut:
		return job.LeaseTimedOut
	case j.Status == protocol.StatusRejected:
		return job.LeaseRejected
	case j.Status.HeldByNode(), j.Status == protocol.StatusPaused:
		return job.LeaseHeld
	}
	switch j.Status {
	case protocol.StatusPending, protocol.StatusQueued, protocol.StatusRetrying:
		return job.LeaseReassigned
	}
	return job.LeaseUnknown // a status added in a later version
}
