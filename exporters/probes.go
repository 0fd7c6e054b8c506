package exporters

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"

	"ffmpeg-agent/messages"
)

// checkAnswer is a messages.Check as /ready tells it.
type checkAnswer struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

type readyAnswer struct {
	Ready  bool          `json:"ready"`
	Checks []checkAnswer `json:"checks"`
}

// ReadyHandler answers whether the agent would take a job now: 200 or 503, and each
// named check with the reason why it fails.
func ReadyHandler(status func() messages.Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s := status()
		answer := readyAnswer{Ready: true, Checks: []checkAnswer{}}
		for _, check := range preconditions(&s) {
			answer.Ready = answer.Ready && check.OK()
			answer.Checks = append(answer.Checks, checkAnswer{check.Name, check.OK(), check.Reason})
		}
		code := http.StatusOK
		if !answer.Ready {
			code = http.StatusServiceUnavailable
		}
		writeJSON(w, code, answer)
	})
}

// preconditions are the checks of the status, and the two that the status implies:
// without a session, and while draining, no work is taken either. A check that goes by
// such a name already is left as it is.
func preconditions(s *messages.Status) []messages.Check {
	implied := []messages.Check{{Name: "registered"}, {Name: "accepting"}}
	if s.Session == nil {
		implied[0].Reason = "not registered with the master yet"
	}
	if s.Draining {
		implied[1].Reason = "draining: no new job is taken"
	}
	all := slices.Clone(s.Checks)
	for _, check := range implied {
		if !slices.ContainsFunc(all, func(c messages.Check) bool { return c.Name == check.Name }) {
			all = append(all, check)
		}
	}
	return all
}

type healthAnswer struct {
	Status string `json:"status"` // ok or failing
	Reason string `json:"reason,omitempty"`
}

// HealthHandler answers whether the process is alive: 200, or 503 with what live finds
// wrong. A nil live finds nothing.
func HealthHandler(live func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if live != nil {
			if err := live(); err != nil {
				writeJSON(w, http.StatusServiceUnavailable, healthAnswer{"failing", err.Error()})
				return
			}
		}
		writeJSON(w, http.StatusOK, healthAnswer{Status: "ok"})
	})
}

// StatusHandler tells all of the status as JSON.
func StatusHandler(status func() messages.Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, status())
	})
}

// userinfo is a name or a password in a URL, wherever one stands in a text.
var userinfo = regexp.MustCompile(`://[^/?#\s"]*@`)

// writeJSON answers with a value, less the passwords that the URLs in it may carry.
func writeJSON(w http.ResponseWriter, code int, value any) {
	body, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		http.Error(w, fmt.Sprintf("encoding the answer: %v", err), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	w.Write(append(userinfo.ReplaceAll(body, []byte("://***@")), '\n'))
}
