//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

func reloaded(t *testing.T, w *worker) {
	pid := mainPID(t)
	shell(t, `printf 'log:\n  level: debug\n' >>/etc/ffmpeg-agent/agent.yaml`)
	shell(t, "systemctl reload ffmpeg-agent")
	waitFor(t, "lines of the level debug", func() bool {
		_, err := try("journalctl --no-pager -u ffmpeg-agent -p debug..debug -o cat | grep .")
		return err == nil
	})
	shell(t, "journalctl --no-pager -u ffmpeg-agent -o cat | grep -i -m 3 reload")
	if now := mainPID(t); now != pid || unitProperty(t, "ActiveState") != "active" {
		t.Errorf("process %d is now %d and %s, want the same and active", pid, now, unitProperty(t, "ActiveState"))
	}
	shell(t, "sed -i '/^log:/,$d' /etc/ffmpeg-agent/agent.yaml")
}

func newKey(t *testing.T, w *worker) {
	pid := mainPID(t)
	w.master = startMaster(t, secondKey)
	begun := time.Now()
	if err := os.Setenv("MASTER_API_KEY", secondKey); err != nil { // for the later steps as well
		t.Fatal(err)
	}
	shell(t, readmeBlock(t, "Installing it", 0)[2])
	id := w.submit(t, protocol.JobRequest{Parameters: map[string]any{"duration": 1, "resolution": "160x120"}})
	w.await(t, id, protocol.StatusCompleted)
	say("a job with the new key %s after it was written", time.Since(begun).Round(100*time.Millisecond))
	if now := mainPID(t); now != pid {
		t.Errorf("process %d is now %d, want the same", pid, now)
	}
}

func upgraded(t *testing.T, w *worker) {
	earlier := w.submit(t, protocol.JobRequest{Parameters: map[string]any{"duration": 1, "resolution": "160x120"}})
	w.await(t, earlier, protocol.StatusCompleted)
	before := shell(t, "agent version")
	id := w.submit(t, w.live.job("upgraded"))
	awaitFFmpeg(t)
	upgrade := exec.Command("bash", "-c", "apt-get install -y ./current/ffmpeg-agent_*_amd64.deb")
	var out strings.Builder
	upgrade.Stdout, upgrade.Stderr = &out, &out
	if err := upgrade.Start(); err != nil {
		t.Fatal(err)
	}
	say("# apt-get install -y ./current/ffmpeg-agent_*_amd64.deb")
	waitFor(t, "the drain", func() bool {
		return strings.HasPrefix(unitProperty(t, "StatusText"), "Draining: waiting for 1 running job")
	})
	w.live.finish("upgraded")
	begun := time.Now()
	if err := upgrade.Wait(); err != nil {
		t.Fatalf("the upgrade: %v\n%s", err, &out)
	}
	if job := w.job(t, id); job.Status != protocol.StatusCompleted || job.RetryCount != 0 {
		t.Errorf("the job is %s after %d retries, want completed in its first attempt", job.Status, job.RetryCount)
	}
	say("the job has finished and is reported; registered %s after its end", w.registeredSince(t, begun))
	if after := shell(t, "agent version"); after == before {
		t.Errorf("still version %s", after)
	}
	if out := shell(t, "grep -c 10.99.0.1 /etc/ffmpeg-agent/agent.yaml"); strings.TrimSpace(out) != "1" {
		t.Errorf("the configuration was not kept")
	}
	shell(t, "agent report "+earlier+" | head -n 2") // from the journal
}

func purged(t *testing.T, w *worker) {
	shell(t, "apt-get purge -y ffmpeg-agent")
	wantNothingLeft(t, w.before)
	if out, err := try("systemctl cat ffmpeg-agent"); err == nil {
		t.Errorf("systemd still knows the unit: %s", out)
	}
	if left := ffmpegs(); len(left) > 0 {
		t.Errorf("FFmpeg still runs: %v", left)
	}
	shell(t, "getent passwd ffmpeg") // stays: outputs belong to it
}

func byHand(t *testing.T, w *worker) {
	begun := time.Now()
	for _, line := range readmeBlock(t, "Installing it", 1) {
		switch {
		case strings.HasPrefix(line, "make "): // was built outside
			continue
		case strings.HasSuffix(line, " -f"): // follows the log for ever
			line = "timeout 3 " + line + " || [ $? = 124 ]"
		}
		shell(t, "cd src && "+line)
	}
	say("registered %s after the first line", w.registeredSince(t, begun))
	id := w.submit(t, protocol.JobRequest{Parameters: map[string]any{"duration": 1, "resolution": "160x120"}})
	w.await(t, id, protocol.StatusCompleted)
	shell(t, "src/deployment/install.sh --purge")
	wantNothingLeft(t, w.before)
}

func installScript(t *testing.T, w *worker) {
	shell(t, "src/deployment/install.sh")
	shell(t, "nano /etc/ffmpeg-agent/agent.yaml")
	shell(t, readmeBlock(t, "Installing it", 0)[2])
	begun := time.Now()
	shell(t, "systemctl enable --now ffmpeg-agent")
	w.registeredSince(t, begun)
	pid := mainPID(t)
	shell(t, "src/deployment/install.sh") // again, as for an upgrade
	if now := mainPID(t); now == pid || now == 0 {
		t.Errorf("process %d is now %d, want another", pid, now)
	}
	if out := shell(t, "grep -c 10.99.0.1 /etc/ffmpeg-agent/agent.yaml"); strings.TrimSpace(out) != "1" {
		t.Errorf("the configuration was not kept")
	}
	id := w.submit(t, protocol.JobRequest{Parameters: map[string]any{"duration": 1, "resolution": "160x120"}})
	w.await(t, id, protocol.StatusCompleted)
	shell(t, "src/deployment/install.sh --uninstall")
	if _, err := try("test -e /etc/ffmpeg-agent/key && test -e /var/lib/ffmpeg-agent/journal.db"); err != nil {
		t.Error("the key or the journal is gone")
	}
	shell(t, "src/deployment/install.sh --purge")
	wantNothingLeft(t, w.before)
}
