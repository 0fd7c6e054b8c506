package deployment

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// installation is install.sh with a folder in place of the root of the file system, and stand-ins for
// systemd and the agent. On a machine with systemd the script is run by the tests in e2e.
type installation struct {
	t    *testing.T
	root string
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	i := &installation{t, t.TempDir()}
	for _, dir := range []string{"bin", "deployment", "run/systemd/system", "etc/ffmpeg-agent", "etc/default"} {
		if err := os.MkdirAll(filepath.Join(i.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ffmpeg-agent.service", "ffmpeg-agent.rules", "ffmpeg-agent.sysusers", "agent.yaml"} {
		i.write("deployment/"+name, readFile(t, name))
	}
	script := readFile(t, "install.sh")
	for _, dir := range []string{"/usr/local/", "/etc/", "/var/lib/", "/run/"} {
		script = strings.ReplaceAll(script, dir, i.root+dir)
	}
	i.write("deployment/install.sh", script)
	i.write("etc/ffmpeg-agent/agent.yaml", "")
	i.write("etc/default/ffmpeg-agent", "# comment=1\nFROM_FILE=\"a b\"\n")
	i.write("bin/id", "#!/bin/sh\necho 0\n")
	for _, name := range []string{"systemd-sysusers", "udevadm", "ffmpeg", "ffprobe"} {
		i.write("bin/"+name, "#!/bin/sh\n")
	}
	i.write("bin/agent", "#!/bin/sh\n[ \"$1\" != config ] || { [ \"$FROM_UNIT$FROM_FILE\" = 'c da b' ] && [ -z \"$FROM_ROOT\" ]; }\n")
	i.write("bin/systemctl", `#!/bin/sh
echo "$*" >>`+i.root+`/calls
case "$*" in
    is-active*) cat `+i.root+`/state ;;
    *'EnvironmentFiles --value'*) echo "`+i.root+`/etc/default/ffmpeg-agent (ignore_errors=yes)" ;;
    *'Environment --value'*) echo 'LANG=C "FROM_UNIT=c d"' ;;
    stop*) sleep "$(cat `+i.root+`/drain)" ;;
esac
`)
	i.write("state", "active\n")
	i.write("drain", "0\n")
	return i
}

func (i *installation) write(name, text string) {
	i.t.Helper()
	if err := os.WriteFile(filepath.Join(i.root, name), []byte(text), 0o755); err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) calls() string {
	text, _ := os.ReadFile(filepath.Join(i.root, "calls"))
	return string(text)
}

func (i *installation) command(args ...string) (*exec.Cmd, *strings.Builder) {
	var out strings.Builder
	cmd := exec.Command("sh", append([]string{filepath.Join(i.root, "deployment/install.sh")}, args...)...)
	cmd.Env = []string{"PATH=" + i.root + "/bin:" + os.Getenv("PATH"), "FROM_ROOT=1"}
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &out, &syscall.SysProcAttr{Setpgid: true}
	return cmd, &out
}

// left are the copies that were not moved to their places.
func (i *installation) left() (all []string) {
	_ = filepath.WalkDir(i.root, func(path string, _ os.DirEntry, _ error) error {
		if strings.HasSuffix(path, ".new") {
			all = append(all, path)
		}
		return nil
	})
	return all
}

// Ctrl-C while the running jobs finish: the agent is started again, and nothing is left behind.
func TestInterruptedInstallationStartsTheAgentAgain(t *testing.T) {
	i := newInstallation(t)
	i.write("drain", "60\n")
	cmd, out := i.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(i.calls(), "stop ") && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if len(i.left()) == 0 {
		t.Error("nothing was put beside its place before the agent was stopped")
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	err := cmd.Wait()
	if err == nil || !strings.HasSuffix(i.calls(), "start --no-block ffmpeg-agent.service\n") || len(i.left()) > 0 {
		t.Errorf("got %v, calls\n%sleft: %q\n%s\nwant a failure, a start and nothing left", err, i.calls(), i.left(), out)
	}
}

func TestInstallationIsCheckedWithTheEnvironmentOfTheUnit(t *testing.T) {
	i := newInstallation(t)
	cmd, out := i.command()
	if err := cmd.Run(); err != nil || !strings.HasSuffix(i.calls(), "start ffmpeg-agent.service\n") || len(i.left()) > 0 {
		t.Errorf("got %v, calls\n%s\n%s", err, i.calls(), out)
	}
	i.write("etc/default/ffmpeg-agent", "")
	cmd, out = i.command()
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "does not accept") {
		t.Errorf("running, configuration invalid: got %v\n%s", err, out)
	}
	i.write("state", "inactive\n")
	cmd, out = i.command()
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "warning: the new agent does not accept") {
		t.Errorf("stopped, configuration invalid: got %v\n%s", err, out)
	}
}

func TestPurgeRemovesWhatAKilledInstallationLeft(t *testing.T) {
	i := newInstallation(t)
	cmd, out := i.command()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"usr/local/bin/agent", "etc/systemd/system/ffmpeg-agent.service", "etc/sysusers.d/ffmpeg-agent.conf", "etc/udev/rules.d/60-ffmpeg-agent.rules", "etc/ffmpeg-agent/agent.yaml"} {
		if _, err := os.Stat(filepath.Join(i.root, name)); err != nil {
			t.Error(err)
		}
		i.write(name+".new", "")
	}
	cmd, out = i.command("--purge")
	if err := cmd.Run(); err != nil || len(i.left()) > 0 {
		t.Errorf("got %v, left %q\n%s", err, i.left(), out)
	}
}
