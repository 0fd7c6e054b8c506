package report

import (
	"bytes"
	"strings"
	"testing"

	"ffmpeg-agent/messages/job"
)

func TestText(t *testing.T) {
	for name, records := range allRecords(t) {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Text(&b, records, len(records)-1); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".txt", b.String())
			if strings.Contains(b.String(), "s3cr3t") {
				t.Error("the text contains a stream key")
			}
		})
	}
}

func TestTextHasNoControlCharacters(t *testing.T) {
	var b bytes.Buffer
	if err := Text(&b, []job.Record{poisoned(t, failed(t), evil), poisoned(t, measured(t, 64), evil)}, 1); err != nil {
		t.Fatal(err)
	}
	for _, hidden := range []string{"\x00", "\x1b", "\u202e", "\r", thinSpace, hardSpace} {
		if strings.Contains(b.String(), hidden) {
			t.Errorf("text contains %q", hidden)
		}
	}
}
