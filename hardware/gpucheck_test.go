//go:build linux && cgo

package hardware

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

func TestCheckGPUComparesCounterAndPower(t *testing.T) {
	scenario := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70, 100, 50)}
	scenario.Cards[1].Scale = 1.3
	scenario.Cards[2].Fail = map[string]int{"nvmlDeviceGetTotalEnergyConsumption": 3, "nvmlDeviceGetPowerUsage": 3, "power_average": 3, "power_instant": 3}
	fake := newFakeNVML(t, scenario)
	var out strings.Builder
	must(t, CheckGPU(t.Context(), nvmlConfig(fake.Library), 700*time.Millisecond, &out))
	for _, line := range []string{
		`(?m)^gpu0 +NVIDIA Fake L4 +nvml +0\.[5-9] s +[0-9.]+ J +(69|70|71)\.[0-9] W +[0-9.]+ J +[+-][0-3]\.[0-9] % +[0-9]+ +0 +0$`,
		`(?m)^gpu1 +NVIDIA Fake L4 +nvml .* \+(2[789]|3[0-3])\.[0-9] % `,
		`(?m)^2 +NVIDIA Fake L4 +reports neither energy nor power$`,
		`(?m)^gpu1: energy counter and integrated power differ by more than 10 %`,
	} {
		if !regexp.MustCompile(line).MatchString(out.String()) {
			t.Errorf("want a line %s in\n%s", line, out.String())
		}
	}
	if strings.Contains(out.String(), "gpu0: ") {
		t.Errorf("got a note about gpu0 in\n%s", out.String())
	}
}

func TestCheckGPUFailsWithoutCards(t *testing.T) {
	var out strings.Builder
	err := CheckGPU(t.Context(), nvmlConfig(filepath.Join(t.TempDir(), "libnvidia-ml.so.1")), time.Second, &out)
	if !errors.Is(err, ErrNoNVML) || !strings.Contains(err.Error(), "libnvidia-ml.so.1") || out.Len() > 0 {
		t.Errorf("got error %v and output %q, want ErrNoNVML with the library's name", err, out.String())
	}
	scenario := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70)}
	scenario.Cards[0].Fail = map[string]int{"nvmlDeviceGetTotalEnergyConsumption": fakehw.NVMLGPUIsLost}
	if err := CheckGPU(t.Context(), nvmlConfig(newFakeNVML(t, scenario).Library), 200*time.Millisecond, &out); err == nil {
		t.Errorf("with a lost card: want an error, got\n%s", out.String())
	}
}
