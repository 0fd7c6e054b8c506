package fakehw

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, the unit of /proc/stat.
const ticksPerSecond = 100

// CPUConfig describes the processor as /proc shows it.
type CPUConfig struct {
	Model   string
	Threads int
	// Busy is the part of all threads in use, 0 to 1, as a function of the time
	// since the tree began; nil: none.
	Busy Curve
	// Stolen is the part that the hypervisor gave to others; nil: none.
	Stolen Curve
	// MemoryTotal and MemoryAvailable in bytes.
	MemoryTotal, MemoryAvailable uint64
}

// cpu keeps /proc/stat up to date.
type cpu struct {
	config               CPUConfig
	file                 *os.File
	busy, stolen, passed float64 // thread seconds
}

// SetCPU writes /proc/stat, cpuinfo and meminfo.
func (t *Tree) SetCPU(config CPUConfig) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if config.Busy == nil {
		config.Busy = Constant(0)
	}
	var info strings.Builder
	for i := range config.Threads {
		fmt.Fprintf(&info, "processor\t: %d\nvendor_id\t: FakeHardware\nmodel name\t: %s\nphysical id\t: 0\ncore id\t\t: %d\n\n", i, config.Model, i)
	}
	memory := fmt.Sprintf("MemTotal: %15d kB\nMemFree: %16d kB\nMemAvailable: %11d kB\nBuffers: 0 kB\nCached: 0 kB\n",
		config.MemoryTotal/1024, config.MemoryAvailable/1024, config.MemoryAvailable/1024)
	for path, content := range map[string]string{"cpuinfo": info.String(), "meminfo": memory} {
		if err := t.Write(t.Proc(path), content); err != nil {
			return fmt.Errorf("writing the fake processor: %w", err)
		}
	}
	file, err := os.OpenFile(t.Proc("stat"), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("writing the fake processor: %w", err)
	}
	t.cpu = &cpu{config: config, file: file}
	return t.cpu.write()
}

func (c *cpu) step(from, to time.Duration) error {
	threads := float64(c.config.Threads)
	c.busy += threads * c.config.Busy.Joules(from, to)
	if c.config.Stolen != nil {
		c.stolen += threads * c.config.Stolen.Joules(from, to)
	}
	c.passed += threads * (to - from).Seconds()
	return c.write()
}

// write renews /proc/stat: user, nice, system, idle, iowait, irq, softirq,
// steal, guest, guest_nice. All figures have a fixed width.
func (c *cpu) write() error {
	busy, stolen, passed := c.busy*ticksPerSecond, c.stolen*ticksPerSecond, c.passed*ticksPerSecond
	text := cpuLine("cpu ", busy, stolen, passed)
	threads := float64(c.config.Threads)
	for i := range c.config.Threads {
		text += cpuLine(fmt.Sprint("cpu", i), busy/threads, stolen/threads, passed/threads)
	}
	_, err := c.file.WriteAt([]byte(text+"intr 0\nctxt 0\nbtime 1700000000\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"), 0)
	return err
}

func cpuLine(name string, busy, stolen, passed float64) string {
	user := int64(busy * 0.8)
	system := int64(busy) - user
	idle := max(0, int64(passed)-int64(busy)-int64(stolen))
	return fmt.Sprintf("%s %015d 0 %015d %015d 0 0 0 %015d 0 0\n", name, user, system, idle, int64(stolen))
}
