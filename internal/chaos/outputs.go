package chaos

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// inspector looks at each final output as soon as it stands under its name.
type inspector struct {
	dir      string
	recorder *recorder
	seen     map[string]fileVersion // by path
	jobs     map[string]*Job        // by path
}

// fileVersion distinguishes files that have had the same name.
type fileVersion struct {
	size     int64
	modified time.Time
}

func newInspector(dir string, recorder *recorder) *inspector {
	return &inspector{dir: dir, recorder: recorder, seen: map[string]fileVersion{}, jobs: map[string]*Job{}}
}

// run inspects until the context ends.
func (i *inspector) run(ctx context.Context) {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			i.inspect(ctx)
		}
	}
}

// inspect inspects what is new. A file that an agent is still writing has another name,
// which begins with a dot.
func (i *inspector) inspect(ctx context.Context) {
	entries, _ := os.ReadDir(i.dir)
	for _, e := range entries {
		path := filepath.Join(i.dir, e.Name())
		info, err := e.Info()
		if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") || e.Name() == ballast {
			continue
		}
		id := fileVersion{info.Size(), info.ModTime()}
		if i.seen[path] == id {
			if i.jobDone(path) {
				_ = os.Remove(path)
			}
			continue
		}
		problem := "no job names it"
		if frames, requested := i.requested(path); requested {
			problem = checkVideo(ctx, path, frames)
		}
		if ctx.Err() != nil {
			return
		}
		if after, err := os.Stat(path); err != nil || (fileVersion{after.Size(), after.ModTime()}) != id {
			if problem != "" && err == nil && os.SameFile(info, after) {
				problem = "it changed while it stood under its final name"
			} else {
				continue // another attempt's took its place: that one is looked at next
			}
		}
		i.seen[path] = id
		o := Output{Path: path, Problem: problem}
		if job := i.jobOf(path); job != nil {
			o.Job = job.ID
		}
		i.recorder.update(func(h *History) { h.Outputs = append(h.Outputs, o) })
	}
}

// jobDone reports whether a file's job has ended for good.
func (i *inspector) jobDone(path string) (done bool) {
	job := i.jobOf(path)
	i.recorder.update(func(*History) { done = job != nil && (job.Status.Terminal() || job.Forgotten) })
	return done
}

// requested returns how many frames a file should have, and whether a submission names it.
func (i *inspector) requested(path string) (frames int, named bool) {
	i.recorder.update(func(h *History) { frames, named = h.RequestedOutputs[path] })
	return frames, named
}

// jobOf returns the job that names a file; nil if none is known.
func (i *inspector) jobOf(path string) *Job {
	if j := i.jobs[path]; j != nil {
		return j
	}
	i.recorder.update(func(h *History) {
		for _, j := range h.Jobs {
			if j.Output != "" {
				i.jobs[j.Output] = j
			}
		}
	})
	return i.jobs[path]
}

// checkVideo returns what is wrong with a video, as found by ffprobe; empty if it is readable
// and has the expected number of frames.
func checkVideo(ctx context.Context, path string, frames int) string {
	const tolerance = 2 // frames
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "ffprobe", "-v", "level+error", "-select_streams", "v:0", "-count_packets",
		"-show_entries", "stream=nb_read_packets", "-of", "json", path)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if logged := loggedErrors(stderr.String()); err != nil || logged != "" {
		return fmt.Sprintf("cannot be read: %s", cmp.Or(logged, fmt.Sprint(err)))
	}
	var probed struct {
		Streams []struct {
			Packets string `json:"nb_read_packets"`
		}
	}
	if json.Unmarshal(out, &probed) != nil || len(probed.Streams) != 1 {
		return "cannot be read: ffprobe found no video"
	}
	n, err := strconv.Atoi(probed.Streams[0].Packets)
	if err != nil || n < frames-tolerance || n > frames+tolerance {
		return fmt.Sprintf("has %d frames instead of %d", n, frames)
	}
	return ""
}

// loggedErrors returns the lines that ffprobe logged as errors. For a truncated file it may
// log one and exit with 0. Lines without a level are from its libraries, and no sign of
// damage.
func loggedErrors(stderr string) string {
	var errs []string
	for line := range strings.Lines(stderr) {
		for _, level := range []string{"[error] ", "[fatal] ", "[panic] "} {
			if strings.Contains(line, level) {
				errs = append(errs, strings.TrimSpace(line))
				break
			}
		}
	}
	return strings.Join(errs, "; ")
}
