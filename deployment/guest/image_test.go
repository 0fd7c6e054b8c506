//go:build guest

package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// image is an initramfs: a cpio archive in the format that the kernel reads
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type image struct {
	t     *testing.T
	out   *os.File
	inode int
	added map[string]bool // folders and libraries
}

// newImage returns an image with busybox, kernel modules, the init script, and the script that it runs.
func newImage(t *testing.T, script string) *image {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "image.cpio"))
	if err != nil {
		t.Fatal(err)
	}
	img := &image{t: t, out: out, added: map[string]bool{"/": true, ".": true}}
	img.add("/init", "init.sh")
	img.add("/run.sh", script)
	img.add("/bin/busybox", filepath.Join(fetched(t), "busybox"))
	modules, err := filepath.Glob(filepath.Join(fetched(t), "modules", "*.ko"))
	if err != nil || len(modules) == 0 {
		t.Fatalf("no modules in %s, %v", fetched(t), err)
	}
	for _, m := range modules {
		img.add("/modules/"+filepath.Base(m), m)
	}
	return img
}

// add copies a file of this machine to the image, as an executable.
func (i *image) add(name, from string) {
	i.t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		i.t.Fatal(err)
	}
	i.makeFolder(path.Dir(name))
	i.entry(name, 0o100755, content)
}

// addProgram adds a program and the shared libraries that it loads.
func (i *image) addProgram(name string) {
	i.t.Helper()
	found, err := exec.LookPath(name)
	if err != nil {
		i.t.Fatal(err)
	}
	i.add("/usr/bin/"+name, found)
	loads, err := exec.Command("ldd", found).Output()
	if err != nil {
		i.t.Fatalf("listing the libraries of %s: %v", found, err)
	}
	for _, word := range strings.Fields(string(loads)) {
		if strings.HasPrefix(word, "/") && !i.added[word] {
			i.added[word] = true
			i.add(word, word)
		}
	}
}

// addTests adds a package's tests as one static program.
func (i *image) addTests(name, pkg string) {
	i.t.Helper()
	built := filepath.Join(i.t.TempDir(), path.Base(name))
	build := exec.Command("go", "test", "-c", "-tags", "netgo,osusergo,guest", "-o", built, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		i.t.Fatalf("building the tests of %s: %v\n%s", pkg, err, out)
	}
	i.add(name, built)
}

func (i *image) makeFolder(dir string) {
	if !i.added[dir] {
		i.added[dir] = true
		i.makeFolder(path.Dir(dir))
		i.entry(dir, 0o040755, nil)
	}
}

// entry writes one entry in the newc format.
func (i *image) entry(name string, mode uint32, content []byte) {
	i.inode++
	name = strings.TrimPrefix(name, "/")
	header := "070701"
	for _, field := range []int{i.inode, int(mode), 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		header += fmt.Sprintf("%08X", field)
	}
	padded := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	_, err := i.out.Write(slices.Concat(padded([]byte(header+name+"\x00")), padded(slices.Clip(content))))
	if err != nil {
		i.t.Fatal(err)
	}
}

// done completes the image and returns its path.
func (i *image) done() string {
	i.t.Helper()
	i.entry("TRAILER!!!", 0, nil)
	if err := i.out.Close(); err != nil {
		i.t.Fatal(err)
	}
	return i.out.Name()
}

// newDisk returns the path of a disk image with an empty ext4 file system.
func newDisk(t *testing.T) string {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", disk, "256M").CombinedOutput(); err != nil {
		t.Fatalf("making a disk: %v\n%s", err, out)
	}
	return disk
}

// fetched returns the folder that fetch.sh has filled.
func fetched(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GUEST_DIR")
	if _, err := os.Stat(filepath.Join(dir, "complete")); err != nil {
		t.Fatalf("GUEST_DIR is not a folder filled by fetch.sh: %v", err)
	}
	return dir
}
