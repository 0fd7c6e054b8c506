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
	agent   int
	life    func() int
	backend string // HOST:PORT of the master
	facts   *recorder
	client  *http.Client

	mu       sync.Mutex
	address  string
	server   *http.Server // nil: connections are refused
	accepts  net.Listener
	rules    []*rule
	cut      chan struct{} // closed when a partition ends; nil: there is none
	linkDown bool
	known    map[string]bool // jobs that the agent was told of, or sent results of
}

// rule has a fault played on the next requests of some calls.
type rule struct {
	kind  string
	calls []Call // nil: all
	left  int
	play  func(p *proxy, w http.ResponseWriter, r *request)
	hit   chan Exchange
}

// request is one that is being handled.
type request struct {
	*http.Request
	body []byte
	x    *Exchange
}

func newProxy(agent int, address, backend string, life func() int, facts *recorder) (*proxy, error) {
	p := &proxy{
		agent: agent, life: life, backend: backend, facts: facts, address: address, known: map[string]bool{},
		client: &http.Client{
			Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
			Timeout:       40 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	return p, p.open()
}

// open accepts connections, at the same address as before.
func (p *proxy) open() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		return nil
	}
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		return fmt.Errorf("opening the proxy of agent %d: %w", p.agent, err)
	}
	p.accepts, p.address = listener, listener.Addr().String()
	p.server = &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	go p.server.Serve(listener)
	return nil
}

// close refuses connections and resets those there are.
func (p *proxy) close() {
	p.mu.Lock()
	server, listener := p.server, p.accepts
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
	if p.cut == nil {
		p.cut = make(chan struct{})
	}
}

func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut != nil {
		close(p.cut)
		p.cut = nil
	}
}

// link says that the link below the proxy stands, or does not.
func (p *proxy) link(up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.linkDown = !up
}

// arm has a fault played on the next requests of some calls.
func (p *proxy) arm(kind string, times int, play func(*proxy, http.ResponseWriter, *request), calls ...Call) *rule {
	r := &rule{kind: kind, calls: calls, left: times, play: play, hit: make(chan Exchange, times)}
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
func (p *proxy) take(call Call) *rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rules {
		if r.left > 0 && (len(r.calls) == 0 || slices.Contains(r.calls, call)) {
			r.left--
			return r
		}
	}
	return nil
}

func (p *proxy) parted() (cut <-chan struct{}, parted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut, p.cut != nil
}

func (p *proxy) standing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.linkDown && p.cut == nil
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
	x := Exchange{Agent: p.agent, Life: p.life(), Call: callOf(hr.Method, hr.URL.Path), Path: hr.URL.Path}
	x.From = time.Now()
	r := &request{Request: hr, x: &x}
	var matched *rule
	stood := p.standing()
	defer func() {
		x.Whole = x.Whole && stood && p.standing()
		x.To = time.Now()
		p.facts.exchange(x)
		if matched != nil {
			matched.hit <- x
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
			p.learn(result.JobID)
		}
	}
	if cut, parted := p.parted(); parted {
		x.Fault = "partition"
		hold(hr.Context(), cut)
		reset(w)
		return
	}
	if matched = p.take(x.Call); matched != nil {
		x.Fault = matched.kind
		matched.play(p, w, r)
		return
	}
	p.pass(w, r)
}

func (p *proxy) learn(job string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[job] = true
}

// hold waits for a channel, or for the agent to give up.
func hold(ctx context.Context, until <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-until:
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
	r.x.Answered = resp.StatusCode
	if err != nil {
		return nil
	}
	return &response{resp.StatusCode, resp.Header, body}
}

// pass is a request without a fault of ours.
func (p *proxy) pass(w http.ResponseWriter, r *request) {
	answer := p.forward(r)
	if answer == nil {
		reset(w)
		return
	}
	p.give(w, r, answer)
}

// give passes an answer on.
func (p *proxy) give(w http.ResponseWriter, r *request, a *response) {
	if cut, parted := p.parted(); parted {
		r.x.Fault = "partition"
		hold(r.Context(), cut)
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
	r.x.Given = a.status
	if _, err := w.Write(a.body); err == nil {
		r.x.Whole = true
		r.x.Views = p.views(r.x.Call, a)
	}
}

// views are what an answer told of jobs; of a list, those alone that a node holds or that
// the agent knows.
func (p *proxy) views(call Call, a *response) []View {
	if a.status != http.StatusOK {
		return nil
	}
	var told []protocol.Job
	switch call {
	case CallNext:
		var next protocol.NextJobResponse
		if json.Unmarshal(a.body, &next) == nil && next.Job != nil {
			told = append(told, *next.Job)
		}
	case CallJob:
		var job protocol.Job
		if json.Unmarshal(a.body, &job) == nil {
			told = append(told, job)
		}
	case CallJobs:
		var list struct{ Jobs []protocol.Job }
		if json.Unmarshal(a.body, &list) == nil {
			told = list.Jobs
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var views []View
	for i := range told {
		j := &told[i]
		if call != CallJobs || p.known[j.ID] || j.Status.HeldByNode() {
			p.known[j.ID] = true
			views = append(views, View{j.ID, j.NodeID, j.RetryCount, j.Status})
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
func resetBefore(_ *proxy, w http.ResponseWriter, _ *request) { reset(w) }

// resetAfter: the master has acted on it.
func resetAfter(p *proxy, w http.ResponseWriter, r *request) {
	p.forward(r)
	reset(w)
}

// stall gives no answer for a while, or until the agent gives up.
func stall(d time.Duration, forward bool) func(*proxy, http.ResponseWriter, *request) {
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
func refuseWith(status int, retryAfter time.Duration) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		header := http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
		if retryAfter > 0 {
			header.Set("Retry-After", strconv.Itoa(max(1, int(retryAfter.Seconds()))))
		}
		p.give(w, r, &response{status, header, []byte(http.StatusText(status) + "\n")})
	}
}

// garbage answers 200 with something else, once the master has acted.
func garbage(text string) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		if p.forward(r) == nil || r.x.Answered/100 != 2 {
			reset(w) // a 200 would say that the master took what it did not
			return
		}
		p.give(w, r, &response{http.StatusOK, http.Header{"Content-Type": {"application/json"}}, []byte(text)})
		r.x.Views, r.x.Whole = nil, false
	}
}

// huge answers 200 with more than anybody can want, until the agent has had enough.
func huge(p *proxy, w http.ResponseWriter, r *request) {
	if p.forward(r) == nil || r.x.Answered/100 != 2 {
		reset(w)
		return
	}
	const most = 64 << 20
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	r.x.Given = http.StatusOK
	chunk := bytes.Repeat([]byte(`{"jobs":[`), 8<<10)
	for sent := 0; sent < most; sent += len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// trickle passes the answer on byte by byte.
func trickle(pause time.Duration) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		a := p.forward(r)
		if a == nil {
			reset(w)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
		w.WriteHeader(a.status)
		r.x.Given = a.status
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
		r.x.Whole = true
		r.x.Views = p.views(r.x.Call, a)
	}
}

// cutShort promises the whole answer and gives half of it.
func cutShort(p *proxy, w http.ResponseWriter, r *request) {
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
		r.x.Given = a.status
	}
}

// slow lets the request wait before it is passed on.
func slow(d time.Duration) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		time.Sleep(d)
		p.pass(w, r)
	}
}
