package exporters_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/messages"
)

func TestReadyTellsEachCheckAndItsReason(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*messages.Status)
		code   int
		failed string // check
	}{
		"all pass":          {func(*messages.Status) {}, http.StatusOK, ""},
		"disk low":          {func(s *messages.Status) { s.Checks[0].Reason = "only 3 GiB free" }, http.StatusServiceUnavailable, "disk"},
		"draining":          {func(s *messages.Status) { s.Draining = true }, http.StatusServiceUnavailable, "accepting"},
		"no session":        {func(s *messages.Status) { s.Session = nil }, http.StatusServiceUnavailable, "registered"},
		"no checks at all":  {func(s *messages.Status) { s.Checks = nil }, http.StatusOK, ""},
		"check of the name": {func(s *messages.Status) { s.Checks[0] = messages.Check{Name: "accepting", Reason: "own"} }, http.StatusServiceUnavailable, "accepting"},
	} {
		t.Run(name, func(t *testing.T) {
			s := status()
			test.change(&s)
			server := serve(t, exporters.Config{Name: "agent", Routes: map[string]http.Handler{
				"/ready": exporters.ReadyHandler(func() messages.Status { return s }),
			}})
			code, body := server.get("/ready")
			var answer struct {
				Ready  bool
				Checks []struct {
					Name, Reason string
					OK           bool
				}
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatal(err)
			}
			if code != test.code || answer.Ready != (test.failed == "") {
				t.Errorf("answered %d %s, want %d", code, body, test.code)
			}
			names := map[string]bool{}
			for _, c := range answer.Checks {
				if names[c.Name] {
					t.Errorf("%s stands twice", c.Name)
				}
				names[c.Name] = true
				if c.OK == (c.Name == test.failed) || c.OK != (c.Reason == "") {
					t.Errorf("check %+v, want only %q to fail", c, test.failed)
				}
			}
			if !names["registered"] || !names["accepting"] {
				t.Errorf("checks %v", names)
			}
		})
	}
}

func TestHealthIsWhatLiveSays(t *testing.T) {
	var live error
	server := serve(t, exporters.Config{Name: "agent", Routes: map[string]http.Handler{
		"/health": exporters.HealthHandler(func() error { return live }),
	}})
	if code, body := server.get("/health"); code != http.StatusOK || !strings.Contains(body, `"ok"`) {
		t.Errorf("alive: %d %s", code, body)
	}
	live = errors.New("no heartbeat was attempted for 3m0s")
	if code, body := server.get("/health"); code != http.StatusServiceUnavailable || !strings.Contains(body, "for 3m0s") {
		t.Errorf("hung: %d %s", code, body)
	}
}

func TestStatusIsWholeAndWithoutSecrets(t *testing.T) {
	want := status(encoding("job-a", 500))
	server := serve(t, exporters.Config{Name: "agent", Routes: map[string]http.Handler{
		"/status": exporters.StatusHandler(func() messages.Status { return want }),
	}})
	code, body := server.get("/status")
	if strings.Contains(body, "hunter2") {
		t.Errorf("the password is told: %s", body)
	}
	var got messages.Status
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK {
		t.Fatalf("%d: %v", code, err)
	}
	if got.Session.Master != "http://***@master:8080" || !strings.Contains(got.Heartbeat.Error, "***@master") {
		t.Errorf("master %q, error %q", got.Session.Master, got.Heartbeat.Error)
	}
	if got.Jobs[0].Key != want.Jobs[0].Key || *got.Jobs[0].Energy != *want.Jobs[0].Energy || got.Counts != want.Counts {
		t.Errorf("got %+v", got)
	}
}
