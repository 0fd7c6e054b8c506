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

// DefaultFile is read when no file is named, if it is there.
const DefaultFile = "/etc/ffmpeg-agent/agent.yaml"

// maxSocketPath is the longest path that a unix socket can have, in bytes.
const maxSocketPath = 107

// Source is where Load looks. Its zero value is an agent without flags and
// environment on this machine.
type Source struct {
	Environ     []string               // NAME=value, as os.Environ returns it
	Flags       *pflag.FlagSet         // parsed, after BindFlags; nil for none
	File        string                 // "" is --config, then FFMPEG_AGENT_CONFIG, then DefaultFile if present
	DefaultFile string                 // in place of DefaultFile
	Root        func() bool            // whether the agent runs as root; nil asks the system
	Hostname    func() (string, error) // nil is os.Hostname
}

// Loaded is a valid configuration and how it came about.
type Loaded struct {
	Config   Config
	Origins  map[string]Origin // of each key
	Warnings []string          // what the operator should be told at every start
	File     string            // the file that was read, "" for none
}

// Entry is one line of the effective configuration.
type Entry struct {
	Key    string
	Value  string // as text; Hidden for a secret
	Origin Origin
}

// setting is a value that somebody gave, as text or []string.
type setting struct {
	raw    any
	origin Origin
}

// Load returns the configuration that the sources make together, or an *Error
// with all that is wrong with it. What a stronger source overrides is not checked,
// but the file has to be well formed and of known keys in any case. Of an API key
// and an API key file, that of the stronger source is taken; both from one source
// is a problem.
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
	loaded := l.loaded // without the loader, which knows the secrets as text
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
	settings map[string]setting // the strongest of each key
	bad      map[string]bool    // keys with a problem
	problems []Problem
	loaded   Loaded
}

// collect reads the sources and lets viper put one above the other.
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
	data, there, err := readFile(path)
	if !there && !named {
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

// configFile returns the file to read, who named it, and whether anybody did.
func (l *loader) configFile() (path string, origin Origin, named bool) {
	flag := Origin{Kind: FromFlag, Name: configFlag}
	variable := Origin{Kind: FromEnvironment, Name: envPrefix + "CONFIG"}
	path, named = flagText(l.src.Flags, configFlag)
	switch {
	case l.src.File != "":
		path, origin, named = l.src.File, flag, true
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
		Reason: err.Error(), Allowed: "a YAML file that this user can read",
	})
}

// decode parses and checks what viper made of the sources, key by key. A key with
// a problem keeps its default, so that the rest can be checked still.
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

// resolve replaces auto where the answer is the machine's.
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
			fmt.Sprintf("an absolute path of at most %d bytes; auto is agent.sock in data_dir", maxSocketPath))
	}
}

func (l *loader) hostname() string {
	ask := l.src.Hostname
	if ask == nil {
		ask = os.Hostname
	}
	name, err := ask()
	if err == nil {
		err = checkAddress(name)
	}
	if err != nil {
		l.report("node.address", `"auto"`, "the host name cannot be used: "+err.Error(), "a name of your own for this node")
	}
	return name
}

// dataDir is systemd's state directory, the system's for root, else the user's own.
func (l *loader) dataDir() string {
	isRoot := l.src.Root
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

// chooseKeySource leaves one of API key and API key file.
func (l *loader) chooseKeySource() {
	m := &l.loaded.Config.Master
	if !m.APIKey.IsSet() || m.APIKeyFile == "" {
		return
	}
	text, file := l.settings["master.api_key"].origin, l.settings["master.api_key_file"].origin
	switch {
	case text.Kind > file.Kind:
		m.APIKeyFile = ""
		l.loaded.Origins["master.api_key_file"] = Origin{}
	case file.Kind > text.Kind:
		m.APIKey = Secret{}
		l.loaded.Origins["master.api_key"] = Origin{}
	default:
		l.report("master.api_key", "(hidden)", fmt.Sprintf("set together with master.api_key_file (%s)", file), "one of the two")
	}
}

// crossCheck finds settings that do not fit each other.
func (l *loader) crossCheck() {
	cfg := &l.loaded.Config
	checks := []struct {
		key, other string
		wrong      bool
		reason     string
		allowed    string
	}{
		{"master.cert", "master.key", cfg.Master.Cert != "" && cfg.Master.Key == "", "a certificate without its key", "master.cert and master.key together, or neither"},
		{"master.key", "master.cert", cfg.Master.Key != "" && cfg.Master.Cert == "", "a key without its certificate", "master.cert and master.key together, or neither"},
		{"heartbeat_interval", "master.unavailable_after", cfg.HeartbeatInterval >= cfg.Master.UnavailableAfter,
			"so rare that the master would give the node's jobs away", "less than " + l.describe("master.unavailable_after")},
		{"energy.cpu_max_watts", "energy.cpu_idle_watts", cfg.Energy.CPUMaxWatts > 0 && cfg.Energy.CPUMaxWatts < cfg.Energy.CPUIdleWatts,
			"less when busy than idle", "0 for unknown, or at least " + l.describe("energy.cpu_idle_watts")},
	}
	for _, c := range checks {
		if c.wrong && !l.bad[c.key] && !l.bad[c.other] {
			l.report(c.key, l.shownValue(c.key), c.reason, c.allowed)
		}
	}
	l.checkPorts()
}

// checkPorts finds two listeners on one port.
func (l *loader) checkPorts() {
	cfg := &l.loaded.Config
	taken := map[int]string{}
	for _, listener := range []struct {
		key  string
		on   bool
		port int
	}{
		{"metrics_port", cfg.MetricsPort != 0, cfg.MetricsPort},
		{"exporters.cpu.port", cfg.Exporters.CPU.Enabled, cfg.Exporters.CPU.Port},
		{"exporters.gpu.port", cfg.Exporters.GPU.Enabled, cfg.Exporters.GPU.Port},
		{"exporters.ffmpeg.port", cfg.Exporters.FFmpeg.Enabled, cfg.Exporters.FFmpeg.Port},
		{"exporters.docker.port", cfg.Exporters.Docker.Enabled, cfg.Exporters.Docker.Port},
	} {
		if !listener.on || l.bad[listener.key] {
			continue
		}
		if first, twice := taken[listener.port]; twice {
			l.report(listener.key, l.shownValue(listener.key), "the same port as "+l.describe(first), "a port of its own")
			continue
		}
		taken[listener.port] = listener.key
	}
}

func (l *loader) shownValue(path string) string {
	i := slices.IndexFunc(l.keys, func(k key) bool { return k.path == path })
	return l.keys[i].shown(l.settings[path].raw)
}

// describe names a key with its value and origin, for the problem of another.
func (l *loader) describe(path string) string {
	return fmt.Sprintf("%s %s (%s)", path, l.shownValue(path), l.settings[path].origin)
}

func (l *loader) warn() {
	if key := l.settings["master.api_key"]; key.origin.Kind == FromFlag && key.raw != "" {
		l.loaded.Warnings = append(l.loaded.Warnings, "--api-key can be seen by other users of this machine; MASTER_API_KEY or --api-key-file cannot")
	}
	if l.loaded.Config.Master.InsecureSkipVerify {
		l.loaded.Warnings = append(l.loaded.Warnings, fmt.Sprintf("the master's certificate is not verified (%s): whoever sits in between can read the key and hand out jobs", l.settings["master.insecure_skip_verify"].origin))
	}
}

// nested turns paths into the maps of maps that viper merges.
func nested(layer map[string]setting) map[string]any {
	root := map[string]any{}
	for path, s := range layer {
		names := strings.Split(path, ".")
		last := len(names) - 1
		at := root
		for _, name := range names[:last] {
			below, ok := at[name].(map[string]any)
			if !ok {
				below = map[string]any{}
				at[name] = below
			}
			at = below
		}
		at[names[last]] = s.raw
	}
	return root
}
