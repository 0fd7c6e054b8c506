package ffmpeg

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"ffmpeg-agent/messages/job"
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
	held    *os.File // the input, where it must not be exchanged; else nil
}

// target is one output's way: written under a temporary name beside its final one,
// and renamed when it was checked.
type target struct {
	final string // empty: a stream
	root  string // final lies below it, whatever becomes of the folders between
	temp  string
	kept  bool // stays when the workspace goes
	url   string

	dir  *os.Root // the folder of final, open until the run is closed
	file *os.File // temp likewise
	name string   // what FFmpeg is given: a URL
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
func (s *places) find(p *plan) (pl place, bad *job.Failure) {
	if p.input != "" {
		pl.input, pl.local, bad = s.input(p.input)
	} else if !s.settings.GenerateInput {
		s.problem("input", "absent, and this node generates none (jobs.generate_input)")
	}
	for i, r := range p.renditions {
		t := s.target(r, i, len(p.renditions) > 1)
		if t.final != "" {
			s.clash(t, pl)
		}
		if t.url != "" && slices.ContainsFunc(pl.targets, func(other target) bool { return other.url == t.url }) {
			s.problem("outputs", "two of them go to %s", quote("rtmp_url", t.url))
		}
		pl.targets = append(pl.targets, t)
	}
	return pl, bad
}

func (s *places) input(given string) (src source, local string, bad *job.Failure) {
	if m := protocolName.FindStringSubmatch(given); m != nil {
		scheme := strings.ToLower(m[1])
		if m[2] != "" || !slices.Contains(s.settings.InputProtocols, scheme) {
			s.problem("input", "protocol %s is not one of %s (jobs.input_protocols)", show(m[1]+m[2]), strings.Join(s.settings.InputProtocols, ", "))
			return source{}, "", nil
		}
		if scheme != "file" {
			return s.remote(given, scheme), "", nil
		}
		given = strings.TrimPrefix(given[len("file:"):], "//")
	} else if !slices.Contains(s.settings.InputProtocols, "file") {
		s.problem("input", "protocol file is not one of %s (jobs.input_protocols)", strings.Join(s.settings.InputProtocols, ", "))
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
		s.problem("input", "%s is %v", quote("input", given), err)
		return source{}
	}
	if scheme == "srt" && !calls(u) {
		s.problem("input", "srt that waits for a caller; only mode=caller is allowed")
		return source{}
	}
	protocols := tunnels[scheme]
	if protocols == nil {
		protocols = []string{scheme, "tcp", "tls", "udp"}
	}
	formats := selfContained
	stored := scheme == "http" || scheme == "https"
	if stored {
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
	return source{url: u.String(), network: true, finite: stored, options: whitelist(protocols, formats, "-rw_timeout", rwTimeout)}
}

// calls reports whether an SRT address makes FFmpeg call, which is the mode that goes
// without saying, and not listen on this machine.
func calls(u *url.URL) bool {
	for _, mode := range u.Query()["mode"] {
		if mode != "caller" {
			return false
		}
	}
	return !strings.Contains(u.RawQuery, ";") // Query passes over what holds one
}

func whitelist(protocols []string, formats string, more ...string) []string {
	return append([]string{"-protocol_whitelist", strings.Join(unique(protocols), ","), "-format_whitelist", formats}, more...)
}

// localInput takes a regular file within the input roots. A relative path is looked
// up in the workspace, where there is none.
func (s *places) localInput(given string) (src source, local string, bad *job.Failure) {
	if !filepath.IsAbs(given) {
		given = filepath.Join(s.workspace, given)
	}
	real, exists, err := resolve(given)
	if err == nil && !within(real, s.settings.InputRoots) {
		s.problem("input", "%s lies outside %s (jobs.input_roots)", show(given), strings.Join(s.settings.InputRoots, ", "))
		return source{}, "", nil
	}
	if err == nil && !exists {
		err = fs.ErrNotExist
	}
	if err == nil && within(real, []string{"/proc", "/sys"}) {
		err = errors.New("not a file of a disk") // the kernel's own memory is a regular file there
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
	return source{url: fileURL(real), finite: true, options: whitelist([]string{"file"}, formats)}, real, nil
}

// readable makes sure that a path is a regular file with something in it.
func readable(path string) error {
	f, err := openRegular(path)
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
	final, root, err := s.resolveTarget(given)
	if err != nil {
		s.problem(name, "%s %v", show(given), err)
		return target{}
	}
	return target{final: final, root: root, kept: true}
}

// longestName is the longest name of a file, bytes.
const longestName = 255

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
	if slices.ContainsFunc(strings.Split(given, "/"), func(part string) bool { return len(part) > longestName }) {
		s.problem(name, "%s holds a name of more than %d bytes", show(given), longestName)
		return target{}
	}
	if s.settings.KeepOutputs {
		dir := filepath.Join(s.settings.DataDir, outputsDir, s.name)
		return target{final: filepath.Join(dir, filepath.Clean(given)), root: dir, kept: true}
	}
	return target{final: filepath.Join(s.workspace, filepath.Clean(given)), root: s.workspace}
}

// resolveTarget resolves an absolute output and says what is wrong with it. A link
// at the very end is replaced by the output and not followed.
func (s *places) resolveTarget(given string) (final, root string, err error) {
	given = filepath.Clean(given)
	dir, _, err := resolve(filepath.Dir(given))
	if err != nil {
		return "", "", reason(err)
	}
	final = filepath.Join(dir, filepath.Base(given))
	if root = s.rootOf(final); root == "" {
		roots := "which names none"
		if len(s.settings.OutputRoots) > 0 {
			roots = "which names " + strings.Join(s.settings.OutputRoots, ", ")
		}
		return "", "", fmt.Errorf("lies outside the workspace, %s, and jobs.output_roots, %s", os.TempDir(), roots)
	}
	info, err := os.Lstat(final)
	switch {
	case err == nil && !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeSymlink:
		return "", "", fmt.Errorf("is not a regular file")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", "", reason(err)
	}
	return final, root, nil
}

// rootOf returns the root, its links resolved, below which an output may lie there;
// empty when it may not. The agent's own files may lie below a root that is wider;
// they are no place for outputs.
func (s *places) rootOf(final string) string {
	own := []string{s.settings.DataDir}
	for _, root := range append([]string{s.workspace, os.TempDir()}, s.settings.OutputRoots...) {
		real, _, err := resolve(root)
		if err != nil || !within(final, []string{real}) {
			continue
		}
		if !within(final, own) || within(real, own) { // a root within our own files was meant
			return real
		}
	}
	return ""
}

// clash refuses an output that is the input, or another output.
func (s *places) clash(t target, pl place) {
	if pl.local != "" && sameFile(pl.local, t.final) {
		s.problem("output", "%s is the input", show(t.final))
	}
	if t.final == filepath.Join(s.workspace, syntheticName) {
		s.problem("output", "%s is the name of the input that is made", show(syntheticName))
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
