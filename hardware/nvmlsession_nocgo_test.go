//go:build !linux || !cgo

package hardware

import (
	"bytes"
	"strings"
	"testing"
)

func TestNVMLWithoutCgo(t *testing.T) {
	in := strings.NewReader(`{"library":"libnvidia-ml.so.1"}` + "\n" + `{"id":1,"details":true}` + "\n")
	var out bytes.Buffer
	must(t, ServeNVML(t.Context(), in, &out))
	response, err := parseResponse(bytes.TrimSpace(out.Bytes()), 1, 0, 0)
	if err != nil || response.Failure == nil || !response.Failure.Missing || !strings.Contains(response.Failure.Reason, "cgo") {
		t.Errorf("got %s and error %v, want a failure because of cgo", out.Bytes(), err)
	}
}
