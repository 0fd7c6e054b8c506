package proc

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Access rights of a sandbox's files and folders.
const (
	readFile  landlock.AccessFSSet = ll.AccessFSReadFile
	runFile                        = readFile | ll.AccessFSExecute
	writeFile                      = readFile | ll.AccessFSWriteFile | ll.AccessFSTruncate
	useDevice                      = readFile | ll.AccessFSWriteFile | ll.AccessFSIoctlDev

	readFolder  = readFile | ll.AccessFSReadDir
	runFolder   = runFile | ll.AccessFSReadDir
	writeFolder = writeFile | ll.AccessFSReadDir | ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
	useDevices  = useDevice | ll.AccessFSReadDir
)

// landlockABI is the newest version that the rules here were tried with; later ones restrict
// what they do not allow for.
var landlockABI = landlock.V8

// landlockRules are a sandbox's rules in the kernel, not applied yet.
type landlockRules struct {
	fd    int
	flags uint32
	lacks string // what this kernel does not restrict
}

// build makes the rules. What cannot be found by the agent is left out, and will not be found
// by the command either.
func (r *landlockRules) build(s *Sandbox) error {
	abi, err := ll.LandlockGetABIVersion()
	switch {
	case errors.Is(err, unix.ENOSYS):
		return errors.New("this kernel has no Landlock (Linux 5.13), or a container forbids it")
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("landlock is turned off in this kernel (lsm= of its command line)")
	case err != nil:
		return err
	}
	// The descriptor keeps the kernel from forgetting the folder, whose successor would have
	// no rule. The command inherits it.
	if _, err := unix.Open("/proc/self", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return fmt.Errorf("opening /proc/self: %w", err)
	}
	rules := []landlock.Rule{landlock.PathAccess(readFolder, "/proc/self")}
	for _, group := range []struct {
		paths        []string
		file, folder landlock.AccessFSSet
	}{{s.Run, runFile, runFolder}, {s.Read, readFile, readFolder}, {s.Write, writeFile, writeFolder}, {s.Devices, useDevice, useDevices}} {
		for _, path := range group.paths {
			info, err := os.Stat(path)
			if err != nil {
				continue
			}
			access := group.file
			if info.IsDir() {
				access = group.folder
			}
			rules = append(rules, landlock.PathAccess(access, path).IgnoreIfMissing())
		}
	}
	config := landlockABI
	if s.Network.Allowed && len(s.Network.TCPPorts) == 0 {
		config.HandledAccessNet = 0
	}
	for _, port := range s.Network.TCPPorts {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	if r.fd, r.flags, err = config.BestEffort().NewRulesetFD(rules...); err != nil {
		return err
	}
	if r.fd < 0 {
		return errors.New("this kernel's Landlock restricts nothing")
	}
	r.lacks = lacksOfLandlock(abi)
	return nil
}

// lacksOfLandlock names what a version of Landlock does not restrict.
func lacksOfLandlock(abi int) string {
	var lacks []string
	for _, l := range []struct {
		since int
		what  string
	}{
		{3, "truncation (Linux 6.2)"}, {4, "TCP ports (Linux 6.7)"}, {5, "control of devices (Linux 6.10)"},
		{6, "signals and abstract unix sockets (Linux 6.12)"},
	} {
		if abi < l.since {
			lacks = append(lacks, l.what)
		}
	}
	return strings.Join(lacks, ", ")
}

// apply restricts the calling thread, and so the command that it becomes.
func (r *landlockRules) apply() error {
	defer unix.Close(r.fd)
	return ll.LandlockRestrictSelf(r.fd, r.flags)
}
