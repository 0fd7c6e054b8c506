package configs

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// source is an agent on a machine of which nothing matters: no default file, a
// normal user with a home.
func source(t *testing.T) Source {
	t.Helper()
	return Source{
		Environ:     []string{"HOME=/home/op"},
		DefaultFile: filepath.Join(t.TempDir(), "agent.yaml"),
		Root:        func() bool { return false },
		Hostname:    func() (string, error) { return "box7", nil },
	}
}

func (s Source) withFlags(t *testing.T, args ...string) Source {
	t.Helper()
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	BindFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatalf("parsing %q: %v", args, err)
	}
	s.Flags = fs
	return s
}

func (s Source) withEnv(vars ...string) Source {
	s.Environ = append(s.Environ[:len(s.Environ):len(s.Environ)], vars...)
	return s
}

func (s Source) withFile(t *testing.T, yaml string) Source {
	t.Helper()
	if err := os.WriteFile(s.DefaultFile, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func mustLoad(t *testing.T, src Source) *Loaded {
	t.Helper()
	l, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// problemsOf loads what must not load.
func problemsOf(t *testing.T, src Source) []Problem {
	t.Helper()
	l, err := Load(src)
	var wrong *Error
	if !errors.As(err, &wrong) {
		t.Fatalf("Load returned %v, %v; want an *Error", l, err)
	}
	if len(wrong.Problems) == 0 {
		t.Fatal("an *Error without problems")
	}
	return wrong.Problems
}

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	want := Config{
		DataDir: "/home/op/.local/state/ffmpeg-agent",
		Node:    Node{Address: "box7", Type: "auto", Labels: Labels{}},
		Master:  Master{URL: "http://localhost:8080", UnavailableAfter: 90 * time.Second},

		PollInterval: 10 * time.Second, HeartbeatInterval: 30 * time.Second, MetricsPort: 9091,

		Jobs: Jobs{
			MaxConcurrent: 1, GenerateInput: true, Timeout: time.Hour, StallTimeout: time.Minute,
			CancelCheckInterval: 5 * time.Second, OutputRoots: []string{}, InputRoots: []string{"/"},
			InputProtocols: []string{"file", "http", "https", "rtmp", "rtmps", "srt"}, MinFreeDisk: Size{auto: true},
		},
		Shutdown: Shutdown{DrainTimeout: 10 * time.Minute},
		Hardware: Hardware{
			SysfsPath: "/sys", ProcfsPath: "/proc", NVMLLibrary: "libnvidia-ml.so.1",
			DockerSocket: "/var/run/docker.sock", FFmpeg: "ffmpeg", FFprobe: "ffprobe",
		},
		Energy: Energy{SampleInterval: 100 * time.Millisecond, IdleInterval: time.Second, Estimate: "auto"},
		Exporters: Exporters{
			CPU: CPUExporter{true, 9510}, GPU: GPUExporter{true, 9511},
			FFmpeg: FFmpegExporter{true, 9506}, Docker: DockerExporter{true, 9501},
		},
		Log:     Log{Level: "info", Format: "auto"},
		Control: Control{Socket: "/home/op/.local/state/ffmpeg-agent/agent.sock"},
		Debug:   Debug{HangAfter: 30 * time.Second},
	}
	l := mustLoad(t, source(t))
	if diff := cmp.Diff(want, l.Config, cmp.AllowUnexported(Size{})); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	for key, origin := range l.Origins {
		if origin.String() != "default" {
			t.Errorf("origin of %s is %s", key, origin)
		}
	}
	if len(l.Origins) != len(schema()) || len(l.Warnings) != 0 || l.File != "" {
		t.Errorf("%d origins of %d keys, warnings %q, file %q", len(l.Origins), len(schema()), l.Warnings, l.File)
	}
}

func TestStrongerSourceWins(t *testing.T) {
	file := "poll_interval: 1s\n"
	tests := []struct {
		name   string
		src    Source
		want   time.Duration
		origin string
	}{
		{"default", source(t), 10 * time.Second, "default"},
		{"file over default", source(t).withFile(t, file), time.Second, ":1"},
		{"environment over file", source(t).withFile(t, file).withEnv("FFMPEG_AGENT_POLL_INTERVAL=2s"), 2 * time.Second, "environment variable FFMPEG_AGENT_POLL_INTERVAL"},
		{"empty variable counts as unset", source(t).withFile(t, file).withEnv("FFMPEG_AGENT_POLL_INTERVAL="), time.Second, ":1"},
		{"flag over environment", source(t).withFile(t, file).withEnv("FFMPEG_AGENT_POLL_INTERVAL=2s").withFlags(t, "--poll-interval", "3s"), 3 * time.Second, "flag --poll-interval"},
		{"flag over a bad variable", source(t).withEnv("FFMPEG_AGENT_POLL_INTERVAL=soon").withFlags(t, "--poll-interval", "3s"), 3 * time.Second, "flag --poll-interval"},
		{"flag with the default's value is still a flag", source(t).withFile(t, file).withFlags(t, "--poll-interval=10s"), 10 * time.Second, "flag --poll-interval"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := mustLoad(t, test.src)
			if l.Config.PollInterval != test.want {
				t.Errorf("poll_interval is %s, want %s", l.Config.PollInterval, test.want)
			}
			if got := l.Origins["poll_interval"].String(); !strings.HasSuffix(got, test.origin) {
				t.Errorf("origin is %q, want %q", got, test.origin)
			}
		})
	}
}

// TestEverySourceSetsEveryKey goes by the table, so that a key that is added is tested too.
func TestEverySourceSetsEveryKey(t *testing.T) {
	names := map[string]string{}
	for _, k := range schema() {
		text := otherValue(k)
		for _, name := range k.envs {
			if other, twice := names[name]; twice {
				t.Errorf("%s sets both %s and %s", name, other, k.path)
			}
			names[name] = k.path
			expectValue(t, source(t).withEnv(append(partner(k.path, true), name+"="+text)...), k, text, "environment variable "+name)
		}
		expectValue(t, source(t).withFile(t, asYAML(k, text)+strings.Join(partner(k.path, false), "\n")), k, text, "agent.yaml:"+lineOf(k))
		if k.flag != "" {
			expectValue(t, source(t).withEnv(partner(k.path, true)...).withFlags(t, "--"+k.flag+"="+text), k, text, "flag --"+k.flag)
		}
	}
}

func expectValue(t *testing.T, src Source, k key, text, origin string) {
	t.Helper()
	l, err := Load(src)
	if err != nil {
		t.Errorf("%s from %s: %v", k.path, origin, err)
		return
	}
	want, err := parse(k.typ, text)
	if err != nil {
		t.Fatal(err)
	}
	if got := k.get(&l.Config); !reflect.DeepEqual(got, want) {
		t.Errorf("%s from %s is %v, want %v", k.path, origin, got, want)
	}
	if got := l.Origins[k.path].String(); !strings.HasSuffix(got, origin) {
		t.Errorf("%s: origin is %q, want %q", k.path, got, origin)
	}
}

// otherValue returns a valid value that is not the default.
func otherValue(k key) string {
	special := map[string]string{
		"master.url": "https://192.168.1.100:8080", "node.type": "laptop", "node.labels": "a=1,b=x y",
		"jobs.input_protocols": "file,srt", "jobs.min_free_disk": "12%", "log.level": "debug",
		"log.format": "json", "energy.estimate": "off", "exporters.listen_address": "127.0.0.1",
		"master.api_key": "k3y", "node.address": "other",
	}
	if text, ok := special[k.path]; ok {
		return text
	}
	switch k.typ {
	case reflect.TypeFor[bool]():
		if k.def == "true" {
			return "false"
		}
		return "true"
	case reflect.TypeFor[int](), reflect.TypeFor[float64]():
		return "77"
	case reflect.TypeFor[time.Duration]():
		if k.path == "master.unavailable_after" {
			return "777s"
		}
		return "7s"
	case reflect.TypeFor[[]string]():
		return "/a,/b"
	}
	return "/some/where"
}

// partner returns what a key cannot be set without, as variables or as YAML.
func partner(path string, env bool) []string {
	other := map[string]string{"master.cert": "master.key", "master.key": "master.cert", "energy.cpu_idle_watts": "energy.cpu_max_watts"}[path]
	switch {
	case other == "":
		return nil
	case env && other == "energy.cpu_max_watts":
		return []string{"FFMPEG_AGENT_ENERGY_CPU_MAX_WATTS=100"}
	case other == "energy.cpu_max_watts":
		return []string{other + ": 100"}
	case env:
		return []string{envName(other) + "=/x"}
	}
	return []string{other + ": /x"}
}

// asYAML writes a key below its sections, as an operator would.
func asYAML(k key, text string) string {
	var b strings.Builder
	names := strings.Split(k.path, ".")
	for depth, name := range names {
		b.WriteString(strings.Repeat("  ", depth) + name + ":")
		if depth < len(names)-1 {
			b.WriteString("\n")
		}
	}
	switch k.typ {
	case reflect.TypeFor[[]string]():
		return b.String() + " [" + text + "]\n"
	case reflect.TypeFor[Labels]():
		return b.String() + " {" + strings.ReplaceAll(text, "=", ": ") + "}\n"
	}
	return b.String() + " " + text + "\n"
}

func lineOf(k key) string { return string(rune('1' + strings.Count(k.path, "."))) }

func TestPlainNamesOfTheEnvironmentGiveWay(t *testing.T) {
	l := mustLoad(t, source(t).withEnv("MASTER_URL=http://a", "FFMPEG_AGENT_MASTER_URL=http://b", "MASTER_API_KEY=one", "FFMPEG_AGENT_MASTER_API_KEY=two"))
	if l.Config.Master.URL != "http://b" || l.Config.Master.APIKey.Reveal() != "two" {
		t.Errorf("url %s, key %s", l.Config.Master.URL, l.Config.Master.APIKey.Reveal())
	}
}

func TestCommandLinesOfTheContract(t *testing.T) {
	l := mustLoad(t, source(t).withFlags(t, "--register", "--master", "https://192.168.1.100:8080", "--api-key", "hunter2", "--poll-interval", "10s", "--heartbeat-interval", "30s"))
	m := l.Config.Master
	if !l.Config.Register || m.URL != "https://192.168.1.100:8080" || m.APIKey.Reveal() != "hunter2" {
		t.Errorf("register %v, url %s, key %q", l.Config.Register, m.URL, m.APIKey.Reveal())
	}
	l = mustLoad(t, source(t).withFlags(t, "--register", "--master", "http://localhost:8080", "--allow-master-as-worker"))
	if !l.Config.AllowMasterAsWorker || m.InsecureSkipVerify {
		t.Errorf("allow_master_as_worker %v, insecure_skip_verify %v", l.Config.AllowMasterAsWorker, m.InsecureSkipVerify)
	}
	l = mustLoad(t, source(t).withFlags(t, "--generate-input=false"))
	if l.Config.Jobs.GenerateInput {
		t.Error("--generate-input=false left it on")
	}
}

func TestFlagsAreThoseOfTheContract(t *testing.T) {
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	BindFlags(fs)
	got := map[string]string{}
	fs.VisitAll(func(f *pflag.Flag) {
		got[f.Name] = f.DefValue
		if f.Usage == "" {
			t.Errorf("--%s has no help", f.Name)
		}
	})
	want := map[string]string{
		"master": "http://localhost:8080", "register": "false", "poll-interval": "10s", "heartbeat-interval": "30s",
		"api-key": "", "api-key-file": "", "allow-master-as-worker": "false", "cert": "", "key": "", "ca": "",
		"insecure-skip-verify": "false", "max-concurrent-jobs": "1", "generate-input": "true", "metrics-port": "9091",
		"config": "", "log-level": "info", "log-format": "auto",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flags and their defaults (-want +got):\n%s", diff)
	}
	if usage := fs.FlagUsages(); !strings.Contains(usage, "(default 10s)") || !strings.Contains(usage, "--poll-interval duration") {
		t.Errorf("help shows no durations:\n%s", usage)
	}
}

func TestDataDirFollowsWhoRunsTheAgent(t *testing.T) {
	tests := []struct {
		name string
		root bool
		env  []string
		want string
	}{
		{"root", true, nil, "/var/lib/ffmpeg-agent"},
		{"systemd", false, []string{"STATE_DIRECTORY=/var/lib/private/x:/var/lib/y"}, "/var/lib/private/x"},
		{"user", false, nil, "/home/op/.local/state/ffmpeg-agent"},
		{"user with a state home", false, []string{"XDG_STATE_HOME=/home/op/state"}, "/home/op/state/ffmpeg-agent"},
		{"relative state home is ignored", false, []string{"XDG_STATE_HOME=state"}, "/home/op/.local/state/ffmpeg-agent"},
		{"set", true, []string{"FFMPEG_AGENT_DATA_DIR=/data"}, "/data"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			src := source(t).withEnv(test.env...)
			src.Root = func() bool { return test.root }
			cfg := mustLoad(t, src).Config
			if cfg.DataDir != test.want || cfg.Control.Socket != test.want+"/agent.sock" {
				t.Errorf("data_dir %s, control.socket %s; want %s and agent.sock in it", cfg.DataDir, cfg.Control.Socket, test.want)
			}
		})
	}
}

func TestZeroSourceAsksTheMachine(t *testing.T) {
	l := mustLoad(t, Source{Environ: []string{"HOME=" + t.TempDir()}, DefaultFile: filepath.Join(t.TempDir(), "none")})
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if l.Config.Node.Address != host || !filepath.IsAbs(l.Config.DataDir) {
		t.Errorf("node.address %q, data_dir %q", l.Config.Node.Address, l.Config.DataDir)
	}
}

func TestFileIsFoundByFlagSourceOrVariable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(file, []byte("metrics_port: 1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := source(t).withFile(t, "metrics_port: 4321\n")
	named := other
	named.File = file
	for name, src := range map[string]Source{
		"source":      named,
		"flag":        other.withFlags(t, "--config", file),
		"variable":    other.withEnv("FFMPEG_AGENT_CONFIG=" + file),
		"flag is 1st": other.withEnv("FFMPEG_AGENT_CONFIG=/nowhere").withFlags(t, "--config", file),
	} {
		l := mustLoad(t, src)
		if l.Config.MetricsPort != 1234 || l.File != file {
			t.Errorf("%s: metrics_port %d from %q", name, l.Config.MetricsPort, l.File)
		}
	}
}

func TestRelativePathOnTheCommandLineIsFromTheWorkingDirectory(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("c.yaml", []byte("log: {level: warn}"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := mustLoad(t, source(t).withFlags(t, "--cert", "a.pem", "--key", "b.pem", "--config", "c.yaml"))
	m := l.Config.Master
	if m.Cert != filepath.Join(dir, "a.pem") || m.Key != filepath.Join(dir, "b.pem") || l.Config.Log.Level != "warn" {
		t.Errorf("cert %s, key %s, log.level %s", m.Cert, m.Key, l.Config.Log.Level)
	}
}

func TestYAMLValuesAreTakenAsWritten(t *testing.T) {
	l := mustLoad(t, source(t).withFile(t, `
master.url: https://m       # a dotted key is the same key
master: {api_key: 0123}
node:
  labels: {Rack: 007, on: off}
jobs:                       # nothing but comments below
shutdown:
  drain_timeout:
energy: {estimate: off, cpu_max_watts: 65.5}
exporters:
  cpu: &small {enabled: no}
  gpu: *small
metrics_port: "0"
jobs.output_roots: /srv/a, /srv/b
`))
	cfg := l.Config
	if cfg.Master.URL != "https://m" || cfg.Master.APIKey.Reveal() != "0123" {
		t.Errorf("url %s, key %s", cfg.Master.URL, cfg.Master.APIKey.Reveal())
	}
	if diff := cmp.Diff(Labels{"Rack": "007", "on": "off"}, cfg.Node.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/srv/a", "/srv/b"}, cfg.Jobs.OutputRoots); diff != "" {
		t.Errorf("output_roots (-want +got):\n%s", diff)
	}
	if cfg.Shutdown.DrainTimeout != 10*time.Minute || cfg.Energy.Estimate != "off" || cfg.Energy.CPUMaxWatts != 65.5 || cfg.MetricsPort != 0 {
		t.Errorf("drain_timeout %s, estimate %s, cpu_max_watts %v, metrics_port %d", cfg.Shutdown.DrainTimeout, cfg.Energy.Estimate, cfg.Energy.CPUMaxWatts, cfg.MetricsPort)
	}
	if cfg.Exporters.CPU.Enabled || cfg.Exporters.GPU.Enabled || !cfg.Exporters.Docker.Enabled {
		t.Errorf("exporters %+v", cfg.Exporters)
	}
}

func TestAPIKeyOfTheStrongerSourceIsTaken(t *testing.T) {
	file := "master: {api_key_file: /etc/key}\n"
	l := mustLoad(t, source(t).withFile(t, file).withEnv("MASTER_API_KEY=abc"))
	if m := l.Config.Master; m.APIKey.Reveal() != "abc" || m.APIKeyFile != "" {
		t.Errorf("variable over file: key %q, file %q", m.APIKey.Reveal(), m.APIKeyFile)
	}
	l = mustLoad(t, source(t).withEnv("MASTER_API_KEY=abc").withFlags(t, "--api-key-file", "/etc/key"))
	if m := l.Config.Master; m.APIKey.IsSet() || m.APIKeyFile != "/etc/key" || l.Origins["master.api_key"].Kind != FromDefault {
		t.Errorf("flag over variable: key %q, file %q", m.APIKey.Reveal(), m.APIKeyFile)
	}
	problems := problemsOf(t, source(t).withFile(t, "master: {api_key_file: /etc/key, api_key: hunter2}\n"))
	line := problems[0].String()
	if len(problems) != 1 || problems[0].Key != "master.api_key" || strings.Contains(line, "hunter2") || strings.Count(line, "agent.yaml:1") != 2 {
		t.Errorf("both from one file: %v", problems)
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		src  Source
		want []string
	}{
		{source(t).withFlags(t, "--api-key", "hunter2"), []string{"--api-key"}},
		{source(t).withFlags(t, "--api-key", ""), nil},
		{source(t).withEnv("MASTER_API_KEY=hunter2"), nil},
		{source(t).withFlags(t, "--insecure-skip-verify", "--api-key=hunter2"), []string{"--api-key", "not verified (flag --insecure-skip-verify)"}},
		{source(t).withFile(t, "master: {insecure_skip_verify: true}"), []string{"not verified (file "}},
	}
	for i, test := range tests {
		got := mustLoad(t, test.src).Warnings
		if len(got) != len(test.want) {
			t.Errorf("%d: warnings %q, want %q", i, got, test.want)
			continue
		}
		for j, want := range test.want {
			if !strings.Contains(got[j], want) || strings.Contains(got[j], "hunter2") {
				t.Errorf("%d: warning %q, want %q in it", i, got[j], want)
			}
		}
	}
}

func TestEntriesShowEveryKeyInOrder(t *testing.T) {
	l := mustLoad(t, source(t).withEnv("MASTER_API_KEY=hunter2", "FFMPEG_AGENT_NODE_LABELS=b=2,a=1").withFlags(t, "--poll-interval", "90s"))
	entries := l.Entries()
	if len(entries) != len(schema()) || entries[0].Key != "data_dir" {
		t.Fatalf("%d entries, the first %v", len(entries), entries[0])
	}
	got := map[string]string{}
	for _, e := range entries {
		got[e.Key] = e.Value + " | " + e.Origin.String()
	}
	for key, want := range map[string]string{
		"master.api_key":         "(set, hidden) | environment variable MASTER_API_KEY",
		"poll_interval":          "1m30s | flag --poll-interval",
		"jobs.timeout":           "1h | default",
		"shutdown.drain_timeout": "10m | default",
		"jobs.min_free_disk":     "auto | default",
		"jobs.input_protocols":   "file,http,https,rtmp,rtmps,srt | default",
		"node.labels":            "a=1,b=2 | environment variable FFMPEG_AGENT_NODE_LABELS",
		"master.ca":              " | default",
	} {
		if got[key] != want {
			t.Errorf("%s: %q, want %q", key, got[key], want)
		}
	}
}
