package ffmpeg

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"ffmpeg-agent/messages/job"
)

// Names below the data folder, and in a workspace.
const (
	workDir      = "work"
	outputsDir   = "outputs"
	inputsDir    = "inputs"
	manifestName = "manifest.json"
)

// attemptName is an attempt's key as a file name. IDs come from the master and may contain
// anything, so special characters are replaced, and the hash of the ID makes the name
// unique.
func attemptName(key job.Key) string {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, key.JobID)
	sum := sha256.Sum256([]byte(key.JobID))
	return fmt.Sprintf("%.48s-%s-%d", plain, hex.EncodeToString(sum[:]), key.Attempt)
}

// workspaces are the directories that attempts work in. The lock keeps a workspace from
// being created and swept at once. It is not held while outputs elsewhere are removed: their
// file systems may not answer.
type workspaces struct {
	mu  sync.Mutex
	dir string // DataDir/work
}

func (w *workspaces) path(name string) string { return filepath.Join(w.dir, name) }

// create creates an attempt's directory, empty and only for the agent's user.
func (w *workspaces) create(name string) error {
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return fmt.Errorf("creating the directory of workspaces: %w", err)
	}
	_, errs := removeTemps(readManifest(w.path(name)))
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.removeLocked(name, errs); err != nil {
		return err
	}
	if err := os.Mkdir(w.path(name), 0o700); err != nil {
		return fmt.Errorf("creating a workspace: %w", err)
	}
	return nil
}

func (w *workspaces) remove(name string) error {
	_, errs := removeTemps(readManifest(w.path(name)))
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.removeLocked(name, errs)
}

// removeTemps removes temporary outputs, and returns the number of those that were there.
func removeTemps(temps []string) (removed int, errs []error) {
	for _, temp := range temps {
		switch err := os.Remove(temp); {
		case err == nil:
			removed++
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("removing a temporary output: %w", err))
		}
	}
	return removed, errs
}

// removeLocked removes a workspace after its temporary outputs. Where some of these could not be
// removed, its manifest stays.
func (w *workspaces) removeLocked(name string, errs []error) error {
	dir := w.path(name)
	if len(errs) > 0 {
		return errors.Join(append(errs, removeAllBut(dir, manifestName))...)
	}
	if err := removeTree(dir); err != nil {
		return fmt.Errorf("removing a workspace: %w", err)
	}
	return nil
}

// removeAllBut frees the space of a workspace whose manifest the next sweep needs.
func removeAllBut(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	for _, e := range entries {
		if e.Name() != keep {
			errs = append(errs, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a file or a folder with all that is in it, as FFmpeg may have left it: folders
// without permissions, and so deep that os.RemoveAll, which has a descriptor open for each level,
// runs out of them. It follows no link out of the folder, also none that something which has
// outlived FFmpeg puts in the place of a folder meanwhile.
func removeTree(path string) error {
	parent, err := os.OpenRoot(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	return (&treeRemover{parent: parent, name: filepath.Base(path)}).remove(parent, ".", filepath.Base(path), 0)
}

// treeRemover removes the tree of a name in parent.
type treeRemover struct {
	parent *os.Root
	name   string
	moved  int
}

// remove removes a name in dir, which is depth levels below the tree's parent, at the path within.
func (t *treeRemover) remove(dir *os.Root, within, name string, depth int) error {
	info, err := dir.Lstat(name)
	if err != nil {
		return unlessGone(err)
	}
	if !info.IsDir() {
		return unlessGone(dir.Remove(name))
	}
	_ = dir.Chmod(name, 0o700) // where that fails, reading it says so
	if depth > maxDepth {      // it is found there later
		t.moved++
		return unlessGone(t.parent.Rename(filepath.Join(within, name), filepath.Join(t.name, fmt.Sprintf("moved-%s-%d", rand.Text(), t.moved))))
	}
	inside, err := dir.OpenRoot(name)
	if err != nil {
		return unlessGone(err)
	}
	defer inside.Close()
	for {
		names, err := someNames(inside)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			return unlessGone(dir.Remove(name))
		}
		for _, n := range names {
			if err := t.remove(inside, filepath.Join(within, name), n, depth+1); err != nil {
				return err
			}
		}
	}
}

// someNames returns up to 1024 names in a folder, which may have millions; none where it is empty.
func someNames(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(1024)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// unlessGone is the error of an operation on a file that may have been removed meanwhile.
func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// maxDepth is how deep removeTree goes before it moves folders up, so that neither descriptors nor
// the length of a path run out.
const maxDepth = 8

// manifest lists the files of an attempt outside of its workspace, so that the next start
// of the agent can remove them.
type manifest struct {
	Temps []string `json:"temporary_outputs"`
}

func writeManifest(dir string, temps []string) error {
	raw, err := json.Marshal(manifest{temps})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, manifestName), raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing the manifest of a workspace: %w", err)
	}
	return nil
}

// tempName matches the name of a temporary output: .NAME.partial-RANDOM.EXT.
var tempName = regexp.MustCompile(`^\..+\.partial-[0-9A-Z]{26}\.[a-z0-9]+$`)

func newTempName(final string) string {
	ext := filepath.Ext(final)
	base := strings.TrimSuffix(filepath.Base(final), ext)
	const maxBytes = 150 // leaves room for what is added, within maxNameBytes
	if len(base) > maxBytes {
		base = strings.ToValidUTF8(base[:maxBytes], "")
	}
	return filepath.Join(filepath.Dir(final), "."+base+".partial-"+rand.Text()+strings.ToLower(ext))
}

// readManifest returns the temporary outputs in a manifest. FFmpeg can write to its
// workspace, so only names of temporary outputs are accepted.
func readManifest(dir string) []string {
	var m manifest
	raw, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil || json.Unmarshal(raw, &m) != nil {
		return nil
	}
	var temps []string
	for _, t := range m.Temps {
		if filepath.IsAbs(t) && tempName.MatchString(filepath.Base(t)) {
			temps = append(temps, t)
		}
	}
	return temps
}
