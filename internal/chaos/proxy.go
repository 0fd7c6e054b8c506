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
// them, and notes each. What it is told to do to a request it does before or after the
// master has acted on it, which is what the agent cannot tell.
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
	knownJobs map[string]bool // jobs that the agent was told of, or sent results of
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

// open accepts connections, at the same address as before.
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

// link says that the link below the proxy stands, or does not.
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

// take is the rule that a call falls under; nil: none.
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

// hold waits for a channel, or for the agent to give up.
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

// forward asks the master; nil when it did not answer. The agent's giving up does not
// take the request back.
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

// pass is a request without a fault of ours.
func (p *proxy) passThrough(w http.ResponseWriter, r *request) {
	answer := p.forward(r)
	if answer == nil {
		reset(w)
		return
	}
	p.respond(w, r, answer)
}

// give passes an answer on.
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

// views are what an answer told of jobs; of a list, those alone that a node holds or that
// the agent knows.
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

// What can be done to a request.

// resetBefore: the master never hears of it.
func resetBeforeForward(_ *proxy, w http.ResponseWriter, _ *request) { reset(w) }

// resetAfter: the master has acted on it.
func resetAfterForward(p *proxy, w http.ResponseWriter, r *request) {
	p.forward(r)
	reset(w)
}

// stall gives no answer for a while, or until the agent gives up.
func stallRequest(d time.Duration, forward bool) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		if forward {
			p.forward(r)
		}
		ctx, cancel := context.WithTimeout(r.Context(), d)
		defer cancel()
		<-ctx.Done()
		reset(w)
	}
}

// refuseWith answers in the master's place.
func respondWith(status int, retryAfter time.Duration) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		header := http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
		if retryAfter > 0 {
			header.Set("Retry-After", strconv.Itoa(max(1, int(retryAfter.Seconds()))))
		}
		p.respond(w, r, &response{status, header, []byte(http.StatusText(status) + "\n")})
	}
}

// garbage answers 200 with something else, once the master has acted.
func garbageResponse(text string) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		if p.forward(r) == nil || r.exchange.MasterStatus/100 != 2 {
			reset(w) // a 200 would say that the master took what it did not
			return
		}
		p.respond(w, r, &response{http.StatusOK, http.Header{"Content-Type": {"application/json"}}, []byte(text)})
		r.exchange.Views, r.exchange.Delivered = nil, false
	}
}

// huge answers 200 with more than anybody can want, until the agent has had enough.
func hugeResponse(p *proxy, w http.ResponseWriter, r *request) {
	if p.forward(r) == nil || r.exchange.MasterStatus/100 != 2 {
		reset(w)
		return
	}
	const limit = 64 << 20
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	r.exchange.AgentStatus = http.StatusOK
	chunk := bytes.Repeat([]byte(`{"jobs":[`), 8<<10)
	for sent := 0; sent < limit; sent += len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// trickle passes the answer on byte by byte.
func trickleResponse(pause time.Duration) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		a := p.forward(r)
		if a == nil {
			reset(w)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
		w.WriteHeader(a.status)
		r.exchange.AgentStatus = a.status
		flush := http.NewResponseController(w)
		_ = flush.Flush()
		for i := range a.body {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(pause):
			}
			if _, err := w.Write(a.body[i : i+1]); err != nil || flush.Flush() != nil {
				return
			}
		}
		r.exchange.Delivered = true
		r.exchange.Views = p.jobViews(r.exchange.Call, a)
	}
}

// cutShort promises the whole answer and gives half of it.
func truncateResponse(p *proxy, w http.ResponseWriter, r *request) {
	a := p.forward(r)
	if a == nil {
		reset(w)
		return
	}
	conn := hijack(w)
	if conn == nil {
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, err := fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s", a.status, http.StatusText(a.status), len(a.body)+10, a.body[:len(a.body)/2])
	if err == nil {
		r.exchange.AgentStatus = a.status
	}
}

// slow lets the request wait before it is passed on.
func delayRequest(d time.Duration) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		time.Sleep(d)
		p.passThrough(w, r)
	}
}
