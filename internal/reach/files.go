package reach

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// file finds the regular file at a path and checks that it is below one of the roots.
func (p *Policy) file(path string) (real string, err error) {
	real, exists, err := ResolveLinks(path)
	if err == nil && !Within(real, p.Roots) {
		return "", &Refused{What: fmt.Sprintf("path %.200q outside of %s", path, strings.Join(p.Roots, ", ")), Key: "jobs.input_roots"}
	}
	if err == nil && !exists {
		err = fs.ErrNotExist
	}
	if err == nil {
		err = checkReadable(real)
	}
	return real, withoutPath(err)
}

func checkReadable(path string) error {
	if Within(path, []string{"/proc", "/sys"}) {
		return errors.New("not a file on a disk") // /proc/kcore is a regular file
	}
	f, err := OpenRegular(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// Below returns the path of the file that a local playlist in the directory dir refers to, with
// links resolved. It must be below root, the directory of the playlist that the job names;
// otherwise the error is an *Invalid. Other errors are those of the file system. Like FFmpeg,
// Below does not decode percent-encoded file names.
func Below(root, dir, uri string) (real string, err error) {
	protocol, options, rest := CutProtocol(uri)
	switch {
	case options != "" || protocol != "" && protocol != "file":
		return "", invalid("a local playlist refers to protocol %.80q; it reaches files below its own folder only", protocol+options)
	case protocol == "file":
		rest = strings.TrimPrefix(rest, "//")
	}
	if !filepath.IsAbs(rest) {
		rest = filepath.Join(dir, rest)
	}
	real, exists, err := ResolveLinks(rest)
	switch {
	case err != nil:
		return "", withoutPath(err)
	case !Within(real, []string{root}):
		return "", invalid("a local playlist refers to %.200q, which is not below its own folder", uri)
	case !exists:
		return "", fs.ErrNotExist
	}
	return real, withoutPath(checkReadable(real))
}

// OpenRegular opens a regular, non-empty file for reading. Opening anything else could block
// or start a device, so if the file has been replaced since its path was resolved, OpenRegular
// does not follow a link or wait for a pipe.
func OpenRegular(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	switch info, err = f.Stat(); {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("not a regular file")
	case info.Size() == 0:
		err = errors.New("empty")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// ResolveLinks resolves the links of a path as far as it exists, and appends the rest
// unchanged.
func ResolveLinks(path string) (real string, exists bool, err error) {
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
		// A dangling link exists: creating the file would create the target of the link.
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

// Within reports whether a path, with its links resolved, is below one of the roots. Within
// resolves the links of the roots.
func Within(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		real, _, err := ResolveLinks(root)
		if err != nil {
			return false
		}
		rel, err := filepath.Rel(real, path)
		return err == nil && rel != "." && filepath.IsLocal(rel)
	})
}

// withoutPath strips the path from an error, for a message that already contains it.
func withoutPath(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
