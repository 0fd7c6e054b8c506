//go:build guest

package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The package under systemd as the guest's init: limits of a job below the unit's cgroup,
// and a restart after kill -9. The test itself is in deployment/e2e.
func TestUnitEnforcesLimits(t *testing.T) {
	img := newImage(t, os.DevNull)
	m := boot(t, accelerator(t), img.done(), newSystemDisk(t), "2G",
		"systemd.wants=e2e.service systemd.mask=serial-getty@ttyS0.service systemd.show_status=0")
	passed := false
	for {
		line, ok := m.next(outputTimeout)
		if !ok {
			break
		}
		t.Log(line)
		passed = passed || strings.TrimSpace(line) == "PASS"
		if strings.Contains(line, "--- FAIL: ") {
			t.Error(line)
		}
	}
	if !passed {
		t.Error("the test in the guest did not pass")
	}
}

// newSystemDisk returns the path of a disk image with the Debian that "make e2e-files" made.
func newSystemDisk(t *testing.T) string {
	t.Helper()
	made := os.Getenv("E2E_DIR")
	if _, err := os.Stat(filepath.Join(made, "shared", "e2e.test")); err != nil {
		t.Skipf("no Debian to boot, which only root can make: %v", err)
	}
	dir := t.TempDir()
	tree, disk := filepath.Join(dir, "tree"), filepath.Join(dir, "disk")
	for _, command := range [][]string{
		{"cp", "-a", filepath.Join(made, "tree"), tree},
		{"cp", "-r", filepath.Join(made, "shared"), filepath.Join(tree, "e2e")},
		{"cp", "../e2e/e2e.service", filepath.Join(tree, "etc/systemd/system/")},
		{"sh", "-c", "echo E2E_RUN=TestLimits >" + filepath.Join(tree, "e2e/environment")},
		{"mkfs.ext4", "-q", "-F", "-d", tree, disk, "2G"},
		{"rm", "-rf", tree},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
	return disk
}
