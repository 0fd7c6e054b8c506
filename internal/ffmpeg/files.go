package ffmpeg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/internal/fetch"
	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/protocol"
)

// jobFiles are the input and the outputs of an attempt, with links resolved.
type jobFiles struct {
	reads     reach.Input  // what the job names
	fetched   fetch.Result // of an input that was fetched or linked
	input     source
	inputPath string   // empty: over the network, or synthetic
	inputFile *os.File // nil where the input may be replaced while the job runs
	targets   []target // one for each rendition
}

// target is the destination of one output: a stream, or a file that is written under a
// temporary name beside its final one and renamed once it was checked.
type target struct {
	final string // empty: a stream
	root  string // final stays below it, even if directories between are replaced
	temp  string
	kept  bool // stays when the workspace is removed
	named bool // the job names the place
	url   string

	dir       *os.Root // directory of final
	file      *os.File // temp
	published bool     // file has its final name
	arg       string   // the URL that FFmpeg gets
}

// openInput opens what a run reads, and openOutputs what it writes. Both stay open until
// the run is closed. FFmpeg gets the open files: a user who can write to one of their
// directories could otherwise put a link in their place after they were checked.
func (r *Run) openInput() error {
	input, err := openInput(r.files, r.settings.Inputs.Roots)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &r.files
	if f.inputFile = input; input != nil {
		f.input.url = fileURL(proc.FilePath(input, proc.FirstFile))
		r.redactor.replace(f.input.url, fileURL(f.inputPath))
	}
	return nil
}

func (r *Run) openOutputs() error {
	if err := createTemps(r.workspace, r.files.targets); err != nil {
		return err
	}
	f := &r.files
	for i := range f.targets {
		if t := &f.targets[i]; t.url != "" {
			t.arg = t.url
			if err := r.hideStreamKey(i, t); err != nil {
				return err
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range f.targets {
		if t := &f.targets[i]; t.file != nil {
			t.arg = fileURL(proc.FilePath(t.file, proc.FirstFile+1+i))
			r.redactor.replace(t.arg, fileURL(t.temp))
		}
	}
	return nil
}

// inherited are the files that each process of the run gets, in the order of their
// descriptors.
func (f *jobFiles) inherited() []*os.File {
	files := []*os.File{f.inputFile}
	for _, t := range f.targets {
		files = append(files, t.file)
	}
	return files
}

// outputSize is the size of all outputs; false where one is not a file.
func (f *jobFiles) outputSize() (bytes int64, ok bool) {
	for _, t := range f.targets {
		info, err := t.file.Stat() // of nil as well
		if err != nil {
			return 0, false
		}
		bytes += info.Size()
	}
	return bytes, true
}

// discardTemps frees the disk space of outputs that were not published, and removes them.
// They are truncated first: that frees the space even where a file cannot be removed, has
// another name, or is open in a process that was left behind. close closes them, once no
// process is being started that inherits them.
func (f *jobFiles) discardTemps() {
	for _, t := range f.targets {
		if t.file == nil || t.published {
			continue
		}
		_ = t.file.Truncate(0)                  // fails once it is closed
		_ = t.dir.Remove(filepath.Base(t.temp)) // else removing the workspace does
	}
}

// close discards what was not published and closes the rest.
func (f *jobFiles) close() {
	f.discardTemps()
	_ = f.inputFile.Close() // of nil as well
	for _, t := range f.targets {
		_ = t.file.Close()
		if t.dir != nil {
			_ = t.dir.Close()
		}
	}
}

// openInput opens a local input that must lie below certain roots. Where it may lie
// anywhere, replacing it gains nothing. A playlist is not what FFmpeg opens.
func openInput(f jobFiles, roots []string) (*os.File, error) {
	if f.reads.Path == "" || f.reads.Format != "" || slices.Contains(roots, "/") {
		return nil, nil
	}
	file, err := reach.OpenRegular(f.inputPath)
	if err == nil {
		var path string
		if path, err = proc.CurrentPath(file); err == nil && path != f.inputPath {
			err = errors.New("replaced after it was checked")
		}
		if err != nil {
			_ = file.Close()
		}
	}
	if err != nil {
		return nil, failure(protocol.ReasonInputError, "input %s: %v", show(f.inputPath), withoutPath(err))
	}
	return file, nil
}

// createTemps creates the temporary outputs as empty files, after their names are in the
// workspace's manifest.
func createTemps(workspace string, targets []target) error {
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
		if err := targets[i].create(); err != nil {
			return err
		}
	}
	for _, t := range targets { // once all directories exist
		if t.dir == nil {
			continue
		}
		if info, err := t.dir.Lstat(filepath.Base(t.final)); err == nil && info.IsDir() {
			return failure(protocol.ReasonUserError, "invalid parameters: output: %s is a directory", show(t.final))
		}
		if err := t.checkOwner(); err != nil {
			return err
		}
	}
	return nil
}

// checkOwner refuses to replace a file of another user: of another one than the temporary
// output beside it, since network file systems map owners.
func (t *target) checkOwner() error {
	old, err := t.dir.Lstat(filepath.Base(t.final))
	if err != nil {
		return nil // usually there is none
	}
	own, err := t.file.Stat()
	if err != nil {
		return fmt.Errorf("finding the owner of a temporary output: %w", err)
	}
	theirs, ok1 := old.Sys().(*syscall.Stat_t)
	ours, ok2 := own.Sys().(*syscall.Stat_t)
	if ok1 && ok2 && theirs.Uid != ours.Uid {
		return failure(protocol.ReasonUserError, "invalid parameters: output: %s exists and belongs to another user (%d)", show(t.final), theirs.Uid)
	}
	return nil
}

// create creates the target's directory without leaving the root, and the temporary
// output in it.
func (t *target) create() error {
	if t.final == "" {
		return nil
	}
	if err := os.MkdirAll(t.root, 0o755); err != nil {
		return t.failure("creating the directory of an output", err)
	}
	root, err := os.OpenRoot(t.root)
	if err != nil {
		return fmt.Errorf("opening the root of an output: %w", err)
	}
	defer root.Close()
	dir, err := filepath.Rel(t.root, filepath.Dir(t.final))
	if err != nil {
		return fmt.Errorf("finding the directory of an output: %w", err)
	}
	if err := root.MkdirAll(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return t.failure("creating the directory of an output", err)
	}
	if t.dir, err = root.OpenRoot(dir); err != nil {
		return fmt.Errorf("opening the directory of an output: %w", err)
	}
	if t.file, err = t.dir.OpenFile(filepath.Base(t.temp), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644); err != nil {
		return t.failure("creating a temporary output", err)
	}
	return nil
}

// failure is the error of making an output: the job's fault where it names a place that
// this user may not write to.
func (t *target) failure(doing string, err error) error {
	for _, refused := range []syscall.Errno{syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ENOTDIR, syscall.ENAMETOOLONG} {
		if errors.Is(err, refused) && t.named {
			return failure(protocol.ReasonUserError, "invalid parameters: output: %s cannot be written: %v", show(t.final), refused)
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// publish gives a checked output its final name.
func (t *target) publish() error {
	if err := t.dir.Rename(filepath.Base(t.temp), filepath.Base(t.final)); err != nil {
		return fmt.Errorf("renaming an output: %w", err)
	}
	t.published = true
	return nil
}

// withdraw removes an output that was published, unless another has replaced it.
func (t *target) withdraw() {
	if !t.published {
		return
	}
	ours, err := t.file.Stat()
	if err != nil {
		return
	}
	if there, err := t.dir.Lstat(filepath.Base(t.final)); err == nil && os.SameFile(there, ours) {
		_ = t.dir.Remove(filepath.Base(t.final))
	}
}

// syncDir puts the final name on disk.
func (t *target) syncDir() error {
	dir, err := t.dir.Open(".")
	if err != nil {
		return fmt.Errorf("opening the directory of an output: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("syncing the directory of an output: %w", err)
	}
	return nil
}
