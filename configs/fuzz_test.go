package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// FuzzLoadFile puts a secret below whatever the file holds: Load must not panic,
// must fail with an *Error only, and must show the secret nowhere.
func FuzzLoadFile(f *testing.F) {
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(example), "", "log: {level: loud}", "jobs:\n  timeout: 1", "a: &a [*a]", "? [x]\n: y", "- 1", "\t", "log:\n  level: \"",
		"register: !!binary x", "node: {labels: {a: 1, b: 2}}", "%YAML 9\n---\n", "<<: {a: b}", "log:\n  level: >\n    x\n", "x: *y", "\xff\xfe",
	} {
		f.Add([]byte(seed))
	}
	file := filepath.Join(f.TempDir(), "agent.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		data = append(data[:len(data):len(data)], "\nmaster:\n  api_key: \"!"+canary+"\"\n"...)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Load(Source{Environ: []string{"HOME=/home/op"}, File: file})
		if err == nil {
			if text := fmt.Sprintf("%+v %v", l, l.Entries()); leaks(text) {
				t.Errorf("the secret is in %s", text)
			}
			return
		}
		var wrong *Error
		if !errors.As(err, &wrong) || len(wrong.Problems) == 0 {
			t.Fatalf("error %v of type %T", err, err)
		}
		if leaks(err.Error()) {
			t.Errorf("the secret is in %v", err)
		}
	})
}
