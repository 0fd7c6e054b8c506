package hardware

import (
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":     {"", ""},
		"lines":     {"one\n\ntwo", "one; two"},
		"many":      {strings.Repeat("early\n", 100) + "1\n2\n3\n4\n5\n", "1; 2; 3; 4; 5"},
		"long line": {strings.Repeat("x", 1<<20), strings.Repeat("x", tailLineBytes)},
		"traceback": {"SIGSEGV: segmentation violation\nPC=0x1\n\ngoroutine 1 [syscall]:\nruntime.cgocall(0x1)\n\t/usr/x.go:1\n" +
			"github.com/NVIDIA/go-nvml/pkg/nvml._Cfunc_nvmlDeviceGetName(0x2)\n", "SIGSEGV: segmentation violation; PC=0x1; in nvmlDeviceGetName"},
	} {
		t.Run(name, func(t *testing.T) {
			var tail stderrTail
			tail.read(strings.NewReader(test.text))
			if got := tail.String(); !strings.HasSuffix(got, test.want) || len(got) > tailLines*(tailLineBytes+2) || len(got) < len(test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
