// Package report draws up one attempt at a job as one HTML page that needs nothing else:
// no script, no picture, no font, no address from outside. It is the same to the byte
// wherever it is made. All that comes from a job is taken for hostile.
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

// policy lets a browser load nothing and take no styles but the page's own.
func policy() string {
	sum := sha256.Sum256([]byte(styles))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
}

// HTML writes the page of records[chosen]; the others are the other attempts at the
// same job. What a record lacks is shown as unknown, with the reason where there is one.
func HTML(w io.Writer, records []job.Record, chosen int) error {
	if chosen < 0 || chosen >= len(records) {
		return fmt.Errorf("attempt %d of %d: there is none", chosen, len(records))
	}
	p := newPage(&records[chosen])
	for i := range records {
		if i != chosen {
			p.Others = append(p.Others, otherAttempt(&records[i]))
		}
	}
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("writing the page of job %s: %w", plain(p.Job), err)
	}
	return nil
}
