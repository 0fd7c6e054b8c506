package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

const small = `"resolution":"160x120","fps":25,"preset":"ultrafast","bitrate":"200k"`

// endless is a job that runs for longer than any test.
func endless(t *testing.T, id string) job.Lease {
	return lease(t, id, `{"resolution":"160x120","fps":25,"preset":"veryslow","duration":86400,"audio_codec":"none"}`)
}

// running takes a run to where FFmpeg has made frames.
func running(t *testing.T, run *Run) job.Process {
	t.Helper()
	ctx := testContext(t)
	if err := run.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	p, err := run.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "progress", func() bool { return run.Snapshot().Encode.Progress.Frames > 0 })
	return p
}

func TestSyntheticJobFrameCount(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	ctx := testContext(t)
	run := r.Begin(lease(t, "job-1", `{"resolution":"320x240","duration":"5","fps":"30","preset":"ultrafast","quality":"psnr","output":null}`))
	if err := walk(ctx, run); err != nil {
		t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
	}
	e := run.Snapshot().Encode
	if e.Frames != 150 || e.Pixels != 150*320*240 || e.Width != 320 || e.Height != 240 {
		t.Errorf("frames %d, pixels %d, %dx%d", e.Frames, e.Pixels, e.Width, e.Height)
	}
	if !e.InputMade || e.PrepareFor <= 0 || e.Output != "" || e.Bitrate != "2000k" || e.Codec != "h264" || e.Encoder != "libx264" {
		t.Errorf("encode: %+v", e)
	}
	if e.ExitCode == nil || *e.ExitCode != 0 || e.CPUTime <= 0 || e.Wall() <= 0 || e.SizeBytes <= 0 || e.Media < 4900*time.Millisecond {
		t.Errorf("encode: %+v", e)
	}
	if used, ok := run.CPUTime(); !ok || used != e.CPUTime {
		t.Errorf("usage is %v %v, want %v", used, ok, e.CPUTime)
	}
	if q := run.Measure(ctx); q.PSNR == nil || *q.PSNR < 20 || *q.PSNR > 100 || q.Note != "" {
		t.Errorf("quality %+v", q)
	}
	if s := run.Snapshot(); s.Phase() != job.PhaseJournal {
		t.Errorf("phase is %s", s.Phase())
	}
	if info, err := os.Stat(run.workspace); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("workspace: %v, %v", info, err)
	}
	if err := run.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(run.workspace); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the workspace is still there: %v", err)
	}
	if len(r.open()) != 0 {
		t.Error("the run is not forgotten")
	}
}

func TestLongSyntheticInputIsLooped(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	run := r.Begin(lease(t, "loop", `{"resolution":"64x64","fps":5,"preset":"ultrafast","bitrate":"200k","duration":25}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
	}
	if e := run.Snapshot().Encode; e.Frames != 125 {
		t.Errorf("%d frames, want 125", e.Frames)
	}
}

func TestCodecsInEveryContainer(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{root} })
	const fast = `"preset":"ultrafast",`
	for name, c := range map[string]struct{ codec, file, wantCodec, more string }{
		"h265":     {"h265", "out.mp4", "h265", fast},
		"vp9":      {"vp9", "out.webm", "vp9", fast},
		"av1":      {"av1", "out.mkv", "av1", fast},
		"ts":       {"h264", "out.ts", "h264", fast},
		"named":    {"mpeg4", "out.mkv", "mpeg4", ""},
		"flv":      {"h264", "out.flv", "h264", fast},
		"sideways": {"libx264", "OUT.MOV", "h264", fast},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(root, name)
			out := filepath.Join(dir, c.file)
			run := r.Begin(lease(t, name, `{"codec":"`+c.codec+`","resolution":"160x120","fps":25,"duration":1,`+c.more+`"output":`+quoted(out)+`}`))
			if err := walk(testContext(t), run); err != nil {
				t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
			}
			e := run.Snapshot().Encode
			if e.Codec != c.wantCodec || e.Frames != 25 || e.Output != out {
				t.Errorf("codec %s, %d frames, output %s", e.Codec, e.Frames, e.Output)
			}
			if names := listing(t, dir); names != c.file {
				t.Errorf("the folder holds %s", names)
			}
		})
	}
}

// listing names a folder's files.
func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestLengthComesFromJobElseInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := clip(t, filepath.Join(dir, "in.mp4"), "3")
	r := newRunner(t)
	for name, c := range map[string]struct {
		duration string
		frames   int64
	}{
		"whole":   {`null`, 75},
		"trimmed": {`1`, 25},
		"longer":  {`"20"`, 75},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			run := r.Begin(lease(t, name, `{`+small+`,"quality":"ssim","duration":`+c.duration+`,"input":`+quoted(in)+`}`))
			if err := walk(ctx, run); err != nil {
				t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
			}
			e := run.Snapshot().Encode
			if e.Frames != c.frames || e.InputMade || e.Progress.Percent != 100 {
				t.Errorf("%d frames, want %d; %+v", e.Frames, c.frames, e)
			}
			if q := run.Measure(ctx); q.SSIM == nil || *q.SSIM < 0.5 || *q.SSIM > 1 {
				t.Errorf("quality %+v", q)
			}
		})
	}
}

func TestUnmeasuredQualityIsNoted(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	ctx := testContext(t)
	caps, err := r.Capabilities(ctx)
	if err != nil {
		t.Fatal(err)
	}
	delete(caps.Filters, "libvmaf") // whatever this FFmpeg has
	run := r.Begin(lease(t, "vmaf", `{`+small+`,"duration":1,"quality":"vmaf"}`))
	if err := walk(ctx, run); err != nil {
		t.Fatal(err)
	}
	if q := run.Measure(ctx); q.VMAF != nil || !strings.Contains(q.Note, "libvmaf") {
		t.Errorf("quality %+v", q)
	}
}

func TestLadderDecodesOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{dir} })
	run := r.Begin(lease(t, "ladder", `{"duration":1,"fps":25,"preset":"ultrafast","quality":"psnr","output":`+quoted(filepath.Join(dir, "x.mp4"))+`,
		"outputs":[{"resolution":"320x240","bitrate":"400k"},{"resolution_width":"160","resolution_height":120,"bitrate":"100k"}]}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
	}
	e := run.Snapshot().Encode
	if want := int64(25 * (320*240 + 160*120)); e.Pixels != want || e.Frames != 2*25 || e.Progress.Frames != 25 {
		t.Errorf("%d pixels, want %d; %d frames in all, %d of the first", e.Pixels, want, e.Frames, e.Progress.Frames)
	}
	if got := listing(t, dir); got != "x-160x120.mp4 x-320x240.mp4" {
		t.Errorf("the folder holds %s", got)
	}
	var size int64
	for _, name := range []string{"x-160x120.mp4", "x-320x240.mp4"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if e.SizeBytes != size {
		t.Errorf("%d bytes, want the %d of both files", e.SizeBytes, size)
	}
	if q := run.Measure(testContext(t)); q.PSNR == nil || !q.Partial || !strings.Contains(q.Note, "first output (320x240)") {
		t.Errorf("quality %+v does not say of which output it is", q)
	}
	made := run.Snapshot().Encode.Renditions
	if len(made) != 2 {
		t.Fatalf("got renditions %+v, want two", made)
	}
	for i, want := range []job.Rendition{
		{Output: filepath.Join(dir, "x-320x240.mp4"), Width: 320, Height: 240}, {Output: filepath.Join(dir, "x-160x120.mp4"), Width: 160, Height: 120},
	} {
		got := made[i]
		if got.Output != want.Output || got.Width != want.Width || got.Height != want.Height || got.Encoder != "libx264" || got.Frames != 25 || got.SizeBytes <= 0 || got.Seconds != 1 ||
			got.BitrateKbps != float64(got.SizeBytes)*8/1000 || got.Quality == nil || got.Quality.PSNR == nil {
			t.Errorf("got rendition %+v, want %s with its figures and its own quality", got, want.Output)
		}
	}
	if *made[0].Quality.PSNR == *made[1].Quality.PSNR {
		t.Error("both outputs have the same PSNR")
	}
	inputs := 0
	for _, a := range e.Args {
		if a == "-i" {
			inputs++
		}
	}
	if inputs != 1 {
		t.Errorf("%d inputs: %v", inputs, e.Args)
	}
}

// TestStoppedLadderReportsOutputs: in files of which FFmpeg tells the first one's
// size alone.
func TestStoppedLadderReportsOutputs(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	run := r.Begin(lease(t, "ladder", `{"fps":25,"preset":"ultrafast","duration":86400,"audio_codec":"none","output":"x.ts",
		"outputs":[{"resolution":"160x120","bitrate":"50k"},{"resolution":"640x480","bitrate":"2000k"}]}`))
	running(t, run)
	until(t, "a size of the first output", func() bool { return run.Snapshot().Encode.Progress.SizeBytes > 0 })
	if e := run.Snapshot().Encode; e.SizeBytes != 0 || e.Frames != 2*e.Progress.Frames {
		t.Errorf("while both are written, %d bytes, which is not known, and %d frames, of which the first has %d", e.SizeBytes, e.Frames, e.Progress.Frames)
	}
	run.Stop(job.StopCanceled)
	if err := run.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	e := run.Snapshot().Encode
	if first := run.Snapshot().Encode.Progress.SizeBytes; e.SizeBytes < 3*first || e.Frames != 2*e.Progress.Frames {
		t.Errorf("%d bytes in two files, the larger second among them, of which the first has %d; %d frames", e.SizeBytes, first, e.Frames)
	}
	if err := run.Check(testContext(t)); err == nil || run.Snapshot().Encode.SizeBytes != e.SizeBytes {
		t.Errorf("checked with %v, then %d bytes instead of %d", err, run.Snapshot().Encode.SizeBytes, e.SizeBytes)
	}
}

func TestBadInputsAreInputErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	whole, err := os.ReadFile(clip(t, filepath.Join(dir, "whole.mp4"), "6", "-movflags", "+faststart"))
	if err != nil {
		t.Fatal(err)
	}
	noise := append([]byte(nil), whole...)
	for i := strings.Index(string(noise), "mdat") + 8; i < len(noise); i++ {
		noise[i] = byte(i * 7919 >> 3)
	}
	fifo := filepath.Join(dir, "fifo.mp4")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	sound := filepath.Join(dir, "sound.wav")
	clip(t, filepath.Join(dir, "x.mp4"), "1", "-vn", "-map", "1:a", sound)

	root := t.TempDir()
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{root} })
	text := strings.Repeat("all work and no play makes a dull input\n", 200)
	for name, input := range map[string]string{
		"missing":             filepath.Join(dir, "missing.mp4"),
		"missing, relative":   "missing.mp4",
		"folder":              dir,
		"pipe":                fifo,
		"empty":               write("empty.mp4", nil),
		"text":                write("text", []byte(text)),
		"text named as such":  write("notes.txt", []byte(text)),
		"text named as film":  write("notes.mp4", []byte(text)),
		"text as subtitles":   write("notes.srt", []byte("1\n00:00:00,000 --> 00:00:01,000\nhello\n")),
		"script":              write("list.ffconcat", []byte("ffconcat version 1.0\nfile whole.mp4\n")),
		"noise":               write("noise.mp4", noise),
		"index cut off":       write("head.mp4", whole[:200]),
		"breaks off":          write("half.mp4", whole[:len(whole)/2]),
		"sound alone":         sound,
		"below a file":        filepath.Join(dir, "notes.txt", "x.mp4"),
		"a URL of a file":     "file://" + filepath.Join(dir, "missing.mp4"),
		"a name with options": filepath.Join(dir, "-f.mp4"),
	} {
		t.Run(name, func(t *testing.T) {
			run := r.Begin(lease(t, name, `{`+small+`,"input":`+quoted(input)+`,"output":`+quoted(filepath.Join(root, "o.mp4"))+`}`))
			f := wantFailure(t, walk(testContext(t), run), protocol.ReasonInputError)
			if !strings.Contains(f.Message, "input") {
				t.Errorf("message: %s", f.Message)
			}
			if names := listing(t, root); names != "" {
				t.Errorf("left behind: %s", names)
			}
		})
	}
}

func TestMissingFFmpegIsPlatformError(t *testing.T) {
	t.Parallel()
	r := newRunner(t, func(s *Settings) { s.FFmpeg = "/nonexistent/ffmpeg" })
	f := wantFailure(t, r.Begin(lease(t, "x", `{}`)).Prepare(testContext(t)), protocol.ReasonPlatformError)
	if !strings.Contains(f.Message, "/nonexistent/ffmpeg") {
		t.Errorf("message: %s", f.Message)
	}
}

func TestMissingInputIsUserError(t *testing.T) {
	t.Parallel()
	r := newRunner(t, func(s *Settings) { s.GenerateInput = false })
	wantFailure(t, r.Begin(lease(t, "x", `{}`)).Prepare(testContext(t)), protocol.ReasonUserError)
}

func TestInputThatIsNoURLShowsNoSecret(t *testing.T) {
	t.Parallel()
	for id, input := range map[string]string{
		"user": "//bob:hunter2222@host/film.mp4", "query": "/films/x.mp4?X-Amz-Signature=hunter2222", "short": "/films/x.mp4?key=hunter2222#",
	} {
		e, err := finished(t, newRunner(t), id, `{"input":`+quoted(input)+`}`)
		if shown := fmt.Sprint(err, e.Input, e.Args, e.Notes, e.Log); err == nil || strings.Contains(shown, "hunter2222") {
			t.Errorf("%s: got %s, want an error without the secret", id, shown)
		}
	}
}

func TestKilledFFmpegIsNamedBySignal(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	run := r.Begin(endless(t, "victim"))
	p := running(t, run)
	if used, ok := run.CPUTime(); !ok || used < 0 {
		t.Errorf("usage while it runs: %v %v", used, ok)
	}
	if s := run.Snapshot(); s.Phase() != job.PhaseRun {
		t.Errorf("phase is %s", s.Phase())
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f := wantFailure(t, conclude(testContext(t), run), protocol.ReasonRuntimeError)
	if e := run.Snapshot().Encode; e.Signal != "SIGKILL" || !strings.Contains(f.Message, "SIGKILL") || e.ExitCode != nil {
		t.Errorf("signal %q, message %q, exit code %v", e.Signal, f.Message, e.ExitCode)
	}
	if e := run.Snapshot().Encode; e.Pixels != e.Frames*160*120 || e.Frames == 0 {
		t.Errorf("measured so far: %d frames, %d pixels", e.Frames, e.Pixels)
	}
}

func TestStopEndsTheRunAndKeepsItsFirstCause(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	run := r.Begin(endless(t, "stopped"))
	running(t, run)
	run.Stop(job.StopShutdown)
	run.Stop(job.StopCanceled)
	f := wantFailure(t, conclude(testContext(t), run), protocol.ReasonPlatformError)
	if run.stopCause() != job.StopShutdown || f.Message != "interrupted: agent shutting down" {
		t.Errorf("cause %s, message %s", run.stopCause(), f.Message)
	}
	if e := run.Snapshot().Encode; e.ExitCode == nil || *e.ExitCode != 255 {
		t.Errorf("ffmpeg was not asked to end: exit %v, signal %s", e.ExitCode, e.Signal)
	}
}

func TestStopEndsSyntheticInput(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	run := r.Begin(lease(t, "slow", `{"resolution":"8192x8192","fps":300}`))
	done := make(chan error, 1)
	ctx := testContext(t)
	go func() { done <- run.Prepare(ctx) }()
	until(t, "an input being made", func() bool {
		info, err := os.Stat(filepath.Join(run.workspace, syntheticName))
		return err == nil && info.Size() >= 0
	})
	run.Stop(job.StopCanceled)
	wantFailure(t, <-done, protocol.ReasonPlatformError)
	if _, err := run.Start(ctx); err == nil {
		t.Error("a stopped run was started")
	}
}

func TestStopBeforePrepare(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	run := r.Begin(lease(t, "early", `{}`))
	run.Stop(job.StopSuperseded)
	wantFailure(t, walk(testContext(t), run), protocol.ReasonPlatformError)
	if _, err := os.Stat(run.workspace); err == nil {
		t.Error("a workspace was made")
	}
}

func TestJobsOwnTimeout(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	l := endless(t, "late")
	l.Job.Parameters["resolution"], l.Job.Parameters["fps"] = "64x64", 5 // the input is made within the same time
	l.Job.Parameters["resource_limits"] = map[string]any{"timeout_sec": "2.5"}
	run := r.Begin(l)
	f := wantFailure(t, walk(testContext(t), run), protocol.ReasonTimeout)
	if run.stopCause() != job.StopTimeout || !strings.Contains(f.Message, "2.5s") {
		t.Errorf("cause %s, message %s", run.stopCause(), f.Message)
	}
}

func TestStalledSIGSTOPedFFmpegIsKilled(t *testing.T) {
	t.Parallel()
	r := newRunner(t, func(s *Settings) { s.StallTimeout = 1500 * time.Millisecond })
	run := r.Begin(endless(t, "stalled"))
	p := running(t, run)
	if err := syscall.Kill(p.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, conclude(testContext(t), run), protocol.ReasonTimeout)
	if run.stopCause() != job.StopStalled {
		t.Errorf("cause %s", run.stopCause())
	}
}

func TestEndOfContextEndsFFmpeg(t *testing.T) {
	t.Parallel()
	run := newRunner(t).Begin(endless(t, "given up"))
	p := running(t, run)
	given, giveUp := context.WithCancel(context.Background())
	giveUp()
	if err := run.Wait(given); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	if err := syscall.Kill(p.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("ffmpeg still runs: %v", err)
	}
}

func TestCloseStopsRunAndCleansUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{dir} })
	l := endless(t, "closed")
	l.Job.Parameters["output"] = filepath.Join(dir, "o.mp4")
	run := r.Begin(l)
	p := running(t, run)
	if err := run.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("ffmpeg is still there: %v", err)
	}
	if names := listing(t, dir); names != "" {
		t.Errorf("left behind: %s", names)
	}
	if err := run.Check(testContext(t)); err == nil {
		t.Error("a closed run was checked as good")
	}
}

func TestClosedRunnerStartsNothing(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	if err := r.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	run := r.Begin(lease(t, "x", `{}`))
	wantFailure(t, run.Prepare(testContext(t)), protocol.ReasonPlatformError)
	if err := run.Close(testContext(t)); err != nil {
		t.Error(err)
	}
}

func TestBadOutputKeepsExistingFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "o.mp4")
	if err := os.WriteFile(out, []byte("the one before"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{dir} })
	l := endless(t, "bad")
	l.Job.Parameters["output"] = out
	bad := r.Begin(l)
	running(t, bad)
	bad.Stop(job.StopCanceled)
	if err := conclude(testContext(t), bad); err == nil {
		t.Fatal("a stopped run was good")
	}
	if raw, _ := os.ReadFile(out); string(raw) != "the one before" {
		t.Error("a bad run touched the output")
	}
	if names := listing(t, dir); names != "o.mp4" {
		t.Errorf("the folder holds %s", names)
	}
	good := r.Begin(lease(t, "good", `{`+small+`,"duration":1,"output":`+quoted(out)+`}`))
	if err := walk(testContext(t), good); err != nil {
		t.Fatal(err)
	}
	if raw, _ := os.ReadFile(out); len(raw) < 1000 {
		t.Error("a good run left the output as it was")
	}
}

func TestKeptFilesOutliveTheWorkspace(t *testing.T) {
	t.Parallel()
	r := newRunner(t, func(s *Settings) { s.KeepInputs, s.KeepOutputs = true, true })
	run := r.Begin(lease(t, "../kept", `{`+small+`,"duration":1}`))
	ctx := testContext(t)
	if err := walk(ctx, run); err != nil {
		t.Fatal(err)
	}
	if err := run.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(run.Snapshot().Encode.Output); err != nil {
		t.Error(err)
	}
	if names := listing(t, filepath.Join(r.settings().DataDir, inputsDir)); !strings.HasSuffix(names, ".mov") {
		t.Errorf("kept inputs: %q", names)
	}
}

func TestQualityIgnoresContainerTimebase(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	ctx := testContext(t)
	measured := map[string]float64{}
	for _, ext := range []string{"mp4", "mkv", "flv"} { // the latter two round times to the millisecond
		run := r.Begin(lease(t, ext, `{"resolution":"320x240","fps":30,"preset":"veryfast","bitrate":"500k","duration":1,"quality":"psnr","output":"x.`+ext+`"}`))
		if err := walk(ctx, run); err != nil {
			t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
		}
		q := run.Measure(ctx)
		if q.PSNR == nil {
			t.Fatalf("%s: quality %+v", ext, q)
		}
		measured[ext] = *q.PSNR
	}
	for ext, db := range measured {
		if d := db - measured["mp4"]; d > 0.5 || d < -0.5 {
			t.Errorf("the same encode has %.1f dB in %s and %.1f dB in mp4", db, ext, measured["mp4"])
		}
	}
}

func TestBrokenFFprobeIsNotReady(t *testing.T) {
	t.Parallel()
	r := newRunner(t, func(s *Settings) { s.FFprobe = "false" })
	if err := r.Ready(testContext(t)); err == nil || !strings.Contains(err.Error(), "false") {
		t.Errorf("ready: %v", err)
	}
}

// TestUnreadableOutputIsExplained: what ffprobe says about it is in the failure.
func TestUnreadableOutputIsExplained(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "ffmpeg")
	script := "#!/bin/bash\nffmpeg \"$@\" || exit\nfor a; do case $a in file:/proc/self/fd/*) truncate -s 0 \"${a#file:}\" ;; esac; done\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := finished(t, newRunner(t, func(s *Settings) { s.FFmpeg = program }), "garbage", `{`+small+`}`)
	f := wantFailure(t, err, protocol.ReasonRuntimeError)
	if !strings.Contains(f.Message, "cannot be read: Invalid data found when processing input") {
		t.Errorf("message is %q, want ffprobe's error in it", f.Message)
	}
}

// TestGrowingInputIsNotDamaged: a recording goes on while it is encoded.
func TestGrowingInputIsNotDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	film, err := os.ReadFile(clip(t, filepath.Join(dir, "film.mkv"), "6"))
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]int{"still growing": len(film) * 3 / 4, "grown": len(film)} {
		in := filepath.Join(dir, name+".mkv")
		if err := os.WriteFile(in, film[:len(film)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		run := newRunner(t).Begin(lease(t, name, `{`+small+`,"input":`+quoted(in)+`}`))
		if err := run.Prepare(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in, film[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := encode(testContext(t), run); err != nil {
			t.Errorf("%s: got %v, want completed", name, err)
		}
		if noted := strings.Contains(strings.Join(run.Snapshot().Encode.Notes, " "), "still growing"); noted != (end < len(film)) {
			t.Errorf("%s: got notes %q", name, run.Snapshot().Encode.Notes)
		}
	}
}
