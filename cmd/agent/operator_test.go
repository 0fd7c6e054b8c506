package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// An agent with a job, observed and drained through its control socket and its metrics port.
func TestOperatorCommandsOnRunningAgent(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	port := freePort(t)
	agent := startAgent(t, append(bed.environment(), "FFMPEG_AGENT_DEBUG_FAULT_INJECTION=true"),
		append(bed.flags(), "--metrics-port", fmt.Sprint(port))...)
	job := bed.submit(ffmpegtest.Long())
	bed.awaitFFmpeg()
	socket := filepath.Join(bed.dir, "agent.sock")

	status := func() messages.Status {
		t.Helper()
		code, out, errs := command(t, "status", "--socket", socket, "--json")
		var s messages.Status
		if err := json.Unmarshal([]byte(out), &s); code != exitOK || err != nil {
			t.Fatalf("status: exit status %d, %v: %s%s", code, err, out, errs)
		}
		return s
	}
	waitFor(t, "progress and power of the job", func() bool {
		s := status()
		return len(s.Jobs) == 1 && s.Jobs[0].Progress.Frames > 0 && s.Jobs[0].Power != nil
	})
	s := status()
	if s.PID != agent.Process.Pid || s.Session == nil || len(s.Actors) < 10 || s.Cgroups == "" {
		t.Errorf("incomplete status: %+v", s)
	}
	if _, out, _ := command(t, "status", "--socket", socket); !strings.Contains(out, job.ID) || !strings.Contains(out, "heartbeat") {
		t.Errorf("got status:\n%s\nwant the job and the heartbeat in it", out)
	}
	for path, want := range map[string]string{"/metrics": "ffmpeg_agent_heartbeats", "/health": "", "/ready": `"ready": true`, "/status": job.ID} {
		body := get(t, fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
		if !strings.Contains(body, want) {
			t.Errorf("%s: got\n%s\nwant %q in it", path, body, want)
		}
	}

	if code, _, errs := command(t, "debug", "crash", "agent/meter", "--socket", socket); code != exitOK {
		t.Errorf("debug crash: exit status %d: %s", code, errs)
	}
	waitFor(t, "restart of the meter", func() bool {
		for _, a := range status().Actors {
			if a.Path == "agent/meter" {
				return a.Restarts == 1 && a.State == "running"
			}
		}
		return false
	})

	if code, out, errs := command(t, "drain", "--socket", socket); code != exitOK || !strings.Contains(out, job.ID) {
		t.Errorf("drain: exit status %d: %s%s", code, out, errs)
	}
	bed.cancel(job.ID)
	agent.wantExit(t, exitOK)
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket still exists: %v", err)
	}

	// From here on the report comes from the journal.
	config := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(config, []byte("data_dir: "+bed.dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, raw, _ := bed.master.Result(job.ID)
	if code, out, errs := command(t, "report", job.ID, "--json", "--config", config); code != exitOK || strings.TrimSpace(out) != string(raw) {
		t.Errorf("report --json: exit status %d: %s%s", code, out, errs)
	}
	if code, out, _ := command(t, "report", job.ID, "--config", config); code != exitOK || !strings.Contains(out, "canceled") {
		t.Errorf("report: exit status %d:\n%s", code, out)
	}
	if code, _, errs := command(t, "status", "--config", config); code != exitFailed || !strings.Contains(errs, socket) {
		t.Errorf("status without an agent: exit status %d: %s", code, errs)
	}
}

func TestPortInUseDoesNotStopTheAgent(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	bed := newTestbed(t)
	agent := startAgent(t, bed.environment(),
		append(bed.flags(), "--metrics-port", fmt.Sprint(port))...)
	waitFor(t, "log line about the port", func() bool {
		return strings.Contains(agent.log(), fmt.Sprint(port)) && strings.Contains(agent.log(), "metrics_port")
	})
	bed.awaitResult(bed.submit(ffmpegtest.Quick()).ID, protocol.StatusCompleted)
	if _, out, _ := command(t, "status", "--socket", filepath.Join(bed.dir, "agent.sock")); !strings.Contains(out, "not served") || !strings.Contains(out, fmt.Sprint(port)) {
		t.Errorf("got status:\n%s\nwant port %d as not served", out, port)
	}
	// The agent tries again.
	taken.Close()
	get(t, fmt.Sprintf("http://127.0.0.1:%d/health", port))
}
