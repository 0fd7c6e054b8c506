package fakehw

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"
)

// ChipConfig describes one chip in /sys/class/hwmon.
type ChipConfig struct {
	Name   string // of the driver: apm_xgene, smpro_hwmon, power_meter
	Device string // directory of the device, such as APMC0D29:00
	// OnDevice puts the files into the device's directory, as older drivers do.
	OnDevice bool
	// Files are further files with their content, such as power1_average_interval.
	Files   map[string]string
	Sensors []SensorConfig
}

// SensorConfig describes one sensor of a chip.
type SensorConfig struct {
	File  string // power1_input, power1_average or energy1_input
	Label string // content of power1_label; "": there is no such file
	Power Curve  // nil: 0 W
	// Average is the time over which power1_average is averaged; unused for other files.
	Average time.Duration
	// Update is the chip's update interval; 0: each AdvanceTo.
	Update time.Duration
}

// Chip is one fake chip.
type Chip struct {
	config  ChipConfig
	tree    *Tree
	number  int // 3 of hwmon3
	sensors []*Sensor
}

// Sensor is one fake sensor.
type Sensor struct {
	config  SensorConfig
	chip    *Chip
	file    *os.File // nil while the chip is unloaded
	energy  float64  // J at updated
	updated time.Duration
	average slidingIntegral // for power1_average
}

// slidingIntegral is the energy of a window of time, in J.
type slidingIntegral struct {
	from, to time.Duration
	joules   float64
}

// moveTo moves the window, adding what enters and subtracting what leaves it.
func (w *slidingIntegral) moveTo(power Curve, from, to time.Duration) float64 {
	if from < w.from || to < w.to || from > w.to {
		*w = slidingIntegral{from: from, to: from}
	}
	w.joules += power.Joules(w.to, to) - power.Joules(w.from, from)
	w.from, w.to = from, to
	return w.joules
}

// AddChip adds a chip: a directory below its device and a link to it in /sys/class/hwmon.
func (t *Tree) AddChip(config ChipConfig) (*Chip, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &Chip{config: config, tree: t, number: len(t.chips)}
	for _, s := range config.Sensors {
		if s.Power == nil {
			s.Power = Constant(0)
		}
		c.sensors = append(c.sensors, &Sensor{config: s, chip: c})
	}
	if err := c.create(); err != nil {
		return nil, fmt.Errorf("creating chip %s: %w", config.Name, err)
	}
	t.chips = append(t.chips, c)
	return c, nil
}

// Sensors returns the sensors in the order of the configuration.
func (c *Chip) Sensors() []*Sensor { return c.sensors }

func (c *Chip) device() string { return c.tree.Sys("devices", "platform", c.config.Device) }

func (c *Chip) hwmon() string {
	return filepath.Join(c.device(), "hwmon", fmt.Sprint("hwmon", c.number))
}

// dir holds the chip's files.
func (c *Chip) dir() string {
	if c.config.OnDevice {
		return c.device()
	}
	return c.hwmon()
}

func (c *Chip) create() error {
	class := c.tree.Sys("class", "hwmon")
	if err := errors.Join(os.MkdirAll(class, 0o755), os.MkdirAll(c.hwmon(), 0o755)); err != nil {
		return err
	}
	files := map[string]string{"name": c.config.Name + "\n"}
	for name, content := range c.config.Files {
		files[name] = content
	}
	for _, s := range c.sensors {
		if s.config.Label != "" {
			files[labelFile(s.config.File)] = s.config.Label + "\n"
		}
	}
	for name, content := range files {
		if err := c.tree.Write(filepath.Join(c.dir(), name), content); err != nil {
			return err
		}
	}
	for _, s := range c.sensors {
		file, err := os.OpenFile(s.Path(), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		s.file = file
		if err := s.write(c.tree.now); err != nil {
			return err
		}
	}
	name := fmt.Sprint("hwmon", c.number)
	return errors.Join(
		os.Symlink(filepath.Join("..", "..", "..", c.config.Device), filepath.Join(c.hwmon(), "device")),
		os.Symlink(filepath.Join("..", "..", "devices", "platform", c.config.Device, "hwmon", name), filepath.Join(class, name)),
	)
}

// labelFile returns power1_label for power1_input.
func labelFile(file string) string {
	for i, r := range file {
		if r == '_' {
			return file[:i] + "_label"
		}
	}
	return file + "_label"
}

// Unload removes the chip, as unloading its driver does.
func (c *Chip) Unload() error {
	c.tree.mu.Lock()
	defer c.tree.mu.Unlock()
	return errors.Join(c.close(), os.RemoveAll(c.device()),
		os.Remove(c.tree.Sys("class", "hwmon", fmt.Sprint("hwmon", c.number))))
}

// Load adds an unloaded chip again, under another number.
func (c *Chip) Load(number int) error {
	c.tree.mu.Lock()
	defer c.tree.mu.Unlock()
	c.number = number
	return c.create()
}

// close truncates the files, so that reads through an open descriptor fail.
func (c *Chip) close() error {
	var errs []error
	for _, s := range c.sensors {
		if s.file != nil {
			errs = append(errs, s.file.Truncate(0), s.file.Close())
			s.file = nil
		}
	}
	return errors.Join(errs...)
}

func (c *Chip) advance(_, to time.Duration) error {
	var errs []error
	for _, s := range c.sensors {
		errs = append(errs, s.write(to))
	}
	return errors.Join(errs...)
}

// Path returns the path of the sensor's file.
func (s *Sensor) Path() string { return filepath.Join(s.chip.dir(), s.config.File) }

// Joules returns the true energy between two times of the tree.
func (s *Sensor) Joules(from, to time.Duration) float64 { return s.config.Power.Joules(from, to) }

// write updates the value as of the last update time.
func (s *Sensor) write(now time.Duration) error {
	if s.file == nil {
		return nil
	}
	if s.config.Update > 0 {
		now = now.Truncate(s.config.Update)
	}
	return pwrite(s.file, fmt.Sprint(int64(math.Round(s.value(now)*1e6))))
}

// value is in J for an energy counter, else in W. Before the tree's start the power was that at
// its start.
func (s *Sensor) value(now time.Duration) float64 {
	power, average := s.config.Power, s.config.Average
	switch {
	case s.config.File[0] == 'e':
		s.energy += power.Joules(s.updated, now)
		s.updated = now
		return s.energy
	case average > 0:
		before := max(0, average-now)
		return (power(0)*before.Seconds() + s.average.moveTo(power, max(0, now-average), now)) / average.Seconds()
	}
	return power(now)
}
