package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Cgroup is a cgroup v2 that this process created (cgroups(7)): an outermost one, which
// can carry limits, or one below that for a single child, whose CPU time is then known
// exactly and which can be killed alone. All methods accept a nil Cgroup, which has no
// processes and no files.
type Cgroup struct {
	path        string
	dir         *os.File
	cpuStat     *os.File // read ten times a second; nil: not available
	parent      string   // path of the outermost one; empty: it is that itself
	controllers []string // see CgroupParent
	missing     string
}

// createCgroup creates a cgroup or opens one that exists.
func createCgroup(c Cgroup) (*Cgroup, error) {
	if err := os.Mkdir(c.path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating a cgroup: %w", err)
	}
	dir, err := os.Open(c.path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a cgroup: %w", err), os.Remove(c.path))
	}
	c.dir = dir
	c.cpuStat, _ = os.Open(filepath.Join(c.path, "cpu.stat")) // without it the CPU time is unknown
	return &c, nil
}

// Child creates a cgroup below this one, without limits of its own; nil below nil.
func (c *Cgroup) Child(name string) (*Cgroup, error) {
	if c == nil {
		return nil, nil
	}
	return createCgroup(Cgroup{path: filepath.Join(c.path, name), parent: c.path})
}

// Path is the cgroup's directory; empty for nil.
func (c *Cgroup) Path() string {
	if c == nil {
		return ""
	}
	return c.path
}

// outermost is the directory of the outermost cgroup. Killing and removing that takes
// all below with it.
func (c *Cgroup) outermost() string {
	if c != nil && c.parent != "" {
		return c.parent
	}
	return c.Path()
}

// Set writes a limit to a file of a controller, such as memory.max.
func (c *Cgroup) Set(controller, file, value string) error {
	switch {
	case c == nil:
		return errors.New("no cgroup")
	case !slices.Contains(c.controllers, controller):
		return fmt.Errorf("no %s controller (%s)", controller, c.missing)
	}
	return writeControl(filepath.Join(c.path, file), value)
}

// Count reads one entry of a flat-keyed file, such as oom_kill of memory.events; 0 where
// there is none.
func (c *Cgroup) Count(file, key string) int64 {
	if c == nil {
		return 0
	}
	raw, err := os.ReadFile(filepath.Join(c.path, file))
	if err != nil {
		return 0
	}
	n, _ := flatKeyed(raw, key)
	return n
}

// Value reads a file that holds one number, such as memory.peak.
func (c *Cgroup) Value(file string) (int64, bool) {
	if c == nil {
		return 0, false
	}
	raw, err := os.ReadFile(filepath.Join(c.path, file))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	return n, err == nil
}

// CPUTime is the CPU time of all that ever ran in the cgroup, to the microsecond
// (usage_usec of cpu.stat); false where it is unknown.
func (c *Cgroup) CPUTime() (time.Duration, bool) {
	if c == nil {
		return 0, false
	}
	var line [64]byte // usage_usec is the first
	n, err := c.cpuStat.ReadAt(line[:], 0)
	if err != nil && err != io.EOF {
		return 0, false
	}
	usec, ok := flatKeyed(line[:n], "usage_usec")
	return time.Duration(usec) * time.Microsecond, ok
}

// kill kills all that runs in the cgroup, whatever group or session it moved to.
func (c *Cgroup) kill() {
	if c != nil {
		_ = killCgroup(c.path) // the caller kills the process group as well
	}
}

// Remove removes the cgroup and those below it, once all in them have ended.
func (c *Cgroup) Remove() error {
	if c == nil {
		return nil
	}
	_, _ = c.dir.Close(), c.cpuStat.Close()
	return removeCgroup(c.path)
}

// RemoveCgroup kills all that runs in a cgroup that an earlier process left, and removes
// it with those below it. One that is gone is no error.
func RemoveCgroup(path string) error {
	_ = killCgroup(path) // fails where it is gone
	return removeCgroup(path)
}

// IsCgroup reports whether a path is in the cgroup v2 tree.
func IsCgroup(path string) bool {
	mount, err := cgroupMount()
	return err == nil && path != "" && strings.HasPrefix(filepath.Clean(path), mount+"/")
}

func killCgroup(path string) error { return writeControl(filepath.Join(path, "cgroup.kill"), "1") }

// removeCgroup waits for a moment: the kernel may still count a process that has just
// ended.
func removeCgroup(path string) error {
	const timeout, interval = 2 * time.Second, 5 * time.Millisecond
	for deadline := time.Now().Add(timeout); ; time.Sleep(interval) {
		err := removeEmpty(path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("removing a cgroup: %w", err)
		}
	}
}

// removeEmpty removes a cgroup and those directly below it, none of which may hold a
// process.
func removeEmpty(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := os.Remove(filepath.Join(path, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return os.Remove(path)
}

// writeControl writes to a file of the cgroup tree, which must exist.
func writeControl(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// flatKeyed finds an entry in lines of "KEY VALUE" (cgroups(7)).
func flatKeyed(raw []byte, key string) (int64, bool) {
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), key+" "); ok {
			n, err := strconv.ParseInt(text, 10, 64)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}

// ownCgroup is the directory of the cgroup v2 that this process is in.
func ownCgroup() (string, error) {
	mount, err := cgroupMount()
	if err != nil {
		return "", err
	}
	fail := func(err error) (string, error) { return "", fmt.Errorf("finding the agent's cgroup: %w", err) }
	self, err := procfs.Self()
	if err != nil {
		return fail(err)
	}
	groups, err := self.Cgroups()
	if err != nil {
		return fail(err)
	}
	for _, g := range groups {
		if g.HierarchyID == 0 && len(g.Controllers) == 0 { // v2's
			return filepath.Join(mount, g.Path), nil
		}
	}
	return fail(errors.New("it is in none of version 2"))
}

// cgroupMount is where the cgroup v2 tree is mounted.
func cgroupMount() (string, error) {
	mounts, err := procfs.GetMounts()
	if err != nil {
		return "", fmt.Errorf("finding the cgroup v2 tree: %w", err)
	}
	for _, m := range mounts {
		if m.FSType == "cgroup2" {
			return filepath.Clean(m.MountPoint), nil
		}
	}
	return "", errors.New("no cgroup v2 tree is mounted")
}
