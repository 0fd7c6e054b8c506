package configs

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxSocketPath is the maximum length of a unix socket's path in bytes.
const maxSocketPath = 107

// resolve replaces "auto" in values that are fixed while the agent runs, and completes
// the default presets.
func (l *loader) resolve() {
	cfg := &l.loaded.Config
	cfg.Jobs.DefaultPresets = completePresets(cfg.Jobs.DefaultPresets)
	if cfg.Node.Address == "auto" && !l.bad["node.address"] {
		l.resolveAddress()
	}
	if cfg.DataDir == "auto" && !l.bad["data_dir"] {
		cfg.DataDir = l.dataDir()
	}
	if l.bad["data_dir"] || l.bad["control.socket"] {
		return
	}
	if cfg.Control.Socket == "auto" {
		cfg.Control.Socket = filepath.Join(cfg.DataDir, "agent.sock")
	}
	if len(cfg.Control.Socket) > maxSocketPath {
		l.report("control.socket", fmt.Sprintf("%q", cfg.Control.Socket), "too long for a unix socket",
			fmt.Sprintf("an absolute path of at most %d bytes, or auto for agent.sock in data_dir", maxSocketPath))
	}
}

// resolveAddress makes the host name the node's address where it is an identity.
func (l *loader) resolveAddress() {
	hostname, in := l.src.Hostname, l.src.Container
	if hostname == nil {
		hostname = os.Hostname
	}
	if in == nil {
		in = func() Container { return container("/", l.environ) }
	}
	name, err := hostname()
	switch {
	case err == nil && !isIdentity(name, in()):
		return
	case err == nil:
		err = checkAddress(name)
	}
	if err != nil {
		l.report("node.address", `"auto"`, "unusable host name: "+err.Error(), "an explicit name for this node")
	}
	l.loaded.Config.Node.Address = name
}

// dataDir returns systemd's state directory if set, else the system-wide one for root and for
// its owner, whom the unit runs the agent as, and the user's own for other users.
func (l *loader) dataDir() string {
	isRoot := l.src.IsRoot
	if isRoot == nil {
		isRoot = func() bool { return os.Geteuid() == 0 }
	}
	system := cmp.Or(l.src.SystemDataDir, SystemDataDir)
	state, _, _ := strings.Cut(l.environ["STATE_DIRECTORY"], ":")
	switch {
	case filepath.IsAbs(state):
		return state
	case isRoot() || isOwn(system):
		return system
	case filepath.IsAbs(l.environ["XDG_STATE_HOME"]):
		return filepath.Join(l.environ["XDG_STATE_HOME"], "ffmpeg-agent")
	case filepath.IsAbs(l.environ["HOME"]):
		return filepath.Join(l.environ["HOME"], ".local", "state", "ffmpeg-agent")
	}
	l.report("data_dir", `"auto"`, "neither XDG_STATE_HOME nor HOME is set to an absolute path", "an absolute path")
	return ""
}

// isOwn reports whether a directory belongs to this user.
func isOwn(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// chooseKeySource clears the API key or the API key file if both are set.
func (l *loader) chooseKeySource() {
	m := &l.loaded.Config.Master
	if !m.APIKey.IsSet() || m.APIKeyFile == "" {
		return
	}
	key, file := l.settings["master.api_key"].origin, l.settings["master.api_key_file"].origin
	switch {
	case key.Kind > file.Kind:
		m.APIKeyFile = ""
		l.loaded.Origins["master.api_key_file"] = Origin{}
	case file.Kind > key.Kind:
		m.APIKey = Secret{}
		l.loaded.Origins["master.api_key"] = Origin{}
	default:
		l.report("master.api_key", "(hidden)", fmt.Sprintf("set together with master.api_key_file (%s)", file), "one of the two")
	}
}
