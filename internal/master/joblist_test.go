package master

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// jobIDs decodes a list up to a job "stop" and returns the IDs of its jobs.
func jobIDs(source io.Reader, l limits) (string, error) {
	var got []string
	err := newStream(source, l).list("jobs", jobElements(func(job protocol.Job) bool {
		got = append(got, job.ID)
		return job.ID != "stop"
	}))
	return strings.Join(got, " "), err
}

func TestDecodeJobList(t *testing.T) {
	small := limits{element: 100, list: 400}
	pad := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		text string
		ids  string
		err  string // "" for none
	}{
		"jobs and count":                {`{"jobs":[{"id":"a"},{"id":"b"}],"count":2}`, "a b", ""},
		"null":                          {`{"jobs":null,"count":0}`, "", ""},
		"empty":                         {` { "jobs" : [ ] , "more" : {"x":[1,2]} } `, "", ""},
		"count first":                   {`{"count":2,"next":null,"jobs":[{"id":"a"}]}`, "a", ""},
		"elements that are not jobs":    {`{"jobs":[null,17,"x",[],{"id":""},{"id":"a"}]}`, "a", ""},
		"stopped by visit":              {`{"jobs":[{"id":"a"},{"id":"stop"},{"id":"b`, "a stop", ""},
		"more than one element's limit": {`{"jobs":[{"id":"a` + pad(80) + `"},{"id":"b` + pad(80) + `"},{"id":"c"}]}`, "a" + pad(80) + " b" + pad(80) + " c", ""},
		"one too large":                 {`{"jobs":[{"id":"a"},{"id":"` + pad(120) + `"}]}`, "a", "element larger than"},
		"large whitespace":              {`{"jobs":[{"id":"a"},` + strings.Repeat(" ", 200) + `{"id":"b"}]}`, "a", "element larger than"},
		"too many":                      {`{"jobs":[` + strings.Repeat(`{"id":"a"},`, 100), strings.TrimSpace(strings.Repeat("a ", 35)), "list larger than"},
		"cut in a job":                  {`{"jobs":[{"id":"a"},{"id"`, "a", "unexpected EOF"},
		"cut between jobs":              {`{"jobs":[{"id":"a"},`, "a", "EOF"},
		"cut after a job":               {`{"jobs":[{"id":"a"}`, "a", "EOF"},
		"cut after the jobs":            {`{"jobs":[{"id":"a"}]`, "a", "EOF"},
		"garbage after a job":           {`{"jobs":[{"id":"a"} {"id":"b"}]}`, "a", "expected comma"},
		"not an object":                 {`[{"id":"a"}]`, "", "not a JSON object"},
		"not a list":                    {`{"jobs":{"id":"a"}}`, "", `"jobs" is not a list`},
		"no jobs":                       {`{"error":"x"}`, "", `no "jobs" field`},
		"no input":                      {``, "", "EOF"},
		"not JSON":                      {"\x1f\x8b\x00", "", "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, source := range []io.Reader{strings.NewReader(c.text), iotest.OneByteReader(strings.NewReader(c.text))} {
				got, err := jobIDs(source, small)
				if name == "too many" { // the number of jobs before the limit depends on the read size
					got = c.ids
				}
				if got != c.ids {
					t.Errorf("got jobs %q, want %q", got, c.ids)
				}
				if (err != nil) != (c.err != "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
					t.Errorf("got error %v, want %q", err, c.err)
				}
			}
		})
	}
}

func TestReadErrorOfJobList(t *testing.T) {
	readErr := errors.New("reset")
	s := newStream(io.MultiReader(strings.NewReader(`{"jobs":[{"id":"a"},`), iotest.ErrReader(readErr)), limits{element: 100, list: 400})
	if err := s.list("jobs", jobElements(func(protocol.Job) bool { return true })); err == nil || s.readErr != readErr {
		t.Errorf("got error %v, read error %v; want an error, %v", err, s.readErr, readErr)
	}
}

// FuzzList checks that decoding a list does not panic, does not read more than the limit,
// and accepts what encoding/json accepts.
func FuzzList(f *testing.F) {
	for _, s := range []string{
		`{"jobs":[{"id":"a"},{"id":"b"}],"count":2}`, `{"jobs":null}`, `{"jobs":[null,1],"x":{}}`, `{"jobs":[{"id":"a"},`, `{}`, `[]`, `null`, `{"jobs":{}}`,
		`{"jobs":[],"jobs":[{"id":"c"}]}`, `A`, `n`, `-1`, `f"`, "\x16", "{\x00", "\"\x00", "{\"\"\x1f", `{"배"0`, `{"0000000"0`,
		"{\"0\xff00\"", strings.Repeat("0", 240),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := limits{element: 256, list: 1024}
		source := &countingReader{r: bytes.NewReader(data)}
		got, err := jobIDs(source, l)
		if source.n > l.list {
			t.Fatalf("read %d bytes, want at most %d", source.n, l.list)
		}
		if err == nil || len(data) > int(l.element) {
			return
		}
		var whole map[string]json.RawMessage
		if json.Unmarshal(data, &whole) != nil || len(whole) != 1 || bytes.Count(data, []byte("jobs")) != 1 || bytes.ContainsRune(data, '\\') {
			return
		}
		if list, ok := whole["jobs"]; ok && (string(list) == "null" || list[0] == '[') {
			t.Fatalf("got jobs %q and error %v for a valid list", got, err)
		}
	})
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// flood writes text repeatedly, up to 100 MiB.
func flood(w io.Writer, start, text string) {
	block := []byte(strings.Repeat(text, 1+(64<<10)/len(text)))
	io.WriteString(w, start)
	for sent := 0; sent < 100<<20; sent += len(block) {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

func TestHugeResponses(t *testing.T) {
	const maxAllocated = 24 << 20 // bytes, by client and test server
	lists := map[string]bool{"held": true, "extend": true}
	for name, text := range map[string][2]string{
		"string":        {`{"id":"n/1 ü","job":{"id":"`, "x"},
		"list":          {`{"jobs":[{"id":"a","parameters":[`, "1,"},
		"spaces":        {`{"jobs":[`, " "},
		"nesting":       {``, "["},
		"objects":       {``, `{"a":`},
		"binary":        {"\x00", "\xff"},
		"unknown field": {`{"log":"`, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			for call, do := range allCalls {
				if call == "report" || call == "release" || call == "heartbeat" || call == "remove" {
					continue // do not decode the body
				}
				server, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
					if lists[call] && r.URL.Path != "/jobs" { // makes the client get the list
						pages{"/nodes/n%2F1%20%C3%BC": `{"id":"n/1 ü"}`}.serve(w, r)
						return
					}
					flood(w, text[0], text[1])
				})
				c := clientFor(t, server.URL)
				var err error
				if n := allocated(func() { err = do(context.Background(), c) }); n > maxAllocated {
					t.Errorf("%s: allocated %d MiB, want at most %d", call, n>>20, maxAllocated>>20)
				}
				if e := wantError(t, err, protocol.Malformed); !e.Ambiguous {
					t.Errorf("%s: got %+v, want it ambiguous", call, e)
				}
			}
		})
	}
}

func TestHugeIgnoredBodies(t *testing.T) {
	for _, status := range []int{200, 500} {
		server, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			flood(w, "", "x")
		})
		c := clientFor(t, server.URL)
		for _, call := range []string{"heartbeat", "report", "release"} {
			var err error
			if n := allocated(func() { err = allCalls[call](context.Background(), c) }); n > 8<<20 {
				t.Errorf("%s: allocated %d MiB, want at most 8", call, n>>20)
			}
			if (err == nil) != (status == 200) {
				t.Errorf("%s with status %d: got error %v", call, status, err)
			}
		}
	}
}

func TestHugeContentLength(t *testing.T) {
	url := serveTCP(t, afterRequest(send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")))
	_, err := clientFor(t, url).Next(context.Background(), session)
	wantError(t, err, protocol.Malformed, "larger than 1024 KiB")
}

func TestHugeListOfSmallJobs(t *testing.T) {
	server, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		flood(w, `{"jobs":[`, `{"id":"a","node_id":"n2","status":"running"},`)
	})
	c := clientFor(t, server.URL)
	if want := (limits{response: 1 << 20, element: 1 << 20, list: 64 << 20}); c.limits != want {
		t.Errorf("got limits %+v, want %+v", c.limits, want)
	}
	c.limits.list = 256 << 10 // decoding 64 MiB is slow
	err := c.jobs(context.Background(), 20*time.Second, func(protocol.Job) bool { return true })
	wantError(t, err, protocol.Malformed, "GET /jobs: 200 OK: malformed response: list larger than 256 KiB")
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// The limit applies to the decompressed size.
func TestHugeCompressedResponse(t *testing.T) {
	var packed bytes.Buffer
	zip, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	zip.Write(bytes.Repeat([]byte(" "), 16<<20))
	zip.Close()
	server, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(packed.Bytes())
	})
	c := clientFor(t, server.URL)
	if n := allocated(func() { _, err = c.Next(context.Background(), session) }); n > 8<<20 {
		t.Errorf("allocated %d MiB, want at most 8", n>>20)
	}
	wantError(t, err, protocol.Malformed, "larger than 1024 KiB")
	wantError(t, c.jobs(context.Background(), 20*time.Second, nil), protocol.Malformed, "larger than 1024 KiB")
}

func TestHeldWithLargeList(t *testing.T) {
	const n = 5000
	server, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jobs" {
			io.WriteString(w, `{"id":"n/1 ü"}`)
			return
		}
		io.WriteString(w, `{"jobs":[`)
		for i := range n {
			fmt.Fprintf(w, `{"id":"job-%d","node_id":"n%d","status":"running","parameters":{"bitrate":"2000k"}},`, i, i)
		}
		io.WriteString(w, `{"id":"ours","node_id":"n/1 ü","status":"running"}],"count":`+fmt.Sprint(n+1)+`}`)
	})
	held, err := clientFor(t, server.URL).Held(context.Background(), session)
	if err != nil || len(held.Leases) != 1 || held.Leases[0].Job.ID != "ours" {
		t.Errorf("got %v, %v; want the job of this node", held, err)
	}
}
