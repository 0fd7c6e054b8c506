package exporters_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/messages"
)

func TestReadyListsAllChecks(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*messages.Status)
		code   int
		failed string // check
	}{
		"all pass":           {func(*messages.Status) {}, http.StatusOK, ""},
		"disk low":           {func(s *messages.Status) { s.Checks[0].Reason = "only 3 GiB free" }, http.StatusServiceUnavailable, "disk"},
		"draining":           {func(s *messages.Status) { s.Draining = true }, http.StatusServiceUnavailable, "accepting"},
		"no session":         {func(s *messages.Status) { s.Session = nil }, http.StatusServiceUnavailable, "registered"},
		"no checks":          {func(s *messages.Status) { s.Checks = nil }, http.StatusOK, ""},
		"check of same name": {func(s *messages.Status) { s.Checks[0] = messages.Check{Name: "accepting", Reason: "own"} }, http.StatusServiceUnavailable, "accepting"},
	} {
		t.Run(name, func(t *testing.T) {
			s := status()
			test.change(&s)
			server := serve(t, exporters.Config{Name: "agent", Routes: map[string]http.Handler{
				"/ready": exporters.ReadyHandler(func() messages.Status { return s }),
			}})
			code, body := server.get("/ready")
			var response struct {
				Ready  bool
				Checks []struct {
					Name, Reason string
					OK           bool
				}
			}
			if err := json.Unmarshal([]byte(body), &response); err != nil {
				t.Fatal(err)
			}
			if code != test.code || response.Ready != (test.failed == "") {
				t.Errorf("got %d %s, want %d", code, body, test.code)
			}
			names := map[string]bool{}
			for _, c := range response.Checks {
				if names[c.Name] {
					t.Errorf("duplicate check %s", c.Name)
				}
				names[c.Name] = true
				if c.OK == (c.Name == test.failed) || c.OK != (c.Reason == "") {
					t.Errorf("got check %+v, want only %q to fail", c, test.failed)
				}
			}
			if !names["registered"] || !names["accepting"] {
				t.Errorf("got checks %v, want registered and accepting among them", names)
			}
		})
	}
}

func TestHealthReportsLiveness(t *testing.T) {
	var live error
	server := serve(t, exporters.Config{Name: "agent", Routes: map[string]http.Handler{
		"/health": exporters.HealthHandler(func() error { return live }),
	}})
	if code, body := server.get("/health"); code != http.StatusOK || !strings.Contains(body, `"ok": true`) || !strings.Contains(body, `"status": "healthy"`) {
		t.Errorf("alive: got %d %s, want 200, ok and healthy", code, body)
	}
	live = errors.New("no heartbeat attempt for 3m0s")
	if code, body := server.get("/health"); code != http.StatusServiceUnavailable || !strings.Contains(body, "for 3m0s") {
		t.Errorf("hung: got %d %s, want 503 with the reason", code, body)
	}
}

func TestStatusHidesPasswords(t *testing.T) {
	want := status(encoding("job-a", 500))
	server := serve(t, exporters.Config{Name: "agent", Routes: map[string]http.Handler{
		"/status": exporters.StatusHandler(func() messages.Status { return want }),
	}})
	code, body := server.get("/status")
	if strings.Contains(body, "hunter2") {
		t.Errorf("response contains the password: %s", body)
	}
	var got messages.Status
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK {
		t.Fatalf("got %d, decoding: %v", code, err)
	}
	if got.Session.Master != "http://***@master:8080" || !strings.Contains(got.Heartbeat.Error, "***@master") {
		t.Errorf("got master %q, error %q; want ***@master in both", got.Session.Master, got.Heartbeat.Error)
	}
	want.Counts.Walls = nil // for metrics only
	if got.Jobs[0].Key != want.Jobs[0].Key || *got.Jobs[0].Energy != *want.Jobs[0].Energy || !reflect.DeepEqual(got.Counts, want.Counts) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
