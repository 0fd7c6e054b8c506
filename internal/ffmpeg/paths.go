package ffmpeg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// protocolName: what FFmpeg would take for a protocol and not for a path, options
// before the colon included (subfile,,start,0,end,9,,:x).
var protocolName = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*)(,[^/]*)?:`)

// place is where the job's files lie once links are resolved.
type place struct {
	input   source
	local   string   // the input's path; empty: over the network, or synthetic
	targets []target // one for each rendition
}

// target is one output's way: written under a temporary name beside its final one,
// and renamed when it was checked.
type target struct {
	final string // empty: a stream
	temp  string
	kept  bool // stays when the workspace goes
	url   string
}

// places finds out where a plan's files lie, and refuses those that lie where they
// must not. It changes nothing.
type places struct {
	settings  Settings
	workspace string
	name      string // of the attempt, as a file's name
	problems  []string
}

func (s *places) problem(name, format string, args ...any) {
	s.problems = append(s.problems, name+": "+fmt.Sprintf(format, args...))
}

// find places input and outputs. bad is set for an input that cannot be read, which
// counts only when there are no problems.
func (s *places) find(p *plan) (pl place, bad *messages.Failure) {
	if p.input != "" {
		pl.input, pl.local, bad = s.input(p.input)
	} else if !s.settings.GenerateInput {
		s.problem("input", "absent, and this node generates none")
	}
	for i, r := range p.renditions {
		t := s.target(r, i, len(p.renditions) > 1)
		if t.final != "" {
			s.clash(t, pl)
		}
		pl.targets = append(pl.targets, t)
	}
	return pl, bad
}

func (s *places) input(given string) (src source, local string, bad *messages.Failure) {
	if m := protocolName.FindStringSubmatch(given); m != nil {
		scheme := strings.ToLower(m[1])
		if m[2] != "" || !slices.Contains(s.settings.InputProtocols, scheme) {
			s.problem("input", "protocol %s is not one of %s", show(m[1]+m[2]), strings.Join(s.settings.InputProtocols, ", "))
			return source{}, "", nil
		}
		if scheme != "file" {
			return s.remote(given, scheme), "", nil
		}
		given = strings.TrimPrefix(given[len("file:"):], "//")
	} else if !slices.Contains(s.settings.InputProtocols, "file") {
		s.problem("input", "protocol file is not one of %s", strings.Join(s.settings.InputProtocols, ", "))
		return source{}, "", nil
	}
	return s.localInput(given)
}

// tunnels are the protocols that one of ours is made of.
var tunnels = map[string][]string{
	"http": {"http", "tcp"}, "https": {"https", "http", "tls", "tcp"}, "rtmp": {"rtmp", "tcp"}, "rtmps": {"rtmps", "rtmp", "tls", "tcp"}, "srt": {"srt", "udp"},
}

func (s *places) remote(given, scheme string) source {
	u, err := parseURL(given)
	if err != nil {
		masked, _ := maskURL(given)
		s.problem("input", "%s is %v", show(masked), err)
		return source{}
	}
	protocols := tunnels[scheme]
	if protocols == nil {
		protocols = []string{scheme, "tcp", "tls", "udp"}
	}
	formats := selfContained
	if scheme == "http" || scheme == "https" {
		// A playlist names further addresses: of the protocols that a job may name itself.
		formats += "," + playlists
		protocols = append(slices.Clone(protocols), "crypto")
		if slices.Contains(s.settings.InputProtocols, "https") {
			protocols = append(protocols, tunnels["https"]...)
		}
		if !slices.Contains(s.settings.InputProtocols, "http") {
			formats = selfContained // https is made of http, so a playlist could not be kept from it
		}
	}
	return source{url: u.String(), network: true, options: whitelist(protocols, formats, "-rw_timeout", rwTimeout)}
}

func whitelist(protocols []string, formats string, more ...string) []string {
	return append([]string{"-protocol_whitelist", strings.Join(unique(protocols), ","), "-format_whitelist", formats}, more...)
}

// localInput takes a regular file within the input roots. A relative path is looked
// up in the workspace, where there is none.
func (s *places) localInput(given string) (src source, local string, bad *messages.Failure) {
	if !filepath.IsAbs(given) {
		given = filepath.Join(s.workspace, given)
	}
	real, exists, err := resolve(given)
	if err == nil && !within(real, s.settings.InputRoots) {
		s.problem("input", "%s lies outside %s", show(given), strings.Join(s.settings.InputRoots, ", "))
		return source{}, "", nil
	}
	if err == nil && !exists {
		err = fs.ErrNotExist
	}
	if err == nil {
		err = readable(real)
	}
	if err != nil {
		return source{}, "", failure(protocol.ReasonInputError, "input %s: %v", show(given), reason(err))
	}
	formats := selfContained
	if slices.Contains(s.settings.InputRoots, "/") {
		formats += "," + playlists // which may then name whatever the job itself may
	}
	return source{url: fileURL(real), options: whitelist([]string{"file"}, formats)}, real, nil
}

// readable makes sure that a path is a regular file with something in it.
func readable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if info.Size() == 0 {
		return errors.New("empty")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// reason is an error without the path that the message names already.
func reason(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// target places one output: where the job says, or in the workspace.
func (s *places) target(r rendition, i int, ladder bool) target {
	if r.url != "" {
		return target{url: r.url, kept: true}
	}
	name := "output"
	if ladder {
		name = fmt.Sprintf("outputs[%d].output", i)
	}
	given := r.output
	if m := protocolName.FindStringSubmatch(given); m != nil {
		if !strings.EqualFold(m[1], "file") || m[2] != "" {
			s.problem(name, "%s is no path; streams go by output_mode and rtmp_url", show(m[0]))
			return target{}
		}
		given = strings.TrimPrefix(given[len("file:"):], "//")
	}
	if !filepath.IsAbs(given) {
		return s.ownTarget(name, given, r, i)
	}
	final, err := s.resolveTarget(given)
	if err != nil {
		s.problem(name, "%s %v", show(given), err)
		return target{}
	}
	return target{final: final, kept: true}
}

// ownTarget places an output that the job names relatively or not at all: it goes
// with the workspace, or is kept among the agent's own files.
func (s *places) ownTarget(name, given string, r rendition, i int) target {
	if given == "" {
		given = fmt.Sprintf("output-%d%s", i, r.extension)
	}
	if !filepath.IsLocal(given) {
		s.problem(name, "%s leads out of the workspace", show(given))
		return target{}
	}
	if s.settings.KeepOutputs {
		return target{final: filepath.Join(s.settings.DataDir, outputsDir, s.name, filepath.Clean(given)), kept: true}
	}
	return target{final: filepath.Join(s.workspace, filepath.Clean(given))}
}

// resolveTarget resolves an absolute output and says what is wrong with it. A link
// at the very end is replaced by the output and not followed.
func (s *places) resolveTarget(given string) (string, error) {
	given = filepath.Clean(given)
	dir, _, err := resolve(filepath.Dir(given))
	if err != nil {
		return "", reason(err)
	}
	final := filepath.Join(dir, filepath.Base(given))
	if !s.writable(final) {
		return "", fmt.Errorf("lies outside the workspace, the temporary folder and the output roots")
	}
	info, err := os.Lstat(final)
	switch {
	case err == nil && !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeSymlink:
		return "", fmt.Errorf("is not a regular file")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", reason(err)
	}
	return final, nil
}

// writable reports whether an output may lie there. The agent's own files lie below
// the temporary folder on some machines; they are no place for outputs.
func (s *places) writable(final string) bool {
	if within(final, append([]string{s.workspace}, s.settings.OutputRoots...)) {
		return true
	}
	return within(final, []string{os.TempDir()}) && !within(final, []string{s.settings.DataDir})
}

// clash refuses an output that is the input, or another output.
func (s *places) clash(t target, pl place) {
	if pl.local != "" && sameFile(pl.local, t.final) {
		s.problem("output", "%s is the input", show(t.final))
	}
	for _, other := range pl.targets {
		if other.final == t.final {
			s.problem("outputs", "%s is named twice", show(t.final))
		}
	}
}

func sameFile(a, b string) bool {
	ai, err1 := os.Stat(a)
	bi, err2 := os.Stat(b)
	return a == b || err1 == nil && err2 == nil && os.SameFile(ai, bi)
}

// resolve follows the links of a path as far as it exists; what does not exist yet
// is appended as it is.
func resolve(path string) (real string, exists bool, err error) {
	path = filepath.Clean(path)
	var rest []string
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(append([]string{real}, rest...)...), len(rest) == 0, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", false, err
		}
		// A link that leads nowhere exists all the same: what would be made through it
		// lies where it points.
		if _, err := os.Lstat(path); err == nil {
			return "", false, &fs.PathError{Op: "open", Path: path, Err: errors.New("a link that leads nowhere")}
		}
		parent := filepath.Dir(path)
		if parent == path {
			return "", false, err
		}
		rest = append([]string{filepath.Base(path)}, rest...)
		path = parent
	}
}

// within reports whether a resolved path lies below one of the roots, whose own
// links are resolved as well.
func within(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		real, _, err := resolve(root)
		if err != nil {
			return false
		}
		rel, err := filepath.Rel(real, path)
		return err == nil && rel != "." && filepath.IsLocal(rel)
	})
}
