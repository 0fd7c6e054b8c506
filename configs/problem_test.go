package configs

import (
	"os"
	"strings"
	"testing"
)

// An invalid value from any source is reported with its key, value, origin and the
// allowed values.
func TestInvalidValues(t *testing.T) {
	tests := []struct{ key, text, reason, allowed string }{
		{"poll_interval", "10", "a number without a unit", "a duration from 10ms to 24h, such as 10s"},
		{"poll_interval", "0s", "out of range", "a duration from 10ms to 24h"},
		{"poll_interval", "-3s", "out of range", "a duration"},
		{"poll_interval", "soon", "not a duration", "a duration"},
		{"heartbeat_interval", "0", "out of range", "a duration"},
		{"heartbeat_interval", "90s", "would reassign", `less than master.unavailable_after "90s" (default)`},
		{"energy.sample_interval", "1m", "out of range", "from 5ms to 10s"},
		{"metrics_port", "65536", "out of range", "from 0 to 65535"},
		{"metrics_port", "-1", "out of range", "from 0 to 65535"},
		{"metrics_port", "http", "not a whole number", "from 0 to 65535"},
		{"metrics_port", "99999999999999999999", "out of range", "from 0 to 65535"},
		{"metrics_port", "0x50", "not a whole number", "from 0 to 65535"},
		{"exporters.cpu.port", "0", "out of range", "from 1 to 65535; enabled: false beside it turns the exporter off"},
		{"exporters.gpu.port", "9510", `same port as exporters.cpu.port "9510" (default)`, "no other listener"},
		{"jobs.max_concurrent", "0", "out of range", "from 1 to 256"},
		{"jobs.max_concurrent", "-1", "out of range", "from 1 to 256"},
		{"jobs.max_concurrent", "1.5", "not a whole number", "from 1 to 256"},
		{"jobs.min_free_disk", "5", "a number without a unit", "5GiB"},
		{"jobs.min_free_disk", "-5GiB", "not a size", "5GiB"},
		{"jobs.min_free_disk", "101%", "more than 100%", "10%"},
		{"jobs.min_free_disk", "5 parsecs", `unknown unit "parsecs"`, "5GiB"},
		{"jobs.min_free_disk", "5000TB", "too large", "1PiB"},
		{"jobs.input_protocols", "file,concat", `"concat" is not an allowed protocol`, "file, http"},
		{"jobs.input_protocols", "file,,http", "empty element", "file, http"},
		{"jobs.input_networks", "10.0.0.1", "not a network", "127.0.0.0/8"},
		{"jobs.input_networks", "10.0.0.1/8", "10.0.0.0/8 is the network", "127.0.0.0/8"},
		{"jobs.input_protocols", "HTTP", "is not an allowed protocol", "file, http"},
		{"jobs.output_roots", "/a,b", `"b": not an absolute path`, "a list of absolute paths"},
		{"energy.cpu_max_watts", "NaN", "out of range", "from 0 to 10000"},
		{"energy.cpu_max_watts", "-5", "out of range", "from 0 to 10000"},
		{"energy.cpu_max_watts", "many", "not a number", "from 0 to 10000"},
		{"energy.estimate", "on", "unknown", "auto or off"},
		{"log.level", "loud", "unknown", "debug, info, warn or error"},
		{"log.format", "xml", "unknown", "auto, console or json"},
		{"node.type", "phone", "unknown", "auto, server, desktop or laptop"},
		{"register", "maybe", "neither true nor false", "true or false"},
		{"data_dir", "var/lib", "not an absolute path", "an absolute path, or auto"},
		{"control.socket", "/" + strings.Repeat("x", 107), "too long for a unix socket", "at most 107 bytes"},
		{"hardware.sysfs_path", "sys", "not an absolute path", "an absolute path"},
		{"hardware.ffmpeg", "bin/ffmpeg", "not an absolute path", "name of a program"},

		{"master.cert", "/x/cert.pem", "certificate without private key", "or neither"},
		{"master.key", "/x/key.pem", "private key without certificate", "or neither"},
		{"node.address", "my box", "contains spaces", "without spaces"},
		{"jobs.default_presets", "h266=fast", `codec "h266" is unknown`, "realtime/8"},
		{"jobs.default_presets", "h264=fastest", `h264 has no preset "fastest"`, "ultrafast"},
		{"jobs.default_presets", "av1=13", `av1 has no preset "13"`, "0 to 12"},
		{"jobs.default_presets", "vp9=good/6", `vp9 has no preset "good/6"`, "good/5"},
		{"jobs.default_presets", "h264=", "h264 has no preset", "ultrafast"},
		{"node.labels", "rack", `"rack" has no value`, "names made of letters"},
		{"node.labels", "a=1,a=2", `duplicate name "a"`, "names made of letters"},
		{"node.labels", "r ack=1", `label "r ack" is not allowed`, "names made of letters"},
		{"exporters.listen_address", "0.0.0.0:9510", "neither an IP address nor a host name", "without a port"},
		{"exporters.listen_address", "10.0.0.256", "neither an IP address nor a host name", "without a port"},
		{"master.url", "localhost:8080", "does not start with http", "http:// or https://"},
		{"master.url", "192.168.1.100:8080", "not a URL", "http:// or https://"},
		{"master.url", "ftp://host", "does not start with http", "http:// or https://"},
		{"master.url", "http://", "has no host", "http:// or https://"},
		{"master.url", "http://:8080", "has no host", "http:// or https://"},
		{"master.url", "http://host:", "no port", "http:// or https://"},
		{"master.url", "http://host:70000", "port out of range", "http:// or https://"},
		{"master.url", "http://host:http", "not a URL", "http:// or https://"},
	}
	for _, test := range tests {
		t.Run(test.key+"="+test.text[:min(len(test.text), 20)], func(t *testing.T) {
			k := keyOf(t, test.key)
			expectProblem(t, machine(t).withEnv(k.envs[0]+"="+test.text), test.key, test.text, "environment variable "+k.envs[0], test.reason, test.allowed)
			quoted := test.key + ": '" + test.text + "'\n"
			expectProblem(t, machine(t).withFile(t, "# a comment\n"+quoted), test.key, test.text, "agent.yaml:2", test.reason, test.allowed)
			if k.flag != "" && !k.rule.path {
				expectProblem(t, machine(t).withFlags(t, "--"+k.flag+"="+test.text), test.key, test.text, "flag --"+k.flag, test.reason, test.allowed)
			}
		})
	}
}

func expectProblem(t *testing.T, src Source, key, value, origin, reason, allowed string) {
	t.Helper()
	problems := problemsOf(t, src)
	if len(problems) != 1 {
		t.Errorf("got %d problems, want 1: %v", len(problems), problems)
	}
	p := problems[0]
	if p.Key != key || !strings.Contains(p.Value, value[:min(len(value), maxShown)]) || !strings.HasSuffix(p.Origin.String(), origin) ||
		!strings.Contains(p.Reason, reason) || !strings.Contains(p.Allowed, allowed) {
		t.Errorf("problem %q\nwant key %s, value %s, origin %s, reason %q, allowed %q", p, key, value, origin, reason, allowed)
	}
}

func keyOf(t *testing.T, path string) key {
	t.Helper()
	for _, k := range schema() {
		if k.path == path {
			return k
		}
	}
	t.Fatalf("no key %s", path)
	return key{}
}

func TestEmptyValues(t *testing.T) {
	for _, k := range schema() {
		// Keys without a default are optional. Empty input roots forbid all local inputs.
		optional := k.def == "" || k.path == "jobs.input_roots"
		if _, err := Load(machine(t).withFile(t, k.path+": ''\n")); (err == nil) != optional {
			t.Errorf("%s: '' in the file: got error %v, want one: %v", k.path, err, !optional)
		}
	}
}

func TestUnknownVariables(t *testing.T) {
	problems := problemsOf(t, machine(t).withEnv("FFMPEG_AGENT_POLL_INTERVALL=3s", "FFMPEG_AGENT_API_KEY=hunter2", "FFMPEG_AGENT_OLD=", "FFMPEG_AGENT_a b=1", "FFMPEG=1"))
	var got []string
	for _, p := range problems {
		got = append(got, p.String())
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{"did you mean FFMPEG_AGENT_POLL_INTERVAL?", "did you mean FFMPEG_AGENT_MASTER_API_KEY?", "FFMPEG_AGENT_…"} {
		if !strings.Contains(all, want) {
			t.Errorf("missing %q in problems:\n%s", want, all)
		}
	}
	if len(problems) != 3 || strings.Contains(all, "hunter2") {
		t.Errorf("got %d problems, want 3 without the secret:\n%s", len(problems), all)
	}
}

func TestErrorListsAllProblems(t *testing.T) {
	src := machine(t).withFile(t, "pol_interval: 1s\nlog: {level: loud}\njobs: [1]\n").
		withEnv("FFMPEG_AGENT_METRICS_PORT=99999", "FFMPEG_AGENT_NOPE=1").
		withFlags(t, "--poll-interval", "10", "--cert", "/c.pem")
	_, err := Load(src)
	for _, want := range []string{
		"configuration: 7 problems",
		"pol_interval (file ", "jobs (file ", `log.level "loud" (file `,
		`metrics_port "99999" (environment variable FFMPEG_AGENT_METRICS_PORT): out of range`,
		"FFMPEG_AGENT_NOPE", `poll_interval "10" (flag --poll-interval): a number without a unit; allowed: a duration from 10ms to 24h, such as 10s`,
		`master.cert "/c.pem" (flag --cert): certificate without private key`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in:\n%v", want, err)
		}
	}
}

func TestMaxWattsBelowIdleWatts(t *testing.T) {
	src := machine(t).withFile(t, "energy: {cpu_idle_watts: 10, cpu_max_watts: 5}\n")
	expectProblem(t, src, "energy.cpu_max_watts", "5", "agent.yaml:1", "below energy.cpu_idle_watts", `at least energy.cpu_idle_watts "10" (file `)
}

func TestUnresolvableAuto(t *testing.T) {
	src := machine(t)
	src.Environ = nil
	src.Hostname = func() (string, error) { return "", os.ErrPermission }
	problems := problemsOf(t, src)
	if len(problems) != 2 || problems[0].Key != "node.address" || problems[1].Key != "data_dir" {
		t.Errorf("got problems %v, want node.address and data_dir", problems)
	}
}

func TestNearest(t *testing.T) {
	paths := []string{"jobs.timeout", "log.level", "poll_interval"}
	for name, want := range map[string]string{
		"job.timeout": "jobs.timeout", "timeout": "jobs.timeout", "POLL_INTERVAL": "poll_interval",
		"log_level": "log.level", "loglevel": "log.level", "zzz": "", "": "",
	} {
		if got := nearest(name, paths); got != want {
			t.Errorf("nearest to %q: got %q, want %q", name, got, want)
		}
	}
}
