package fakehw

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed nvml/nvml.c nvml/nvml.h
var nvmlSource embed.FS

// BuildNVML compiles a libnvidia-ml.so with gcc into a directory and returns its path, for
// hardware.nvml_library. It lacks the given symbols, as libraries of old drivers do. The library
// reads its scenario from the same directory: see UseNVML.
func BuildNVML(dir string, without ...string) (string, error) {
	source, err := os.MkdirTemp("", "fake-nvml-")
	if err != nil {
		return "", fmt.Errorf("building the fake NVML: %w", err)
	}
	defer os.RemoveAll(source)
	if err := os.CopyFS(source, nvmlSource); err != nil {
		return "", fmt.Errorf("building the fake NVML: %w", err)
	}
	exports := "{ global: nvml*; local: *; };\n"
	if len(without) > 0 { // an exact name has precedence over a pattern
		exports = "{ global: nvml*; local: " + strings.Join(without, "; ") + "; *; };\n"
	}
	script := filepath.Join(source, "exports")
	if err := os.WriteFile(script, []byte(exports), 0o644); err != nil {
		return "", fmt.Errorf("building the fake NVML: %w", err)
	}
	library := filepath.Join(dir, "libnvidia-ml.so")
	gcc := exec.Command("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror",
		"-I", filepath.Join(source, "nvml"), "-Wl,--version-script="+script,
		"-o", library, filepath.Join(source, "nvml", "nvml.c"))
	if out, err := gcc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the fake NVML: %w: %s", err, out)
	}
	return library, nil
}

// Return codes of NVML, for scenarios.
const (
	NVMLNotSupported    = 3
	NVMLNoPermission    = 4
	NVMLDriverNotLoaded = 9
	NVMLGPUIsLost       = 15
	NVMLUnknownError    = 999
)

// NVMLScenario describes the behaviour of the fake library. Its file has one key with its values
// on a line, in this order:
//
//	driver VERSION
//	generation N      invalidates handles and initializations of other generations
//	update NS         update interval of the sensors
//	average NS        time over which power is averaged, other than the instant power
//	crash CALL        makes a call a segmentation fault
//	hang CALL         makes a call hang
//	fail CALL CODE    makes a call return a code
//	card UUID         begins a card, which the following lines describe
//	name NAME
//	since NS J        the energy counter was at J then
//	scale FACTOR      factor of the energy counter to the integral of the power
//	power NS LOW HIGH LENGTH PERIOD
//	                  from then on HIGH W for the first LENGTH ns of each PERIOD and LOW W for
//	                  the rest; always HIGH when PERIOD is 0
//	fail CALL CODE    CALL is a function, power_instant, power_average, or * for all
//	mig 0|1
//	limit W MAX
//	temperature CELSIUS
//	use GPU MEMORY ENCODER DECODER             utilization in percent
//	memory USED TOTAL                          in bytes
//	clocks GRAPHICS SM MEMORY                  in MHz
//	throttle MASK                              in hexadecimal
//	process PID SM MEMORY ENCODER DECODER      utilization in percent
//
// Times are nanoseconds of CLOCK_MONOTONIC.
type NVMLScenario struct {
	Driver          string
	Update, Average time.Duration
	Crash, Hang     string         // name of a function, or ""
	Fail            map[string]int // return code by function
	Cards           []NVMLCard
}

// NVMLCard is one card of a scenario.
type NVMLCard struct {
	UUID, Name string
	Power      NVMLPower
	// Scale is the factor of the energy counter to the integral of the power; 0 means 1.
	Scale                               float64
	Fail                                map[string]int // by function, or "*"
	MIG                                 bool
	Limit, MaxLimit                     float64 // W
	Temperature                         int
	UseGPU, UseMemory, Encoder, Decoder int // percent
	MemoryUsed, MemoryTotal             uint64
	ClockGraphics, ClockSM, ClockMemory int
	Throttle                            uint64
	Processes                           []NVMLProcess
}

// NVMLPower is a square wave: High for the first Length of each Period, then Low. It is always
// High when Period is 0.
type NVMLPower struct {
	Low, High      float64 // W
	Length, Period time.Duration
}

// NVMLProcess is the utilization of a card by a process, in percent.
type NVMLProcess struct{ PID, SM, Memory, Encoder, Decoder int }

// NVMLCards returns healthy cards with the given constant powers.
func NVMLCards(watts ...float64) []NVMLCard {
	cards := make([]NVMLCard, len(watts))
	for i, w := range watts {
		cards[i] = NVMLCard{
			UUID: fmt.Sprintf("GPU-%08d-fa4e-4e11-0000-000000000000", i), Name: "NVIDIA Fake L4", Power: NVMLPower{High: w},
			Limit: 300, MaxLimit: 350, Temperature: 50 + i,
			UseGPU: 40, UseMemory: 20, Encoder: 60, Decoder: 30,
			MemoryUsed: 1 << 30, MemoryTotal: 24 << 30,
			ClockGraphics: 2040, ClockSM: 2040, ClockMemory: 6251,
		}
	}
	return cards
}

// NVML controls a fake library and returns the true energy of its cards.
type NVML struct {
	Library string

	mu         sync.Mutex
	scenario   NVMLScenario
	generation int
	histories  map[string]*nvmlHistory // by UUID
}

// nvmlHistory is a card's power since it was added. Times are those of CLOCK_MONOTONIC.
type nvmlHistory struct {
	since  time.Duration // when the counter was at start
	start  float64       // J
	pieces []nvmlPiece
}

// A card's driver was loaded before the card is added to the scenario.
const (
	nvmlStart  = 12345            // J on the counter when the card is added
	nvmlBefore = 10 * time.Second // how long it has had its power by then
)

type nvmlPiece struct {
	from time.Duration
	NVMLPower
}

// NewNVML builds the library into a directory, with a scenario.
func NewNVML(dir string, scenario NVMLScenario, without ...string) (*NVML, error) {
	library, err := BuildNVML(dir, without...)
	if err != nil {
		return nil, err
	}
	return UseNVML(library, scenario)
}

// UseNVML sets the scenario of a library that BuildNVML built. The library may be a copy, in a
// directory of its own.
func UseNVML(library string, scenario NVMLScenario) (*NVML, error) {
	n := &NVML{Library: library, histories: map[string]*nvmlHistory{}}
	return n, n.Set(scenario)
}

// Set replaces the scenario. Cards, identified by their UUIDs, keep their counters; one that is
// left out keeps its last power.
func (n *NVML) Set(scenario NVMLScenario) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	now, err := monotonic()
	if err != nil {
		return err
	}
	for _, card := range scenario.Cards {
		h := n.histories[card.UUID]
		if h == nil {
			h = &nvmlHistory{since: now, start: nvmlStart, pieces: []nvmlPiece{{now - nvmlBefore, card.Power}}}
			n.histories[card.UUID] = h
		}
		if h.pieces[len(h.pieces)-1].NVMLPower != card.Power {
			h.pieces = append(h.pieces, nvmlPiece{now, card.Power})
		}
	}
	n.scenario = scenario
	return n.write()
}

// Change replaces the scenario with a modified copy.
func (n *NVML) Change(change func(*NVMLScenario)) error {
	n.mu.Lock()
	scenario := n.scenario
	scenario.Cards = append([]NVMLCard(nil), scenario.Cards...)
	n.mu.Unlock()
	change(&scenario)
	return n.Set(scenario)
}

// Reload simulates a reload of the driver: handles are invalid and the energy counters start at
// 0.
func (n *NVML) Reload() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.generation++
	return n.reset()
}

// ResetCounters sets the energy counters to 0.
func (n *NVML) ResetCounters() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reset()
}

func (n *NVML) reset() error {
	now, err := monotonic()
	if err != nil {
		return err
	}
	for _, h := range n.histories {
		h.since, h.start = now, 0
	}
	return n.write()
}

// Joules returns the true energy of a card between two times.
func (n *NVML) Joules(uuid string, from, to time.Time) (float64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	mono, err := monotonic()
	if err != nil {
		return 0, err
	}
	h := n.histories[uuid]
	if h == nil {
		return 0, fmt.Errorf("no card %s", uuid)
	}
	now := time.Now()
	return h.joules(mono-now.Sub(from), mono-now.Sub(to)), nil
}

func (h *nvmlHistory) joules(from, to time.Duration) float64 {
	sum := 0.0
	for i, piece := range h.pieces {
		begin, end := max(from, piece.from), to
		if i+1 < len(h.pieces) {
			end = min(to, h.pieces[i+1].from)
		}
		if begin < end {
			sum += piece.curve().Joules(begin-piece.from, end-piece.from)
		}
	}
	return sum
}

func (p NVMLPower) curve() Curve {
	if p.Period <= 0 {
		return Constant(p.High)
	}
	return Bursts(p.Low, p.High, p.Length, p.Period)
}

// write replaces the scenario file atomically.
func (n *NVML) write() error {
	dir := filepath.Dir(n.Library)
	file, err := os.CreateTemp(dir, "scenario-")
	if err != nil {
		return fmt.Errorf("writing a scenario: %w", err)
	}
	_, err = file.WriteString(n.text())
	err = errors.Join(err, file.Chmod(0o644), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(dir, "scenario"))
	}
	if err != nil {
		return fmt.Errorf("writing a scenario: %w", err)
	}
	return nil
}

func (n *NVML) text() string {
	var b strings.Builder
	line := func(key string, values ...any) { fmt.Fprintln(&b, append([]any{key}, values...)...) }
	s := n.scenario
	if s.Driver == "" {
		s.Driver = "550.54.15"
	}
	line("driver", s.Driver)
	line("generation", n.generation)
	line("update", s.Update.Nanoseconds())
	line("average", s.Average.Nanoseconds())
	if s.Crash != "" {
		line("crash", s.Crash)
	}
	if s.Hang != "" {
		line("hang", s.Hang)
	}
	for call, code := range s.Fail {
		line("fail", call, code)
	}
	for _, c := range s.Cards {
		n.histories[c.UUID].lines(c, line)
	}
	return b.String()
}

func (h *nvmlHistory) lines(c NVMLCard, line func(key string, values ...any)) {
	line("card", c.UUID)
	line("name", c.Name)
	line("since", h.since.Nanoseconds(), h.start)
	if c.Scale != 0 {
		line("scale", c.Scale)
	}
	for _, p := range h.pieces {
		line("power", p.from.Nanoseconds(), p.Low, p.High, p.Length.Nanoseconds(), p.Period.Nanoseconds())
	}
	for call, code := range c.Fail {
		line("fail", call, code)
	}
	mig := 0
	if c.MIG {
		mig = 1
	}
	line("mig", mig)
	line("limit", c.Limit, c.MaxLimit)
	line("temperature", c.Temperature)
	line("use", c.UseGPU, c.UseMemory, c.Encoder, c.Decoder)
	line("memory", c.MemoryUsed, c.MemoryTotal)
	line("clocks", c.ClockGraphics, c.ClockSM, c.ClockMemory)
	line("throttle", fmt.Sprintf("%x", c.Throttle))
	for _, p := range c.Processes {
		line("process", p.PID, p.SM, p.Memory, p.Encoder, p.Decoder)
	}
}

// monotonic returns CLOCK_MONOTONIC, which all processes share.
func monotonic() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("reading the clock: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
