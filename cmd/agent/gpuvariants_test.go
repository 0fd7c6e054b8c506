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
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// The machine of the variants below.
const (
	packageWatts = 50
	cardWatts    = 120
)

// cardVariant is a machine's card, and what a job's result says of it.
type cardVariant struct {
	without []string // symbols that the library lacks
	card    func(*fakehw.NVMLCard)
	none    bool                     // there is no library
	during  func(*fakehw.NVML) error // while the job runs
	long    bool                     // the job is, so that something can come of it in time
	health  string                   // why the cards are not read; empty: they are

	method string // of the total
	gaps   bool
	note   string // of the account
}

var cardVariants = map[string]cardVariant{
	"no library": {none: true, health: "NVML not available on this machine", method: "rapl: package-0"},
	"a library that lacks what it must have": {
		without: []string{"nvmlInit_v2"}, health: "lacks nvmlInit_v2", method: "rapl: package-0",
		note: "nvml sensors could not be read: ",
	},
	"a library without the energy counter": {
		without: []string{"nvmlDeviceGetTotalEnergyConsumption"}, method: "rapl: package-0; nvml power: gpu0",
	},
	"a counter that is reset": {
		during: (*fakehw.NVML).ResetCounters, long: true, method: "rapl: package-0; nvml: gpu0", gaps: true,
	},
	"power N/A": {
		card: func(c *fakehw.NVMLCard) {
			c.Fail = map[string]int{}
			for _, call := range []string{"nvmlDeviceGetPowerUsage", "power_average", "power_instant"} {
				c.Fail[call] = fakehw.NVMLNotSupported
			}
		},
		method: "rapl: package-0; nvml: gpu0",
	},
	"MIG": {card: func(c *fakehw.NVMLCard) { c.MIG = true }, method: "rapl: package-0; nvml: gpu0"},
	"counter and power 30 % apart": {
		card: func(c *fakehw.NVMLCard) { c.Scale = 1.3 }, long: true, method: "rapl: package-0; nvml: gpu0",
		note: "gpu0: energy counter",
	},
}

// library is what a variant has for one; nil where there is none.
func (v *cardVariant) library(t *testing.T, usual string) (path string, fake *fakehw.NVML) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "libnvidia-ml.so")
	if v.none {
		return path, nil
	}
	scenario := fakehw.NVMLScenario{Driver: "550.1", Cards: fakehw.NVMLCards(cardWatts)}
	if v.card != nil {
		v.card(&scenario.Cards[0])
	}
	var err error
	if v.without != nil {
		fake, err = fakehw.NewNVML(filepath.Dir(path), scenario, v.without...)
	} else if err = os.Link(usual, path); err == nil {
		fake, err = fakehw.UseNVML(path, scenario)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, fake
}

// TestResultsSayWhatTheirCardsTold: whatever the library lacks or the card does not tell, the agent
// lives, the job completes, and its energy says what it is of and where that comes from.
func TestResultsSayWhatTheirCardsTold(t *testing.T) {
	tree, _ := runningTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(packageWatts), Range: 262e9})
	usual, err := fakehw.BuildNVML(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range cardVariants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v.play(t, tree, usual)
		})
	}
}

func (v *cardVariant) play(t *testing.T, tree *fakehw.Tree, usual string) {
	library, fake := v.library(t, usual)
	bed := newTestbed(t)
	agent := startAgent(t, append(bed.environment(), "FFMPEG_AGENT_HARDWARE_SYSFS_PATH="+tree.Sys(),
		"FFMPEG_AGENT_HARDWARE_NVML_LIBRARY="+library), append(bed.flags(), "--heartbeat-interval", "500ms")...)
	client := control.NewClient(filepath.Join(bed.dir, "agent.sock"))
	waitFor(t, "a word of the cards", func() bool {
		status, err := client.Status(context.Background())
		return err == nil && slices.ContainsFunc(status.Samplers, v.expected)
	})

	parameters := ffmpegtest.Long()
	parameters["duration"] = 2 // seconds, which FFmpeg takes as well
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
	e := bed.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job.ID })
	if e.Status != protocol.StatusCompleted {
		t.Errorf("the job is %s", e.Status)
	}
	if err := syscall.Kill(agent.Process.Pid, 0); err != nil {
		t.Errorf("the agent is gone: %v", err)
	}
	r, _, _ := bed.master.Result(job.ID)
	v.check(t, fake, r, bed.account(job.ID))
}

// expected is the sampler of cards in the state that the variant is to have it in.
func (v *cardVariant) expected(s messages.SamplerHealth) bool {
	if v.health == "" {
		return s.Source == "nvml" && s.Zones == 1
	}
	return strings.Contains(s.Error+s.Absent, v.health) && (s.Absent != "") == v.none
}

func (v *cardVariant) check(t *testing.T, fake *fakehw.NVML, r protocol.JobResult, a energy.Account) {
	total := a.Total
	if total.Source != energy.Measured || total.Method != v.method || total.Energy == nil || total.ErrorBound == nil {
		t.Fatalf("total is %+v, want one measured by %q", total, v.method)
	}
	if r.EnergyJoules == nil || *r.EnergyJoules != float64(*total.Energy) {
		t.Errorf("energy_joules is not the %v J of the account", *total.Energy)
	}
	gpu, carded := a.Domains[energy.DomainGPU]
	if carded == (v.health != "") || carded && (gpu.Total.Source != energy.Measured || gpu.Total.Energy == nil) {
		t.Errorf("of cards there is %+v", gpu.Total)
	}
	if v.gaps != (total.Gaps > 0) || v.gaps && total.CoveragePercent >= 100 {
		t.Errorf("%d gaps, %v %% covered", total.Gaps, total.CoveragePercent)
	}
	if noted := strings.Join(a.Notes, "; "); v.note == "" && noted != "" || !strings.Contains(noted, v.note) {
		t.Errorf("notes are %q, want %q", noted, v.note)
	}
	if !carded {
		return
	}
	truth, err := fake.Joules(fakehw.NVMLCards(cardWatts)[0].UUID, a.Start, a.End)
	if err != nil {
		t.Fatal(err)
	}
	got, bound := float64(*gpu.Total.Energy), float64(*gpu.Total.ErrorBound)
	t.Logf("the card: true %.1f J, ours %.1f ± %.1f J, coverage %.1f %%", truth, got, bound, gpu.Total.CoveragePercent)
	if math.Abs(got-truth) > bound+(100-gpu.Total.CoveragePercent)/100*truth {
		t.Errorf("%v J ± %v at a coverage of %v %%, truly %v J", got, bound, gpu.Total.CoveragePercent, truth)
	}
}
