package chaos

import (
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

// fileVersion tells one file under a name from the next.
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
		job := i.jobOf(path)
		problem := "no job names it"
		if job != nil {
			problem = videoProblem(ctx, path, job.Frames)
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
		if job != nil {
			o.Job = job.ID
		}
		i.recorder.update(func(h *History) { h.Outputs = append(h.Outputs, o) })
	}
}

// jobDone reports whether nothing more will come of a file's job.
func (i *inspector) jobDone(path string) (done bool) {
	job := i.jobOf(path)
	i.recorder.update(func(*History) { done = job != nil && (job.Status.Terminal() || job.Forgotten) })
	return done
}

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

// videoProblem asks ffprobe whether a film has as many frames as it should; what is wrong
// with it otherwise.
func videoProblem(ctx context.Context, path string, frames int) string {
	out, err := exec.CommandContext(ctx, "ffprobe", "-v", "error", "-select_streams", "v:0", "-count_packets",
		"-show_entries", "stream=nb_read_packets", "-of", "json", path).CombinedOutput()
	var probed struct {
		Streams []struct {
			Packets string `json:"nb_read_packets"`
		}
	}
	if err != nil || json.Unmarshal(out, &probed) != nil || len(probed.Streams) != 1 {
		return fmt.Sprintf("it cannot be read: %s", strings.TrimSpace(string(out)))
	}
	n, err := strconv.Atoi(probed.Streams[0].Packets)
	if err != nil || n < frames-2 || n > frames+2 {
		return fmt.Sprintf("it has %d frames instead of %d", n, frames)
	}
	return ""
}
