package hardware

import (
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/hardware/energy"
)

// A reading is the number in the file. A file without a plausible number has no reading.
func FuzzSysfsValues(f *testing.F) {
	f.Add("package-0", "12345\n", "262143328850\n", "1500000\n", "2.5%")
	f.Add("core", "0", "", "N/A", "")
	f.Add("package-0", "-1", "-5", "-2000000", "-1%")
	f.Add("psys", "99999999999999999999", "9223372036854775807", "1e9", "NaN%")
	f.Add("package-0-die-1", "+7", "0x10", " 7 7 ", "100000%")
	f.Add("dram\x00", "\x00\xff", "1_000", "9223372036854775807", "Inf%")
	f.Add("package-0", "9227000000000000000", "9227000000000000000", "  1", "0")
	f.Add("package-0", "0\xec", "0\n\n\n\n0", "\xb7\xb7\xb7\xb7", "\x7fA'")
	f.Fuzz(func(t *testing.T, name, counter, counterRange, power, accuracy string) {
		sys := t.TempDir()
		zone, chip := filepath.Join(sys, "class", "powercap", "intel-rapl:0"), filepath.Join(sys, "class", "hwmon", "hwmon0")
		for file, text := range map[string]string{
			zone + "/name": name, zone + "/energy_uj": counter, zone + "/max_energy_range_uj": counterRange,
			chip + "/name": "power_meter", chip + "/power1_average": power, chip + "/power1_accuracy": accuracy,
		} {
			must(t, os.MkdirAll(filepath.Dir(file), 0o755))
			must(t, os.WriteFile(file, []byte(text), 0o644))
		}
		if r, err := OpenRAPL(sys); err == nil {
			readings, _ := r.Read()
			r.Close()
			want, ok := new(big.Int).SetString(strings.TrimSpace(counter), 10)
			for _, got := range readings {
				if !ok || !want.IsInt64() || int64(got.Counter) != want.Int64() || got.Counter < 0 || got.Zone.Range < 0 {
					t.Errorf("counter %q with range %q: got %d with range %d", counter, counterRange, got.Counter, got.Zone.Range)
				}
			}
		}
		if h, err := OpenHwmon(sys, nil); err == nil {
			defer h.Close()
			var last energy.Microjoules
			for range 2 {
				readings, _ := h.Read()
				for _, got := range readings {
					if got.Counter < last {
						t.Errorf("power %q with accuracy %q: got %d µJ after %d µJ", power, accuracy, got.Counter, last)
					}
					last = got.Counter
				}
			}
			for _, z := range h.Zones() {
				if !(z.Uncertainty >= 0 && z.Uncertainty <= 1) {
					t.Errorf("accuracy %q: got uncertainty %v, want 0 to 1", accuracy, z.Uncertainty)
				}
			}
		}
	})
}
