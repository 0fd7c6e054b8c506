package hardware

import (
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/hardware/energy"
)

// Whatever the kernel's files hold, a reading is the number that stands there, or there is
// none.
func FuzzSysValues(f *testing.F) {
	f.Add("package-0", "12345\n", "262143328850\n", "1500000\n", "2.5%")
	f.Add("core", "0", "", "N/A", "")
	f.Add("package-0", "-1", "-5", "-2000000", "-1%")
	f.Add("psys", "99999999999999999999", "9223372036854775807", "1e9", "NaN%")
	f.Add("package-0-die-1", "+7", "0x10", " 7 7 ", "100000%")
	f.Add("dram\x00", "\x00\xff", "1_000", "9223372036854775807", "Inf%")
	f.Fuzz(func(t *testing.T, name, counter, most, power, accuracy string) {
		sys := t.TempDir()
		zone, chip := filepath.Join(sys, "class", "powercap", "intel-rapl:0"), filepath.Join(sys, "class", "hwmon", "hwmon0")
		for file, text := range map[string]string{
			zone + "/name": name, zone + "/energy_uj": counter, zone + "/max_energy_range_uj": most,
			chip + "/name": "power_meter", chip + "/power1_average": power, chip + "/power1_accuracy": accuracy,
		} {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := OpenRAPL(sys); err == nil {
			readings, _ := r.Read()
			r.Close()
			stands, ok := new(big.Int).SetString(strings.TrimSpace(counter), 10)
			for _, got := range readings {
				if !ok || !stands.IsInt64() || int64(got.Counter) != stands.Int64() || got.Counter < 0 || got.Zone.Range < 0 {
					t.Errorf("%q of at most %q is read as %d of at most %d", counter, most, got.Counter, got.Zone.Range)
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
						t.Errorf("power %q with accuracy %q: %d µJ after %d", power, accuracy, got.Counter, last)
					}
					last = got.Counter
				}
			}
			for _, z := range h.Zones() {
				if !(z.Uncertainty >= 0 && z.Uncertainty <= 1) {
					t.Errorf("accuracy %q makes an uncertainty of %v", accuracy, z.Uncertainty)
				}
			}
		}
	})
}
