package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ffmpeg-agent/internal/ffmpegtest"
)

// asAgent makes this test binary the agent itself, so that tests can start, signal and
// kill a real process.
const asAgent = "AGENT_UNDER_TEST"

// hang is the deadline for whatever a test waits for.
const hang = 60 * time.Second

func TestMain(m *testing.M) {
	// The child for the graphics cards gets none of its parent's variables.
	if os.Getenv(asAgent) != "" || slices.Contains(os.Args, nvmlCommand) {
		os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	ffmpegtest.Main(m, "libx264") // TestDemo has an agent that tries all
}

// command runs one command line in this process, with nothing of the machine's own
// configuration.
func command(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	// A demo on a busy machine takes longer than anything else that is waited for.
	ctx, cancel := context.WithTimeout(context.Background(), 3*hang)
	defer cancel()
	status = execute(ctx, args, &out, &errs)
	return status, out.String(), errs.String()
}

func TestWrongSettingsEndWithStatus2AndSayWhatIsAllowed(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		path := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "_")+"-"+time.Now().Format("150405.000000000")+".yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	unknownKey := file("jobs:\n  max_concurent: 2\n")
	badPort := file("metrics_port: 99999\n")
	broken := file("jobs: [\n")
	for name, test := range map[string]struct {
		env  map[string]string
		args []string
		want []string
	}{
		"unknown flag":           {args: []string{"--polling", "3s"}, want: []string{"--polling", "--help"}},
		"unknown command":        {args: []string{"fly"}, want: []string{`"fly"`}},
		"bad duration by flag":   {args: []string{"--poll-interval", "soon"}, want: []string{"poll-interval", "soon"}},
		"zero interval by flag":  {args: []string{"--heartbeat-interval", "0s"}, want: []string{"heartbeat_interval", "0s", "flag --heartbeat-interval", "10ms"}},
		"bad duration by env":    {env: map[string]string{"FFMPEG_AGENT_POLL_INTERVAL": "10"}, want: []string{"poll_interval", "10", "environment variable FFMPEG_AGENT_POLL_INTERVAL"}},
		"unknown variable":       {env: map[string]string{"FFMPEG_AGENT_POL_INTERVAL": "10s"}, want: []string{"FFMPEG_AGENT_POL_INTERVAL", "FFMPEG_AGENT_POLL_INTERVAL"}},
		"unknown key in file":    {args: []string{"--config", unknownKey}, want: []string{"jobs.max_concurent", unknownKey + ":2", "jobs.max_concurrent"}},
		"port out of range":      {args: []string{"--config", badPort}, want: []string{"metrics_port", "99999", badPort + ":1", "65535"}},
		"broken file":            {args: []string{"--config", broken}, want: []string{broken}},
		"missing file":           {args: []string{"--config", "/nowhere/agent.yaml"}, want: []string{"/nowhere/agent.yaml"}},
		"master is no URL":       {args: []string{"--master", "localhost:8080"}, want: []string{"master.url", "http"}},
		"unknown log level":      {args: []string{"--log-level", "loud"}, want: []string{"log.level", "loud", "debug"}},
		"certificate, no key":    {args: []string{"--cert", "/x/cert.pem"}, want: []string{"master.key"}},
		"negative job slots":     {args: []string{"--max-concurrent-jobs", "-1"}, want: []string{"jobs.max_concurrent", "-1"}},
		"key file missing":       {args: []string{"--api-key-file", "/nowhere/key"}, want: []string{"master.api_key_file", "/nowhere/key", "flag --api-key-file", "allowed"}},
		"key file missing (env)": {env: map[string]string{"FFMPEG_AGENT_MASTER_API_KEY_FILE": "/nowhere/key"}, want: []string{"master.api_key_file", "environment variable FFMPEG_AGENT_MASTER_API_KEY_FILE"}},
		"CA is no certificate":   {args: []string{"--ca", badPort}, want: []string{"master.ca", badPort, "flag --ca", "PEM"}},
		"certificate missing":    {args: []string{"--cert", "/nowhere/c.pem", "--key", "/nowhere/k.pem"}, want: []string{"master.cert", "/nowhere/c.pem", "PEM"}},
		"master on this machine": {args: []string{"--master", "http://127.0.0.1:1"}, want: []string{"very host", "--allow-master-as-worker"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("FFMPEG_AGENT_DATA_DIR", t.TempDir())
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			status, stdout, stderr := command(t, test.args...)
			if status != exitUsage {
				t.Errorf("exit status %d, want %d\n%s%s", status, exitUsage, stdout, stderr)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q is not in the message: %s", want, stderr)
				}
			}
		})
	}
}

func TestASecretIsNeverShown(t *testing.T) {
	const secret = "s3cr3t-k3y"
	t.Setenv("MASTER_API_KEY", secret)
	t.Setenv("FFMPEG_AGENT_DATA_DIR", t.TempDir())
	status, stdout, stderr := command(t, "config")
	if status != exitOK || !strings.Contains(stdout, "master.api_key:") || !strings.Contains(stdout, "MASTER_API_KEY") {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
	if strings.Contains(stdout+stderr, secret) {
		t.Error("the key is shown")
	}
}

func TestConfigShowsEachValuesOrigin(t *testing.T) {
	t.Setenv("FFMPEG_AGENT_JOBS_MAX_CONCURRENT", "3")
	t.Setenv("FFMPEG_AGENT_DATA_DIR", t.TempDir())
	_, stdout, _ := command(t, "config", "--poll-interval", "3s")
	for _, want := range [][]string{
		{"poll_interval:", "3s", "flag --poll-interval"},
		{"jobs.max_concurrent:", "3", "environment variable FFMPEG_AGENT_JOBS_MAX_CONCURRENT"},
		{"heartbeat_interval:", "30s", "default"},
	} {
		found := false
		for _, line := range strings.Split(stdout, "\n") {
			found = found || strings.HasPrefix(line, want[0]) && strings.Contains(line, want[1]) && strings.HasSuffix(line, want[2])
		}
		if !found {
			t.Errorf("no line with %q in\n%s", want, stdout)
		}
	}
}

func TestWithoutASavedSessionTheAgentSaysWhatToDo(t *testing.T) {
	t.Setenv("FFMPEG_AGENT_DATA_DIR", t.TempDir())
	status, _, stderr := command(t, "--master", "http://master.invalid:8080")
	if status != exitFailed || !strings.Contains(stderr, "--register") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"--version"}, {"version"}} {
		if status, stdout, _ := command(t, args...); status != exitOK || !strings.HasPrefix(stdout, "ffmpeg-agent ") {
			t.Errorf("%v: exit status %d: %s", args, status, stdout)
		}
	}
}

func TestHelpFitsAScreenAndShowsAnExample(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"run", "--help"}, {"demo", "--help"}, {"config", "--help"}, {"version", "--help"}} {
		status, stdout, _ := command(t, args...)
		if lines := strings.Count(stdout, "\n"); status != exitOK || lines > 40 || !strings.Contains(stdout, "Examples:") {
			t.Errorf("%v: exit status %d, %d lines:\n%s", args, status, lines, stdout)
		}
	}
}

func TestDemoWithoutFFmpegSaysWhatToDo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	status, stdout, stderr := command(t, "demo")
	if status != exitFailed || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "apt-get install ffmpeg") {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
}

func TestDemo(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	status, stdout, stderr := command(t, "demo")
	if status != exitOK {
		t.Fatalf("exit status %d: %s%s", status, stdout, stderr)
	}
	if got := strings.Count(stdout, "completed"); got < 3 || !strings.Contains(stdout, "µJ/pixel") {
		t.Errorf("the demo shows:\n%s", stdout)
	}
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// process is a real agent.
type process struct {
	*exec.Cmd
	out output
}

func (p *process) log() string { return p.out.String() }

// output is what a process wrote so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func startAgent(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := newProcess(t, env, args...)
	p.start(t)
	return p
}

// newProcess is an agent that is yet to be started.
func newProcess(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(self, args...)}
	p.Env = append(os.Environ(), append(env, asAgent+"=1")...)
	p.Stdout, p.Stderr = &p.out, &p.out
	return p
}

func (p *process) start(t *testing.T) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
		if t.Failed() {
			t.Logf("the agent wrote:\n%s", p.log())
		}
	})
}
