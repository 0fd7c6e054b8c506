package ffmpeg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/messages/job"
)

// TestWorkspaceNamesDoNotCollide: 32 bits of a hash collide among 200,000 ids, and a second job
// with the name of the first would empty its workspace.
func TestWorkspaceNamesDoNotCollide(t *testing.T) {
	seen := map[string]string{}
	prefix := strings.Repeat("x", 48)
	for i := range 200_000 {
		id := fmt.Sprint(prefix, i)
		name := attemptName(job.Key{JobID: id, Attempt: 1})
		if other, taken := seen[name]; taken {
			t.Fatalf("%s and %s have the same workspace", id, other)
		}
		seen[name] = id
		if len(name) > 200 {
			t.Fatalf("%s is %d bytes long", name, len(name))
		}
	}
}

func TestWorkspaceIsRemovedHoweverDeepItIs(t *testing.T) {
	const few = "32" // descriptors
	dir := os.Getenv("FFMPEG_TEST_DEEP")
	if dir == "" {
		t.Parallel()
		c := exec.Command("prlimit", "--nofile="+few+":"+few, os.Args[0], "-test.run=^"+t.Name()+"$")
		c.Env = append(os.Environ(), "FFMPEG_TEST_DEEP="+t.TempDir())
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	w := workspaces{dir: dir}
	if err := w.create("a"); err != nil {
		t.Fatal(err)
	}
	wide := filepath.Join(w.path("a"), "closed")
	if err := os.MkdirAll(filepath.Join(wide, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(dir, "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink(outside, filepath.Join(wide, "link")), os.Chmod(wide, 0)); err != nil {
		t.Fatal(err)
	}
	back, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	defer os.Chdir(back)
	if err := os.Chdir(w.path("a")); err != nil {
		t.Fatal(err)
	}
	for range 3_000 {
		name := strings.Repeat("d", 250)
		if err := errors.Join(os.Mkdir(name, 0o700), os.Mkdir("beside", 0o700), os.Chdir(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.remove("a"); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v; want only the file outside", entries, err)
	}
}

// TestRemovalFollowsNoSwappedLink: something that has outlived FFmpeg exchanges a folder and a link
// to somewhere else over and over while the workspace is removed.
func TestRemovalFollowsNoSwappedLink(t *testing.T) {
	t.Parallel()
	tree, outside := filepath.Join(t.TempDir(), "tree"), t.TempDir()
	const files = 200
	fill := func(dir string) {
		for i := range files {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(outside)
	var stop atomic.Bool
	swapper := make(chan struct{})
	go func() {
		defer close(swapper)
		for !stop.Load() {
			_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(tree, "folder"), unix.AT_FDCWD, filepath.Join(tree, "link"), unix.RENAME_EXCHANGE)
		}
	}()
	defer func() { stop.Store(true); <-swapper }()
	for range 50 {
		aside := filepath.Join(t.TempDir(), "aside") // where nothing is exchanged yet
		if err := errors.Join(os.MkdirAll(filepath.Join(aside, "folder"), 0o700), os.Symlink(outside, filepath.Join(aside, "link"))); err != nil {
			t.Fatal(err)
		}
		fill(filepath.Join(aside, "folder"))
		if err := os.Rename(aside, tree); err != nil {
			t.Fatal(err)
		}
		for range 1000 { // an exchange in the middle may fail it
			if removeTree(tree) == nil {
				break
			}
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) != files {
			t.Fatalf("%d files outside are left (%v), want all %d", len(left), err, files)
		}
		if _, err := os.Lstat(tree); err == nil {
			t.Fatal("the tree is still there")
		}
	}
}

// TestRemovalOfManyFilesTakesLittleMemory: all names of a folder are not in memory at once.
func TestRemovalOfManyFilesTakesLittleMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "many")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 5_000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if names, err := someNames(root); err != nil || len(names) > 1024 {
		t.Errorf("read %d names at once (%v), want at most 1024", len(names), err)
	}
	if err := removeTree(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("the folder is still there")
	}
}
