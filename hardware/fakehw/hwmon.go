package fakehw

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"
)

// ChipConfig describes one chip below /sys/class/hwmon.
type ChipConfig struct {
	Name   string // what the driver calls it: apm_xgene, smpro_hwmon, power_meter
	Device string // the device's directory, such as APMC0D29:00
	// OnDevice: the driver is an old one, whose files lie with the device.
	OnDevice bool
	// Files are further ones with their content, such as power1_average_interval.
	Files   map[string]string
	Sensors []SensorConfig
}

// SensorConfig describes one sensor of a chip.
type SensorConfig struct {
	File  string // power1_input, power1_average or energy1_input
	Label string // content of power1_label; "" leaves it out
	Power Curve  // nil: none
	// Average is over how long power1_average averages; other files do not.
	Average time.Duration
	// Update is how often the chip renews its value; 0: at each Step.
	Update time.Duration
}

// Chip is one fake chip.
type Chip struct {
	config  ChipConfig
	tree    *Tree
	number  int // of hwmon3
	sensors []*Sensor
}

// Sensor is one fake sensor.
type Sensor struct {
	config SensorConfig
	chip   *Chip
	file   *os.File // nil while the chip is gone
	used   float64  // J up to the last renewal
	upTo   time.Duration
	mean   stretch // that power1_average is of
}

// stretch of time and the J used in it. It moves on with what comes in and goes out.
type stretch struct {
	from, to time.Duration
	joules   float64
}

func (s *stretch) move(power Curve, from, to time.Duration) float64 {
	if from < s.from || to < s.to || from > s.to {
		*s = stretch{from: from, to: from}
	}
	s.joules += power.Joules(s.to, to) - power.Joules(s.from, from)
	s.from, s.to = from, to
	return s.joules
}

// AddChip adds a chip: a directory below its device and a link to it from
// /sys/class/hwmon, numbered as drivers come.
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
		return nil, fmt.Errorf("making chip %s: %w", config.Name, err)
	}
	t.chips = append(t.chips, c)
	return c, nil
}

// Sensors in the order they were configured in.
func (c *Chip) Sensors() []*Sensor { return c.sensors }

func (c *Chip) device() string { return c.tree.Sys("devices", "platform", c.config.Device) }

func (c *Chip) hwmon() string {
	return filepath.Join(c.device(), "hwmon", fmt.Sprint("hwmon", c.number))
}

// folder is where the chip's files are.
func (c *Chip) folder() string {
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
		if err := c.tree.Write(filepath.Join(c.folder(), name), content); err != nil {
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

// labelFile is power1_label of power1_input.
func labelFile(file string) string {
	for i, r := range file {
		if r == '_' {
			return file[:i] + "_label"
		}
	}
	return file + "_label"
}

// Unload takes the chip away, as removing its driver does.
func (c *Chip) Unload() error {
	c.tree.mu.Lock()
	defer c.tree.mu.Unlock()
	return errors.Join(c.close(), os.RemoveAll(c.device()),
		os.Remove(c.tree.Sys("class", "hwmon", fmt.Sprint("hwmon", c.number))))
}

// Load brings back a chip that was unloaded, under another number.
func (c *Chip) Load(number int) error {
	c.tree.mu.Lock()
	defer c.tree.mu.Unlock()
	c.number = number
	return c.create()
}

// close empties the files, so that readers get nothing more out of them.
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

func (c *Chip) step(_, to time.Duration) error {
	var errs []error
	for _, s := range c.sensors {
		errs = append(errs, s.write(to))
	}
	return errors.Join(errs...)
}

// Path of the sensor's file.
func (s *Sensor) Path() string { return filepath.Join(s.chip.folder(), s.config.File) }

// Joules is what truly was used between two moments since the tree began.
func (s *Sensor) Joules(from, to time.Duration) float64 { return s.config.Power.Joules(from, to) }

// write renews the value, if it is time for that.
func (s *Sensor) write(now time.Duration) error {
	if s.file == nil {
		return nil
	}
	if s.config.Update > 0 {
		now = now.Truncate(s.config.Update)
	}
	return pwrite(s.file, fmt.Sprint(int64(math.Round(s.value(now)*1e6))))
}

// value is in J of an energy counter and else in W. Before the tree began, power was
// what it was at its beginning.
func (s *Sensor) value(now time.Duration) float64 {
	power, average := s.config.Power, s.config.Average
	switch {
	case s.config.File[0] == 'e':
		s.used += power.Joules(s.upTo, now)
		s.upTo = now
		return s.used
	case average > 0:
		before := max(0, average-now)
		return (power(0)*before.Seconds() + s.mean.move(power, max(0, now-average), now)) / average.Seconds()
	}
	return power(now)
}
