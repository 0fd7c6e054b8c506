package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
)

var nvmlFaults = flag.Int("gpu.faults", 3, "number of faults injected into the NVML child")

const (
	gpuHeartbeatInterval = 500 * time.Millisecond
	heartbeatDelay       = 500 * time.Millisecond // at least
	// The backoff of restarts grows with each fault and is reset by a child that runs for some
	// time, which the test waits for after a few faults.
	faultsInARow = 5
	backoffReset = 11 * time.Second
)

// watchTimers returns a function that tells by how much a plain timer was late at most.
func watchTimers(t *testing.T) (lateness func() time.Duration) {
	const tick = 20 * time.Millisecond
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped })
	var latest atomic.Int64
	go func() {
		defer close(stopped)
		for {
			begun := time.Now()
			select {
			case <-stop:
				return
			case <-time.After(tick):
			}
			latest.Store(max(latest.Load(), int64(time.Since(begun)-tick)))
		}
	}()
	return func() time.Duration { return time.Duration(latest.Load()) }
}

// checkHeartbeats fails the test if the interval between two heartbeats since a time is more
// than twice the configured one. A heartbeat passes through several goroutines, so it may be
// late by several times what a timer was.
func checkHeartbeats(t *testing.T, m *devmaster.Master, since time.Time, lateness time.Duration) {
	t.Helper()
	longestGap := 2*gpuHeartbeatInterval + max(heartbeatDelay, 6*lateness)
	last, longest, beats := since, time.Duration(0), 0
	for _, e := range m.Events() {
		if e.Kind != devmaster.Heartbeat || e.At.Before(since) {
			continue
		}
		beats++
		gap := e.At.Sub(last)
		longest = max(longest, gap)
		if gap > longestGap {
			t.Errorf("no heartbeat for %v, %v after the first fault", gap, last.Sub(since))
		}
		last = e.At
	}
	if silence := time.Since(last); silence > longestGap {
		t.Errorf("no heartbeat for the last %v", silence)
	}
	t.Logf("%d heartbeats, at most %v apart", beats, longest.Round(time.Millisecond))
}

// nvmlChildren lists the running NVML children of an agent.
func nvmlChildren(agent int) []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		stat, err := proc.ReadStat(pid)
		if err != nil || stat.Parent != agent || stat.Ended() {
			continue
		}
		if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && strings.Contains(string(line), nvmlCommand) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// The NVML child is killed, stopped, and made to send invalid data while a job runs.
func TestGPUEnergySurvivesNVMLChildFaults(t *testing.T) {
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
		"FFMPEG_AGENT_EXPORTERS_GPU_ENABLED=true", fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_GPU_PORT=%d", port)), append(bed.flags(), "--heartbeat-interval", gpuHeartbeatInterval.String())...)
	var child int
	awaitNewChild := func() {
		t.Helper()
		waitFor(t, "new NVML child", func() bool {
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
	awaitNewChild()

	job := bed.submit(ffmpegtest.Long())
	bed.awaitFFmpeg()
	since, lateness := time.Now(), watchTimers(t)
	for i := range *nvmlFaults {
		if i > 0 && i%faultsInARow == 0 {
			restarted := time.Now()
			waitFor(t, "reset of the backoff", func() bool { return time.Since(restarted) > backoffReset })
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
		awaitNewChild()
	}
	recovered := time.Now()
	waitFor(t, "heartbeats after the last fault", func() bool { return time.Since(recovered) > 4*gpuHeartbeatInterval })
	checkHeartbeats(t, bed.master, since, lateness())
	a := bed.cancel(job.ID)
	gpu := a.Domains[energy.DomainGPU].Total
	if gpu.Source != energy.Measured || gpu.Energy == nil {
		t.Fatalf("GPU energy: got %+v, want a measured one", gpu)
	}
	// The counters advance while no child reads them, so the next reading has their energy.
	truth := 0.0
	for _, card := range fakehw.NVMLCards(120, 60) {
		joules, err := nvml.Joules(card.UUID, a.Start, a.End)
		if err != nil {
			t.Fatal(err)
		}
		truth += joules
	}
	got, bound := float64(*gpu.Energy), float64(*gpu.ErrorBound)
	t.Logf("%d faults: true energy %.1f J, measured %.1f ± %.1f J, coverage %.1f %%, %d gaps", *nvmlFaults, truth, got, bound, gpu.CoveragePercent, gpu.Gaps)
	if math.Abs(got-truth) > bound+(100-gpu.CoveragePercent)/100*truth {
		t.Errorf("got %v J ± %v J at a coverage of %v %%, want %v J", got, bound, gpu.CoveragePercent, truth)
	}
	agent.kill()
	waitFor(t, "end of the NVML child", func() bool { return syscall.Kill(child, 0) == syscall.ESRCH })
}

// Of two jobs at a time, one has three times the SM and encoder utilization of the other.
func TestGPUEnergyIsSplitByUtilization(t *testing.T) {
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
	lateness := watchTimers(t)
	client := control.NewClient(filepath.Join(bed.dir, "agent.sock"))
	waitFor(t, "zone of the card", func() bool {
		status, err := client.Status(context.Background())
		return err == nil && slices.ContainsFunc(status.Samplers, func(s messages.SamplerHealth) bool { return s.Name == "nvml" && s.Zones == 1 })
	})
	jobs := []string{bed.submit(ffmpegtest.Long()).ID, bed.submit(ffmpegtest.Long()).ID}
	pids := map[string]int{}
	waitFor(t, "energy of both jobs", func() bool {
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
	reported := time.Now()
	used := func(from, to time.Time) float64 {
		t.Helper()
		joules, err := nvml.Joules(scenario.Cards[0].UUID, from, to)
		if err != nil {
			t.Fatal(err)
		}
		return joules
	}
	waitFor(t, "8 s of use", func() bool { return used(reported, time.Now()) > 8*watts })
	b, a := bed.cancel(jobs[1]), bed.cancel(jobs[0])

	gpu := func(a energy.Account) float64 {
		t.Helper()
		total := a.Domains[energy.DomainGPU].Total
		if total.Energy == nil || total.CoveragePercent != 100 {
			t.Fatalf("GPU energy: got %+v, want a coverage of 100 %%", total)
		}
		return float64(*total.Energy)
	}
	// A job that runs alone gets all energy. That from before the utilization was reported is split
	// equally. It is read once a second. A reading may be older than its time says by as much as
	// a timer was late.
	late := watts * max(0.1, lateness().Seconds())
	together, alone := a.Start, 0.0
	if b.Start.Before(together) {
		alone = used(b.Start, together)
	} else {
		together = b.Start
	}
	truth, tolerance := alone+used(reported, b.End)/4, used(together, reported)/2+watts*1.5/2+late
	t.Logf("second job: true energy %.1f ± %.1f J, measured %.1f J", truth, tolerance, gpu(b))
	if math.Abs(gpu(b)-truth) > tolerance {
		t.Errorf("second job: got %.1f J, want %.1f ± %.1f J", gpu(b), truth, tolerance)
	}
	if !strings.Contains(b.ShareMethod, "gpu use") {
		t.Errorf("got share method %q, want gpu use in it", b.ShareMethod)
	}
	begin := a.Start
	if b.Start.Before(begin) {
		begin = b.Start
	}
	whole := used(begin, a.End)
	if sum := gpu(a) + gpu(b); math.Abs(sum-whole) > late {
		t.Errorf("both jobs: got %.1f J, want the card's %.1f J", sum, whole)
	}
}
