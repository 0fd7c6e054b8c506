package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"go.uber.org/zap"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// serveControl serves a control socket until stop is called.
func serveControl(t *testing.T, socket string, h control.Handlers) (stop func()) {
	t.Helper()
	if h.Status == nil {
		h.Status = func() messages.Status { return messages.Status{} }
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- control.NewServer(socket, h, zap.NewNop()).Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serving the control socket: %v", err)
		}
	})
	t.Cleanup(stop)
	waitFor(t, "control socket", func() bool { _, err := control.NewClient(socket).Status(t.Context()); return err == nil })
	return stop
}

func busyStatus() messages.Status {
	return messages.Status{
		Version: "v1.2.3", PID: 4711, StartedAt: ago(53 * time.Hour), At: noon, Address: "worker-7", Slots: 4, Draining: true,
		Session: &messages.Session{NodeID: "node-42", Address: "worker-7", Master: "https://master:8080", Since: ago(125 * time.Minute)},
		Heartbeat: &messages.HeartbeatStatus{
			LastAttempt: of(ago(2 * time.Second)), LastSuccess: of(ago(92 * time.Second)), Sent: 250, Failed: 3, Error: "connection refused",
		},
		Checks: []messages.Check{{Name: "ffmpeg"}, {Name: "disk", Reason: "4.1 GiB free, 5 GiB are needed"}, {Name: "session"}},
		Jobs: []messages.JobStatus{
			{
				Key: job.Key{JobID: "job-a", Attempt: 1}, Scenario: "720p30-h264", Phase: job.PhaseRun, Encoder: "libx264",
				Progress: job.Progress{Percent: 42.4, FPS: 118.25, Speed: 3.94}, ETA: of(job.Seconds(75 * time.Second)),
				Energy: of(energy.Joules(321.98)), Power: of(energy.Watts(35.14)), Source: energy.Measured, PID: 4815,
			},
			{Key: job.Key{JobID: "job-b", Attempt: 3}, Phase: job.PhasePrepare, Source: energy.Unavailable},
			{Key: job.Key{JobID: "job-c", Attempt: 1}, Phase: job.PhaseFetch, Source: energy.Unavailable, Fetch: &job.Fetch{Bytes: 300 << 20, Total: 1 << 30, Resumed: 2}},
			{Key: job.Key{JobID: "job-d", Attempt: 1}, Phase: job.PhaseFetch, Source: energy.Unavailable, Fetch: &job.Fetch{Bytes: 5 << 20, Total: -1, Segment: 3, Segments: 8}},
		},
		Actors: []messages.ActorStatus{
			{Path: "agent", State: "running"},
			{Path: "agent/heartbeat", State: "running", MailboxDepth: 1},
			{Path: "agent/jobs", State: "running"},
			{Path: "agent/jobs/job-a#1", State: "running"},
			{Path: "agent/jobs/job-b#3", State: "running"},
			{Path: "agent/meter", State: "restarting", Restarts: 3, Failures: 3, LastFailure: "index out of range\n[5]", LastFailureAt: of(ago(20 * time.Millisecond))},
			{Path: "agent/samplers", State: "running"},
			{Path: "agent/samplers/power", State: "hung", Abandoned: 2, Dropped: 7},
		},
		Samplers: []messages.SamplerHealth{
			{Name: "power", Source: "rapl", Zones: 3, Since: ago(53 * time.Hour)},
			{Name: "nvml", Error: "no driver", Since: ago(time.Hour)},
		},
		Engine: &messages.EngineStatus{Since: ago(2 * time.Hour), Error: "this process may not use /var/run/docker.sock"},
		Power:  of(energy.Watts(83.26)), Source: energy.Measured,
		Journal: job.JournalStats{Unfinished: 2, Unsent: 3, OldestAt: of(ago(250 * time.Second)), Sent: 120, DeadLetters: 1},
		Counts:  messages.Counts{JobsCompleted: 117, JobsFailed: 2, JobsCanceled: 2, Completed: 117, Failed: 4, Canceled: 2, Superseded: 1},
		Host: &messages.HostStatus{
			CPULoadPercent: of(97.2), RAMFreeBytes: of(uint64(12) << 30), DiskFreeBytes: of(uint64(4200) << 20), DiskTotalBytes: of(uint64(200) << 30),
			TemperatureC: of(81.0), Throttled: true,
		},
		Cgroups: "/sys/fs/cgroup/system.slice/ffmpeg-agent.service",
		Configuration: &messages.ConfigurationStatus{
			File: "/etc/ffmpeg-agent/agent.yaml", LoadedAt: ago(time.Hour), Restart: []string{"metrics_port", "log.format"},
			Error: "configuration: poll_interval \"10\" (file /etc/ffmpeg-agent/agent.yaml:3): a number without a unit", ErrorAt: of(ago(time.Minute)),
		},
		Sandbox: messages.Sandbox{
			Mode: "auto",
			Layers: []messages.SandboxLayer{
				{Name: "no_new_privs"}, {Name: "landlock", Lacks: "TCP ports (Linux 6.7)"}, {Name: "seccomp", Missing: "function not implemented"},
			},
			Encoders: []messages.SandboxedEncoder{{Name: "h264_nvenc", Without: []string{"landlock"}}},
		},
	}
}

// freshStatus is the status of an agent that has just started.
func freshStatus() messages.Status {
	return messages.Status{
		Version: "v1.2.3", PID: 1, StartedAt: ago(1500 * time.Millisecond), At: noon, Address: "worker-7", Slots: 1, Source: energy.Unavailable,
		Jobs:     []messages.JobStatus{{Key: job.Key{JobID: "j", Attempt: 1}, Phase: job.PhaseRun, Encoder: "libx265", Source: energy.Unavailable}},
		Host:     &messages.HostStatus{},
		Samplers: []messages.SamplerHealth{},
	}
}

func TestStatusText(t *testing.T) {
	for name, status := range map[string]messages.Status{"status-busy": busyStatus(), "status-fresh": freshStatus(), "status-empty": {}} {
		t.Run(name, func(t *testing.T) { golden(t, name, statusText(&status)) })
	}
}

// Job ids, errors and names come from the master.
func TestStatusTextHasNoControlCharacters(t *testing.T) {
	const evil = "x\x1b[2J\r\n\x07\u202e\u009b31my"
	s := busyStatus()
	s.Jobs[0].Key.JobID, s.Jobs[0].Scenario, s.Jobs[0].Encoder = evil, evil, evil
	s.Session.NodeID, s.Session.Master, s.Address, s.Version, s.Cgroups = evil, evil, evil, evil, evil
	s.Heartbeat.Error, s.Checks[0].Name, s.Checks[1].Reason = evil, evil, evil
	s.Actors[3].Path, s.Actors[3].State, s.Actors[3].LastFailure = "agent/"+evil, evil, evil
	s.Samplers[0].Name, s.Samplers[0].Source, s.Samplers[1].Error = evil, evil, evil
	s.Sandbox.Layers[1].Lacks, s.Sandbox.Layers[2].Missing, s.Sandbox.Encoders[0].Name = evil, evil, evil
	text := statusText(&s)
	busy := busyStatus()
	if got, want := strings.Count(text, "\n"), strings.Count(statusText(&busy), "\n"); got != want {
		t.Errorf("got %d lines, want %d", got, want)
	}
	for _, r := range strings.ReplaceAll(text, "\n", "") {
		if !unicode.IsPrint(r) {
			t.Fatalf("got %q in\n%q, want no control characters", r, text)
		}
	}
}

func TestStatusFindsTheAgent(t *testing.T) {
	dir := shortDir(t)
	socket := filepath.Join(dir, "agent.sock")
	serveControl(t, socket, control.Handlers{Status: busyStatus})
	config := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(config, []byte("control:\n  socket: "+socket+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken.yaml")
	if err := os.WriteFile(broken, []byte("jobs: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		env  map[string]string
		args []string
	}{
		"by --socket":                         {args: []string{"--socket", socket}},
		"by --config":                         {args: []string{"--config", config}},
		"by the data directory":               {env: map[string]string{"FFMPEG_AGENT_DATA_DIR": dir}},
		"by the variable of control.socket":   {env: map[string]string{"FFMPEG_AGENT_CONTROL_SOCKET": socket}},
		"by --socket, with a broken --config": {args: []string{"--socket", socket, "--config", broken}},
		"in spite of a broken --config":       {env: map[string]string{"FFMPEG_AGENT_DATA_DIR": dir}, args: []string{"--config", broken}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			out, err := operate(t, append([]string{"status"}, test.args...)...)
			busy := busyStatus()
			if err != nil || !strings.HasSuffix(out, statusText(&busy)) { // perhaps after a warning
				t.Errorf("got %v:\n%s\nwant the status of the agent", err, out)
			}
		})
	}
	if _, err := operate(t, "status", "--config", broken); !isUsage(err) {
		t.Errorf("broken configuration: got %v, want a usage error", err)
	}
}

func TestStatusAsJSON(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	serveControl(t, socket, control.Handlers{Status: busyStatus})
	out, err := operate(t, "status", "--json", "--socket", socket)
	if err != nil {
		t.Fatal(err)
	}
	var got messages.Status
	if err := json.Unmarshal([]byte(out), &got); err != nil || !reflect.DeepEqual(got, busyStatus()) {
		t.Errorf("got %v: %s, want the status", err, out)
	}
}

func TestCommandsWithoutAnAgentNameTheSocket(t *testing.T) {
	dir := shortDir(t)
	t.Setenv("FFMPEG_AGENT_DATA_DIR", dir)
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"status", "--watch"}, {"drain"}, {"drain", "--wait"}, {"reload"},
		{"debug", "crash", "agent"}, {"debug", "hang", "agent"},
	} {
		out, err := operate(t, args...)
		if !errors.Is(err, control.ErrNotRunning) || isUsage(err) || out != "" {
			t.Errorf("%v: got %v, want %v; output: %s", args, err, control.ErrNotRunning, out)
			continue
		}
		if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, filepath.Join(dir, "agent.sock")) || !strings.Contains(text, "--socket") {
			t.Errorf("%v: got %q, want one line with the socket and --socket", args, text)
		}
	}
}

// watcher records what a watched status writes and calls onWrite with the number of writes.
type watcher struct {
	written []string
	onWrite func(n int)
}

func (w *watcher) Write(b []byte) (int, error) {
	w.written = append(w.written, string(b))
	w.onWrite(len(w.written))
	return len(b), nil
}

func TestWatchContinuesAfterAgentRestart(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		t.Run(fmt.Sprint("as JSON ", asJSON), func(t *testing.T) {
			socket := filepath.Join(shortDir(t), "agent.sock")
			stop := serveControl(t, socket, control.Handlers{Status: busyStatus})
			ctx, cancel := context.WithTimeout(t.Context(), hang)
			defer cancel()
			w := &watcher{onWrite: func(n int) {
				switch n {
				case 2:
					stop()
				case 3:
					serveControl(t, socket, control.Handlers{Status: busyStatus})
				case 4:
					cancel()
				}
			}}
			if err := watchStatus(ctx, control.NewClient(socket), time.Millisecond, w, asJSON); err != nil {
				t.Fatal(err)
			}
			for i, text := range w.written {
				want := "worker-7"
				if i == 2 {
					want = control.ErrNotRunning.Error()
				}
				if !strings.Contains(text, want) {
					t.Errorf("update %d: got %s, want %q in it", i, text, want)
				}
				if asJSON && (!json.Valid([]byte(text)) || strings.Count(text, "\n") != 1) {
					t.Errorf("update %d: got %s, want one line of JSON", i, text)
				}
			}
			if len(w.written) != 4 {
				t.Errorf("got %d updates, want 4", len(w.written))
			}
		})
	}
}
