package proc

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// Arguments that make this test binary the helper of a sandbox, and what runs in it.
const (
	confine  = "confine"
	confines = "confined"
	hardened = "hardened"
)

func sandbox(s Sandbox) *Sandbox {
	s.Helper = []string{"/proc/self/exe", confine}
	s.Run = append(s.Run, "/usr", "/bin", "/lib", "/lib64", executable())
	s.Read = append(s.Read, "/etc/ld.so.cache", "/sys/kernel/mm/transparent_hugepage") // the latter for Go's runtime
	s.OOMScoreAdj = 500
	return &s
}

func executable() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// outcome is how an attempt of a confined process ended: an error number, 0 for success, or
// a number that was asked for.
type outcome int

func (o outcome) String() string {
	if o == 0 {
		return "success"
	}
	return unix.ErrnoName(unix.Errno(o))
}

// attempts are what a confined process tries. Arguments: a folder outside of its files, a
// TCP port that listens, and the parent's PID.
var attempts = map[string]func(folder string, port, parent int) error{
	"read":  func(folder string, _, _ int) error { return tryOpen(filepath.Join(folder, "secret"), unix.O_RDONLY) },
	"write": func(folder string, _, _ int) error { return tryOpen(filepath.Join(folder, "secret"), unix.O_WRONLY) },
	"create": func(folder string, _, _ int) error {
		return tryOpen(filepath.Join(folder, "new"), unix.O_CREAT|unix.O_WRONLY)
	},
	"truncate": func(folder string, _, _ int) error { return unix.Truncate(filepath.Join(folder, "secret"), 0) },
	"open to truncate": func(folder string, _, _ int) error {
		return tryOpen(filepath.Join(folder, "input"), unix.O_RDONLY|unix.O_TRUNC)
	},
	"chmod": func(folder string, _, _ int) error { return unix.Chmod(filepath.Join(folder, "secret"), 0o666) },
	"link": func(folder string, _, _ int) error {
		return unix.Link(filepath.Join(folder, "input"), filepath.Join(folder, "link"))
	},
	"parent memory": func(_ string, _, parent int) error {
		return tryOpen(fmt.Sprintf("/proc/%d/mem", parent), unix.O_RDONLY)
	},
	"parent environ": func(_ string, _, parent int) error {
		return tryOpen(fmt.Sprintf("/proc/%d/environ", parent), unix.O_RDONLY)
	},
	"ptrace": func(_ string, _, parent int) error { return unix.PtraceAttach(parent) },
	"signal": func(_ string, _, parent int) error { return unix.Kill(parent, 0) },
	"signal by file": func(_ string, _, parent int) error {
		var fds [2]int
		_ = unix.Pipe2(fds[:], 0)
		_, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETOWN, parent)
		return err
	},
	"owner of a socket":               func(_ string, _, parent int) error { return tryRequest(fioSetOwn, parent) },
	"owner of a socket, in more bits": func(_ string, _, parent int) error { return tryRequest(fioSetOwn|1<<32, parent) },
	"owner by the old request":        func(_ string, _, parent int) error { return tryRequest(unix.SIOCSPGRP, parent) },
	"signals of a socket":             func(string, int, int) error { return tryRequest(fioAsync, 1) },
	"typing into a terminal":          func(string, int, int) error { return tryRequest(unix.TIOCSTI, 0) },
	"commands to a terminal":          func(string, int, int) error { return tryRequest(tiocLinux, 0) },
	"file in memory": func(string, int, int) error {
		fd, err := unix.MemfdCreate("x", 0)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	},
	"bytes in a socket":              func(string, int, int) error { return tryRequest(unix.TIOCINQ, 0) },
	"a driver's request with a sign": func(string, int, int) error { return tryRequest(^uintptr(0x3fffffff), 0) },
	"limit parent": func(_ string, _, parent int) error {
		return unix.Prlimit(parent, unix.RLIMIT_FSIZE, nil, new(unix.Rlimit))
	},
	"fork": func(string, int, int) error {
		pid, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
		if errno == 0 && pid == 0 {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		return errnoOf(errno)
	},
	"unix socket":    func(string, int, int) error { return trySocket(unix.AF_UNIX, unix.SOCK_STREAM, 0) },
	"netlink socket": func(string, int, int) error { return trySocket(unix.AF_NETLINK, unix.SOCK_RAW, 0) },
	"raw socket":     func(string, int, int) error { return trySocket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) },
	"mptcp socket":   func(string, int, int) error { return trySocket(unix.AF_INET, unix.SOCK_STREAM, 262) },
	"udp socket":     func(string, int, int) error { return trySocket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) },
	"tcp socket":     func(string, int, int) error { return trySocket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) },
	"connect": func(_ string, port, _ int) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Connect(fd, loopback(port))
		}
		return err
	},
	"connect by sendto": func(_ string, port, _ int) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, loopback(port))
		}
		return err
	},
	"connect by sendmsg": func(_ string, port, _ int) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Sendmsg(fd, []byte("x"), nil, loopback(port), unix.MSG_FASTOPEN)
		}
		return err
	},
	"connect by sendmmsg": func(_ string, port, _ int) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: uint16(port>>8 | port&0xff<<8), Addr: [4]byte{127, 0, 0, 1}}
		text := []byte("x")
		message := struct {
			unix.Msghdr
			sent uint32
		}{Msghdr: unix.Msghdr{Name: (*byte)(unsafe.Pointer(&to)), Namelen: unix.SizeofSockaddrInet4, Iov: &unix.Iovec{Base: &text[0]}, Iovlen: 1}}
		message.Iov.SetLen(len(text))
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), 1, unix.MSG_FASTOPEN, 0, 0)
		return errnoOf(errno)
	},
	"listen": func(string, int, int) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Listen(fd, 1)
		}
		return err
	},
	"new user namespace": func(string, int, int) error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"new session":        func(string, int, int) error { _, err := unix.Setsid(); return err },
	"outlive the agent":  func(string, int, int) error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) },
	"io_uring":           func(string, int, int) error { return tryCall(425, 1, uintptr(unsafe.Pointer(new([120]byte)))) },
	"bpf":                func(string, int, int) error { return tryCall(unix.SYS_BPF, 0, 0) },
	"keyctl":             func(string, int, int) error { return tryCall(unix.SYS_KEYCTL, 0, ^uintptr(2)) },
	"userfaultfd":        func(string, int, int) error { return tryCall(unix.SYS_USERFAULTFD, 1, 0) },
	"chroot":             func(string, int, int) error { return unix.Chroot("/") },
	"mount":              func(string, int, int) error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") },
}

func tryOpen(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func trySocket(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// tryRequest makes a request to a socket.
func tryRequest(request uintptr, argument int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	value := int32(argument)
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&value)))
	return errnoOf(errno)
}

func loopback(port int) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

func tryCall(number, a, b uintptr) error {
	_, _, errno := unix.RawSyscall(number, a, b, 0)
	return errnoOf(errno)
}

func errnoOf(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// actConfined makes each attempt and reports the outcomes.
func actConfined(args []string) {
	port, _ := strconv.Atoi(args[1])
	parent, _ := strconv.Atoi(args[2])
	got := map[string]outcome{}
	for _, name := range args[3:] {
		var errno syscall.Errno
		if err := attempts[name](args[0], port, parent); err != nil {
			errno = err.(syscall.Errno)
		}
		got[name] = outcome(errno)
	}
	_ = json.NewEncoder(os.Stdout).Encode(got)
}

// listening is a TCP port of this machine that listens.
func listening(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// attempt starts this test binary with a sandbox, nil for none, and returns its outcomes of
// attempts.
func attempt(t *testing.T, box *Sandbox, port int, names ...string) map[string]outcome {
	t.Helper()
	folder := t.TempDir()
	for _, name := range []string{"secret", "input"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if box != nil {
		box.Read = append(box.Read, filepath.Join(folder, "input"))
	}
	var got map[string]outcome
	c := Command{
		Path: executable(), Args: append([]string{confines, folder, strconv.Itoa(port), strconv.Itoa(os.Getpid())}, names...), Sandbox: box,
		Stdout: func(r io.Reader) { _ = json.NewDecoder(r).Decode(&got) },
		Stderr: func(r io.Reader) { _, _ = io.Copy(os.Stderr, r) },
	}
	exit, err := Run(testContext(t), c)
	if err != nil || !exit.OK() || len(got) != len(names) {
		t.Fatalf("%v, %v, outcomes %v of %v", exit, err, got, names)
	}
	return got
}

func only(layers ...Layer) []Layer {
	return slices.DeleteFunc(Layers(), func(l Layer) bool { return slices.Contains(layers, l) })
}

func landlockABI6(t *testing.T) bool {
	t.Helper()
	box := sandbox(Sandbox{})
	confinement, _, err := RunConfined(testContext(t), Command{Path: "/bin/true", Sandbox: box})
	if err != nil {
		t.Fatal(err)
	}
	if why := confinement.Missing[Landlock]; why != "" {
		t.Skip("no Landlock: " + why)
	}
	return confinement.Lacks[Landlock] == ""
}

// held is what a layer alone refuses. A process without a sandbox gets everything that does
// not need root.
func TestEachLayerAloneRefuses(t *testing.T) {
	complete := landlockABI6(t)
	port := listening(t)
	bySeccomp := []string{
		"truncate", "open to truncate", "chmod", "link", "ptrace", "signal", "signal by file", "limit parent", "fork", "unix socket", "netlink socket",
		"raw socket", "mptcp socket", "udp socket", "tcp socket", "connect", "listen", "new user namespace", "new session", "outlive the agent", "io_uring",
		"bpf", "keyctl", "userfaultfd", "chroot", "mount",
	}
	byLandlock := []string{"read", "write", "create", "parent memory", "parent environ", "ptrace"}
	if complete {
		byLandlock = append(byLandlock, "truncate", "open to truncate", "signal", "connect")
	}
	for name, test := range map[string]struct {
		layers  []Layer
		refused []string
	}{
		"seccomp":      {only(NoNewPrivs, Seccomp), bySeccomp},
		"landlock":     {only(NoNewPrivs, Landlock), byLandlock},
		"capabilities": {only(NoNewPrivs, Capabilities), []string{"raw socket", "bpf", "chroot", "mount"}},
		"all":          {nil, slices.Compact(slices.Sorted(slices.Values(slices.Concat(bySeccomp, byLandlock))))},
	} {
		t.Run(name, func(t *testing.T) {
			for name, got := range attempt(t, sandbox(Sandbox{Without: test.layers}), port, test.refused...) {
				if got == 0 {
					t.Errorf("%s succeeded", name)
				}
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		var names []string
		for name := range attempts {
			switch name {
			case "raw socket", "bpf", "chroot", "mount", "userfaultfd", "ptrace": // need root, or more
			case "mptcp socket", "io_uring", "new user namespace": // may be turned off
			case "parent memory", "parent environ": // a kernel may allow it for descendants only
			case "new session": // the leader of a group cannot
			case "typing into a terminal", "commands to a terminal", "a driver's request with a sign": // a socket knows none
			case "connect by sendto", "connect by sendmsg", "connect by sendmmsg": // may be turned off
			default:
				names = append(names, name)
			}
		}
		for name, got := range attempt(t, nil, port, names...) {
			if got != 0 {
				t.Errorf("%s: got %v without a sandbox, so the attempt proves nothing", name, got)
			}
		}
	})
}

func TestSandboxAllowsWhatItIsGiven(t *testing.T) {
	if !landlockABI6(t) {
		t.Skip("this kernel's Landlock does not restrict ports (Linux 6.12 does)")
	}
	port := listening(t)
	folder := t.TempDir()
	for name, test := range map[string]struct {
		box     Sandbox
		attempt string
		want    outcome
	}{
		"port that is named":      {Sandbox{Network: Network{Allowed: true, TCPPorts: []uint16{uint16(port)}}}, "connect", 0},
		"another port":            {Sandbox{Network: Network{Allowed: true, TCPPorts: []uint16{1}}}, "connect", outcome(unix.EACCES)},
		"any port":                {Sandbox{Network: Network{Allowed: true}}, "connect", 0},
		"UDP":                     {Sandbox{Network: Network{Allowed: true, UDP: true}}, "udp socket", 0},
		"TCP without UDP":         {Sandbox{Network: Network{Allowed: true}}, "udp socket", outcome(unix.EPERM)},
		"no unix sockets":         {Sandbox{Network: Network{Allowed: true, UDP: true, BindUDP: true}}, "unix socket", outcome(unix.EPERM)},
		"no netlink":              {Sandbox{Network: Network{Allowed: true, UDP: true}}, "netlink socket", outcome(unix.EPERM)},
		"no MPTCP":                {Sandbox{Network: Network{Allowed: true}}, "mptcp socket", outcome(unix.EPERM)},
		"no raw sockets":          {Sandbox{Network: Network{Allowed: true, UDP: true}}, "raw socket", outcome(unix.EPERM)},
		"no listening":            {Sandbox{Network: Network{Allowed: true, UDP: true, BindUDP: true}}, "listen", outcome(unix.ENOSYS)},
		"another port by sendto":  {Sandbox{Network: Network{Allowed: true, TCPPorts: []uint16{1}}}, "connect by sendto", outcome(unix.EPERM)},
		"any port by sendto":      {Sandbox{Network: Network{Allowed: true}}, "connect by sendto", outcome(unix.EPERM)},
		"another port by sendmsg": {Sandbox{Network: Network{Allowed: true, TCPPorts: []uint16{1}}}, "connect by sendmsg", outcome(unix.EPERM)},
		"port by sendmmsg":        {Sandbox{Network: Network{Allowed: true, TCPPorts: []uint16{1}}}, "connect by sendmmsg", outcome(unix.EPERM)},
		"programs, no namespaces": {Sandbox{Programs: true}, "new user namespace", outcome(unix.ENOSYS)},
		"no files in memory":      {Sandbox{}, "file in memory", outcome(unix.ENOSYS)},
		"files for drivers":       {Sandbox{Drivers: true}, "file in memory", 0},
		"programs":                {Sandbox{Programs: true}, "fork", 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := attempt(t, sandbox(test.box), port, test.attempt)[test.attempt]; got != test.want {
				t.Errorf("%s: got %v, want %v", test.attempt, got, test.want)
			}
		})
	}
	stream := Sandbox{Network: Network{Allowed: true}}
	for name, want := range map[string]outcome{
		"owner of a socket": outcome(unix.EPERM), "owner of a socket, in more bits": outcome(unix.EPERM), "owner by the old request": outcome(unix.EPERM),
		"signals of a socket": outcome(unix.EPERM), "typing into a terminal": outcome(unix.EPERM), "commands to a terminal": outcome(unix.EPERM),
		"bytes in a socket": 0, "a driver's request with a sign": outcome(unix.ENOTTY),
	} {
		t.Run(name, func(t *testing.T) {
			if got := attempt(t, sandbox(stream), port, name)[name]; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	t.Run("files", func(t *testing.T) {
		f, err := os.Create(filepath.Join(folder, "output"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		// The output is reached by its descriptor, as FFmpeg does.
		box := sandbox(Sandbox{Programs: true, Write: []string{FilePath(f, FirstFile)}})
		out := shell(t, box, `echo one >/proc/self/fd/4; echo two >>/proc/self/fd/4; cat /proc/self/fd/4; echo three >`+folder+`/new`, f)
		if !strings.HasPrefix(out, "one\ntwo\n") || !strings.Contains(out, "Permission denied") {
			t.Errorf("got %q", out)
		}
	})
}

// shell runs a script in a sandbox and returns what it writes.
func shell(t *testing.T, box *Sandbox, text string, files ...*os.File) (out string) {
	t.Helper()
	var errs string
	c := Command{Path: "/bin/sh", Args: []string{"-c", text}, Sandbox: box, Files: files}
	c.Stdout = func(r io.Reader) { raw, _ := io.ReadAll(r); out = string(raw) }
	c.Stderr = func(r io.Reader) { raw, _ := io.ReadAll(r); errs = string(raw) }
	if _, err := Run(testContext(t), c); err != nil {
		t.Fatal(err)
	}
	return out + errs
}

// The helper must not cost what Start promises: identity, group, parent-death signal.
func TestSandboxKeepsTheProcess(t *testing.T) {
	box := sandbox(Sandbox{Programs: true})
	wrote := make(chan string, 1)
	c := Command{Path: "/bin/sh", Args: []string{"-c", "echo $$; exec sleep 600"}, Sandbox: box}
	c.Stdout = func(r io.Reader) { line, _ := bufio.NewReader(r).ReadString('\n'); wrote <- strings.TrimSpace(line) }
	child, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	if !child.ID().Alive() {
		t.Error("the child is not the process that was started")
	}
	if group, err := unix.Getpgid(child.ID().PID); err != nil || group != child.ID().PID {
		t.Errorf("group %d, %v, want %d", group, err, child.ID().PID)
	}
	status := statusOf(t, child.ID().PID)
	for field, want := range map[string]string{"NoNewPrivs": "1", "Seccomp": "2"} {
		if status[field] != want {
			t.Errorf("%s is %q, want %s", field, status[field], want)
		}
	}
	effective, want := status["CapEff"], strings.Repeat("0", 16)
	if os.Geteuid() == 0 {
		want = fmt.Sprintf("%016x", 1<<unix.CAP_DAC_OVERRIDE)
	}
	if effective != want || status["CapPrm"] != want || strings.Trim(status["CapAmb"]+status["CapInh"], "0") != "" {
		t.Errorf("capabilities: %v, want %s", status, want)
	}
	if raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", child.ID().PID)); strings.TrimSpace(string(raw)) != "500" {
		t.Errorf("oom_score_adj is %s", raw)
	}
	var core unix.Rlimit
	if err := unix.Prlimit(child.ID().PID, unix.RLIMIT_CORE, nil, &core); err != nil || core.Max != 0 {
		t.Errorf("core limit %v, %v", core, err)
	}
	if out := <-wrote; out != strconv.Itoa(child.ID().PID) {
		t.Errorf("the command's PID is %s, the child's %d", out, child.ID().PID)
	}
	child.Signal(syscall.SIGKILL)
	if exit := child.Exit(); exit.Signal != syscall.SIGKILL {
		t.Errorf("%v, want SIGKILL", exit)
	}
}

func statusOf(t *testing.T, pid int) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

func TestSandboxOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may switch users")
	}
	const nobody = 65534
	folder := t.TempDir() // 0700 root, as data_dir is
	input := filepath.Join(folder, "input")
	if err := os.WriteFile(input, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	box := sandbox(Sandbox{Programs: true, User: &User{UID: nobody, GID: nobody, Groups: []int{nobody}}, Read: []string{input, "/etc/passwd"}})
	if out := shell(t, box, "id -u; id -G; cat "+input+"; cat /etc/shadow"); !strings.HasPrefix(out, "65534\n65534\ncontent") || !strings.Contains(out, "Permission denied") {
		t.Errorf("got %q", out)
	}
	child, err := Start(Command{Path: "/bin/sleep", Args: []string{"600"}, Sandbox: box})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { child.Signal(syscall.SIGKILL); child.Exit() }()
	if got := statusOf(t, child.ID().PID)["Uid"]; got != "65534\t65534\t65534\t65534" {
		t.Errorf("UIDs %q", got)
	}
}

func TestSandboxSaysWhyACommandDidNotStart(t *testing.T) {
	for name, test := range map[string]struct {
		path string
		want error
	}{
		"missing":    {"/usr/bin/no-such-program", unix.ENOENT},
		"no program": {"/etc/ld.so.cache", unix.EACCES},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Start(Command{Path: test.path, Sandbox: sandbox(Sandbox{})})
			if err == nil || !strings.Contains(err.Error(), test.path) || !strings.Contains(err.Error(), test.want.Error()) {
				t.Errorf("got %v, want %v of %s", err, test.want, test.path)
			}
		})
	}
	t.Run("no helper", func(t *testing.T) {
		box := sandbox(Sandbox{})
		box.Helper = []string{"/bin/true"}
		if _, err := Start(Command{Path: "/bin/true", Sandbox: box}); err == nil || !strings.Contains(err.Error(), "helper") {
			t.Errorf("got %v", err)
		}
	})
}

// Our systemd unit forbids capset, and has no capabilities to drop.
func TestSandboxIsWholeWhereCapsetIsForbidden(t *testing.T) {
	landlockABI6(t)
	cmd := exec.Command("/proc/self/exe", hardened)
	cmd.Stderr = os.Stderr
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	cmd.Dir = "/"
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) != "{}" {
		t.Errorf("got %s, %v, want no missing layer", out, err)
	}
}

// actHardened starts a child where capset is forbidden.
func actHardened() {
	runtime.LockOSThread()
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err == nil {
		err = seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{{Names: []string{"capset"}, Action: seccomp.ActionErrno}},
		}})
	}
	var confinement *Confinement
	if err == nil {
		confinement, _, err = RunConfined(context.Background(), Command{Path: "/bin/true", Sandbox: sandbox(Sandbox{})})
	}
	if err != nil {
		panic(err)
	}
	_ = json.NewEncoder(os.Stdout).Encode(confinement)
}

// A process that is hardened cannot be read or traced by others of its user.
func TestHardenedAgentIsNotDumpable(t *testing.T) {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := Harden(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(before), 0, 0, 0) }()
	if got, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || got != 0 {
		t.Errorf("dumpable is %d, %v, want 0", got, err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core.Max != 0 {
		t.Errorf("core limit %v, %v, want 0", core, err)
	}
	// What the agent needs of its own files in /proc, it still reads.
	for _, path := range []string{"/proc/self/status", "/proc/self/cgroup", "/proc/self/mountinfo", "/proc/self/fd/0", "/proc/self/exe"} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir("/proc/self/fd"); err != nil || len(entries) == 0 {
		t.Errorf("descriptors: %v, %v", entries, err)
	}
	if _, err := Run(testContext(t), Command{Path: "/bin/true", Sandbox: sandbox(Sandbox{})}); err != nil {
		t.Errorf("a child of a hardened process: %v", err)
	}
}
