package ffmpeg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
