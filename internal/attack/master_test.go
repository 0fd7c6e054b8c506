//go:build attack

package attack

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// mostMemory is what an agent may have resident whatever its master answers, in MiB. Idle it has
// some 40.
const mostMemory = 400

// masterAttacks are those of a hostile master, and of who is between it and the agent.
var masterAttacks = []attack{{
	name: "400,000 leases", threat: "T11", wants: "the agent's memory",
	run: func(t *testing.T) (got string) {
		b := prepareBed(t)
		list := leases(400_000)
		var lists atomic.Int32
		b.answer(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.Method == http.MethodGet && r.URL.Path == "/jobs" && lists.Add(1) == 1:
				_, _ = io.WriteString(w, strings.ReplaceAll(list, "NODE", b.master.Nodes()[0].ID))
			case r.URL.Path == "/results" && lists.Load() > 0:
				// The master knows none of these jobs, and says so only for its own.
				_, _ = io.WriteString(w, `{"status":"success"}`)
			default:
				return false
			}
			return true
		})
		b.start(os.Geteuid())
		waitFor(t, "list of leases", func() bool { return lists.Load() > 0 })
		waitFor(t, "work on the leases", func() bool { return strings.Count(b.log.String(), "job ended") > 20 })
		if peak := b.peakMemory(); peak > mostMemory {
			got = fmt.Sprintf("%d MiB", peak)
		} else {
			t.Logf("the agent had at most %d MiB", peak)
		}
		if kept := decodedMemory(t, list); kept < mostMemory {
			t.Errorf("the whole list takes %d MiB decoded, so the attack proves nothing", kept)
		}
		return got
	},
}, {
	name: "endless answers", threat: "T11", wants: "the agent's memory, or its time",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		b.wantAlive()
		for name, body := range endlessBodies {
			var asked, sent atomic.Int64
			b.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/health" || r.URL.Path == "/results" || strings.HasSuffix(r.URL.Path, "/heartbeat") && asked.Load()%2 == 0 {
					return false
				}
				asked.Add(1)
				body(w, &sent, r)
				return true
			})
			waitFor(t, "calls that get "+name, func() bool { return asked.Load() >= 4 })
			none := func(http.ResponseWriter, *http.Request) bool { return false }
			b.hook.Store(&none)
			t.Logf("%s: %d calls took %d MiB of it", name, asked.Load(), sent.Load()>>20)
			b.wantAlive()
		}
		if peak := b.peakMemory(); peak > mostMemory {
			got = fmt.Sprintf("%d MiB", peak)
		}
		return got
	},
}, {
	name: "characters that terminals obey", threat: "T11", wants: "to forge or hide lines of logs and results",
	run: func(t *testing.T) (got string) {
		for _, format := range []string{"json", "console"} {
			got += commandingText(t, format)
		}
		return got
	},
}, {
	name: "an id of 900 KB", threat: "T11", wants: "a log that grows without bounds",
	run: func(t *testing.T) (got string) {
		b := prepareBed(t)
		huge := strings.Repeat("x", 900_000)
		hostile, taken := hostileJobs(
			protocol.Job{ID: huge}, protocol.Job{ID: "a", Scenario: huge, Parameters: small()}, protocol.Job{ID: "b", Engine: huge}, protocol.Job{ID: "c", Parameters: map[string]any{huge: 1}},
			protocol.Job{ID: "d", Parameters: map[string]any{"codec": huge}}, protocol.Job{ID: "e", Parameters: map[string]any{"input": "/" + huge}},
			protocol.Job{ID: "f", Parameters: map[string]any{"outputs": []any{map[string]any{"codec": huge}}}}, protocol.Job{ID: strings.Repeat("y", 1000), Parameters: map[string]any{"resolution": huge}},
			protocol.Job{ID: "g", Parameters: map[string]any{"output": "/" + strings.Repeat(huge[:200]+"/", 4000) + "x.mp4"}},
		)
		b.answer(hostile)
		b.start(os.Geteuid())
		waitFor(t, "end of the hostile jobs", func() bool { return taken() && strings.Contains(b.log.String(), `yyyyyy`) })
		b.wantAlive()
		for line := range strings.Lines(b.log.String()) {
			if len(line) > 4<<10 {
				got += fmt.Sprintf("a line of %d bytes (%.200s); ", len(line), line)
			}
		}
		return got
	},
}, {
	name: "malformed jobs", threat: "T11", wants: "an end to the agent, or to its work",
	run: func(t *testing.T) (got string) {
		var bodies []string
		for _, job := range malformedJobs {
			bodies = append(bodies, `{"job":`+job+`}`)
		}
		bodies = append(bodies, `{"job":[]}`, `{"job":7}`, `{"job":{}}`, `[]`, `null`, ``, `{"job":{"id":"a"`, `{"job":null,"job":{"id":7}}`)
		var next atomic.Int32
		b := prepareBed(t)
		b.answer(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.Method == http.MethodGet && r.URL.Path == "/jobs/next":
				i := int(next.Add(1)) - 1
				if i >= len(bodies) {
					return false
				}
				_, _ = io.WriteString(w, bodies[i])
			case r.URL.Path == "/results":
				body, err := io.ReadAll(r.Body)
				r.Body = io.NopCloser(strings.NewReader(string(body)))
				if err != nil || strings.Contains(string(body), `"scenario":"attack-h264"`) { // wantAlive's
					return false
				}
				_, _ = io.WriteString(w, `{"status":"success"}`)
			default:
				return false
			}
			return true
		})
		b.start(os.Geteuid(), "FFMPEG_AGENT_JOBS_MAX_CONCURRENT=2", "FFMPEG_AGENT_JOBS_LIMITS_TIMEOUT=3s")
		waitFor(t, "end of the malformed jobs", func() bool { return int(next.Load()) > len(bodies) })
		b.wantAlive()
		if strings.Contains(b.log.String(), "panic") {
			got = "a panic"
		}
		if nodes := len(b.master.Nodes()); nodes != 1 {
			got += fmt.Sprintf("%d nodes", nodes)
		}
		return got
	},
}, {
	name: "redirects", threat: "T12", wants: "the API key",
	run: func(t *testing.T) (got string) {
		var keys atomic.Int32
		collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.Header.Get("Authorization"), apiKey) {
				keys.Add(1)
			}
			_, _ = io.WriteString(w, `{"job":null}`)
		}))
		defer collector.Close()
		b := newBed(t)
		b.wantAlive()
		var mu sync.Mutex
		redirected := map[string]bool{}
		codes := []int{301, 302, 303, 307, 308}
		var n atomic.Int32
		b.answer(func(w http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			redirected[r.Method+" "+strings.Split(r.URL.Path, "/")[1]] = true
			mu.Unlock()
			http.Redirect(w, r, collector.URL+r.URL.Path, codes[int(n.Add(1))%len(codes)])
			return true
		})
		waitFor(t, "redirected calls", func() bool { mu.Lock(); defer mu.Unlock(); return len(redirected) >= 2 && n.Load() > 20 })
		if n := keys.Load(); n > 0 {
			got = fmt.Sprintf("the key, %d times", n)
		}
		// A client that follows redirects passes its key on.
		request, err := http.NewRequest(http.MethodGet, b.url+"/jobs/next", nil)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+apiKey)
		answer, err := http.DefaultClient.Do(request)
		must(t, err)
		_ = answer.Body.Close()
		if before := keys.Load(); before == 0 {
			t.Error("a client that follows redirects does not pass the key on, so the attack proves nothing")
		}
		return got
	},
}, {
	name: "the network between", threat: "T12", wants: "the API key, which the agent sends without a warning",
	run: func(t *testing.T) (got string) {
		const warning = "the API key is sent unencrypted"
		for url, want := range map[string]bool{"http://192.0.2.1:8080": true, "http://master.example": true, "https://192.0.2.1:8080": false} {
			b := prepareBed(t)
			b.url, b.within = url, []string{"unshare", "--net"} // from which nothing leaves
			if os.Geteuid() != 0 {
				b.within = []string{"unshare", "--net", "--map-root-user"}
			}
			b.start(os.Geteuid())
			waitFor(t, "attempt to register", func() bool {
				return strings.Contains(b.log.String(), "could not register") || strings.Contains(b.log.String(), "registering")
			})
			if has := strings.Contains(b.log.String(), warning); want && !has {
				got += "no warning for " + url + "; "
			} else if !want && has {
				t.Errorf("%s: a warning", url)
			}
			if strings.Contains(b.log.String(), apiKey) {
				got += "the key in the log; "
			}
		}
		return got
	},
}}

// malformedJobs are jobs of which each field has a value that it should not have. They are short
// where they run at all.
var malformedJobs = []string{
	`{"id":"..","parameters":{"duration":0.1,"resolution":"64x64"}}`, `{"id":".","parameters":{"duration":0.1,"resolution":"64x64"}}`, `{"id":"/","parameters":{"fps":-1}}`, `{"id":"\u0000","parameters":{"fps":-1}}`,
	`{"id":"../../../etc/passwd","parameters":{"duration":0.1,"resolution":"64x64"}}`, `{"id":"%2e%2e%2f","parameters":{"fps":-1}}`, `{"id":"\ud800","parameters":{"fps":-1}}`,
	`{"id":"n1","attempt":-1,"parameters":{"fps":-1}}`, `{"id":"n2","attempt":1e18,"parameters":{"fps":-1}}`, `{"id":"n3","attempt":9223372036854775807,"parameters":{"fps":-1}}`,
	`{"id":"n4","retry_count":9223372036854775807,"parameters":{"fps":-1}}`, `{"id":"n5","retry_count":-9,"parameters":{"fps":-1}}`, `{"id":"n6","retry_count":"x","parameters":{"fps":-1}}`,
	`{"id":"n7","sequence_number":-9223372036854775808,"parameters":{"fps":-1}}`, `{"id":"n8","sequence_number":1e308,"parameters":{"fps":-1}}`, `{"id":"n9","max_retries":[],"parameters":{"fps":-1}}`,
	`{"id":"t1","created_at":"0000-00-00","parameters":{"fps":-1}}`, `{"id":"t2","started_at":"9999-12-31T23:59:59.999999999Z","timeout_at":"0001-01-01T00:00:00Z","parameters":{"fps":-1}}`, `{"id":"t3","timeout_at":7,"parameters":{"fps":-1}}`,
	`{"id":"t4","created_at":{"a":[1]},"parameters":{"fps":-1}}`, `{"id":"s1","status":"no such","node_id":"another","parameters":{"fps":-1}}`, `{"id":"s2","status":7,"progress":"x","priority":{},"queue":[],"parameters":{"fps":-1}}`,
	`{"id":"p1","parameters":null}`, `{"id":"p2","parameters":[]}`, `{"id":"p3","parameters":"x"}`, `{"id":"p4","parameters":{"":"","duration":0.1,"resolution":"64x64"}}`, `{"id":"p5","parameters":{"outputs":[null,7,[],{}]}}`,
	`{"id":"p6","parameters":{"duration":1e-300}}`, `{"id":"p7","parameters":{"fps":1e-300,"duration":0.1}}`, `{"id":"p8","parameters":{"resolution_width":-0,"resolution_height":1e19}}`, `{"id":"p9","parameters":{"resource_limits":{"timeout_sec":1e-9}}}`,
	`{"id":"w1","wrapper_constraints":[],"parameters":{"fps":-1}}`, `{"id":"w2","wrapper_constraints":{"cpu_max":7,"cpu_weight":"x","memory_max_mb":-1,"io_max":"\u0000"},"parameters":{"fps":-1}}`, `{"id":"w3","wrapper_constraints":{"memory_max_mb":1},"parameters":{"duration":0.1,"resolution":"64x64"}}`,
	`{"id":"d1","parameters":{"a":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}}`, `{"id":"d2","parameters":{"a":` + strings.Repeat(`{"a":`, 9_000) + "1" + strings.Repeat("}", 9_000) + `}}`, `{"id":"d3","parameters":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`,
}

// leases is a list of jobs that the node NODE is to hold. They end at once: none is valid.
func leases(n int) string {
	var b strings.Builder
	b.WriteString(`{"jobs":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"lease-%d","node_id":"NODE","status":"assigned","parameters":{"fps":-1,"a":{"b":[1]}}}`, i)
	}
	fmt.Fprintf(&b, `],"count":%d}`, n)
	return b.String()
}

// decodedMemory is what a list takes whose jobs are all kept, in MiB.
func decodedMemory(t *testing.T, list string) int {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var all struct{ Jobs []protocol.Job }
	must(t, json.Unmarshal([]byte(list), &all))
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(all)
	return int(after.HeapAlloc-before.HeapAlloc) >> 20
}

// endlessBodies are answers without an end.
var endlessBodies = map[string]func(http.ResponseWriter, *atomic.Int64, *http.Request){
	"a string without an end": func(w http.ResponseWriter, sent *atomic.Int64, _ *http.Request) {
		endless(w, sent, `{"job":{"id":"`, "x")
	},
	"a list without an end": func(w http.ResponseWriter, sent *atomic.Int64, _ *http.Request) {
		endless(w, sent, `{"jobs":[{"id":"a"}`, `,{"id":"a"}`)
	},
	"nested lists without an end": func(w http.ResponseWriter, sent *atomic.Int64, _ *http.Request) {
		endless(w, sent, `{"jobs":`, "[")
	},
	"blanks without an end": func(w http.ResponseWriter, sent *atomic.Int64, _ *http.Request) { endless(w, sent, "", " ") },
	"an error without an end": func(w http.ResponseWriter, sent *atomic.Int64, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		endless(w, sent, "", "no ")
	},
	"a header of 64 MB": func(w http.ResponseWriter, sent *atomic.Int64, _ *http.Request) {
		w.Header().Set("X-Filler", strings.Repeat("x", 64<<20))
		sent.Add(64 << 20)
	},
	"a compressed answer without an end": func(w http.ResponseWriter, sent *atomic.Int64, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		endless(z, sent, `{"job":{"id":"`, "x")
	},
}

// endless writes until the other end closes the connection.
func endless(w io.Writer, sent *atomic.Int64, begin, repeat string) {
	if _, err := io.WriteString(w, begin); err != nil {
		return
	}
	chunk := strings.Repeat(repeat, (64<<10)/len(repeat))
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); {
		n, err := io.WriteString(w, chunk)
		sent.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// hostileJobs answers polls with jobs, one after the other, that the master itself does not know.
// taken reports whether all were handed out and their results, where there are any, sent.
func hostileJobs(jobs ...protocol.Job) (hook func(http.ResponseWriter, *http.Request) bool, taken func() bool) {
	var next atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodGet && r.URL.Path == "/jobs/next":
			i := int(next.Add(1)) - 1
			if i >= len(jobs) {
				return false
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"job": jobs[i]})
		case r.URL.Path == "/results":
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			var result protocol.JobResult
			if json.Unmarshal(body, &result) != nil {
				return false
			}
			for _, j := range jobs {
				if j.ID == result.JobID {
					_, _ = io.WriteString(w, `{"status":"success"}`)
					return true
				}
			}
			return false
		default:
			return false
		}
		return true
	}, func() bool { return int(next.Load()) > len(jobs) }
}

// commanding are characters that terminals obey, or that hide or reorder text.
var commanding = regexp.MustCompile(`[\x00-\x08\x0b-\x1f\x7f\x{80}-\x{9f}\x{200e}\x{200f}\x{2028}\x{2029}\x{202a}-\x{202e}\x{2066}-\x{2069}\x{feff}]`)

// commandingText has such characters wherever a master can put text, and looks for them in the
// log, in results, and in what the commands for operators print.
func commandingText(t *testing.T, format string) (got string) {
	t.Helper()
	const evil = "evil\u009b31m\x1b]0;x\x07\u202edlrow\u2066\u2028{\"level\":\"info\"}\u2029\u0085\r\nx"
	b := prepareBed(t)
	hostile, taken := hostileJobs(
		protocol.Job{ID: "id-" + evil, Scenario: evil, Parameters: map[string]any{"resolution": evil, "codec": evil, "preset": evil, evil: evil}},
		protocol.Job{ID: "input-" + evil, Scenario: evil, Parameters: map[string]any{"input": "/no/" + evil}},
		protocol.Job{ID: "server-" + evil, Engine: evil, Parameters: map[string]any{"input": "http://127.0.0.1:1/" + evil + ".mp4"}},
		protocol.Job{ID: "stream-" + evil, Parameters: map[string]any{"output_mode": "rtmp", "rtmp_url": "rtmp://" + evil + "/live/x"}},
		protocol.Job{ID: "output-" + evil, Classification: evil, Parameters: map[string]any{"output": filepath.Join(b.files, evil) + ".mp4", "resolution": "64x64", "duration": 0.2, "unknown" + evil: evil}},
		protocol.Job{ID: "format-" + evil, Parameters: map[string]any{"input": b.file("x.mp4", "x"), "input_format": evil, "bitrate": evil}},
	)
	var mu sync.Mutex
	var results []string
	var failing atomic.Int32
	b.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/results" {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			mu.Lock()
			results = append(results, string(body))
			mu.Unlock()
		}
		if taken() && strings.HasSuffix(r.URL.Path, "/heartbeat") && failing.Add(1) < 3 {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "beat "+evil)
			return true
		}
		return hostile(w, r)
	})
	address := b.startWithMetrics("FFMPEG_AGENT_LOG_FORMAT="+format, "FFMPEG_AGENT_LOG_LEVEL=debug")
	waitFor(t, "end of the hostile jobs", func() bool { mu.Lock(); defer mu.Unlock(); return len(results) >= 6 && failing.Load() >= 3 })
	b.wantAlive()
	var printed strings.Builder
	for _, command := range [][]string{{"status"}, {"status", "--json"}, {"jobs"}, {"jobs", "--json"}, {"report", "output-" + evil}, {"report", "--html", "id-" + evil}} {
		c := exec.Command(filepath.Join(b.home, "agent"), command...)
		c.Env = b.agent.Env
		out, err := c.CombinedOutput()
		if err != nil && command[0] != "report" {
			t.Errorf("agent %v: %v: %s", command[0], err, out)
		}
		printed.Write(out)
	}
	for _, path := range []string{"/status", "/ready", "/metrics", "/"} {
		answer, err := http.Get("http://" + address + path)
		must(t, err)
		_, err = io.Copy(&printed, answer.Body)
		must(t, err)
		_ = answer.Body.Close()
	}
	log := b.log.String()
	for what, text := range map[string]string{"the log": log, "the commands' output": printed.String()} {
		if found := commanding.FindString(text); found != "" {
			at := strings.Index(text, found)
			got += fmt.Sprintf("%U in %s (%s): %q; ", []rune(found)[0], what, format, text[max(0, at-80):min(len(text), at+40)])
		}
		if strings.Count(text, "evil") < 4 {
			t.Errorf("%s: nearly nothing of the text is in %s, so the attack proves nothing: %.2000s", format, what, text)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(log), "\n") {
		if format == "json" && !json.Valid([]byte(line)) || format == "console" && strings.HasPrefix(strings.TrimSpace(line), "x") {
			got += fmt.Sprintf("a line of the log: %.100q; ", line)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, raw := range results {
		var result map[string]any
		must(t, json.Unmarshal([]byte(raw), &result))
		delete(result, "job_id") // the master's own words, which it gets back
		if metrics, ok := result["metrics"].(map[string]any); ok {
			delete(metrics, "scenario")
			delete(metrics, "engine")
		}
		for _, text := range texts(result) {
			if found := commanding.FindString(text); found != "" {
				got += fmt.Sprintf("%U in a result: %.300q; ", []rune(found)[0], text)
			}
		}
	}
	return got
}

// texts are all texts in a JSON value.
func texts(value any) (all []string) {
	switch value := value.(type) {
	case string:
		return []string{value}
	case []any:
		for _, v := range value {
			all = append(all, texts(v)...)
		}
	case map[string]any:
		for name, v := range value {
			all = append(append(all, name), texts(v)...)
		}
	}
	return all
}
