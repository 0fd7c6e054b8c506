package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes is the maximum size of a configuration file.
const maxFileBytes = 1 << 20

// readFile returns the file's content. exists is false only if there is no such file.
func readFile(path string) (data []byte, exists bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, errors.New("does not exist")
	}
	if err != nil {
		return nil, true, fmt.Errorf("could not read it: %w", withoutPath(err))
	}
	defer f.Close()
	data, err = io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, true, fmt.Errorf("could not read it: %w", withoutPath(err))
	case len(data) > maxFileBytes:
		return nil, true, errors.New("larger than 1 MiB")
	}
	return data, true, nil
}

// fileReader reads a YAML document. It works on the node tree because decoding into
// Go values loses line numbers, duplicate keys and the literal text of scalars (an
// api_key of 0123 would become 83).
type fileReader struct {
	path     string
	keys     map[string]key
	paths    []string
	sections []string
	seen     map[string]int // line by key path
	given    map[string]setting
	problems []Problem
}

// readYAML returns the keys that are set in a file. A key without a value counts as unset.
func readYAML(path string, data []byte, keys []key) (map[string]setting, []Problem) {
	r := &fileReader{path: path, keys: map[string]key{}, sections: sectionsOf(keys), seen: map[string]int{}, given: map[string]setting{}}
	for _, k := range keys {
		r.keys[k.path] = k
		r.paths = append(r.paths, k.path)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	err := decoder.Decode(&document)
	if err == nil {
		err = decoder.Decode(&yaml.Node{})
		if err == nil {
			err = errors.New("more than one document")
		}
	}
	switch {
	case !errors.Is(err, io.EOF):
		r.syntax(err)
	case len(document.Content) > 0:
		r.section("", document.Content[0])
	}
	return r.given, r.problems
}

var syntaxError = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(.*)$`)

// syntax reports YAML that does not parse. It keeps the parser's message, except for
// the one that quotes the file, which may contain a secret.
func (r *fileReader) syntax(err error) {
	line, message := 0, err.Error()
	if m := syntaxError.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = m[2]
	}
	if strings.Contains(message, "anchor") {
		message = "alias (*name) to an undefined anchor"
	}
	r.problem("", "", line, "not valid YAML: "+message, "")
}

func (r *fileReader) problem(path, value string, line int, reason, allowed string) {
	r.problems = append(r.problems, Problem{
		Key: path, Value: value, Reason: reason, Allowed: allowed,
		Origin: Origin{Kind: FromFile, Name: r.path, Line: line},
	})
}

// section reads a mapping; prefix is its path with a trailing dot, or "" at the top level.
func (r *fileReader) section(prefix string, n *yaml.Node) {
	n = resolved(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.problem(strings.TrimSuffix(prefix, "."), "", n.Line, kindName(n)+" instead of a section", "one \"key: value\" per line, all with the same indentation")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := resolved(n.Content[i])
		if name.Kind != yaml.ScalarNode || !isPlainWord(name.Value) {
			r.problem(strings.TrimSuffix(prefix, "."), "", name.Line, "key is not a plain word", "")
			continue
		}
		r.entry(prefix+name.Value, name.Line, resolved(n.Content[i+1]))
	}
}

// entry reads one key of a section.
func (r *fileReader) entry(path string, line int, n *yaml.Node) {
	if first, twice := r.seen[path]; twice {
		r.problem(path, "", line, fmt.Sprintf("duplicate key, first set in line %d", first), "")
		return
	}
	r.seen[path] = line
	if k, ok := r.keys[path]; ok {
		r.value(k, line, n)
		return
	}
	if slices.Contains(r.sections, path) {
		r.section(path+".", n)
		return
	}
	candidates := r.paths
	if n.Kind == yaml.MappingNode {
		candidates = r.sections
	}
	reason := "unknown key"
	if near := nearest(path, candidates); near != "" {
		reason += "; did you mean " + near + "?"
	}
	r.problem(path, "", line, reason, knownKeys)
}

// value reads the value of a key: a string, or []string for a list or labels.
func (r *fileReader) value(k key, line int, n *yaml.Node) {
	var raw any
	var ok bool
	switch {
	case isNull(n):
		return
	case n.Kind == yaml.ScalarNode:
		raw, ok = n.Value, true
	case n.Kind == yaml.SequenceNode && k.typ == reflect.TypeFor[[]string]():
		raw, ok = texts(n, 1)
	case n.Kind == yaml.MappingNode && k.typ == reflect.TypeFor[Labels]():
		raw, ok = labelTexts(n)
	default:
		r.problem(k.path, "", line, "cannot be "+kindName(n), k.rule.allowed)
		return
	}
	if !ok {
		r.problem(k.path, "", line, "has an element that is not a scalar", k.rule.allowed)
		return
	}
	r.given[k.path] = setting{raw: raw, origin: Origin{Kind: FromFile, Name: r.path, Line: line}}
}

// texts returns every step-th child of a node. ok is false if one is not a scalar.
func texts(n *yaml.Node, step int) (items []string, ok bool) {
	items = []string{}
	for i := 0; i < len(n.Content); i += step {
		item := resolved(n.Content[i])
		if item.Kind != yaml.ScalarNode || isNull(item) {
			return nil, false
		}
		items = append(items, item.Value)
	}
	return items, true
}

// labelTexts returns a mapping as a list of name=value.
func labelTexts(n *yaml.Node) ([]string, bool) {
	names, ok := texts(n, 2)
	for i, name := range names {
		value := resolved(n.Content[2*i+1])
		if value.Kind != yaml.ScalarNode || isNull(value) || strings.Contains(name, "=") {
			return nil, false
		}
		names[i] = name + "=" + value.Value
	}
	return names, ok
}

// resolved follows an alias. Cycles are harmless: reading goes no deeper than the
// known keys.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	}
	return "a scalar"
}
