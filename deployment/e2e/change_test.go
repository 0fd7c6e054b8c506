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

func brokenReload(t *testing.T, w *worker) {
	pid := mainPID(t)
	shell(t, "cp -a /etc/ffmpeg-agent/agent.yaml /root/agent.yaml")
	shell(t, `printf 'shutdown:\n  drain_timeout: soon\n' >>/etc/ffmpeg-agent/agent.yaml`)
	lines, _ := try("wc -l </etc/ffmpeg-agent/agent.yaml")
	place := "/etc/ffmpeg-agent/agent.yaml:" + strings.TrimSpace(lines)
	out, err := try("systemctl reload ffmpeg-agent")
	if err == nil {
		t.Error("systemctl reload succeeded")
	}
	say("# systemctl reload ffmpeg-agent\n%s", strings.TrimSpace(out))
	for _, line := range []string{
		"journalctl --no-pager -u ffmpeg-agent -p err -o cat | tail -n 3",
		"agent status | grep 'RELOAD FAILED'",
		"agent reload 2>&1 || true",
	} {
		if out := shell(t, line); !strings.Contains(out, place) {
			t.Errorf("%s does not name %s", line, place)
		}
	}
	id := w.submit(t, protocol.JobRequest{Parameters: map[string]any{"duration": 1, "resolution": "160x120"}})
	w.await(t, id, protocol.StatusCompleted)
	shell(t, "cp -a /root/agent.yaml /etc/ffmpeg-agent/agent.yaml")
	shell(t, "systemctl reload ffmpeg-agent")
	if now := mainPID(t); now != pid || unitProperty(t, "ActiveState") != "active" {
		t.Errorf("process %d is now %d and %s, want the same and active", pid, now, unitProperty(t, "ActiveState"))
	}
}

func failedStart(t *testing.T, w *worker) {
	shell(t, "sed -i 's/^jobs:/jobs:\\n  run_as: nobody/' /etc/ffmpeg-agent/agent.yaml")
	if out, err := try("systemctl restart ffmpeg-agent"); err == nil {
		t.Errorf("systemctl restart succeeded: %s", out)
	}
	const why = "jobs.run_as"
	if text := unitProperty(t, "StatusText"); !strings.Contains(text, why) {
		t.Errorf("the status text is %q, want it to name %s", text, why)
	}
	shell(t, "systemctl status --no-pager ffmpeg-agent | grep -m 3 'Active\\|Status\\|run_as'")
	begun := time.Now()
	shell(t, "cp -a /root/agent.yaml /etc/ffmpeg-agent/agent.yaml")
	say("registered %s after the correction", w.registeredSince(t, begun))

	// Without its key file the agent starts, and waits for it.
	shell(t, "mv /etc/ffmpeg-agent/key /root/key")
	shell(t, "systemctl restart ffmpeg-agent")
	waitFor(t, "the missing key file in the status text", func() bool {
		return strings.Contains(unitProperty(t, "StatusText"), "no API key: master.api_key_file /etc/ffmpeg-agent/key")
	})
	begun = time.Now()
	shell(t, "mv /root/key /etc/ffmpeg-agent/key")
	say("registered %s after the key file was back", w.registeredSince(t, begun))
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
	const command = "apt-get install -y -o Dpkg::Options::=--force-confold ./current/ffmpeg-agent_*_amd64.deb"
	upgrade := exec.Command("bash", "-c", command)
	var out strings.Builder
	upgrade.Stdout, upgrade.Stderr = &out, &out
	if err := upgrade.Start(); err != nil {
		t.Fatal(err)
	}
	say("# %s", command)
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
	shell(t, "cmp /root/agent.yaml /etc/ffmpeg-agent/agent.yaml && cmp src/deployment/agent.yaml /etc/ffmpeg-agent/agent.yaml.dpkg-dist")
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
	wantWholeSandbox(t)
	// The master and its key are in the environment of the unit alone.
	shell(t, "agent doctor >/tmp/findings; grep '^ok *master *"+masterURL+"' /tmp/findings && grep '^ok *key ' /tmp/findings")
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
	// What cannot be installed leaves the agent running.
	for _, line := range []string{
		"src/deployment/install.sh /bin/false",
		"echo 'of_a_later_version: 1' >>/etc/ffmpeg-agent/agent.yaml; src/deployment/install.sh",
		"sed -i '/^of_a_later/d' /etc/ffmpeg-agent/agent.yaml; rm -rf /root/half; cp -r src/deployment /root/half && rm /root/half/ffmpeg-agent.rules; /root/half/install.sh src/bin/agent",
	} {
		out, err := try(line)
		say("# %s\n%s", line, strings.TrimSpace(out))
		if now := mainPID(t); err == nil || now != pid {
			t.Errorf("got %v, and process %d is now %d, want a failure and the same", err, pid, now)
		}
	}
	if left, _ := try("ls /usr/local/bin/*.new /etc/systemd/system/*.new"); strings.HasPrefix(left, "/") {
		t.Errorf("left behind: %s", left)
	}
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
