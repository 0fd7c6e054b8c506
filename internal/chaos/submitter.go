package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// openJobsPerAgent is how many jobs the master is to have open for each agent.
const openJobsPerAgent = 2

// submitter keeps jobs of a second or three coming.
type submitter struct {
	master    *master
	outputs   string
	clip      string // an input, clipLength of it
	corrupt   string // an input that is none
	random    *rand.Rand
	agents    int
	paused    atomic.Bool
	submitted int
}

const (
	clipLength = 8 // seconds
	clipRate   = 25
)

// newSubmitter makes the files that jobs read.
func newSubmitter(ctx context.Context, dir, outputs string, seed uint64, agents int, m *master) (*submitter, error) {
	f := &submitter{
		master: m, outputs: outputs, clip: filepath.Join(dir, "clip.mp4"), corrupt: filepath.Join(dir, "broken.mp4"),
		random: rand.New(rand.NewPCG(seed, 2)), agents: agents,
	}
	out, err := exec.CommandContext(ctx, "ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i",
		fmt.Sprintf("testsrc2=size=320x180:rate=%d:duration=%d", clipRate, clipLength), "-preset", "ultrafast", f.clip).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("making an input: %w: %s", err, out)
	}
	return f, os.WriteFile(f.corrupt, []byte("this is no film, whatever its name says\n"), 0o644)
}

// run feeds the master until the context ends.
func (f *submitter) run(ctx context.Context) {
	ticker := time.NewTicker(300 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		openJobs, err := f.master.pollJobs(ctx)
		for err == nil && !f.paused.Load() && len(openJobs) < openJobsPerAgent*f.agents {
			var job *Job
			if job, err = f.submit(ctx); err == nil {
				openJobs = append(openJobs, protocol.Job{ID: job.ID})
			}
		}
	}
}

// submit submits an ordinary job: of a made input, of a file, or of one that is fetched, with a named output or
// without, one rendition or two.
func (f *submitter) submit(ctx context.Context) (*Job, error) {
	f.submitted++
	job := Job{}
	p := map[string]any{"resolution": "320x180", "bitrate": "100k", "preset": "veryfast", "codec": "h264"}
	length, rate := 20+f.random.IntN(30), 30
	if f.random.IntN(3) == 0 {
		length, rate = clipLength, clipRate
		p["input"], p["preset"] = f.clip, "slow"
		if f.random.IntN(3) > 0 {
			p["input"] = filmHost + clipFilm
		}
	} else {
		p["duration"] = length
	}
	p["fps"] = rate
	if f.random.IntN(6) == 0 {
		p["quality"] = "psnr"
	}
	if f.random.IntN(2) == 0 {
		job.Output = filepath.Join(f.outputs, fmt.Sprintf("job-%d%s", f.submitted, []string{".mp4", ".mkv"}[f.random.IntN(2)]))
		p["output"] = job.Output
		// Noted first: a response that gets lost does not keep the job from running.
		f.master.recorder.update(func(h *History) { h.RequestedOutputs[job.Output] = length * rate })
	} else if f.random.IntN(6) == 0 {
		p["outputs"] = []map[string]any{{"resolution": "320x180", "bitrate": "100k"}, {"resolution": "160x90", "bitrate": "50k"}}
	}
	return f.master.submit(ctx, protocol.JobRequest{Scenario: "chaos-h264", Parameters: p}, job)
}
