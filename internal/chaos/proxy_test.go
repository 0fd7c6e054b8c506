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

// bench is a proxy before a master that counts what reaches it.
type bench struct {
	*proxy
	facts  *recorder
	client *http.Client
	came   atomic.Int32
}

const masterSays = `{"id":"a","sequence_number":7,"node_id":"n","retry_count":1,"status":"assigned"}`

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{facts: newRecorder(time.Second), client: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.came.Add(1)
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, masterSays)
	}))
	t.Cleanup(backend.Close)
	var err error
	if b.proxy, err = newProxy(0, "127.0.0.1:0", strings.TrimPrefix(backend.URL, "http://"), func() int { return 1 }, b.facts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b
}

// send sends a result, and returns what came back.
func (b *bench) send(ctx context.Context) (status int, body string, err error) {
	return b.call(ctx, http.MethodPost, "/results", `{"job_id":"a","node_id":"n","attempt":2,"status":"completed"}`)
}

func (b *bench) call(ctx context.Context, method, path, body string) (int, string, error) {
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

// noted is the first exchange that the proxy noted.
func (b *bench) noted(t *testing.T) Exchange {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	x, ok := b.facts.await(ctx, time.Time{}, func(*Exchange) bool { return true })
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
		"none":            {nil, 200, masterSays, false, 1, 200, true},
		"reset before":    {resetBefore, 0, "", true, 0, 0, false},
		"reset after":     {resetAfter, 0, "", true, 1, 0, false},
		"stall before":    {stall(50*time.Millisecond, false), 0, "", true, 0, 0, false},
		"stall after":     {stall(50*time.Millisecond, true), 0, "", true, 1, 0, false},
		"503":             {refuseWith(503, 2*time.Second), 503, "Service Unavailable\n", false, 0, 503, true},
		"garbage":         {garbage("<html>"), 200, "<html>", false, 1, 200, false},
		"huge":            {huge, 200, "*", false, 1, 200, false},
		"trickle":         {trickle(time.Millisecond), 200, masterSays, false, 1, 200, true},
		"cut short":       {cutShort, 200, masterSays[:len(masterSays)/2], true, 1, 200, false},
		"slow":            {slow(20 * time.Millisecond), 200, masterSays, false, 1, 200, true},
		"an empty answer": {garbage(""), 200, "", false, 1, 200, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if c.play != nil {
				b.arm("fault", 1, c.play, CallResult)
			}
			status, body, err := b.send(t.Context())
			if status != c.status || c.body != "*" && body != c.body || (err != nil) != c.fails {
				t.Errorf("got %d %.40q, %v", status, body, err)
			}
			x := b.noted(t)
			if int(b.came.Load()) != c.came || (x.Answered != 0) != (c.came > 0) {
				t.Errorf("%d requests came to the master, whose answer was %d", b.came.Load(), x.Answered)
			}
			if x.Given != c.given || x.Whole != c.whole || !x.Received || x.Call != CallResult || (x.Fault == "fault") != (c.play != nil) {
				t.Errorf("noted %+v", x)
			}
			if x.Result == nil || x.Attempt() != (Attempt{"a", 2}) || x.Result.Status != protocol.StatusCompleted {
				t.Errorf("result %+v", x.Result)
			}
		})
	}
}

func TestAFaultMeetsItsCallsAndNoMore(t *testing.T) {
	b := newBench(t)
	r := b.arm("fault", 1, refuseWith(500, 0), CallNext)
	for _, c := range []struct {
		path string
		want int
	}{{"/jobs", 200}, {"/jobs/next?node_id=n", 500}, {"/jobs/next?node_id=n", 200}} {
		if got, _, err := b.call(t.Context(), http.MethodGet, c.path, ""); got != c.want {
			t.Errorf("%s: %d, %v; want %d", c.path, got, err, c.want)
		}
	}
	if x := <-r.hit; x.Call != CallNext {
		t.Errorf("hit %+v", x)
	}
}

func TestARefusedConnection(t *testing.T) {
	b := newBench(t)
	b.close()
	if _, _, err := b.send(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	if status, _, err := b.send(t.Context()); status != 200 {
		t.Errorf("got %d, %v", status, err)
	}
}

func TestAPartitionAnswersNothing(t *testing.T) {
	b := newBench(t)
	b.partition()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if status, _, err := b.send(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %d, %v", status, err)
	}
	if x := b.noted(t); x.Given != 0 || x.Answered != 0 || x.Fault != "partition" {
		t.Errorf("noted %+v", x)
	}
	b.heal()
	if status, _, err := b.send(t.Context()); status != 200 {
		t.Errorf("got %d, %v", status, err)
	}
	if b.came.Load() != 1 {
		t.Errorf("%d requests came to the master", b.came.Load())
	}
}

// TestWhatAnAnswerTellsOfJobs: of one that was asked for always, of a list only the jobs
// that a node holds and those whose results were sent.
func TestWhatAnAnswerTellsOfJobs(t *testing.T) {
	list := fmt.Sprintf(`{"jobs":[%s,{"id":"b","status":"queued"},{"id":"c","status":"failed"}],"count":3}`, masterSays)
	a := View{Job: "a", NodeID: "n", Retries: 1, Status: protocol.StatusAssigned}
	c := View{Job: "c", Status: protocol.StatusFailed}
	for _, c := range []struct {
		call Call
		body string
		sent bool
		want []View
	}{
		{CallJob, masterSays, false, []View{a}},
		{CallNext, `{"job":` + masterSays + `}`, false, []View{a}},
		{CallNext, `{"job":null}`, false, nil},
		{CallJobs, list, true, []View{a, c}},
		{CallJobs, list, false, []View{a}},
		{CallHeartbeat, masterSays, false, nil},
	} {
		b := newBench(t)
		if c.sent {
			b.learn("c")
		}
		got := b.views(c.call, &response{status: 200, body: []byte(c.body)})
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.call, got, c.want)
		}
	}
}
