// Package master implements the master's HTTP protocol for the agent: it registers the
// node, sends heartbeats, polls for jobs, checks leases and delivers results.
//
// Every call has its own timeout, limits the size of the response, and returns errors of
// type *protocol.Error. The package does not retry and does not interpret failures; that
// is up to the caller.
package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Config configures a Client. Reconfigure changes the key, the certificates,
// InsecureSkipVerify and HeartbeatTimeout.
type Config struct {
	// URL is http://HOST:PORT or https://HOST:PORT, optionally with a path. It must not
	// contain a user or password.
	URL    string
	APIKey string // bearer key; "" means none

	CAFile             string // PEM; "" means the system's CAs
	CertFile, KeyFile  string // client certificate, PEM; "" means none
	InsecureSkipVerify bool   // do not verify the master's certificate

	// Timeouts from the start of a call to the end of the response. 0 means the default.
	HeartbeatTimeout time.Duration // default 5 s; must be well below the heartbeat interval
	CallTimeout      time.Duration // registration, polls, single nodes and jobs; default 10 s
	ReportTimeout    time.Duration // delivery of a result; default 30 s
	ListTimeout      time.Duration // list of all jobs; default 30 s

	Version string      // of the agent, for User-Agent
	Logger  *zap.Logger // of certificates that expire soon; nil: none
}

// Client is a client of the master. It is safe for concurrent use.
type Client struct {
	cfg       Config
	base      string // URL without a trailing slash
	host      string
	userAgent string
	limits    limits

	expiries expiries

	clients atomic.Pointer[clients]
}

// limits are the maximum sizes of responses, in bytes.
type limits struct {
	response int64 // except lists
	element  int64 // one job of a list
	list     int64 // a whole list, which is decoded as a stream
}

// New validates cfg, reads the certificates and returns a client. It makes no calls.
// Errors name the configuration key and the file.
func New(cfg Config) (*Client, error) {
	u, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	setDefault(&cfg.CallTimeout, 10*time.Second)
	setDefault(&cfg.ReportTimeout, 30*time.Second)
	setDefault(&cfg.ListTimeout, 30*time.Second)
	c := &Client{
		cfg:       cfg,
		base:      u.String(),
		host:      u.Host,
		userAgent: "ffmpeg-agent/" + cfg.Version,
		limits:    limits{response: 1 << 20, element: 1 << 20, list: 64 << 20},
	}
	if c.expiries.log = cfg.Logger; cfg.Logger == nil {
		c.expiries.log = zap.NewNop()
	}
	if err := c.Reconfigure(cfg); err != nil {
		return nil, err
	}
	return c, nil
}

// Reconfigure reads the certificates anew and applies them, the key, InsecureSkipVerify and
// HeartbeatTimeout to later calls; what else differs in cfg is ignored. Calls in flight are
// not disturbed, and connections are kept where the certificates are the same. After an error,
// which names the configuration key and the file, nothing has changed.
func (c *Client) Reconfigure(cfg Config) error {
	certificates, err := readCertificates(cfg)
	if err != nil {
		return err
	}
	setDefault(&cfg.HeartbeatTimeout, 5*time.Second)
	next := &clients{key: strings.TrimSpace(cfg.APIKey), heartbeatTimeout: cfg.HeartbeatTimeout, certificates: certificates}
	old := c.clients.Load()
	if old != nil && old.certificates == certificates {
		next.sharedClient, next.heartbeatClient, next.unpooledClient = old.sharedClient, old.heartbeatClient, old.unpooledClient
		c.clients.Store(next)
		return nil
	}
	if err := next.open(cfg, &c.expiries); err != nil {
		return err
	}
	c.clients.Store(next)
	if old != nil {
		old.close()
	}
	return nil
}

// Close closes idle connections.
func (c *Client) Close() { c.clients.Load().close() }

// parseURL parses the master's URL. Errors never contain a password.
func parseURL(text string) (*url.URL, error) {
	const name, want = "master.url (--master, MASTER_URL)", "want http://HOST:PORT or https://HOST:PORT"
	if strings.Contains(text, "@") {
		return nil, fmt.Errorf("%s: must not contain a user or password (%s); use master.api_key for the key", name, want)
	}
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%s: %q: %s", name, text, want)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = strings.TrimRight(u.RawPath, "/")
	return u, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Register registers the node. The master returns the existing node if the address is
// already registered.
func (c *Client) Register(ctx context.Context, facts messages.NodeFacts) (messages.Session, error) {
	body, err := json.Marshal(registration(facts))
	if err != nil {
		return messages.Session{}, invalidRequest("POST /nodes/register", err)
	}
	var node protocol.Node
	created := false
	err = c.do(ctx, call{
		method: http.MethodPost, path: "/nodes/register", body: body, idempotent: true,
		timeout: c.cfg.CallTimeout,
	}, func(r *response) error {
		if err := r.json(&node); err != nil {
			return err
		}
		if node.ID == "" {
			return malformedError{errors.New("no node id")}
		}
		created = r.StatusCode == http.StatusCreated
		return nil
	})
	if err != nil {
		return messages.Session{}, err
	}
	return messages.Session{NodeID: node.ID, Address: facts.Address, Master: c.base, Since: time.Now(), New: created}, nil
}

func registration(f messages.NodeFacts) protocol.NodeRegistration {
	return protocol.NodeRegistration{
		Address:         f.Address,
		Type:            f.Type,
		CPUThreads:      f.CPUThreads,
		CPUModel:        f.CPUModel,
		HasGPU:          f.Scheduling().HasGPU,
		GPUType:         f.GPUType,
		GPUCapabilities: f.GPUCapabilities,
		RAMTotalBytes:   f.RAMTotalBytes,
		Labels:          f.Labels,
	}
}

// Remove removes the node from the master, which refuses that while it considers it busy.
func (c *Client) Remove(ctx context.Context, s messages.Session) error {
	const name = "DELETE /nodes/{id}"
	if s.NodeID == "" {
		return unregistered(name)
	}
	return c.do(ctx, call{method: http.MethodDelete, path: "/nodes/" + url.PathEscape(s.NodeID), timeout: c.cfg.CallTimeout}, drainBody)
}

// Heartbeat sends a heartbeat, on a connection that no other call uses.
func (c *Client) Heartbeat(ctx context.Context, s messages.Session, status messages.NodeStatus) error {
	const name = "POST /nodes/{id}/heartbeat"
	if s.NodeID == "" {
		return unregistered(name)
	}
	if status.RunningJobs == nil {
		status.RunningJobs = []string{}
	}
	body, err := json.Marshal(status)
	if err != nil { // send the heartbeat even if a sensor returned NaN
		status.HostStatus = messages.HostStatus{}
		if body, err = json.Marshal(status); err != nil {
			return invalidRequest(name, err)
		}
	}
	return c.do(ctx, call{
		method: http.MethodPost, path: "/nodes/" + url.PathEscape(s.NodeID) + "/heartbeat", body: body, idempotent: true,
		timeout: c.clients.Load().heartbeatTimeout, client: (*clients).forHeartbeats,
	}, drainBody)
}

// Next polls for a job. The lease is nil if there is none.
func (c *Client) Next(ctx context.Context, s messages.Session) (*job.Lease, error) {
	if s.NodeID == "" {
		return nil, unregistered("GET /jobs/next")
	}
	var j *protocol.Job
	sentAt := time.Now()
	err := c.do(ctx, call{
		method: http.MethodGet, path: "/jobs/next", query: "node_id=" + url.QueryEscape(s.NodeID),
		timeout: c.cfg.CallTimeout, client: (*clients).unpooled,
	}, func(r *response) (err error) {
		j, err = decodeNextJob(r)
		return err
	})
	if err != nil || j == nil {
		return nil, err
	}
	return &job.Lease{Job: *j, NodeID: s.NodeID, AcquiredAt: sentAt}, nil
}

// maxIDBytes bounds the id of a job or a node, and maxLeases the number of leases that are
// taken note of at once: more are found once these are done.
const (
	maxIDBytes = 1024
	maxLeases  = 1000
)

// decodeNextJob decodes a protocol.NextJobResponse, except that the job must be present or
// explicitly null.
func decodeNextJob(r *response) (*protocol.Job, error) {
	if r.StatusCode == http.StatusNoContent {
		return nil, nil
	}
	var fields map[string]json.RawMessage
	if err := r.json(&fields); err != nil {
		return nil, err
	}
	raw, ok := fields["job"]
	if !ok {
		return nil, malformedError{errors.New(`no "job" field`)}
	}
	var j *protocol.Job
	if err := json.Unmarshal(raw, &j); err != nil {
		return nil, malformedError{err}
	}
	switch {
	case j != nil && j.ID == "":
		return nil, malformedError{errors.New("job without id")}
	case j != nil && len(j.ID) > maxIDBytes:
		return nil, malformedError{fmt.Errorf("job with an id of more than %d bytes", maxIDBytes)}
	}
	return j, nil
}

// Report delivers the record's result unchanged. A 2xx status means that the master has
// accepted it, even if the response body is invalid or incomplete.
func (c *Client) Report(ctx context.Context, r job.Record) error {
	if len(r.Result) == 0 {
		return invalidRequest("POST /results", fmt.Errorf("%s has no result", r.Key()))
	}
	return c.do(ctx, call{
		method: http.MethodPost, path: "/results", body: r.Result,
		timeout: c.cfg.ReportTimeout, client: (*clients).unpooled,
	}, ignoreBody)
}

// Release returns a lease that was not started. This protocol has no call for it: the
// record's result is a failure, after which the master re-queues the job at once.
func (c *Client) Release(ctx context.Context, r job.Record) error { return c.Report(ctx, r) }
