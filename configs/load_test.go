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

// machine is a machine with host name box7, without a configuration file, where the
// agent runs as a normal user.
func machine(t *testing.T) Source {
	t.Helper()
	return Source{
		Environ:     []string{"HOME=/home/op"},
		DefaultFile: filepath.Join(t.TempDir(), "agent.yaml"),
		IsRoot:      func() bool { return false },
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

// problemsOf returns the problems of an invalid configuration.
func problemsOf(t *testing.T, src Source) []Problem {
	t.Helper()
	l, err := Load(src)
	var invalid *Error
	if !errors.As(err, &invalid) {
		t.Fatalf("Load returned %v, %v; want an *Error", l, err)
	}
	if len(invalid.Problems) == 0 {
		t.Fatal("*Error without problems")
	}
	return invalid.Problems
}

func TestLoadDefaults(t *testing.T) {
	want := Config{
		DataDir: "/home/op/.local/state/ffmpeg-agent",
		Node:    Node{Address: "box7", Type: "auto", Labels: Labels{}},
		Master:  Master{URL: "http://localhost:8080", UnavailableAfter: 90 * time.Second},

		PollInterval: 10 * time.Second, HeartbeatInterval: 30 * time.Second, MetricsPort: 9091,

		Jobs: Jobs{
			MaxConcurrent: 1, GenerateInput: true, Timeout: time.Hour, StallTimeout: time.Minute,
			CancelCheckInterval: 5 * time.Second, DamagedInput: "fail", EngineFallback: true,
			DefaultPresets: Labels{"h264": "fast", "h265": "fast", "av1": "8", "vp9": "good/4"}, OutputRoots: []string{}, InputRoots: []string{"/"}, InputNetworks: []string{}, Sandbox: "auto", FetchInputs: true,
			InputProtocols: []string{"file", "http", "https", "rtmp", "rtmps", "srt"}, MinFreeDisk: Size{auto: true},
			InputFormats: strings.Split("mov,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,live_flv,ogg,asf,asf_o,mxf,nut,ivf,h264,hevc,vvc,av1,obu,m4v,h263,vc1,dnxhd,mjpeg,mpjpeg,yuv4mpegpipe,gif,apng,dv,gxf", ","), Limits: Limits{Memory: Size{auto: true}, Disk: Size{auto: true}, OutputBytes: Size{auto: true}},
		},
		Shutdown: Shutdown{DrainTimeout: 10 * time.Minute},
		Hardware: Hardware{
			SysfsPath: "/sys", ProcfsPath: "/proc", NVMLLibrary: "libnvidia-ml.so.1",
			DockerSocket: "/var/run/docker.sock", FFmpeg: "ffmpeg", FFprobe: "ffprobe",
		},
		Energy: Energy{SampleInterval: 100 * time.Millisecond, IdleInterval: time.Second, Estimate: "auto"},
		Exporters: Exporters{
			FieldNames: true,
			CPU:        Exporter{true, 9510}, GPU: Exporter{true, 9511},
			FFmpeg: Exporter{true, 9506}, Docker: Exporter{true, 9501},
		},
		Log:     Log{Level: "info", Format: "auto"},
		Control: Control{Socket: "/home/op/.local/state/ffmpeg-agent/agent.sock"},
		Debug:   Debug{HangAfter: 30 * time.Second, SandboxWithout: []string{}},
	}
	l := mustLoad(t, machine(t))
	if diff := cmp.Diff(want, l.Config, cmp.AllowUnexported(Size{})); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	for key, origin := range l.Origins {
		if origin.String() != "default" {
			t.Errorf("origin of %s: got %s, want default", key, origin)
		}
	}
	if len(l.Origins) != len(schema()) || len(l.Warnings) != 0 || l.File != "" {
		t.Errorf("got %d origins for %d keys, warnings %q, file %q; want no warnings, no file", len(l.Origins), len(schema()), l.Warnings, l.File)
	}
}

func TestPrecedence(t *testing.T) {
	file := "poll_interval: 1s\n"
	tests := []struct {
		name   string
		src    Source
		want   time.Duration
		origin string
	}{
		{"default", machine(t), 10 * time.Second, "default"},
		{"file over default", machine(t).withFile(t, file), time.Second, ":1"},
		{"environment over file", machine(t).withFile(t, file).withEnv("FFMPEG_AGENT_POLL_INTERVAL=2s"), 2 * time.Second, "environment variable FFMPEG_AGENT_POLL_INTERVAL"},
		{"empty variable is unset", machine(t).withFile(t, file).withEnv("FFMPEG_AGENT_POLL_INTERVAL="), time.Second, ":1"},
		{"flag over environment", machine(t).withFile(t, file).withEnv("FFMPEG_AGENT_POLL_INTERVAL=2s").withFlags(t, "--poll-interval", "3s"), 3 * time.Second, "flag --poll-interval"},
		{"flag over invalid variable", machine(t).withEnv("FFMPEG_AGENT_POLL_INTERVAL=soon").withFlags(t, "--poll-interval", "3s"), 3 * time.Second, "flag --poll-interval"},
		{"flag equal to the default", machine(t).withFile(t, file).withFlags(t, "--poll-interval=10s"), 10 * time.Second, "flag --poll-interval"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := mustLoad(t, test.src)
			if l.Config.PollInterval != test.want {
				t.Errorf("got poll_interval %s, want %s", l.Config.PollInterval, test.want)
			}
			if got := l.Origins["poll_interval"].String(); !strings.HasSuffix(got, test.origin) {
				t.Errorf("got origin %q, want %q", got, test.origin)
			}
		})
	}
}

func TestEverySourceSetsEveryKey(t *testing.T) {
	names := map[string]string{}
	for _, k := range schema() {
		text := nonDefault(k)
		for _, name := range k.envs {
			if other, twice := names[name]; twice {
				t.Errorf("%s sets both %s and %s", name, other, k.path)
			}
			names[name] = k.path
			expectValue(t, machine(t).withEnv(append(partner(k.path, true), name+"="+text)...), k, text, "environment variable "+name)
		}
		expectValue(t, machine(t).withFile(t, asYAML(k, text)+strings.Join(partner(k.path, false), "\n")), k, text, "agent.yaml:"+lineOf(k))
		if k.flag != "" {
			expectValue(t, machine(t).withEnv(partner(k.path, true)...).withFlags(t, "--"+k.flag+"="+text), k, text, "flag --"+k.flag)
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
		t.Errorf("%s from %s: got %v, want %v", k.path, origin, got, want)
	}
	if got := l.Origins[k.path].String(); !strings.HasSuffix(got, origin) {
		t.Errorf("%s: got origin %q, want %q", k.path, got, origin)
	}
}

// nonDefault returns a valid value other than the default.
func nonDefault(k key) string {
	special := map[string]string{
		"master.url": "https://192.168.1.100:8080", "traces.endpoint": "http://collector:4318/v1/traces", "node.type": "laptop", "node.labels": "a=1,b=x y",
		"jobs.default_presets": "av1=10,h264=slow,h265=medium,vp9=realtime/8",
		"jobs.input_networks":  "127.0.0.0/8,10.0.0.0/8", "jobs.input_protocols": "file,srt", "jobs.input_formats": "mov,avi",
		"jobs.limits.memory": "75%", "jobs.limits.disk": "7GiB", "jobs.limits.output_bytes": "6GiB", "jobs.limits.pixels": "99", "jobs.limits.outputs": "3",
		"jobs.limits.duration": "2h", "jobs.limits.timeout": "3h", "jobs.min_free_disk": "12%", "log.level": "debug",
		"log.format": "json", "jobs.damaged_input": "accept", "energy.estimate": "off", "exporters.listen_address": "127.0.0.1",
		"master.api_key": "k3y", "node.address": "other", "jobs.run_as": "nobody", "jobs.sandbox": "require", "debug.sandbox_without": "landlock,seccomp",
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

// partner returns the setting that a key depends on, as environment variables or YAML.
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

// asYAML returns a key as nested YAML.
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

func TestPrefixedVariableOverridesAlias(t *testing.T) {
	l := mustLoad(t, machine(t).withEnv("MASTER_URL=http://a", "FFMPEG_AGENT_MASTER_URL=http://b", "MASTER_API_KEY=one", "FFMPEG_AGENT_MASTER_API_KEY=two"))
	if l.Config.Master.URL != "http://b" || l.Config.Master.APIKey.Reveal() != "two" {
		t.Errorf("got url %s, key %s; want http://b, two", l.Config.Master.URL, l.Config.Master.APIKey.Reveal())
	}
}

func TestLegacyVariables(t *testing.T) {
	legacy := map[string]string{
		"master.api_key": "FFMPEG_RTMP_API_KEY", "jobs.keep_inputs": "PERSIST_INPUTS", "jobs.keep_outputs": "PERSIST_OUTPUTS",
		"exporters.cpu.port": "CPU_EXPORTER_PORT", "exporters.gpu.port": "GPU_EXPORTER_PORT",
		"exporters.ffmpeg.port": "FFMPEG_EXPORTER_PORT", "exporters.docker.port": "DOCKER_STATS_PORT",
	}
	got := map[string]string{}
	for _, k := range schema() {
		if k.legacy == "" {
			continue
		}
		got[k.path] = k.legacy
		text := nonDefault(k)
		// Empty variables count as unset.
		expectValue(t, machine(t).withEnv(k.envs[0]+"=", k.legacy+"="+text), k, text, "environment variable "+k.legacy)
		expectValue(t, machine(t).withFile(t, asYAML(k, k.def)).withEnv(k.legacy+"="+text), k, text, "environment variable "+k.legacy)
		for _, own := range k.envs {
			bad := k.legacy + "=not valid" // an overridden value is not validated
			expectValue(t, machine(t).withEnv(bad, own+"="+text), k, text, "environment variable "+own)
		}
	}
	if diff := cmp.Diff(legacy, got); diff != "" {
		t.Errorf("legacy variables (-want +got):\n%s", diff)
	}
	expectProblem(t, machine(t).withEnv("CPU_EXPORTER_PORT=99999"), "exporters.cpu.port", "99999", "environment variable CPU_EXPORTER_PORT", "out of range", "65535")
}

func TestKeyFileOverridesLegacyKey(t *testing.T) {
	l := mustLoad(t, machine(t).withEnv("FFMPEG_RTMP_API_KEY=abc", "FFMPEG_AGENT_MASTER_API_KEY_FILE=/etc/key"))
	if m := l.Config.Master; m.APIKey.IsSet() || m.APIKeyFile != "/etc/key" {
		t.Errorf("got key %q, file %q; want the file", m.APIKey.Reveal(), m.APIKeyFile)
	}
}

// Kubernetes sets these for services named docker-stats and cpu-exporter.
func TestServiceLinksAreNotPorts(t *testing.T) {
	l := mustLoad(t, machine(t).withEnv("DOCKER_STATS_PORT=tcp://10.0.0.7:9501", "CPU_EXPORTER_PORT=tcp://10.0.0.8:80"))
	if e := l.Config.Exporters; e.Docker.Port != 9501 || e.CPU.Port != 9510 {
		t.Errorf("got ports %d and %d, want the defaults 9501 and 9510", e.Docker.Port, e.CPU.Port)
	}
}

func TestDocumentedCommandLines(t *testing.T) {
	l := mustLoad(t, machine(t).withFlags(t, "--register", "--master", "https://192.168.1.100:8080", "--api-key", "hunter2", "--poll-interval", "10s", "--heartbeat-interval", "30s"))
	m := l.Config.Master
	if !l.Config.Register || m.URL != "https://192.168.1.100:8080" || m.APIKey.Reveal() != "hunter2" {
		t.Errorf("register %v, url %s, key %q", l.Config.Register, m.URL, m.APIKey.Reveal())
	}
	l = mustLoad(t, machine(t).withFlags(t, "--register", "--master", "http://localhost:8080", "--allow-master-as-worker"))
	if !l.Config.AllowMasterAsWorker || m.InsecureSkipVerify {
		t.Errorf("allow_master_as_worker %v, insecure_skip_verify %v", l.Config.AllowMasterAsWorker, m.InsecureSkipVerify)
	}
	l = mustLoad(t, machine(t).withFlags(t, "--generate-input=false"))
	if l.Config.Jobs.GenerateInput {
		t.Error("--generate-input=false: got generate_input true")
	}
}

func TestFlags(t *testing.T) {
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	BindFlags(fs)
	got := map[string]string{}
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Usage == "" {
			t.Errorf("--%s has no help", f.Name)
		}
		if !f.Hidden {
			got[f.Name] = f.DefValue
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
		t.Errorf("usage lacks the type or default of --poll-interval:\n%s", usage)
	}
}

func TestDataDir(t *testing.T) {
	tests := []struct {
		name string
		root bool
		env  []string
		want string
	}{
		{"root", true, nil, "/var/lib/ffmpeg-agent"},
		{"systemd", false, []string{"STATE_DIRECTORY=/var/lib/private/x:/var/lib/y"}, "/var/lib/private/x"},
		{"user", false, nil, "/home/op/.local/state/ffmpeg-agent"},
		{"user with XDG_STATE_HOME", false, []string{"XDG_STATE_HOME=/home/op/state"}, "/home/op/state/ffmpeg-agent"},
		{"relative XDG_STATE_HOME is ignored", false, []string{"XDG_STATE_HOME=state"}, "/home/op/.local/state/ffmpeg-agent"},
		{"set", true, []string{"FFMPEG_AGENT_DATA_DIR=/data"}, "/data"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			src := machine(t).withEnv(test.env...)
			src.IsRoot = func() bool { return test.root }
			cfg := mustLoad(t, src).Config
			if cfg.DataDir != test.want || cfg.Control.Socket != test.want+"/agent.sock" {
				t.Errorf("got data_dir %s, control.socket %s; want %s and agent.sock in it", cfg.DataDir, cfg.Control.Socket, test.want)
			}
		})
	}
}

// The unit's user finds the agent from a shell as well.
func TestDataDirOfTheServicesUser(t *testing.T) {
	src := machine(t)
	src.IsRoot = func() bool { return false }
	src.SystemDataDir = t.TempDir()
	if got := mustLoad(t, src).Config.DataDir; got != src.SystemDataDir {
		t.Errorf("owner of %s: got data_dir %s", src.SystemDataDir, got)
	}
}

func TestHostNameAndUserOfThisMachine(t *testing.T) {
	l := mustLoad(t, Source{Environ: []string{"HOME=" + t.TempDir()}, DefaultFile: filepath.Join(t.TempDir(), "none")})
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if l.Config.Node.Address != host || !filepath.IsAbs(l.Config.DataDir) {
		t.Errorf("got node.address %q, data_dir %q; want %q and an absolute path", l.Config.Node.Address, l.Config.DataDir, host)
	}
}

func TestRelativePathsInFlags(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("c.yaml", []byte("log: {level: warn}"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := mustLoad(t, machine(t).withFlags(t, "--cert", "a.pem", "--key", "b.pem", "--config", "c.yaml"))
	m := l.Config.Master
	if m.Cert != filepath.Join(dir, "a.pem") || m.Key != filepath.Join(dir, "b.pem") || l.Config.Log.Level != "warn" {
		t.Errorf("got cert %s, key %s, log.level %s; want a.pem and b.pem in %s, warn", m.Cert, m.Key, l.Config.Log.Level, dir)
	}
}

func TestAPIKeyPrecedence(t *testing.T) {
	file := "master: {api_key_file: /etc/key}\n"
	l := mustLoad(t, machine(t).withFile(t, file).withEnv("MASTER_API_KEY=abc"))
	if m := l.Config.Master; m.APIKey.Reveal() != "abc" || m.APIKeyFile != "" {
		t.Errorf("variable over file: got key %q, file %q; want the key", m.APIKey.Reveal(), m.APIKeyFile)
	}
	l = mustLoad(t, machine(t).withEnv("MASTER_API_KEY=abc").withFlags(t, "--api-key-file", "/etc/key"))
	if m := l.Config.Master; m.APIKey.IsSet() || m.APIKeyFile != "/etc/key" || l.Origins["master.api_key"].Kind != FromDefault {
		t.Errorf("flag over variable: got key %q, file %q; want the file", m.APIKey.Reveal(), m.APIKeyFile)
	}
	problems := problemsOf(t, machine(t).withFile(t, "master: {api_key_file: /etc/key, api_key: hunter2}\n"))
	line := problems[0].String()
	if len(problems) != 1 || problems[0].Key != "master.api_key" || strings.Contains(line, "hunter2") || strings.Count(line, "agent.yaml:1") != 2 {
		t.Errorf("both in one file: got problems %v, want one with master.api_key", problems)
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		src  Source
		want []string
	}{
		{machine(t).withFlags(t, "--api-key", "hunter2"), []string{"--api-key"}},
		{machine(t).withFlags(t, "--api-key", ""), nil},
		{machine(t).withEnv("MASTER_API_KEY=hunter2"), nil},
		{machine(t).withFlags(t, "--skip-confirmation", "--auto-attach-cpu-quota=lots"), []string{"--auto-attach-cpu-quota, --skip-confirmation"}},
		{machine(t).withFlags(t, "--insecure-skip-verify", "--api-key=hunter2"), []string{"--api-key", "not verified (flag --insecure-skip-verify)"}},
		{machine(t).withFile(t, "master: {insecure_skip_verify: true}"), []string{"not verified (file "}},
		{machine(t).withEnv("MASTER_API_KEY=hunter2", "MASTER_URL=http://192.0.2.1:8080"), []string{"sent unencrypted (master.url, environment variable MASTER_URL)"}},
		{machine(t).withEnv("MASTER_API_KEY=hunter2", "MASTER_URL=http://[::1]:8080"), nil},
		{machine(t).withEnv("MASTER_API_KEY=hunter2", "MASTER_URL=https://192.0.2.1:8080"), nil},
		{machine(t).withEnv("MASTER_URL=http://192.0.2.1:8080"), nil},
	}
	for i, test := range tests {
		got := mustLoad(t, test.src).Warnings
		if len(got) != len(test.want) {
			t.Errorf("%d: got warnings %q, want %q", i, got, test.want)
			continue
		}
		for j, want := range test.want {
			if !strings.Contains(got[j], want) || strings.Contains(got[j], "hunter2") {
				t.Errorf("%d: got warning %q, want %q in it", i, got[j], want)
			}
		}
	}
}

func TestEntries(t *testing.T) {
	l := mustLoad(t, machine(t).withEnv("MASTER_API_KEY=hunter2", "FFMPEG_AGENT_NODE_LABELS=b=2,a=1").withFlags(t, "--poll-interval", "90s"))
	entries := l.Entries()
	if len(entries) != len(schema()) || entries[0].Key != "data_dir" {
		t.Fatalf("got %d entries, first %v; want %d, first data_dir", len(entries), entries[0], len(schema()))
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
			t.Errorf("%s: got %q, want %q", key, got[key], want)
		}
	}
}
