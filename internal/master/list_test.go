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

// ids reads a list and returns its jobs' ids.
func ids(from io.Reader, l limits) (string, error) {
	var got []string
	err := newStream(from, l).jobs(func(job protocol.Job) bool {
		got = append(got, job.ID)
		return job.ID != "stop"
	})
	return strings.Join(got, " "), err
}

func TestListsAreReadAsAStream(t *testing.T) {
	small := limits{element: 100, list: 400}
	pad := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		text  string
		ids   string
		fails string // "" for no error
	}{
		"as masters send it":    {`{"jobs":[{"id":"a"},{"id":"b"}],"count":2}`, "a b", ""},
		"null":                  {`{"jobs":null,"count":0}`, "", ""},
		"empty":                 {` { "jobs" : [ ] , "more" : {"x":[1,2]} } `, "", ""},
		"count first":           {`{"count":2,"next":null,"jobs":[{"id":"a"}]}`, "a", ""},
		"what is no job":        {`{"jobs":[null,17,"x",[],{"id":""},{"id":"a"}]}`, "a", ""},
		"stopped by its reader": {`{"jobs":[{"id":"a"},{"id":"stop"},{"id":"b`, "a stop", ""},
		"many small ones":       {`{"jobs":[{"id":"a` + pad(80) + `"},{"id":"b` + pad(80) + `"},{"id":"c"}]}`, "a" + pad(80) + " b" + pad(80) + " c", ""},
		"one too large":         {`{"jobs":[{"id":"a"},{"id":"` + pad(120) + `"}]}`, "a", "a part of it is larger"},
		"space without end":     {`{"jobs":[{"id":"a"},` + strings.Repeat(" ", 200) + `{"id":"b"}]}`, "a", "a part of it is larger"},
		"too many":              {`{"jobs":[` + strings.Repeat(`{"id":"a"},`, 100), strings.TrimSpace(strings.Repeat("a ", 35)), "it is larger than"},
		"cut in a job":          {`{"jobs":[{"id":"a"},{"id"`, "a", "unexpected EOF"},
		"cut between jobs":      {`{"jobs":[{"id":"a"},`, "a", "EOF"},
		"cut after a job":       {`{"jobs":[{"id":"a"}`, "a", "EOF"},
		"cut after the jobs":    {`{"jobs":[{"id":"a"}]`, "a", "EOF"},
		"garbage after a job":   {`{"jobs":[{"id":"a"} {"id":"b"}]}`, "a", "expected comma"},
		"not an object":         {`[{"id":"a"}]`, "", "it is no JSON object"},
		"not a list":            {`{"jobs":{"id":"a"}}`, "", `"jobs" is no list`},
		"another document":      {`{"error":"x"}`, "", `it has no "jobs"`},
		"nothing":               {``, "", "EOF"},
		"garbage":               {"\x1f\x8b\x00", "", "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, from := range []io.Reader{strings.NewReader(c.text), iotest.OneByteReader(strings.NewReader(c.text))} {
				got, err := ids(from, small)
				if name == "too many" { // how many are seen before the bound depends on the reading
					got = c.ids
				}
				if got != c.ids {
					t.Errorf("jobs %q, want %q", got, c.ids)
				}
				if (err != nil) != (c.fails != "") || (err != nil && !strings.Contains(err.Error(), c.fails)) {
					t.Errorf("error %v, want %q", err, c.fails)
				}
			}
		})
	}
}

func TestABrokenConnectionIsToldFromABrokenList(t *testing.T) {
	broken := errors.New("reset")
	s := newStream(io.MultiReader(strings.NewReader(`{"jobs":[{"id":"a"},`), iotest.ErrReader(broken)), limits{element: 100, list: 400})
	if err := s.jobs(func(protocol.Job) bool { return true }); err == nil || s.broken != broken {
		t.Errorf("error %v, broken %v", err, s.broken)
	}
}

// FuzzList: no list panics, none is read past its bounds, and what encoding/json
// reads whole is read alike.
func FuzzList(f *testing.F) {
	for _, s := range []string{
		`{"jobs":[{"id":"a"},{"id":"b"}],"count":2}`, `{"jobs":null}`, `{"jobs":[null,1],"x":{}}`, `{"jobs":[{"id":"a"},`, `{}`, `[]`, `null`, `{"jobs":{}}`,
		`{"jobs":[],"jobs":[{"id":"c"}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := limits{element: 256, list: 1024}
		from := &counter{r: bytes.NewReader(data)}
		got, err := ids(from, l)
		if from.n > l.list {
			t.Fatalf("%d bytes read of at most %d", from.n, l.list)
		}
		if err == nil || len(data) > int(l.element) {
			return
		}
		var whole map[string]json.RawMessage
		if json.Unmarshal(data, &whole) != nil || len(whole) != 1 || bytes.Count(data, []byte("jobs")) != 1 || bytes.ContainsRune(data, '\\') {
			return
		}
		if list, ok := whole["jobs"]; ok && (string(list) == "null" || list[0] == '[') {
			t.Fatalf("a list was refused: %q and %v", got, err)
		}
	})
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// flood writes text again and again, up to 100 MB.
func flood(w io.Writer, start, text string) {
	block := []byte(strings.Repeat(text, 1+(64<<10)/len(text)))
	io.WriteString(w, start)
	for sent := 0; sent < 100<<20; sent += len(block) {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// Whatever a master sends, it costs no memory to speak of and ends in an error.
func TestAHugeAnswerIsAnErrorAndNotMemory(t *testing.T) {
	const most = 24 << 20 // bytes allocated in all, by client and test server
	lists := map[string]bool{"held": true, "extend": true}
	for name, text := range map[string][2]string{
		"one string":    {`{"id":"n/1 ü","job":{"id":"`, "x"},
		"one list":      {`{"jobs":[{"id":"a","parameters":[`, "1,"},
		"spaces":        {`{"jobs":[`, " "},
		"nesting":       {``, "["},
		"objects":       {``, `{"a":`},
		"binary":        {"\x00", "\xff"},
		"unknown field": {`{"log":"`, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			for call, do := range everyCall {
				if call == "report" || call == "release" || call == "heartbeat" {
					continue // their answers' status says all: see below
				}
				server, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
					if lists[call] && r.URL.Path != "/jobs" { // so that the list is asked for
						pages{"/nodes/n%2F1%20%C3%BC": `{"id":"n/1 ü"}`}.serve(w, r)
						return
					}
					flood(w, text[0], text[1])
				})
				c := clientFor(t, server.URL)
				var err error
				if took := allocated(func() { err = do(context.Background(), c) }); took > most {
					t.Errorf("%s: %d MB were allocated", call, took>>20)
				}
				if e := wantFailure(t, err, protocol.Malformed); !e.Ambiguous {
					t.Errorf("%s: %+v", call, e)
				}
			}
		})
	}
}

func TestAHugeAnswerWhoseStatusSaysAllIsNotRead(t *testing.T) {
	for _, status := range []int{200, 500} {
		server, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			flood(w, "", "x")
		})
		c := clientFor(t, server.URL)
		for _, call := range []string{"heartbeat", "report", "release"} {
			var err error
			if took := allocated(func() { err = everyCall[call](context.Background(), c) }); took > 8<<20 {
				t.Errorf("%s: %d MB were allocated", call, took>>20)
			}
			if (err == nil) != (status == 200) {
				t.Errorf("%s, %d: %v", call, status, err)
			}
		}
	}
}

func TestAnAnswerThatAnnouncesItsHugeSizeIsNotRead(t *testing.T) {
	url := raw(t, afterRequest(says("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")))
	_, err := clientFor(t, url).Next(context.Background(), session)
	wantFailure(t, err, protocol.Malformed, "larger than 1024 KiB")
}

// A list has a bound as a whole, however small its jobs are.
func TestAnEndlessListIsAnError(t *testing.T) {
	server, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		flood(w, `{"jobs":[`, `{"id":"a","node_id":"n2","status":"running"},`)
	})
	c := clientFor(t, server.URL)
	if c.limits.list != 64<<20 || c.limits.element != 1<<20 || c.limits.answer != 1<<20 {
		t.Errorf("limits %+v", c.limits)
	}
	c.limits.list = 256 << 10 // parsing 64 MiB takes its time
	err := c.jobs(context.Background(), 20*time.Second, func(protocol.Job) bool { return true })
	wantFailure(t, err, protocol.Malformed, "GET /jobs: 200 OK, but it is no answer: it is larger than 256 KiB")
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A compressed answer is bounded by what it unpacks to.
func TestACompressedAnswerIsBounded(t *testing.T) {
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
	if took := allocated(func() { _, err = c.Next(context.Background(), session) }); took > 8<<20 {
		t.Errorf("%d MB were allocated", took>>20)
	}
	wantFailure(t, err, protocol.Malformed, "larger than 1024 KiB")
	wantFailure(t, c.jobs(context.Background(), 20*time.Second, nil), protocol.Malformed, "larger than 1024 KiB")
}

func TestManyJobsFitAList(t *testing.T) {
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
	if err != nil || len(held) != 1 || held[0].Job.ID != "ours" {
		t.Errorf("held %v, error %v", held, err)
	}
}
