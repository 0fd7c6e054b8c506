package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
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

func resultAccount(t *testing.T, m *devmaster.Master, job string) energy.Account {
	t.Helper()
	_, raw, ok := m.Result(job)
	if !ok {
		t.Fatalf("no result of job %s", job)
	}
	var r struct {
		Analysis struct {
			Energy energy.Account `json:"energy"`
		} `json:"analyzer_output"`
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	return r.Analysis.Energy
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
	f := newField(t)
	port := freePort(t)
	agent := startAgent(t, append(f.environment(), "FFMPEG_AGENT_HARDWARE_SYSFS_PATH="+tree.Sys(),
		"FFMPEG_AGENT_HARDWARE_NVML_LIBRARY="+nvml.Library, "FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS=127.0.0.1",
		"FFMPEG_AGENT_EXPORTERS_GPU_ENABLED=true", fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_GPU_PORT=%d", port)), append(f.flags(), "--metrics-port", "0", "--heartbeat-interval", cardsBeat.String())...)
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

	job := f.submit(ffmpegtest.Long())
	f.ffmpegBelow(f.dir)
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
	heartbeatsUnmoved(t, f.master, since)
	resp, err := http.Post(f.server.URL+"/jobs/"+job.ID+"/cancel", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	f.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job.ID })

	a := resultAccount(t, f.master, job.ID)
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
