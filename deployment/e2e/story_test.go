//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// worker is the machine that the story is about.
type worker struct {
	*master
	live   *live
	before map[string]bool // files, before anything was installed
}

// newWorker prepares what lies outside the agent: the master, inputs, an editor.
func newWorker(t *testing.T) *worker {
	if err := os.WriteFile("/usr/local/bin/nano", []byte(nano), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MASTER_API_KEY", firstKey)
	for _, line := range []string{
		"install -d -m 755 /home/alice && ffmpeg -nostdin -v error -f lavfi -i testsrc2=size=320x240:rate=25:duration=2 -y /home/alice/clip.mp4",
		"install -d -m 1777 /srv/media",
		"rm -f /var/lib/devmaster/state.json", "udevadm control --reload || true",
	} {
		if out, err := try(line); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	w := &worker{master: startMaster(t, firstKey)}
	w.live = startLive(t)
	w.before = files(t)
	return w
}

// TestStory is a service's life, from its installation to its purge.
func TestStory(t *testing.T) {
	w := newWorker(t)
	for _, step := range []struct {
		name string
		do   func(*testing.T, *worker)
	}{
		{"install the package and start it, as README.md says", installPackage},
		{"its hardening, and what it leaves open", hardening},
		{"run a job: input from a home, output for others", runJob},
		{"limits of a job", jobLimits},
		{"its log reads as a person would, and has priorities", logs},
		{"kill -9 in a job: back, and the job is run again", killed},
		{"a hang: the watchdog restarts it", hangs},
		{"systemctl stop in a job: it finishes and is reported", stopped},
		{"reload", reloaded},
		{"reload of a broken file changes nothing, and names file and line", brokenReload},
		{"a start that fails names the reason, and succeeds once it is corrected", failedStart},
		{"a new key in its file", newKey},
		{"upgrade in a job, with a configuration that the operator has changed", upgraded},
		{"purge", purged},
		{"install it by hand, as README.md says", byHand},
		{"install.sh: install, upgrade, uninstall, purge", installScript},
	} {
		fmt.Printf("\n=== %s\n", step.name)
		begun := time.Now()
		if !t.Run(step.name, func(t *testing.T) { step.do(t, w) }) {
			t.FailNow()
		}
		say("(%s)", time.Since(begun).Round(100*time.Millisecond))
	}
}

// TestLimits is the part of the story that needs the controllers of cgroup v2.
func TestLimits(t *testing.T) {
	w := newWorker(t)
	installPackage(t, w)
	jobLimits(t, w)
	outOfMemory(t, w)
	killed(t, w)
}

func installPackage(t *testing.T, w *worker) {
	begun := time.Now()
	for i, line := range readmeBlock(t, "Installing it", 0) {
		if i == 0 {
			line = "cd previous && " + line
		}
		shell(t, line)
	}
	say("registered %s after apt install began", w.registeredSince(t, begun))
	if state := unitProperty(t, "ActiveState"); state != "active" {
		t.Errorf("the unit is %s, want active", state)
	}
	waitFor(t, "the status text", func() bool { return strings.Contains(unitProperty(t, "StatusText"), "(worker)") })
	say("status text: %s", unitProperty(t, "StatusText"))
	wantWholeSandbox(t)
	for line, want := range map[string]string{
		"stat -c '%a %U' /var/lib/ffmpeg-agent":    "700 ffmpeg",
		"stat -c '%a %U:%G' /etc/ffmpeg-agent/key": "640 root:ffmpeg",
		"id -nG ffmpeg":                        "ffmpeg video render rapl",
		"getent passwd ffmpeg | cut -d: -f6,7": "/var/lib/ffmpeg-agent:/usr/sbin/nologin",
		"man -w agent agent-status | wc -l":    "2",
		"bash -ic 'source /usr/share/bash-completion/bash_completion; _completion_loader agent; complete -p agent' 2>/dev/null | tail -n 1": "complete -o default -F __start_agent agent",
	} {
		out, err := try(line)
		if got := strings.TrimSpace(out); err != nil || !sameWords(got, want) {
			t.Errorf("%s: got %q, %v, want %q", line, got, err, want)
		}
	}
	if out, err := try("systemd-analyze verify ffmpeg-agent.service"); err != nil || strings.Contains(out, "ffmpeg-agent") {
		t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
	// Without a device of the class, udevadm only tells whether it understands the rule.
	if out, err := try("udevadm test /sys/class/net/lo"); strings.Contains(out, "60-ffmpeg-agent.rules:") {
		t.Errorf("udev does not understand the rule: %v: %s", err, out)
	}
}

// wantWholeSandbox fails if the agent does not require the sandbox, or lacks a layer of it that this
// kernel has. It knows that once FFmpeg has run.
func wantWholeSandbox(t *testing.T) {
	t.Helper()
	var out string
	waitFor(t, "the first FFmpeg", func() bool {
		out, _ = try("agent status --json")
		return strings.Contains(out, "landlock") && !strings.Contains(out, "not known yet")
	})
	var status struct {
		Sandbox struct {
			Mode   string
			Layers []struct{ Name, Missing, Lacks string }
		}
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sandbox := status.Sandbox
	if sandbox.Mode != "require" || len(sandbox.Layers) == 0 {
		t.Errorf("got sandbox %+v, want it required", sandbox)
	}
	for _, layer := range sandbox.Layers {
		if layer.Missing != "" || lacksOfThisKernel(t, layer.Lacks) {
			t.Errorf("sandbox: %s: missing %q, lacks %q", layer.Name, layer.Missing, layer.Lacks)
		}
	}
	say("sandbox: %s, %d layers", sandbox.Mode, len(sandbox.Layers))
}

// lacksOfThisKernel reports whether a list such as "truncation (Linux 6.2)" names what the running
// kernel has.
func lacksOfThisKernel(t *testing.T, lacks string) bool {
	t.Helper()
	version := func(text string) (major, minor int) {
		if _, err := fmt.Sscanf(text, "%d.%d", &major, &minor); err != nil {
			t.Fatalf("no version of a kernel: %q", text)
		}
		return major, minor
	}
	major, minor := version(shell(t, "uname -r"))
	for _, part := range strings.Split(lacks, "(Linux ")[1:] {
		if m, n := version(part); m < major || m == major && n <= minor {
			return true
		}
	}
	return lacks != "" && !strings.Contains(lacks, "(Linux ")
}

func sameWords(a, b string) bool {
	count := map[string]int{}
	for _, w := range strings.Fields(a) {
		count[w]++
	}
	for _, w := range strings.Fields(b) {
		count[w]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// maxExposure is the goal for systemd-analyze security, from 0 (safe) to 10.
const maxExposure = 2.0

func hardening(t *testing.T, _ *worker) {
	out := shell(t, "systemd-analyze security --no-pager ffmpeg-agent.service | grep -v ✓")
	match := regexp.MustCompile(`exposure level for ffmpeg-agent.service: ([0-9.]+)`).FindStringSubmatch(out)
	if match == nil {
		t.Fatalf("no figure in %s", out)
	}
	if exposure, err := strconv.ParseFloat(match[1], 64); err != nil || exposure > maxExposure {
		t.Errorf("exposure %s, want at most %.1f", match[1], maxExposure)
	}
	say("systemd-analyze security: %s; what is left open:", match[1])
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "✗" {
			say("  %-48s %s", fields[1], fields[len(fields)-1])
		}
	}
	// Inside the unit: devices of others than the standard ones can be opened, the system is
	// read-only, there are no capabilities.
	pid := mainPID(t)
	inside := fmt.Sprintf("nsenter -t %d -m -- ", pid)
	if out, err := try(inside + "touch /usr/bin/x /etc/x"); err == nil {
		t.Errorf("the unit can write to /usr and /etc: %s", out)
	}
	for _, path := range []string{"/home/alice/clip.mp4", "/dev/null", "/proc/stat", "/sys/class"} {
		if out, err := try(inside + "ls " + path); err != nil {
			t.Errorf("the unit does not see %s: %s", path, out)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the agent's process lacks %q", want)
		}
	}
}

func runJob(t *testing.T, w *worker) {
	id := w.submit(t, protocol.JobRequest{Parameters: map[string]any{"input": "/home/alice/clip.mp4", "output": "/srv/media/clip.mp4", "preset": "ultrafast"}})
	result := w.await(t, id, protocol.StatusCompleted)
	say("completed; notes: %s", notes(result))
	shell(t, "ffprobe -v error -show_entries format=duration -of csv=p=0 /srv/media/clip.mp4")
	if out, err := try("stat -c '%a %U' /srv/media/clip.mp4"); err != nil || strings.TrimSpace(out) != "644 ffmpeg" {
		t.Errorf("the output is %q, %v, want 644 ffmpeg", out, err)
	}
	shell(t, "agent report "+id+" | head -n 3")
}

// jobLimits compares the limits of a job with the files of its cgroup. Where cgroup v2 has no
// controllers, the job's result must say that no controller bounds it.
func jobLimits(t *testing.T, w *worker) {
	request := w.live.job("limits")
	request.WrapperConstraints = &protocol.Constraints{CPUMax: "50000 100000", MemoryMaxMB: 512, CPUWeight: 50}
	device := blockDevice()
	if device != "" {
		request.WrapperConstraints.IOMax = device + " wbps=1048576"
	}
	id := w.submit(t, request)
	dir := cgroupOf(t, awaitFFmpeg(t))
	say("the job's cgroup: %s", dir)
	unit := "/system.slice/ffmpeg-agent.service/"
	if !strings.Contains(dir, unit) {
		t.Errorf("the job's cgroup is not below that of the unit, %s", unit)
	}
	raw, err := os.ReadFile(filepath.Join(strings.SplitAfter(dir, unit)[0], "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	controllers := strings.Fields(string(raw))
	if len(controllers) > 0 {
		want := map[string]string{"cpu.max": "50000 100000", "memory.max": "536870912", "cpu.weight": "50"}
		if device != "" {
			want["io.max"] = device + " rbps=max wbps=1048576 riops=max wiops=max"
		}
		for file, want := range want {
			if got := limitOf(dir, unit, file); got != want {
				t.Errorf("%s is %q, want %q", file, got, want)
			} else {
				say("%s: %s", file, got)
			}
		}
	}
	w.live.finish("limits")
	text := notes(w.await(t, id, protocol.StatusCompleted))
	say("notes: %s", text)
	wants := []string{"cpu.max 50000 100000", "memory limited to 512 MiB by memory.max", "cpu.weight"}
	if len(controllers) == 0 {
		wants = []string{"not enabled for the agent's cgroup"}
	}
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("the notes lack %q", want)
		}
	}
}

// outOfMemory has the kernel kill FFmpeg for its memory limit, which must not end the unit.
func outOfMemory(t *testing.T, w *worker) {
	pid := mainPID(t)
	request := protocol.JobRequest{Parameters: map[string]any{"duration": 10, "resolution": "1920x1080"}}
	request.WrapperConstraints = &protocol.Constraints{MemoryMaxMB: 40}
	id := w.submit(t, request)
	result := w.await(t, id, protocol.StatusFailed)
	say("failed: %s: %s", result.FailureReason, result.Error)
	if result.FailureReason != protocol.ReasonResourceError || !strings.Contains(result.Error, "out of memory") {
		t.Errorf("got %s: %s, want resource_error: out of memory", result.FailureReason, result.Error)
	}
	if now := mainPID(t); now != pid {
		t.Errorf("the agent was restarted: process %d is now %d", pid, now)
	}
}

// limitOf reads a limit from the outermost cgroup of a job, which has them.
func limitOf(dir, unit, file string) string {
	below := strings.SplitAfter(dir, unit)
	outermost, _, _ := strings.Cut(below[1], "/")
	raw, _ := os.ReadFile(filepath.Join(below[0], outermost, file))
	return strings.TrimSpace(string(raw))
}

// blockDevice is the device of the disk, as in io.max; empty in a container.
func blockDevice() string {
	raw, err := os.ReadFile("/sys/class/block/vda/dev")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// ffmpegs lists the FFmpeg processes of this machine.
func ffmpegs() (pids []string) {
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		if comm, err := os.ReadFile(name); err == nil && string(comm) == "ffmpeg\n" {
			pids = append(pids, filepath.Base(filepath.Dir(name)))
		}
	}
	return pids
}

// awaitFFmpeg waits until FFmpeg encodes for a job, and returns its process.
func awaitFFmpeg(t *testing.T) string {
	t.Helper()
	var pid string
	waitFor(t, "FFmpeg", func() bool {
		out, _ := try("agent status --json")
		var status struct {
			Jobs []struct {
				PID      int
				Progress struct{ Frames int }
			}
		}
		if json.Unmarshal([]byte(out), &status) != nil || len(status.Jobs) != 1 || status.Jobs[0].Progress.Frames == 0 {
			return false
		}
		pid = strconv.Itoa(status.Jobs[0].PID)
		return status.Jobs[0].PID > 0
	})
	return pid
}

// cgroupOf is the directory of a process's cgroup v2.
func cgroupOf(t *testing.T, pid string) string {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if path, found := strings.CutPrefix(strings.TrimSpace(line), "0::"); found {
			if _, err := os.Stat("/sys/fs/cgroup/unified"); err == nil {
				return "/sys/fs/cgroup/unified" + path
			}
			return "/sys/fs/cgroup" + path
		}
	}
	t.Fatalf("process %s is in no cgroup v2", pid)
	return ""
}

func logs(t *testing.T, _ *worker) {
	// A wrong setting is an error, of several lines maybe.
	if out, err := try("systemd-run --quiet --wait --collect --unit=wrong /usr/bin/agent run --poll-interval never"); err == nil {
		t.Errorf("an agent with a wrong setting ended with 0: %s", out)
	}
	out, err := try("journalctl --sync; journalctl --no-pager -o json -u ffmpeg-agent -u wrong -t agent")
	if err != nil {
		t.Fatal(err)
	}
	priorities := map[string]int{}
	for line := range strings.Lines(out) {
		var entry struct {
			MESSAGE  string
			PRIORITY string
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		priorities[entry.PRIORITY]++
		if strings.HasPrefix(entry.MESSAGE, "{") || strings.HasPrefix(entry.MESSAGE, "<") || regexp.MustCompile(`^\d\d:|^\d{4}-`).MatchString(entry.MESSAGE) {
			t.Errorf("not for people: %s", entry.MESSAGE)
		}
		want := map[bool]string{true: "3", false: entry.PRIORITY}[strings.Contains(entry.MESSAGE, "poll_interval")]
		if entry.PRIORITY != want {
			t.Errorf("priority %s, want %s: %s", entry.PRIORITY, want, entry.MESSAGE)
		}
	}
	if priorities["6"] == 0 || priorities["3"] == 0 {
		t.Errorf("lines by priority: %v, want some of 6 and 3", priorities)
	}
	shell(t, "journalctl --no-pager -u ffmpeg-agent -t agent | head -n 6")
	say("lines by priority: %v", priorities)
}

func killed(t *testing.T, w *worker) {
	id := w.submit(t, w.live.job("killed"))
	encoder := awaitFFmpeg(t)
	begun, pid := time.Now(), mainPID(t)
	shell(t, fmt.Sprintf("kill -9 %d", pid))
	waitFor(t, "the end of FFmpeg", func() bool { return syscall.Kill(atoi(t, encoder), 0) != nil })
	say("back and registered %s after kill -9", w.registeredSince(t, begun))
	waitFor(t, "the second attempt", func() bool { return w.job(t, id).RetryCount == 1 })
	awaitFFmpeg(t)
	say("running again %s after kill -9", time.Since(begun).Round(100*time.Millisecond))
	w.live.finish("killed")
	if result := w.await(t, id, protocol.StatusCompleted); result.Attempt != 2 {
		t.Errorf("attempt %d completed, want 2", result.Attempt)
	}
	say("completed in the second attempt")
}

func hangs(t *testing.T, w *worker) {
	id := w.submit(t, w.live.job("hangs"))
	awaitFFmpeg(t)
	begun, pid := time.Now(), mainPID(t)
	shell(t, fmt.Sprintf("kill -STOP %d", pid))
	waitFor(t, "another process", func() bool { now := mainPID(t); return now != pid && now != 0 })
	say("another process %s after SIGSTOP, registered after %s", time.Since(begun).Round(time.Second), w.registeredSince(t, begun))
	if out, err := try("journalctl --no-pager -u ffmpeg-agent | grep 'Watchdog timeout'"); err != nil {
		t.Errorf("it was not the watchdog: %s", out)
	}
	w.live.finish("hangs")
	w.await(t, id, protocol.StatusCompleted)

	// A part of the agent that hangs, rather than the whole process.
	begun, pid = time.Now(), mainPID(t)
	shell(t, "agent debug hang agent/heartbeat --for 10m")
	waitFor(t, "another process", func() bool { now := mainPID(t); return now != pid && now != 0 })
	say("another process %s after the heartbeat hung, registered after %s", time.Since(begun).Round(time.Second), w.registeredSince(t, begun))
}

func stopped(t *testing.T, w *worker) {
	id := w.submit(t, w.live.job("stopped"))
	awaitFFmpeg(t)
	stop := exec.Command("systemctl", "stop", "ffmpeg-agent")
	if err := stop.Start(); err != nil {
		t.Fatal(err)
	}
	say("# systemctl stop ffmpeg-agent")
	waitFor(t, "the drain", func() bool {
		return strings.HasPrefix(unitProperty(t, "StatusText"), "Draining: waiting for 1 running job")
	})
	say("status text: %s", unitProperty(t, "StatusText"))
	if s := w.job(t, id).Status; s.Terminal() {
		t.Errorf("the job is %s during the drain", s)
	}
	w.live.finish("stopped")
	if err := stop.Wait(); err != nil {
		t.Errorf("systemctl stop: %v", err)
	}
	if result := w.job(t, id); result.Status != protocol.StatusCompleted || result.RetryCount != 0 {
		t.Errorf("the job is %s after %d retries, want completed in its first attempt", result.Status, result.RetryCount)
	}
	if state, code := unitProperty(t, "ActiveState"), unitProperty(t, "ExecMainStatus"); state != "inactive" || code != "0" {
		t.Errorf("the unit is %s with exit status %s, want inactive and 0", state, code)
	}
	if left := ffmpegs(); len(left) > 0 {
		t.Errorf("FFmpeg still runs: %v", left)
	}
	say("the job has finished and is reported")
	begun := time.Now()
	shell(t, "systemctl start ffmpeg-agent")
	w.registeredSince(t, begun)
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
