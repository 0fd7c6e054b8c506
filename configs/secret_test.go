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

func TestSecretIsNeverPrinted(t *testing.T) {
	l := mustLoad(t, source(t).withEnv("MASTER_API_KEY="+canary))
	if l.Config.Master.APIKey.Reveal() != canary {
		t.Fatalf("the key is %q", l.Config.Master.APIKey.Reveal())
	}
	for _, value := range []any{l, *l, l.Config, &l.Config, l.Config.Master, l.Config.Master.APIKey, &l.Config.Master.APIKey, l.Entries()} {
		for verb := rune('!'); verb <= 'z'; verb++ {
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "40", ".3"} {
				if text := fmt.Sprintf("%"+flags+string(verb), value); leaks(text) {
					t.Errorf("%%%s%c of %T shows the key: %s", flags, verb, value, text)
				}
			}
		}
		wrapped := "%w" // of what is no error
		if text := fmt.Errorf(wrapped, value).Error(); leaks(text) {
			t.Errorf("Errorf of %T shows the key: %s", value, text)
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
				t.Errorf("%s of %T shows the key: %s", name, value, text)
			}
			if !strings.Contains(string(text), Hidden) {
				t.Errorf("%s of %T does not say that a key is set: %s", name, value, text)
			}
		}
	}
}

// leaks looks for the canary as text and in the forms of %x and %d.
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

func TestSecretIsNeverInAnError(t *testing.T) {
	sources := map[string]Source{
		"bad key by flag":     source(t).withFlags(t, "--api-key", canary+" x"),
		"bad key by variable": source(t).withEnv("MASTER_API_KEY=" + canary + "\n"),
		"bad key in the file": source(t).withFile(t, "master: {api_key: '"+canary+" x'}"),
		"key twice":           source(t).withFile(t, "master: {api_key: a}\nmaster.api_key: "+canary),
		"key as a list":       source(t).withFile(t, "master: {api_key: ["+canary+"]}"),
		"key as a section":    source(t).withFile(t, "master: {api_key: {"+canary+": 1}}"),
		"key as an alias":     source(t).withFile(t, "master: {api_key: *"+canary+"}"),
		"misspelt key":        source(t).withFile(t, "master: {api_kee: "+canary+"}"),
		"misspelt variable":   source(t).withEnv("FFMPEG_AGENT_APIKEY=" + canary),
		"password in the URL": source(t).withFlags(t, "--master", "https://op:"+canary+"@host"),
		"password, bad URL":   source(t).withFlags(t, "--master", "https://op:"+canary+" %zz@host"),
		"key in a query":      source(t).withEnv("MASTER_URL=https://host/?key=" + canary),
	}
	for name, src := range sources {
		t.Run(name, func(t *testing.T) {
			_, err := Load(src)
			var wrong *Error
			if !errors.As(err, &wrong) {
				t.Fatalf("error %v, want an *Error", err)
			}
			if leaks(fmt.Sprintf("%v %+v %#v", err, wrong, wrong.Problems)) {
				t.Errorf("the secret is in %v", err)
			}
		})
	}
}

func TestSecretFlagIsNotShownByItsValue(t *testing.T) {
	src := source(t).withFlags(t, "--api-key", canary)
	if got := src.Flags.Lookup("api-key").Value.String(); got != Hidden {
		t.Errorf("the flag's value shows %q", got)
	}
	if usage := src.Flags.FlagUsages(); leaks(usage) {
		t.Errorf("usage shows the key:\n%s", usage)
	}
}

func TestReadSecretFile(t *testing.T) {
	tests := []struct{ name, content, want, wantErr string }{
		{"plain", canary, canary, ""},
		{"one line end", canary + "\n", canary, ""},
		{"one line end of DOS", canary + "\r\n", canary, ""},
		{"empty", "", "", "empty"},
		{"only a line end", "\n", "", "empty"},
		{"two line ends", canary + "\n\n", "", "more than one line"},
		{"two lines", canary + "\nx\n", "", "more than one line"},
		{"spaces", canary + " x\n", "", "has spaces"},
		{"not text", canary + "\xff\n", "", "has spaces or control characters"},
		{"largest", strings.Repeat("k", maxSecretBytes), strings.Repeat("k", maxSecretBytes), ""},
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
				t.Errorf("secret of %d bytes, want %d", len(got.Reveal()), len(test.want))
			}
			if test.wantErr == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.wantErr) || !strings.Contains(err.Error(), path) || leaks(err.Error()) {
				t.Errorf("error %v, want %q and the path", err, test.wantErr)
			}
		})
	}
	if _, err := ReadSecretFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestSecretEqual(t *testing.T) {
	if !NewSecret("a").Equal(NewSecret("a")) || NewSecret("a").Equal(NewSecret("b")) || !NewSecret("").Equal(Secret{}) || NewSecret("").IsSet() {
		t.Error("secrets do not compare by their text")
	}
}
