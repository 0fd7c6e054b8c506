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

// States of a node.
const (
	nodeAvailable = "available"
	nodeBusy      = "busy"
	nodeOffline   = "offline"
)

// register takes a node in, or renews the one with this address.
func (m *Master) register(body []byte) (code int, _ protocol.Node, err error) {
	var reg protocol.NodeRegistration
	if err := json.Unmarshal(body, &reg); err != nil {
		return 0, protocol.Node{}, refuse(http.StatusBadRequest, "invalid registration: %v", err)
	}
	if reg.Address == "" {
		return 0, protocol.Node{}, refuse(http.StatusBadRequest, "invalid registration: address is missing")
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
	n.NodeRegistration = reg
	n.LastHeartbeat = time.Now()
	n.Status = nodeAvailable
	if m.cfg.FenceAttempts {
		m.refresh(n.ID)
	} else {
		n.CurrentJobID = "" // older masters forget it, though the job stays assigned
	}
	m.version++
	m.note(Event{Kind: NodeRegistered, Code: code, NodeID: n.ID, Detail: n.Address})
	return code, *n, nil
}

func (m *Master) nodeAt(address string) *protocol.Node {
	for _, n := range m.nodes {
		if n.Address == address {
			return n
		}
	}
	return nil
}

// hostOf is the host in an address such as https://host:8080.
func hostOf(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	if host, _, ok := strings.Cut(address, ":"); ok && host != "" {
		return host
	}
	return address
}

// heartbeat renews a node's sign of life. The body is a JSON status or
// anything else; what is not understood is ignored, as older masters do.
func (m *Master) heartbeat(id string, body []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[id]
	if n == nil {
		m.note(Event{Kind: Heartbeat, Code: http.StatusNotFound, NodeID: id})
		return refuse(http.StatusNotFound, "node not found")
	}
	now := time.Now()
	n.LastHeartbeat = now
	for _, r := range m.heldBy(id) {
		r.Job.LastActivityAt = &now
	}
	if n.Status == nodeOffline {
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
	m.note(Event{Kind: Heartbeat, Code: http.StatusOK, NodeID: id})
	return nil
}

func (m *Master) node(id string) (protocol.Node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[id]
	if n == nil {
		return protocol.Node{}, refuse(http.StatusNotFound, "node not found")
	}
	return *n, nil
}

func (m *Master) removeNode(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[id]
	if n == nil {
		return refuse(http.StatusNotFound, "node not found")
	}
	if n.Status == nodeBusy {
		return refuse(http.StatusBadRequest, "cannot remove node while it is processing a job")
	}
	delete(m.nodes, id)
	m.version++
	m.note(Event{Kind: NodeRemoved, Code: http.StatusOK, NodeID: id})
	return nil
}

func (m *Master) sortedNodes() []*protocol.Node {
	return slices.SortedFunc(maps.Values(m.nodes), func(a, b *protocol.Node) int {
		return cmp.Or(a.RegisteredAt.Compare(b.RegisteredAt), cmp.Compare(a.ID, b.ID))
	})
}

// heldBy lists the jobs that a node was given and that have not ended.
func (m *Master) heldBy(nodeID string) []*record {
	var held []*record
	for _, r := range m.jobs {
		if r.Job.NodeID == nodeID && !r.Job.Status.Terminal() {
			held = append(held, r)
		}
	}
	return held
}

// refresh makes a node's state and current job fit the jobs it holds. The last
// job given to it stays the current one for as long as the node holds it.
func (m *Master) refresh(nodeID string) {
	n := m.nodes[nodeID]
	if n == nil || n.Status == nodeOffline {
		return
	}
	held := m.heldBy(nodeID)
	if len(held) == 0 {
		n.Status, n.CurrentJobID = nodeAvailable, ""
		return
	}
	n.Status = nodeBusy
	if !slices.ContainsFunc(held, func(r *record) bool { return r.Job.ID == n.CurrentJobID }) {
		n.CurrentJobID = held[0].Job.ID
	}
}

func (m *Master) sweepUntilStopped() {
	ticker := time.NewTicker(max(min(m.cfg.UnavailableAfter/4, time.Second), time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-ticker.C:
			m.sweep()
		}
	}
}

// sweep declares silent nodes offline and gives their jobs away.
func (m *Master) sweep() {
	if m.giveAwaySilent() {
		if err := m.flush(); err != nil {
			m.log.Error("state not stored after giving jobs away; tried again at the next change", zap.Error(err))
		}
	}
}

func (m *Master) giveAwaySilent() (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, n := range m.sortedNodes() {
		silence := now.Sub(n.LastHeartbeat)
		if n.Status == nodeOffline || silence < m.cfg.UnavailableAfter {
			continue
		}
		changed = true
		n.Status, n.CurrentJobID = nodeOffline, ""
		m.note(Event{Kind: NodeOffline, NodeID: n.ID, Detail: fmt.Sprintf("no heartbeat for %v", silence.Round(time.Millisecond))})
		for _, r := range m.heldBy(n.ID) {
			m.giveAway(r, n)
		}
	}
	if changed {
		m.version++
	}
	return changed
}

// giveAway re-queues a job of a node that fell silent, or fails it when its
// retries are used up.
func (m *Master) giveAway(r *record, n *protocol.Node) {
	j := &r.Job
	attempt := j.Attempt()
	j.Error = fmt.Sprintf("node %s sent no heartbeat for %v", n.Name, m.cfg.UnavailableAfter)
	j.FailureReason = protocol.ReasonPlatformError
	if j.RetryCount < j.MaxRetries {
		r.requeue()
	} else {
		r.end(protocol.StatusFailed)
	}
	m.note(Event{Kind: JobReassigned, NodeID: n.ID, JobID: j.ID, Attempt: attempt, Status: j.Status})
}
