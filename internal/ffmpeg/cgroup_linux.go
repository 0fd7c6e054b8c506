package ffmpeg

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupPrefix begins the name of every cgroup that this package makes.
const cgroupPrefix = "ffmpeg-agent-"

// cgroups makes a cgroup v2 for each attempt, below the agent's own: on a unified
// system, on the v2 tree of a hybrid one, or in what a service manager delegated. Exact
// CPU time and a kill that misses nobody need no controller; limits do.
type cgroups struct {
	parent      string   // directory; empty: none can be had
	prefix      string   // of the names of this agent's cgroups: agents may share a parent
	why         string   // why there are none
	controllers []string // that bound what is made: some of cpu, memory, pids and io
	lack        string   // why others do not
}

// findCgroups looks where cgroups can be made, by making one, and which limits they can
// have. The data folder tells agents on one machine apart.
func findCgroups(dataDir string) cgroups {
	id := fnv.New32a()
	_, _ = id.Write([]byte(dataDir))
	prefix := fmt.Sprintf("%s%08x-", cgroupPrefix, id.Sum32())
	parent, err := ownCgroup()
	var controllers []string
	lack := ""
	if err == nil {
		var short error
		if parent, short = handOn(parent); short != nil {
			lack = strings.ReplaceAll(short.Error(), "\n", "; ")
		}
		controllers = enabled(parent)
		probe := filepath.Join(parent, prefix+"probe-"+strconv.Itoa(os.Getpid()))
		if err = os.Mkdir(probe, 0o755); err == nil {
			if _, statErr := os.Stat(filepath.Join(probe, "cgroup.kill")); statErr != nil {
				err = errors.New("this kernel has no cgroup.kill (Linux 5.14)")
			}
			err = errors.Join(err, os.Remove(probe))
		}
	}
	if err != nil {
		return cgroups{why: err.Error()}
	}
	return cgroups{parent: parent, prefix: prefix, controllers: controllers, lack: lack}
}

// ownCgroup is the directory of the cgroup v2 that this process is in.
func ownCgroup() (string, error) {
	mount, err := cgroupMount()
	if err != nil {
		return "", err
	}
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("finding the agent's cgroup: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		if path, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			return filepath.Join(mount, path), nil
		}
	}
	return "", errors.New("the agent is in no cgroup v2")
}

// cgroupMount is where the cgroup v2 tree is mounted, see proc_pid_mountinfo(5).
func cgroupMount() (string, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("finding the cgroup v2 tree: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(before); ok && len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup v2 tree is mounted")
}

// make makes a cgroup for an attempt; nil where none can be had.
func (c cgroups) make(name string) (*cgroup, error) {
	if c.parent == "" {
		return nil, nil
	}
	return openCgroup(cgroup{path: filepath.Join(c.parent, c.prefix+name), controllers: c.controllers, lack: c.lack})
}

func openCgroup(c cgroup) (*cgroup, error) {
	if err := os.Mkdir(c.path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making a cgroup: %w", err)
	}
	dir, err := os.Open(c.path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a cgroup: %w", err), os.Remove(c.path))
	}
	c.dir = dir
	c.stat, _ = os.Open(filepath.Join(c.path, "cpu.stat")) // without it CPU time is not known
	return &c, nil
}

// cgroup is one attempt's, which carries its limits, or below that one process's, whose
// CPU time is its own and which can be killed alone. A nil one stands for none.
type cgroup struct {
	path        string
	dir         *os.File
	stat        *os.File // cpu.stat, which is read ten times a second; nil: cannot be had
	of          string   // path of the attempt's; empty: it is that itself
	controllers []string
	lack        string
}

// child makes the cgroup of one of the attempt's processes; nil where there is none.
func (c *cgroup) child(name string) (*cgroup, error) {
	if c == nil {
		return nil, nil
	}
	return openCgroup(cgroup{path: filepath.Join(c.path, name), of: c.path})
}

// set writes one of the cgroup's limits.
func (c *cgroup) set(controller, file, value string) error {
	if !slices.Contains(c.controllers, controller) {
		return fmt.Errorf("no %s controller (%s)", controller, c.lack)
	}
	return writeControl(filepath.Join(c.path, file), value)
}

// writeControl writes a file of the cgroup tree, which must be there.
func writeControl(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// count reads one of the counts of a file such as memory.events; 0 where it is not there.
func (c *cgroup) count(file, name string) int64 {
	if c == nil {
		return 0
	}
	n, _ := readCount(filepath.Join(c.path, file), name)
	return n
}

// value reads a file that holds one number.
func (c *cgroup) value(file string) (int64, bool) {
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

// readCount reads one line of a file of names and numbers.
func readCount(path, name string) (int64, bool) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	return countIn(raw, name)
}

// countIn finds one of the lines of names and numbers (flat keyed, see cgroups(7)).
func countIn(raw []byte, name string) (int64, bool) {
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, err := strconv.ParseInt(text, 10, 64)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}

// join has a process be born in the cgroup.
func (c *cgroup) join(attr *syscall.SysProcAttr) {
	if c != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(c.dir.Fd())
	}
}

// name is the path of the attempt's cgroup; empty for none. Whoever ends and removes it
// takes all below with it.
func (c *cgroup) name() string {
	switch {
	case c == nil:
		return ""
	case c.of != "":
		return c.of
	}
	return c.path
}

// usage is the CPU time of all that ever ran in the cgroup, exact to the
// microsecond (cpu.stat, usage_usec).
func (c *cgroup) usage() (time.Duration, bool) {
	if c == nil {
		return 0, false
	}
	var line [64]byte // the first
	n, err := c.stat.ReadAt(line[:], 0)
	if err != nil && err != io.EOF {
		return 0, false
	}
	count, ok := countIn(line[:n], "usage_usec")
	return time.Duration(count) * time.Microsecond, ok
}

// kill ends all that runs in the cgroup, whatever group or session it moved to.
func (c *cgroup) kill() {
	if c != nil {
		_ = killCgroup(c.path) // the process group is killed as well
	}
}

// remove forgets the cgroup once all in it have ended.
func (c *cgroup) remove() error {
	if c == nil {
		return nil
	}
	_, _ = c.dir.Close(), c.stat.Close()
	return removeCgroup(c.path)
}

func killCgroup(path string) error {
	return os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
}

// removeCgroup removes a cgroup, with those below, whose last process has just died: for
// a moment the kernel may still count it.
func removeCgroup(path string) error {
	const patience, pause = 2 * time.Second, 5 * time.Millisecond
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		err := removeEmpty(path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("removing a cgroup: %w", err)
		}
	}
}

// removeEmpty removes a cgroup and those directly below it.
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

// ours reports whether a recorded cgroup is one that this package made, on the v2
// tree: nothing else is ever killed or removed.
func (c cgroups) ours(path string) bool {
	mount, err := cgroupMount()
	return err == nil && path != "" && strings.HasPrefix(filepath.Clean(path), mount+"/") &&
		strings.HasPrefix(filepath.Base(path), cgroupPrefix)
}

// sweep removes the empty cgroups that dead agents left below the parent; keep
// names those that runs of this life own.
func (c cgroups) sweep(keep func(name string) bool) (removed int, err error) {
	if c.parent == "" {
		return 0, nil
	}
	left, err := filepath.Glob(filepath.Join(c.parent, c.prefix+"*"))
	if err != nil {
		return 0, fmt.Errorf("looking for cgroups: %w", err)
	}
	var errs []error
	for _, path := range left {
		name := strings.TrimPrefix(filepath.Base(path), c.prefix)
		if keep(name) {
			continue
		}
		// One that is not empty has a process that the records do not name.
		switch err := removeEmpty(path); {
		case err == nil:
			removed++
		case errors.Is(err, unix.EBUSY), errors.Is(err, fs.ErrNotExist):
		default:
			errs = append(errs, fmt.Errorf("removing a cgroup: %w", err))
		}
	}
	return removed, errors.Join(errs...)
}
