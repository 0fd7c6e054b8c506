package ffmpeg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// agentLeaf is the cgroup that the agent moves to below its own: a cgroup with processes
// in it can hand on no controllers (cgroups(7), "no internal processes" rule). systemd
// puts the agent there itself with DelegateSubgroup=agent.
const agentLeaf = "agent"

// limiters are the controllers that limits need.
var limiters = []string{"cpu", "memory", "pids", "io"}

// handOn makes room for limits below the agent's cgroup: where that was delegated to
// the agent, the agent moves into a leaf of it, and the controllers are handed on. A
// cgroup that is not ours, or that others live in, is left as it is. It returns where
// attempts' cgroups are to be made, and why they will lack controllers.
func handOn(own string) (parent string, err error) {
	if above := filepath.Dir(own); filepath.Base(own) == agentLeaf && delegated(above) {
		return above, enable(above)
	}
	if !delegated(own) {
		return own, errors.New("the agent's cgroup is not delegated to it; systemd does that with Delegate=yes")
	}
	if err := moveToLeaf(own); err != nil {
		return own, err
	}
	err = enable(own)
	if len(enabled(own)) == 0 {
		err = errors.Join(err, moveBack(own))
	}
	return own, err
}

// delegated reports whether a cgroup was handed to us to do with as we like: systemd
// says so in an attribute (before version 251 one that only root may read); else it
// is where the ownership of the tree becomes ours, or the root that a container sees.
func delegated(dir string) bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		value := make([]byte, 8)
		if n, err := unix.Getxattr(dir, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return ownershipBegins(dir) || containersRoot(dir)
}

func ownershipBegins(dir string) bool {
	var here, above unix.Stat_t
	uid := uint32(os.Geteuid())
	return uid != 0 && unix.Stat(dir, &here) == nil && unix.Stat(filepath.Dir(dir), &above) == nil && here.Uid == uid && above.Uid != uid
}

// containersRoot: the root of the tree, but with a type, which the machine's own root has not.
func containersRoot(dir string) bool {
	mount, err := cgroupMount()
	if err != nil || filepath.Clean(dir) != filepath.Clean(mount) {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, "cgroup.type"))
	return err == nil
}

// moveToLeaf moves the agent, which must be alone in its cgroup, into a leaf below it.
func moveToLeaf(own string) error {
	raw, err := os.ReadFile(filepath.Join(own, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("looking who is in the agent's cgroup: %w", err)
	}
	self := strconv.Itoa(os.Getpid())
	for _, pid := range strings.Fields(string(raw)) {
		if pid != self {
			return fmt.Errorf("process %s is in the agent's cgroup as well", pid)
		}
	}
	leaf := filepath.Join(own, agentLeaf)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making the agent's own leaf: %w", err)
	}
	if err := writeControl(filepath.Join(leaf, "cgroup.procs"), self); err != nil {
		return errors.Join(fmt.Errorf("moving to the agent's own leaf: %w", err), os.Remove(leaf))
	}
	return nil
}

// moveBack undoes moveToLeaf.
func moveBack(own string) error {
	if err := writeControl(filepath.Join(own, "cgroup.procs"), strconv.Itoa(os.Getpid())); err != nil {
		return fmt.Errorf("leaving the agent's own leaf: %w", err)
	}
	return os.Remove(filepath.Join(own, agentLeaf))
}

// enable hands on those controllers that a cgroup has and its children do not.
func enable(dir string) error {
	have, err := words(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("looking for controllers: %w", err)
	}
	var errs []error
	for _, c := range limiters {
		switch {
		case !slices.Contains(have, c):
			errs = append(errs, fmt.Errorf("%s is not handed down to the agent's cgroup", c))
		case !slices.Contains(enabled(dir), c):
			if err := writeControl(filepath.Join(dir, "cgroup.subtree_control"), "+"+c); err != nil {
				errs = append(errs, fmt.Errorf("handing on %s: %w", c, err))
			}
		}
	}
	return errors.Join(errs...)
}

// enabled lists the controllers that a cgroup's children have, of those that limits need.
func enabled(dir string) []string {
	all, _ := words(filepath.Join(dir, "cgroup.subtree_control"))
	return slices.DeleteFunc(slices.Clone(limiters), func(c string) bool { return !slices.Contains(all, c) })
}

func words(path string) ([]string, error) {
	raw, err := os.ReadFile(path)
	return strings.Fields(string(raw)), err
}
