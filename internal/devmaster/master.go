// Package devmaster is a small, real master: the whole of the protocol that
// workers speak (package messages/protocol), with queues, priorities, retries,
// reassignment, cancellation and fencing, in memory or kept in one file. It
// serves demonstrations, tests over real sockets and anyone trying an agent.
//
// It is no scheduler for a farm: there is one process, every job goes to
// whichever node asks first, and the whole state is rewritten at each change.
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

// Config is what a Master is made from. The zero value is a master in memory
// that demands no key and, like older masters, does not fence attempts.
type Config struct {
	// APIKeys are the bearer keys accepted on everything but /health. Empty: no key is demanded.
	APIKeys []string
	// UnavailableAfter is how long a node may send no heartbeat before it counts
	// as offline and its jobs are given away. Zero: DefaultUnavailableAfter.
	UnavailableAfter time.Duration
	// MaxRetries is how often a job is tried again after its first attempt.
	// Zero: DefaultMaxRetries. Negative: never.
	MaxRetries int
	// StateFile keeps the state across restarts; each change is on disk before
	// it is answered. Empty: memory only. One process at a time may use a file.
	StateFile string
	// ResultsDir gets each accepted result as JOB.attempt-N.json. Empty: none.
	ResultsDir string
	// FenceAttempts refuses with 409 a result that is not of the job's current
	// node and attempt. Without it the master behaves as older ones do: a result
	// is taken from anyone at any time, and registering again forgets which job
	// the node runs.
	FenceAttempts bool
	// Logger may be nil.
	Logger *zap.Logger
}

// Master is a running master. Its methods may be called from any goroutine.
// Jobs and nodes it returns are copies whose maps and pointers are shared with
// the master: read them, do not change them.
type Master struct {
	cfg Config
	log *zap.Logger

	events eventLog

	mu       sync.Mutex
	nodes    map[string]*protocol.Node
	jobs     []*record // a job of sequence number n is jobs[n-1]
	byID     map[string]*record
	newID    func() string
	version  uint64       // counts changes that must survive a restart
	unstored []resultFile // results accepted but not yet in ResultsDir

	storeMu sync.Mutex // held while writing files; taken before mu
	stored  uint64     // the version that is on disk

	stop  chan struct{}
	swept sync.WaitGroup
	close sync.Once
}

// record is a job and what the master alone knows of it.
type record struct {
	Job      protocol.Job `json:"job"`
	Reported bool         `json:"reported,omitempty"` // the present attempt's result has been taken
	Result   []byte       `json:"result,omitempty"`   // the last result taken, byte for byte

	queueRank    int
	priorityRank float64
}

// New starts a master. It fails if a setting makes no sense or the state file
// cannot be read, is damaged, or cannot be written. Close ends it.
func New(cfg Config) (*Master, error) {
	switch {
	case cfg.UnavailableAfter < 0:
		return nil, fmt.Errorf("unavailable after %v: must be above 0", cfg.UnavailableAfter)
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
			return nil, errors.New("an empty API key was given")
		}
	}
	m := &Master{
		cfg:   cfg,
		log:   cfg.Logger,
		nodes: map[string]*protocol.Node{},
		byID:  map[string]*record{},
		newID: newUUID,
		stop:  make(chan struct{}),
	}
	if m.log == nil {
		m.log = zap.NewNop()
	}
	if err := m.load(); err != nil {
		return nil, err
	}
	m.swept.Go(m.sweepUntilStopped)
	return m, nil
}

// Close stops the watch over silent nodes and writes what is not on disk yet.
// It may be called more than once. Requests still answer after it.
func (m *Master) Close() error {
	m.close.Do(func() { close(m.stop) })
	m.swept.Wait()
	return m.flush()
}

// Submit queues a job as POST /jobs does: the request goes through JSON, so
// that its parameters are what a worker would see of one that was posted.
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

// Job returns the job of exactly this id.
func (m *Master) Job(id string) (protocol.Job, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.byID[id]
	if !ok {
		return protocol.Job{}, false
	}
	return r.Job, true
}

// Jobs returns all jobs by sequence number; nil when there are none.
func (m *Master) Jobs() []protocol.Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	var jobs []protocol.Job
	for _, r := range m.jobs {
		jobs = append(jobs, r.Job)
	}
	return jobs
}

// Nodes returns all nodes in the order they registered; nil when there are none.
func (m *Master) Nodes() []protocol.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	var nodes []protocol.Node
	for _, n := range m.sortedNodes() {
		nodes = append(nodes, *n)
	}
	return nodes
}
