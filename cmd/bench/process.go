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

// field is a master in this process and a real agent that works for it.
type field struct {
	dir     string
	master  *devmaster.Master
	server  *http.Server
	url     string
	agent   *exec.Cmd
	ended   chan struct{} // when the agent has
	control *control.Client
}

// patience is how long anything is waited for.
const patience = 3 * time.Minute

// settle starts a master and an agent with settings by key, such as
// hardware.sysfs_path.
func settle(ctx context.Context, binary string, settings map[string]string) (*field, error) {
	dir, err := os.MkdirTemp("/tmp", "bench-") // short: it holds a socket
	if err != nil {
		return nil, err
	}
	f := &field{dir: dir, ended: make(chan struct{})}
	if f.master, err = devmaster.New(devmaster.Config{FenceAttempts: true}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, f.master.Close(), os.RemoveAll(dir))
	}
	f.server = &http.Server{Handler: f.master.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go f.server.Serve(listener) //nolint:errcheck // ends with leave
	f.url = "http://" + listener.Addr().String()
	if err := f.start(binary, settings); err != nil {
		return nil, errors.Join(err, f.leave())
	}
	f.control = control.NewClient(filepath.Join(dir, "agent.sock"))
	if err := f.until(ctx, "the agent's registration", func(s messages.Status) bool { return s.Session != nil }); err != nil {
		return nil, errors.Join(err, f.leave())
	}
	return f, nil
}

// start starts the agent, with nothing of this machine's own settings.
func (f *field) start(binary string, settings map[string]string) error {
	config := filepath.Join(f.dir, "agent.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(f.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	f.agent = exec.Command(binary, "--config", config, "--register", "--master", f.url, "--allow-master-as-worker",
		"--metrics-port", "0")
	f.agent.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "FFMPEG_AGENT_") || strings.HasPrefix(v, "MASTER_")
	})
	set := map[string]string{"data_dir": f.dir, "exporters.cpu.enabled": "false", "exporters.ffmpeg.enabled": "false"}
	for key, value := range settings {
		set[key] = value
	}
	for key, value := range set {
		f.agent.Env = append(f.agent.Env, "FFMPEG_AGENT_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))+"="+value)
	}
	f.agent.Stdout, f.agent.Stderr = log, log
	if err := f.agent.Start(); err != nil {
		close(f.ended)
		return fmt.Errorf("starting %s: %w", binary, err)
	}
	go func() {
		f.agent.Wait() //nolint:errcheck // how it ended is in its log
		close(f.ended)
	}()
	return nil
}

// leave ends the agent and the master, and removes what they left.
func (f *field) leave() error {
	if f.agent != nil && f.agent.Process != nil {
		f.agent.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		f.agent.Process.Signal(syscall.SIGTERM) //nolint:errcheck // and stop its jobs
		select {
		case <-f.ended:
		case <-time.After(15 * time.Second):
			f.agent.Process.Kill() //nolint:errcheck // it may have ended
			<-f.ended
		}
	}
	return errors.Join(f.server.Close(), f.master.Close(), os.RemoveAll(f.dir))
}

// until waits for a state of the agent.
func (f *field) until(ctx context.Context, what string, reached func(messages.Status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		status, err := f.control.Status(ctx)
		if err == nil && reached(status) {
			return nil
		}
		select {
		case <-f.ended:
			log, _ := os.ReadFile(filepath.Join(f.dir, "log"))
			return fmt.Errorf("waiting for %s: the agent ended: %s", what, bytes.TrimSpace(log))
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tried reports whether the agent has told the master which encoders work.
func (f *field) tried(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/nodes", nil)
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
	_, told := list.Nodes[0].Labels["encoders"]
	return told
}

// working waits until a number of FFmpegs run.
func (f *field) working(ctx context.Context, jobs int) error {
	return f.until(ctx, fmt.Sprintf("%d running jobs", jobs), func(s messages.Status) bool {
		running := 0
		for _, j := range s.Jobs {
			if j.Progress.Frames > 0 {
				running++
			}
		}
		return running == jobs
	})
}

func (f *field) submit(parameters map[string]any) (string, error) {
	job, err := f.master.Submit(protocol.JobRequest{Scenario: "bench-h264", Parameters: parameters})
	return job.ID, err
}

// account waits for a job's result and reads its energy.
func (f *field) account(ctx context.Context, job string) (energy.Account, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	event, err := f.master.Await(ctx, func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job })
	if err != nil {
		return energy.Account{}, fmt.Errorf("waiting for job %s: %w", job, err)
	}
	_, raw, _ := f.master.Result(job)
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

// child of a process whose command line has a word; 0: there is none.
func child(parent int, word string) int {
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, _ := strconv.Atoi(filepath.Base(entry))
		stat, err := proc.ReadStat(pid)
		if err != nil || stat.Parent != parent {
			continue
		}
		line, err := os.ReadFile(filepath.Join(entry, "cmdline"))
		if err == nil && slices.Contains(strings.Split(string(line), "\x00"), word) {
			return pid
		}
	}
	return 0
}
