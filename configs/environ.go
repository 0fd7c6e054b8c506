package configs

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// readEnviron returns the keys that are set by environment variables, and a problem
// for each unknown variable with the agent's prefix. An empty variable counts as unset.
func readEnviron(environ map[string]string, keys []key) (map[string]setting, []Problem) {
	given := map[string]setting{}
	known := map[string]bool{envPrefix + "CONFIG": true}
	var paths []string
	for _, k := range keys {
		paths = append(paths, k.path)
		for _, name := range k.envs {
			known[name] = true
			_, set := given[k.path]
			if text := environ[name]; text != "" && !set {
				given[k.path] = setting{raw: text, origin: Origin{Kind: FromEnvironment, Name: name}}
			}
		}
		_, set := given[k.path]
		if text := environ[k.legacy]; text != "" && !set && !isServiceLink(k, text) {
			given[k.path] = setting{raw: text, origin: Origin{Kind: FromLegacyEnvironment, Name: k.legacy}}
		}
	}
	var problems []Problem
	for _, name := range slices.Sorted(maps.Keys(environ)) {
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours || known[name] || environ[name] == "" {
			continue
		}
		p := Problem{Key: name, Origin: Origin{Kind: FromEnvironment, Name: name}, Reason: "unknown variable", Allowed: knownKeys}
		if !isPlainWord(name) {
			p.Key, p.Origin.Name = envPrefix+"…", envPrefix+"…"
		} else if path := nearest(rest, paths); path != "" {
			p.Reason += "; did you mean " + envName(path) + "?"
		}
		problems = append(problems, p)
	}
	return given, problems
}

// isServiceLink reports whether a variable such as CPU_EXPORTER_PORT is the address that
// Kubernetes and Docker put into it, tcp://HOST:PORT, where a service has the name
// cpu-exporter.
func isServiceLink(k key, text string) bool {
	return k.typ == reflect.TypeFor[int]() && strings.Contains(text, "://")
}

// environMap turns a list of NAME=value into a map.
func environMap(environ []string) map[string]string {
	vars := map[string]string{}
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok {
			vars[name] = value
		}
	}
	return vars
}
