package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// proxy stands between one agent and the master. It passes requests on, plays faults on
// them, and notes each. What it is set to do to a request it does before or after the
// master has acted on it; the agent cannot see which.
type proxy struct {
	agent    int
	process  func() int
	backend  string // HOST:PORT of the master
	recorder *recorder
	client   *http.Client

	mu        sync.Mutex
	address   string
	server    *http.Server // nil: connections are refused
	listener  net.Listener
	rules     []*rule
	healed    chan struct{} // closed when a partition ends; nil: there is none
	linkDown  bool
	knownJobs map[string]bool // jobs that the agent has seen, or sent results of
}

// rule has a fault played on the next requests of some calls.
type rule struct {
	kindName  string
	calls     []Call // nil: all
	remaining int
	apply     func(p *proxy, w http.ResponseWriter, r *request)
	matched   chan Exchange
}

// request is one that is being handled.
type request struct {
	*http.Request
	body     []byte
	exchange *Exchange
}

func newProxy(agent int, address, backend string, process func() int, recorder *recorder) (*proxy, error) {
	p := &proxy{
		agent: agent, process: process, backend: backend, recorder: recorder, address: address, knownJobs: map[string]bool{},
		client: &http.Client{
			Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
			Timeout:       40 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	return p, p.listen()
}

// listen accepts connections, at the same address as before.
func (p *proxy) listen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		return nil
	}
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		return fmt.Errorf("opening the proxy of agent %d: %w", p.agent, err)
	}
	p.listener, p.address = listener, listener.Addr().String()
	p.server = &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	go p.server.Serve(listener)
	return nil
}

// close refuses connections and resets those there are.
func (p *proxy) close() {
	p.mu.Lock()
	server, listener := p.server, p.listener
	p.server = nil
	p.mu.Unlock()
	if server != nil {
		_ = listener.Close() // which the server does not know before it serves
		_ = server.Close()
	}
}

// partition swallows whatever is sent, both ways, until heal.
func (p *proxy) partition() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.healed == nil {
		p.healed = make(chan struct{})
	}
}

func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.healed != nil {
		close(p.healed)
		p.healed = nil
	}
}

// setLink informs the proxy whether the link below it is up.
func (p *proxy) setLink(up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.linkDown = !up
}

// arm has a fault played on the next requests of some calls.
func (p *proxy) arm(kind string, times int, play func(*proxy, http.ResponseWriter, *request), calls ...Call) *rule {
	r := &rule{kindName: kind, calls: calls, remaining: times, apply: play, matched: make(chan Exchange, times)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, r)
	return r
}

func (p *proxy) disarm(r *rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = slices.DeleteFunc(p.rules, func(other *rule) bool { return other == r })
}

// match is the rule for a call; nil: none.
func (p *proxy) match(call Call) *rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rules {
		if r.remaining > 0 && (len(r.calls) == 0 || slices.Contains(r.calls, call)) {
			r.remaining--
			return r
		}
	}
	return nil
}

func (p *proxy) partitioned() (healed <-chan struct{}, partitioned bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.healed, p.healed != nil
}

func (p *proxy) linkUp() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.linkDown && p.healed == nil
}

func callOf(method, path string) Call {
	switch {
	case path == "/nodes/register":
		return CallRegister
	case strings.HasSuffix(path, "/heartbeat"):
		return CallHeartbeat
	case strings.HasPrefix(path, "/nodes/"):
		return CallNode
	case path == "/jobs/next":
		return CallNext
	case path == "/jobs" && method == http.MethodGet:
		return CallJobs
	case strings.HasPrefix(path, "/jobs/") && method == http.MethodGet:
		return CallJob
	case path == "/results":
		return CallResult
	}
	return CallOther
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	x := Exchange{Agent: p.agent, Process: p.process(), Call: callOf(hr.Method, hr.URL.Path), Path: hr.URL.Path}
	x.From = time.Now()
	r := &request{Request: hr, exchange: &x}
	var matched *rule
	stood := p.linkUp()
	defer func() {
		x.Delivered = x.Delivered && stood && p.linkUp()
		x.To = time.Now()
		p.recorder.addExchange(x)
		if matched != nil {
			matched.matched <- x
		}
		if v := recover(); v != nil {
			panic(v) // http.ErrAbortHandler, which resets the connection
		}
	}()
	var err error
	if r.body, err = io.ReadAll(hr.Body); err != nil {
		return
	}
	x.Received = true
	if x.Call == CallResult {
		var result protocol.JobResult
		if json.Unmarshal(r.body, &result) == nil {
			x.Result = &result
			p.addKnownJob(result.JobID)
		}
	}
	if cut, parted := p.partitioned(); parted {
		x.Fault = "partition"
		waitHealed(hr.Context(), cut)
		reset(w)
		return
	}
	if matched = p.match(x.Call); matched != nil {
		x.Fault = matched.kindName
		matched.apply(p, w, r)
		return
	}
	p.passThrough(w, r)
}

func (p *proxy) addKnownJob(job string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.knownJobs[job] = true
}

// waitHealed waits for a channel, or for the agent to give up.
func waitHealed(ctx context.Context, healed <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-healed:
	}
}

// response is what the master answered.
type response struct {
	status int
	header http.Header
	body   []byte
}

// forward asks the master; nil when it did not answer. It goes on when the agent gives up.
func (p *proxy) forward(r *request) *response {
	out, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, "http://"+p.backend+r.URL.RequestURI(), bytes.NewReader(r.body))
	if err != nil {
		return nil
	}
	out.Header = r.Header.Clone()
	resp, err := p.client.Do(out)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	r.exchange.MasterStatus = resp.StatusCode
	if err != nil {
		return nil
	}
	return &response{resp.StatusCode, resp.Header, body}
}

// passThrough is a request without a fault of ours.
func (p *proxy) passThrough(w http.ResponseWriter, r *request) {
	answer := p.forward(r)
	if answer == nil {
		reset(w)
		return
	}
	p.respond(w, r, answer)
}

// respond passes a response on.
func (p *proxy) respond(w http.ResponseWriter, r *request, a *response) {
	if cut, parted := p.partitioned(); parted {
		r.exchange.Fault = "partition"
		waitHealed(r.Context(), cut)
		reset(w)
		return
	}
	if r.Context().Err() != nil {
		return
	}
	for _, name := range []string{"Content-Type", "Retry-After"} {
		if v := a.header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	r.exchange.AgentStatus = a.status
	if _, err := w.Write(a.body); err == nil {
		r.exchange.Delivered = true
		r.exchange.Views = p.jobViews(r.exchange.Call, a)
	}
}

// jobViews are the jobs of an answer; of a list, only those that a node holds or that
// the agent has seen.
func (p *proxy) jobViews(call Call, a *response) []JobView {
	if a.status != http.StatusOK {
		return nil
	}
	var jobs []protocol.Job
	switch call {
	case CallNext:
		var next protocol.NextJobResponse
		if json.Unmarshal(a.body, &next) == nil && next.Job != nil {
			jobs = append(jobs, *next.Job)
		}
	case CallJob:
		var job protocol.Job
		if json.Unmarshal(a.body, &job) == nil {
			jobs = append(jobs, job)
		}
	case CallJobs:
		var list struct{ Jobs []protocol.Job }
		if json.Unmarshal(a.body, &list) == nil {
			jobs = list.Jobs
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var views []JobView
	for i := range jobs {
		j := &jobs[i]
		if call != CallJobs || p.knownJobs[j.ID] || j.Status.HeldByNode() {
			p.knownJobs[j.ID] = true
			views = append(views, JobView{j.ID, j.NodeID, j.RetryCount, j.Status})
		}
	}
	return views
}

// reset closes the request's connection so that the agent sees a reset.
func reset(w http.ResponseWriter) {
	conn := hijack(w)
	if conn == nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func hijack(w http.ResponseWriter) net.Conn {
	h, ok := w.(http.Hijacker)
	if !ok {
		return nil
	}
	conn, _, err := h.Hijack()
	if err != nil {
		return nil
	}
	return conn
}
