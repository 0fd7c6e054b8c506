package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/internal/ffmpeg"
)

// sandboxCommand is the hidden argument of the process that sets up the sandbox around an
// FFmpeg and becomes it. It is no cobra command: each start of FFmpeg waits for it.
const sandboxCommand = "sandbox-helper"

// sandboxHelper is the command line of that process. Tests replace it by a program that starts faster.
var sandboxHelper = []string{self, sandboxCommand}

// becomeFFmpeg does the work of sandboxCommand and does not return, if this process was
// started for that.
func becomeFFmpeg() {
	if len(os.Args) > 1 && os.Args[1] == sandboxCommand {
		fmt.Fprintln(os.Stderr, "agent:", proc.Confine(os.Args[2:]))
		os.Exit(exitFailed)
	}
}

// sandboxSettings maps the configuration of the sandbox.
func sandboxSettings(cfg configs.Config) (ffmpeg.SandboxSettings, error) {
	s := ffmpeg.SandboxSettings{Mode: ffmpeg.SandboxMode(cfg.Jobs.Sandbox), Helper: sandboxHelper}
	for _, layer := range cfg.Debug.SandboxWithout {
		s.Without = append(s.Without, proc.Layer(layer))
	}
	if cfg.Jobs.RunAs == "" {
		return s, nil
	}
	if s.Mode == ffmpeg.SandboxOff {
		return s, usageError{fmt.Errorf("jobs.run_as %q needs the sandbox, and jobs.sandbox is off", cfg.Jobs.RunAs)}
	}
	found, err := lookUpUser(cfg.Jobs.RunAs)
	if err != nil {
		return s, usageError{fmt.Errorf("jobs.run_as %q: %w", cfg.Jobs.RunAs, err)}
	}
	if os.Geteuid() != 0 && os.Geteuid() != found.UID {
		return s, usageError{fmt.Errorf("jobs.run_as %q: only an agent that runs as root may switch users", cfg.Jobs.RunAs)}
	}
	s.User = found
	return s, nil
}

func lookUpUser(name string) (*proc.User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	found := &proc.User{}
	if found.UID, err = strconv.Atoi(u.Uid); err != nil {
		return nil, err
	}
	if found.GID, err = strconv.Atoi(u.Gid); err != nil {
		return nil, err
	}
	for _, group := range groups {
		id, err := strconv.Atoi(group)
		if err != nil {
			return nil, err
		}
		found.Groups = append(found.Groups, id)
	}
	return found, nil
}
