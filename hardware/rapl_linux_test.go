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

// sysfsOfChild tells a child process of a test which fake /sys to open.
const sysfsOfChild = "HARDWARE_TEST_SYSFS"

// TestUnreadableCounters opens, as another user, counters that only root may read, in
// a process of its own. Where the tests do not run as root, they are nobody's to read.
func TestUnreadableCounters(t *testing.T) {
	if sysfs := os.Getenv(sysfsOfChild); sysfs != "" {
		_, err := OpenRAPL(sysfs)
		fmt.Println("no source:", err)
		return
	}
	tree, zones := machine(t, zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "core"))
	mode := os.FileMode(0o400)
	if os.Geteuid() != 0 {
		mode = 0
	}
	for _, z := range zones {
		if err := os.Chmod(z.Path(), mode); err != nil {
			t.Fatal(err)
		}
	}
	text := openAsNobody(t, tree.Sys())
	golden(t, filepath.Join("testdata", "unreadable.golden"), strings.ReplaceAll(text, tree.Sys(), "/sys"))
}

// openAsNobody is what a child process says of a /sys; it runs as nobody where this
// one is root, and else as the same user.
func openAsNobody(t *testing.T, sysfs string) string {
	t.Helper()
	folder := t.TempDir()
	program := filepath.Join(folder, "test")
	copyProgram(t, program)
	for _, path := range []string{filepath.Dir(folder), folder} { // both below one folder that is the test's own
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	child := exec.Command(program, "-test.run=^"+t.Name()+"$")
	child.Dir = folder
	child.Env = []string{sysfsOfChild + "=" + sysfs}
	if os.Geteuid() == 0 {
		const nobody = 65534
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	said, _, _ := strings.Cut(string(out), "PASS\n")
	return said
}

// copyProgram puts this very program where everybody may run it.
func copyProgram(t *testing.T, path string) {
	t.Helper()
	own, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	program, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(program, own)
	if closed := program.Close(); err == nil {
		err = closed
	}
	if err != nil {
		t.Fatal(err)
	}
}
