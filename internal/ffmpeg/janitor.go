package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/job"
)

// cgroupPrefix begins the name of every cgroup that an agent creates for an attempt.
const cgroupPrefix = "ffmpeg-agent-"

// cgroupNames is how the names of this agent's cgroups begin: the data directory distinguishes
// the agents of one machine.
func cgroupNames(dataDir string) string {
	id := fnv.New32a()
	_, _ = id.Write([]byte(dataDir))
	return fmt.Sprintf("%s%08x-", cgroupPrefix, id.Sum32())
}

// ownsCgroup reports whether a recorded path is a cgroup that an agent created: nothing
// else is ever killed or removed.
func ownsCgroup(path string) bool {
	return proc.IsCgroup(path) && strings.HasPrefix(filepath.Base(path), cgroupPrefix)
}

// Janitor removes what an earlier process of the agent left behind.
type Janitor struct{ runner *Runner }

// Janitor returns the janitor of this runner's data directory.
func (r *Runner) Janitor() *Janitor { return &Janitor{r} }

// Reap kills exactly the processes in the records, if they still run, with their process
// groups and cgroups, and waits until they are dead. A process of another boot, or with
// another start time, is a different one and left alone.
func (j *Janitor) Reap(ctx context.Context, records []job.Record) error {
	var errs []error
	for _, record := range records {
		if record.Process == nil {
			continue
		}
		id := proc.ID(*record.Process)
		err := id.Kill(ctx)
		if ownsCgroup(id.Cgroup) {
			err = errors.Join(err, proc.RemoveCgroup(id.Cgroup))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reaping attempt %s: %w", record.Key(), err))
		}
	}
	return errors.Join(errs...)
}

// Sweep removes workspaces and cgroups without an open run, and the temporary outputs of
// these workspaces, and returns the number of all.
func (j *Janitor) Sweep(ctx context.Context) (int, error) {
	w := &j.runner.work
	entries, err := os.ReadDir(w.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("listing workspaces: %w", err)
	}
	removed, err := j.runner.cgroups.Sweep(j.runner.owned)
	errs := []error{err}
	for _, e := range entries {
		if ctx.Err() != nil {
			return removed, errors.Join(append(errs, ctx.Err())...)
		}
		n, err := j.sweepOne(e.Name())
		removed += n
		if err != nil {
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

func (j *Janitor) sweepOne(name string) (int, error) {
	w := &j.runner.work
	temps, orphaned := j.orphan(name)
	if !orphaned {
		return 0, nil
	}
	removed, errs := removeTemps(temps)
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.runner.owned(name) { // meanwhile
		return removed, nil
	}
	if err := w.removeLocked(name, errs); err != nil {
		return removed, err
	}
	return removed + 1, nil
}

// orphan returns the temporary outputs of a workspace without an open run; false where it has one.
func (j *Janitor) orphan(name string) (temps []string, orphaned bool) {
	w := &j.runner.work
	w.mu.Lock() // a run is listed before it creates its workspace under this lock
	defer w.mu.Unlock()
	if j.runner.owned(name) {
		return nil, false
	}
	return readManifest(w.path(name)), true
}
