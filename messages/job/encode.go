package job

import (
	"time"
)

// Process identifies one process of the operating system for good: a pid is reused, a pid
// with its start time and boot is not.
type Process struct {
	PID int `json:"pid"`
	// StartTicks is the start time in clock ticks since boot: field 22 of /proc/PID/stat.
	StartTicks uint64 `json:"start_ticks"`
	BootID     string `json:"boot_id"`          // /proc/sys/kernel/random/boot_id
	Cgroup     string `json:"cgroup,omitempty"` // path of its own cgroup v2; empty: none
}

// Phase is the step that an attempt is at.
type Phase string

// The phases in their order. A job's energy is that of PhaseRun; that of PhaseFetch is
// reported apart.
const (
	PhasePrepare Phase = "prepare" // checks, workspace, synthetic input
	PhaseFetch   Phase = "fetch"   // the input is fetched over http; before and after it PhasePrepare
	PhaseRun     Phase = "run"     // FFmpeg runs
	PhaseCheck   Phase = "check"   // exit status, frames, duration, ffprobe, rename
	PhaseQuality Phase = "quality" // psnr, ssim, vmaf
	PhaseJournal Phase = "journal" // result to disk
)

// Progress is FFmpeg's progress, from its -progress pipe.
type Progress struct {
	At          time.Time `json:"at"`
	Percent     float64   `json:"percent"` // 0 to 100 of the media asked for; 0 while unknown
	Frames      int64     `json:"frames"`
	Dropped     int64     `json:"dropped"`
	FPS         float64   `json:"fps"`   // frames encoded a second; 0 while FFmpeg does not know it
	Speed       float64   `json:"speed"` // media seconds a second; 0 while unknown
	BitrateKbps float64   `json:"bitrate_kbps"`
	OutTime     Seconds   `json:"out_time_seconds"` // media time written so far
	SizeBytes   int64     `json:"size_bytes"`
}

// Fetch is the fetching of an input over http or https.
type Fetch struct {
	Started time.Time `json:"started"`
	Took    Seconds   `json:"took_seconds"` // so far
	Done    bool      `json:"done"`         // the input is complete
	Bytes   int64     `json:"bytes"`        // received and kept
	Total   int64     `json:"total"`        // bytes expected; -1: not known
	Resumed int       `json:"resumed"`
	// Of an HLS playlist: the segments that are complete, and all. 0 for a file.
	Segment  int `json:"segment,omitempty"`
	Segments int `json:"segments,omitempty"`
}

// StopCause is why an attempt is stopped. It decides the outcome.
type StopCause string

const (
	StopCanceled   StopCause = "canceled"   // by the user at the master
	StopSuperseded StopCause = "superseded" // the master reassigned the job: discard
	StopShutdown   StopCause = "shutdown"   // the agent shuts down: failed, platform_error
	StopTimeout    StopCause = "timeout"    // the job's time is up
	StopStalled    StopCause = "stalled"    // no progress for too long
	StopUnanswered StopCause = "unanswered" // a file system did not answer for too long
)

// Encode is one run of FFmpeg and what it made. A field that is not known yet is zero; a
// time is nil.
type Encode struct {
	Args     []string      `json:"args,omitempty"` // argument vector, stream keys and passwords hidden
	Encoder  string        `json:"encoder,omitempty"`
	Codec    string        `json:"codec,omitempty"`
	Scenario string        `json:"scenario,omitempty"`
	Bitrate  string        `json:"bitrate,omitempty"` // as asked: 2000k; empty where crf rules
	Width    int           `json:"width,omitempty"`   // px
	Height   int           `json:"height,omitempty"`  // px
	Started  *time.Time    `json:"started,omitempty"` // FFmpeg's start
	Exited   *time.Time    `json:"exited,omitempty"`  // FFmpeg's exit
	ExitCode *int          `json:"exit_code,omitempty"`
	Signal   string        `json:"signal,omitempty"` // that killed it, such as SIGKILL
	CPUTime  time.Duration `json:"cpu_time,omitempty"`
	Frames   int64         `json:"frames"`
	Dropped  int64         `json:"dropped"`
	// DecodeErrors are frames of the input that were corrupt or lost, Duplicated those of the
	// first output that fill gaps of the input, InputMissing is how much of the input was
	// not encoded; nil while unknown.
	DecodeErrors int64          `json:"decode_errors"`
	Duplicated   int64          `json:"duplicated"`
	InputMissing *time.Duration `json:"input_missing,omitempty"`
	Pixels       int64          `json:"pixels"`         // of all outputs: Σ frames × width × height
	Media        time.Duration  `json:"media_duration"` // length of the output
	SizeBytes    int64          `json:"size_bytes"`
	Progress     Progress       `json:"progress"`
	Input        string         `json:"input,omitempty"`             // path or URL (no secrets), or SyntheticInput; empty while unknown
	Output       string         `json:"output,omitempty"`            // path or URL (no secrets); empty once deleted
	Renditions   []Rendition    `json:"renditions,omitempty"`        // the outputs, once they are whole
	Log          string         `json:"log,omitempty"`               // head and tail of standard error
	Notes        []string       `json:"notes,omitempty"`             // what was done differently than asked
	InputBytes   int64          `json:"input_bytes,omitempty"`       // size of the input; 0 while unknown, as of a stream
	Fetch        *Fetch         `json:"fetch,omitempty"`             // of the input; nil: it was not fetched
	InputMade    bool           `json:"input_made"`                  // a synthetic input was generated
	GenerateFor  time.Duration  `json:"generate_duration,omitempty"` // how long that took; part of PrepareFor
	PrepareFor   time.Duration  `json:"prepare_duration"`            // of PhasePrepare and PhaseFetch, outside the energy window
}

// SyntheticInput is Encode.Input of a job that names none.
const SyntheticInput = "synthetic"

// Rendition is one output. A ladder has several. What is not known is zero or nil.
type Rendition struct {
	Output      string  `json:"output,omitempty"` // path or URL (no secrets); empty once deleted
	Encoder     string  `json:"encoder"`
	Width       int     `json:"width"`  // px
	Height      int     `json:"height"` // px
	Frames      int64   `json:"frames"`
	SizeBytes   int64   `json:"size_bytes,omitempty"`
	Seconds     float64 `json:"media_seconds"`
	BitrateKbps float64 `json:"bitrate_kbps,omitempty"` // of the whole file
	// Quality compares it with the input, where the job asks for it.
	Quality *Quality `json:"quality,omitempty"`
}

// Snapshot is the state of an attempt at one moment.
type Snapshot struct {
	Encode  Encode
	Phases  []PhaseSpan // so far, in order; the last one up to the moment of the snapshot
	Process *Process    // FFmpeg's; nil before its start
	Stopped StopCause   // empty: it is not being stopped
}

// Phase is the present phase.
func (s *Snapshot) Phase() Phase { return s.Phases[len(s.Phases)-1].Phase }

// Wall is how long FFmpeg ran; 0 while it has not exited.
func (e *Encode) Wall() time.Duration {
	if e.Started == nil || e.Exited == nil {
		return 0
	}
	return e.Exited.Sub(*e.Started)
}

// MeanFPS is the mean of frames a second; 0 when there were none.
func (e *Encode) MeanFPS() float64 {
	if w := e.Wall().Seconds(); w > 0 {
		return float64(e.Frames) / w
	}
	return 0
}

// Quality compares the output with its input. What was not measured is nil.
type Quality struct {
	PSNR *float64 `json:"psnr_db,omitempty"` // dB, average over planes
	SSIM *float64 `json:"ssim,omitempty"`    // 0 to 1
	VMAF *float64 `json:"vmaf,omitempty"`    // 0 to 100
	// Partial: only the first of several outputs was measured.
	Partial bool   `json:"partial,omitempty"`
	Note    string `json:"note,omitempty"` // why a measure is missing, or which output was measured
}
