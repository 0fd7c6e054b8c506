package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
)

var readerFaults = flag.Int("gpu.faults", 3, "how often the reader of the cards is disturbed")

const (
	cardsBeat = 500 * time.Millisecond // between the heartbeats of an agent whose reader is disturbed
	lateBeat  = 500 * time.Millisecond // that a busy machine may hold one up
	// A reader that fails again and again is replaced ever later, until one has been well
	// for long enough, which is waited for after some failures.
	failuresInARow = 5
	wellAgain      = 11 * time.Second
)

// heartbeatsUnmoved demands that since a moment heartbeats have come to the master as if
// nothing happened.
func heartbeatsUnmoved(t *testing.T, m *devmaster.Master, since time.Time) {
	t.Helper()
	last, longest, beats := since, time.Duration(0), 0
	for _, e := range m.Events() {
		if e.Kind != devmaster.Heartbeat || e.At.Before(since) {
			continue
		}
		beats++
		gap := e.At.Sub(last)
		longest = max(longest, gap)
		if gap > 2*cardsBeat+lateBeat {
			t.Errorf("no heartbeat for %v, %v after the first disturbance", gap, last.Sub(since))
		}
		last = e.At
	}
	if silence := time.Since(last); silence > 2*cardsBeat+lateBeat {
		t.Errorf("no heartbeat for the last %v", silence)
	}
	t.Logf("%d heartbeats, %v apart at most", beats, longest.Round(time.Millisecond))
}

// nvmlChildren are the processes that read cards for an agent.
func nvmlChildren(agent int) []int {
	var pids []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 2 || fields[0] == "Z" || fields[1] != strconv.Itoa(agent) {
			continue
		}
		dir := filepath.Dir(stat)
		if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && strings.Contains(string(line), nvmlCommand) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestCardsAreMeasuredThroughWhateverBefallsTheirReader: the child that reads them is
// killed, stopped, and made to talk nonsense while a job runs. The job completes, heartbeats
// go on, and the figure says what was missed.
func TestCardsAreMeasuredThroughWhateverBefallsTheirReader(t *testing.T) {
	dir := t.TempDir()
	nvml, err := fakehw.NewNVML(dir, fakehw.NVMLScenario{Driver: "550.1", Cards: fakehw.NVMLCards(120, 60)})
	if err != nil {
		t.Fatal(err)
	}
	tree, _ := runningTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(50), Range: 262e9})
	bed := newTestbed(t)
	port := freePort(t)
	agent := startAgent(t, append(bed.environment(), "FFMPEG_AGENT_HARDWARE_SYSFS_PATH="+tree.Sys(),
		"FFMPEG_AGENT_HARDWARE_NVML_LIBRARY="+nvml.Library,
		"FFMPEG_AGENT_EXPORTERS_GPU_ENABLED=true", fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_GPU_PORT=%d", port)), append(bed.flags(), "--heartbeat-interval", cardsBeat.String())...)
	var child int
	reader := func() {
		t.Helper()
		waitFor(t, "another child that reads the cards", func() bool {
			pids := nvmlChildren(agent.Process.Pid)
			if len(pids) != 1 || pids[0] == child {
				return false
			}
			scrape := get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
			if strings.Count(scrape, "\ngpu_power_draw_watts{") != 2 {
				return false
			}
			child = pids[0]
			return true
		})
	}
	reader()

	job := bed.submit(ffmpegtest.Long())
	bed.awaitFFmpeg()
	since := time.Now()
	for i := range *readerFaults {
		if i > 0 && i%failuresInARow == 0 {
			replaced := time.Now()
			waitFor(t, "the failures to be forgotten", func() bool { return time.Since(replaced) > wellAgain })
		}
		switch i % 3 {
		case 0:
			err = syscall.Kill(child, syscall.SIGKILL)
		case 1:
			err = syscall.Kill(child, syscall.SIGSTOP)
		case 2:
			err = os.WriteFile(fmt.Sprintf("/proc/%d/fd/1", child), []byte("\x00{\"id\":nonsense]\n"), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		reader()
	}
	disturbed := time.Now()
	waitFor(t, "heartbeats", func() bool { return time.Since(disturbed) > 4*cardsBeat })
	heartbeatsUnmoved(t, bed.master, since)
	a := bed.cancel(job.ID)
	gpu := a.Domains[energy.DomainGPU].Total
	if gpu.Source != energy.Measured || gpu.Energy == nil {
		t.Fatalf("cards: %+v", gpu)
	}
	// The cards' counters went on meanwhile: what no reading was missing of is counted.
	truth := 0.0
	for _, card := range fakehw.NVMLCards(120, 60) {
		joules, err := nvml.Joules(card.UUID, a.Start, a.End)
		if err != nil {
			t.Fatal(err)
		}
		truth += joules
	}
	got, bound := float64(*gpu.Energy), float64(*gpu.ErrorBound)
	t.Logf("%d faults: true %.1f J, ours %.1f ± %.1f J, coverage %.1f %%, %d gaps", *readerFaults, truth, got, bound, gpu.CoveragePercent, gpu.Gaps)
	if math.Abs(got-truth) > bound+(100-gpu.CoveragePercent)/100*truth {
		t.Errorf("%v J ± %v at a coverage of %v %%, truly %v J", got, bound, gpu.CoveragePercent, truth)
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	agent.Wait()
	waitFor(t, "the child's end", func() bool { return syscall.Kill(child, 0) == syscall.ESRCH })
}

// TestACardIsSharedByWhatEachJobDidOnIt: of two jobs at once one does three times as much on
// the card, by what the library says of its FFmpeg's use of multiprocessors and encoder.
func TestACardIsSharedByWhatEachJobDidOnIt(t *testing.T) {
	t.Parallel()
	const watts = 120
	scenario := fakehw.NVMLScenario{Driver: "550.1", Cards: fakehw.NVMLCards(watts)}
	nvml, err := fakehw.NewNVML(t.TempDir(), scenario)
	if err != nil {
		t.Fatal(err)
	}
	bed := newTestbed(t)
	startAgent(t, append(bed.environment(), "FFMPEG_AGENT_HARDWARE_SYSFS_PATH="+t.TempDir(), "FFMPEG_AGENT_HARDWARE_NVML_LIBRARY="+nvml.Library),
		append(bed.flags(), "--max-concurrent-jobs", "2")...)
	client := control.NewClient(filepath.Join(bed.dir, "agent.sock"))
	waitFor(t, "the card", func() bool {
		status, err := client.Status(context.Background())
		return err == nil && slices.ContainsFunc(status.Samplers, func(s messages.SamplerHealth) bool { return s.Name == "nvml" && s.Zones == 1 })
	})
	jobs := []string{bed.submit(ffmpegtest.Long()).ID, bed.submit(ffmpegtest.Long()).ID}
	pids := map[string]int{}
	waitFor(t, "both jobs' FFmpeg, and the card", func() bool {
		status, err := client.Status(context.Background())
		for _, j := range status.Jobs {
			if j.PID != 0 && j.Energy != nil {
				pids[j.Key.JobID] = j.PID
			}
		}
		return err == nil && len(pids) == 2
	})
	scenario.Cards[0].Processes = []fakehw.NVMLProcess{{PID: pids[jobs[0]], SM: 20, Encoder: 40}, {PID: pids[jobs[1]], Encoder: 20}}
	if err := nvml.Set(scenario); err != nil {
		t.Fatal(err)
	}
	told := time.Now()
	used := func(from, to time.Time) float64 {
		t.Helper()
		joules, err := nvml.Joules(scenario.Cards[0].UUID, from, to)
		if err != nil {
			t.Fatal(err)
		}
		return joules
	}
	waitFor(t, "8 s of use", func() bool { return used(told, time.Now()) > 8*watts })
	b, a := bed.cancel(jobs[1]), bed.cancel(jobs[0])

	gpu := func(a energy.Account) float64 {
		t.Helper()
		total := a.Domains[energy.DomainGPU].Total
		if total.Energy == nil || total.CoveragePercent != 100 {
			t.Fatalf("of the card there is %+v", total)
		}
		return float64(*total.Energy)
	}
	// What was used before it was told by whom is divided equally, and it is told once a second.
	truth, vague := used(told, b.End)/4, used(b.Start, told)/2+watts*1.5/2
	t.Logf("the second job: true %.1f J, and up to %.1f J of what nobody told; ours %.1f J", truth, vague, gpu(b))
	if off := gpu(b) - truth; off < -vague || off > vague {
		t.Errorf("the second job used %.1f J of the card, and truly %.1f ± %.1f J", gpu(b), truth, vague)
	}
	if !strings.Contains(b.ShareMethod, "gpu use") {
		t.Errorf("shared by %q", b.ShareMethod)
	}
	begin := a.Start
	if b.Start.Before(begin) {
		begin = b.Start
	}
	whole := used(begin, a.End)
	if sum := gpu(a) + gpu(b); math.Abs(sum-whole) > watts*0.1 {
		t.Errorf("the jobs' shares are %.1f J together, and the card used %.1f J", sum, whole)
	}
}
