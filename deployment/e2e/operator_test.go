//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// hang is the deadline of whatever a step waits for.
const hang = 3 * time.Minute

// shell runs a command line as an operator does, shows it, and returns what it prints.
func shell(t *testing.T, line string) string {
	t.Helper()
	out, err := try(line)
	shown := strings.TrimSpace(out)
	if lines := strings.Split(shown, "\n"); len(lines) > 6 {
		shown = strings.Join(lines[len(lines)-6:], "\n")
	}
	say("# %s", line)
	if shown != "" {
		say("%s", shown)
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s\n%s", line, err, out, state())
	}
	return out
}

// state is what systemd knows of the unit, for a failure.
func state() string {
	out, _ := try("systemctl status ffmpeg-agent --no-pager -n 0; journalctl -u ffmpeg-agent -n 60 --no-pager -o short-monotonic")
	return out
}

// try is shell for a command that may fail. It is not shown.
func try(line string) (string, error) {
	cmd := exec.Command("/bin/bash", "-c", line)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=cat")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// say prints a line of the story.
func say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Println("    " + strings.ReplaceAll(text, "\n", "\n    "))
}

func waitFor(t *testing.T, what string, reached func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	for !reached() {
		if time.Since(begun) > hang {
			t.Fatalf("waited %s for %s\n%s", hang, what, state())
		}
		time.Sleep(100 * time.Millisecond)
	}
	return time.Since(begun).Round(100 * time.Millisecond)
}

// unitProperty is a property of the unit as systemctl shows it.
func unitProperty(t *testing.T, name string) string {
	t.Helper()
	out, err := try("systemctl show -P " + name + " ffmpeg-agent")
	if err != nil {
		t.Fatalf("systemctl show: %v: %s", err, out)
	}
	return strings.TrimSpace(out)
}

// mainPID is the agent's process; 0 while there is none.
func mainPID(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(unitProperty(t, "MainPID"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// readmeBlock returns the command lines of one indented block below a heading of README.md.
func readmeBlock(t *testing.T, heading string, number int) []string {
	t.Helper()
	raw, err := os.ReadFile("src/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := bytes.Cut(raw, []byte("## "+heading+"\n"))
	if !found {
		t.Fatalf("README.md has no section %q", heading)
	}
	section, _, _ = bytes.Cut(section, []byte("\n## "))
	var blocks [][]string
	inside := false
	for line := range strings.Lines(string(section)) {
		command, indented := strings.CutPrefix(line, "    ")
		if indented && !inside {
			blocks = append(blocks, nil)
		}
		if inside = indented; inside {
			blocks[len(blocks)-1] = append(blocks[len(blocks)-1], strings.TrimSpace(command))
		}
	}
	if number >= len(blocks) {
		t.Fatalf("section %q of README.md has %d blocks", heading, len(blocks))
	}
	return blocks[number]
}

// nano is what the operator does in the editor.
const nano = `#!/bin/sh
case $1 in
*.yaml)
	sed -i 's,^  url: .*,  url: ` + masterURL + `,' "$1"
	cat >>"$1" <<'END'
poll_interval: 1s
jobs:
  output_roots: [/srv/media]
  sandbox: require
debug:
  fault_injection: true
END
	;;
*.service)
	sed -i 's,^#Environment=MASTER_URL=.*,Environment=MASTER_URL=` + masterURL + ` FFMPEG_AGENT_JOBS_SANDBOX=require,
		s,^#\(Environment=FFMPEG_AGENT_MASTER_API_KEY_FILE=\),\1,' "$1"
	;;
esac
`

// files lists what lies on the disk, without what the system changes by itself.
func files(t *testing.T) map[string]bool {
	t.Helper()
	out, err := try(`find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /e2e -o -path /tmp -o -path /var/tmp \
		-o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/systemd \
		-o -path /root -o -path /home/alice -o -path /srv/media -o -path '/etc/*-' \) -prune -o -print`)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for line := range strings.Lines(out) {
		all[strings.TrimSpace(line)] = true
	}
	return all
}

// wantNothingLeft fails for files that were not there before.
func wantNothingLeft(t *testing.T, before map[string]bool) {
	t.Helper()
	for path := range files(t) {
		if !before[path] {
			t.Errorf("left behind: %s", path)
		}
	}
}
