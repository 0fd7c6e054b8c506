// Package report formats an attempt of a job: as text, and as a self-contained HTML page
// without scripts, images, fonts or links. The output depends only on the records, not on
// time zone or locale. All data from a job is treated as untrusted.
package report

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"

	"ffmpeg-agent/messages/job"
)

//go:embed page.html.tmpl
var pageText string

//go:embed page.css
var styles string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// contentSecurityPolicy allows the page's own style sheet and nothing else.
func contentSecurityPolicy() string {
	sum := sha256.Sum256([]byte(styles))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
}

// HTML writes records[selected] as an HTML page. The other records must be the other attempts
// of the same job. Values that a record lacks are shown as unknown, with the reason if known.
func HTML(w io.Writer, records []job.Record, selected int) error {
	p, err := newPage(records, selected)
	if err != nil {
		return err
	}
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("writing the page of job %s: %w", p.Job, err)
	}
	return nil
}

// JSON writes the result of a record exactly as it is sent to the master. It fails if the
// attempt has no result.
func JSON(w io.Writer, rec *job.Record) error {
	if len(rec.Result) == 0 {
		return fmt.Errorf("attempt %d of job %s has no result (%s)", rec.Key().Attempt, sanitize(rec.Key().JobID), stateText(rec))
	}
	_, err := w.Write(rec.Result)
	return err
}
