package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/internal/devmaster"
)

// A key that the master stops accepting is seen in the status, /ready and a metric, until a
// new one is in its file.
func TestRefusedKeyIsSeen(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	key := filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	port := freePort(t)
	startAgent(t, bed.environment(), append(bed.flags(), "--metrics-port", fmt.Sprint(port), "--api-key-file", key, "--log-level", "debug")...)
	read := func(path string) (code int, body string) {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
		if err != nil {
			return 0, ""
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(raw)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	waitFor(t, "readiness", func() bool { code, _ := read("/ready"); return code == http.StatusOK })

	bed.stopMaster()
	bed.startMaster(devmaster.Config{MaxRetries: 3, FenceAttempts: true, APIKeys: []string{"new"}})
	const says = "the master rejected this agent's API key"
	waitFor(t, "refusal in /ready", func() bool {
		code, body := read("/ready")
		return code == http.StatusServiceUnavailable && strings.Contains(body, says)
	})
	if _, body := read("/metrics"); !strings.Contains(body, `ffmpeg_agent_check_passed{check="key"} 0`) {
		t.Errorf("got metrics without the failed check:\n%s", body)
	}
	socket := filepath.Join(bed.dir, "agent.sock")
	if _, out, _ := command(t, "status", "--socket", socket); !strings.Contains(out, "FAILED key: "+says) {
		t.Errorf("got status:\n%s\nwant the refused key", out)
	}
	if _, out, _ := command(t, "status", "--json", "--socket", socket); !strings.Contains(out, `"key_refused": true`) {
		t.Errorf("got %s, want key_refused", out)
	}
	write("new")
	waitFor(t, "readiness with the new key", func() bool { code, _ := read("/ready"); return code == http.StatusOK })
}
