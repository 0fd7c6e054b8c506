package configs

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// DefaultFile is read if neither --config nor FFMPEG_AGENT_CONFIG is set. It may be missing.
const DefaultFile = "/etc/ffmpeg-agent/agent.yaml"

// SystemDataDir is the data directory of an agent that is a service of the system.
const SystemDataDir = "/var/lib/ffmpeg-agent"

// Source holds the inputs of Load.
type Source struct {
	Environ       []string               // NAME=value, as returned by os.Environ
	Flags         *pflag.FlagSet         // parsed, after BindFlags; nil for none
	DefaultFile   string                 // overrides the constant DefaultFile
	SystemDataDir string                 // overrides the constant SystemDataDir
	IsRoot        func() bool            // nil checks the effective user ID
	Hostname      func() (string, error) // nil means os.Hostname
	Container     func() Container       // nil looks for the marks of container engines and Kubernetes
}

// Loaded is a valid configuration and the origin of its values.
type Loaded struct {
	Config   Config
	Origins  map[string]Origin // by key
	Warnings []string          // to log at every start
	File     string            // path of the file read, "" for none
}

// ConfigFile returns the path of the configuration file, which may be missing; "" for none.
func (s Source) ConfigFile() string {
	l := &loader{src: s, environ: environMap(s.Environ)}
	path, _, _ := l.configFile()
	return path
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
		return nil, &Error{Problems: l.problems, Config: l.loaded.Config}
	}
	l.warn()
	loaded := l.loaded // a copy, so that the loader and its plain-text secrets can be freed
	return &loaded, nil
}

// FromFile returns how many keys the configuration file sets.
func (l *Loaded) FromFile() (n int) {
	for _, origin := range l.Origins {
		if origin.Kind == FromFile {
			n++
		}
	}
	return n
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
