package configs

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const exampleFile = "agent.example.yaml"

func TestExampleFileMatchesDefaults(t *testing.T) {
	src := machine(t)
	defaults := mustLoad(t, src)
	src.DefaultFile = exampleFile
	example := mustLoad(t, src)
	if diff := cmp.Diff(defaults.Config, example.Config, cmp.AllowUnexported(Size{})); diff != "" {
		t.Errorf("%s differs from the defaults (-default +example):\n%s", exampleFile, diff)
	}
}

// Operators use the example file as reference, so it must set every key, in the order of Config.
func TestExampleFileHasEveryKey(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	given, problems := readYAML(exampleFile, data, schema())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var want, got []string
	for _, k := range schema() {
		want = append(want, k.path)
	}
	for path := range given {
		got = append(got, path)
	}
	slices.SortFunc(got, func(a, b string) int { return given[a].origin.Line - given[b].origin.Line })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys of %s (-config +example):\n%s", exampleFile, diff)
	}
}

func TestDefaultsAreUnresolvedAndValid(t *testing.T) {
	cfg := Defaults()
	if cfg.DataDir != "auto" || cfg.Node.Address != "auto" || cfg.Control.Socket != "auto" {
		t.Errorf("data_dir %s, node.address %s, control.socket %s; want auto", cfg.DataDir, cfg.Node.Address, cfg.Control.Socket)
	}
	for _, k := range schema() {
		if err := k.rule.check(k.get(&cfg)); err != nil {
			t.Errorf("default of %s is invalid: %v", k.path, err)
		}
	}
}
