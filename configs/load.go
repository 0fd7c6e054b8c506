package configs

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// DefaultFile is read if neither --config nor FFMPEG_AGENT_CONFIG is set. It may be missing.
const DefaultFile = "/etc/ffmpeg-agent/agent.yaml"

// maxSocketPath is the maximum length of a unix socket's path in bytes.
const maxSocketPath = 107

// Source holds the inputs of Load.
type Source struct {
	Environ     []string               // NAME=value, as returned by os.Environ
	Flags       *pflag.FlagSet         // parsed, after BindFlags; nil for none
	DefaultFile string                 // overrides the constant DefaultFile
	IsRoot      func() bool            // nil checks the effective user ID
	Hostname    func() (string, error) // nil means os.Hostname
}

// Loaded is a valid configuration and the origin of its values.
type Loaded struct {
	Config   Config
	Origins  map[string]Origin // by key
	Warnings []string          // to log at every start
	File     string            // path of the file read, "" for none
}

// Entry is one line of the effective configuration.
type Entry struct {
	Key    string
	Value  string // as text; Hidden for a secret
	Origin Origin
}

// setting is a value before parsing: a string or []string.
type setting struct {
	raw    any
	origin Origin
}

// Load merges the sources into a Config. An invalid configuration is an *Error with all
// its problems. Values overridden by a source of higher precedence are not validated,
// but the file must be well formed and have no unknown keys.
//
// If both an API key and an API key file are set, the one from the source of higher
// precedence applies; both from the same source are a problem.
func Load(src Source) (*Loaded, error) {
	l := &loader{src: src, keys: schema(), viper: viper.New(), environ: environMap(src.Environ), settings: map[string]setting{}, bad: map[string]bool{}}
	if err := l.collect(); err != nil {
		return nil, err
	}
	l.decode()
	l.resolve()
	l.chooseKeySource()
	l.crossCheck()
	if len(l.problems) > 0 {
		return nil, &Error{Problems: l.problems}
	}
	l.warn()
	loaded := l.loaded // a copy, so that the loader and its plain-text secrets can be freed
	return &loaded, nil
}

// Entries returns every key with its value and origin, in the order of the
// example file.
func (l *Loaded) Entries() []Entry {
	var entries []Entry
	for _, k := range schema() {
		entries = append(entries, Entry{Key: k.path, Value: format(k.get(&l.Config)), Origin: l.Origins[k.path]})
	}
	return entries
}

type loader struct {
	src      Source
	keys     []key
	viper    *viper.Viper
	environ  map[string]string
	settings map[string]setting // by key, from the source of highest precedence
	bad      map[string]bool    // keys with a problem
	problems []Problem
	loaded   Loaded
}

// collect reads the sources and layers them in viper.
func (l *loader) collect() error {
	for _, k := range l.keys {
		l.viper.SetDefault(k.path, k.def)
		l.settings[k.path] = setting{raw: k.def}
	}
	file := l.readConfigFile()
	environ, problems := readEnviron(l.environ, l.keys)
	l.problems = append(l.problems, problems...)
	flags, err := readFlags(l.src.Flags, l.keys)
	if err != nil {
		return fmt.Errorf("configuration: finding the working directory: %w", err)
	}
	for _, layer := range []map[string]setting{file, environ} {
		if err := l.viper.MergeConfigMap(nested(layer)); err != nil {
			return fmt.Errorf("configuration: merging sources: %w", err)
		}
		maps.Copy(l.settings, layer)
	}
	for path, s := range flags {
		if err := l.viper.BindFlagValue(path, givenFlag{name: s.origin.Name, text: s.raw.(string)}); err != nil {
			return fmt.Errorf("configuration: binding flags: %w", err)
		}
		l.settings[path] = s
	}
	return nil
}

func (l *loader) readConfigFile() map[string]setting {
	path, origin, named := l.configFile()
	if named && path == "" {
		l.fileProblem(path, origin, errEmpty)
		return nil
	}
	data, exists, err := readFile(path)
	if !exists && !named {
		return nil
	}
	if err != nil {
		l.fileProblem(path, origin, err)
		return nil
	}
	l.loaded.File = path
	given, problems := readYAML(path, data, l.keys)
	l.problems = append(l.problems, problems...)
	return given
}

// configFile returns the file to read. named is false for the default file.
func (l *loader) configFile() (path string, origin Origin, named bool) {
	flag := Origin{Kind: FromFlag, Name: configFlag}
	variable := Origin{Kind: FromEnvironment, Name: envPrefix + "CONFIG"}
	path, named = flagText(l.src.Flags, configFlag)
	switch {
	case named:
		origin = flag
	case l.environ[variable.Name] != "":
		path, origin, named = l.environ[variable.Name], variable, true
	case l.src.DefaultFile != "":
		path = l.src.DefaultFile
	default:
		path = DefaultFile
	}
	if absolute, err := filepath.Abs(path); err == nil && path != "" {
		path = absolute
	}
	return path, origin, named
}

func (l *loader) fileProblem(path string, origin Origin, err error) {
	l.problems = append(l.problems, Problem{
		Key: configFlag, Value: fmt.Sprintf("%q", shorten(path)), Origin: origin,
		Reason: err.Error(), Allowed: "a readable YAML file",
	})
}

// decode parses and validates the merged values. A key with a problem keeps its
// default, so that the remaining checks can still run.
func (l *loader) decode() {
	l.loaded.Config = Defaults()
	l.loaded.Origins = map[string]Origin{}
	for _, k := range l.keys {
		l.loaded.Origins[k.path] = l.settings[k.path].origin
		raw := l.viper.Get(k.path)
		v, err := parse(k.typ, raw)
		if err == nil {
			err = k.rule.check(v)
		}
		if err != nil {
			l.report(k.path, k.shown(raw), err.Error(), k.rule.allowed)
			continue
		}
		k.set(&l.loaded.Config, v)
	}
}

func (l *loader) report(path, value, reason, allowed string) {
	l.bad[path] = true
	l.problems = append(l.problems, Problem{Key: path, Value: value, Origin: l.settings[path].origin, Reason: reason, Allowed: allowed})
}

// resolve replaces "auto" in values that are fixed while the agent runs.
func (l *loader) resolve() {
	cfg := &l.loaded.Config
	if cfg.Node.Address == "auto" && !l.bad["node.address"] {
		cfg.Node.Address = l.hostname()
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

func (l *loader) hostname() string {
	get := l.src.Hostname
	if get == nil {
		get = os.Hostname
	}
	name, err := get()
	if err == nil {
		err = checkAddress(name)
	}
	if err != nil {
		l.report("node.address", `"auto"`, "unusable host name: "+err.Error(), "an explicit name for this node")
	}
	return name
}

// dataDir returns systemd's state directory if set, else the system-wide one for root
// and the user's own for other users.
func (l *loader) dataDir() string {
	isRoot := l.src.IsRoot
	if isRoot == nil {
		isRoot = func() bool { return os.Geteuid() == 0 }
	}
	state, _, _ := strings.Cut(l.environ["STATE_DIRECTORY"], ":")
	switch {
	case filepath.IsAbs(state):
		return state
	case isRoot():
		return "/var/lib/ffmpeg-agent"
	case filepath.IsAbs(l.environ["XDG_STATE_HOME"]):
		return filepath.Join(l.environ["XDG_STATE_HOME"], "ffmpeg-agent")
	case filepath.IsAbs(l.environ["HOME"]):
		return filepath.Join(l.environ["HOME"], ".local", "state", "ffmpeg-agent")
	}
	l.report("data_dir", `"auto"`, "neither XDG_STATE_HOME nor HOME is set to an absolute path", "an absolute path")
	return ""
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

// crossCheck reports settings that contradict each other.
func (l *loader) crossCheck() {
	cfg := &l.loaded.Config
	checks := []struct {
		key, other string
		wrong      bool
		reason     string
		allowed    string
	}{
		{"master.cert", "master.key", cfg.Master.Cert != "" && cfg.Master.Key == "", "certificate without private key", "both master.cert and master.key, or neither"},
		{"master.key", "master.cert", cfg.Master.Key != "" && cfg.Master.Cert == "", "private key without certificate", "both master.cert and master.key, or neither"},
		{"heartbeat_interval", "master.unavailable_after", cfg.HeartbeatInterval >= cfg.Master.UnavailableAfter,
			"too long: the master would reassign the node's jobs", "less than " + l.describe("master.unavailable_after")},
		{"energy.cpu_max_watts", "energy.cpu_idle_watts", cfg.Energy.CPUMaxWatts > 0 && cfg.Energy.CPUMaxWatts < cfg.Energy.CPUIdleWatts,
			"below energy.cpu_idle_watts", "0 for unknown, or at least " + l.describe("energy.cpu_idle_watts")},
	}
	for _, c := range checks {
		if c.wrong && !l.bad[c.key] && !l.bad[c.other] {
			l.report(c.key, l.shownValue(c.key), c.reason, c.allowed)
		}
	}
	l.checkPorts()
}

// checkPorts reports listeners that share a port.
func (l *loader) checkPorts() {
	cfg := &l.loaded.Config
	taken := map[int]string{}
	for _, listener := range []struct {
		key     string
		enabled bool
		port    int
	}{
		{"metrics_port", cfg.MetricsPort != 0, cfg.MetricsPort},
		{"exporters.cpu.port", cfg.Exporters.CPU.Enabled, cfg.Exporters.CPU.Port},
		{"exporters.gpu.port", cfg.Exporters.GPU.Enabled, cfg.Exporters.GPU.Port},
		{"exporters.ffmpeg.port", cfg.Exporters.FFmpeg.Enabled, cfg.Exporters.FFmpeg.Port},
		{"exporters.docker.port", cfg.Exporters.Docker.Enabled, cfg.Exporters.Docker.Port},
	} {
		if !listener.enabled || l.bad[listener.key] {
			continue
		}
		if first, twice := taken[listener.port]; twice {
			l.report(listener.key, l.shownValue(listener.key), "same port as "+l.describe(first), "a port that no other listener uses")
			continue
		}
		taken[listener.port] = listener.key
	}
}

func (l *loader) shownValue(path string) string {
	i := slices.IndexFunc(l.keys, func(k key) bool { return k.path == path })
	return l.keys[i].shown(l.settings[path].raw)
}

// describe returns a key with its value and origin, for a problem with another key.
func (l *loader) describe(path string) string {
	return fmt.Sprintf("%s %s (%s)", path, l.shownValue(path), l.settings[path].origin)
}

func (l *loader) warn() {
	if key := l.settings["master.api_key"]; key.origin.Kind == FromFlag && key.raw != "" {
		l.loaded.Warnings = append(l.loaded.Warnings, "the key given with --api-key is visible to other users of this machine; use MASTER_API_KEY or --api-key-file instead")
	}
	if l.loaded.Config.Master.InsecureSkipVerify {
		l.loaded.Warnings = append(l.loaded.Warnings, fmt.Sprintf("the master's certificate is not verified (%s): anyone on the network path can read the API key and send jobs", l.settings["master.insecure_skip_verify"].origin))
	}
}

// nested turns key paths into the nested maps that viper merges.
func nested(layer map[string]setting) map[string]any {
	root := map[string]any{}
	for path, s := range layer {
		names := strings.Split(path, ".")
		last := len(names) - 1
		parent := root
		for _, name := range names[:last] {
			child, ok := parent[name].(map[string]any)
			if !ok {
				child = map[string]any{}
				parent[name] = child
			}
			parent = child
		}
		parent[names[last]] = s.raw
	}
	return root
}
