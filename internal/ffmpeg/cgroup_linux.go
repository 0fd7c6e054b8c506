package ffmpeg

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupPrefix begins the name of every cgroup that this package makes.
const cgroupPrefix = "ffmpeg-agent-"

// cgroups makes a cgroup v2 for each attempt, below the agent's own: on a unified
// system, on the v2 tree of a hybrid one, or in what a service manager delegated. No
// controller is needed for what they serve: exact CPU time and a kill that misses nobody.
type cgroups struct {
	parent string // directory; empty: none can be had
	prefix string // of the names of this agent's cgroups: agents may share a parent
	why    string // why there are none
}

// findCgroups looks where cgroups can be made, by making one. The data folder tells
// agents on one machine apart.
func findCgroups(dataDir string) cgroups {
	id := fnv.New32a()
	_, _ = id.Write([]byte(dataDir))
	prefix := fmt.Sprintf("%s%08x-", cgroupPrefix, id.Sum32())
	parent, err := ownCgroup()
	if err == nil {
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
	return cgroups{parent: parent, prefix: prefix}
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
	path := filepath.Join(c.parent, c.prefix+name)
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making a cgroup: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a cgroup: %w", err), os.Remove(path))
	}
	return &cgroup{path: path, dir: dir}, nil
}

// cgroup is one attempt's. A nil one stands for none.
type cgroup struct {
	path string
	dir  *os.File
}

// join has a process be born in the cgroup.
func (c *cgroup) join(attr *syscall.SysProcAttr) {
	if c != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(c.dir.Fd())
	}
}

// name is the cgroup's path; empty for none.
func (c *cgroup) name() string {
	if c == nil {
		return ""
	}
	return c.path
}

// usage is the CPU time of all that ever ran in the cgroup, exact to the
// microsecond (cpu.stat, usage_usec).
func (c *cgroup) usage() (time.Duration, bool) {
	if c == nil {
		return 0, false
	}
	raw, err := os.ReadFile(filepath.Join(c.path, "cpu.stat"))
	if err != nil {
		return 0, false
	}
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "usage_usec "); ok {
			n, err := strconv.ParseInt(text, 10, 64)
			return time.Duration(n) * time.Microsecond, err == nil && n >= 0
		}
	}
	return 0, false
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
	_ = c.dir.Close()
	return removeCgroup(c.path)
}

func killCgroup(path string) error {
	return os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
}

// removeCgroup removes a cgroup whose last process has just died: for a moment the
// kernel may still count it.
func removeCgroup(path string) error {
	const patience, pause = 2 * time.Second, 5 * time.Millisecond
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		err := os.Remove(path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("removing a cgroup: %w", err)
		}
	}
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
		switch err := os.Remove(path); {
		case err == nil:
			removed++
		case errors.Is(err, unix.EBUSY), errors.Is(err, fs.ErrNotExist):
		default:
			errs = append(errs, fmt.Errorf("removing a cgroup: %w", err))
		}
	}
	return removed, errors.Join(errs...)
}
