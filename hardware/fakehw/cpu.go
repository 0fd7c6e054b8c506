package fakehw

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, the unit of /proc/stat.
const ticksPerSecond = 100

// CPUConfig describes the processor and memory in /proc.
type CPUConfig struct {
	Model   string
	Threads int
	// Busy is the utilization of all threads, 0 to 1, as a function of the tree's time; nil: 0.
	Busy Curve
	// Stolen is the share that the hypervisor gave to other machines; nil: 0.
	Stolen Curve
	// MemoryTotal and MemoryAvailable in bytes.
	MemoryTotal, MemoryAvailable uint64
}

// cpu updates /proc/stat.
type cpu struct {
	config                CPUConfig
	file                  *os.File
	busy, stolen, elapsed float64 // seconds of all threads
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

func (c *cpu) advance(from, to time.Duration) error {
	threads := float64(c.config.Threads)
	c.busy += threads * c.config.Busy.Joules(from, to)
	if c.config.Stolen != nil {
		c.stolen += threads * c.config.Stolen.Joules(from, to)
	}
	c.elapsed += threads * (to - from).Seconds()
	return c.write()
}

// write updates /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, guest,
// guest_nice. The numbers have a fixed width, so that the file never shrinks.
func (c *cpu) write() error {
	busy, stolen, elapsed := c.busy*ticksPerSecond, c.stolen*ticksPerSecond, c.elapsed*ticksPerSecond
	text := cpuLine("cpu ", busy, stolen, elapsed)
	threads := float64(c.config.Threads)
	for i := range c.config.Threads {
		text += cpuLine(fmt.Sprint("cpu", i), busy/threads, stolen/threads, elapsed/threads)
	}
	_, err := c.file.WriteAt([]byte(text+"intr 0\nctxt 0\nbtime 1700000000\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"), 0)
	return err
}

func cpuLine(name string, busy, stolen, elapsed float64) string {
	user := int64(busy * 0.8)
	system := int64(busy) - user
	idle := max(0, int64(elapsed)-int64(busy)-int64(stolen))
	return fmt.Sprintf("%s %015d 0 %015d %015d 0 0 0 %015d 0 0\n", name, user, system, idle, int64(stolen))
}
