package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// testbed is a master in this process and a real agent connected to it.
type testbed struct {
	dir     string
	master  *devmaster.Master
	server  *http.Server
	url     string
	agent   *exec.Cmd
	ended   chan struct{} // closed when the agent has exited
	control *control.Client
}

// waitTimeout limits each wait for the agent.
const waitTimeout = 3 * time.Minute

// startTestbed starts a master and an agent with settings by configuration key, such as
// hardware.sysfs_path.
func startTestbed(ctx context.Context, binary string, settings map[string]string) (*testbed, error) {
	dir, err := os.MkdirTemp("/tmp", "bench-") // short, for the path of the socket
	if err != nil {
		return nil, err
	}
	b := &testbed{dir: dir, ended: make(chan struct{})}
	if b.master, err = devmaster.New(devmaster.Config{FenceAttempts: true}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, b.master.Close(), os.RemoveAll(dir))
	}
	b.server = &http.Server{Handler: b.master.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go b.server.Serve(listener) //nolint:errcheck // ends with close
	b.url = "http://" + listener.Addr().String()
	if err := b.start(binary, settings); err != nil {
		return nil, errors.Join(err, b.close())
	}
	b.control = control.NewClient(filepath.Join(dir, "agent.sock"))
	if err := b.await(ctx, "the agent's registration", func(s messages.Status) bool { return s.Session != nil }); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// start starts the agent without this machine's own configuration.
func (b *testbed) start(binary string, settings map[string]string) error {
	config := filepath.Join(b.dir, "agent.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(b.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	b.agent = exec.Command(binary, "--config", config, "--register", "--master", b.url, "--allow-master-as-worker",
		"--metrics-port", "0")
	b.agent.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "FFMPEG_AGENT_") || strings.HasPrefix(v, "MASTER_")
	})
	set := map[string]string{"data_dir": b.dir, "exporters.cpu.enabled": "false", "exporters.ffmpeg.enabled": "false"}
	for key, value := range settings {
		set[key] = value
	}
	for key, value := range set {
		b.agent.Env = append(b.agent.Env, "FFMPEG_AGENT_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))+"="+value)
	}
	b.agent.Stdout, b.agent.Stderr = log, log
	if err := b.agent.Start(); err != nil {
		close(b.ended)
		return fmt.Errorf("starting %s: %w", binary, err)
	}
	go func() {
		b.agent.Wait() //nolint:errcheck // the log has the reason
		close(b.ended)
	}()
	return nil
}

// close stops the agent and the master, and removes their directory.
func (b *testbed) close() error {
	if b.agent != nil && b.agent.Process != nil {
		b.agent.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have exited
		b.agent.Process.Signal(syscall.SIGTERM) //nolint:errcheck // the second one stops its jobs
		select {
		case <-b.ended:
		case <-time.After(15 * time.Second):
			b.agent.Process.Kill() //nolint:errcheck // it may have exited
			<-b.ended
		}
	}
	return errors.Join(b.server.Close(), b.master.Close(), os.RemoveAll(b.dir))
}

// await waits until the agent has reached a state.
func (b *testbed) await(ctx context.Context, what string, reached func(messages.Status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	for {
		status, err := b.control.Status(ctx)
		if err == nil && reached(status) {
			return nil
		}
		select {
		case <-b.ended:
			log, _ := os.ReadFile(filepath.Join(b.dir, "log"))
			return fmt.Errorf("waiting for %s: the agent exited: %s", what, bytes.TrimSpace(log))
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// encodersProbed reports whether the agent has sent the list of working encoders to the master.
func (b *testbed) encodersProbed(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/nodes", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var list struct {
		Nodes []protocol.Node `json:"nodes"`
	}
	if json.NewDecoder(response.Body).Decode(&list) != nil || len(list.Nodes) == 0 {
		return false
	}
	_, probed := list.Nodes[0].Labels["encoders"]
	return probed
}

// awaitRunning waits until a number of jobs encode.
func (b *testbed) awaitRunning(ctx context.Context, jobs int) error {
	return b.await(ctx, fmt.Sprintf("%d running jobs", jobs), func(s messages.Status) bool {
		running := 0
		for _, j := range s.Jobs {
			if j.Progress.Frames > 0 {
				running++
			}
		}
		return running == jobs
	})
}

func (b *testbed) submit(parameters map[string]any) (string, error) {
	job, err := b.master.Submit(protocol.JobRequest{Scenario: "bench-h264", Parameters: parameters})
	return job.ID, err
}

// account waits for a job's result and reads its energy.
func (b *testbed) account(ctx context.Context, job string) (energy.Account, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	event, err := b.master.Await(ctx, func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job })
	if err != nil {
		return energy.Account{}, fmt.Errorf("waiting for job %s: %w", job, err)
	}
	_, raw, _ := b.master.Result(job)
	var result struct {
		Error    string `json:"error"`
		Analysis struct {
			Energy energy.Account `json:"energy"`
		} `json:"analyzer_output"`
	}
	if err := json.Unmarshal(raw, &result); err != nil {
		return energy.Account{}, fmt.Errorf("reading the result of job %s: %w", job, err)
	}
	if event.Status != protocol.StatusCompleted {
		return energy.Account{}, fmt.Errorf("job %s: %s: %s", job, event.Status, result.Error)
	}
	return result.Analysis.Energy, nil
}

// findChild returns the pid of a process's child that has an argument on its command line; 0
// if there is none.
func findChild(parent int, arg string) int {
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, _ := strconv.Atoi(filepath.Base(entry))
		stat, err := proc.ReadStat(pid)
		if err != nil || stat.Parent != parent {
			continue
		}
		line, err := os.ReadFile(filepath.Join(entry, "cmdline"))
		if err == nil && slices.Contains(strings.Split(string(line), "\x00"), arg) {
			return pid
		}
	}
	return 0
}
