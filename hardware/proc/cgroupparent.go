package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CgroupParent is where this process can create cgroups: below its own cgroup on a
// unified system, on the v2 tree of a hybrid one, or in what a service manager delegated.
// Exact CPU time and a kill that reaches all processes need no controller; limits do.
type CgroupParent struct {
	Dir         string // empty: no cgroups can be created
	Prefix      string // of the names of all cgroups created here: agents may share a directory
	Unavailable string // why no cgroups can be created
	// Controllers are those of LimitControllers that bound the cgroups created here.
	Controllers []string
	Missing     string // why the others do not
}

// LimitControllers are the cgroup controllers that limits need.
var LimitControllers = []string{"cpu", "memory", "pids", "io"}

// FindCgroupParent finds out by creating one where cgroups can be created. Where this
// process's own cgroup was delegated to it, it moves to a leaf of it and enables the
// controllers.
func FindCgroupParent(prefix string) CgroupParent {
	own, err := ownCgroup()
	if err != nil {
		return CgroupParent{Unavailable: err.Error()}
	}
	p := CgroupParent{Prefix: prefix}
	dir, err := enableControllers(own)
	if err != nil {
		p.Missing = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	if err := tryCreate(filepath.Join(dir, prefix+"probe-"+strconv.Itoa(os.Getpid()))); err != nil {
		return CgroupParent{Unavailable: err.Error()}
	}
	p.Dir, p.Controllers = dir, enabled(dir)
	return p
}

// tryCreate creates and removes a cgroup.
func tryCreate(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return fmt.Errorf("creating a cgroup: %w", err)
	}
	_, err := os.Stat(filepath.Join(path, "cgroup.kill"))
	if err != nil {
		err = errors.New("this kernel has no cgroup.kill (Linux 5.14)")
	}
	return errors.Join(err, os.Remove(path))
}

// Create creates a cgroup, or opens the one that exists; nil where none can be created.
func (p CgroupParent) Create(name string) (*Cgroup, error) {
	if p.Dir == "" {
		return nil, nil
	}
	return createCgroup(Cgroup{path: filepath.Join(p.Dir, p.Prefix+name), controllers: p.Controllers, missing: p.Missing})
}

// Sweep removes the empty cgroups that earlier processes left, except those whose names
// are to be kept.
func (p CgroupParent) Sweep(keep func(name string) bool) (removed int, err error) {
	if p.Dir == "" {
		return 0, nil
	}
	left, err := filepath.Glob(filepath.Join(p.Dir, p.Prefix+"*"))
	if err != nil {
		return 0, fmt.Errorf("listing cgroups: %w", err)
	}
	var errs []error
	for _, path := range left {
		if keep(strings.TrimPrefix(filepath.Base(path), p.Prefix)) {
			continue
		}
		// EBUSY: it holds a process that no record names.
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

// agentLeaf is the cgroup that the agent moves to below its own: a cgroup that holds
// processes cannot pass controllers on to its children (cgroups(7), "no internal
// processes" rule). systemd puts the agent there itself with DelegateSubgroup=agent.
const agentLeaf = "agent"

// enableControllers passes the controllers of the agent's cgroup on to the cgroups that
// are created below it. A cgroup that was not delegated to the agent, or that holds other
// processes, is left as it is. It returns where cgroups are to be created, and why they
// will lack controllers.
func enableControllers(own string) (dir string, err error) {
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
		err = errors.Join(err, leaveLeaf(own))
	}
	return own, err
}

// delegated reports whether a cgroup is ours to manage: systemd marks it with an
// attribute (before version 251 one that only root may read); else it is the first one
// that belongs to the agent's user, or the root of a container's tree.
func delegated(dir string) bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		value := make([]byte, 8)
		if n, err := unix.Getxattr(dir, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return firstOwned(dir) || isContainerRoot(dir)
}

func firstOwned(dir string) bool {
	var here, above unix.Stat_t
	uid := uint32(os.Geteuid())
	return uid != 0 && unix.Stat(dir, &here) == nil && unix.Stat(filepath.Dir(dir), &above) == nil && here.Uid == uid && above.Uid != uid
}

// isContainerRoot: the root of the tree, but with a type, which the machine's own root
// does not have.
func isContainerRoot(dir string) bool {
	mount, err := cgroupMount()
	if err != nil || filepath.Clean(dir) != mount {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, "cgroup.type"))
	return err == nil
}

// moveToLeaf moves the agent, which must be alone in its cgroup, to a leaf below it.
func moveToLeaf(own string) error {
	pids, err := words(filepath.Join(own, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("listing the processes of the agent's cgroup: %w", err)
	}
	self := strconv.Itoa(os.Getpid())
	for _, pid := range pids {
		if pid != self {
			return fmt.Errorf("the agent's cgroup also holds process %s", pid)
		}
	}
	leaf := filepath.Join(own, agentLeaf)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("creating the agent's leaf cgroup: %w", err)
	}
	if err := writeControl(filepath.Join(leaf, "cgroup.procs"), self); err != nil {
		return errors.Join(fmt.Errorf("moving to the agent's leaf cgroup: %w", err), os.Remove(leaf))
	}
	return nil
}

// leaveLeaf undoes moveToLeaf.
func leaveLeaf(own string) error {
	if err := writeControl(filepath.Join(own, "cgroup.procs"), strconv.Itoa(os.Getpid())); err != nil {
		return fmt.Errorf("leaving the agent's leaf cgroup: %w", err)
	}
	return os.Remove(filepath.Join(own, agentLeaf))
}

// enable passes on those controllers that a cgroup has and its children do not.
func enable(dir string) error {
	available, err := words(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("listing controllers: %w", err)
	}
	var errs []error
	var absent []string
	for _, c := range LimitControllers {
		switch {
		case !slices.Contains(available, c):
			absent = append(absent, c)
		case !slices.Contains(enabled(dir), c):
			if err := writeControl(filepath.Join(dir, "cgroup.subtree_control"), "+"+c); err != nil {
				errs = append(errs, fmt.Errorf("enabling %s: %w", c, err))
			}
		}
	}
	if len(absent) > 0 {
		errs = append(errs, fmt.Errorf("not enabled for the agent's cgroup: %s", strings.Join(absent, ", ")))
	}
	return errors.Join(errs...)
}

// enabled lists those of LimitControllers that a cgroup's children have.
func enabled(dir string) []string {
	all, _ := words(filepath.Join(dir, "cgroup.subtree_control"))
	return slices.DeleteFunc(slices.Clone(LimitControllers), func(c string) bool { return !slices.Contains(all, c) })
}

func words(path string) ([]string, error) {
	raw, err := os.ReadFile(path)
	return strings.Fields(string(raw)), err
}
