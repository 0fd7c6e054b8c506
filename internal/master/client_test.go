package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func TestRegister(t *testing.T) {
	for _, status := range []int{http.StatusCreated, http.StatusOK} {
		server, requests := respondWith(t, status, `{"id":"n1","address":"host","unknown":[1]}`)
		c := clientFor(t, server.URL+"/base/")
		got, err := c.Register(context.Background(), messages.NodeFacts{
			Address: "host", Type: "server", CPUModel: "c", CPUThreads: 8, RAMTotalBytes: 1 << 34,
			GPUType: "g", GPUCapabilities: []string{"nvenc_h264"}, Labels: map[string]string{"a": "b"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got.NodeID != "n1" || got.Address != "host" || got.Master != server.URL+"/base" || got.Since.IsZero() {
			t.Errorf("got session %+v, want node n1 at %s/base", got, server.URL)
		}
		r := requests.all()[0]
		want := request{Method: "POST", URI: "/base/nodes/register", Body: `{"address":"host","type":"server","cpu_threads":8,"cpu_model":"c",` +
			`"has_gpu":true,"gpu_type":"g","gpu_capabilities":["nvenc_h264"],"ram_total_bytes":17179869184,"labels":{"a":"b"}}`}
		if r.Method != want.Method || r.URI != want.URI || r.Body != want.Body {
			t.Errorf("got request %+v, want %+v", r, want)
		}
		for name, value := range map[string]string{
			"Authorization": "Bearer " + testKey, "User-Agent": "ffmpeg-agent/1.2.3", "Content-Type": "application/json", "Idempotency-Key": "",
		} {
			if got := r.Header.Get(name); got != value {
				t.Errorf("header %s: got %q, want %q", name, got, value)
			}
		}
	}
}

func TestHeartbeatSendsStatus(t *testing.T) {
	server, requests := respondWith(t, 200, "whatever")
	c := clientFor(t, server.URL)
	load, nan := 12.5, math.NaN()
	for _, s := range []struct {
		status messages.NodeStatus
		body   string
	}{
		{messages.NodeStatus{Status: "busy", RunningJobs: []string{"a"}, HostStatus: messages.HostStatus{CPULoadPercent: &load}},
			`{"status":"busy","running_jobs":["a"],"cpu_load_percent":12.5,"throttled":false}`},
		{messages.NodeStatus{Status: "available", HostStatus: messages.HostStatus{CPULoadPercent: &nan}},
			`{"status":"available","running_jobs":[],"throttled":false}`},
	} {
		if err := c.Heartbeat(context.Background(), session, s.status); err != nil {
			t.Fatal(err)
		}
		all := requests.all()
		r := all[len(all)-1]
		if r.Method != "POST" || r.URI != "/nodes/n%2F1%20%C3%BC/heartbeat" || r.Body != s.body {
			t.Errorf("got request %+v, want body %s", r, s.body)
		}
	}
}

func TestNext(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		job    string
		kind   protocol.ErrorKind
		fails  bool
	}{
		"no job":                  {status: 200, body: `{"job":null}`},
		"no job, no content":      {status: 204},
		"job":                     {status: 200, body: `{"job":{"id":"j1","retry_count":"1","parameters":null}}`, job: "j1#2"},
		"job with invalid fields": {status: 200, body: `{"job":{"id":"j1","retry_count":{},"scenario":[]}}`, job: "j1#1"},
		"job without id":          {status: 200, body: `{"job":{}}`, kind: protocol.Malformed, fails: true},
		"wrong field":             {status: 200, body: `{"jobs":[]}`, kind: protocol.Malformed, fails: true},
		"job is a string":         {status: 200, body: `{"job":"j1"}`, kind: protocol.Malformed, fails: true},
		"null":                    {status: 200, body: `null`, kind: protocol.Malformed, fails: true},
		"HTML":                    {status: 200, body: `<html>`, kind: protocol.Malformed, fails: true},
		"empty":                   {status: 200, body: ``, kind: protocol.Malformed, fails: true},
		"two values":              {status: 200, body: `{"job":null}{"job":null}`, kind: protocol.Malformed, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			server, requests := respondWith(t, c.status, c.body)
			got, err := clientFor(t, server.URL).Next(context.Background(), session)
			if c.fails {
				if e := wantError(t, err, c.kind, "GET /jobs/next: 200 OK"); !e.Ambiguous || e.Status != 200 {
					t.Errorf("got %+v, want status 200, ambiguous", e)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (got != nil) != (c.job != "") {
				t.Fatalf("got lease %v, want %q", got, c.job)
			}
			if got != nil && (got.Key().String() != c.job || got.NodeID != session.NodeID || got.AcquiredAt.IsZero()) {
				t.Errorf("got lease %+v, want %s", got, c.job)
			}
			if uri := requests.all()[0].URI; uri != "/jobs/next?node_id=n%2F1+%C3%BC" {
				t.Errorf("got request URI %s, want the escaped node ID", uri)
			}
		})
	}
}

// A lease is acquired when the request is sent, because a slow response may be outdated
// when it arrives.
func TestLeaseIsAcquiredAtRequest(t *testing.T) {
	var responded time.Time // to the first request
	server, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if responded.IsZero() {
			responded = time.Now()
		}
		body := `{"job":{"id":"j1"}}`
		if r.URL.Path != "/jobs/next" {
			body = `{"id":"n/1 ü","current_job_id":"j1","job":{"id":"j1"},"jobs":[{"id":"j1","status":"assigned","node_id":"n/1 ü"}]}`
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		io.WriteString(w, body[:5])
		w.(http.Flusher).Flush()
		time.Sleep(5 * time.Millisecond)
		io.WriteString(w, body[5:])
	})
	c := clientFor(t, server.URL)
	lease, err := c.Next(context.Background(), session)
	if err != nil || lease == nil || lease.AcquiredAt.After(responded) {
		t.Errorf("Next: got lease %+v, %v; want it acquired before %v", lease, err, responded)
	}
	responded = time.Time{}
	held, err := c.Held(context.Background(), session)
	if err != nil || len(held.Leases) != 1 || held.Leases[0].AcquiredAt.After(responded) {
		t.Errorf("Held: got %+v, %v; want one lease acquired before %v", held, err, responded)
	}
}

func TestReportSendsResultUnchanged(t *testing.T) {
	const body = "{\"job_id\": \"j1\",  \"progress\":100}\n"
	server, requests := respondWith(t, 200, `{"status":"success"}`)
	c := clientFor(t, server.URL)
	for name, send := range map[string]func(context.Context, job.Record) error{"report": c.Report, "release": c.Release} {
		if err := send(context.Background(), record(body)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for _, r := range requests.all() {
		if r.Method != "POST" || r.URI != "/results" || r.Body != body || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("got request %+v, want POST /results with the record's result", r)
		}
	}
	wantError(t, c.Report(context.Background(), job.Record{Lease: lease(protocol.Job{ID: "j1"})}), protocol.Rejected, "j1#1 has no result")
	if n := len(requests.all()); n != 2 {
		t.Errorf("got %d requests, want 2", n)
	}
}

// With a 2xx status the result has been accepted, whatever the body is. An ambiguous error
// would make the agent send it twice.
func TestReportDependsOnlyOnStatus(t *testing.T) {
	for name, then := range map[string]func(net.Conn){
		"valid body":     send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"status\":\"success\"}"),
		"invalid body":   send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>"),
		"no body":        send("HTTP/1.1 204 No Content\r\n\r\n"),
		"truncated body": send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"stat"),
		"connection closed": func(c net.Conn) {
			send("HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n")(c)
			c.(*net.TCPConn).CloseWrite()
			hang(c)
		},
		"stall": func(c net.Conn) { send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")(c); hang(c) },
	} {
		t.Run(name, func(t *testing.T) {
			c := clientFor(t, serveTCP(t, afterRequest(then)))
			if err := c.Report(context.Background(), record(`{}`)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestErrorKindOfStatus(t *testing.T) {
	for status, kind := range map[int]protocol.ErrorKind{
		400: protocol.Rejected, 401: protocol.Unauthorized, 403: protocol.Unauthorized, 404: protocol.NotFound,
		405: protocol.Rejected, 407: protocol.Unauthorized, 408: protocol.Busy, 409: protocol.Conflict,
		413: protocol.Rejected, 422: protocol.Rejected, 425: protocol.Busy, 429: protocol.Busy,
		500: protocol.ServerError, 501: protocol.ServerError, 502: protocol.ServerError, 503: protocol.Busy, 504: protocol.ServerError,
		599: protocol.ServerError, 302: protocol.Malformed, 304: protocol.Malformed, 600: protocol.Malformed,
	} {
		server, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			if status != 304 {
				io.WriteString(w, "no such\x1b[31m node\nand a second line\n")
			}
		})
		err := clientFor(t, server.URL).Report(context.Background(), record(`{}`))
		e := wantError(t, err, kind, "POST /results: ", fmt.Sprint(status))
		if e.Status != status {
			t.Errorf("got status %d, want %d", e.Status, status)
		}
		if want := kind == protocol.Busy; (e.RetryAfter == 7*time.Second) != want {
			t.Errorf("%d: got retry after %v, want 7s: %v", status, e.RetryAfter, want)
		}
		if want := status == 502 || status == 504; e.Ambiguous != want {
			t.Errorf("%d: got ambiguous %v, want %v", status, e.Ambiguous, want)
		}
		if strings.Contains(err.Error(), "second line") {
			t.Errorf("%d: got %v, want only the first line", status, err)
		}
	}
}

func TestErrorMessages(t *testing.T) {
	for name, c := range map[string]struct {
		key    string
		status int
		body   string
		want   string
	}{
		"wrong key":         {testKey, 401, "Unauthorized\n", "POST /nodes/register: 401 Unauthorized: the master rejected the API key (--api-key, MASTER_API_KEY, master.api_key_file): Unauthorized"},
		"no key":            {"", 403, "", "POST /nodes/register: 403 Forbidden: the master requires an API key (--api-key, MASTER_API_KEY, master.api_key_file)"},
		"key echoed":        {testKey, 401, "bad key " + testKey + "!", "POST /nodes/register: 401 Unauthorized: the master rejected the API key (--api-key, MASTER_API_KEY, master.api_key_file): bad key ***!"},
		"key at the edge":   {testKey, 500, strings.Repeat("x", 195) + testKey, "POST /nodes/register: 500 Internal Server Error: " + strings.Repeat("x", 195) + "***"},
		"long":              {testKey, 400, strings.Repeat("ü", 5000), "POST /nodes/register: 400 Bad Request: " + strings.Repeat("ü", 199) + "…"},
		"control":           {testKey, 400, "\r\n a\x00b\x1b[0m\xff\u2028c\r\nd", "POST /nodes/register: 400 Bad Request: a?b?[0m\ufffd c"},
		"HTML":              {testKey, 502, "<!DOCTYPE html>\n<html>…", "POST /nodes/register: 502 Bad Gateway"},
		"TLS port of Go":    {testKey, 400, "Client sent an HTTP request to an HTTPS server.\n", "POST /nodes/register: 400 Bad Request: the master uses TLS; its URL must start with https://"},
		"TLS port of nginx": {testKey, 400, "<html>\n<head><title>400 The plain HTTP request was sent to HTTPS port</title>", "POST /nodes/register: 400 Bad Request: the master uses TLS; its URL must start with https://"},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := respondWith(t, c.status, c.body)
			client := clientFor(t, server.URL, func(cfg *Config) { cfg.APIKey = c.key })
			_, err := client.Register(context.Background(), messages.NodeFacts{})
			protocolError(t, err)
			if err.Error() != c.want {
				t.Errorf("got  %q\nwant %q", err, c.want)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, c := range []struct {
		after, date string
		want        time.Duration
	}{
		{"", "", 0}, {"0", "", 0}, {"12", "", 12 * time.Second}, {" 12 ", "", 12 * time.Second}, {"-5", "", 0}, {"soon", "", 0},
		{"9223372036854775807", "", 24 * time.Hour}, {"99999999999999999999", "", 0},
		{"Wed, 04 Mar 2026 05:06:37 GMT", "", 30 * time.Second},
		{"Wed, 04 Mar 2026 05:06:37 GMT", "Wed, 04 Mar 2026 05:06:35 GMT", 2 * time.Second},
		{"Wed, 04 Mar 2026 05:06:37 GMT", "now", 30 * time.Second},
		{"Wed, 04 Mar 2020 05:06:37 GMT", "", 0},
		{"Wed, 04 Mar 2099 05:06:37 GMT", "", 24 * time.Hour},
	} {
		h := http.Header{"Retry-After": {c.after}, "Date": {c.date}}
		if got := retryAfter(h, now); got != c.want {
			t.Errorf("Retry-After %q with date %q: got %v, want %v", c.after, c.date, got, c.want)
		}
	}
}

func TestIncompleteResponses(t *testing.T) {
	var checks []func()
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for name, c := range map[string]struct {
		master    func(net.Conn)
		change    func(*Config)
		kind      protocol.ErrorKind
		ambiguous bool
		message   string
	}{
		"closed after request": {master: afterRequest(func(net.Conn) {}), ambiguous: true, message: "connection closed before the response was complete"},
		"reset after request":  {master: afterRequest(reset), ambiguous: true, message: "connection closed before the response was complete"},
		"half a status line":   {master: afterRequest(send("HTTP/1.")), ambiguous: true},
		"half a header":        {master: afterRequest(send(head + "Content-Le")), ambiguous: true},
		"half a body":          {master: afterRequest(send(head + "Content-Length: 500\r\n\r\n{\"id\":\"n1\",\"job\":nu")), ambiguous: true, message: "200 OK: connection closed before"},
		"half a chunk":         {master: afterRequest(send(head + "Transfer-Encoding: chunked\r\n\r\nff\r\n{\"id\":")), ambiguous: true, message: "200 OK: connection closed before"},
		"not HTTP":             {master: afterRequest(send("220 mail.example.org ESMTP\r\n")), ambiguous: true, message: "malformed HTTP"},
		"huge header":          {master: afterRequest(func(c net.Conn) { send(head + "X: " + strings.Repeat("x", 1<<20))(c); hang(c) }), ambiguous: true, message: "header"},
		"no response":          {master: hang, change: shortTimeouts, ambiguous: true, message: "no complete response within 1s"},
		"stall after header":   {master: afterRequest(func(c net.Conn) { send(head + "Content-Length: 5\r\n\r\n")(c); hang(c) }), change: shortTimeouts, ambiguous: true, message: "no complete response within 1s"},
		"trickle":              {master: afterRequest(trickle(head + "Content-Length: 100000\r\n\r\n")), change: shortTimeouts, ambiguous: true, message: "no complete response within 1s"},
		"not JSON":             {master: afterRequest(send(head + "Content-Length: 4\r\n\r\n\x00\xff{]")), kind: protocol.Malformed, ambiguous: true, message: "200 OK: malformed response: invalid character"},
		"empty body":           {master: afterRequest(send(head + "Content-Length: 0\r\n\r\n")), kind: protocol.Malformed, ambiguous: true, message: "malformed response"},
		"truncated error":      {master: afterRequest(send("HTTP/1.1 500 X\r\nContent-Length: 50\r\n\r\nout of")), kind: protocol.ServerError, message: "500 Internal Server Error: out of"},
	} {
		url := serveTCP(t, c.master)
		for _, call := range []string{"next", "register"} {
			client := clientFor(t, url)
			if c.change != nil {
				client = clientFor(t, url, c.change)
			}
			wait := start(allCalls[call], client) // concurrently, because some run into their timeout
			checks = append(checks, func() {
				t.Run(name+", "+call, func(t *testing.T) {
					err := wait()
					if e := wantError(t, err, c.kind, c.message); e.Ambiguous != c.ambiguous {
						t.Errorf("got ambiguous %v of %v, want %v", e.Ambiguous, err, c.ambiguous)
					}
				})
			})
		}
	}
	for _, check := range checks {
		check()
	}
}

// trickle sends a byte every 10 ms, so that no single read times out.
func trickle(head string) func(net.Conn) {
	return func(conn net.Conn) {
		send(head)(conn)
		for {
			if _, err := io.WriteString(conn, " "); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func TestConnectionRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	c := clientFor(t, "http://"+address)
	for name, call := range allCalls {
		e := wantError(t, call(context.Background(), c), protocol.Unreachable, "connection to "+address+" refused")
		if e.Ambiguous || e.Status != 0 {
			t.Errorf("%s: got %+v, want it not ambiguous, without status", name, e)
		}
	}
}

func TestAllCallsTimeOut(t *testing.T) {
	url := serveTCP(t, hang)
	waits := map[string]func() error{}
	for name, call := range allCalls {
		waits[name] = start(call, clientFor(t, url, shortTimeouts))
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			err := wait()
			wantError(t, err, protocol.Unreachable, "no complete response within 1s")
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got error %v, want context.DeadlineExceeded in its chain", err)
			}
		})
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	received := make(chan struct{}, 1)
	c := clientFor(t, serveTCP(t, afterRequest(func(conn net.Conn) { received <- struct{}{}; hang(conn) })))
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-received; cancel() }()
	_, err := c.Next(ctx, session)
	if e := wantError(t, err, protocol.Unreachable, "canceled"); !e.Ambiguous || !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v, want it ambiguous and context.Canceled", e)
	}
}

// GET /jobs/next assigns a job. If the transport resent it, the master would assign two
// and one would be lost.
func TestNextAndReportAreNeverResent(t *testing.T) {
	for _, name := range []string{"next", "report"} {
		var received atomic.Int32
		url := serveTCP(t, func(conn net.Conn) {
			// Responds to the first request only, then closes the connection on the next
			// one. http.Transport would resend that one if it reused the connection.
			for {
				more := false
				afterRequest(func(c net.Conn) {
					if received.Add(1) == 1 {
						send("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"job\":null}")(c)
						more = true
					}
				})(conn)
				if !more {
					return
				}
			}
		})
		c := clientFor(t, url)
		if err := allCalls[name](context.Background(), c); err != nil {
			t.Fatal(err)
		}
		e := wantError(t, allCalls[name](context.Background(), c), protocol.Unreachable)
		if !e.Ambiguous {
			t.Errorf("%s: got %+v, want it ambiguous", name, e)
		}
		if n := received.Load(); n != 2 {
			t.Errorf("%s: got %d requests, want 2", name, n)
		}
	}
}

// A heartbeat is resent at once if the master has just closed the idle connection.
func TestHeartbeatIsResent(t *testing.T) {
	var heartbeats atomic.Int32
	url := serveTCP(t, func(conn net.Conn) {
		for answered := false; ; answered = true {
			served := false
			afterRequest(func(c net.Conn) {
				if served = !answered; served {
					heartbeats.Add(1)
					send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")(c)
				}
			})(conn)
			if !served {
				return
			}
		}
	})
	c := clientFor(t, url)
	for range 3 {
		if err := allCalls["heartbeat"](context.Background(), c); err != nil {
			t.Fatal(err)
		}
	}
	if n := heartbeats.Load(); n != 3 {
		t.Errorf("got %d heartbeats, want 3", n)
	}
}

func TestHeartbeatsUseTheirOwnConnection(t *testing.T) {
	server, requests := respondWith(t, 200, `{"id":"n1"}`)
	c := clientFor(t, server.URL)
	for range 3 { // sequentially, so that a shared connection would be reused
		for _, name := range []string{"register", "heartbeat"} {
			if err := allCalls[name](context.Background(), c); err != nil {
				t.Fatal(err)
			}
		}
	}
	from := map[string]string{} // call by connection
	for _, r := range requests.all() {
		if other := from[r.From]; other != "" && other != r.URI {
			t.Errorf("%s shares a connection with %s", r.URI, other)
		}
		from[r.From] = r.URI
	}
	if len(from) != 2 {
		t.Errorf("got %d connections, want 2", len(from))
	}
}

func TestHeartbeatsDoNotWaitForOtherCalls(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{}, 8)
	server, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/heartbeat") {
			entered <- struct{}{}
			<-release
		}
		io.WriteString(w, `{"id":"n1"}`)
	})
	c := clientFor(t, server.URL)
	var waits []func() error
	for range 4 {
		waits = append(waits, start(allCalls["register"], c))
		<-entered
	}
	for range 3 {
		if err := allCalls["heartbeat"](context.Background(), c); err != nil {
			t.Error(err)
		}
	}
	close(release)
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	target, redirected := respondWith(t, 200, `{"id":"n1","job":null}`)
	host := strings.TrimPrefix(target.URL, "http://")
	server, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target.URL+"/secret-path?token=1", http.StatusTemporaryRedirect)
	})
	c := clientFor(t, server.URL)
	for name, call := range allCalls {
		err := call(context.Background(), c)
		wantError(t, err, protocol.Malformed, "307 Temporary Redirect", host)
		if strings.Contains(err.Error(), "secret-path") || strings.Contains(err.Error(), "token") {
			t.Errorf("%s: message contains path or query of the redirect: %v", name, err)
		}
	}
	if uris := redirected.uris(); len(uris) != 0 {
		t.Errorf("got requests %v at the redirect's target, want none", uris)
	}
}

// reconfigure changes a client's configuration.
func reconfigure(t *testing.T, c *Client, change func(*Config)) {
	t.Helper()
	cfg := c.cfg
	change(&cfg)
	if err := c.Reconfigure(cfg); err != nil {
		t.Fatal(err)
	}
}

func TestChangedKeyAppliesToTheNextCall(t *testing.T) {
	server, requests := respondWith(t, 200, `{"job":null}`)
	c := clientFor(t, server.URL)
	for _, key := range []string{"first", " second\n", ""} {
		reconfigure(t, c, func(cfg *Config) { cfg.APIKey = key })
		if _, err := c.Next(context.Background(), session); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, r := range requests.all() {
		got = append(got, strings.Join(r.Header.Values("Authorization"), "|"))
	}
	if diff := cmp.Diff([]string{"Bearer first", "Bearer second", ""}, got); diff != "" {
		t.Errorf("Authorization headers (-want +got):\n%s", diff)
	}

	reconfigure(t, c, func(cfg *Config) { cfg.APIKey = "two\nlines" })
	_, err := c.Next(context.Background(), session)
	wantError(t, err, protocol.Unauthorized, "API key")
	if strings.Contains(err.Error(), "two") || len(requests.all()) != 3 {
		t.Errorf("got %v and %d requests, want an error without the key and 3 requests", err, len(requests.all()))
	}
}

func TestCallsBeforeRegistration(t *testing.T) {
	server, requests := respondWith(t, 200, `{}`)
	c := clientFor(t, server.URL)
	var none messages.Session
	ctx := context.Background()
	_, next := c.Next(ctx, none)
	_, held := c.Held(ctx, none)
	for _, err := range []error{c.Heartbeat(ctx, none, messages.NodeStatus{}), next, held, c.Remove(ctx, none)} {
		wantError(t, err, protocol.NotFound, "not registered")
	}
	if n := len(requests.all()); n != 0 {
		t.Errorf("got %d requests, want none", n)
	}
}

func TestRegistrationWithoutNodeID(t *testing.T) {
	server, _ := respondWith(t, 201, `{"status":"ok"}`)
	_, err := clientFor(t, server.URL).Register(context.Background(), messages.NodeFacts{})
	wantError(t, err, protocol.Malformed, "no node id")
}

func TestNewRejectsInvalidConfig(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  Config
		want []string
	}{
		"no URL":                  {Config{}, []string{"master.url", "http://HOST:PORT"}},
		"no scheme":               {Config{URL: "master:8080"}, []string{"master.url", `"master:8080"`}},
		"unsupported scheme":      {Config{URL: "ftp://master"}, []string{"master.url", `"ftp://master"`}},
		"no host":                 {Config{URL: "http://:8080"}, []string{"master.url"}},
		"invalid port":            {Config{URL: "http://master:80x"}, []string{"master.url"}},
		"query":                   {Config{URL: "http://master/?a=b"}, []string{"master.url"}},
		"password":                {Config{URL: "http://user:hidden@master"}, []string{"master.url", "must not contain"}},
		"missing CA":              {Config{URL: "https://m", CAFile: dir + "/ca.pem"}, []string{"master.ca", dir + "/ca.pem"}},
		"CA without certificate":  {Config{URL: "https://m", CAFile: empty}, []string{"master.ca", empty, "no PEM certificate"}},
		"certificate without key": {Config{URL: "https://m", CertFile: empty}, []string{"master.cert", "master.key", "both"}},
		"missing certificate":     {Config{URL: "https://m", CertFile: dir + "/c.pem", KeyFile: empty}, []string{"master.cert", dir + "/c.pem"}},
		"invalid certificate":     {Config{URL: "https://m", CertFile: empty, KeyFile: empty}, []string{"master.cert", empty}},
	} {
		_, err := New(c.cfg)
		if err == nil {
			t.Errorf("%s: got no error", name)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got error %q, want %q in it", name, err, part)
			}
		}
		if strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: error contains the password: %q", name, err)
		}
	}
}
