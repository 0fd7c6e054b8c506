package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// agentStatus is what is read of an agent's /status.
type agentStatus struct {
	PID       int
	Session   *struct{ NodeID string }
	Heartbeat *struct {
		LastAttempt *time.Time `json:"last_attempt"`
		Attempts    int
		Failed      int
		Error       string
	}
	Checks []struct{ Name, Reason string }
	Jobs   []struct {
		Key struct {
			Job     string `json:"job_id"`
			Attempt int
		}
		Phase string
	}
	Actors []struct {
		Path                          string
		State                         string
		Restarts, Abandoned, Failures int
	}
	Samplers []struct {
		Name, Error, Absent, Source string
		Zones                       int
	}
	Journal struct {
		Unfinished, Unsent int
		DeadLetters        int `json:"dead_letters"`
		Error              string
	}
}

// actorFailures is how often an actor failed in any way; known is false where there is none.
func (s *agentStatus) actorFailures(path string) (n int, known bool) {
	for _, a := range s.Actors {
		if a.Path == path {
			return a.Restarts + a.Abandoned + a.Failures, true
		}
	}
	return 0, false
}

// sampler says how a sampler fares.
func (s *agentStatus) sampler(name string) (trouble string, zones int) {
	for _, m := range s.Samplers {
		if m.Name == name {
			return m.Error + m.Absent, m.Zones
		}
	}
	return "unknown", 0
}

// idle reports whether nothing is under way and no agent is being restarted.
func (s *agentStatus) idle() bool {
	if s.Session == nil || len(s.Jobs) > 0 || s.Journal.Unsent > 0 || s.Journal.Unfinished > 0 {
		return false
	}
	for _, a := range s.Actors {
		if a.State != "running" {
			return false
		}
	}
	return true
}

// controlClient speaks to an agent's control socket.
type controlClient struct{ http *http.Client }

func newControlClient(path string) *controlClient {
	return &controlClient{&http.Client{
		Timeout: 2 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
		}},
	}}
}

func (s *controlClient) status(ctx context.Context) (*agentStatus, error) {
	var st agentStatus
	return &st, callJSON(ctx, s.http, http.MethodGet, "http://agent/status", nil, &st)
}

func (s *controlClient) crash(ctx context.Context, actor string) error {
	return callJSON(ctx, s.http, http.MethodPost, "http://agent/debug/crash", map[string]any{"actor": actor}, nil)
}

func (s *controlClient) hang(ctx context.Context, actor string, d time.Duration) error {
	return callJSON(ctx, s.http, http.MethodPost, "http://agent/debug/hang", map[string]any{"actor": actor, "for_ns": d}, nil)
}

// records are the journal's records of the attempts at a job, by attempt.
func (s *controlClient) records(ctx context.Context, job string) (map[int]journalRecord, error) {
	var response struct {
		Records []struct {
			Lease struct {
				Job struct {
					Retries int `json:"retry_count"`
				}
			}
			journalRecord
		}
	}
	err := callJSON(ctx, s.http, http.MethodGet, "http://agent/records?job="+url.QueryEscape(job), nil, &response)
	records := map[int]journalRecord{}
	for _, r := range response.Records {
		records[1+r.Lease.Job.Retries] = r.journalRecord
	}
	return records, err
}

// journalRecord is what the journal has of an attempt.
type journalRecord struct {
	State     string
	SettledAt time.Time `json:"settled_at"` // zero: it is not settled
}

// callJSON makes one call with JSON both ways.
func callJSON(ctx context.Context, client *http.Client, method, target string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, req.URL.Path, resp.Status, bytes.TrimSpace(raw))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// scrape sums the samples of each family of a metrics page.
func scrape(ctx context.Context, client *http.Client, address string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for line := range strings.Lines(string(raw)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if i := strings.LastIndexByte(line, '}'); i >= 0 {
			name, _, _ = strings.Cut(line, "{")
			value = strings.TrimSpace(line[i+1:])
			ok = true
		}
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(name, "#") {
			sums[name] += v
		}
	}
	return sums, nil
}
