package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// The power of the test machine.
const (
	packageWatts = 50
	cardWatts    = 120
)

// gpuVariant is a GPU or NVML library that lacks something, and the expected energy account
// of a job.
type gpuVariant struct {
	noLibrary bool
	without   []string // symbols missing from the library
	card      func(*fakehw.NVMLCard)
	during    func(*fakehw.NVML) error // called while the job runs
	long      bool                     // the job takes 4 s instead of 2 s

	sampler string // why the sampler is unavailable; empty: it is available
	method  string // of the total
	gaps    bool
	note    string // in the account
}

var gpuVariants = map[string]gpuVariant{
	"no library": {noLibrary: true, sampler: "NVML not available on this machine", method: "rapl: package-0"},
	"library without nvmlInit_v2": {
		without: []string{"nvmlInit_v2"}, sampler: "lacks nvmlInit_v2", method: "rapl: package-0",
		note: "nvml sensors could not be read: ",
	},
	"library without energy counter": {
		without: []string{"nvmlDeviceGetTotalEnergyConsumption"}, method: "rapl: package-0; nvml power: gpu0",
	},
	"counter reset": {
		during: (*fakehw.NVML).ResetCounters, long: true, method: "rapl: package-0; nvml: gpu0", gaps: true,
	},
	"power not supported": {
		card: func(c *fakehw.NVMLCard) {
			c.Fail = map[string]int{}
			for _, call := range []string{"nvmlDeviceGetPowerUsage", "power_average", "power_instant"} {
				c.Fail[call] = fakehw.NVMLNotSupported
			}
		},
		method: "rapl: package-0; nvml: gpu0",
	},
	"MIG": {card: func(c *fakehw.NVMLCard) { c.MIG = true }, method: "rapl: package-0; nvml: gpu0"},
	"counter 30 % above power": {
		card: func(c *fakehw.NVMLCard) { c.Scale = 1.3 }, long: true, method: "rapl: package-0; nvml: gpu0",
		note: "gpu0: energy counter",
	},
}

// library creates the variant's library from a complete one. fake is nil without a library.
func (v *gpuVariant) library(t *testing.T, complete string) (path string, fake *fakehw.NVML) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "libnvidia-ml.so")
	if v.noLibrary {
		return path, nil
	}
	scenario := fakehw.NVMLScenario{Driver: "550.1", Cards: fakehw.NVMLCards(cardWatts)}
	if v.card != nil {
		v.card(&scenario.Cards[0])
	}
	var err error
	if v.without != nil {
		fake, err = fakehw.NewNVML(filepath.Dir(path), scenario, v.without...)
	} else if err = os.Link(complete, path); err == nil {
		fake, err = fakehw.UseNVML(path, scenario)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, fake
}

func TestGPUVariants(t *testing.T) {
	tree, _ := runningTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(packageWatts), Range: 262e9})
	complete, err := fakehw.BuildNVML(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range gpuVariants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v.run(t, tree, complete)
		})
	}
}

func (v *gpuVariant) run(t *testing.T, tree *fakehw.Tree, complete string) {
	library, fake := v.library(t, complete)
	bed := newTestbed(t)
	agent := startAgent(t, append(bed.environment(), "FFMPEG_AGENT_HARDWARE_SYSFS_PATH="+tree.Sys(),
		"FFMPEG_AGENT_HARDWARE_NVML_LIBRARY="+library), append(bed.flags(), "--heartbeat-interval", "500ms")...)
	client := control.NewClient(filepath.Join(bed.dir, "agent.sock"))
	waitFor(t, "expected state of the sampler", func() bool {
		status, err := client.Status(context.Background())
		return err == nil && slices.ContainsFunc(status.Samplers, v.matches)
	})

	parameters := ffmpegtest.Long()
	parameters["duration"] = 2
	if v.long {
		parameters["duration"] = 4
	}
	job := bed.submit(parameters)
	bed.awaitFFmpeg()
	if v.during != nil {
		waitFor(t, "energy of the job", func() bool {
			status, err := client.Status(context.Background())
			return err == nil && len(status.Jobs) == 1 && status.Jobs[0].Energy != nil
		})
		if err := v.during(fake); err != nil {
			t.Fatal(err)
		}
	}
	bed.awaitResult(job.ID, protocol.StatusCompleted)
	if err := syscall.Kill(agent.Process.Pid, 0); err != nil {
		t.Errorf("the agent has exited: %v", err)
	}
	r, _, _ := bed.master.Result(job.ID)
	v.check(t, fake, r, bed.account(job.ID))
}

func (v *gpuVariant) matches(s messages.SamplerHealth) bool {
	if v.sampler == "" {
		return s.Source == "nvml" && s.Zones == 1
	}
	return strings.Contains(s.Error+s.Absent, v.sampler) && (s.Absent != "") == v.noLibrary
}

func (v *gpuVariant) check(t *testing.T, fake *fakehw.NVML, r protocol.JobResult, a energy.Account) {
	total := a.Total
	if total.Source != energy.Measured || total.Method != v.method || total.Energy == nil || total.ErrorBound == nil {
		t.Fatalf("total: got %+v, want a measured one with method %q", total, v.method)
	}
	if r.EnergyJoules == nil || *r.EnergyJoules != float64(*total.Energy) {
		t.Errorf("energy_joules differs from the %v J of the account", *total.Energy)
	}
	gpu, found := a.Domains[energy.DomainGPU]
	if found == (v.sampler != "") || found && (gpu.Total.Source != energy.Measured || gpu.Total.Energy == nil) {
		t.Errorf("GPU energy: got %+v (found: %v), want a measured one only if the sampler is available", gpu.Total, found)
	}
	if v.gaps != (total.Gaps > 0) || v.gaps && total.CoveragePercent >= 100 {
		t.Errorf("got %d gaps and a coverage of %v %%, want gaps: %v", total.Gaps, total.CoveragePercent, v.gaps)
	}
	if notes := strings.Join(a.Notes, "; "); v.note == "" && notes != "" || !strings.Contains(notes, v.note) {
		t.Errorf("got notes %q, want %q", notes, v.note)
	}
	if !found {
		return
	}
	truth, err := fake.Joules(fakehw.NVMLCards(cardWatts)[0].UUID, a.Start, a.End)
	if err != nil {
		t.Fatal(err)
	}
	got, bound := float64(*gpu.Total.Energy), float64(*gpu.Total.ErrorBound)
	t.Logf("GPU: true energy %.1f J, measured %.1f ± %.1f J, coverage %.1f %%", truth, got, bound, gpu.Total.CoveragePercent)
	if math.Abs(got-truth) > bound+(100-gpu.Total.CoveragePercent)/100*truth {
		t.Errorf("got %v J ± %v J at a coverage of %v %%, want %v J", got, bound, gpu.Total.CoveragePercent, truth)
	}
}
