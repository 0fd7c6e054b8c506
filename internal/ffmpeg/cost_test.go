package ffmpeg

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkJob compares jobs on a local file with FFmpeg alone, with the same arguments but
// those that report: in turns, by their medians. job/bare takes all of the job, encode/bare
// FFmpeg's own time in it.
func BenchmarkJob(b *testing.B) {
	dir := b.TempDir()
	in := filepath.Join(dir, "in.mp4")
	make := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=1280x720:r=30:d=60", "-f", "lavfi", "-i", "sine=d=60",
		"-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac", in)
	if out, err := make.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	r, err := New(Settings{DataDir: filepath.Join(dir, "data"), OutputRoots: []string{dir}})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close(b.Context())
	if _, err := r.Capabilities(b.Context()); err != nil {
		b.Fatal(err)
	}
	var jobs, encodes, bare []time.Duration
	for b.Loop() {
		begun := time.Now()
		run := r.Begin(lease(b, "cost", `{"preset":"fast","input":`+quoted(in)+`,"output":`+quoted(filepath.Join(dir, "out.mp4"))+`}`))
		if err := walk(b.Context(), run); err != nil {
			b.Fatal(err)
		}
		jobs = append(jobs, time.Since(begun))
		e := run.Snapshot().Encode
		encodes = append(encodes, e.Wall())
		if err := run.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		begun = time.Now()
		args := []string{"-nostdin", "-v", "error", "-y", "-i", in}
		args = append(args, e.Args[slices.Index(e.Args, "-map"):len(e.Args)-1]...)
		if out, err := exec.Command("ffmpeg", append(args, filepath.Join(dir, "bare.mp4"))...).CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		bare = append(bare, time.Since(begun))
	}
	b.ReportMetric(float64(median(jobs))/float64(median(bare)), "job/bare")
	b.ReportMetric(float64(median(encodes))/float64(median(bare)), "encode/bare")
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
