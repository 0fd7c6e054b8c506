// Package devmaster is a small master for development, demos and tests. It implements the
// whole protocol of package messages/protocol, with queues, priorities, retries, reassignment,
// cancelation and fencing. Its state is in memory or in a file.
//
// It is not meant for production: any job is assigned to the first node that polls, and each
// change rewrites the whole state.
package devmaster

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages/protocol"
)

// Defaults of Config.
const (
	DefaultUnavailableAfter = 90 * time.Second
	DefaultMaxRetries       = 3
)

// Config configures a Master. The zero value is a master in memory that requires no API key
// and does not fence attempts.
type Config struct {
	// APIKeys are the accepted bearer keys. If there are none, no key is required.
	APIKeys []string
	// UnavailableAfter is the time without a heartbeat after which a node is offline and
	// its jobs are reassigned. 0 means DefaultUnavailableAfter.
	UnavailableAfter time.Duration
	// MaxRetries is the maximum number of attempts of a job after the first one. 0 means
	// DefaultMaxRetries, a negative number none.
	MaxRetries int
	// StateFile keeps the state across restarts; "" keeps it in memory only. A change is
	// stored before the response is sent. A file must not be used by two masters at a time.
	StateFile string
	// ResultsDir is a directory for accepted results, named JOB.attempt-N.json; "" means none.
	ResultsDir string
	// FenceAttempts rejects results with 409 unless they are from the job's current node
	// and attempt. Without it the master behaves like older ones: it accepts results from
	// any node at any time, and clears the node's current job when it registers again.
	FenceAttempts bool
	Habits        Habits
	Logger        *zap.Logger // nil disables logging
}

// Master is a running master. It is safe for concurrent use. The jobs and nodes that it
// returns are shallow copies and must not be modified.
type Master struct {
	cfg Config
	log *zap.Logger

	events eventLog

	mu    sync.Mutex
	nodes map[string]*protocol.Node
	// unreadable are the nodes that have not registered since the restart, with
	// UnreadableAfterRestart.
	unreadable map[string]bool
	jobs       []*jobRecord // jobs[n-1] has sequence number n
	byID       map[string]*jobRecord
	newID      func() string
	version    uint64       // incremented by each change that must be stored
	unstored   []resultFile // accepted results not yet in ResultsDir

	storeMu sync.Mutex // held while writing files; locked before mu
	stored  uint64     // version on disk

	stop  chan struct{}
	sweep sync.WaitGroup
	close sync.Once
}

// jobRecord is a job with its result.
type jobRecord struct {
	Job      protocol.Job `json:"job"`
	Reported bool         `json:"reported,omitempty"` // the result of the current attempt was accepted
	Result   []byte       `json:"result,omitempty"`   // latest accepted result, unchanged

	queueRank    int
	priorityRank float64
}

// New starts a master, which must be stopped with Close. It fails if cfg is invalid or if the
// state file is damaged or cannot be read or written.
func New(cfg Config) (*Master, error) {
	switch {
	case cfg.UnavailableAfter < 0:
		return nil, fmt.Errorf("unavailable after %v: must be positive", cfg.UnavailableAfter)
	case cfg.UnavailableAfter == 0:
		cfg.UnavailableAfter = DefaultUnavailableAfter
	}
	switch {
	case cfg.MaxRetries < 0:
		cfg.MaxRetries = 0
	case cfg.MaxRetries == 0:
		cfg.MaxRetries = DefaultMaxRetries
	}
	for _, key := range cfg.APIKeys {
		if key == "" {
			return nil, errors.New("empty API key")
		}
	}
	m := &Master{
		cfg:        cfg,
		log:        cfg.Logger,
		nodes:      map[string]*protocol.Node{},
		unreadable: map[string]bool{},
		byID:       map[string]*jobRecord{},
		newID:      newUUID,
		stop:       make(chan struct{}),
	}
	if m.log == nil {
		m.log = zap.NewNop()
	}
	if err := m.load(); err != nil {
		return nil, err
	}
	m.sweep.Go(m.sweepUntilStopped)
	return m, nil
}

// Close stops monitoring the nodes and stores unstored changes. It may be called more than
// once. The handler continues to work.
func (m *Master) Close() error {
	m.close.Do(func() { close(m.stop) })
	m.sweep.Wait()
	return m.flush()
}

// Submit queues a job like POST /jobs. It encodes req as JSON, so that the job has the same
// parameter types.
func (m *Master) Submit(req protocol.JobRequest) (protocol.Job, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return protocol.Job{}, fmt.Errorf("encoding job request: %w", err)
	}
	job, err := m.submit(body)
	if err != nil {
		return protocol.Job{}, err
	}
	return job, m.flush()
}

// Job returns the job with an ID.
func (m *Master) Job(id string) (protocol.Job, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.byID[id]
	if !ok {
		return protocol.Job{}, false
	}
	return r.Job, true
}

// Jobs returns all jobs, ordered by sequence number.
func (m *Master) Jobs() []protocol.Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	var jobs []protocol.Job
	for _, r := range m.jobs {
		jobs = append(jobs, r.Job)
	}
	return jobs
}

// Nodes returns all nodes, ordered by their first registration.
func (m *Master) Nodes() []protocol.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	var nodes []protocol.Node
	for _, n := range m.sortedNodes() {
		nodes = append(nodes, *n)
	}
	return nodes
}
