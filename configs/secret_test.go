package configs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"
)

const canary = "hunter2-Tr0ub4dor"

func TestSecretIsHiddenInOutput(t *testing.T) {
	l := mustLoad(t, machine(t).withEnv("MASTER_API_KEY="+canary))
	if l.Config.Master.APIKey.Reveal() != canary {
		t.Fatalf("got key %q, want %q", l.Config.Master.APIKey.Reveal(), canary)
	}
	for _, value := range []any{l, *l, l.Config, &l.Config, l.Config.Master, l.Config.Master.APIKey, &l.Config.Master.APIKey, l.Entries()} {
		for verb := rune('!'); verb <= 'z'; verb++ {
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "40", ".3"} {
				if text := fmt.Sprintf("%"+flags+string(verb), value); leaks(text) {
					t.Errorf("%%%s%c of %T leaks the key: %s", flags, verb, value, text)
				}
			}
		}
		wrap := "%w" // a variable, because vet rejects a constant %w of a non-error
		if text := fmt.Errorf(wrap, value).Error(); leaks(text) {
			t.Errorf("Errorf of %T leaks the key: %s", value, text)
		}
		encoded := map[string]func() ([]byte, error){
			"JSON": func() ([]byte, error) { return json.Marshal(value) },
			"YAML": func() ([]byte, error) { return yaml.Marshal(value) },
			"zap":  func() ([]byte, error) { return zapLine(value) },
		}
		for name, encode := range encoded {
			text, err := encode()
			if err != nil {
				t.Errorf("%s of %T: %v", name, value, err)
			}
			if leaks(string(text)) {
				t.Errorf("%s of %T leaks the key: %s", name, value, text)
			}
			if !strings.Contains(string(text), Hidden) {
				t.Errorf("%s of %T lacks %q: %s", name, value, Hidden, text)
			}
		}
	}
}

// leaks reports whether text contains the canary in plain, %x or %d form.
func leaks(text string) bool {
	hex := fmt.Sprintf("%x", canary)
	return strings.Contains(text, canary) || strings.Contains(strings.ToLower(text), hex) || strings.Contains(text, "104 117 110 116")
}

func zapLine(value any) ([]byte, error) {
	var buf bytes.Buffer
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), zapcore.AddSync(&buf), zap.DebugLevel)
	zap.New(core).Info("x", zap.Any("value", value))
	return buf.Bytes(), nil
}

func TestSecretIsHiddenInErrors(t *testing.T) {
	sources := map[string]Source{
		"bad key by flag":     machine(t).withFlags(t, "--api-key", canary+" x"),
		"bad key by variable": machine(t).withEnv("MASTER_API_KEY=" + canary + "\n"),
		"bad key in the file": machine(t).withFile(t, "master: {api_key: '"+canary+" x'}"),
		"key twice":           machine(t).withFile(t, "master: {api_key: a}\nmaster.api_key: "+canary),
		"key as a list":       machine(t).withFile(t, "master: {api_key: ["+canary+"]}"),
		"key as a section":    machine(t).withFile(t, "master: {api_key: {"+canary+": 1}}"),
		"key as an alias":     machine(t).withFile(t, "master: {api_key: *"+canary+"}"),
		"misspelt key":        machine(t).withFile(t, "master: {api_kee: "+canary+"}"),
		"misspelt variable":   machine(t).withEnv("FFMPEG_AGENT_APIKEY=" + canary),
		"password in the URL": machine(t).withFlags(t, "--master", "https://op:"+canary+"@host"),
		"password, bad URL":   machine(t).withFlags(t, "--master", "https://op:"+canary+" %zz@host"),
		"key in a query":      machine(t).withEnv("MASTER_URL=https://host/?key=" + canary),
	}
	for name, src := range sources {
		t.Run(name, func(t *testing.T) {
			_, err := Load(src)
			var invalid *Error
			if !errors.As(err, &invalid) {
				t.Fatalf("got error %v, want an *Error", err)
			}
			if leaks(fmt.Sprintf("%v %+v %#v", err, invalid, invalid.Problems)) {
				t.Errorf("secret leaked: %v", err)
			}
		})
	}
}

func TestSecretFlagIsHidden(t *testing.T) {
	src := machine(t).withFlags(t, "--api-key", canary)
	if got := src.Flags.Lookup("api-key").Value.String(); got != Hidden {
		t.Errorf("got flag value %q, want %q", got, Hidden)
	}
	if usage := src.Flags.FlagUsages(); leaks(usage) {
		t.Errorf("usage leaks the key:\n%s", usage)
	}
}

func TestReadSecretFile(t *testing.T) {
	tests := []struct{ name, content, want, wantErr string }{
		{"plain", canary, canary, ""},
		{"newline", canary + "\n", canary, ""},
		{"CRLF", canary + "\r\n", canary, ""},
		{"empty", "", "", "empty"},
		{"only a newline", "\n", "", "empty"},
		{"two newlines", canary + "\n\n", "", "more than one line"},
		{"two lines", canary + "\nx\n", "", "more than one line"},
		{"spaces", canary + " x\n", "", "contains spaces"},
		{"invalid UTF-8", canary + "\xff\n", "", "contains spaces or control characters"},
		{"maximum size", strings.Repeat("k", maxSecretBytes), strings.Repeat("k", maxSecretBytes), ""},
		{"too large", strings.Repeat("k", maxSecretBytes+1), "", "larger than 64 KiB"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ReadSecretFile(path)
			if got.Reveal() != test.want {
				t.Errorf("got a secret of %d bytes, want %d", len(got.Reveal()), len(test.want))
			}
			if test.wantErr == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.wantErr) || leaks(err.Error()) {
				t.Errorf("got error %v, want %q", err, test.wantErr)
			}
		})
	}
	if _, err := ReadSecretFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got error %v, want os.ErrNotExist", err)
	}
}

func TestSecretEqual(t *testing.T) {
	tests := []struct {
		a, b Secret
		want bool
	}{
		{NewSecret("a"), NewSecret("a"), true},
		{NewSecret("a"), NewSecret("b"), false},
		{NewSecret(""), Secret{}, true},
	}
	for _, test := range tests {
		if got := test.a.Equal(test.b); got != test.want {
			t.Errorf("%q equal to %q: got %v, want %v", test.a.Reveal(), test.b.Reveal(), got, test.want)
		}
	}
}
