package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFileFromFlagOrVariable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(file, []byte("metrics_port: 1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := machine(t).withFile(t, "metrics_port: 4321\n")
	for name, src := range map[string]Source{
		"flag":               other.withFlags(t, "--config", file),
		"variable":           other.withEnv("FFMPEG_AGENT_CONFIG=" + file),
		"flag over variable": other.withEnv("FFMPEG_AGENT_CONFIG=/nowhere").withFlags(t, "--config", file),
	} {
		l := mustLoad(t, src)
		if l.Config.MetricsPort != 1234 || l.File != file {
			t.Errorf("%s: metrics_port %d from %q, want 1234 from %q", name, l.Config.MetricsPort, l.File, file)
		}
	}
}

func TestYAMLScalarsKeepTheirText(t *testing.T) {
	l := mustLoad(t, machine(t).withFile(t, `
master.url: https://m       # dotted form of the same key
master: {api_key: 0123}
node:
  labels: {Rack: 007, on: off}
jobs:                       # empty section
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

func TestInvalidFiles(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{"syntax", "log:\n  level: [info\n", "not valid YAML"},
		{"tab", "log:\n\tlevel: info\n", "agent.yaml:2): not valid YAML"},
		{"two documents", "log: {level: info}\n---\nlog: {level: warn}\n", "more than one document"},
		{"not a mapping", "- a\n- b\n", "a list instead of a section"},
		{"text", "hello\n", "a scalar instead of a section"},
		{"unknown key", "poll_intervall: 3s\n", "poll_intervall (file "},
		{"suggestion", "poll_intervall: 3s\n", "did you mean poll_interval?"},
		{"suggestion within a section", "jobs:\n  max_concurrnet: 3\n", "did you mean jobs.max_concurrent?"},
		{"suggestion from another section", "max_concurrent: 3\n", "did you mean jobs.max_concurrent?"},
		{"suggestion of a section", "job:\n  timeout: 3s\n", "did you mean jobs?"},
		{"hyphen", "heartbeat-interval: 3s\n", "did you mean heartbeat_interval?"},
		{"capitals", "Register: true\n", "did you mean register?"},
		{"duplicate key", "register: true\npoll_interval: 1s\nregister: true\n", "agent.yaml:3): duplicate key, first set in line 1"},
		{"duplicate section", "log: {level: info}\nlog: {format: json}\n", "agent.yaml:2): duplicate key"},
		{"duplicate, dotted", "log: {level: info}\nlog.level: info\n", "log.level (file "},
		{"list for a scalar", "register: true\npoll_interval: [1s]\n", "agent.yaml:2): cannot be a list; allowed: a duration"},
		{"section for a scalar", "poll_interval: {every: 1s}\n", "cannot be a section"},
		{"scalar for a section", "jobs: 3\n", "jobs (file "},
		{"section for a list", "jobs: {output_roots: {a: b}}\n", "cannot be a section"},
		{"list in a list", "jobs: {output_roots: [[/a]]}\n", "has an element that is not a scalar"},
		{"list for labels", "node: {labels: [a]}\n", "cannot be a list"},
		{"duplicate label", "node: {labels: {a: 1, a: 2}}\n", `duplicate name "a"`},
		{"key is a list", "? [a]\n: b\n", "key is not a plain word"},
		{"key with a space", "'a b': c\n", "key is not a plain word"},
		{"undefined alias", "log: {level: *info}\n", "alias (*name) to an undefined anchor"},
		{"alias to itself", "jobs: &j {timeout: 1s, jobs: *j}\n", "jobs.jobs (file "},
		{"value of several lines", "log:\n  level: |\n    a\n    b\n", `"(several lines)"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			problems := problemsOf(t, machine(t).withFile(t, test.yaml))
			if len(problems) != 1 || !strings.Contains(problems[0].String(), test.want) {
				t.Errorf("problems %v, want one with %q", problems, test.want)
			}
		})
	}
}

func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.yaml")
	huge := filepath.Join(dir, "huge.yaml")
	if err := os.WriteFile(huge, make([]byte, maxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	byDefault := machine(t)
	byDefault.DefaultFile = dir
	tests := []struct {
		name string
		src  Source
		want string
	}{
		{"missing, by flag", machine(t).withFlags(t, "--config", missing), `config "` + missing + `" (flag --config): does not exist; allowed: a readable YAML file`},
		{"missing, by variable", machine(t).withEnv("FFMPEG_AGENT_CONFIG=" + missing), "(environment variable FFMPEG_AGENT_CONFIG): does not exist"},
		{"directory", machine(t).withFlags(t, "--config", dir), "could not read it: is a directory"},
		{"default file is a directory", byDefault, "could not read it: is a directory"},
		{"too large", machine(t).withFlags(t, "--config", huge), "larger than 1 MiB"},
		{"empty name", machine(t).withFlags(t, "--config", ""), "(flag --config): empty"},
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

// FuzzLoadFile appends a secret to the file. Load must not panic, must fail only with
// an *Error, and must not leak the secret.
func FuzzLoadFile(f *testing.F) {
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(example), "", "log: {level: loud}", "jobs:\n  timeout: 1", "a: &a [*a]", "? [x]\n: y", "- 1", "\t", "log:\n  level: \"",
		"register: !!binary x", "node: {labels: {a: 1, b: 2}}", "%YAML 9\n---\n", "<<: {a: b}", "log:\n  level: >\n    x\n", "x: *y", "\xff\xfe",
		"%AAAAAAA", "%YAML 00", "0\xb3", "0: !!aaaaaaaa", "!!'!!", "\x7f", "{000}", "0: 0 0:", "0: 0:", "0: [*0",
		"jobs:\n  Y000ou00:\n  Y0: 0", "\n\nexport: 30s\n",
	} {
		f.Add([]byte(seed))
	}
	file := filepath.Join(f.TempDir(), "agent.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		data = append(data[:len(data):len(data)], "\nmaster:\n  api_key: \"!"+canary+"\"\n"...)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Load(Source{Environ: []string{"HOME=/home/op"}, DefaultFile: file})
		if err == nil {
			if text := fmt.Sprintf("%+v %v", l, l.Entries()); leaks(text) {
				t.Errorf("secret leaked: %s", text)
			}
			return
		}
		var invalid *Error
		if !errors.As(err, &invalid) || len(invalid.Problems) == 0 {
			t.Fatalf("error %v of type %T, want an *Error with problems", err, err)
		}
		if leaks(err.Error()) {
			t.Errorf("secret leaked: %v", err)
		}
	})
}
