package hardware

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// sysfsVariable passes the fake sysfs to the child process of TestUnreadableCounters.
const sysfsVariable = "HARDWARE_TEST_SYSFS"

// TestUnreadableCounters opens counters without permission to read them, in a child process:
// as another user when the tests run as root, else with mode 0.
func TestUnreadableCounters(t *testing.T) {
	if sysfs := os.Getenv(sysfsVariable); sysfs != "" {
		_, err := OpenRAPL(sysfs)
		fmt.Println("no source:", err)
		return
	}
	tree, zones := newTree(t, zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "core"))
	mode := os.FileMode(0o400)
	if os.Geteuid() != 0 {
		mode = 0
	}
	for _, z := range zones {
		must(t, os.Chmod(z.Path(), mode))
	}
	text := openAsNobody(t, tree.Sys())
	golden(t, "unreadable", strings.ReplaceAll(text, tree.Sys(), "/sys"))
}

// openAsNobody returns the output of the child process.
func openAsNobody(t *testing.T, sysfs string) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "test")
	copyExecutable(t, program)
	for _, path := range []string{filepath.Dir(dir), dir} { // also the parent of sysfs
		must(t, os.Chmod(path, 0o755))
	}
	child := exec.Command(program, "-test.run=^"+t.Name()+"$")
	child.Dir = dir
	child.Env = []string{sysfsVariable + "=" + sysfs, "GORACE=atexit_sleep_ms=0"}
	if os.Geteuid() == 0 {
		const nobody = 65534
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, _, _ := strings.Cut(string(out), "PASS\n")
	return text
}

// copyExecutable copies this program to where any user may run it.
func copyExecutable(t *testing.T, path string) {
	t.Helper()
	source, err := os.Open("/proc/self/exe")
	must(t, err)
	defer source.Close()
	target, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	must(t, err)
	_, err = io.Copy(target, source)
	if closed := target.Close(); err == nil {
		err = closed
	}
	must(t, err)
}
