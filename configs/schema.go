package configs

import (
	"reflect"
	"strings"
)

// envPrefix begins the environment variable of every key.
const envPrefix = "FFMPEG_AGENT_"

// A key is one row of the table that Config's struct tags make.
type key struct {
	path  string   // "master.url"
	envs  []string // the variables that set it, the strongest first
	flag  string   // "master", or "" where there is none
	help  string
	def   string // as text
	typ   reflect.Type
	index []int // of the field in Config
	rule  rule
}

func (k key) secret() bool { return k.typ == reflect.TypeFor[Secret]() }

func (k key) set(cfg *Config, v any) {
	reflect.ValueOf(cfg).Elem().FieldByIndex(k.index).Set(reflect.ValueOf(v))
}

func (k key) get(cfg *Config) any {
	return reflect.ValueOf(cfg).Elem().FieldByIndex(k.index).Interface()
}

// schema returns every key in the order of Config's fields.
func schema() []key { return keysOf(reflect.TypeFor[Config](), "", nil) }

func keysOf(t reflect.Type, prefix string, index []int) []key {
	var keys []key
	for i := range t.NumField() {
		f := t.Field(i)
		path := prefix + f.Tag.Get("key")
		at := append(index[:len(index):len(index)], i)
		if _, leaf := f.Tag.Lookup("default"); !leaf {
			keys = append(keys, keysOf(f.Type, path+".", at)...)
			continue
		}
		k := key{
			path: path, envs: []string{envName(path)},
			flag: f.Tag.Get("flag"), help: f.Tag.Get("help"), def: f.Tag.Get("default"),
			typ: f.Type, index: at,
		}
		if alias := f.Tag.Get("alias"); alias != "" {
			k.envs = append(k.envs, alias)
		}
		k.rule = ruleFor(f.Type, f.Tag.Get("allow"), k.def)
		keys = append(keys, k)
	}
	return keys
}

func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// sectionsOf returns the paths that have keys below them: "exporters", "exporters.cpu".
func sectionsOf(keys []key) []string {
	var sections []string
	seen := map[string]bool{}
	for _, k := range keys {
		for i, c := range k.path {
			if c == '.' && !seen[k.path[:i]] {
				seen[k.path[:i]] = true
				sections = append(sections, k.path[:i])
			}
		}
	}
	return sections
}
