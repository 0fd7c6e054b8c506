package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// makeVideo makes a film of 50 frames.
func makeVideo(t *testing.T, name string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	out, err := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25:duration=2", "-preset", "ultrafast", path).CombinedOutput()
	if err != nil {
		t.Fatalf("making a film: %v: %s", err, out)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestFilesAreJudgedAsTheyStand: complete or not, and a file with a temporary name is
// nobody's business.
func TestFilesAreJudgedAsTheyStand(t *testing.T) {
	mp4, mkv := makeVideo(t, "a.mp4"), makeVideo(t, "a.mkv")
	for name, c := range map[string]struct {
		file    string
		content []byte
		frames  int
		problem string // part of it; "none" for a file that is not looked at
	}{
		"complete":           {"a.mp4", mp4, 50, ""},
		"complete, mkv":      {"a.mkv", mkv, 50, ""},
		"cut short":          {"a.mp4", mp4[:len(mp4)/2], 50, "cannot be read"},
		"cut short, mkv":     {"a.mkv", mkv[:len(mkv)/2], 50, "ended prematurely"},
		"empty":              {"a.mp4", nil, 50, "cannot be read"},
		"shorter than asked": {"a.mp4", mp4, 100, "50 frames instead of 100"},
		"nobody's":           {"b.mp4", mp4, 50, "no job names it"},
		"still written":      {".a.partial-X.mp4", mp4[:100], 50, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, facts := t.TempDir(), newRecorder(time.Second)
			for _, named := range []string{"a.mp4", "a.mkv"} {
				path := filepath.Join(dir, named)
				facts.h.Jobs[named], facts.h.RequestedOutputs[path] = &Job{ID: named, Output: path}, c.frames
			}
			if err := os.WriteFile(filepath.Join(dir, c.file), c.content, 0o644); err != nil {
				t.Fatal(err)
			}
			i := newInspector(dir, facts)
			i.inspect(context.Background())
			i.inspect(context.Background()) // what stands unchanged is judged once
			looks := facts.h.Outputs
			if c.problem == "none" {
				if len(looks) != 0 {
					t.Errorf("looked at: %+v", looks)
				}
				return
			}
			if len(looks) != 1 || (looks[0].Problem == "") != (c.problem == "") || !strings.Contains(looks[0].Problem, c.problem) {
				t.Errorf("judged %+v", looks)
			}
		})
	}
}

// TestReplacedFileIsJudgedAgain: by another attempt, whose output may be worse.
func TestReplacedFileIsJudgedAgain(t *testing.T) {
	dir, facts := t.TempDir(), newRecorder(time.Second)
	path, mp4 := filepath.Join(dir, "a.mp4"), makeVideo(t, "a.mp4")
	facts.h.Jobs["a"], facts.h.RequestedOutputs[path] = &Job{ID: "a", Output: path}, 50
	i := newInspector(dir, facts)
	for _, content := range [][]byte{mp4, mp4[:len(mp4)/2]} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		i.inspect(context.Background())
	}
	if looks := facts.h.Outputs; len(looks) != 2 || looks[0].Problem != "" || looks[1].Problem == "" {
		t.Errorf("judged %+v", looks)
	}
}

// TestOutputOfALostSubmissionIsJudged: the master accepted a job, and died with its response.
func TestOutputOfALostSubmissionIsJudged(t *testing.T) {
	dir, facts := t.TempDir(), newRecorder(time.Second)
	mp4 := makeVideo(t, "a.mp4")
	facts.h.Epochs = []MasterEpoch{{Number: 1}}
	submitted := make(chan protocol.JobRequest, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request protocol.JobRequest
		_ = json.NewDecoder(r.Body).Decode(&request)
		submitted <- request
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	m := &master{recorder: facts, http: server.Client(), address: server.Listener.Addr().String()}
	s := &submitter{master: m, outputs: dir, random: rand.New(rand.NewPCG(1, 2))}
	var request protocol.JobRequest
	for request.Parameters["output"] == nil {
		if _, err := s.submit(context.Background()); err == nil {
			t.Fatal("the submission was answered")
		}
		request = <-submitted
	}
	path, _ := request.Parameters["output"].(string)
	frames := facts.h.RequestedOutputs[path]

	i := newInspector(dir, facts)
	if err := os.WriteFile(path, mp4, 0o644); err != nil {
		t.Fatal(err)
	}
	i.inspect(context.Background())
	if looks := facts.h.Outputs; len(looks) != 1 || !strings.Contains(looks[0].Problem, fmt.Sprintf("50 frames instead of %d", frames)) {
		t.Errorf("judged %+v, want 50 frames instead of %d", looks, frames)
	}

	created := time.Now().Add(-time.Minute)
	facts.h.adoptJob(&protocol.Job{ID: "late", CreatedAt: &created, Parameters: request.Parameters}, 1)
	facts.h.Jobs["late"].Status = protocol.StatusCompleted
	i.inspect(context.Background())
	if _, err := os.Stat(path); err == nil {
		t.Error("the output of a job that has ended is still there")
	}
}

// TestLibraryWarningsAreNotDamage: in a container a library of ffprobe may warn on
// standard error.
func TestLibraryWarningsAreNotDamage(t *testing.T) {
	ffprobe, err := exec.LookPath("ffprobe")
	if err != nil {
		t.Fatal(err)
	}
	bin, path := t.TempDir(), filepath.Join(t.TempDir(), "a.mp4")
	script := "#!/bin/sh\necho 'Warning: using insecure memory!' >&2\nexec " + ffprobe + ` "$@"` + "\n"
	if err := os.WriteFile(filepath.Join(bin, "ffprobe"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, makeVideo(t, "a.mp4"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if problem := checkVideo(context.Background(), path, 50); problem != "" {
		t.Errorf("got %q, want no problem", problem)
	}
}
