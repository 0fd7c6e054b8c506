//go:build attack

package attack

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"ffmpeg-agent/messages/protocol"
)

// nobody is the user of agents that do not run as root.
const nobody = 65534

// spoils is what an exploited FFmpeg got, by what it tried: "got", or the error.
type spoils map[string]string

// all are the names of what was got, sorted.
func (s spoils) all() (names []string) {
	for name, result := range s {
		if result == "got" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

var attackLine = regexp.MustCompile(`ATTACK ([^:]+): (.*?)(?:\\n|\n|$)`)

// exploit runs a job by an exploited FFmpeg. uid is the agent's user. A job that streams does so
// to a port that does not listen.
func exploit(t *testing.T, uid int, streams bool, env ...string) spoils {
	t.Helper()
	b := prepareBed(t)
	secret := b.file("secret", "of another owner")
	owner := nobody
	if uid == nobody {
		owner = 0 // and unreadable for the agent's user, where that is not root
	}
	must(t, os.Chmod(secret, 0o600))
	must(t, os.Chown(secret, owner, owner))
	plant := filepath.Join(b.files, "plant")
	must(t, os.Mkdir(plant, 0o777))
	must(t, os.Chmod(plant, 0o777))
	master, err := url.Parse(b.url)
	must(t, err)
	b.compile("ffmpeg", "testdata/exploited.c", "-DDATA="+quoted(b.dir), "-DSECRET="+quoted(secret), "-DPLANT="+quoted(plant), "-DPORT="+master.Port())
	ffmpeg := filepath.Join(b.home, "ffmpeg")
	b.start(uid, append([]string{"FFMPEG_AGENT_HARDWARE_FFMPEG=" + ffmpeg}, env...)...)
	job, want := small(), protocol.StatusCompleted
	if streams {
		job["output_mode"], job["rtmp_url"] = "rtmp", "rtmp://127.0.0.1:1/live/key"
		want = protocol.StatusFailed
	}
	result, _ := b.run(job)
	got := spoils{}
	for _, m := range attackLine.FindAllStringSubmatch(result.Logs, -1) {
		got[m[1]] = m[2]
	}
	if len(got) < 30 || result.Status != want {
		t.Fatalf("%d attempts, %s: %s\n%s", len(got), result.Status, result.Error, result.Logs)
	}
	return got
}

func quoted(s string) string { return `"` + s + `"` }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// only is the environment of an agent whose sandbox has one layer, beside no_new_privs, which
// the others need.
func only(layer string) string {
	layers := []string{"capabilities", "landlock", "seccomp", "rlimits", "oom_score_adj"}
	return "FFMPEG_AGENT_DEBUG_SANDBOX_WITHOUT=" + strings.Join(slices.DeleteFunc(layers, func(l string) bool { return l == layer }), ",")
}

// sandboxes are the columns of the table of what an exploited FFmpeg gets.
var sandboxes = []column{
	{"off", "FFMPEG_AGENT_JOBS_SANDBOX=off", false},
	{"capabilities", only("capabilities"), false},
	{"landlock", only("landlock"), false},
	{"seccomp", only("seccomp"), false},
	{"all", "FFMPEG_AGENT_JOBS_SANDBOX=require", false},
	{"rtmp off", "FFMPEG_AGENT_JOBS_SANDBOX=off", true},
	{"rtmp seccomp", only("seccomp"), true},
	{"rtmp all", "FFMPEG_AGENT_JOBS_SANDBOX=require", true},
}

type column struct {
	name    string
	env     string
	streams bool // its job streams to an rtmp server
}

// exploited is what was found out so far, by the agent's user and the sandbox.
var exploited = map[string]spoils{}

// got is what an exploited FFmpeg gets.
func got(t *testing.T, uid int, sandbox string) spoils {
	t.Helper()
	key := fmt.Sprint(uid, sandbox)
	if _, known := exploited[key]; !known {
		i := slices.IndexFunc(sandboxes, func(s column) bool { return s.name == sandbox })
		exploited[key] = exploit(t, uid, sandboxes[i].streams, sandboxes[i].env)
	}
	return exploited[key]
}

// users are those that the agent runs as: both where these tests run as root.
func users() []int {
	if os.Geteuid() == 0 {
		return []int{0, nobody}
	}
	return []int{os.Geteuid()}
}

// decoder is an attack by an exploited decoder: what it must not get.
func decoder(threat, name, wants string, tried ...string) attack {
	return attack{name: "exploited decoder: " + name, threat: threat, wants: wants, run: func(t *testing.T) string {
		return gotten(t, "all", "off", tried)
	}}
}

// streaming is likewise one of a job that streams.
func streaming(threat, name, wants string, tried ...string) attack {
	return attack{name: "exploited decoder that streams: " + name, threat: threat, wants: wants, run: func(t *testing.T) string {
		return gotten(t, "rtmp all", "rtmp off", tried)
	}}
}

// gotten is what an exploited decoder gets of what it tried, in a sandbox and as any user. What
// no user gets without a sandbox proves nothing.
func gotten(t *testing.T, sandbox, bare string, tried []string) (got string) {
	t.Helper()
	for _, what := range tried {
		provable := false
		for _, uid := range users() {
			if result(t, uid, sandbox, what) == "got" {
				got += fmt.Sprintf("%s as user %d; ", what, uid)
			}
			provable = provable || result(t, uid, bare, what) == "got"
		}
		if !provable && os.Geteuid() == 0 {
			t.Errorf("%s: it gets that without a sandbox neither (%s), so the attack proves nothing", what, result(t, users()[0], bare, what))
		}
	}
	return got
}

// result is what came of one try.
func result(t *testing.T, uid int, sandbox, what string) string {
	t.Helper()
	r, known := got(t, uid, sandbox)[what]
	if !known {
		t.Fatalf("the exploited FFmpeg does not try %q", what)
	}
	return r
}

var decoderAttacks = []attack{
	decoder("T2", "the agent's secrets", "the API key of the master", "environment of the agent", "memory of the agent", "tracing the agent"),
	decoder("T2", "the agent itself", "to end or hinder the agent", "signal to the agent", "signal to the agent by a pipe", "limits of the agent", "priority of the agent"),
	decoder("T3", "the agent's files", "stream keys of other jobs, results, control of the agent", "journal", "workspaces of other jobs", "control socket", "its own manifest", "mode of the data directory"),
	decoder("T3", "files of others", "other tenants' media, a foothold", "file of another owner", "truncating an input", "planting a file", "planting a link", "changing owners"),
	decoder("T4", "the network", "to reach the master and the local network, to be reached", "connecting to the master", "connecting by TCP Fast Open", "sending a datagram", "listening",
		"netlink", "raw network", "MPTCP"),
	streaming("T4", "other ports than the stream's", "to reach the master and the local network, to be reached", "connecting to the master", "connecting by TCP Fast Open",
		"sending a datagram", "listening", "netlink", "raw network", "MPTCP", "control socket"),
	streaming("T2", "the agent itself", "to end or hinder the agent", "signal to the agent", "signal to the agent by a pipe", "signal to the agent by a socket",
		"signal to the agent by a request of more bits"),
	streaming("T3", "the agent's files", "stream keys of other jobs, results", "journal", "workspaces of other jobs", "its own manifest", "file of another owner", "environment of the agent"),
	decoder("T5", "to stay", "to run on after its job", "starting processes", "outliving the agent", "new session"),
	decoder("T6", "the memory of others", "to have the kernel end others when memory is short", "being the last that the kernel ends"),
	decoder("T5", "the kernel", "a way to more privileges", "new user namespace", "mounting", "keyrings", "io_uring", "BPF", "userfaultfd", "the kernel's devices", "files in memory"),
	{
		name: "exploited decoder, no sandbox: the agent's secrets", threat: "T2", wants: "the API key, where the agent is no root",
		run: func(t *testing.T) (held string) {
			for _, uid := range users() {
				if uid == 0 {
					continue // root may trace anything
				}
				for _, what := range []string{"environment of the agent", "memory of the agent", "tracing the agent"} {
					if got(t, uid, "off")[what] == "got" {
						held += what + "; "
					}
				}
			}
			return held
		},
	},
	{
		name: "exploited decoder, jobs.run_as", threat: "T2", wants: "anything, where FFmpeg has a user of its own",
		run: func(t *testing.T) string {
			if os.Geteuid() != 0 {
				t.Skip("only an agent that is root may switch users")
			}
			return strings.Join(exploit(t, 0, false, "FFMPEG_AGENT_JOBS_SANDBOX=require", "FFMPEG_AGENT_JOBS_RUN_AS=nobody").all(), ", ")
		},
	}, {
		name: "exploited decoder, jobs.run_as without landlock and seccomp", threat: "T2", wants: "the agent's memory and control by its user",
		run: func(t *testing.T) (held string) {
			if os.Geteuid() != 0 {
				t.Skip("only an agent that is root may switch users")
			}
			got := exploit(t, 0, false, "FFMPEG_AGENT_JOBS_RUN_AS=nobody", "FFMPEG_AGENT_DEBUG_SANDBOX_WITHOUT=landlock,seccomp")
			for _, what := range []string{"environment of the agent", "memory of the agent", "tracing the agent", "signal to the agent", "limits of the agent", "priority of the agent"} {
				if got[what] == "got" {
					held += what + "; "
				}
			}
			return held
		},
	},
	alone("landlock", "T3", "journal", "workspaces of other jobs", "its own manifest", "file of another owner", "planting a file", "environment of the agent", "memory of the agent",
		"tracing the agent", "connecting to the master", "signal to the agent", "the kernel's devices"),
	alone("seccomp", "T5", "tracing the agent", "signal to the agent", "signal to the agent by a pipe", "limits of the agent", "priority of the agent", "control socket",
		"mode of the data directory", "planting a link", "changing owners", "connecting to the master", "sending a datagram", "listening", "netlink", "raw network",
		"starting processes", "outliving the agent", "new session", "new user namespace", "mounting", "keyrings", "io_uring", "BPF", "userfaultfd"),
	alone("rtmp seccomp", "T2", "signal to the agent", "signal to the agent by a pipe", "signal to the agent by a socket", "signal to the agent by a request of more bits",
		"control socket", "connecting by TCP Fast Open", "sending a datagram", "listening", "netlink", "raw network", "MPTCP"),
	alone("capabilities", "T5", "mounting", "raw network", "BPF", "changing owners"),
}

// alone is what one layer of the sandbox has to hold, with the others off.
func alone(layer, threat string, tried ...string) attack {
	return attack{name: "exploited decoder, " + layer + " alone", threat: threat, wants: "what another layer would have to hold", run: func(t *testing.T) (held string) {
		for _, uid := range users() {
			if uid != 0 && layer == "capabilities" {
				continue // it has none
			}
			for _, what := range tried {
				if result(t, uid, layer, what) == "got" {
					held += fmt.Sprintf("%s as user %d; ", what, uid)
				}
			}
		}
		return held
	}}
}

// printSpoils prints what an exploited FFmpeg got, by the agent's user and the sandbox.
func printSpoils(t *testing.T, out io.Writer) {
	for _, uid := range users() {
		fmt.Fprintf(out, "\nWhat an exploited FFmpeg of an agent of user %d gets, by its sandbox:\n\n", uid)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprint(table, "TRIES")
		var names []string
		for _, s := range sandboxes {
			fmt.Fprintf(table, "\t%s", s.name)
		}
		fmt.Fprintln(table)
		for name := range got(t, uid, "all") {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprint(table, name)
			for _, s := range sandboxes {
				result := "-"
				if got(t, uid, s.name)[name] == "got" {
					result = "got"
				}
				fmt.Fprintf(table, "\t%s", result)
			}
			fmt.Fprintln(table)
		}
		table.Flush()
	}
}
