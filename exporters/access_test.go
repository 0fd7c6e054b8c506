package exporters

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// tellingStatus has a secret in each field that only clients with full access may see.
func tellingStatus(secret string) messages.Status {
	at := time.Now()
	return messages.Status{
		PID: 4711, Cgroups: secret, Address: "worker", Session: &messages.Session{NodeID: secret, Address: secret, Master: secret, Since: at},
		Heartbeat: &messages.HeartbeatStatus{LastSuccess: &at, Error: secret},
		Checks:    []messages.Check{{Name: "disk", Reason: secret}},
		Jobs:      []messages.JobStatus{{Key: job.Key{JobID: secret, Attempt: 1}, Scenario: "720p30", PID: 4711}},
		Actors:    []messages.ActorStatus{{Path: "agent/jobs/job-secret-4242", State: "running", LastFailure: secret}},
		Samplers:  []messages.SamplerHealth{{Name: "rapl", Error: secret}}, Listeners: []messages.ListenerHealth{{Name: "x", Error: secret}},
		Journal: job.JournalStats{Error: secret}, Configuration: &messages.ConfigurationStatus{File: secret},
		Engine:  &messages.EngineStatus{Error: secret, Absent: secret},
		Sandbox: messages.Sandbox{Layers: []messages.SandboxLayer{{Name: "landlock", Missing: secret}}},
	}
}

func TestStrangersSeeNoSecrets(t *testing.T) {
	const secret = "/srv/secret-4242"
	web := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(web, []byte("basic_auth_users:\n  ops: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	login, err := LoadWebConfig(web)
	if err != nil {
		t.Fatal(err)
	}
	status := tellingStatus(secret)
	routes := PageRoutes()
	routes["/status"] = StatusHandler(func() messages.Status { return status })
	routes["/jobs"] = JobsHandler(func() ([]job.Summary, error) { return []job.Summary{{JobID: secret}}, nil })
	for name, test := range map[string]struct {
		peer, host string
		web, next  WebConfig // what the port is served with, and will be after a reload
		full       bool
	}{
		"this machine":               {"127.0.0.1:5", "127.0.0.1:9091", WebConfig{}, WebConfig{}, true},
		"this machine by name":       {"127.0.0.1:5", "localhost:9091", WebConfig{}, WebConfig{}, true},
		"this machine, IPv6":         {"[::1]:5", "[::1]:9091", WebConfig{}, WebConfig{}, true},
		"another machine":            {"10.0.0.7:5", "10.0.0.2:9091", WebConfig{}, WebConfig{}, false},
		"claims to be local":         {"10.0.0.7:5", "127.0.0.1:9091", WebConfig{}, WebConfig{}, false},
		"rebound host name":          {"127.0.0.1:5", "evil.example:9091", WebConfig{}, WebConfig{}, false},
		"before the login is served": {"10.0.0.7:5", "10.0.0.2:9091", WebConfig{}, login, false},
		"behind a login":             {"10.0.0.7:5", "10.0.0.2:9091", login, login, true},
	} {
		s, err := NewServer(Config{Name: "agent", Routes: routes, WebConfig: test.web})
		if err != nil {
			t.Fatal(err)
		}
		s.SetWebConfig(test.next)
		get := func(path string) (int, string) {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.RemoteAddr, r.Host = test.peer, test.host
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, r)
			return w.Code, w.Body.String()
		}
		_, body := get("/status")
		if got := strings.Contains(body, "secret-4242"); got != test.full {
			t.Errorf("%s: the status tells secrets: %t, want %t:\n%s", name, got, test.full, body)
		}
		if !test.full && strings.Contains(body, "4711") {
			t.Errorf("%s: got a pid in %s", name, body)
		}
		if !strings.Contains(body, "720p30") {
			t.Errorf("%s: got %s, want what the job is", name, body)
		}
		code, body := get("/jobs")
		if want := map[bool]int{true: http.StatusOK, false: http.StatusForbidden}[test.full]; code != want || strings.Contains(body, "secret-4242") != test.full {
			t.Errorf("%s: /jobs: got %d %s, want %d", name, code, body, want)
		}
		if code, body := get("/"); code != http.StatusOK || !strings.Contains(body, "/page.js") {
			t.Errorf("%s: the page: got %d %s", name, code, body)
		}
	}
	if before, _ := json.Marshal(status); !strings.Contains(string(before), secret) || status.Jobs[0].Key.JobID != secret {
		t.Error("hiding changed the status itself")
	}
}
