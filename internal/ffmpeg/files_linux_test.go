package ffmpeg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// exchange puts a link in the place of a file or folder.
func exchange(t *testing.T, path, to string) {
	t.Helper()
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

func TestSymlinkAtOutputIsNotFollowed(t *testing.T) {
	t.Parallel()
	for name, trick := range map[string]func(t *testing.T, dir string, run *Run){
		"the temporary output becomes a link": func(t *testing.T, dir string, run *Run) {
			exchange(t, run.files.targets[0].temp, filepath.Join(dir, "out-side/secret.mp4"))
		},
		"its folder becomes a link": func(t *testing.T, dir string, run *Run) {
			temp := run.files.targets[0].temp
			if err := os.Symlink("secret.mp4", filepath.Join(dir, "out-side", filepath.Base(temp))); err != nil {
				t.Fatal(err)
			}
			exchange(t, filepath.Dir(temp), filepath.Join(dir, "out-side"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := hostileFiles(t)
			r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{filepath.Join(dir, "out")} })
			run := r.Begin(lease(t, name, `{`+small+`,"duration":1,"quality":"psnr","output":`+quoted(filepath.Join(dir, "out/sub/x.mp4"))+`}`))
			if err := run.Prepare(testContext(t)); err != nil {
				t.Fatal(err)
			}
			trick(t, dir, run)
			if err := encode(testContext(t), run); err != nil {
				t.Errorf("%v\n%s", err, run.Snapshot().Encode.Log)
			}
			if raw, err := os.ReadFile(filepath.Join(dir, "out-side/secret.mp4")); err != nil || string(raw) != "precious" {
				t.Errorf("what the link leads to is now %d bytes, %v", len(raw), err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "out-side/x.mp4")); err == nil {
				t.Error("the output was put outside of the root")
			}
		})
	}
}

func TestReplacedOutputDirIsNotFollowed(t *testing.T) {
	t.Parallel()
	dir := hostileFiles(t)
	s := resolverIn(dir)
	pl, _ := s.resolve(&plan{renditions: []rendition{{output: filepath.Join(dir, "out/sub/new/x.mp4"), extension: ".mp4"}}})
	if len(s.problems) > 0 {
		t.Fatal(s.problems)
	}
	defer pl.close()
	exchange(t, filepath.Join(dir, "out/sub"), filepath.Join(dir, "out-side"))
	if err := createTemps(t.TempDir(), pl.targets); err == nil {
		t.Error("made all the same")
	}
	if names := listing(t, filepath.Join(dir, "out-side")); names != "secret.mp4" {
		t.Errorf("outside: %s", names)
	}
}

func TestDirectoryAtOutputPathFailsPrepare(t *testing.T) {
	t.Parallel()
	dir := hostileFiles(t)
	s := resolverIn(dir)
	out := filepath.Join(dir, "out/x.mp4")
	pl, _ := s.resolve(&plan{renditions: []rendition{{output: out, extension: ".mp4"}, {output: filepath.Join(out, "y.mp4"), extension: ".mp4"}}})
	defer pl.close()
	f := wantFailure(t, createTemps(t.TempDir(), pl.targets), protocol.ReasonUserError)
	if !strings.Contains(f.Message, "output: ") || !strings.Contains(f.Message, "is a directory") {
		t.Errorf("message: %s", f.Message)
	}
}

func TestReplacedInputIsNotRead(t *testing.T) {
	t.Parallel()
	dir := hostileFiles(t)
	in := clip(t, filepath.Join(dir, "in/film.mp4"), "1")
	other := clip(t, filepath.Join(dir, "out-side/other.mp4"), "2")
	r := newRunner(t, func(s *Settings) { s.Inputs.Roots = []string{filepath.Join(dir, "in")} })
	run := r.Begin(lease(t, "exchanged", `{`+small+`,"quality":"ssim","input":`+quoted(in)+`}`))
	if err := run.Prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
	exchange(t, in, other)
	if err := encode(testContext(t), run); err != nil {
		t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
	}
	e := run.Snapshot().Encode
	if e.Frames != 25 {
		t.Errorf("%d frames, want the 25 of the input that was checked", e.Frames)
	}
	if q := run.Measure(testContext(t)); q.SSIM == nil || *q.SSIM < 0.5 {
		t.Errorf("quality %+v", q)
	}
	if shown := fmt.Sprint(e.Args, e.Log); strings.Contains(shown, "/proc/self/fd") || !strings.Contains(e.Log, in) || !strings.Contains(fmt.Sprint(e.Args), ".partial-") {
		t.Errorf("people are not told the files' names: %s", shown)
	}

	s := resolverIn(dir)
	pl, bad := s.resolve(&plan{input: filepath.Join(dir, "in/a.mp4"), renditions: []rendition{{extension: ".mp4"}}})
	if bad != nil || len(s.problems) > 0 {
		t.Fatal(bad, s.problems)
	}
	exchange(t, filepath.Join(dir, "in"), filepath.Join(dir, "out-side"))
	if err := os.WriteFile(filepath.Join(dir, "out-side/a.mp4"), []byte("another"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := openInput(pl, s.settings.Inputs.Roots)
	wantFailure(t, err, protocol.ReasonInputError)
}

func TestClosedRunHoldsNoFile(t *testing.T) {
	t.Parallel()
	dir := hostileFiles(t)
	in := clip(t, filepath.Join(dir, "in/film.mp4"), "1")
	r := newRunner(t, func(s *Settings) { s.Inputs.Roots = []string{filepath.Join(dir, "in")} })
	run := r.Begin(lease(t, "held", `{`+small+`,"input":`+quoted(in)+`}`))
	if err := run.Prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := run.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for _, f := range run.files.inherited() {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s was open: %v", f.Name(), err)
		}
	}
	if _, err := run.files.targets[0].dir.Stat("."); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the folder is open: %v", err)
	}
}

func TestWritingFFmpegIsNotStalled(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	run := r.Begin(lease(t, "writes", `{`+small+`}`))
	if err := run.Prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
	reported := time.Now().Add(-time.Hour)
	run.progressAt.Store(reported.UnixNano())
	written := time.Now().Add(-time.Minute).Truncate(time.Second)
	if err := os.Chtimes(run.files.targets[0].temp, written, written); err != nil {
		t.Fatal(err)
	}
	if last := run.lastProgress(); !last.Equal(written) {
		t.Errorf("last move %s, want when it wrote, %s", last, written)
	}
	older := reported.Add(-time.Minute)
	if err := os.Chtimes(run.files.targets[0].temp, older, older); err != nil {
		t.Fatal(err)
	}
	if last := run.lastProgress(); !last.Equal(time.Unix(0, reported.UnixNano())) {
		t.Errorf("last move %s, want the report, %s", last, reported)
	}
}

func TestFileOfAnotherUserIsNotReplaced(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a file of another user")
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "out.mp4")
	if err := os.WriteFile(out, []byte("theirs"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(out, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{dir} })
	run := r.Begin(lease(t, "theirs", `{`+small+`,"duration":1,"output":`+quoted(out)+`}`))
	f := wantFailure(t, walk(testContext(t), run), protocol.ReasonUserError)
	if !strings.Contains(f.Message, "belongs to another user (65534)") {
		t.Errorf("message: %s", f.Message)
	}
	if raw, err := os.ReadFile(out); string(raw) != "theirs" {
		t.Errorf("the file has %q, %v", raw, err)
	}
	// One that comes while FFmpeg runs is not replaced either.
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	run = r.Begin(lease(t, "later", `{`+small+`,"duration":1,"output":`+quoted(out)+`}`))
	ctx := testContext(t)
	if err := run.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(out, []byte("theirs"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(out, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, encode(ctx, run), protocol.ReasonUserError)
	if raw, err := os.ReadFile(out); string(raw) != "theirs" {
		t.Errorf("the file has %q, %v", raw, err)
	}
}
