package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/ffmpeg"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/internal/master"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// examination is what the checks of doctor share.
type examination struct {
	loaded *configs.Loaded
	cfg    effective

	agent    *messages.Status // of the running agent; nil: none answers
	agentErr error            // why none answers
	peer     control.Peer     // who has answered
	agentUID string           // of the user that the agent runs as, else of this one

	saved   *messages.Session // that a stopped agent left; nil: none, or not readable
	unsent  job.JournalStats  // likewise
	journal error             // why the journal of a stopped agent cannot be read; nil: it can, or there is none

	worker  *worker // holds what is made for the checks
	client  *master.Client
	runner  *ffmpeg.Runner
	scratch string // the runner's data directory
	health  master.Health
	nodes   []protocol.Node
	host    hardware.HostStatus
	facts   hardware.Facts
}

// askAgent asks the running agent for its status.
func askAgent(cmd *cobra.Command) (e *examination, client *control.Client) {
	e = &examination{agentUID: strconv.Itoa(os.Geteuid())}
	client, err := dialAgent(cmd)
	if err == nil {
		var s messages.Status
		if s, e.peer, err = client.Identify(cmd.Context()); err == nil {
			e.agent = &s
		}
	}
	if e.agent != nil && e.peer.Known {
		e.agentUID = strconv.Itoa(int(e.peer.UID))
	}
	e.agentErr = err
	return e, client
}

// prepare loads the configuration, the agent's as far as possible. It reports false where it is
// invalid.
func (e *examination) prepare(cmd *cobra.Command) ([]finding, bool) {
	loaded, err := e.load(cmd)
	if err == nil {
		e.cfg, err = readFiles(loaded)
	}
	if err != nil {
		given, _ := cmd.Flags().GetString("config") // empty if it is not given
		return configurationFindings(err, given), false
	}
	e.loaded = loaded
	e.worker = &worker{config: fixedConfiguration(e.cfg.Config), log: &logger{Logger: zap.NewNop()}}
	if e.agent == nil {
		e.readJournal()
	}
	roots := hardwareRoots(e.cfg.Config)
	e.facts, _ = hardware.Detect(roots) // an unknown fact is one as well
	e.host, _ = hardware.NewHost(hardware.HostConfig{Roots: roots, DataDir: existingParent(e.cfg.DataDir)}).Status()
	from := "defaults, flags and environment only"
	if loaded.File != "" {
		from = loaded.File
	}
	findings := []finding{passing("valid: %s", from)}
	for _, w := range loaded.Warnings {
		findings = append(findings, warning("see agent config for where each value comes from", "%s", w))
	}
	return findings, true
}

// load loads the configuration as the running agent did: with its environment, such as that of
// its unit, in place of this process's. Only root and the agent's user may read it, and nothing
// is taken from an agent of another user: it would decide which programs this user runs and where
// this user's key is sent. The master's URL is in the status as well.
func (e *examination) load(cmd *cobra.Command) (*configs.Loaded, error) {
	src := sourceOf(cmd)
	if e.agent == nil || !e.peer.Known || e.peer.UID != 0 && int(e.peer.UID) != os.Geteuid() {
		return configs.Load(src)
	}
	if e.agent.PID == e.peer.PID {
		if environ, err := environOf(e.peer); err == nil {
			src.Environ = environ
		}
	}
	loaded, err := configs.Load(src)
	if err == nil && e.agent.Master != "" && loaded.Origins["master.url"].Kind == configs.FromDefault {
		loaded.Config.Master.URL = e.agent.Master
	}
	return loaded, err
}

// readJournal reads what a stopped agent left.
func (e *examination) readJournal() {
	reader, err := journal.OpenReadOnly(journalPath(e.cfg.DataDir), journalInspector)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		e.journal = err
		return
	}
	defer reader.Close()
	e.unsent = reader.Stats()
	if s, found, err := reader.Session(); err == nil && found {
		e.saved = &s
	}
}

func (e *examination) close() {
	_ = e.worker.close()
	if e.scratch != "" {
		_ = os.RemoveAll(e.scratch)
	}
}

// configurationFindings is a finding for each problem of the configuration. given is the file of
// --config, if any.
func configurationFindings(err error, given string) []finding {
	var invalid *configs.Error
	if !errors.As(err, &invalid) {
		return []finding{failed("agent config", "%v", err)}
	}
	var findings []finding
	for _, p := range invalid.Problems {
		allowed := "correct it"
		if p.Allowed != "" {
			allowed = "allowed: " + p.Allowed
		}
		text := p
		text.Allowed = ""
		fix := changeCommand(p.Key, p.Origin, allowed)
		if path := strings.Trim(p.Value, `"`); filepath.IsAbs(path) && isForbidden(path) {
			fix = allowReading(path, given)
		}
		findings = append(findings, failed(fix, "%s", text))
	}
	return findings
}

// isForbidden reports whether this user may not read a file.
func isForbidden(path string) bool {
	return errors.Is(unix.Access(path, unix.R_OK), fs.ErrPermission)
}

// allowReading is what to do about a file that this user may not read, but perhaps the agent.
func allowReading(path, given string) string {
	user := userName(strconv.Itoa(os.Geteuid()))
	return fmt.Sprintf("%s   # or, if the agent runs as %s: sudo chgrp %s %s && sudo chmod g+r %s", sudoDoctor(given), user, user, path, path)
}

// sudoDoctor is the command that makes the checks as root, with the configuration file that was
// given to this one, if any.
func sudoDoctor(given string) string {
	if given != "" && given != configs.DefaultFile {
		return "sudo agent doctor --config " + given
	}
	return "sudo agent doctor"
}

func (e *examination) asRoot() string { return sudoDoctor(e.loaded.File) }

// configFlag is the flag with which other commands read the same file.
func (e *examination) configFlag() string {
	return strings.TrimPrefix(e.asRoot(), "sudo agent doctor")
}

// forbidden reports whether this user may not ask the agent, if one runs.
func (e *examination) forbidden() bool {
	return e.agent == nil && errors.Is(e.agentErr, fs.ErrPermission)
}

// change is how to change a setting, depending on where its value comes from.
func (e *examination) change(key, to string) string {
	origin := e.loaded.Origins[key]
	if origin.Kind == configs.FromDefault {
		origin.Name = e.loaded.File
	}
	return changeCommand(key, origin, to)
}

func changeCommand(key string, origin configs.Origin, to string) string {
	if key != "" {
		to = key + ": " + to
	}
	switch {
	case origin.Kind == configs.FromFlag:
		return fmt.Sprintf("start the agent with another --%s (%s)", origin.Name, to)
	case origin.Kind == configs.FromEnvironment || origin.Kind == configs.FromLegacyEnvironment:
		return fmt.Sprintf("set the environment variable %s (%s)", origin.Name, to)
	}
	file := origin.Name
	if file == "" {
		file = configs.DefaultFile
	}
	line := ""
	if origin.Line > 0 {
		line = fmt.Sprintf("line %d, ", origin.Line)
	}
	return fmt.Sprintf("sudoedit %s   # %s%s", file, line, to)
}

// master returns a client of the configured master.
func (e *examination) master() (*master.Client, error) {
	if e.client != nil {
		return e.client, nil
	}
	var err error
	e.client, err = e.worker.newClient(e.cfg)
	return e.client, err
}

// ffmpeg returns a runner with a data directory of its own, since that of the agent may belong
// to another user.
func (e *examination) ffmpeg() (*ffmpeg.Runner, error) {
	if e.runner != nil {
		return e.runner, nil
	}
	dir, err := os.MkdirTemp("", "ffmpeg-agent-doctor-")
	if err != nil {
		return nil, fmt.Errorf("creating a directory for trial encodes: %w", err)
	}
	e.scratch = dir
	cfg := e.cfg
	cfg.DataDir = dir
	err = e.worker.newRunner(cfg, func() []hardware.Graphics { return nil })
	e.runner = e.worker.runner
	return e.runner, err
}

// ownerOf is the user id of a file's owner; empty if it is unknown.
func ownerOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return strconv.Itoa(int(stat.Uid))
}

// existingParent is the path itself, or the closest directory above that exists.
func existingParent(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// checkAgent reports whether an agent runs, and whether it is the one that this configuration
// describes.
func checkAgent(_ context.Context, e *examination) []finding {
	start := "sudo systemctl start ffmpeg-agent   # or by hand: agent run"
	switch {
	case e.forbidden():
		return []finding{warning(e.asRoot(), "%v; data directory, journal, cgroups, sensors, Docker and ports are left out: checks as user %s do not show what the agent may access", e.agentErr, userName(e.agentUID))}
	case e.agent == nil && errors.Is(e.agentErr, control.ErrNotRunning):
		// root may read what the agent may not.
		if owner := ownerOf(e.cfg.DataDir); owner != "" && owner != e.agentUID {
			start = fmt.Sprintf("sudo -u %s agent doctor%s   # with the rights of the agent; then: sudo systemctl start ffmpeg-agent", userName(owner), e.configFlag())
		}
		return []finding{warning(start, "not running: no agent answers on %s; checked without it, as user %s", e.cfg.Control.Socket, userName(e.agentUID))}
	case e.agent == nil:
		return []finding{warning(e.asRoot(), "%v", e.agentErr)}
	}
	findings := []finding{passing("version %s, pid %d, up %s, user %s", e.agent.Version, e.agent.PID, since(e.agent.At, e.agent.StartedAt), userName(e.agentUID))}
	if e.agent.Version != version {
		findings = append(findings, warning("sudo systemctl restart ffmpeg-agent", "the running agent is version %s, this program is %s", e.agent.Version, version))
	}
	if url := e.agent.Master; url != "" && url != e.cfg.Master.URL {
		findings = append(findings, warning("agent doctor --master "+url, "the running agent uses the master %s, and this configuration names %s: give doctor the flags that the agent is started with, or restart the agent to apply the configuration", url, e.cfg.Master.URL))
	}
	for _, a := range e.agent.Actors {
		if a.State != "running" {
			findings = append(findings, warning("agent status", "actor %s is %s: %s", a.Path, a.State, a.LastFailure))
		}
	}
	return findings
}
