package devmaster

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// decodeRequest reads the body of POST /jobs as leniently as a job is read
// (a priority may be a number, parameters may be null), but refuses what it
// cannot understand, since here there is somebody to tell.
func decodeRequest(body []byte) (protocol.JobRequest, error) {
	var j protocol.Job
	if err := json.Unmarshal(body, &j); err != nil {
		return protocol.JobRequest{}, refuse(http.StatusBadRequest, "invalid job request: %v", err)
	}
	if len(j.Problems) > 0 {
		return protocol.JobRequest{}, refuse(http.StatusBadRequest, "invalid job request: %s", strings.Join(j.Problems, "; "))
	}
	return protocol.JobRequest{
		Scenario:           j.Scenario,
		Confidence:         j.Confidence,
		Engine:             j.Engine,
		Classification:     j.Classification,
		Parameters:         j.Parameters,
		Queue:              j.Queue,
		Priority:           j.Priority,
		WrapperConstraints: j.WrapperConstraints,
	}, nil
}

// submit queues the job that the body of POST /jobs asks for.
func (m *Master) submit(body []byte) (protocol.Job, error) {
	req, err := decodeRequest(body)
	if err != nil {
		return protocol.Job{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	r := &record{Job: protocol.Job{
		ID:                 m.newID(),
		SequenceNumber:     int64(len(m.jobs)) + 1,
		Scenario:           req.Scenario,
		Confidence:         cmp.Or(req.Confidence, "auto"),
		Engine:             cmp.Or(req.Engine, "auto"),
		Classification:     req.Classification,
		Parameters:         req.Parameters,
		Status:             protocol.StatusQueued,
		Queue:              cmp.Or(req.Queue, "default"),
		Priority:           cmp.Or(req.Priority, "medium"),
		CreatedAt:          &now,
		MaxRetries:         m.cfg.MaxRetries,
		WrapperConstraints: req.WrapperConstraints,
	}}
	m.add(r)
	m.version++
	m.note(Event{Kind: JobSubmitted, JobID: r.Job.ID, Detail: r.Job.Scenario})
	return r.Job, nil
}

// add makes a job known; its sequence number is the next one.
func (m *Master) add(r *record) {
	r.queueRank, r.priorityRank = queueRank(r.Job.Queue), priorityRank(r.Job.Priority)
	m.jobs = append(m.jobs, r)
	m.byID[r.Job.ID] = r
}

// queueRank orders the queues: live before default before batch. A queue
// nobody knows is a default one.
func queueRank(queue string) int {
	switch queue {
	case "live":
		return 2
	case "batch":
		return 0
	}
	return 1
}

// priorityRank orders priorities within a queue: high is 3, medium or normal
// 2, low 1, a number counts as itself, and anything else is medium.
func priorityRank(priority string) float64 {
	switch strings.ToLower(priority) {
	case "high":
		return 3
	case "low":
		return 1
	}
	if n, err := strconv.ParseFloat(priority, 64); err == nil && !math.IsNaN(n) {
		return n
	}
	return 2
}

// before reports whether r is handed out before a job that was submitted
// earlier: only when it ranks higher.
func (r *record) before(other *record) bool {
	return cmp.Or(cmp.Compare(r.queueRank, other.queueRank), cmp.Compare(r.priorityRank, other.priorityRank)) > 0
}

// nextJob assigns the first waiting job to a node; nil when there is none. A
// node that is offline is given none until its next heartbeat.
func (m *Master) nextJob(nodeID string) (*protocol.Job, error) {
	if nodeID == "" {
		m.note(Event{Kind: Polled, Code: http.StatusBadRequest})
		return nil, refuse(http.StatusBadRequest, "node_id parameter is required")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[nodeID]
	if n == nil {
		// 404 would be the better answer; masters in use give this one.
		m.note(Event{Kind: Polled, Code: http.StatusInternalServerError, NodeID: nodeID, Detail: "unknown node"})
		return nil, refuse(http.StatusInternalServerError, "failed to get next job")
	}
	r := m.firstWaiting()
	if r == nil || n.Status == nodeOffline {
		m.note(Event{Kind: Polled, Code: http.StatusOK, NodeID: nodeID})
		return nil, nil
	}
	now := time.Now()
	r.Reported = false
	r.Job.Status = protocol.StatusAssigned
	r.Job.NodeID = nodeID
	r.Job.Progress = 0
	r.Job.StartedAt = &now
	r.Job.LastActivityAt = &now
	n.Status, n.CurrentJobID = nodeBusy, r.Job.ID
	m.version++
	m.note(Event{Kind: JobAssigned, Code: http.StatusOK, NodeID: nodeID, JobID: r.Job.ID, Attempt: r.Job.Attempt()})
	job := r.Job
	return &job, nil
}

func (m *Master) firstWaiting() *record {
	var first *record
	for _, r := range m.jobs {
		waiting := r.Job.Status == protocol.StatusQueued || r.Job.Status == protocol.StatusPending
		if waiting && (first == nil || r.before(first)) {
			first = r
		}
	}
	return first
}

// lookUp finds a job as masters in use do for GET /jobs/{id}: a value that
// begins with 1 to 9 is a sequence number, whatever follows the digits, so that
// a job whose id begins so is not found by its id.
func (m *Master) lookUp(value string) (protocol.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.byID[value]
	n, numbered := leadingNumber(value)
	if numbered {
		r = m.bySequence(n)
	}
	if r == nil && numbered {
		return protocol.Job{}, refuse(http.StatusNotFound, "job not found: as masters in use do, this one reads an id that begins with 1 to 9 as a sequence number, here %d", n)
	}
	if r == nil {
		return protocol.Job{}, refuse(http.StatusNotFound, "job not found")
	}
	return r.Job, nil
}

func leadingNumber(s string) (int64, bool) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	if digits == 0 || s[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	return n, err == nil
}

func (m *Master) bySequence(n int64) *record {
	if n < 1 || n > int64(len(m.jobs)) {
		return nil
	}
	return m.jobs[n-1]
}

// find returns the job of this id, or of this sequence number where no id fits.
func (m *Master) find(value string) (*record, error) {
	if r := m.byID[value]; r != nil {
		return r, nil
	}
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		if r := m.bySequence(n); r != nil {
			return r, nil
		}
	}
	return nil, refuse(http.StatusNotFound, "job not found")
}

// cancelJob ends a job and frees its node at once; the node learns of it by
// asking, and its report is still taken.
func (m *Master) cancelJob(value string) (id string, err error) {
	return m.changeJob(value, JobCanceled, func(r *record) bool {
		if r.Job.Status.Terminal() {
			return false
		}
		r.end(protocol.StatusCanceled)
		m.refresh(r.Job.NodeID)
		return true
	})
}

func (m *Master) pauseJob(value string) (id string, err error) {
	return m.changeJob(value, JobPaused, func(r *record) bool {
		if r.Job.Status.Terminal() || r.Job.Status == protocol.StatusPaused {
			return false
		}
		r.Job.Status = protocol.StatusPaused
		return true
	})
}

// resumeJob puts a paused job back where it was: with its node, or in its queue.
func (m *Master) resumeJob(value string) (id string, err error) {
	return m.changeJob(value, JobResumed, func(r *record) bool {
		if r.Job.Status != protocol.StatusPaused {
			return false
		}
		r.Job.Status = protocol.StatusQueued
		if r.Job.NodeID != "" {
			r.Job.Status = protocol.StatusAssigned
		}
		return true
	})
}

// changeJob applies a change to a job; change returns false where the job's
// state does not allow it.
func (m *Master) changeJob(value string, kind EventKind, change func(*record) bool) (id string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(value)
	if err != nil {
		return "", err
	}
	if was := r.Job.Status; !change(r) {
		return "", refuse(http.StatusBadRequest, "the job is %s: not possible", was)
	}
	m.version++
	m.note(Event{Kind: kind, Code: http.StatusOK, NodeID: r.Job.NodeID, JobID: r.Job.ID, Attempt: r.Job.Attempt(), Status: r.Job.Status})
	return r.Job.ID, nil
}

// requeue makes the job wait for its next attempt; a paused one stays paused.
func (r *record) requeue() {
	r.Job.RetryCount++
	r.Job.NodeID = ""
	r.Job.StartedAt = nil
	r.Job.CompletedAt = nil
	if r.Job.Status != protocol.StatusPaused {
		r.Job.Status = protocol.StatusQueued
	}
}

func (r *record) end(as protocol.Status) {
	now := time.Now()
	r.Job.Status = as
	r.Job.CompletedAt = &now
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, by its contract
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
