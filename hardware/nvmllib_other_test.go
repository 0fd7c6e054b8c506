//go:build !linux || !cgo

package hardware

import (
	"bytes"
	"strings"
	"testing"
)

func TestNVMLWithoutCgo(t *testing.T) {
	in := strings.NewReader(`{"library":"libnvidia-ml.so.1"}` + "\n" + `{"id":1,"full":true}` + "\n")
	var out bytes.Buffer
	if err := ServeNVML(t.Context(), in, &out); err != nil {
		t.Fatal(err)
	}
	answer, err := parseAnswer(bytes.TrimSpace(out.Bytes()), 1, 0, 0)
	if err != nil || answer.Failure == nil || !answer.Failure.None || !strings.Contains(answer.Failure.Reason, "cgo") {
		t.Errorf("answer is %s, %v", out.Bytes(), err)
	}
}
