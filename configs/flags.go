package configs

import (
	"path/filepath"
	"reflect"
	"time"

	"github.com/spf13/pflag"
)

// configFlag names the YAML file; it is the one flag that is no key.
const configFlag = "config"

// BindFlags defines the agent's flags. They take any text: Load checks it, so
// that a bad flag is reported like any other bad setting and with all of them.
func BindFlags(fs *pflag.FlagSet) {
	for _, k := range schema() {
		if k.flag == "" {
			continue
		}
		shown := k.def
		if k.secret() {
			shown = ""
		}
		f := fs.VarPF(&flagValue{text: shown, typ: k.typ}, k.flag, "", k.help)
		if k.typ == reflect.TypeFor[bool]() {
			f.NoOptDefVal = "true"
		}
	}
	fs.VarPF(&flagValue{typ: reflect.TypeFor[string]()}, configFlag, "",
		"YAML `file` (default "+DefaultFile+", if present)")
}

// flagValue is a pflag.Value that keeps the text as it was given.
type flagValue struct {
	text string
	typ  reflect.Type
}

var _ pflag.Value = (*flagValue)(nil)

func (v *flagValue) Set(text string) error { v.text = text; return nil }

// String hides a secret, for flags are printed.
func (v *flagValue) String() string {
	if v.typ == reflect.TypeFor[Secret]() {
		return NewSecret(v.text).String()
	}
	return v.text
}

// Type is what --help shows behind the flag's name.
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

// givenFlag is a flag as viper reads it.
type givenFlag struct{ name, text string }

func (f givenFlag) HasChanged() bool    { return true }
func (f givenFlag) Name() string        { return f.name }
func (f givenFlag) ValueString() string { return f.text }
func (f givenFlag) ValueType() string   { return "text" } // viper returns it as it is

// readFlags returns the keys that flags set. A relative path is made absolute: on
// the command line it is meant from the working directory.
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
