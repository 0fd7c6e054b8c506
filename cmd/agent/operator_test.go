package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// TestAnOperatorsRound: a real agent with a job, seen and steered through its socket
// and its metrics port.
func TestAnOperatorsRound(t *testing.T) {
	f := newField(t)
	port := freePort(t)
	agent := startAgent(t, append(f.environment(), "FFMPEG_AGENT_DEBUG_FAULT_INJECTION=true", "FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS=127.0.0.1"),
		append(f.flags(), "--metrics-port", fmt.Sprint(port))...)
	job := f.submit(ffmpegtest.Long())
	f.ffmpegBelow(f.dir)
	socket := filepath.Join(f.dir, "agent.sock")

	status := func() messages.Status {
		t.Helper()
		code, out, errs := command(t, "status", "--socket", socket, "--json")
		var s messages.Status
		if err := json.Unmarshal([]byte(out), &s); code != exitOK || err != nil {
			t.Fatalf("status: exit %d, %v: %s%s", code, err, out, errs)
		}
		return s
	}
	waitFor(t, "the job's progress and power in the status", func() bool {
		s := status()
		return len(s.Jobs) == 1 && s.Jobs[0].Progress.Frames > 0 && s.Jobs[0].Power != nil
	})
	s := status()
	if s.PID != agent.Process.Pid || s.Session == nil || len(s.Actors) < 10 || s.Cgroups == "" {
		t.Errorf("status is %+v", s)
	}
	if _, out, _ := command(t, "status", "--socket", socket); !strings.Contains(out, job.ID) || !strings.Contains(out, "heartbeat") {
		t.Errorf("status shows:\n%s", out)
	}
	for path, want := range map[string]string{"/metrics": "ffmpeg_agent_heartbeats", "/health": "", "/ready": `"ready": true`, "/status": job.ID} {
		body := get(t, fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
		if !strings.Contains(body, want) {
			t.Errorf("%s shows:\n%s", path, body)
		}
	}

	// A crash on request: counted, and the job goes on.
	if code, _, errs := command(t, "debug", "crash", "agent/meter", "--socket", socket); code != exitOK {
		t.Errorf("debug crash: exit %d: %s", code, errs)
	}
	waitFor(t, "the counted restart", func() bool {
		for _, a := range status().Actors {
			if a.Path == "agent/meter" {
				return a.Restarts == 1 && a.State == "running"
			}
		}
		return false
	})

	// Drain, then cancel the job, so that the drain ends: exit 0.
	if code, out, errs := command(t, "drain", "--socket", socket); code != exitOK || !strings.Contains(out, job.ID) {
		t.Errorf("drain: exit %d: %s%s", code, out, errs)
	}
	resp, err := http.Post(f.server.URL+"/jobs/"+job.ID+"/cancel", "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := agent.Wait(); err != nil {
		t.Errorf("the drained agent ended with %v", err)
	}
	f.await("the result", func(e devmaster.Event) bool {
		return e.Kind == devmaster.ResultAccepted && e.JobID == job.ID && e.Status == protocol.StatusCanceled
	})
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}

	// The report of a stopped agent comes from its journal; status says that none runs.
	t.Setenv("FFMPEG_AGENT_DATA_DIR", f.dir)
	_, raw, _ := f.master.Result(job.ID)
	if code, out, errs := command(t, "report", job.ID, "--json"); code != exitOK || strings.TrimSpace(out) != string(raw) {
		t.Errorf("report --json: exit %d: %s%s", code, out, errs)
	}
	if code, out, _ := command(t, "report", job.ID); code != exitOK || !strings.Contains(out, "canceled") {
		t.Errorf("report: exit %d:\n%s", code, out)
	}
	if code, _, errs := command(t, "status"); code != exitFailed || !strings.Contains(errs, socket) {
		t.Errorf("status without an agent: exit %d: %s", code, errs)
	}
}

// TestATakenPortCostsThatPortOnly: the agent says which, and works.
func TestATakenPortCostsThatPortOnly(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	f := newField(t)
	agent := startAgent(t, append(f.environment(), "FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS=127.0.0.1"),
		append(f.flags(), "--metrics-port", fmt.Sprint(port))...)
	waitFor(t, "the complaint", func() bool {
		return strings.Contains(agent.log(), fmt.Sprint(port)) && strings.Contains(agent.log(), "metrics_port")
	})
	job := f.submit(map[string]any{"resolution": "160x120", "duration": 1, "preset": "ultrafast"})
	f.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job.ID })
	if _, out, _ := command(t, "status", "--socket", filepath.Join(f.dir, "agent.sock")); !strings.Contains(out, "not served") || !strings.Contains(out, fmt.Sprint(port)) {
		t.Errorf("status does not show it:\n%s", out)
	}
	// Free again, it is taken without a restart.
	taken.Close()
	get(t, fmt.Sprintf("http://127.0.0.1:%d/health", port))
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func get(t *testing.T, url string) string {
	t.Helper()
	var body strings.Builder
	waitFor(t, url, func() bool {
		resp, err := http.Get(url)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body.Reset()
		buffer := make([]byte, 1<<20)
		for {
			n, err := resp.Body.Read(buffer)
			body.Write(buffer[:n])
			if err != nil {
				break
			}
		}
		return resp.StatusCode == http.StatusOK
	})
	http.DefaultClient.CloseIdleConnections()
	return body.String()
}
