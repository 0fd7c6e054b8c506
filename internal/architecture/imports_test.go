// Package architecture tests that packages import only what their layer allows.
package architecture

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "ffmpeg-agent"

// allowed lists the packages of this module that each package may import. A package that is
// not listed may import none; "..." matches everything below a path.
var allowed = map[string][]string{
	"cmd/...": {"..."},

	"actors":                     {"actors/supervision", "messages", "messages/job", "messages/protocol", "hardware/energy"},
	"exporters/...":              {"internal/safetext", "messages", "messages/job", "messages/protocol", "hardware/energy"},
	"internal/fetch":             {"internal/safetext", "internal/hls", "internal/reach", "messages", "messages/job", "messages/protocol"},
	"internal/ffmpeg":            {"internal/safetext", "internal/fetch", "internal/reach", "messages", "messages/job", "messages/protocol", "hardware/energy", "hardware/proc"},
	"internal/journal":           {"messages", "messages/job", "messages/protocol", "hardware/energy", "hardware/proc"},
	"internal/master":            {"internal/safetext", "messages", "messages/job", "messages/protocol", "hardware/energy"},
	"internal/control":           {"messages", "messages/job", "messages/protocol", "hardware/energy"},
	"internal/docker":            {"messages", "messages/job", "messages/protocol", "hardware/energy"},
	"internal/report":            {"internal/safetext", "messages", "messages/job", "messages/protocol", "hardware/energy"},
	"internal/traces":            {"internal/safetext", "messages/job"},
	"internal/devmaster":         {"messages/protocol"},
	"internal/chaos":             {"messages/protocol", "hardware/fakehw"},
	"internal/ffmpegtest":        {},
	"internal/ffmpegtest/helper": {"hardware/proc"},
	"internal/mounttest":         {},

	"messages":     {"messages/job", "messages/protocol", "hardware/energy"},
	"messages/job": {"internal/safetext", "messages/protocol", "hardware/energy"},

	"hardware":           {"hardware/energy", "hardware/proc"},
	"hardware/fakehw":    {},
	"hardware/energy":    {},
	"hardware/proc":      {},
	"configs":            {},
	"internal/hls":       {},
	"internal/safetext":  {},
	"internal/datadir":   {},
	"internal/reach":     {"internal/hls"},
	"messages/protocol":  {},
	"actors/supervision": {},
}

// restricted lists the packages that may import an external module, or C.
var restricted = map[string][]string{
	"github.com/asynkron/protoactor-go": {"actors", "actors/supervision"},
	"github.com/NVIDIA/go-nvml":         {"hardware"},
	"github.com/moby/moby":              {"internal/docker"},
	"C":                                 {"hardware"},
}

// pkg is the output of `go list` for a package.
type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func TestImportsRunDownward(t *testing.T) {
	for _, violation := range violations(list(t)) {
		t.Error(violation)
	}
}

func TestViolationsAreFound(t *testing.T) {
	for name, test := range map[string]struct {
		pkg  pkg
		want int
	}{
		"allowed":                   {pkg{ImportPath: module + "/actors", Imports: []string{module + "/messages", "time"}}, 0},
		"command imports all":       {pkg{ImportPath: module + "/cmd/agent", Imports: []string{module + "/actors", module + "/internal/master"}}, 0},
		"upward":                    {pkg{ImportPath: module + "/messages", Imports: []string{module + "/actors"}}, 1},
		"sideways":                  {pkg{ImportPath: module + "/internal/master", Imports: []string{module + "/internal/journal"}}, 1},
		"unlisted package":          {pkg{ImportPath: module + "/internal/new", Imports: []string{module + "/messages"}}, 1},
		"protoactor, not allowed":   {pkg{ImportPath: module + "/internal/ffmpeg", Imports: []string{"github.com/asynkron/protoactor-go/actor"}}, 1},
		"protoactor, allowed":       {pkg{ImportPath: module + "/actors", Imports: []string{"github.com/asynkron/protoactor-go/actor"}}, 0},
		"cgo, not allowed":          {pkg{ImportPath: module + "/cmd/agent", Imports: []string{"C"}}, 1},
		"package of another module": {pkg{ImportPath: "example.org/x", Imports: []string{"C"}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := violations([]pkg{test.pkg}); len(got) != test.want {
				t.Errorf("got %d violations %q, want %d", len(got), got, test.want)
			}
		})
	}
}

func violations(packages []pkg) []string {
	var found []string
	for _, p := range packages {
		own, ours := ownPath(p.ImportPath)
		if !ours {
			continue
		}
		for _, imported := range p.Imports {
			if target, ours := ownPath(imported); ours {
				if !matches(mayImport(own), target) {
					found = append(found, fmt.Sprintf("%s must not import %s", own, target))
				}
				continue
			}
			for prefix, only := range restricted {
				if (imported == prefix || strings.HasPrefix(imported, prefix+"/")) && !slices.Contains(only, own) {
					found = append(found, fmt.Sprintf("%s must not import %s; only %s may", own, imported, strings.Join(only, ", ")))
				}
			}
		}
	}
	return found
}

func ownPath(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/")
}

func mayImport(own string) []string {
	for pattern, list := range allowed {
		if matches([]string{pattern}, own) {
			return list
		}
	}
	return nil
}

func matches(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		prefix, wild := strings.CutSuffix(pattern, "...")
		return path == pattern || (wild && strings.HasPrefix(path+"/", prefix))
	})
}

// list returns the packages of this module and all their dependencies.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Standard", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []pkg
	own := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("reading go list: %v", err)
		}
		if _, ours := ownPath(p.ImportPath); ours {
			own++
		}
		packages = append(packages, p)
	}
	if own < len(allowed)/2 {
		t.Fatalf("got %d packages of this module from go list, want at least %d", own, len(allowed)/2)
	}
	return packages
}
