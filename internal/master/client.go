package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Settings say which master to speak to, and how.
type Settings struct {
	// URL is http://HOST:PORT or https://HOST:PORT, with a path where the master
	// lies below one. It must not carry a password.
	URL string
	// APIKey returns the bearer key, "" for none. It is asked at each call, so that
	// a renewed key is picked up. nil: none.
	APIKey func() string

	CAFile             string // PEM; "" for the system's authorities
	CertFile, KeyFile  string // PEM, the client certificate; "" for none
	InsecureSkipVerify bool   // the master's certificate is not verified

	// Deadlines, from a call's start to the last byte of its answer. 0 takes the default.
	HeartbeatTimeout time.Duration // 5 s; must lie well under the heartbeat's interval
	CallTimeout      time.Duration // 10 s; registering, asking for work, for one node or one job
	ReportTimeout    time.Duration // 30 s; delivering a result
	ListTimeout      time.Duration // 30 s; reading the list of all jobs

	Version string      // of the agent, for User-Agent
	Logger  *zap.Logger // nil: none
}

// Client is the HTTP side of the lease port. It is safe for concurrent use.
type Client struct {
	settings Settings
	base     string // URL without a trailing slash
	host     string
	agent    string // User-Agent
	log      *zap.Logger
	limits   limits

	links   atomic.Pointer[links]
	renewal sync.Mutex // one renewal of links at a time
	warned  files      // the state of the files that was complained about; under renewal
}

// limits bound what an answer may take of our memory, in bytes.
type limits struct {
	answer  int64 // an ordinary answer
	element int64 // one job of a list
	list    int64 // a whole list, which is read as a stream
}

// New checks the settings, reads the certificates and returns a client. It makes
// no call. Errors name the setting and the file.
func New(s Settings) (*Client, error) {
	u, err := parseURL(s.URL)
	if err != nil {
		return nil, err
	}
	if (s.CertFile == "") != (s.KeyFile == "") {
		return nil, errors.New("master.cert and master.key (--cert, --key): a client certificate needs both")
	}
	orDefault(&s.HeartbeatTimeout, 5*time.Second)
	orDefault(&s.CallTimeout, 10*time.Second)
	orDefault(&s.ReportTimeout, 30*time.Second)
	orDefault(&s.ListTimeout, 30*time.Second)
	if s.APIKey == nil {
		s.APIKey = func() string { return "" }
	}
	if s.Logger == nil {
		s.Logger = zap.NewNop()
	}
	c := &Client{
		settings: s,
		base:     u.String(),
		host:     u.Host,
		agent:    "ffmpeg-agent/" + s.Version,
		log:      s.Logger,
		limits:   limits{answer: 1 << 20, element: 1 << 20, list: 64 << 20},
	}
	l, err := newLinks(s, c.files())
	if err != nil {
		return nil, err
	}
	c.links.Store(l)
	return c, nil
}

// Close closes the connections that wait for a next call.
func (c *Client) Close() { c.links.Load().close() }

// parseURL reads the master's URL. What it complains about never shows a password.
func parseURL(text string) (*url.URL, error) {
	const name, want = "master.url (--master, MASTER_URL)", "want http://HOST:PORT or https://HOST:PORT"
	if strings.Contains(text, "@") {
		return nil, fmt.Errorf("%s: it must not carry a user or password: %s, and the key in master.api_key", name, want)
	}
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%s: %q: %s", name, text, want)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = strings.TrimRight(u.RawPath, "/")
	return u, nil
}

func orDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Register announces the node and returns its standing with the master.
func (c *Client) Register(ctx context.Context, facts messages.NodeFacts) (messages.Session, error) {
	body, err := json.Marshal(registration(facts))
	if err != nil {
		return messages.Session{}, refusedHere("POST /nodes/register", err)
	}
	var node protocol.Node
	err = c.do(ctx, call{
		method: http.MethodPost, path: "/nodes/register", body: body, repeatable: true,
		timeout: c.settings.CallTimeout,
	}, func(a *answer) error {
		if err := a.json(&node); err != nil {
			return err
		}
		if node.ID == "" {
			return garbledError{errors.New("the answer names no node id")}
		}
		return nil
	})
	if err != nil {
		return messages.Session{}, err
	}
	return messages.Session{NodeID: node.ID, Address: facts.Address, Master: c.base, Since: time.Now()}, nil
}

func registration(f messages.NodeFacts) protocol.NodeRegistration {
	return protocol.NodeRegistration{
		Address:         f.Address,
		Type:            f.Type,
		CPUThreads:      f.CPUThreads,
		CPUModel:        f.CPUModel,
		HasGPU:          f.GPUType != "",
		GPUType:         f.GPUType,
		GPUCapabilities: f.GPUCapabilities,
		RAMTotalBytes:   f.RAMTotalBytes,
		Labels:          f.Labels,
	}
}

// Heartbeat says that the node lives, on a connection of its own.
func (c *Client) Heartbeat(ctx context.Context, s messages.Session, status messages.NodeStatus) error {
	const name = "POST /nodes/{id}/heartbeat"
	if s.NodeID == "" {
		return unregistered(name)
	}
	if status.RunningJobs == nil {
		status.RunningJobs = []string{}
	}
	body, err := json.Marshal(status)
	if err != nil { // a sensor's NaN is no reason to be taken for dead
		status.HostStatus = messages.HostStatus{}
		if body, err = json.Marshal(status); err != nil {
			return refusedHere(name, err)
		}
	}
	return c.do(ctx, call{
		method: http.MethodPost, path: "/nodes/" + url.PathEscape(s.NodeID) + "/heartbeat", body: body, repeatable: true,
		timeout: c.settings.HeartbeatTimeout, over: (*links).forHeartbeats,
	}, drain)
}

// Next asks for work; nil when there is none.
func (c *Client) Next(ctx context.Context, s messages.Session) (*job.Lease, error) {
	if s.NodeID == "" {
		return nil, unregistered("GET /jobs/next")
	}
	var j *protocol.Job
	asked := time.Now()
	err := c.do(ctx, call{
		method: http.MethodGet, path: "/jobs/next", query: "node_id=" + url.QueryEscape(s.NodeID),
		timeout: c.settings.CallTimeout, over: (*links).once,
	}, func(a *answer) (err error) {
		j, err = nextJob(a)
		return err
	})
	if err != nil || j == nil {
		return nil, err
	}
	return &job.Lease{Job: *j, NodeID: s.NodeID, AcquiredAt: asked}, nil
}

func nextJob(a *answer) (*protocol.Job, error) {
	if a.StatusCode == http.StatusNoContent {
		return nil, nil
	}
	var fields map[string]json.RawMessage
	if err := a.json(&fields); err != nil {
		return nil, err
	}
	raw, ok := fields["job"]
	if !ok {
		return nil, garbledError{errors.New(`the answer has no "job"`)}
	}
	var j *protocol.Job
	if err := json.Unmarshal(raw, &j); err != nil {
		return nil, garbledError{err}
	}
	if j != nil && j.ID == "" {
		return nil, garbledError{errors.New("the job has no id")}
	}
	return j, nil
}

// Report delivers the record's result, byte for byte. A 2xx means that the master
// took it, whatever follows the status.
func (c *Client) Report(ctx context.Context, r job.Record) error {
	if len(r.Result) == 0 {
		return refusedHere("POST /results", fmt.Errorf("%s has no result to send", r.Key()))
	}
	return c.do(ctx, call{
		method: http.MethodPost, path: "/results", body: r.Result,
		timeout: c.settings.ReportTimeout, over: (*links).once,
	}, ignore)
}

// Release gives a lease back unstarted. This protocol has no call for it: the
// record's result says failed, for which the master re-queues the job at once.
func (c *Client) Release(ctx context.Context, r job.Record) error { return c.Report(ctx, r) }
