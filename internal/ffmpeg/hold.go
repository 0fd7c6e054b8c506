package ffmpeg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/protocol"
)

// hold opens what a run reads and writes, and keeps it open until the run is closed.
// FFmpeg is given the open files: whoever may write to a folder on their way could
// otherwise put a link in their place after they were looked at.
func (r *Run) hold() error {
	if err := reserve(r.workspace, r.place.targets); err != nil {
		return err
	}
	held, err := holdInput(r.place, r.settings.InputRoots)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	pl := &r.place
	if pl.held = held; held != nil {
		pl.input.url = fileURL(proc.FilePath(held, proc.FirstFile))
		r.secret.show(pl.input.url, fileURL(pl.local))
	}
	for i := range pl.targets {
		t := &pl.targets[i]
		if t.name = t.url; t.file != nil {
			t.name = fileURL(proc.FilePath(t.file, proc.FirstFile+1+i))
			r.secret.show(t.name, fileURL(t.temp))
		}
	}
	return nil
}

// files are what each child of the run is given, in the order of their descriptors.
func (p *place) files() []*os.File {
	files := []*os.File{p.held}
	for _, t := range p.targets {
		files = append(files, t.file)
	}
	return files
}

// written is how much lies in the outputs' files; false where an output is none.
func (p *place) written() (bytes int64, ok bool) {
	for _, t := range p.targets {
		info, err := t.file.Stat() // of nil as well
		if err != nil {
			return 0, false
		}
		bytes += info.Size()
	}
	return bytes, true
}

// release closes what hold has opened.
func (p *place) release() {
	_ = p.held.Close() // of nil as well
	for _, t := range p.targets {
		_ = t.file.Close()
		if t.dir != nil {
			_ = t.dir.Close()
		}
	}
}

// holdInput opens a local input that must lie below certain roots. Where it may lie
// anywhere there is nothing to be led to, and a playlist needs the input's path.
func holdInput(pl place, roots []string) (*os.File, error) {
	if pl.local == "" || slices.Contains(roots, "/") {
		return nil, nil
	}
	f, err := openRegular(pl.local)
	if err == nil {
		var real string
		if real, err = proc.CurrentPath(f); err == nil && real != pl.local {
			err = errors.New("it was exchanged meanwhile")
		}
		if err != nil {
			_ = f.Close()
		}
	}
	if err != nil {
		return nil, failure(protocol.ReasonInputError, "input %s: %v", show(pl.local), reason(err))
	}
	return f, nil
}

// openRegular opens a file with something in it for reading. Opening anything else
// could block for ever or set a device going; what took the file's place since it
// was looked at is not followed and not waited for.
func openRegular(path string) (*os.File, error) {
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

// reserve makes the temporary outputs as empty files, each noted before it is there.
func reserve(workspace string, targets []target) error {
	var temps []string
	for i := range targets {
		if t := &targets[i]; t.final != "" {
			t.temp = newTempName(t.final)
			temps = append(temps, t.temp)
		}
	}
	if err := writeManifest(workspace, temps); err != nil {
		return err
	}
	for i := range targets {
		if err := targets[i].open(); err != nil {
			return err
		}
	}
	for _, t := range targets { // once all folders are there
		if t.dir == nil {
			continue
		}
		if info, err := t.dir.Lstat(filepath.Base(t.final)); err == nil && info.IsDir() {
			return failure(protocol.ReasonUserError, "invalid parameters: output: %s is a folder", show(t.final))
		}
	}
	return nil
}

// open opens the target's folder, which it makes where it is missing, without leaving
// the root, and makes the temporary output in it.
func (t *target) open() error {
	if t.final == "" {
		return nil
	}
	if err := os.MkdirAll(t.root, 0o755); err != nil {
		return fmt.Errorf("making an output's folder: %w", err)
	}
	root, err := os.OpenRoot(t.root)
	if err != nil {
		return fmt.Errorf("opening an output's root: %w", err)
	}
	defer root.Close()
	folder, err := filepath.Rel(t.root, filepath.Dir(t.final))
	if err != nil {
		return fmt.Errorf("finding an output's folder: %w", err)
	}
	if err := root.MkdirAll(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making an output's folder: %w", err)
	}
	if t.dir, err = root.OpenRoot(folder); err != nil {
		return fmt.Errorf("opening an output's folder: %w", err)
	}
	if t.file, err = t.dir.OpenFile(filepath.Base(t.temp), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644); err != nil {
		return fmt.Errorf("making a temporary output: %w", err)
	}
	return nil
}

// publish puts a checked output in its place: its bytes are on disk before its name.
func publish(t target) error {
	if err := t.file.Sync(); err != nil {
		return fmt.Errorf("bringing an output to disk: %w", err)
	}
	if err := t.dir.Rename(filepath.Base(t.temp), filepath.Base(t.final)); err != nil {
		return fmt.Errorf("putting an output in its place: %w", err)
	}
	dir, err := t.dir.Open(".")
	if err != nil {
		return fmt.Errorf("opening an output's folder: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("bringing an output's name to disk: %w", err)
	}
	return nil
}
