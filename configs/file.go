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
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes is the largest configuration file that is read.
const maxFileBytes = 1 << 20

// readFile returns what is in the file, and "not there" apart from other errors.
func readFile(path string) (data []byte, there bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, errors.New("does not exist")
	}
	if err != nil {
		return nil, true, fmt.Errorf("cannot be read: %w", bare(err))
	}
	defer f.Close()
	data, err = io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, true, fmt.Errorf("cannot be read: %w", bare(err))
	case len(data) > maxFileBytes:
		return nil, true, errors.New("is larger than 1 MiB")
	}
	return data, true, nil
}

// fileReader walks a YAML document along the keys there are. It works on the node
// tree because nothing later knows lines, duplicates and values as written
// (an api_key of 0123 is not 83).
type fileReader struct {
	path     string
	leaves   map[string]key
	paths    []string
	sections []string
	seen     map[string]int // path → line
	given    map[string]setting
	problems []Problem
}

// readYAML returns the keys that a file sets. A key without a value counts as not set.
func readYAML(path string, data []byte, keys []key) (map[string]setting, []Problem) {
	r := &fileReader{path: path, leaves: map[string]key{}, sections: sectionsOf(keys), seen: map[string]int{}, given: map[string]setting{}}
	for _, k := range keys {
		r.leaves[k.path] = k
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

// syntax reports YAML that does not parse. The parser's words are kept but for
// those that repeat what is in the file.
func (r *fileReader) syntax(err error) {
	line, words := 0, err.Error()
	if m := syntaxError.FindStringSubmatch(words); m != nil {
		line, _ = strconv.Atoi(m[1])
		words = m[2]
	}
	if strings.Contains(words, "anchor") {
		words = "an alias (*name) to an anchor that is not there"
	}
	r.problem("", "", line, "not valid YAML: "+words, "")
}

func (r *fileReader) problem(path, value string, line int, reason, allowed string) {
	r.problems = append(r.problems, Problem{
		Key: path, Value: value, Reason: reason, Allowed: allowed,
		Origin: Origin{Kind: FromFile, Name: r.path, Line: line},
	})
}

// section reads a mapping of keys; prefix is "" or "master.".
func (r *fileReader) section(prefix string, n *yaml.Node) {
	n = resolved(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.problem(strings.TrimSuffix(prefix, "."), "", n.Line, kindName(n)+" where a section with keys is expected", "key: value, one a line and indented alike")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := resolved(n.Content[i])
		if name.Kind != yaml.ScalarNode || !nameable(name.Value) {
			r.problem(strings.TrimSuffix(prefix, "."), "", name.Line, "has a key that is not a plain word", "")
			continue
		}
		r.entry(prefix+name.Value, name.Line, resolved(n.Content[i+1]))
	}
}

// entry reads one key of a section.
func (r *fileReader) entry(path string, line int, n *yaml.Node) {
	if first, twice := r.seen[path]; twice {
		r.problem(path, "", line, fmt.Sprintf("is in the file twice, first in line %d", first), "")
		return
	}
	r.seen[path] = line
	if k, ok := r.leaves[path]; ok {
		r.leaf(k, line, n)
		return
	}
	for _, section := range r.sections {
		if path == section {
			r.section(path+".", n)
			return
		}
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

// leaf reads the value of a key as text, or as a list where the key has one.
func (r *fileReader) leaf(k key, line int, n *yaml.Node) {
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
		r.problem(k.path, "", line, kindName(n)+" is not expected here", k.rule.allowed)
		return
	}
	if !ok {
		r.problem(k.path, "", line, "has an element that is not a single value", k.rule.allowed)
		return
	}
	r.given[k.path] = setting{raw: raw, origin: Origin{Kind: FromFile, Name: r.path, Line: line}}
}

// texts returns every step'th child of a node, which have to be scalars.
func texts(n *yaml.Node, step int) ([]string, bool) {
	items := []string{}
	for i := 0; i < len(n.Content); i += step {
		item := resolved(n.Content[i])
		if item.Kind != yaml.ScalarNode || isNull(item) {
			return nil, false
		}
		items = append(items, item.Value)
	}
	return items, true
}

// labelTexts returns a mapping as name=value.
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

// resolved follows an alias. Cycles do no harm: a walk goes as deep as the keys do.
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
	return "a single value"
}
