package devmaster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages/protocol"
)

// Statuses of a node.
const (
	nodeAvailable = "available"
	nodeBusy      = "busy"
	nodeOffline   = "offline"
)

// register adds a node, or updates the one with the same address. The node that it returns has
// the posted facts, whether or not they were stored.
func (m *Master) register(body []byte) (code int, _ protocol.Node, err error) {
	var reg protocol.NodeRegistration
	if err := json.Unmarshal(body, &reg); err != nil {
		return 0, protocol.Node{}, reject(http.StatusBadRequest, "invalid registration: %v", err)
	}
	if reg.Address == "" {
		return 0, protocol.Node{}, reject(http.StatusBadRequest, "invalid registration: missing address")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	code = http.StatusOK
	n := m.nodeAt(reg.Address)
	if n == nil {
		code = http.StatusCreated
		n = &protocol.Node{ID: m.newID(), Name: hostOf(reg.Address), RegisteredAt: time.Now()}
		m.nodes[n.ID] = n
	}
	if code == http.StatusCreated || !m.cfg.Habits.FirstFactsOnly {
		n.NodeRegistration = reg
	}
	n.LastHeartbeat = time.Now()
	n.Status = nodeAvailable
	delete(m.unreadable, n.ID)
	if m.cfg.FenceAttempts {
		m.refresh(n.ID)
	} else {
		n.CurrentJobID = "" // as older masters do, although the job stays assigned
	}
	m.version++
	m.record(Event{Kind: NodeRegistered, Code: code, NodeID: n.ID, Detail: n.Address})
	answer := *n
	answer.NodeRegistration = reg
	return code, answer, nil
}

func (m *Master) nodeAt(address string) *protocol.Node {
	for _, n := range m.nodes {
		if n.Address == address {
			return n
		}
	}
	return nil
}

// hostOf returns the host of an address such as https://host:8080.
func hostOf(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	if host, _, ok := strings.Cut(address, ":"); ok && host != "" {
		return host
	}
	return address
}

// heartbeat handles a node's heartbeat. The body may be a JSON status; anything else is
// ignored.
func (m *Master) heartbeat(id string, body []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[id]
	if n == nil {
		m.record(Event{Kind: Heartbeat, Code: http.StatusNotFound, NodeID: id})
		return reject(http.StatusNotFound, "node not found")
	}
	now := time.Now()
	n.LastHeartbeat = now
	for _, r := range m.heldBy(id) {
		r.Job.LastActivityAt = &now
	}
	if n.Status == nodeOffline && !m.cfg.Habits.OfflineUntilRegistered {
		n.Status = nodeAvailable
		m.refresh(id)
		m.version++
	}
	var status struct {
		RAMFreeBytes   *uint64  `json:"ram_free_bytes"`
		CPULoadPercent *float64 `json:"cpu_load_percent"`
	}
	if json.Unmarshal(body, &status) == nil {
		if status.RAMFreeBytes != nil {
			n.RAMFreeBytes = *status.RAMFreeBytes
		}
		if status.CPULoadPercent != nil {
			n.CPULoadPercent = *status.CPULoadPercent
		}
	}
	m.record(Event{Kind: Heartbeat, Code: http.StatusOK, NodeID: id})
	return nil
}

func (m *Master) node(id string) (protocol.Node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.readable(id)
	if err != nil {
		return protocol.Node{}, err
	}
	return *n, nil
}

// readable returns a node, or the error with which requests to read it fail.
func (m *Master) readable(id string) (*protocol.Node, error) {
	switch n := m.nodes[id]; {
	case n == nil:
		return nil, reject(http.StatusNotFound, "node not found")
	case m.unreadable[id]:
		return nil, reject(http.StatusInternalServerError, "failed to get node")
	default:
		return n, nil
	}
}

// listedNodes returns the nodes that GET /nodes lists.
func (m *Master) listedNodes() []protocol.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	var nodes []protocol.Node
	for _, n := range m.sortedNodes() {
		if !m.unreadable[n.ID] {
			nodes = append(nodes, *n)
		}
	}
	return nodes
}

func (m *Master) removeNode(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.readable(id)
	if err != nil {
		return err
	}
	if n.Status == nodeBusy || n.CurrentJobID != "" {
		return reject(http.StatusBadRequest, "cannot remove node while it is processing a job")
	}
	delete(m.nodes, id)
	m.version++
	m.record(Event{Kind: NodeRemoved, Code: http.StatusOK, NodeID: id})
	return nil
}

func (m *Master) sortedNodes() []*protocol.Node {
	return slices.SortedFunc(maps.Values(m.nodes), func(a, b *protocol.Node) int {
		return cmp.Or(a.RegisteredAt.Compare(b.RegisteredAt), cmp.Compare(a.ID, b.ID))
	})
}

// heldBy returns the jobs of a node that have not ended.
func (m *Master) heldBy(nodeID string) []*jobRecord {
	var held []*jobRecord
	for _, r := range m.jobs {
		if r.Job.NodeID == nodeID && !r.Job.Status.Terminal() {
			held = append(held, r)
		}
	}
	return held
}

// refresh updates a node's status and current job from the jobs it holds. The latest
// assigned job stays the current one as long as the node holds it.
func (m *Master) refresh(nodeID string) {
	n := m.nodes[nodeID]
	if n == nil {
		return
	}
	held := m.heldBy(nodeID)
	if n.Status != nodeOffline {
		n.Status = nodeAvailable
		if len(held) > 0 {
			n.Status = nodeBusy
		}
	}
	if len(held) == 0 {
		n.CurrentJobID = ""
		return
	}
	if !slices.ContainsFunc(held, func(r *jobRecord) bool { return r.Job.ID == n.CurrentJobID }) {
		n.CurrentJobID = held[0].Job.ID
	}
}

func (m *Master) sweepUntilStopped() {
	interval := min(m.cfg.UnavailableAfter/4, time.Second)
	for _, limit := range []time.Duration{m.cfg.Habits.StaleAfter, m.cfg.Habits.LiveStaleAfter} {
		if limit > 0 {
			interval = min(interval, limit/4)
		}
	}
	ticker := time.NewTicker(max(interval, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-ticker.C:
			m.sweepOnce()
		}
	}
}

// sweepOnce marks nodes without heartbeats as offline, reassigns their jobs, and re-queues
// stale ones.
func (m *Master) sweepOnce() {
	nodes, jobs := m.expireNodes(), m.requeueStale()
	if nodes || jobs {
		if err := m.flush(); err != nil {
			m.log.Error("could not store reassigned jobs; retrying with the next change", zap.Error(err))
		}
	}
}

func (m *Master) expireNodes() (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, n := range m.sortedNodes() {
		silence := now.Sub(n.LastHeartbeat)
		wasOffline := n.Status == nodeOffline // may hold jobs with OfflineUntilRegistered
		if silence < m.cfg.UnavailableAfter || wasOffline && len(m.heldBy(n.ID)) == 0 {
			continue
		}
		changed = true
		n.Status, n.CurrentJobID = nodeOffline, ""
		m.record(Event{Kind: NodeOffline, NodeID: n.ID, Detail: fmt.Sprintf("no heartbeat for %v", silence.Round(time.Millisecond))})
		for _, r := range m.heldBy(n.ID) {
			m.reassign(r, n)
		}
	}
	if changed {
		m.version++
	}
	return changed
}

// reassign takes a job from an offline node.
func (m *Master) reassign(r *jobRecord, n *protocol.Node) {
	r.Job.Error = fmt.Sprintf("node %s sent no heartbeat for %v", n.Name, m.cfg.UnavailableAfter)
	m.giveUp(r, n)
}

// giveUp re-queues a job of a node, or fails it if no retry is left.
func (m *Master) giveUp(r *jobRecord, n *protocol.Node) {
	j := &r.Job
	attempt := j.Attempt()
	j.FailureReason = protocol.ReasonPlatformError
	if j.RetryCount < j.MaxRetries {
		r.requeue()
	} else {
		r.end(protocol.StatusFailed)
	}
	m.record(Event{Kind: JobReassigned, NodeID: n.ID, JobID: j.ID, Attempt: attempt, Status: j.Status})
}

// requeueStale re-queues the jobs that take longer than their queue allows, whether or not
// their nodes send heartbeats.
func (m *Master) requeueStale() (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, r := range m.jobs {
		j := &r.Job
		limit := m.cfg.Habits.StaleAfter
		n := m.nodes[j.NodeID]
		if j.Queue == "live" {
			limit = m.cfg.Habits.LiveStaleAfter
			if n != nil && n.CurrentJobID == j.ID {
				continue
			}
		}
		if limit <= 0 || n == nil || !j.Status.HeldByNode() || j.StartedAt == nil || now.Sub(*j.StartedAt) < limit {
			continue
		}
		changed = true
		j.Error = fmt.Sprintf("stalled: no result within %v", limit)
		m.giveUp(r, n)
		if j.Status == protocol.StatusQueued {
			j.Status = protocol.StatusPending
		}
		m.refresh(n.ID)
	}
	if changed {
		m.version++
	}
	return changed
}
