//go:build attack

package attack

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		_ = l.Close()
		_, port, _ := net.SplitHostPort(address)
		b := newBed(t, "FFMPEG_AGENT_METRICS_PORT="+port)
		waitFor(t, "metrics port", func() bool {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
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
}}
