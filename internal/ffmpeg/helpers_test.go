package ffmpeg

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"ffmpeg-agent/internal/fetch"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

var update = flag.Bool("update", false, "write the golden files anew")

// hang is when a test that waits has waited too long.
const hang = 60 * time.Second

func TestMain(m *testing.M) {
	if dir := os.Getenv("FFMPEG_TEST_AGENT"); dir != "" {
		agentThatIsKilled(dir)
		return
	}
	dir, err := os.MkdirTemp("", "ffmpeg-test-")
	if err != nil {
		panic(err)
	}
	if sandboxHelper, err = ffmpegtest.SandboxHelper(dir); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		_ = os.RemoveAll(dir)
		os.Exit(status)
	}))
}

// sandboxHelper is the program that sets up sandboxes.
var sandboxHelper string

// testSandbox is the one that all runners of these tests have, as far as this machine has it.
func testSandbox() SandboxSettings {
	return SandboxSettings{Mode: SandboxRequire, Helper: []string{sandboxHelper}}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	return ctx
}

// usual is what the FFmpeg of this machine has, asked once: its answer costs more than a small
// encode.
var usual = sync.OnceValues(func() (Capabilities, error) {
	r, err := New(Settings{DataDir: os.TempDir()})
	if err != nil {
		return Capabilities{}, err
	}
	return r.Capabilities(context.Background())
})

// newRunner makes a runner with its own data folder, closed when the test ends. It knows what
// the usual FFmpeg has, and asks any other.
func newRunner(t *testing.T, change ...func(*Settings)) *Runner {
	t.Helper()
	r := newIgnorantRunner(t, change...)
	if caps, err := usual(); err == nil {
		r.caps, r.capsKey = caps, caps.Identity
		r.caps.Filters = maps.Clone(caps.Filters) // which a test takes from
	}
	return r
}

// fetchBy makes later runs use a fetcher.
func (r *Runner) fetchBy(f *fetch.Fetcher) {
	old := r.configured.Swap(&configured{*r.settings(), f})
	old.fetcher.Close()
}

// newIgnorantRunner makes one that has to ask FFmpeg what it has.
func newIgnorantRunner(t *testing.T, change ...func(*Settings)) *Runner {
	t.Helper()
	inputs := reach.DefaultPolicy()
	inputs.Loopback = true // for servers of tests
	s := Settings{Inputs: inputs, DataDir: filepath.Join(t.TempDir(), "data"), GenerateInput: true, StopGrace: 5 * time.Second, Sandbox: testSandbox(), Logger: zaptest.NewLogger(t)}
	for _, c := range change {
		c(&s)
	}
	r, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	impatient, err := fetch.New(fetch.Settings{Policy: r.settings().Inputs, StallTimeout: r.settings().StallTimeout, RetryWait: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	r.fetchBy(impatient)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), hang)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Errorf("closing the runner: %v", err)
		}
	})
	return r
}

// ask has a runner ask FFmpeg what it has until it has an answer: where a machine is
// emulated on a busy one, starting FFmpeg takes long.
func ask(r *Runner) error {
	var err error
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); {
		if _, err = r.Capabilities(context.Background()); err == nil {
			return nil
		}
	}
	return err
}

// lease makes a lease for a job with these parameters, in the master's JSON.
func lease(t testing.TB, id, parameters string) job.Lease {
	t.Helper()
	var j protocol.Job
	raw, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"id":`+string(raw)+`,"parameters":`+parameters+`}`), &j); err != nil {
		t.Fatalf("%s: %v", parameters, err)
	}
	return job.Lease{Job: j, NodeID: "node"}
}

// walk takes a run through its steps up to the check.
func walk(ctx context.Context, run *Run) error {
	if err := run.Prepare(ctx); err != nil {
		return err
	}
	return encode(ctx, run)
}

// encode takes a prepared run to its verdict.
func encode(ctx context.Context, run *Run) error {
	if _, err := run.Start(ctx); err != nil {
		return err
	}
	return conclude(ctx, run)
}

// conclude takes a run whose FFmpeg was started to its verdict.
func conclude(ctx context.Context, run *Run) error {
	if err := run.Wait(ctx); err != nil {
		return err
	}
	return run.Check(ctx)
}

// wantFailure demands a failure for this reason and returns it.
func wantFailure(t *testing.T, err error, reason protocol.FailureReason) *job.Failure {
	t.Helper()
	f, ok := err.(*job.Failure)
	if !ok {
		t.Fatalf("error is %T %v, want a failure", err, err)
	}
	if f.Reason != reason {
		t.Fatalf("failed for %s (%s), want %s", f.Reason, f.Message, reason)
	}
	return f
}

// quoted is a string as JSON.
func quoted(s string) string { return strconv.Quote(s) }

// clip makes a small film with FFmpeg: 160x120, 25 fps, with sound.
func clip(t *testing.T, path string, seconds string, more ...string) string {
	t.Helper()
	args := []string{"-nostdin", "-v", "error", "-y",
		"-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=" + seconds,
		"-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=" + seconds,
		"-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"}
	command := exec.Command("ffmpeg", append(append(args, more...), path)...)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("making a clip: %v\n%s", err, out)
	}
	return path
}

// until waits for a state.
func until(t *testing.T, what string, reached func() bool) {
	t.Helper()
	deadline := time.After(hang)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !reached() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// golden compares with a file of testdata, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s; got:\n%s\nwant:\n%s", path, got, want)
	}
}

// agentThatIsKilled is another process: it starts a run that would last for hours,
// says which FFmpeg it started, and waits for its end.
func agentThatIsKilled(dir string) {
	r, err := New(Settings{DataDir: filepath.Join(dir, "data"), GenerateInput: true, OutputRoots: []string{dir}})
	if err != nil {
		panic(err)
	}
	if err := ask(r); err != nil {
		panic(err)
	}
	var params protocol.Parameters
	if err := json.Unmarshal([]byte(`{"resolution":"160x120","preset":"veryslow","duration":86400,"output":"`+filepath.Join(dir, "out.mp4")+`"}`), &params); err != nil {
		panic(err)
	}
	run := r.Begin(job.Lease{Job: protocol.Job{ID: "orphan", Parameters: params}})
	if err := run.Prepare(context.Background()); err != nil {
		panic(err)
	}
	p, err := run.Start(context.Background())
	if err != nil {
		panic(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(p); err != nil {
		panic(err)
	}
	select {}
}
