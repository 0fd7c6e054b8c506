//go:build attack

package attack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// neighbourAttacks are those of other users of the machine, and of peers on its network.
var neighbourAttacks = []attack{{
	name: "a data directory with links", threat: "T9",
	wants: "to have the agent empty a folder and overwrite a file",
	run: func(t *testing.T) (got string) {
		for _, name := range []string{"work", "agent.pid", "journal.db"} {
			dir, victim := shortDir(t), shortDir(t)
			precious := filepath.Join(victim, "precious")
			if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			to := precious
			if name == "work" {
				to = victim
			}
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			agent := exec.Command(*agentBinary, "--register", "--master", "http://127.0.0.1:1", "--allow-master-as-worker", "--metrics-port", "0")
			agent.Env = []string{"PATH=" + os.Getenv("PATH"), "FFMPEG_AGENT_DATA_DIR=" + dir, "FFMPEG_AGENT_EXPORTERS_CPU_ENABLED=false",
				"FFMPEG_AGENT_EXPORTERS_FFMPEG_ENABLED=false", "FFMPEG_AGENT_EXPORTERS_GPU_ENABLED=false", "FFMPEG_AGENT_EXPORTERS_DOCKER_ENABLED=false"}
			var out output
			agent.Stdout, agent.Stderr = &out, &out
			if err := agent.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- agent.Wait() }()
			select {
			case <-ended:
			case <-time.After(hang):
				_ = agent.Process.Kill()
				got += "an agent that runs; "
			}
			if raw, err := os.ReadFile(precious); string(raw) != "precious" {
				got += fmt.Sprintf("%s: the file has %q, %v; ", name, raw, err)
			}
			if !strings.Contains(out.String(), "link") {
				t.Errorf("%s: the agent does not say why it ended: %s", name, out.String())
			}
		}
		return got
	},
}, {
	name: "another user's file", threat: "T9",
	wants: "to have the agent replace a file of another user",
	run: func(t *testing.T) (got string) {
		if os.Geteuid() != 0 {
			t.Skip("only root can make a file of another user")
		}
		b := newBed(t)
		path := b.file("theirs.mp4", "theirs")
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		p := small()
		p["output"] = path
		b.wantFailure(protocol.ReasonUserError, p)
		if raw, err := os.ReadFile(path); string(raw) != "theirs" {
			got = fmt.Sprintf("the file has %d bytes, %v", len(raw), err)
		}
		return got
	},
}, {
	name: "idle connections", threat: "T10",
	wants: "to block the metrics port",
	run: func(t *testing.T) (got string) {
		b, address := newMetricsBed(t)
		for range 200 {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
		}
		client := http.Client{Timeout: hang / 2, Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Get("http://" + address + "/health")
		if err != nil {
			return "no answer: " + err.Error()
		}
		_ = answer.Body.Close()
		// A page whose host name resolves to this machine is not this machine.
		q, err := http.NewRequest(http.MethodGet, "http://"+address+"/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Host = "attacker.example"
		answer, err = client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("status: %s, %v", answer.Status, err)
		}
		for _, secret := range []string{b.url, b.dir, fmt.Sprintf(`"pid": %d`, b.agent.Process.Pid)} {
			if strings.Contains(string(body), secret) {
				got += secret + "; "
			}
		}
		return got
	},
}, {
	name: "slow requests of many peers", threat: "T10",
	wants: "to block the metrics port",
	run: func(t *testing.T) (got string) {
		b, address := newMetricsBed(t)
		b.wantAlive()
		ctx, cancel := context.WithCancel(t.Context())
		var open, sent atomic.Int32
		var flood sync.WaitGroup
		for peer := range 8 {
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+peer))}, Timeout: hang}
			for range 16 {
				flood.Go(func() {
					for ctx.Err() == nil {
						conn, err := from.Dial("tcp", address)
						if err != nil {
							continue
						}
						fmt.Fprint(conn, "GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: ") // and never ends the line
						sent.Add(1)
						open.Add(1)
						stop := context.AfterFunc(ctx, func() { conn.Close() })
						_, _ = conn.Read(make([]byte, 1)) // until the agent closes it
						stop()
						_ = conn.Close()
						open.Add(-1)
					}
				})
			}
		}
		defer func() { cancel(); flood.Wait() }()
		waitFor(t, "a flood", func() bool { return sent.Load() > 1000 })
		client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		failed := 0
		for range 20 {
			answer, err := client.Get("http://" + address + "/health")
			if err == nil {
				_ = answer.Body.Close()
			}
			if err != nil || answer.StatusCode != http.StatusOK {
				failed++
			}
		}
		if failed > 0 {
			got = fmt.Sprintf("%d of 20 requests without an answer", failed)
		}
		if n := open.Load(); n < 40 {
			t.Errorf("only %d connections of the flood are open, so the attack proves nothing", n)
		}
		b.wantAlive()
		return got
	},
}, {
	name: "another owner's data directory", threat: "T9",
	wants: "a journal and a control socket that others can change",
	run: func(t *testing.T) (got string) {
		for name, prepare := range map[string]func(dir string) error{
			"open to all":       func(dir string) error { return os.Chmod(dir, 0o777) },
			"in an open folder": func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o777) },
			"of another user":   func(dir string) error { return os.Chown(dir, nobody, nobody) },
			"with another's file": func(dir string) error {
				path := filepath.Join(dir, "journal.db")
				return errors.Join(os.WriteFile(path, nil, 0o666), os.Chown(path, nobody, nobody))
			},
		} {
			if os.Geteuid() != 0 && strings.Contains(name, "other") {
				continue
			}
			b := prepareBed(t)
			must(t, prepare(b.dir))
			b.start(os.Geteuid())
			ended := make(chan error, 1)
			go func() { ended <- b.agent.Wait() }()
			refused := false
			waitFor(t, "start of the agent, or its refusal", func() bool {
				select {
				case <-ended:
					refused = true
				default:
				}
				return refused || len(b.master.Nodes()) > 0
			})
			info, err := os.Stat(b.dir)
			must(t, err)
			if mode := info.Mode().Perm(); !refused && mode != 0o700 {
				got += fmt.Sprintf("%s: an agent that runs in a folder of mode %v; ", name, mode)
			}
			if strings.Contains(name, "other") && !refused {
				got += name + ": an agent that runs; "
			}
			t.Logf("%s: refused: %t", name, refused)
		}
		return got
	},
}}

// newMetricsBed is a bed whose agent serves metrics, at the address.
func newMetricsBed(t *testing.T) (b *bed, address string) {
	t.Helper()
	b = prepareBed(t)
	return b, b.startWithMetrics()
}
