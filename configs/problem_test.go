package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A value that is wrong is reported with key, value, origin and what is allowed,
// whichever source it comes from.
func TestWrongValuesAreRefused(t *testing.T) {
	tests := []struct{ key, text, reason, allowed string }{
		{"poll_interval", "10", "a number without a unit", "a duration from 10ms to 24h, such as 10s"},
		{"poll_interval", "0s", "out of range", "a duration from 10ms to 24h"},
		{"poll_interval", "-3s", "out of range", "a duration"},
		{"poll_interval", "soon", "not a duration", "a duration"},
		{"heartbeat_interval", "0", "out of range", "a duration"},
		{"heartbeat_interval", "90s", "so rare", `less than master.unavailable_after "90s" (default)`},
		{"energy.sample_interval", "1m", "out of range", "from 5ms to 10s"},
		{"metrics_port", "65536", "out of range", "from 0 to 65535"},
		{"metrics_port", "-1", "out of range", "from 0 to 65535"},
		{"metrics_port", "http", "not a whole number", "from 0 to 65535"},
		{"metrics_port", "99999999999999999999", "out of range", "from 0 to 65535"},
		{"metrics_port", "0x50", "not a whole number", "from 0 to 65535"},
		{"exporters.cpu.port", "0", "out of range", "from 1 to 65535"},
		{"exporters.gpu.port", "9510", `the same port as exporters.cpu.port "9510" (default)`, "a port of its own"},
		{"jobs.max_concurrent", "0", "out of range", "from 1 to 256"},
		{"jobs.max_concurrent", "-1", "out of range", "from 1 to 256"},
		{"jobs.max_concurrent", "1.5", "not a whole number", "from 1 to 256"},
		{"jobs.min_free_disk", "5", "a number without a unit", "5GiB"},
		{"jobs.min_free_disk", "-5GiB", "not a size", "5GiB"},
		{"jobs.min_free_disk", "101%", "more than the whole disk", "10%"},
		{"jobs.min_free_disk", "5 parsecs", `unknown unit "parsecs"`, "5GiB"},
		{"jobs.min_free_disk", "5000TB", "too large", "1PiB"},
		{"jobs.input_protocols", "file,concat", `"concat" is not a protocol`, "file, http"},
		{"jobs.input_protocols", "file,,http", "empty element", "file, http"},
		{"jobs.input_protocols", "HTTP", "is not a protocol", "file, http"},
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
		{"hardware.ffmpeg", "bin/ffmpeg", "not an absolute path", "a program's name"},
		{"master.cert", "/x/cert.pem", "a certificate without its key", "together, or neither"},
		{"master.key", "/x/key.pem", "a key without its certificate", "together, or neither"},
		{"node.address", "my box", "has spaces", "without spaces"},
		{"node.labels", "rack", `label "rack" has no value`, "names of letters"},
		{"node.labels", "a=1,a=2", `label "a" is there twice`, "names of letters"},
		{"node.labels", "r ack=1", `label "r ack" is not allowed`, "names of letters"},
		{"exporters.listen_address", "0.0.0.0:9510", "neither an IP address nor a host name", "without a port"},
		{"exporters.listen_address", "10.0.0.256", "neither an IP address nor a host name", "without a port"},
		{"master.url", "localhost:8080", "does not begin with http", "http:// or https://"},
		{"master.url", "192.168.1.100:8080", "not a URL", "http:// or https://"},
		{"master.url", "ftp://host", "does not begin with http", "http:// or https://"},
		{"master.url", "http://", "has no host", "http:// or https://"},
		{"master.url", "http://:8080", "has no host", "http:// or https://"},
		{"master.url", "http://host:", "no port", "http:// or https://"},
		{"master.url", "http://host:70000", "port is outside", "http:// or https://"},
		{"master.url", "http://host:http", "not a URL", "http:// or https://"},
	}
	for _, test := range tests {
		t.Run(test.key+"="+test.text[:min(len(test.text), 20)], func(t *testing.T) {
			k := keyOf(t, test.key)
			expectProblem(t, source(t).withEnv(k.envs[0]+"="+test.text), test.key, test.text, "environment variable "+k.envs[0], test.reason, test.allowed)
			quoted := test.key + ": '" + test.text + "'\n"
			expectProblem(t, source(t).withFile(t, "# a comment\n"+quoted), test.key, test.text, "agent.yaml:2", test.reason, test.allowed)
			if k.flag != "" && !k.rule.path {
				expectProblem(t, source(t).withFlags(t, "--"+k.flag+"="+test.text), test.key, test.text, "flag --"+k.flag, test.reason, test.allowed)
			}
		})
	}
}

func expectProblem(t *testing.T, src Source, key, value, origin, reason, allowed string) {
	t.Helper()
	problems := problemsOf(t, src)
	if len(problems) != 1 {
		t.Errorf("%d problems, want one: %v", len(problems), problems)
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

func TestEmptyValuesAreRefusedWhereOneIsNeeded(t *testing.T) {
	for _, k := range schema() {
		// No default means that none is fine; no input roots means that no local file may be read.
		optional := k.def == "" || k.path == "jobs.input_roots"
		if _, err := Load(source(t).withFile(t, k.path+": ''\n")); (err == nil) != optional {
			t.Errorf("%s: '' in the file: %v", k.path, err)
		}
	}
}

func TestBadFilesAreRefused(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{"syntax", "log:\n  level: [info\n", "not valid YAML"},
		{"tab", "log:\n\tlevel: info\n", "agent.yaml:2): not valid YAML"},
		{"two documents", "log: {level: info}\n---\nlog: {level: warn}\n", "more than one document"},
		{"not a mapping", "- a\n- b\n", "a list where a section with keys is expected"},
		{"text", "hello\n", "a single value where a section"},
		{"unknown key", "poll_intervall: 3s\n", "poll_intervall (file "},
		{"suggestion", "poll_intervall: 3s\n", "did you mean poll_interval?"},
		{"suggestion below a section", "jobs:\n  max_concurrnet: 3\n", "did you mean jobs.max_concurrent?"},
		{"suggestion of another section", "max_concurrent: 3\n", "did you mean jobs.max_concurrent?"},
		{"suggestion of a section", "job:\n  timeout: 3s\n", "did you mean jobs?"},
		{"flag's spelling", "heartbeat-interval: 3s\n", "did you mean heartbeat_interval?"},
		{"capitals", "Register: true\n", "did you mean register?"},
		{"duplicate key", "register: true\npoll_interval: 1s\nregister: true\n", "agent.yaml:3): is in the file twice, first in line 1"},
		{"duplicate section", "log: {level: info}\nlog: {format: json}\n", "agent.yaml:2): is in the file twice"},
		{"duplicate by dots", "log: {level: info}\nlog.level: info\n", "log.level (file "},
		{"list for a scalar", "register: true\npoll_interval: [1s]\n", "agent.yaml:2): a list is not expected here; allowed: a duration"},
		{"section for a scalar", "poll_interval: {every: 1s}\n", "a section is not expected here"},
		{"scalar for a section", "jobs: 3\n", "jobs (file "},
		{"section for a list", "jobs: {output_roots: {a: b}}\n", "a section is not expected here"},
		{"list in a list", "jobs: {output_roots: [[/a]]}\n", "has an element that is not a single value"},
		{"list for labels", "node: {labels: [a]}\n", "a list is not expected here"},
		{"duplicate label", "node: {labels: {a: 1, a: 2}}\n", `label "a" is there twice`},
		{"key is a list", "? [a]\n: b\n", "a key that is not a plain word"},
		{"key is odd", "'a b': c\n", "a key that is not a plain word"},
		{"unknown alias", "log: {level: *info}\n", "an alias (*name) to an anchor that is not there"},
		{"alias to itself", "jobs: &j {timeout: 1s, jobs: *j}\n", "jobs.jobs (file "},
		{"value of several lines", "log:\n  level: |\n    a\n    b\n", `"(several lines)"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			problems := problemsOf(t, source(t).withFile(t, test.yaml))
			if len(problems) != 1 || !strings.Contains(problems[0].String(), test.want) {
				t.Errorf("problems %v, want one with %q", problems, test.want)
			}
		})
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.yaml")
	huge := filepath.Join(dir, "huge.yaml")
	if err := os.WriteFile(huge, make([]byte, maxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	byDefault := source(t)
	byDefault.DefaultFile = dir
	tests := []struct {
		name string
		src  Source
		want string
	}{
		{"missing, by flag", source(t).withFlags(t, "--config", missing), `config "` + missing + `" (flag --config): does not exist; allowed: a YAML file`},
		{"missing, by variable", source(t).withEnv("FFMPEG_AGENT_CONFIG=" + missing), "(environment variable FFMPEG_AGENT_CONFIG): does not exist"},
		{"a directory", source(t).withFlags(t, "--config", dir), "cannot be read: is a directory"},
		{"the default is a directory", byDefault, "cannot be read: is a directory"},
		{"too large", source(t).withFlags(t, "--config", huge), "larger than 1 MiB"},
		{"empty name", source(t).withFlags(t, "--config", ""), "(flag --config): empty"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			problems := problemsOf(t, test.src)
			if len(problems) != 1 || !strings.Contains(problems[0].String(), test.want) {
				t.Errorf("problems %v, want one with %q", problems, test.want)
			}
		})
	}
}

func TestUnknownVariablesAreRefused(t *testing.T) {
	problems := problemsOf(t, source(t).withEnv("FFMPEG_AGENT_POLL_INTERVALL=3s", "FFMPEG_AGENT_API_KEY=hunter2", "FFMPEG_AGENT_OLD=", "FFMPEG_AGENT_a b=1", "FFMPEG=1"))
	var got []string
	for _, p := range problems {
		got = append(got, p.String())
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{"did you mean FFMPEG_AGENT_POLL_INTERVAL?", "did you mean FFMPEG_AGENT_MASTER_API_KEY?", "FFMPEG_AGENT_…"} {
		if !strings.Contains(all, want) {
			t.Errorf("problems say nothing of %q:\n%s", want, all)
		}
	}
	if len(problems) != 3 || strings.Contains(all, "hunter2") {
		t.Errorf("problems:\n%s", all)
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	src := source(t).withFile(t, "pol_interval: 1s\nlog: {level: loud}\njobs: [1]\n").
		withEnv("FFMPEG_AGENT_METRICS_PORT=99999", "FFMPEG_AGENT_NOPE=1").
		withFlags(t, "--poll-interval", "10", "--cert", "/c.pem")
	_, err := Load(src)
	for _, want := range []string{
		"configuration: 7 problems",
		"pol_interval (file ", "jobs (file ", `log.level "loud" (file `,
		`metrics_port "99999" (environment variable FFMPEG_AGENT_METRICS_PORT): out of range`,
		"FFMPEG_AGENT_NOPE", `poll_interval "10" (flag --poll-interval): a number without a unit; allowed: a duration from 10ms to 24h, such as 10s`,
		`master.cert "/c.pem" (flag --cert): a certificate without its key`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

func TestAutoThatCannotBeResolvedIsAProblem(t *testing.T) {
	src := source(t)
	src.Environ = nil
	src.Hostname = func() (string, error) { return "", os.ErrPermission }
	problems := problemsOf(t, src)
	if len(problems) != 2 || problems[0].Key != "node.address" || problems[1].Key != "data_dir" {
		t.Errorf("problems %v, want of node.address and data_dir", problems)
	}
}

func TestNearest(t *testing.T) {
	paths := []string{"jobs.timeout", "log.level", "poll_interval"}
	for name, want := range map[string]string{
		"job.timeout": "jobs.timeout", "timeout": "jobs.timeout", "POLL_INTERVAL": "poll_interval",
		"log_level": "log.level", "loglevel": "log.level", "zzz": "", "": "",
	} {
		if got := nearest(name, paths); got != want {
			t.Errorf("nearest to %q is %q, want %q", name, got, want)
		}
	}
}
