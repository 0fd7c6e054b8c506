package main

import (
	"os"
	"path/filepath"
	"testing"
)

// replace writes a file as most editors and configuration tools do: under another name first.
func replace(t *testing.T, path, content string) {
	t.Helper()
	overwrite(t, path+".new", content)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// settled is a second look.
func settled(w *fileWatch) bool { return w.changed() }

func TestFileWatch(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, dir, path string){
		"written in place": func(t *testing.T, _, path string) { overwrite(t, path, "two") },
		"renamed over":     func(t *testing.T, _, path string) { replace(t, path, "two") },
		"removed":          func(t *testing.T, _, path string) { os.Remove(path) },
		// As Kubernetes updates a volume: the link to the directory is replaced.
		"link in its path swapped": func(t *testing.T, dir, _ string) {
			overwrite(t, filepath.Join(dir, "v2", "file"), "two")
			link(t, "v2", filepath.Join(dir, "..data"))
		},
		"same size and times": func(t *testing.T, _, path string) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, path, "two")
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, version := range []string{"v1", "v2"} {
				if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			overwrite(t, filepath.Join(dir, "v1", "file"), "one")
			link(t, "v1", filepath.Join(dir, "..data"))
			link(t, "..data/file", filepath.Join(dir, "file"))
			path := filepath.Join(dir, "..data", "file")
			var w fileWatch
			w.reset([]string{filepath.Join(dir, "file"), filepath.Join(dir, "absent")})
			for range 3 {
				if w.changed() {
					t.Fatal("changed without a change")
				}
			}
			change(t, dir, path)
			if first, second := w.changed(), w.changed(); first || !second {
				t.Errorf("after a change: got %v and %v, want it reported once the file has settled", first, second)
			}
			w.seen(w.look())
			if w.changed() || settled(&w) {
				t.Error("the change is reported again after it was read")
			}
		})
	}
}

func TestFileThatIsBeingWrittenIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var w fileWatch
	w.reset([]string{path})
	for _, content := range []string{"", "o", "on", "one"} {
		overwrite(t, path, content)
		if w.changed() {
			t.Errorf("changed at %q", content)
		}
	}
	if !w.changed() {
		t.Error("the complete file is not reported")
	}
}

func TestTouchedFileHasNotChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	overwrite(t, path, "one")
	var w fileWatch
	w.reset([]string{path})
	replace(t, path, "one")
	if w.changed() || settled(&w) {
		t.Error("a file with the same content is reported")
	}
}
