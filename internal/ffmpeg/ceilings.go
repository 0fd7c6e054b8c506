package ffmpeg

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Ceilings are the operator's limits of every job (jobs.limits). A job may ask for less. A
// zero field takes the default in its comment.
type Ceilings struct {
	Memory      int64         // bytes, of all processes of a job; none
	Disk        int64         // bytes written by a job, its workspace included; none
	OutputBytes int64         // bytes of a job's outputs together; none
	Pixels      int64         // of one picture of each output, together; 16384x16384
	Outputs     int           // of a job; 16, which is also the maximum
	Duration    time.Duration // of a job's media; 24 h, which is also the maximum
	Timeout     time.Duration // of a job; 7 days, which is also the maximum
}

func (c Ceilings) withDefaults() Ceilings {
	c.Pixels = cmp.Or(c.Pixels, maxSide*maxSide)
	c.Outputs = cmp.Or(c.Outputs, maxOutputs)
	c.Duration = cmp.Or(c.Duration, maxDuration)
	c.Timeout = cmp.Or(c.Timeout, maxTimeout)
	return c
}

// checkPixels refuses a job whose outputs have too large pictures, as far as their sizes are
// known.
func (pl *planner) checkPixels(renditions []rendition) {
	var sum int64
	for _, r := range renditions {
		sum += r.size.pixels()
	}
	if most := pl.ceilings.Pixels; sum > most {
		pl.problem("resolution", "%d pixels per picture over all outputs, but jobs.limits.pixels allows %d", sum, most)
	}
}

// checkLength refuses an input that is to be encoded whole and is too long.
func (pl *planner) checkLength(whole bool) {
	if most := pl.ceilings.Duration; whole && pl.hasInput && pl.source.length > most+time.Second {
		pl.problem("input", "%s long, more than the %s of jobs.limits.duration; a job can name a duration", pl.source.length.Round(time.Second), most)
	}
}

// mediaExceeded checks what an encode has made against the ceilings that cannot be checked
// before it starts: the length and the size of the pictures of inputs of which these were not
// known.
func (r *Run) mediaExceeded() *job.Failure {
	c := r.settings.Ceilings
	if made := time.Duration(r.Snapshot().Encode.Progress.OutTime); r.plan.whole && !r.plan.endsAtTimeout() && made > c.Duration+time.Second {
		return failure(protocol.ReasonResourceError, "more than %s encoded (jobs.limits.duration)", c.Duration)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var sum int64
	for _, s := range r.learned {
		sum += s.pixels()
	}
	if sum > c.Pixels {
		return failure(protocol.ReasonResourceError, "%d pixels per picture over all outputs, but jobs.limits.pixels allows %d", sum, c.Pixels)
	}
	return nil
}

// outputBytesExceeded checks the size of all outputs.
func (r *Run) outputBytesExceeded() *job.Failure {
	limit := r.settings.Ceilings.OutputBytes
	if limit == 0 {
		return nil
	}
	if bytes := r.outputBytes(r.Snapshot().Encode.Progress.SizeBytes); bytes > limit {
		return failure(protocol.ReasonResourceError, "output limit of %s exceeded: the outputs have %s (jobs.limits.output_bytes)", mebibytes(limit), mebibytes(bytes))
	}
	return nil
}

// outputBytes is the size of all outputs that are files and, of a job that streams, of what
// FFmpeg reports to have sent.
func (r *Run) outputBytes(sent int64) (bytes int64) {
	for _, t := range r.files.targets {
		if info, err := t.file.Stat(); err == nil { // of nil as well
			bytes += info.Size()
		} else if t.url != "" {
			bytes += sent
			sent = 0 // it is of the first output
		}
	}
	return bytes
}

// diskRate is more than machines write to a file system, in bytes per second.
const diskRate = 16 << 30

// diskGuarded checks the file systems that the attempt writes to: it must not take the space
// that is to stay free (jobs.min_free_disk). It returns how long the next check may wait.
func (r *Run) diskGuarded() (f *job.Failure, wait time.Duration) {
	if r.settings.MinFreeDisk == nil {
		return nil, maxCheckWait
	}
	left := uint64(math.MaxUint64) // of the fullest disk
	places := map[string]string{r.workspace: "workspace"}
	for _, t := range r.files.targets {
		if t.file != nil {
			places[filepath.Dir(t.temp)] = "output"
		}
	}
	for dir, what := range places {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			continue
		}
		free, capacity := s.Bavail*uint64(s.Bsize), s.Blocks*uint64(s.Bsize)
		least := r.settings.MinFreeDisk(capacity)
		if free < least {
			return failure(protocol.ReasonResourceError, "stopped before the disk of the %s is full: %s free, jobs.min_free_disk keeps %s free",
				what, mebibytes(int64(free)), mebibytes(int64(least))), checkInterval
		}
		left = min(left, free-least)
		if inodes := job.LeastInodes(s.Files); s.Ffree < inodes && least > 0 {
			return failure(protocol.ReasonResourceError, "stopped before the disk of the %s has no inode left: %d inodes free, %d needed (none where jobs.min_free_disk is 0)",
				what, s.Ffree, inodes), checkInterval
		}
	}
	return nil, checkWait(left, diskRate)
}

// byOperator names the key of a limit that the operator set.
func byOperator(key string, is bool) string {
	if !is {
		return ""
	}
	return fmt.Sprintf(" (jobs.limits.%s)", key)
}
