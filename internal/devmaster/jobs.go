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

// decodeRequest decodes the body of POST /jobs as leniently as a job (a priority may be a
// number, parameters may be null), but rejects it if the job has problems.
func decodeRequest(body []byte) (protocol.JobRequest, error) {
	var j protocol.Job
	if err := json.Unmarshal(body, &j); err != nil {
		return protocol.JobRequest{}, reject(http.StatusBadRequest, "invalid job request: %v", err)
	}
	if len(j.Problems) > 0 {
		return protocol.JobRequest{}, reject(http.StatusBadRequest, "invalid job request: %s", strings.Join(j.Problems, "; "))
	}
	return protocol.JobRequest{
		Scenario:           j.Scenario,
		Confidence:         j.Confidence,
		Engine:             j.Engine,
		Classification:     j.Classification,
		TraceParent:        j.TraceParent,
		Parameters:         j.Parameters,
		Queue:              j.Queue,
		Priority:           j.Priority,
		WrapperConstraints: j.WrapperConstraints,
	}, nil
}

// submit queues a job, given the body of POST /jobs.
func (m *Master) submit(body []byte) (protocol.Job, error) {
	req, err := decodeRequest(body)
	if err != nil {
		return protocol.Job{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	r := &jobRecord{Job: protocol.Job{
		ID:                 m.newID(),
		SequenceNumber:     int64(len(m.jobs)) + 1,
		Scenario:           req.Scenario,
		Confidence:         cmp.Or(req.Confidence, "auto"),
		Engine:             cmp.Or(req.Engine, "auto"),
		Classification:     req.Classification,
		TraceParent:        req.TraceParent,
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
	m.record(Event{Kind: JobSubmitted, JobID: r.Job.ID, Detail: r.Job.Scenario})
	return r.Job, nil
}

// add adds a job, which must have the next sequence number.
func (m *Master) add(r *jobRecord) {
	r.queueRank, r.priorityRank = queueRank(r.Job.Queue), priorityRank(r.Job.Priority)
	r.Job.FencedAttempt = 0
	if m.cfg.FenceAttempts {
		r.Job.FencedAttempt = r.Job.Attempt()
	}
	m.jobs = append(m.jobs, r)
	m.byID[r.Job.ID] = r
}

// queueRank orders the queues: live before default before batch. Unknown queues count as
// default.
func queueRank(queue string) int {
	switch queue {
	case "live":
		return 2
	case "batch":
		return 0
	}
	return 1
}

// priorityRank orders the priorities within a queue: high is 3, medium and normal are 2, low
// is 1, and a number is itself. Unknown priorities count as medium.
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

// ranksAbove reports whether r is assigned before other although it was submitted later.
func (r *jobRecord) ranksAbove(other *jobRecord) bool {
	return cmp.Or(cmp.Compare(r.queueRank, other.queueRank), cmp.Compare(r.priorityRank, other.priorityRank)) > 0
}

// nextJob assigns the next queued job to a node. It returns nil if there is none, or if the node
// is offline, which it is until its next heartbeat. With Habits, offline nodes may be assigned
// jobs, and it returns nil if the job needs a GPU that the node lacks.
func (m *Master) nextJob(nodeID string) (*protocol.Job, error) {
	if nodeID == "" {
		m.record(Event{Kind: PollWithoutJob, Code: http.StatusBadRequest})
		return nil, reject(http.StatusBadRequest, "node_id parameter is required")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[nodeID]
	if n == nil {
		// Deployed masters respond with 500, although 404 would be correct.
		m.record(Event{Kind: PollWithoutJob, Code: http.StatusInternalServerError, NodeID: nodeID, Detail: "unknown node"})
		return nil, reject(http.StatusInternalServerError, "failed to get next job")
	}
	r := m.firstQueued()
	offline := n.Status == nodeOffline && !m.cfg.Habits.OfflineUntilRegistered
	if r == nil || offline || m.cfg.Habits.MatchGPU && !fits(&r.Job, n) {
		m.record(Event{Kind: PollWithoutJob, Code: http.StatusOK, NodeID: nodeID})
		return nil, nil
	}
	now := time.Now()
	r.Reported = false
	r.Job.Status = protocol.StatusAssigned
	r.Job.NodeID = nodeID
	r.Job.Progress = 0
	r.Job.StartedAt = &now
	r.Job.LastActivityAt = &now
	n.CurrentJobID = r.Job.ID
	if n.Status != nodeOffline {
		n.Status = nodeBusy
	}
	m.version++
	m.record(Event{Kind: JobAssigned, Code: http.StatusOK, NodeID: nodeID, JobID: r.Job.ID, Attempt: r.Job.Attempt()})
	job := r.Job
	return &job, nil
}

func (m *Master) firstQueued() *jobRecord {
	var first *jobRecord
	for _, r := range m.jobs {
		queued := r.Job.Status == protocol.StatusQueued || r.Job.Status == protocol.StatusPending
		if queued && (first == nil || r.ranksAbove(first)) {
			first = r
		}
	}
	return first
}

// lookUp implements GET /jobs/{id} like deployed masters: a reference that starts with 1 to 9
// is a sequence number, whatever follows the digits. A job whose ID starts with 1 to 9 cannot
// be found by its ID.
func (m *Master) lookUp(reference string) (protocol.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.byID[reference]
	n, numbered := leadingNumber(reference)
	if numbered {
		r = m.bySequence(n)
	}
	if r == nil && numbered {
		return protocol.Job{}, reject(http.StatusNotFound, "job not found: an ID that starts with 1 to 9 is taken as a sequence number, here %d", n)
	}
	if r == nil {
		return protocol.Job{}, reject(http.StatusNotFound, "job not found")
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

func (m *Master) bySequence(n int64) *jobRecord {
	if n < 1 || n > int64(len(m.jobs)) {
		return nil
	}
	return m.jobs[n-1]
}

// find returns the job with an ID, or else with a sequence number.
func (m *Master) find(reference string) (*jobRecord, error) {
	if r := m.byID[reference]; r != nil {
		return r, nil
	}
	if n, err := strconv.ParseInt(reference, 10, 64); err == nil {
		if r := m.bySequence(n); r != nil {
			return r, nil
		}
	}
	return nil, reject(http.StatusNotFound, "job not found")
}

// cancelJob cancels a job and frees its node at once. The node learns of it by GET /jobs/{id},
// and its result is still accepted.
func (m *Master) cancelJob(reference string) (id string, err error) {
	return m.changeJob(reference, JobCanceled, func(r *jobRecord) bool {
		if r.Job.Status.Terminal() {
			return false
		}
		r.end(protocol.StatusCanceled)
		m.refresh(r.Job.NodeID)
		return true
	})
}

func (m *Master) pauseJob(reference string) (id string, err error) {
	return m.changeJob(reference, JobPaused, func(r *jobRecord) bool {
		if r.Job.Status.Terminal() || r.Job.Status == protocol.StatusPaused {
			return false
		}
		r.Job.Status = protocol.StatusPaused
		return true
	})
}

// resumeJob makes a paused job assigned again, or queued if it has no node.
func (m *Master) resumeJob(reference string) (id string, err error) {
	return m.changeJob(reference, JobResumed, func(r *jobRecord) bool {
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

// changeJob applies change to a job. change returns false if the job's status does not allow
// it.
func (m *Master) changeJob(reference string, kind EventKind, change func(*jobRecord) bool) (id string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(reference)
	if err != nil {
		return "", err
	}
	if status := r.Job.Status; !change(r) {
		return "", reject(http.StatusBadRequest, "not possible: the job is %s", status)
	}
	m.version++
	m.record(Event{Kind: kind, Code: http.StatusOK, NodeID: r.Job.NodeID, JobID: r.Job.ID, Attempt: r.Job.Attempt(), Status: r.Job.Status})
	return r.Job.ID, nil
}

// requeue queues the job for its next attempt. A paused job stays paused.
func (r *jobRecord) requeue() {
	r.Job.RetryCount++
	if r.Job.Fenced() {
		r.Job.FencedAttempt = r.Job.Attempt()
	}
	r.Job.NodeID = ""
	r.Job.StartedAt = nil
	r.Job.CompletedAt = nil
	if r.Job.Status != protocol.StatusPaused {
		r.Job.Status = protocol.StatusQueued
	}
}

func (r *jobRecord) end(status protocol.Status) {
	now := time.Now()
	r.Job.Status = status
	r.Job.CompletedAt = &now
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never returns an error
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
