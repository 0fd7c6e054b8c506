package datadir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDataDirIsRestrictedToItsOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "data")
	if warnings, err := Prepare(dir); err != nil || len(warnings) > 0 {
		t.Fatalf("a new one: %q, %v", warnings, err)
	}
	wantMode(t, dir)
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, work} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	warnings, err := Prepare(dir)
	if err != nil || len(warnings) != 2 || !strings.Contains(warnings[0], "0777") {
		t.Errorf("one with mode 0777: %q, %v", warnings, err)
	}
	wantMode(t, dir)
	wantMode(t, work)
	if warnings, err := Prepare(dir); err != nil || len(warnings) > 0 {
		t.Errorf("again: %q, %v", warnings, err)
	}
}

func wantMode(t *testing.T, path string) {
	t.Helper()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s has mode %v (%v), want 0700", path, info.Mode(), err)
	}
}

func TestLinksAreRefused(t *testing.T) {
	victim := t.TempDir()
	link := filepath.Join(t.TempDir(), "data")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, link, "is a link")
	for _, name := range []string{"work", "agent.pid", "journal.db", "agent.sock"} {
		dir := t.TempDir()
		if err := os.Symlink(filepath.Join(victim, "x"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, dir, "contains a link")
	}
	file := filepath.Join(victim, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, file, "is no directory")
}

func TestAnotherUsersDirectoryIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		wantRefused(t, "/usr", "belongs to user 0")
		t.Skip("only root can give files to other users")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, dir, "belongs to user 65534")
	dir = t.TempDir()
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(work, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, dir, "work, which belongs to user 65534")
}

func wantRefused(t *testing.T, dir, says string) {
	t.Helper()
	if _, err := Prepare(dir); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: got %v, want %q", dir, err, says)
	}
}
