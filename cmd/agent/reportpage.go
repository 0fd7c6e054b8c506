package main

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"

	"ffmpeg-agent/internal/report"
)

// serveReport serves the HTML report of an attempt, selected by the query's job and attempt.
func (w *worker) serveReport(out http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("job")
	attempt, err := strconv.Atoi(r.URL.Query().Get("attempt"))
	if err != nil {
		attempt = 0
	}
	records, err := w.journal.Find(id)
	if err != nil {
		http.Error(out, err.Error(), http.StatusInternalServerError)
		return
	}
	chosen, err := chooseAttempt(id, records, attempt)
	if err != nil {
		http.Error(out, err.Error(), http.StatusNotFound)
		return
	}
	var page bytes.Buffer
	if err := report.HTML(&page, records, chosen); err != nil {
		http.Error(out, fmt.Sprintf("making the report: %v", err), http.StatusInternalServerError)
		return
	}
	out.Header().Set("Content-Type", "text/html; charset=utf-8")
	out.Header().Set("Cache-Control", "no-store")
	out.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = out.Write(page.Bytes()) // fails if the client has gone
}
