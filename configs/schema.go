package configs

import (
	"reflect"
	"strings"
)

// envPrefix is the prefix of every key's environment variable.
const envPrefix = "FFMPEG_AGENT_"

// A key is one setting, as described by the struct tags of a Config field.
type key struct {
	path string   // "master.url"
	envs []string // environment variables, highest precedence first
	// legacy is the environment variable of an older worker, weaker than envs; "" if none.
	legacy string
	flag   string // "master", or "" if the key has no flag
	help   string
	def    string // as text
	live   bool   // takes effect by a reload
	typ    reflect.Type
	index  []int // path of field indices in Config
	rule   rule
}

func (k key) secret() bool { return k.typ == reflect.TypeFor[Secret]() }

func (k key) set(cfg *Config, v any) {
	reflect.ValueOf(cfg).Elem().FieldByIndex(k.index).Set(reflect.ValueOf(v))
}

func (k key) get(cfg *Config) any {
	return reflect.ValueOf(cfg).Elem().FieldByIndex(k.index).Interface()
}

// schema returns every key in the order of Config's fields.
func schema() []key { return keysOf(reflect.TypeFor[Config](), "", "", nil) }

// keysOf returns the keys of the struct type t. section holds the tags of the field
// whose type t is.
func keysOf(t reflect.Type, section reflect.StructTag, prefix string, index []int) []key {
	var keys []key
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("key")
		path := prefix + name
		at := append(index[:len(index):len(index)], i)
		def, leaf := f.Tag.Lookup("default")
		if !leaf {
			keys = append(keys, keysOf(f.Type, f.Tag, path+".", at)...)
			continue
		}
		if own, ok := section.Lookup("default." + name); ok {
			def = own
		}
		legacy, ok := section.Lookup("legacy." + name)
		if !ok {
			legacy = f.Tag.Get("legacy")
		}
		k := key{
			path: path, envs: []string{envName(path)}, legacy: legacy,
			flag: f.Tag.Get("flag"), help: f.Tag.Get("help"), def: def,
			typ: f.Type, index: at,
		}
		_, k.live = f.Tag.Lookup("live")
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

// sectionsOf returns the paths of all sections: "exporters", "exporters.cpu", …
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
