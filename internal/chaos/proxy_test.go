package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// proxyTest is a proxy before a master that counts what reaches it.
type proxyTest struct {
	*proxy
	recorder *recorder
	client   *http.Client
	requests atomic.Int32
}

const masterResponse = `{"id":"a","sequence_number":7,"node_id":"n","retry_count":1,"status":"assigned"}`

func newProxyTest(t *testing.T) *proxyTest {
	t.Helper()
	b := &proxyTest{recorder: newRecorder(time.Second), client: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.requests.Add(1)
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, masterResponse)
	}))
	t.Cleanup(backend.Close)
	var err error
	if b.proxy, err = newProxy(0, "127.0.0.1:0", strings.TrimPrefix(backend.URL, "http://"), func() int { return 1 }, b.recorder); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b
}

// send sends a result, and returns what came back.
func (b *proxyTest) send(ctx context.Context) (status int, body string, err error) {
	return b.call(ctx, http.MethodPost, "/results", `{"job_id":"a","node_id":"n","attempt":2,"status":"completed"}`)
}

func (b *proxyTest) call(ctx context.Context, method, path, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+b.address+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

// firstExchange is the first exchange that the proxy noted.
func (b *proxyTest) firstExchange(t *testing.T) Exchange {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	x, ok := b.recorder.awaitExchange(ctx, time.Time{}, func(*Exchange) bool { return true })
	if !ok {
		t.Fatal("no exchange was noted")
	}
	return x
}

// TestFaultsOnTheWay: what the agent sees of each, whether the master heard of it, and
// what is noted.
func TestFaultsOnTheWay(t *testing.T) {
	for name, c := range map[string]struct {
		play        func(*proxy, http.ResponseWriter, *request)
		status      int
		body        string // what arrives; "*" for anything
		fails       bool
		came, given int
		whole       bool
	}{
		"none":            {nil, 200, masterResponse, false, 1, 200, true},
		"reset before":    {resetBeforeForward, 0, "", true, 0, 0, false},
		"reset after":     {resetAfterForward, 0, "", true, 1, 0, false},
		"stall before":    {stallRequest(50*time.Millisecond, false), 0, "", true, 0, 0, false},
		"stall after":     {stallRequest(50*time.Millisecond, true), 0, "", true, 1, 0, false},
		"503":             {respondWith(503, 2*time.Second), 503, "Service Unavailable\n", false, 0, 503, true},
		"garbage":         {garbageResponse("<html>"), 200, "<html>", false, 1, 200, false},
		"huge":            {hugeResponse, 200, "*", false, 1, 200, false},
		"trickle":         {trickleResponse(time.Millisecond), 200, masterResponse, false, 1, 200, true},
		"cut short":       {truncateResponse, 200, masterResponse[:len(masterResponse)/2], true, 1, 200, false},
		"slow":            {delayRequest(20 * time.Millisecond), 200, masterResponse, false, 1, 200, true},
		"an empty answer": {garbageResponse(""), 200, "", false, 1, 200, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newProxyTest(t)
			if c.play != nil {
				b.arm("fault", 1, c.play, CallResult)
			}
			status, body, err := b.send(t.Context())
			if status != c.status || c.body != "*" && body != c.body || (err != nil) != c.fails {
				t.Errorf("got %d %.40q, %v", status, body, err)
			}
			x := b.firstExchange(t)
			if int(b.requests.Load()) != c.came || (x.MasterStatus != 0) != (c.came > 0) {
				t.Errorf("%d requests came to the master, whose answer was %d", b.requests.Load(), x.MasterStatus)
			}
			if x.AgentStatus != c.given || x.Delivered != c.whole || !x.Received || x.Call != CallResult || (x.Fault == "fault") != (c.play != nil) {
				t.Errorf("noted %+v", x)
			}
			if x.Result == nil || x.Attempt() != (Attempt{"a", 2}) || x.Result.Status != protocol.StatusCompleted {
				t.Errorf("result %+v", x.Result)
			}
		})
	}
}

func TestFaultHitsOnlyItsCalls(t *testing.T) {
	b := newProxyTest(t)
	r := b.arm("fault", 1, respondWith(500, 0), CallNext)
	for _, c := range []struct {
		path string
		want int
	}{{"/jobs", 200}, {"/jobs/next?node_id=n", 500}, {"/jobs/next?node_id=n", 200}} {
		if got, _, err := b.call(t.Context(), http.MethodGet, c.path, ""); got != c.want {
			t.Errorf("%s: %d, %v; want %d", c.path, got, err, c.want)
		}
	}
	if x := <-r.matched; x.Call != CallNext {
		t.Errorf("hit %+v", x)
	}
}

func TestRefusedConnection(t *testing.T) {
	b := newProxyTest(t)
	b.close()
	if _, _, err := b.send(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	if err := b.listen(); err != nil {
		t.Fatal(err)
	}
	if status, _, err := b.send(t.Context()); status != 200 {
		t.Errorf("got %d, %v", status, err)
	}
}

func TestPartitionAnswersNothing(t *testing.T) {
	b := newProxyTest(t)
	b.partition()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if status, _, err := b.send(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %d, %v", status, err)
	}
	if x := b.firstExchange(t); x.AgentStatus != 0 || x.MasterStatus != 0 || x.Fault != "partition" {
		t.Errorf("noted %+v", x)
	}
	b.heal()
	if status, _, err := b.send(t.Context()); status != 200 {
		t.Errorf("got %d, %v", status, err)
	}
	if b.requests.Load() != 1 {
		t.Errorf("%d requests came to the master", b.requests.Load())
	}
}

// TestJobViewsOfResponse: of one that was asked for always, of a list only the jobs
// that a node holds and those whose results were sent.
func TestJobViewsOfResponse(t *testing.T) {
	list := fmt.Sprintf(`{"jobs":[%s,{"id":"b","status":"queued"},{"id":"c","status":"failed"}],"count":3}`, masterResponse)
	a := JobView{Job: "a", NodeID: "n", Retries: 1, Status: protocol.StatusAssigned}
	c := JobView{Job: "c", Status: protocol.StatusFailed}
	for _, c := range []struct {
		call Call
		body string
		sent bool
		want []JobView
	}{
		{CallJob, masterResponse, false, []JobView{a}},
		{CallNext, `{"job":` + masterResponse + `}`, false, []JobView{a}},
		{CallNext, `{"job":null}`, false, nil},
		{CallJobs, list, true, []JobView{a, c}},
		{CallJobs, list, false, []JobView{a}},
		{CallHeartbeat, masterResponse, false, nil},
	} {
		b := newProxyTest(t)
		if c.sent {
			b.addKnownJob("c")
		}
		got := b.jobViews(c.call, &response{status: 200, body: []byte(c.body)})
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.call, got, c.want)
		}
	}
}
