package exporters

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"

	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages"
)

// checkResponse is a messages.Check in the JSON of /ready.
type checkResponse struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

type readyResponse struct {
	Ready  bool            `json:"ready"`
	Checks []checkResponse `json:"checks"`
}

// ReadyHandler responds with 200 if the agent would take a job now, else with 503. The
// body lists all checks, with a reason for those that fail; to clients without full access
// without paths of files.
func ReadyHandler(status func() messages.Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := status()
		response := readyResponse{Ready: true, Checks: []checkResponse{}}
		for _, check := range preconditions(&s) {
			response.Ready = response.Ready && check.OK()
			reason := check.Reason
			if !FullAccess(r) {
				reason = cmp.Or(check.Public, reason)
			}
			response.Checks = append(response.Checks, checkResponse{check.Name, check.OK(), reason})
		}
		code := http.StatusOK
		if !response.Ready {
			code = http.StatusServiceUnavailable
		}
		writeJSON(w, code, response)
	})
}

// preconditions returns the checks of the status plus "registered" and "accepting",
// which follow from its session and drain state. A check of either name in the status
// takes precedence.
func preconditions(s *messages.Status) []messages.Check {
	implied := []messages.Check{{Name: "registered"}, {Name: "accepting"}}
	if s.Session == nil {
		implied[0].Reason = "not registered with the master"
	}
	if s.Draining {
		implied[1].Reason = "draining"
	}
	all := slices.Clone(s.Checks)
	for _, check := range implied {
		if !slices.ContainsFunc(all, func(c messages.Check) bool { return c.Name == check.Name }) {
			all = append(all, check)
		}
	}
	return all
}

type healthResponse struct {
	OK     bool   `json:"ok"`
	Status string `json:"status"` // healthy or failing
	Reason string `json:"reason,omitempty"`
}

// HealthHandler responds with 200, or with 503 and the error if live returns one. live
// may be nil.
func HealthHandler(live func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if live != nil {
			if err := live(); err != nil {
				writeJSON(w, http.StatusServiceUnavailable, healthResponse{false, "failing", err.Error()})
				return
			}
		}
		writeJSON(w, http.StatusOK, healthResponse{OK: true, Status: "healthy"})
	})
}

// StatusHandler responds with the status as JSON: the whole to clients with full access, and
// what Public leaves to others.
func StatusHandler(status func() messages.Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := status()
		if !FullAccess(r) {
			s = Public(s)
		}
		writeJSON(w, http.StatusOK, s)
	})
}

// writeJSON responds with a value as JSON, without passwords in URLs, and with control characters
// as escapes.
func writeJSON(w http.ResponseWriter, code int, value any) {
	body, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		http.Error(w, fmt.Sprintf("encoding the response: %v", err), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, string(safetext.JSON([]byte(safetext.Userinfo(string(body)))))+"\n")
}
