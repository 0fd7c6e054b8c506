package ffmpeg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"
)

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
		if f.reads, bad = s.input(p.input, p.reading.format); f.reads.Path != "" {
			f.inputPath = f.reads.Path
			f.input = s.settings.readers().file(f.inputPath, p.reading.demuxer())
		}
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
	if protocol, options, rest := reach.CutProtocol(given); protocol != "" {
		if protocol != "file" || options != "" {
			s.problem(name, "%s is not a path; for a stream set output_mode and rtmp_url", show(protocol+options+":"))
			return target{}
		}
		given = strings.TrimPrefix(rest, "//")
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
	return target{final: final, root: root, kept: true, named: true}
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
	dir, _, err := reach.ResolveLinks(filepath.Dir(given))
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
		real, _, err := reach.ResolveLinks(root)
		if err != nil || !reach.Within(final, []string{real}) {
			continue
		}
		if !reach.Within(final, own) || reach.Within(real, own) { // a root within the data directory is meant
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
	if fetched := filepath.Join(s.workspace, fetchedDir); t.final == fetched || reach.Within(t.final, []string{fetched}) {
		s.problem("output", "%s is the directory of fetched inputs", show(fetchedDir))
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
