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

func TestRegisterAnnouncesTheNode(t *testing.T) {
	for _, status := range []int{http.StatusCreated, http.StatusOK} {
		server, arrived := answering(t, status, `{"id":"n1","address":"host","unknown":[1]}`)
		c := clientFor(t, server.URL+"/base/")
		got, err := c.Register(context.Background(), messages.NodeFacts{
			Address: "host", Type: "server", CPUModel: "c", CPUThreads: 8, RAMTotalBytes: 1 << 34,
			GPUType: "g", GPUCapabilities: []string{"nvenc_h264"}, Labels: map[string]string{"a": "b"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got.NodeID != "n1" || got.Address != "host" || got.Master != server.URL+"/base" || got.Since.IsZero() {
			t.Errorf("session %+v", got)
		}
		r := arrived.all()[0]
		want := request{Method: "POST", URI: "/base/nodes/register", Body: `{"address":"host","type":"server","cpu_threads":8,"cpu_model":"c",` +
			`"has_gpu":true,"gpu_type":"g","gpu_capabilities":["nvenc_h264"],"ram_total_bytes":17179869184,"labels":{"a":"b"}}`}
		if r.Method != want.Method || r.URI != want.URI || r.Body != want.Body {
			t.Errorf("request %+v, want %+v", r, want)
		}
		for name, value := range map[string]string{
			"Authorization": "Bearer " + testKey, "User-Agent": "ffmpeg-agent/1.2.3", "Content-Type": "application/json", "Idempotency-Key": "",
		} {
			if got := r.Header.Get(name); got != value {
				t.Errorf("%s: %q, want %q", name, got, value)
			}
		}
	}
}

func TestHeartbeatCarriesTheStatus(t *testing.T) {
	server, arrived := answering(t, 200, "whatever")
	c := clientFor(t, server.URL)
	load, none := 12.5, math.NaN()
	for _, s := range []struct {
		status messages.NodeStatus
		body   string
	}{
		{messages.NodeStatus{Status: "busy", RunningJobs: []string{"a"}, HostStatus: messages.HostStatus{CPULoadPercent: &load}},
			`{"status":"busy","running_jobs":["a"],"cpu_load_percent":12.5,"throttled":false}`},
		{messages.NodeStatus{Status: "available", HostStatus: messages.HostStatus{CPULoadPercent: &none}},
			`{"status":"available","running_jobs":[],"throttled":false}`},
	} {
		if err := c.Heartbeat(context.Background(), session, s.status); err != nil {
			t.Fatal(err)
		}
		all := arrived.all()
		r := all[len(all)-1]
		if r.Method != "POST" || r.URI != "/nodes/n%2F1%20%C3%BC/heartbeat" || r.Body != s.body {
			t.Errorf("request %+v, want body %s", r, s.body)
		}
	}
}

func TestNextReadsTheAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		job    string
		kind   protocol.ErrorKind
		fails  bool
	}{
		"no work":                {status: 200, body: `{"job":null}`},
		"no work, no content":    {status: 204},
		"a job":                  {status: 200, body: `{"job":{"id":"j1","retry_count":"1","parameters":null}}`, job: "j1#2"},
		"a job full of nonsense": {status: 200, body: `{"job":{"id":"j1","retry_count":{},"scenario":[]}}`, job: "j1#1"},
		"a job without an id":    {status: 200, body: `{"job":{}}`, kind: protocol.Malformed, fails: true},
		"another document":       {status: 200, body: `{"jobs":[]}`, kind: protocol.Malformed, fails: true},
		"no object":              {status: 200, body: `{"job":"j1"}`, kind: protocol.Malformed, fails: true},
		"null":                   {status: 200, body: `null`, kind: protocol.Malformed, fails: true},
		"no JSON":                {status: 200, body: `<html>`, kind: protocol.Malformed, fails: true},
		"nothing":                {status: 200, body: ``, kind: protocol.Malformed, fails: true},
		"two documents":          {status: 200, body: `{"job":null}{"job":null}`, kind: protocol.Malformed, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			server, arrived := answering(t, c.status, c.body)
			got, err := clientFor(t, server.URL).Next(context.Background(), session)
			if c.fails {
				if e := wantFailure(t, err, c.kind, "GET /jobs/next: 200 OK"); !e.Ambiguous || e.Status != 200 {
					t.Errorf("%+v: the master may have assigned a job", e)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (got != nil) != (c.job != "") {
				t.Fatalf("lease %v, want %q", got, c.job)
			}
			if got != nil && (got.Key().String() != c.job || got.NodeID != session.NodeID || got.AcquiredAt.IsZero()) {
				t.Errorf("lease %+v, want %s", got, c.job)
			}
			if uri := arrived.all()[0].URI; uri != "/jobs/next?node_id=n%2F1+%C3%BC" {
				t.Errorf("asked at %s", uri)
			}
		})
	}
}

// An answer that was long on its way says what stood when it was given.
func TestALeaseIsAsOldAsTheQuestion(t *testing.T) {
	var given time.Time // the first answer
	server, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if given.IsZero() {
			given = time.Now()
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
	if err != nil || lease == nil || lease.AcquiredAt.After(given) {
		t.Errorf("lease %+v, %v; the answer was given at %v", lease, err, given)
	}
	given = time.Time{}
	held, err := c.Held(context.Background(), session)
	if err != nil || len(held) != 1 || held[0].AcquiredAt.After(given) {
		t.Errorf("held %+v, %v; the first answer was given at %v", held, err, given)
	}
}

func TestReportAndReleaseSendTheRecordAsItIs(t *testing.T) {
	const body = "{\"job_id\": \"j1\",  \"progress\":100}\n"
	server, arrived := answering(t, 200, `{"status":"success"}`)
	c := clientFor(t, server.URL)
	for name, send := range map[string]func(context.Context, job.Record) error{"report": c.Report, "release": c.Release} {
		if err := send(context.Background(), record(body)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for _, r := range arrived.all() {
		if r.Method != "POST" || r.URI != "/results" || r.Body != body || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("request %+v", r)
		}
	}
	wantFailure(t, c.Report(context.Background(), job.Record{Lease: lease(protocol.Job{ID: "j1"})}), protocol.Rejected, "j1#1 has no result")
	if n := len(arrived.all()); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

// With a 2xx the master has taken the result: what follows is of no interest, and
// a doubt would send it twice.
func TestATakenResultIsTakenWhateverFollows(t *testing.T) {
	for name, then := range map[string]func(net.Conn){
		"a readable answer": says("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"status\":\"success\"}"),
		"garbage":           says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>"),
		"nothing":           says("HTTP/1.1 204 No Content\r\n\r\n"),
		"half an answer":    says("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"stat"),
		"a reset": func(c net.Conn) {
			says("HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n")(c)
			c.(*net.TCPConn).CloseWrite()
			hang(c)
		},
		"a stall": func(c net.Conn) { says("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")(c); hang(c) },
	} {
		t.Run(name, func(t *testing.T) {
			c := clientFor(t, raw(t, afterRequest(then)))
			if err := c.Report(context.Background(), record(`{}`)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEveryStatusHasItsKind(t *testing.T) {
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
		e := wantFailure(t, err, kind, "POST /results: ", fmt.Sprint(status))
		if e.Status != status {
			t.Errorf("status %d, want %d", e.Status, status)
		}
		if want := kind == protocol.Busy; (e.RetryAfter == 7*time.Second) != want {
			t.Errorf("%d: retry after %v", status, e.RetryAfter)
		}
		if want := status == 502 || status == 504; e.Ambiguous != want {
			t.Errorf("%d: ambiguous %v, want %v", status, e.Ambiguous, want)
		}
		if strings.Contains(err.Error(), "second line") {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestErrorsArePlainLines(t *testing.T) {
	for name, c := range map[string]struct {
		key    string
		status int
		body   string
		want   string
	}{
		"wrong key":       {testKey, 401, "Unauthorized\n", "POST /nodes/register: 401 Unauthorized: the master does not accept the API key (--api-key, MASTER_API_KEY, master.api_key_file): Unauthorized"},
		"no key":          {"", 403, "", "POST /nodes/register: 403 Forbidden: the master wants an API key (--api-key, MASTER_API_KEY, master.api_key_file)"},
		"key repeated":    {testKey, 401, "bad key " + testKey + "!", "POST /nodes/register: 401 Unauthorized: the master does not accept the API key (--api-key, MASTER_API_KEY, master.api_key_file): bad key ***!"},
		"key at the edge": {testKey, 500, strings.Repeat("x", 195) + testKey, "POST /nodes/register: 500 Internal Server Error: " + strings.Repeat("x", 195) + "***"},
		"long":            {testKey, 400, strings.Repeat("ü", 5000), "POST /nodes/register: 400 Bad Request: " + strings.Repeat("ü", 199) + "…"},
		"control":         {testKey, 400, "\r\n a\x00b\x1b[0m\xff\u2028c\r\nd", "POST /nodes/register: 400 Bad Request: a b [0m\ufffd c"},
		"a web page":      {testKey, 502, "<!DOCTYPE html>\n<html>…", "POST /nodes/register: 502 Bad Gateway"},
		"go, plain":       {testKey, 400, "Client sent an HTTP request to an HTTPS server.\n", "POST /nodes/register: 400 Bad Request: the master speaks TLS: its URL begins with https://"},
		"nginx, plain":    {testKey, 400, "<html>\n<head><title>400 The plain HTTP request was sent to HTTPS port</title>", "POST /nodes/register: 400 Bad Request: the master speaks TLS: its URL begins with https://"},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := answering(t, c.status, c.body)
			client := clientFor(t, server.URL, func(s *Settings) { s.APIKey = func() string { return c.key } })
			_, err := client.Register(context.Background(), messages.NodeFacts{})
			failure(t, err)
			if err.Error() != c.want {
				t.Errorf("got  %q\nwant %q", err, c.want)
			}
		})
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
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
			t.Errorf("Retry-After %q at %q: %v, want %v", c.after, c.date, got, c.want)
		}
	}
}

// What the caller may do next depends on whether the master can have acted.
func TestBrokenConnections(t *testing.T) {
	var checks []func()
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for name, c := range map[string]struct {
		master    func(net.Conn)
		change    func(*Settings)
		kind      protocol.ErrorKind
		ambiguous bool
		says      string
	}{
		"closed after reading":     {master: afterRequest(func(net.Conn) {}), ambiguous: true, says: "the connection broke before the whole answer was there"},
		"reset after reading":      {master: afterRequest(reset), ambiguous: true, says: "the connection broke before the whole answer was there"},
		"half a status line":       {master: afterRequest(says("HTTP/1.")), ambiguous: true},
		"half a header":            {master: afterRequest(says(head + "Content-Le")), ambiguous: true},
		"half a body":              {master: afterRequest(says(head + "Content-Length: 500\r\n\r\n{\"id\":\"n1\",\"job\":nu")), ambiguous: true, says: "200 OK, but the connection broke"},
		"half a chunk":             {master: afterRequest(says(head + "Transfer-Encoding: chunked\r\n\r\nff\r\n{\"id\":")), ambiguous: true, says: "200 OK, but the connection broke"},
		"no HTTP":                  {master: afterRequest(says("220 mail.example.org ESMTP\r\n")), ambiguous: true, says: "malformed HTTP"},
		"an endless header":        {master: afterRequest(func(c net.Conn) { says(head + "X: " + strings.Repeat("x", 1<<20))(c); hang(c) }), ambiguous: true, says: "header"},
		"silence":                  {master: hang, change: hasty, ambiguous: true, says: "no whole answer within 1s"},
		"silence after a header":   {master: afterRequest(func(c net.Conn) { says(head + "Content-Length: 5\r\n\r\n")(c); hang(c) }), change: hasty, ambiguous: true, says: "no whole answer within 1s"},
		"a trickle":                {master: afterRequest(trickle(head + "Content-Length: 100000\r\n\r\n")), change: hasty, ambiguous: true, says: "no whole answer within 1s"},
		"garbage":                  {master: afterRequest(says(head + "Content-Length: 4\r\n\r\n\x00\xff{]")), kind: protocol.Malformed, ambiguous: true, says: "200 OK, but it is no answer: invalid character"},
		"an empty answer":          {master: afterRequest(says(head + "Content-Length: 0\r\n\r\n")), kind: protocol.Malformed, ambiguous: true, says: "no answer"},
		"an error that breaks off": {master: afterRequest(says("HTTP/1.1 500 X\r\nContent-Length: 50\r\n\r\nout of")), kind: protocol.ServerError, says: "500 Internal Server Error: out of"},
	} {
		url := raw(t, c.master)
		for _, call := range []string{"next", "register"} {
			client := clientFor(t, url)
			if c.change != nil {
				client = clientFor(t, url, c.change)
			}
			wait := start(everyCall[call], client) // all at once, for the sake of those that hang
			checks = append(checks, func() {
				t.Run(name+", "+call, func(t *testing.T) {
					err := wait()
					if e := wantFailure(t, err, c.kind, c.says); e.Ambiguous != c.ambiguous {
						t.Errorf("ambiguous %v, want %v: %v", e.Ambiguous, c.ambiguous, err)
					}
				})
			})
		}
	}
	for _, check := range checks {
		check()
	}
}

// trickle sends a byte now and then, so that no single read is ever slow.
func trickle(head string) func(net.Conn) {
	return func(conn net.Conn) {
		says(head)(conn)
		for {
			if _, err := io.WriteString(conn, " "); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	c := clientFor(t, "http://"+address)
	for name, call := range everyCall {
		e := wantFailure(t, call(context.Background(), c), protocol.Unreachable, "connection refused: nothing listens at "+address)
		if e.Ambiguous || e.Status != 0 {
			t.Errorf("%s: %+v: nothing was sent", name, e)
		}
	}
}

// Each call ends by its own deadline, though its caller has none.
func TestEveryCallHasADeadline(t *testing.T) {
	url := raw(t, hang)
	waits := map[string]func() error{}
	for name, call := range everyCall {
		waits[name] = start(call, clientFor(t, url, hasty))
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			err := wait()
			wantFailure(t, err, protocol.Unreachable, "no whole answer within 1s")
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is not DeadlineExceeded", err)
			}
		})
	}
}

func TestACallEndsWithItsCaller(t *testing.T) {
	asked := make(chan struct{}, 1)
	c := clientFor(t, raw(t, afterRequest(func(conn net.Conn) { asked <- struct{}{}; hang(conn) })))
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-asked; cancel() }()
	_, err := c.Next(ctx, session)
	if e := wantFailure(t, err, protocol.Unreachable, "given up"); !e.Ambiguous || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v", e)
	}
}

// The master assigns as it answers: a transport that repeats the request behind our
// back would take two jobs and lose one.
func TestNextAndReportAreNeverRepeated(t *testing.T) {
	for _, name := range []string{"next", "report"} {
		var asked atomic.Int32
		url := raw(t, func(conn net.Conn) {
			// Answers the first request on each connection but the last, so that a
			// kept connection would be used again, and dies on the next one.
			for {
				more := false
				afterRequest(func(c net.Conn) {
					if asked.Add(1) == 1 {
						says("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"job\":null}")(c)
						more = true
					}
				})(conn)
				if !more {
					return
				}
			}
		})
		c := clientFor(t, url)
		if err := everyCall[name](context.Background(), c); err != nil {
			t.Fatal(err)
		}
		e := wantFailure(t, everyCall[name](context.Background(), c), protocol.Unreachable)
		if !e.Ambiguous {
			t.Errorf("%s: a request that the master read is not ambiguous", name)
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("%s: %d requests arrived, want 2", name, n)
		}
	}
}

// A heartbeat that meets a connection which the master has just closed is sent
// again at once.
func TestHeartbeatsSurviveAClosedConnection(t *testing.T) {
	var beats atomic.Int32
	url := raw(t, func(conn net.Conn) {
		for answered := false; ; answered = true {
			served := false
			afterRequest(func(c net.Conn) {
				if served = !answered; served {
					beats.Add(1)
					says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")(c)
				}
			})(conn)
			if !served {
				return
			}
		}
	})
	c := clientFor(t, url)
	for range 3 {
		if err := everyCall["heartbeat"](context.Background(), c); err != nil {
			t.Fatal(err)
		}
	}
	if n := beats.Load(); n != 3 {
		t.Errorf("%d heartbeats arrived, want 3", n)
	}
}

func TestHeartbeatsHaveTheirOwnConnection(t *testing.T) {
	server, arrived := answering(t, 200, `{"id":"n1"}`)
	c := clientFor(t, server.URL)
	for range 3 { // one after the other, where one connection would do for all
		for _, name := range []string{"register", "heartbeat"} {
			if err := everyCall[name](context.Background(), c); err != nil {
				t.Fatal(err)
			}
		}
	}
	from := map[string]string{} // connection → call
	for _, r := range arrived.all() {
		if other := from[r.From]; other != "" && other != r.URI {
			t.Errorf("%s shares a connection with %s", r.URI, other)
		}
		from[r.From] = r.URI
	}
	if len(from) != 2 {
		t.Errorf("%d connections, want 2", len(from))
	}
}

func TestHeartbeatsGoThroughWhileEveryOtherCallHangs(t *testing.T) {
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
		waits = append(waits, start(everyCall["register"], c))
		<-entered
	}
	for range 3 {
		if err := everyCall["heartbeat"](context.Background(), c); err != nil {
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
	elsewhere, went := answering(t, 200, `{"id":"n1","job":null}`)
	host := strings.TrimPrefix(elsewhere.URL, "http://")
	server, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+"/secret-path?token=1", http.StatusTemporaryRedirect)
	})
	c := clientFor(t, server.URL)
	for name, call := range everyCall {
		err := call(context.Background(), c)
		wantFailure(t, err, protocol.Malformed, "307 Temporary Redirect", host)
		if strings.Contains(err.Error(), "secret-path") || strings.Contains(err.Error(), "token") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if uris := went.uris(); len(uris) != 0 {
		t.Errorf("followed: %v", uris)
	}
}

func TestTheKeyIsAskedForAtEachCall(t *testing.T) {
	server, arrived := answering(t, 200, `{"job":null}`)
	keys := []string{"first", " second\n", ""}
	c := clientFor(t, server.URL, func(s *Settings) {
		s.APIKey = func() string {
			key := keys[0]
			keys = keys[1:]
			return key
		}
	})
	for range 3 {
		if _, err := c.Next(context.Background(), session); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, r := range arrived.all() {
		got = append(got, strings.Join(r.Header.Values("Authorization"), "|"))
	}
	if diff := cmp.Diff([]string{"Bearer first", "Bearer second", ""}, got); diff != "" {
		t.Error(diff)
	}

	keys = []string{"two\nlines"}
	_, err := c.Next(context.Background(), session)
	wantFailure(t, err, protocol.Unauthorized, "API key")
	if strings.Contains(err.Error(), "two") || len(arrived.all()) != 3 {
		t.Errorf("%v after %d requests", err, len(arrived.all()))
	}
}

func TestCallsBeforeRegistration(t *testing.T) {
	server, arrived := answering(t, 200, `{}`)
	c := clientFor(t, server.URL)
	var none messages.Session
	ctx := context.Background()
	_, next := c.Next(ctx, none)
	_, held := c.Held(ctx, none)
	for _, err := range []error{c.Heartbeat(ctx, none, messages.NodeStatus{}), next, held} {
		wantFailure(t, err, protocol.NotFound, "must register first")
	}
	if n := len(arrived.all()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestRegistrationWithoutAnIDIsNone(t *testing.T) {
	server, _ := answering(t, 201, `{"status":"ok"}`)
	_, err := clientFor(t, server.URL).Register(context.Background(), messages.NodeFacts{})
	wantFailure(t, err, protocol.Malformed, "no node id")
}

func TestNewNamesTheFaultySetting(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		s    Settings
		want []string
	}{
		"no URL":         {Settings{}, []string{"master.url", "http://HOST:PORT"}},
		"no scheme":      {Settings{URL: "master:8080"}, []string{"master.url", `"master:8080"`}},
		"another scheme": {Settings{URL: "ftp://master"}, []string{"master.url", `"ftp://master"`}},
		"no host":        {Settings{URL: "http://:8080"}, []string{"master.url"}},
		"a bad port":     {Settings{URL: "http://master:80x"}, []string{"master.url"}},
		"a query":        {Settings{URL: "http://master/?a=b"}, []string{"master.url"}},
		"a password":     {Settings{URL: "http://user:hidden@master"}, []string{"master.url", "must not carry"}},
		"a missing CA":   {Settings{URL: "https://m", CAFile: dir + "/ca.pem"}, []string{"master.ca", dir + "/ca.pem"}},
		"an empty CA":    {Settings{URL: "https://m", CAFile: empty}, []string{"master.ca", empty, "no PEM certificate"}},
		"half a pair":    {Settings{URL: "https://m", CertFile: empty}, []string{"master.cert", "master.key", "both"}},
		"a missing cert": {Settings{URL: "https://m", CertFile: dir + "/c.pem", KeyFile: empty}, []string{"master.cert", dir + "/c.pem"}},
		"an empty pair":  {Settings{URL: "https://m", CertFile: empty, KeyFile: empty}, []string{"master.cert", empty}},
	} {
		_, err := New(c.s)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", name, err, part)
			}
		}
		if strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %q shows the password", name, err)
		}
	}
}
