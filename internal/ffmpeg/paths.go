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

// protocolName matches what FFmpeg takes for a protocol and not for a path, with options
// before the colon (subfile,,start,0,end,9,,:x).
var protocolName = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*)(,[^/]*)?:`)

// pathResolver finds out where the files of a plan are, and refuses those outside of the
// allowed directories. It changes nothing.
type pathResolver struct {
	settings  Settings
	workspace string
	name      string // of the attempt, as a file name
	problems  []string
	notes     []string
}

func (s *pathResolver) problem(name, format string, args ...any) {
	s.problems = append(s.problems, name+": "+fmt.Sprintf(format, args...))
}

// resolve finds input and outputs. bad is set for an input that cannot be read; it only
// matters when there are no problems.
func (s *pathResolver) resolve(p *plan) (f jobFiles, bad *job.Failure) {
	if p.input != "" {
		f.input, f.inputPath, bad = s.input(p.input)
	} else if !s.settings.GenerateInput {
		s.problem("input", "absent, and this node does not generate one (jobs.generate_input)")
	}
	for i, r := range p.renditions {
		t := s.target(r, i, len(p.renditions) > 1)
		if t.final != "" {
			s.checkClash(t, f)
		}
		if t.url != "" && slices.ContainsFunc(f.targets, func(other target) bool { return other.url == t.url }) {
			s.problem("outputs", "two of them go to %s", quote("rtmp_url", t.url))
		}
		f.targets = append(f.targets, t)
	}
	return f, bad
}

func (s *pathResolver) input(given string) (src source, path string, bad *job.Failure) {
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

// underlying are the FFmpeg protocols that a protocol needs.
var underlying = map[string][]string{
	"http": {"http", "tcp"}, "https": {"https", "http", "tls", "tcp"}, "rtmp": {"rtmp", "tcp"}, "rtmps": {"rtmps", "rtmp", "tls", "tcp"}, "srt": {"srt", "udp"},
}

func (s *pathResolver) remote(given, scheme string) source {
	u, err := parseURL(given)
	if err != nil {
		s.problem("input", "%s is %v", quote("input", given), err)
		return source{}
	}
	if scheme == "srt" && !isCaller(u) {
		s.problem("input", "srt with mode=listener or rendezvous; only mode=caller is allowed")
		return source{}
	}
	protocols := underlying[scheme]
	if protocols == nil {
		protocols = []string{scheme, "tcp", "tls", "udp"}
	}
	formats := selfContained
	stored := scheme == "http" || scheme == "https"
	if stored {
		// A playlist may contain further addresses, by the protocols that a job may use itself.
		formats += "," + playlists
		protocols = append(slices.Clone(protocols), "crypto")
		if slices.Contains(s.settings.InputProtocols, "https") {
			protocols = append(protocols, underlying["https"]...)
		}
		if !slices.Contains(s.settings.InputProtocols, "http") {
			formats = selfContained // https needs http, so a playlist could not be kept from using it
		}
	}
	return source{url: u.String(), network: true, finite: stored, options: whitelist(protocols, formats, "-rw_timeout", rwTimeout)}
}

// isCaller reports whether an SRT address makes FFmpeg connect, which is the default, and
// not listen on this machine.
func isCaller(u *url.URL) bool {
	for _, mode := range u.Query()["mode"] {
		if mode != "caller" {
			return false
		}
	}
	return !strings.Contains(u.RawQuery, ";") // Query skips parameters that contain one
}

func whitelist(protocols []string, formats string, more ...string) []string {
	return append([]string{"-protocol_whitelist", strings.Join(unique(protocols), ","), "-format_whitelist", formats}, more...)
}

// localInput accepts a regular file within the input roots. A relative path refers to the
// workspace, which contains none.
func (s *pathResolver) localInput(given string) (src source, path string, bad *job.Failure) {
	if !filepath.IsAbs(given) {
		given = filepath.Join(s.workspace, given)
	}
	real, exists, err := resolveLinks(given)
	if err == nil && !within(real, s.settings.InputRoots) {
		s.problem("input", "%s is outside of %s (jobs.input_roots)", show(given), strings.Join(s.settings.InputRoots, ", "))
		return source{}, "", nil
	}
	if err == nil && !exists {
		err = fs.ErrNotExist
	}
	if err == nil && within(real, []string{"/proc", "/sys"}) {
		err = errors.New("not a file on a disk") // /proc/kcore is a regular file
	}
	if err == nil {
		err = checkReadable(real)
	}
	if err != nil {
		return source{}, "", failure(protocol.ReasonInputError, "input %s: %v", show(given), withoutPath(err))
	}
	formats := selfContained
	if slices.Contains(s.settings.InputRoots, "/") {
		formats += "," + playlists // which can then name nothing that the job could not
	}
	return source{url: fileURL(real), finite: true, options: whitelist([]string{"file"}, formats)}, real, nil
}

// checkReadable opens a file as openRegular does, and closes it.
func checkReadable(path string) error {
	f, err := openRegular(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// withoutPath is an error without the path, for a message that contains it already.
func withoutPath(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// target finds the destination of one output: the one that the job names, or the workspace.
func (s *pathResolver) target(r rendition, i int, ladder bool) target {
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
			s.problem(name, "%s is not a path; for a stream set output_mode and rtmp_url", show(m[0]))
			return target{}
		}
		given = strings.TrimPrefix(given[len("file:"):], "//")
	}
	if given != "" && !filepath.IsAbs(given) {
		if !filepath.IsLocal(given) {
			s.problem(name, "%s leads out of its directory", show(given))
			return target{}
		}
		if len(s.settings.OutputRoots) == 0 {
			s.noteRelative(name, given)
		} else {
			given = filepath.Join(s.settings.OutputRoots[0], given)
		}
	}
	if slices.ContainsFunc(strings.Split(given, "/"), func(part string) bool { return len(part) > maxNameBytes }) {
		s.problem(name, "%s contains a name of more than %d bytes", show(given), maxNameBytes)
		return target{}
	}
	if !filepath.IsAbs(given) {
		return s.ownTarget(given, r, i)
	}
	final, root, err := s.resolveTarget(given)
	if err != nil {
		s.problem(name, "%s %v", show(given), err)
		return target{}
	}
	return target{final: final, root: root, kept: true}
}

// noteRelative notes that an output with a relative name has no place.
func (s *pathResolver) noteRelative(name, given string) {
	done := "removed"
	if s.settings.KeepOutputs {
		done = "kept in the data directory"
	}
	s.notes = append(s.notes, fmt.Sprintf("%s: %s is relative and jobs.output_roots is empty; measured and then %s like an unnamed output", name, show(given), done))
}

// maxNameBytes bounds the name of a file (NAME_MAX).
const maxNameBytes = 255

// ownTarget is the destination of an output that names no place: it is removed with the
// workspace, or kept in the data directory.
func (s *pathResolver) ownTarget(given string, r rendition, i int) target {
	if given == "" {
		given = fmt.Sprintf("output-%d%s", i, r.extension)
	}
	if s.settings.KeepOutputs {
		dir := filepath.Join(s.settings.DataDir, outputsDir, s.name)
		return target{final: filepath.Join(dir, filepath.Clean(given)), root: dir, kept: true}
	}
	return target{final: filepath.Join(s.workspace, filepath.Clean(given)), root: s.workspace}
}

// resolveTarget resolves the path of an output; the error is for its problem. A link as
// the last element is replaced by the output, not followed.
func (s *pathResolver) resolveTarget(given string) (final, root string, err error) {
	given = filepath.Clean(given)
	dir, _, err := resolveLinks(filepath.Dir(given))
	if err != nil {
		return "", "", withoutPath(err)
	}
	final = filepath.Join(dir, filepath.Base(given))
	if root = s.rootOf(final); root == "" {
		roots := "empty"
		if len(s.settings.OutputRoots) > 0 {
			roots = strings.Join(s.settings.OutputRoots, ", ")
		}
		return "", "", fmt.Errorf("is outside of the workspace, of %s, and of jobs.output_roots (%s)", os.TempDir(), roots)
	}
	info, err := os.Lstat(final)
	switch {
	case err == nil && !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeSymlink:
		return "", "", fmt.Errorf("is not a regular file")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", "", withoutPath(err)
	}
	return final, root, nil
}

// rootOf returns the allowed directory, with links resolved, that contains an output;
// empty when none does. The data directory may be within one of them; it is not allowed
// all the same.
func (s *pathResolver) rootOf(final string) string {
	own := []string{s.settings.DataDir}
	for _, root := range append([]string{s.workspace, os.TempDir()}, s.settings.OutputRoots...) {
		real, _, err := resolveLinks(root)
		if err != nil || !within(final, []string{real}) {
			continue
		}
		if !within(final, own) || within(real, own) { // a root within the data directory is meant
			return real
		}
	}
	return ""
}

// checkClash refuses an output that is the input, or another output.
func (s *pathResolver) checkClash(t target, f jobFiles) {
	if f.inputPath != "" && sameFile(f.inputPath, t.final) {
		s.problem("output", "%s is the input", show(t.final))
	}
	if t.final == filepath.Join(s.workspace, syntheticName) {
		s.problem("output", "%s is the name of the synthetic input", show(syntheticName))
	}
	for _, other := range f.targets {
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

// resolveLinks follows the links of a path as far as it exists; what does not exist yet
// is appended unchanged.
func resolveLinks(path string) (real string, exists bool, err error) {
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
		// A dangling link exists: a file created through it would be where it points.
		if _, err := os.Lstat(path); err == nil {
			return "", false, &fs.PathError{Op: "open", Path: path, Err: errors.New("dangling link")}
		}
		parent := filepath.Dir(path)
		if parent == path {
			return "", false, err
		}
		rest = append([]string{filepath.Base(path)}, rest...)
		path = parent
	}
}

// within reports whether a resolved path is below one of the roots, whose links are
// resolved here.
func within(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		real, _, err := resolveLinks(root)
		if err != nil {
			return false
		}
		rel, err := filepath.Rel(real, path)
		return err == nil && rel != "." && filepath.IsLocal(rel)
	})
}
