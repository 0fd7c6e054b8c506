package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what is shown; go test -update writes it anew. Shown is:\n%s", path, got)
	}
}

// operate runs one operator's command line. Nothing of the machine's configuration
// names an agent.
func operate(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if _, set := os.LookupEnv("FFMPEG_AGENT_DATA_DIR"); !set {
		t.Setenv("FFMPEG_AGENT_DATA_DIR", t.TempDir())
	}
	root := &cobra.Command{Use: "agent", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(newStatus(), newDrain(), newReport(), newDebug())
	var out bytes.Buffer
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

// shortDir is a folder with a path short enough for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "agent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// answer has the handlers answer on the socket until the returned function is called.
func answer(t *testing.T, socket string, h control.Handlers) (stop func()) {
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
			t.Errorf("the control socket: %v", err)
		}
	})
	t.Cleanup(stop)
	waitFor(t, "the control socket", func() bool { _, err := control.NewClient(socket).Status(t.Context()); return err == nil })
	return stop
}

func isUsage(err error) bool {
	var usage usageError
	var config *configs.Error
	return errors.As(err, &usage) || errors.As(err, &config)
}

func of[T any](v T) *T { return &v }

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

func busyStatus() messages.Status {
	return messages.Status{
		Version: "v1.2.3", PID: 4711, StartedAt: ago(53 * time.Hour), At: noon, Address: "worker-7", Slots: 2, Draining: true,
		Session: &messages.Session{NodeID: "node-42", Address: "worker-7", Master: "https://master:8080", Since: ago(125 * time.Minute)},
		Heartbeat: &messages.HeartbeatStatus{
			LastAttempt: of(ago(2 * time.Second)), LastSuccess: of(ago(92 * time.Second)), Sent: 250, Failed: 3, Error: "connection refused",
		},
		Checks: []messages.Check{{Name: "ffmpeg"}, {Name: "disk", Reason: "4.1 GiB free, 5 GiB are needed"}, {Name: "session"}},
		Jobs: []messages.JobStatus{
			{
				Key: job.Key{JobID: "job-a", Attempt: 1}, Scenario: "720p30-h264", Phase: job.PhaseRun, Encoder: "libx264",
				Progress: job.Progress{Percent: 42.4, FPS: 118.25, Speed: 3.94}, ETA: of(75 * time.Second),
				Energy: of(energy.Joules(321.98)), Power: of(energy.Watts(35.14)), Source: energy.Measured, PID: 4815,
			},
			{Key: job.Key{JobID: "job-b", Attempt: 3}, Phase: job.PhasePrepare, Source: energy.Unavailable},
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
		Power: of(energy.Watts(83.26)), Source: energy.Measured,
		Journal: job.JournalStats{Unfinished: 2, Unsent: 3, OldestAt: of(ago(250 * time.Second)), Sent: 120, DeadLetters: 1},
		Counts:  messages.Counts{Completed: 117, Failed: 4, Canceled: 2, Superseded: 1},
		Host: &messages.HostStatus{
			CPULoadPercent: of(97.2), RAMFreeBytes: of(uint64(12) << 30), DiskFreeBytes: of(uint64(4200) << 20), DiskTotalBytes: of(uint64(200) << 30),
			TemperatureC: of(81.0), Throttled: true,
		},
		Cgroups: "/sys/fs/cgroup/system.slice/ffmpeg-agent.service",
	}
}

// freshStatus is an agent that knows next to nothing yet.
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

// TestTextFromElsewhereCannotSteerTheTerminal: job ids, errors and names come from
// a master.
func TestTextFromElsewhereCannotSteerTheTerminal(t *testing.T) {
	const evil = "x\x1b[2J\r\n\x07\u202e\u009b31my"
	s := busyStatus()
	s.Jobs[0].Key.JobID, s.Jobs[0].Scenario, s.Jobs[0].Encoder = evil, evil, evil
	s.Session.NodeID, s.Session.Master, s.Address, s.Version, s.Cgroups = evil, evil, evil, evil, evil
	s.Heartbeat.Error, s.Checks[0].Name, s.Checks[1].Reason = evil, evil, evil
	s.Actors[3].Path, s.Actors[3].State, s.Actors[3].LastFailure = "agent/"+evil, evil, evil
	s.Samplers[0].Name, s.Samplers[0].Source, s.Samplers[1].Error = evil, evil, evil
	text := statusText(&s)
	busy := busyStatus()
	if got, want := strings.Count(text, "\n"), strings.Count(statusText(&busy), "\n"); got != want {
		t.Errorf("%d lines, want %d", got, want)
	}
	for _, r := range strings.ReplaceAll(text, "\n", "") {
		if !unicode.IsPrint(r) {
			t.Fatalf("%q is shown in\n%q", r, text)
		}
	}
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0.0s", 0: "0.0s", 1490 * time.Millisecond: "1.4s", 9999 * time.Millisecond: "9.9s", 42 * time.Second: "42s",
		185 * time.Second: "3m5s", 127 * time.Minute: "2h7m", 47*time.Hour + 59*time.Minute: "47h59m", 123 * time.Hour: "5d3h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is shown as %s, want %s", time.Duration(d), got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1<<64 - 1: "16.0 EiB"} {
		if got := size(&n); got != want {
			t.Errorf("%d is shown as %s, want %s", n, got, want)
		}
	}
}

// TestTheAgentIsFound by the socket named, by the configuration named, and by the
// environment.
func TestTheAgentIsFound(t *testing.T) {
	dir := shortDir(t)
	socket := filepath.Join(dir, "agent.sock")
	answer(t, socket, control.Handlers{Status: busyStatus})
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
		"by control.socket's variable":        {env: map[string]string{"FFMPEG_AGENT_CONTROL_SOCKET": socket}},
		"by --socket, with a broken --config": {args: []string{"--socket", socket, "--config", broken}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			out, err := operate(t, append([]string{"status"}, test.args...)...)
			busy := busyStatus()
			if err != nil || out != statusText(&busy) {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
	if _, err := operate(t, "status", "--config", broken); !isUsage(err) {
		t.Errorf("a broken configuration: %v", err)
	}
}

func TestStatusAsJSON(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	answer(t, socket, control.Handlers{Status: busyStatus})
	out, err := operate(t, "status", "--json", "--socket", socket)
	if err != nil {
		t.Fatal(err)
	}
	var got messages.Status
	if err := json.Unmarshal([]byte(out), &got); err != nil || !reflect.DeepEqual(got, busyStatus()) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWithoutAnAgentOperatorsAreToldWhatToDo(t *testing.T) {
	dir := shortDir(t)
	t.Setenv("FFMPEG_AGENT_DATA_DIR", dir)
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"status", "--watch"}, {"drain"}, {"drain", "--wait"},
		{"debug", "crash", "agent"}, {"debug", "hang", "agent"},
	} {
		out, err := operate(t, args...)
		if !errors.Is(err, control.ErrNotRunning) || isUsage(err) || out != "" {
			t.Errorf("%v: %v\n%s", args, err, out)
			continue
		}
		if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, filepath.Join(dir, "agent.sock")) || !strings.Contains(text, "--socket") {
			t.Errorf("%v: %s", args, text)
		}
	}
}

func TestWrongUseOfOperatorsCommands(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"status", "now"}, `"now"`},
		{[]string{"drain", "now"}, `"now"`},
		{[]string{"report"}, "a job's id"},
		{[]string{"report", ""}, "a job's id"},
		{[]string{"report", "a", "b"}, `"b"`},
		{[]string{"report", "a", "--attempt", "0"}, "count from 1"},
		{[]string{"debug"}, "crash or hang"},
		{[]string{"debug", "fly"}, `"fly"`},
		{[]string{"debug", "crash"}, "an actor's path"},
		{[]string{"debug", "hang"}, "an actor's path"},
		{[]string{"debug", "hang", "agent", "--for", "0s"}, "more than 0s"},
		{[]string{"debug", "hang", "agent", "--for=-3s"}, "more than 0s"},
	} {
		if _, err := operate(t, test.args...); !isUsage(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v, want something of %q", test.args, err, test.want)
		}
	}
}

func TestHelpOfOperatorsCommandsFitsAScreenAndShowsAnExample(t *testing.T) {
	for _, args := range [][]string{{"status"}, {"drain"}, {"report"}, {"debug"}, {"debug", "crash"}, {"debug", "hang"}} {
		out, err := operate(t, append(args, "--help")...)
		if lines := strings.Count(out, "\n"); err != nil || lines > 40 || !strings.Contains(out, "Examples:") {
			t.Errorf("%v: %v, %d lines:\n%s", args, err, lines, out)
		}
		for _, line := range strings.Split(out, "\n") {
			if len(line) > 100 {
				t.Errorf("%v: a line of %d bytes: %s", args, len(line), line)
			}
		}
	}
}

// watcher ends the watching when what it was shown is enough.
type watcher struct {
	shown  []string
	onShow func(n int)
}

func (w *watcher) Write(b []byte) (int, error) {
	w.shown = append(w.shown, string(b))
	w.onShow(len(w.shown))
	return len(b), nil
}

// TestWatchingOutlivesARestartOfTheAgent: while nobody answers that is shown, and
// the next agent's status follows.
func TestWatchingOutlivesARestartOfTheAgent(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		t.Run(fmt.Sprint("as JSON ", asJSON), func(t *testing.T) {
			socket := filepath.Join(shortDir(t), "agent.sock")
			stop := answer(t, socket, control.Handlers{Status: busyStatus})
			ctx, cancel := context.WithTimeout(t.Context(), hang)
			defer cancel()
			w := &watcher{onShow: func(n int) {
				switch n {
				case 2:
					stop()
				case 3:
					answer(t, socket, control.Handlers{Status: busyStatus})
				case 4:
					cancel()
				}
			}}
			if err := watchStatus(ctx, control.NewClient(socket), time.Millisecond, w, asJSON); err != nil {
				t.Fatal(err)
			}
			for i, text := range w.shown {
				away := strings.Contains(text, control.ErrNotRunning.Error())
				if there := strings.Contains(text, "worker-7"); there == away || away != (i == 2) {
					t.Errorf("shown as %d: %s", i, text)
				}
				if asJSON && (!json.Valid([]byte(text)) || strings.Count(text, "\n") != 1) {
					t.Errorf("not one line of JSON: %s", text)
				}
			}
			if len(w.shown) != 4 {
				t.Errorf("shown %d times", len(w.shown))
			}
		})
	}
}

func TestAScreenIsDrawnInItsPlaceAndNeverScrolls(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, size: func() (int, int) { return 10, 4 }}
	show := func(text string) string {
		t.Helper()
		out.Reset()
		if err := s.show(text); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got, want := show("ab\ncd\n"), clearScreen+"ab"+clearToEnd+"\r\ncd"+clearToEnd+"\r\n"+clearBelow; got != want {
		t.Errorf("at first %q, want %q", got, want)
	}
	if got, want := show("├─ 3456789\n├─ 34567890\n3\n4\n"),
		cursorHome+"├─ 3456789"+clearToEnd+"\r\n├─ 345678…"+clearToEnd+"\r\n… 2 more …"+clearToEnd+"\r\n"+clearBelow; got != want {
		t.Errorf("then %q, want %q", got, want)
	}
}
