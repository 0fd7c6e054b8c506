package configs

import (
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/spf13/pflag"
)

// configFlag is the flag for the YAML file, the only flag without a key.
const configFlag = "config"

// BindFlags adds the agent's flags to fs. They accept any text: Load validates it, so
// that bad flags are reported together with all other problems and in the same form.
func BindFlags(fs *pflag.FlagSet) {
	for _, k := range schema() {
		if k.flag == "" {
			continue
		}
		f := fs.VarPF(&flagValue{text: k.def, typ: k.typ}, k.flag, "", k.help)
		if k.typ == reflect.TypeFor[bool]() {
			f.NoOptDefVal = "true"
		}
	}
	fs.VarPF(&flagValue{typ: reflect.TypeFor[string]()}, configFlag, "",
		"YAML (default "+DefaultFile+")")
	for name, typ := range legacyFlags {
		f := fs.VarPF(&flagValue{typ: typ}, name, "", "ignored")
		f.Hidden = true
		if typ == reflect.TypeFor[bool]() {
			f.NoOptDefVal = "true"
		}
	}
}

// legacyFlags are the flags of an older worker that have no meaning here, by name. They are
// accepted with any value, so that its start commands work, and reported in a warning.
var legacyFlags = map[string]reflect.Type{
	"skip-confirmation":         reflect.TypeFor[bool](),
	"enable-auto-attach":        reflect.TypeFor[bool](),
	"auto-attach-scan-interval": reflect.TypeFor[time.Duration](),
	"auto-attach-cpu-quota":     reflect.TypeFor[int](),
	"auto-attach-memory-limit":  reflect.TypeFor[int](),
}

// givenLegacyFlags returns the legacy flags on the command line, with their dashes.
func givenLegacyFlags(fs *pflag.FlagSet) []string {
	var given []string
	for _, name := range slices.Sorted(maps.Keys(legacyFlags)) {
		if _, ok := flagText(fs, name); ok {
			given = append(given, "--"+name)
		}
	}
	return given
}

// flagValue is a pflag.Value that keeps the given text.
type flagValue struct {
	text string
	typ  reflect.Type
}

var _ pflag.Value = (*flagValue)(nil)

func (v *flagValue) Set(text string) error { v.text = text; return nil }

// String hides a secret, because pflag prints flag values.
func (v *flagValue) String() string {
	if v.typ == reflect.TypeFor[Secret]() {
		return NewSecret(v.text).String()
	}
	return v.text
}

// Type returns the placeholder that --help prints after the flag's name.
func (v *flagValue) Type() string {
	switch v.typ {
	case reflect.TypeFor[bool]():
		return "bool"
	case reflect.TypeFor[int]():
		return "int"
	case reflect.TypeFor[time.Duration]():
		return "duration"
	}
	return "string"
}

// givenFlag implements viper.FlagValue.
type givenFlag struct{ name, text string }

func (f givenFlag) HasChanged() bool    { return true }
func (f givenFlag) Name() string        { return f.name }
func (f givenFlag) ValueString() string { return f.text }
func (f givenFlag) ValueType() string   { return "text" } // a type unknown to viper, so that it does not convert the value

// readFlags returns the keys that are set by flags. Relative paths are resolved
// against the working directory.
func readFlags(fs *pflag.FlagSet, keys []key) (map[string]setting, error) {
	given := map[string]setting{}
	for _, k := range keys {
		text, ok := flagText(fs, k.flag)
		if !ok {
			continue
		}
		if k.rule.path && text != "" {
			absolute, err := filepath.Abs(text)
			if err != nil {
				return nil, err
			}
			text = absolute
		}
		given[k.path] = setting{raw: text, origin: Origin{Kind: FromFlag, Name: k.flag}}
	}
	return given, nil
}

func flagText(fs *pflag.FlagSet, name string) (string, bool) {
	if fs == nil || name == "" {
		return "", false
	}
	f := fs.Lookup(name)
	if f == nil || !f.Changed {
		return "", false
	}
	if v, ok := f.Value.(*flagValue); ok {
		return v.text, true
	}
	return f.Value.String(), true
}
