package hardware

import "testing"

func FuzzCPUTimes(f *testing.F) {
	f.Add([]byte("cpu  10775 0 4787 251409 479 0 86 669 0 0\ncpu0 1"))
	f.Add([]byte("cpu 1 2 3 4\n"))
	f.Add([]byte("cpu 99999999999999999999 0 0 0\n"))
	f.Add([]byte("000 0\xec\xec0\n"))
	f.Add([]byte("\n\n\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		times, err := parseCPUTimes(text)
		if err != nil && times != (cpuTimes{}) {
			t.Fatalf("%q: got %+v beside error %v", text, times, err)
		}
		if u, ok := times.utilization(cpuTimes{}); ok && !(u >= 0 && u <= 1) {
			t.Fatalf("%q: got utilization %v, want 0 to 1", text, u)
		}
	})
}
