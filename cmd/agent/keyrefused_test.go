package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ffmpeg-agent/configs"
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
	read := reader(t, port)
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

// reader returns a function that reads paths of a port of this machine; status 0 for no answer.
func reader(t *testing.T, port int) func(path string) (code int, body string) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return func(path string) (code int, body string) {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
		if err != nil {
			return 0, ""
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(raw)
	}
}

// A key file that is missing at the start does not end the agent, which names it and takes the
// key once it is there. One that disappears later changes nothing.
func TestKeyFileMissingAtStart(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	bed.stopMaster()
	bed.startMaster(devmaster.Config{MaxRetries: 3, FenceAttempts: true, APIKeys: []string{"right"}})
	key, port := filepath.Join(t.TempDir(), "key"), freePort(t)
	agent := startAgent(t, bed.environment(), append(bed.flags(), "--metrics-port", fmt.Sprint(port), "--api-key-file", key)...)
	read := reader(t, port)
	says := "no API key: master.api_key_file " + key + " (flag --api-key-file): no such file or directory"
	waitFor(t, "the missing file in /ready", func() bool {
		code, body := read("/ready")
		return code == http.StatusServiceUnavailable && strings.Contains(body, says)
	})
	socket := filepath.Join(bed.dir, "agent.sock")
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/ready", port), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "proxy.example" // so that it counts as one from elsewhere
	if response, err := http.DefaultClient.Do(request); err != nil {
		t.Error(err)
	} else if body, _ := io.ReadAll(response.Body); response.Body.Close() != nil || !strings.Contains(string(body), "no API key") || strings.Contains(string(body), key) {
		t.Errorf("got %s\nwant the fault without the path of the key", body)
	}
	if status, _, errs := command(t, "reload", "--socket", socket); status != exitFailed || !strings.Contains(errs, key) || !strings.Contains(errs, "the agent has no API key") {
		t.Errorf("reload: got exit status %d, %s, want a failure that names the file", status, errs)
	}
	if _, out, _ := command(t, "status", "--socket", socket); !strings.Contains(out, "FAILED key: "+says) {
		t.Errorf("got status:\n%s\nwant the missing file", out)
	}
	if !strings.Contains(agent.log(), "no API key for the master") || !strings.Contains(agent.log(), key) {
		t.Error("the log does not name the missing file")
	}
	replace(t, key, "right\n")
	waitFor(t, "readiness with the key", func() bool { code, _ := read("/ready"); return code == http.StatusOK })
	if status, out, errs := command(t, "reload", "--socket", socket); status != exitOK || strings.Contains(errs, "no API key") {
		t.Errorf("reload with the key: got exit status %d, %s%s", status, out, errs)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the refused reload", func() bool {
		return strings.Contains(agent.log(), "could not reload the configuration; nothing has changed")
	})
	if code, body := read("/ready"); code != http.StatusOK {
		t.Errorf("after the file was removed: got %s, want the key kept", body)
	}
}

func TestExposedKeyFileIsNamed(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	replace(t, key, "right\n")
	e := effective{Config: configs.Config{Master: configs.Master{APIKeyFile: key}}}
	for mode, want := range map[os.FileMode][]string{
		0o640: nil,
		0o644: {"every user of this machine has access to " + key + " (master.api_key_file): sudo chmod o= " + key},
		0o602: {"every user of this machine has access to " + key + " (master.api_key_file): sudo chmod o= " + key},
	} {
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		if got := e.warnings(); !slices.Equal(got, want) {
			t.Errorf("mode %o: got warnings %q, want %q", mode, got, want)
		}
	}
}
