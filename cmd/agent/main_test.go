package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestConfigurationErrorsExitWithStatus2(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name+".yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	unknownKey := file("unknown-key", "jobs:\n  max_concurent: 2\n")
	badPort := file("bad-port", "metrics_port: 99999\n")
	broken := file("broken", "jobs: [\n")
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
		"CA missing":             {env: map[string]string{"FFMPEG_AGENT_MASTER_CA": "/nowhere/ca"}, want: []string{"master.ca /nowhere/ca (environment variable FFMPEG_AGENT_MASTER_CA): no such file or directory", "allowed"}},
		"no web configuration":   {env: map[string]string{"FFMPEG_AGENT_EXPORTERS_WEB_CONFIG": "/nowhere/web"}, want: []string{"exporters.web_config /nowhere/web (environment variable FFMPEG_AGENT_EXPORTERS_WEB_CONFIG): no such file or directory; allowed"}},
		"CA is no certificate":   {args: []string{"--ca", badPort}, want: []string{"master.ca", badPort, "flag --ca", "PEM"}},
		"certificate missing":    {args: []string{"--cert", "/nowhere/c.pem", "--key", "/nowhere/k.pem"}, want: []string{"master.cert", "/nowhere/c.pem", "PEM"}},
		"proxy is no URL":        {env: map[string]string{"HTTPS_PROXY": "ftp://proxy:21"}, want: []string{"HTTPS_PROXY", "ftp", "socks5"}},
		"master on this machine": {args: []string{"--master", "http://127.0.0.1:1"}, want: []string{"on this host", "--allow-master-as-worker"}},
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
					t.Errorf("got %q, want %q in it", stderr, want)
				}
			}
		})
	}
}

func TestConfigHidesSecrets(t *testing.T) {
	const secret = "s3cr3t-k3y"
	t.Setenv("MASTER_API_KEY", secret)
	t.Setenv("FFMPEG_AGENT_DATA_DIR", t.TempDir())
	status, stdout, stderr := command(t, "config")
	if status != exitOK || !strings.Contains(stdout, "master.api_key:") || !strings.Contains(stdout, "MASTER_API_KEY") {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
	if strings.Contains(stdout+stderr, secret) {
		t.Errorf("got %s%s, want the key hidden", stdout, stderr)
	}
}

func TestConfigShowsOrigins(t *testing.T) {
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
			t.Errorf("got\n%s\nwant a line with %q", stdout, want)
		}
	}
}

func TestSingleDashLongFlags(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", ""},
		{"-register -master=http://m:1 -poll-interval 3s", "--register --master=http://m:1 --poll-interval 3s"},
		{"-master http://m:1 config", "--master http://m:1 config"},
		{"config -api-key k", "config --api-key k"},
		{"report -json -attempt 2 job", "report --json --attempt 2 job"},
		{"report job -html", "report job --html"},
		{"debug hang -for=1s agent/jobs", "debug hang --for=1s agent/jobs"},
		{"-help", "--help"},
		{"status -help", "status --help"},
		{"-version", "--version"},
		{"-h -v", "-h -v"},
		{"--api-key -register -register", "--api-key -register --register"}, // a flag's value
		{"-api-key -master -register", "--api-key -master --register"},
		{"--master=-register", "--master=-register"},
		{"-max-concurrent-jobs -1", "--max-concurrent-jobs -1"},
		{"-skip-confirmation -register", "--skip-confirmation --register"},
		{"-auto-attach-cpu-quota -register", "--auto-attach-cpu-quota -register"},
		{"-- -register", "-- -register"},
		{"report -- -json", "report -- -json"},
		{"-regist -masters=x -Register -watch ---register -", "-regist -masters=x -Register -watch ---register -"},
		{"report -register", "report -register"}, // not a flag of report
		{"status -watch", "status --watch"},
	} {
		if got := withDoubleDashes(newRoot(), strings.Fields(test.args)); strings.Join(got, " ") != test.want || got == nil {
			t.Errorf("%q: got %q, want %q", test.args, got, test.want)
		}
	}
}

func TestStartCommandsOfOlderWorker(t *testing.T) {
	t.Setenv("FFMPEG_AGENT_DATA_DIR", t.TempDir())
	t.Setenv("FFMPEG_RTMP_API_KEY", "s3cr3t")
	t.Setenv("PERSIST_OUTPUTS", "true")
	status, stdout, stderr := command(t, "config", "-register", "-master=https://m:8080", "-heartbeat-interval", "20s", "-skip-confirmation",
		"-enable-auto-attach=maybe", "--auto-attach-scan-interval", "soon", "-auto-attach-cpu-quota=150", "--auto-attach-memory-limit=2048")
	if status != exitOK {
		t.Fatalf("exit status %d: %s", status, stderr)
	}
	for _, want := range []string{
		`(?m)^register: +true +# flag --register$`,
		`(?m)^master.url: +https://m:8080 +# flag --master$`,
		`(?m)^heartbeat_interval: +20s +# flag --heartbeat-interval$`,
		`(?m)^master.api_key: +\(set, hidden\) +# environment variable FFMPEG_RTMP_API_KEY$`,
		`(?m)^jobs.keep_outputs: +true +# environment variable PERSIST_OUTPUTS$`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("got\n%s\nwant a match of %s", stdout, want)
		}
	}
	const ignored = "--auto-attach-cpu-quota, --auto-attach-memory-limit, --auto-attach-scan-interval, --enable-auto-attach, --skip-confirmation"
	if strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, ignored) {
		t.Errorf("got warnings %q, want one line with %s", stderr, ignored)
	}
	if _, help, _ := command(t, "--help"); strings.Contains(help, "auto-attach") || strings.Contains(help, "skip-confirmation") {
		t.Errorf("got help\n%s\nwant it without the ignored flags", help)
	}
}

func TestMissingSessionSuggestsRegister(t *testing.T) {
	t.Setenv("FFMPEG_AGENT_DATA_DIR", t.TempDir())
	status, _, stderr := command(t, "--master", "http://master.invalid:8080")
	if status != exitFailed || !strings.Contains(stderr, "--register") {
		t.Errorf("exit status %d, want %d with --register in the error: %s", status, exitFailed, stderr)
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
	for _, args := range [][]string{
		{}, {"run"}, {"demo"}, {"status"}, {"jobs"}, {"drain"}, {"reload"}, {"doctor"}, {"report"}, {"config"}, {"exporters"}, {"version"},
		{"gpu-check"}, {"debug"}, {"debug", "crash"}, {"debug", "hang"},
	} {
		status, stdout, _ := command(t, append(args, "--help")...)
		const most = 23 // and the prompt after it
		if lines := strings.Count(stdout, "\n"); status != exitOK || lines > most || !strings.Contains(stdout, "\nExample") {
			t.Errorf("%v: exit status %d and %d lines, want at most %d with an example:\n%s", args, status, lines, most, stdout)
		}
		for line := range strings.Lines(stdout) {
			if n := utf8.RuneCountInString(line) - 1; n > 80 {
				t.Errorf("%v: got a line of %d columns, want at most 80: %s", args, n, line)
			}
		}
	}
}

func TestHelpCommand(t *testing.T) {
	_, want, _ := command(t, "status", "--help")
	if status, got, errs := command(t, "help", "status"); status != exitOK || got != want {
		t.Errorf("got exit status %d, %s%s, want the same as status --help", status, got, errs)
	}
}

func TestWrongArguments(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"status", "now"}, `"now"`},
		{[]string{"drain", "now"}, `"now"`},
		{[]string{"reload", "now"}, `"now"`},
		{[]string{"report"}, "a job's id or number"},
		{[]string{"report", ""}, "a job's id"},
		{[]string{"report", "a", "b"}, `"b"`},
		{[]string{"report", "a", "--attempt", "0"}, "at least 1"},
		{[]string{"report", "a", "--json", "--html"}, "--json and --html"},
		{[]string{"debug"}, "crash or hang"},
		{[]string{"debug", "fly"}, `"fly"`},
		{[]string{"debug", "crash"}, "an actor's path"},
		{[]string{"debug", "hang"}, "an actor's path"},
		{[]string{"debug", "hang", "agent", "--for", "0s"}, "more than 0s"},
		{[]string{"debug", "hang", "agent", "--for=-3s"}, "more than 0s"},
	} {
		if _, err := operate(t, test.args...); !isUsage(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: got %v, want a usage error with %q in it", test.args, err, test.want)
		}
	}
}
