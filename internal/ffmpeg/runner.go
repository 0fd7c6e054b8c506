// Package ffmpeg runs one FFmpeg for a job and checks what it wrote: parameters to
// argument vector, workspace and synthetic input, process and progress, checks, quality,
// and why an attempt failed.
//
// It depends on neither master nor energy, keeps no record beyond the workspace, and does not
// repeat an encode: it reports what happened. How processes are held is up to hardware/proc; each has
// a process group of its own, gets nothing of the agent's environment but a few variables,
// and is killed with the agent.
package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/internal/fetch"
	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"

	"go.uber.org/zap"
)

// Settings of a Runner. A zero field takes the default in its comment; DataDir has none.
type Settings struct {
	FFmpeg, FFprobe string // names looked up in PATH for each job, or paths; ffmpeg and ffprobe
	DataDir         string // workspaces are in DataDir/work
	MasterHost      string // destination of streams without a URL

	GenerateInput bool          // make a synthetic input for a job that names none
	Timeout       time.Duration // of the encode of a job that sets none; 1 h
	StallTimeout  time.Duration // without progress; 60 s
	StopGrace     time.Duration // between SIGTERM and SIGKILL; 10 s
	StopSlack     time.Duration // how much longer than StopGrace a stopped step may take; 10 s

	KeepInputs  bool // keep synthetic inputs in DataDir/inputs
	KeepOutputs bool // keep outputs without an absolute name in DataDir/outputs

	AcceptDamaged  bool              // damage to an input is noted and fails no job that does not say otherwise
	EngineFallback bool              // jobs for engine gstreamer are run too
	PreferHardware bool              // jobs that name a codec and no encoder use a proved hardware encoder
	DefaultPresets map[string]string // by codec, of jobs that name none; h264 and h265 fast, av1 8, vp9 good/4

	OutputRoots []string      // where outputs may be, beside the workspace and the temporary folder
	Inputs      *reach.Policy // what inputs may reach; nil: reach.DefaultPolicy

	InputFormats []string // demuxers that inputs may use; empty: selfContained

	StreamInputs bool // FFmpeg reads inputs over http itself; they are not fetched
	// MinFreeDisk is the disk space that jobs leave free, of a capacity, in bytes; nil: 0.
	MinFreeDisk func(capacity uint64) uint64

	// Hardware returns what trial encodes depend on beside FFmpeg, such as kernel, cards and
	// drivers: results are cached for one such text. It may block. nil: nothing.
	Hardware func() string

	// Private are files and folders that no FFmpeg may read, wherever they are; DataDir is one by
	// itself, but for the job's own workspace.
	Private []string

	Ceilings Ceilings        // of every job
	Sandbox  SandboxSettings // around each FFmpeg and ffprobe; a zero Mode is off

	Nice   int // added to the agent's own, 0 to 19
	Logger *zap.Logger
}

func (s *Settings) complete() error {
	if s.DataDir == "" {
		return errors.New("no data folder")
	}
	dir, err := filepath.Abs(s.DataDir)
	if err != nil {
		return fmt.Errorf("finding the data folder: %w", err)
	}
	s.DataDir = dir
	if s.Nice < 0 || s.Nice > 19 {
		return fmt.Errorf("nice %d is not within 0 and 19", s.Nice)
	}
	for _, d := range []struct {
		of       *string
		standard string
	}{{&s.FFmpeg, "ffmpeg"}, {&s.FFprobe, "ffprobe"}} {
		if *d.of == "" {
			*d.of = d.standard
		}
	}
	for _, d := range []struct {
		of       *time.Duration
		standard time.Duration
	}{{&s.Timeout, time.Hour}, {&s.StallTimeout, time.Minute}, {&s.StopGrace, 10 * time.Second}, {&s.StopSlack, 10 * time.Second}} {
		if *d.of <= 0 {
			*d.of = d.standard
		}
	}
	s.Ceilings = s.Ceilings.withDefaults()
	s.Timeout = min(s.Timeout, s.Ceilings.Timeout)
	if s.Sandbox.Mode == "" {
		s.Sandbox.Mode = SandboxOff
	}
	if s.Inputs == nil {
		s.Inputs = reach.DefaultPolicy()
	}
	if s.Hardware == nil {
		s.Hardware = func() string { return "" }
	}
	if err := s.checkDefaultPresets(); err != nil {
		return err
	}
	if s.Logger == nil {
		s.Logger = zap.NewNop()
	}
	return nil
}

// Runner runs FFmpeg for attempts. It is safe for concurrent use.
type Runner struct {
	configured   atomic.Pointer[configured]
	log          *zap.Logger
	work         workspaces
	cgroups      proc.CgroupParent
	sandboxes    sandboxes
	assignedCPUs atomic.Uint32 // CPUs given to jobs so far, see nextCPUs

	trying       chan struct{} // held during trial encodes
	trials       atomic.Pointer[Trials]
	trialTimeout time.Duration

	querying chan struct{} // held while FFmpeg's capabilities are queried; guards the two below
	capsKey  string
	caps     Capabilities

	mu     sync.Mutex
	runs   map[*Run]struct{} // not closed
	closed bool
}

// New makes a runner. FFmpeg need not be installed yet: each job looks for it.
func New(s Settings) (*Runner, error) {
	if err := s.complete(); err != nil {
		return nil, fmt.Errorf("setting up FFmpeg: %w", err)
	}
	r := &Runner{
		log:          s.Logger,
		work:         workspaces{dir: filepath.Join(s.DataDir, workDir)},
		cgroups:      proc.FindCgroupParent(cgroupNames(s.DataDir)),
		trying:       make(chan struct{}, 1),
		trialTimeout: trialTimeout,
		querying:     make(chan struct{}, 1),
		sandboxes:    sandboxes{settings: s.Sandbox, log: s.Logger},
		runs:         map[*Run]struct{}{},
	}
	if err := r.Reconfigure(s); err != nil {
		return nil, err
	}
	return r, nil
}

// configured is what a run begins with.
type configured struct {
	settings Settings
	fetcher  *fetch.Fetcher
}

// Reconfigure makes later runs use other settings. DataDir and Logger stay what they were.
// After an error nothing has changed.
func (r *Runner) Reconfigure(s Settings) error {
	if err := s.complete(); err != nil {
		return fmt.Errorf("setting up FFmpeg: %w", err)
	}
	fetcher, err := fetch.New(fetch.Settings{Policy: s.Inputs, StallTimeout: s.StallTimeout, Log: s.Logger.Named("fetch")})
	if err != nil {
		return fmt.Errorf("setting up the fetching of inputs: %w", err)
	}
	private := append(slices.DeleteFunc(slices.Clone(s.Private), func(path string) bool { return path == "" }), s.DataDir)
	r.sandboxes.private.Store(&private)
	if old := r.configured.Swap(&configured{s, fetcher}); old != nil {
		old.fetcher.Close() // its idle connections
	}
	return nil
}

// settings are those of runs that begin now.
func (r *Runner) settings() *Settings { return &r.configured.Load().settings }

// Cgroups describes where the cgroups of jobs are, for people.
func (r *Runner) Cgroups() string {
	if r.cgroups.Dir == "" {
		return "none: " + r.cgroups.Unavailable
	}
	said := "one for each job below " + r.cgroups.Dir
	if len(r.cgroups.Controllers) > 0 {
		said += ", limits on " + strings.Join(r.cgroups.Controllers, ", ")
	} else {
		said += ", without limits: " + r.cgroups.Missing
	}
	return said
}

// Begin returns a new run for a lease. It starts nothing and does not block; on a
// closed runner the steps of the run fail.
func (r *Runner) Begin(lease job.Lease) *Run {
	run := newRun(r, lease)
	r.mu.Lock()
	defer r.mu.Unlock()
	run.closed = r.closed
	if !r.closed {
		r.runs[run] = struct{}{}
	}
	return run
}

func (r *Runner) forget(run *Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.runs, run)
}

// maxStuck is how many runs may wait for file systems that do not answer, each with threads and
// files, before no more jobs are taken.
const maxStuck = 16

// countStuck is the number of runs of which something was given up that has not ended.
func (r *Runner) countStuck() (n int) {
	for _, run := range r.open() {
		if run.stuck.Load() {
			n++
		}
	}
	return n
}

// open returns the runs that are not closed.
func (r *Runner) open() []*Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.runs))
}

// owned reports whether a workspace belongs to a run that is not closed.
func (r *Runner) owned(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for run := range r.runs {
		if run.name == name {
			return true
		}
	}
	return false
}

// Close closes all runs and takes no more. When the context ends first it returns
// its error, and the runs go on closing.
func (r *Runner) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	var closing sync.WaitGroup
	runs := r.open()
	errs := make([]error, len(runs))
	for i, run := range runs {
		closing.Go(func() { errs[i] = run.Close(ctx) })
	}
	closing.Wait()
	r.configured.Load().fetcher.Close()
	return errors.Join(errs...)
}
