package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Proc is one process as /proc shows it, see proc_pid_stat(5).
type Proc struct {
	PID   int
	Ticks uint64 // start, which distinguishes it from a later one with the same pid
	State byte
	Name  string
	Args  []string
	Dir   string // working directory
}

func (p Proc) String() string { return fmt.Sprintf("%s (pid %d, state %c)", p.Name, p.PID, p.State) }

// exited: a zombie, which its parent has not waited for.
func (p Proc) exited() bool { return p.State == 'Z' || p.State == 'X' }

// findProcesses are those whose environment holds a mark: an agent passes its PATH on to
// whatever it starts.
func findProcesses(mark string) ([]Proc, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []Proc
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !bytes.Contains(environ, []byte(mark)) {
			continue
		}
		if p, err := readProc(pid); err == nil && !p.exited() {
			found = append(found, p)
		}
	}
	return found, nil
}

func readProc(pid int) (Proc, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	raw, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Proc{}, err
	}
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 0 || end < open {
		return Proc{}, errors.New("no command name")
	}
	fields := strings.Fields(string(raw[end+1:])) // the first is field 3
	const state, start = 0, 19
	if len(fields) <= start {
		return Proc{}, errors.New("too few fields")
	}
	p := Proc{PID: pid, State: fields[state][0], Name: string(raw[open+1 : end])}
	if p.Ticks, err = strconv.ParseUint(fields[start], 10, 64); err != nil {
		return Proc{}, err
	}
	if cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil {
		p.Args = strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
	}
	p.Dir, _ = os.Readlink(filepath.Join(dir, "cwd"))
	return p, nil
}

// refresh rereads the process; false when it has ended.
func (p Proc) refresh() (Proc, bool) {
	now, err := readProc(p.PID)
	return now, err == nil && now.Ticks == p.Ticks && !now.exited()
}

// signal sends a signal to exactly this process.
func (p Proc) signal(s syscall.Signal) error {
	if _, alive := p.refresh(); !alive {
		return syscall.ESRCH
	}
	return syscall.Kill(p.PID, s)
}

// attemptDir is how an agent names an attempt's workspace, in which its processes work.
var attemptDir = regexp.MustCompile(`/work/([^/]+)-[0-9a-f]{64}-(\d+)(?:/|$)`)

// attempt is the attempt that a process belongs to, by its working directory.
func (p Proc) attempt() (Attempt, bool) {
	m := attemptDir.FindStringSubmatch(p.Dir)
	if m == nil {
		return Attempt{}, false
	}
	n, err := strconv.Atoi(m[2])
	return Attempt{m[1], n}, err == nil
}

// isEncoder reports whether it is the FFmpeg of an encode, and not one that makes an input,
// tries an encoder or compares what came out.
func (p Proc) isEncoder() bool {
	_, works := p.attempt()
	return works && p.Name == "ffmpeg" && slices.Contains(p.Args, "-progress") && !slices.Contains(p.Args, "lavfi")
}

// isNVMLChild reports whether it is the child that reads graphics cards.
func (p Proc) isNVMLChild() bool { return slices.Contains(p.Args, "nvml-child") }

// cgroup is the cgroup v2 of a process below its mount; empty for none or the root.
func (p Proc) cgroup() string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
	for line := range strings.Lines(string(raw)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path
		}
	}
	return ""
}

// cgroupMount is the mount point of the cgroup v2 tree; empty if there is none.
func cgroupMount() string {
	raw, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(raw)) {
		before, after, ok := strings.Cut(line, " - ")
		if fields := strings.Fields(before); ok && len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4]
		}
	}
	return ""
}

// cgroupPopulated reports whether a cgroup has processes, itself or below it.
func cgroupPopulated(group string) bool {
	raw, _ := os.ReadFile(filepath.Join(group, "cgroup.events"))
	return bytes.Contains(raw, []byte("populated 1"))
}

// resourceCounts are a process's descriptors, threads and resident bytes.
func resourceCounts(pid int) (descriptors, threads int, resident int64, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return 0, 0, 0, err
	}
	tasks, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil {
		return 0, 0, 0, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		return 0, 0, 0, err
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(raw), &size, &pages); err != nil {
		return 0, 0, 0, err
	}
	return len(fds), len(tasks), pages * int64(os.Getpagesize()), nil
}
