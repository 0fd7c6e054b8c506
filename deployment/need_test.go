// Package deployment tests need.sh and its use by the Makefile.
package deployment

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tools are the programs of a minimal Debian system that need.sh and the Makefile use.
var tools = []string{"sh", "env", "grep", "mkdir", "mktemp", "rm", "sort", "tail", "true"}

// system is a PATH of its own with links to tools, and stubs.
type system struct {
	t   *testing.T
	bin string
	log string // command lines of apt-get and go
}

// newSystem returns a system with only the tools, and an id program that prints uid.
func newSystem(t *testing.T, uid int) *system {
	t.Helper()
	for _, file := range []string{"need.sh", "../Makefile"} {
		if _, err := os.Stat(file); err != nil { // makes the files part of the test cache's key
			t.Fatal(err)
		}
	}
	s := &system{t: t, bin: t.TempDir(), log: filepath.Join(t.TempDir(), "log")}
	for _, tool := range tools {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(s.bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	s.program("id", fmt.Sprintf("echo %d", uid))
	return s
}

// program installs a stub.
func (s *system) program(name, script string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// apt installs an apt-get stub that logs its calls and creates the programs of packages.
func (s *system) apt() {
	s.program("apt-get", `echo "$DEBIAN_FRONTEND apt-get $*" >>`+s.log+`
for package in "$@"; do
    case $package in
        ffmpeg) programs="ffmpeg ffprobe" ;;
        gcc) programs=gcc ;;
        *) programs= ;;
    esac
    for program in $programs; do
        echo '#!/bin/sh' >`+s.bin+`/$program && /bin/chmod +x `+s.bin+`/$program
    done
done`)
}

// logged returns what the stubs have logged.
func (s *system) logged() string {
	s.t.Helper()
	raw, err := os.ReadFile(s.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return string(raw)
}

// run runs a program with the system's PATH and returns its output and exit status.
func (s *system) run(name string, args ...string) (string, int) {
	s.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=" + s.bin, "SSL_CERT_FILE=/dev/null"}
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

const (
	noSudo       = ""
	sudoFails    = "exit 1"                               // asks for a password
	sudoAllows   = `shift; exec env -i PATH="$PATH" "$@"` // resets the environment
	aptInstall   = "apt-get install -y --no-install-recommends "
	aptInstalled = "noninteractive " + aptInstall
)

func TestMissingProgramsAreReportedInOneCommand(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		uid    int
		sudo   string
		noApt  bool
		args   string
		status int
		want   string
	}{
		"no sudo":                {1000, noSudo, false, "ffmpeg ffprobe gcc ip", 1, "missing: ffmpeg ffprobe gcc ip\nInstall as root with: apt-get update && " + aptInstall + "ffmpeg gcc iproute2 libc6-dev\n"},
		"sudo with a password":   {1000, sudoFails, false, "ffmpeg ffprobe", 1, "missing: ffmpeg ffprobe\nInstall with: sudo apt-get update && sudo " + aptInstall + "ffmpeg\n"},
		"no apt-get":             {0, noSudo, true, "ffmpeg qemu-system-x86_64", 1, "missing: ffmpeg qemu-system-x86_64\nInstall them with this system's package manager; Debian's packages are: ffmpeg qemu-system-x86\n"},
		"optional":               {1000, noSudo, false, "--optional gcc", 0, "missing: gcc\nInstall as root with: apt-get update && " + aptInstall + "gcc libc6-dev\n"},
		"required and optional":  {1000, noSudo, false, "ffmpeg --optional gcc", 1, "missing: ffmpeg gcc\nInstall as root with: apt-get update && " + aptInstall + "ffmpeg gcc libc6-dev\n"},
		"also required":          {1000, noSudo, false, "gcc --optional gcc", 1, "missing: gcc\nInstall as root with: apt-get update && " + aptInstall + "gcc libc6-dev\n"},
		"nothing is missing":     {1000, noSudo, false, "sort --optional grep", 0, ""},
		"check":                  {0, noSudo, false, "--check gcc", 1, ""},
		"check of what is there": {0, noSudo, false, "--check sort", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t, test.uid)
			if !test.noApt {
				s.apt()
			}
			if test.sudo != noSudo {
				s.program("sudo", test.sudo)
			}
			out, status := s.run("./need.sh", strings.Fields(test.args)...)
			if out != test.want || status != test.status {
				t.Errorf("got status %d and %q, want %d and %q", status, out, test.status, test.want)
			}
			if s.logged() != "" {
				t.Errorf("apt-get was run:\n%s", s.logged())
			}
		})
	}
}

func TestMissingProgramsAreInstalled(t *testing.T) {
	t.Parallel()
	for name, uid := range map[string]int{"as root": 0, "by sudo": 1000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t, uid)
			s.apt()
			if uid != 0 {
				s.program("sudo", sudoAllows)
			}
			out, status := s.run("./need.sh", "ffmpeg", "ffprobe", "--optional", "gcc")
			if want := "installing: ffmpeg gcc libc6-dev\n"; out != want || status != 0 {
				t.Errorf("got status %d and %q, want 0 and %q", status, out, want)
			}
			update, install, _ := strings.Cut(s.logged(), "\n")
			if !strings.HasSuffix(update, " apt-get update") || !strings.HasPrefix(install, aptInstalled) || !strings.HasSuffix(install, " ffmpeg gcc libc6-dev\n") {
				t.Errorf("got calls\n%s", s.logged())
			}
		})
	}
}

func TestFailedUpdateStillInstalls(t *testing.T) {
	t.Parallel()
	s := newSystem(t, 0)
	s.apt()
	apt, err := os.ReadFile(filepath.Join(s.bin, "apt-get"))
	if err != nil {
		t.Fatal(err)
	}
	s.program("apt-get", `[ "$1" != update ] || exit 100`+"\n"+string(apt))
	if out, status := s.run("./need.sh", "ffmpeg"); status != 0 {
		t.Errorf("got status %d and %q, want 0", status, out)
	}
}

func TestFailedInstallPrintsTheCommand(t *testing.T) {
	t.Parallel()
	s := newSystem(t, 0)
	s.program("apt-get", "echo E: no network >&2; exit 100")
	for args, want := range map[string]int{"ffmpeg": 1, "--optional gcc": 0} {
		out, status := s.run("./need.sh", strings.Fields(args)...)
		if status != want || !strings.Contains(out, "E: no network\nmissing: ") || !strings.Contains(out, "\nInstall with: apt-get update && "+aptInstall) {
			t.Errorf("%s: got status %d and %q, want %d, apt-get's error and the command", args, status, out, want)
		}
	}
}

// TestCompilerWithoutHeadersIsMissing: Debian's gcc has no C headers without libc6-dev.
func TestCompilerWithoutHeadersIsMissing(t *testing.T) {
	t.Parallel()
	s := newSystem(t, 1000)
	s.program("gcc", "echo 'fatal error: stdlib.h: No such file or directory' >&2; exit 1")
	if out, status := s.run("./need.sh", "gcc"); status != 1 || !strings.HasPrefix(out, "missing: gcc\n") {
		t.Errorf("got status %d and %q, want 1 and gcc missing", status, out)
	}
}

// runMake runs make in the repository with a go that only logs its calls.
func (s *system) runMake(args ...string) (string, int) {
	s.t.Helper()
	path, err := exec.LookPath("make")
	if err != nil {
		s.t.Skip("make is not installed")
	}
	s.program("go", `if [ "$1" = env ]; then echo "${CGO_ENABLED:-1}"; else echo "CGO_ENABLED=$CGO_ENABLED go $1" >>`+s.log+`; fi`)
	return s.run(path, append([]string{"-C", "..", "VERSION=test"}, args...)...)
}

func TestBuildWithoutCompilerWarns(t *testing.T) {
	t.Parallel()
	s := newSystem(t, 1000)
	s.program("apt-get", "exit 1")
	out, status := s.runMake("build")
	for _, want := range []string{"\nmissing: gcc\nInstall as root with: apt-get update && ", "\nwarning: built without cgo: "} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want %q in it", out, want)
		}
	}
	if want := strings.Repeat("CGO_ENABLED=0 go build\n", 2); status != 0 || s.logged() != want {
		t.Errorf("got status %d and calls %q, want 0 and %q", status, s.logged(), want)
	}
	s.program("gcc", "")
	if out, status := s.runMake("build"); status != 0 || strings.Contains(out, "missing") || strings.Contains(out, "warning") {
		t.Errorf("with a compiler: got status %d and %q, want 0 and no warning", status, out)
	}
}

func TestTargetsCheckAllNeedsBeforeBuilding(t *testing.T) {
	t.Parallel()
	for goals, want := range map[string]string{
		"demo":             "missing: ffmpeg ffprobe gcc\n",
		"test":             "missing: ffmpeg ffprobe gcc tmux\n",
		"check test bench": "missing: ffmpeg ffprobe gcc tmux\n",
		"gpu-faults":       "missing: ffmpeg ffprobe gcc\n",
		"check":            "missing: gcc\n",
		"build test":       "missing: ffmpeg ffprobe gcc tmux\n",
	} {
		t.Run(goals, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t, 1000)
			out, status := s.runMake(strings.Fields(goals)...)
			if !strings.Contains(out, want) || strings.Count(out, "missing: ") != 1 || status == 0 {
				t.Errorf("got status %d and %q, want a failure and %q once", status, out, want)
			}
			if s.logged() != "" {
				t.Errorf("go was run:\n%s", s.logged())
			}
		})
	}
}
