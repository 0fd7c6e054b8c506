//go:build linux && cgo

package hardware

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"ffmpeg-agent/hardware/energy"
)

// nvmlSession is NVML from its start to its end, in the child process. It is not
// started a second time: whoever needs that takes a new process, which finds a library
// that was exchanged meanwhile as well.
type nvmlSession struct {
	symbols  *dl.DynamicLibrary
	known    map[string]bool // by symbol: whether the library has it
	nvml     nvml.Interface
	driver   string
	count    int
	cards    []*nvmlHandle
	unusable string // a card that has no handle; "": all have one
}

// nvmlHandle is one card.
type nvmlHandle struct {
	nvml.Device
	index      int
	uuid, name string
	use        *processUse
}

// required are the calls without which there is nothing to be had.
var required = []string{"nvmlInit_v2", "nvmlShutdown", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID"}

func openNVMLSession(setup nvmlSetup) (*nvmlSession, *nvmlFailure) {
	s := &nvmlSession{
		symbols: dl.New(setup.Library, dl.RTLD_LAZY|dl.RTLD_GLOBAL), known: map[string]bool{},
		nvml: nvml.New(nvml.WithLibraryPath(setup.Library)),
	}
	if err := s.symbols.Open(); err != nil {
		return nil, &nvmlFailure{None: strings.Contains(err.Error(), "No such file"), Reason: err.Error()}
	}
	for _, symbol := range required {
		if !s.has(symbol) {
			return nil, &nvmlFailure{Reason: fmt.Sprintf("%s lacks %s", setup.Library, symbol)}
		}
	}
	if r := s.nvml.Init(); r != nvml.SUCCESS {
		return nil, &nvmlFailure{None: r == nvml.ERROR_DRIVER_NOT_LOADED, Reason: "starting NVML: " + s.explain(r)}
	}
	if failure := s.findCards(setup.ProcfsPath); failure != nil {
		s.close()
		return nil, failure
	}
	return s, nil
}

// findCards takes a handle of each card.
func (s *nvmlSession) findCards(procfs string) *nvmlFailure {
	count, r := s.nvml.DeviceGetCount()
	switch {
	case r != nvml.SUCCESS:
		return &nvmlFailure{Reason: "counting cards: " + s.explain(r)}
	case count == 0:
		return &nvmlFailure{None: true, Reason: "the NVIDIA driver has no card"}
	}
	if s.has("nvmlSystemGetDriverVersion") {
		if version, r := s.nvml.SystemGetDriverVersion(); r == nvml.SUCCESS {
			s.driver = version
		}
	}
	s.count = count
	for i := range min(count, maxCards) {
		card, err := s.open(i, procfs)
		if err != nil {
			s.unusable = err.Error()
			continue
		}
		s.cards = append(s.cards, card)
	}
	if len(s.cards) == 0 {
		return &nvmlFailure{Reason: s.unusable}
	}
	return nil
}

func (s *nvmlSession) open(index int, procfs string) (*nvmlHandle, error) {
	device, r := s.nvml.DeviceGetHandleByIndex(index)
	if r != nvml.SUCCESS {
		return nil, fmt.Errorf("opening card %d: %s", index, s.explain(r))
	}
	uuid, r := device.GetUUID()
	if r != nvml.SUCCESS {
		return nil, fmt.Errorf("asking card %d for its UUID: %s", index, s.explain(r))
	}
	card := &nvmlHandle{Device: device, index: index, uuid: uuid, use: newProcessUse(procfs)}
	if s.has("nvmlDeviceGetName") {
		if name, r := device.GetName(); r == nvml.SUCCESS {
			card.name = name
		}
	}
	return card, nil
}

func (s *nvmlSession) close() { s.nvml.Shutdown() }

// has looks a symbol up. A call to one that the library lacks ends the process.
func (s *nvmlSession) has(symbol string) bool {
	known, looked := s.known[symbol]
	if !looked {
		known = s.symbols.Lookup(symbol) == nil
		s.known[symbol] = known
	}
	return known
}

// explain is NVML's own text of a return code.
func (s *nvmlSession) explain(r nvml.Return) string {
	if !s.has("nvmlErrorString") {
		return fmt.Sprintf("NVML error %d", r)
	}
	return fmt.Sprintf("%s (NVML error %d)", nvml.ErrorString(r), r)
}

// look reads energy and power of each card, and in a full look all the rest.
func (s *nvmlSession) look(full bool) nvmlAnswer {
	answer := nvmlAnswer{Stale: s.unusable != ""}
	for _, card := range s.cards {
		c := s.read(card)
		if full {
			c.Details, c.MaxPower, c.Processes = s.details(card), s.maxPower(card), s.processes(card)
		}
		answer.Stale = answer.Stale || c.Fault != ""
		answer.Cards = append(answer.Cards, c)
	}
	if full {
		count, r := s.nvml.DeviceGetCount()
		answer.Stale = answer.Stale || r != nvml.SUCCESS || count != s.count
	}
	return answer
}

func (s *nvmlSession) read(card *nvmlHandle) nvmlCard {
	c := nvmlCard{UUID: card.uuid}
	var fault [2]string
	begin := monotonic()
	c.Energy, fault[0] = s.figure("nvmlDeviceGetTotalEnergyConsumption", card.GetTotalEnergyConsumption)
	end := monotonic()
	c.Power, fault[1] = s.figure("nvmlDeviceGetPowerUsage", func() (uint64, nvml.Return) {
		power, r := card.GetPowerUsage()
		return uint64(power), r
	})
	if c.Energy == nil {
		begin, end = end, monotonic()
	}
	c.At = begin + (end-begin)/2
	average, instant := s.powerFields(card)
	if c.Power == nil {
		c.Power = average
	}
	c.Instant = instant
	if c.Fault = fault[0]; c.Fault == "" && c.Energy == nil && c.averaged() == nil {
		c.Fault = fault[1] // else it is the second opinion that is missing
	}
	if c.Power != nil && *c.Power > maxCardMW {
		c.Power = nil // some drivers tell such for "not known"
	}
	return c
}

// figure is one that the card may not have (nil), and why it cannot be read otherwise.
func (s *nvmlSession) figure(symbol string, call func() (uint64, nvml.Return)) (*uint64, string) {
	if !s.has(symbol) {
		return nil, ""
	}
	value, r := call()
	switch r {
	case nvml.SUCCESS:
		return &value, ""
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_NO_PERMISSION, nvml.ERROR_FUNCTION_NOT_FOUND, nvml.ERROR_NO_DATA:
		return nil, ""
	}
	return nil, symbol + ": " + s.explain(r)
}

// powerFields are the fields that newer drivers have.
func (s *nvmlSession) powerFields(card *nvmlHandle) (average, instant *uint64) {
	if !s.has("nvmlDeviceGetFieldValues") {
		return nil, nil
	}
	fields := []nvml.FieldValue{{FieldId: nvml.FI_DEV_POWER_AVERAGE}, {FieldId: nvml.FI_DEV_POWER_INSTANT}}
	if card.GetFieldValues(fields) != nvml.SUCCESS {
		return nil, nil
	}
	return fieldMW(fields[0]), fieldMW(fields[1])
}

func fieldMW(field nvml.FieldValue) *uint64 {
	if nvml.Return(field.NvmlReturn) != nvml.SUCCESS || nvml.ValueType(field.ValueType) != nvml.VALUE_TYPE_UNSIGNED_INT {
		return nil
	}
	value := uint64(binary.NativeEndian.Uint32(field.Value[:]))
	if value > maxCardMW {
		return nil
	}
	return &value
}

// maxPower is the highest limit that the card can be given, or the one that holds.
func (s *nvmlSession) maxPower(card *nvmlHandle) *uint64 {
	var highest uint64
	if s.has("nvmlDeviceGetPowerManagementLimitConstraints") {
		if _, limit, r := card.GetPowerManagementLimitConstraints(); r == nvml.SUCCESS {
			highest = uint64(limit)
		}
	}
	if limit := s.limit(card); limit != nil {
		highest = max(highest, *limit)
	}
	if highest == 0 || highest > maxCardMW {
		return nil
	}
	return &highest
}

func (s *nvmlSession) limit(card *nvmlHandle) *uint64 {
	if !s.has("nvmlDeviceGetEnforcedPowerLimit") {
		return nil
	}
	limit, r := card.GetEnforcedPowerLimit()
	if r != nvml.SUCCESS || limit > maxCardMW {
		return nil
	}
	value := uint64(limit)
	return &value
}

func (s *nvmlSession) details(card *nvmlHandle) *energy.GPU {
	d := &energy.GPU{Index: card.index, Name: card.name, UUID: card.uuid, Driver: s.driver}
	if s.has("nvmlDeviceGetMigMode") {
		current, _, r := card.GetMigMode()
		d.MIG = r == nvml.SUCCESS && current == nvml.DEVICE_MIG_ENABLE
	}
	d.PowerLimit = watts(s.limit(card))
	if s.has("nvmlDeviceGetTemperature") {
		if celsius, r := card.GetTemperature(nvml.TEMPERATURE_GPU); r == nvml.SUCCESS && celsius < 200 {
			d.TemperatureCelsius = number(celsius)
		}
	}
	s.use(card, d)
	if s.has("nvmlDeviceGetMemoryInfo") {
		if memory, r := card.GetMemoryInfo(); r == nvml.SUCCESS {
			d.MemoryUsed, d.MemoryTotal = &memory.Used, &memory.Total
		}
	}
	if s.has("nvmlDeviceGetClockInfo") {
		d.ClockGraphicsMHz = clock(card, nvml.CLOCK_GRAPHICS)
		d.ClockSMMHz = clock(card, nvml.CLOCK_SM)
		d.ClockMemoryMHz = clock(card, nvml.CLOCK_MEM)
	}
	d.ThrottleReasons = s.throttles(card)
	return d
}

// use fills in how busy the card is.
func (s *nvmlSession) use(card *nvmlHandle, d *energy.GPU) {
	if s.has("nvmlDeviceGetUtilizationRates") {
		if use, r := card.GetUtilizationRates(); r == nvml.SUCCESS {
			d.UtilizationPercent, d.MemoryUtilizationPercent = percent(use.Gpu), percent(use.Memory)
		}
	}
	if s.has("nvmlDeviceGetEncoderUtilization") {
		if use, _, r := card.GetEncoderUtilization(); r == nvml.SUCCESS {
			d.EncoderUtilizationPercent = percent(use)
		}
	}
	if s.has("nvmlDeviceGetDecoderUtilization") {
		if use, _, r := card.GetDecoderUtilization(); r == nvml.SUCCESS {
			d.DecoderUtilizationPercent = percent(use)
		}
	}
}

// processes are what each process has used of the card; nil: not known.
func (s *nvmlSession) processes(card *nvmlHandle) map[int]energy.GPUTime {
	if !s.has("nvmlDeviceGetProcessUtilization") {
		return nil
	}
	samples, ok := processSamples(card)
	return card.use.add(samples, ok, time.Now())
}

// processSamples are what each process used since the card's last look; false where
// the card does not tell.
func processSamples(card *nvmlHandle) (samples []processSample, ok bool) {
	// go-nvml slices beyond its buffer when a process comes in between its two calls.
	defer func() {
		if recover() != nil {
			samples, ok = nil, false
		}
	}()
	last := uint64(card.use.since().UnixMicro())
	told, r := card.GetProcessUtilization(last)
	switch {
	case r == nvml.ERROR_NOT_FOUND, r == nvml.ERROR_INSUFFICIENT_SIZE && len(told) == 0:
		return nil, true // nobody used it
	case r != nvml.SUCCESS:
		return nil, false
	}
	for _, t := range told {
		if t.TimeStamp > last { // others are left from earlier looks
			samples = append(samples, processSample{int(t.Pid), t.SmUtil, t.EncUtil, t.DecUtil})
		}
	}
	return samples, true
}

// throttles are the reasons why clocks are held down, by the names of nvml.h.
func (s *nvmlSession) throttles(card *nvmlHandle) []string {
	var mask uint64
	r := nvml.ERROR_FUNCTION_NOT_FOUND
	if s.has("nvmlDeviceGetCurrentClocksEventReasons") {
		mask, r = card.GetCurrentClocksEventReasons()
	} else if s.has("nvmlDeviceGetCurrentClocksThrottleReasons") { // its name before driver 535
		mask, r = card.GetCurrentClocksThrottleReasons()
	}
	if r != nvml.SUCCESS {
		return nil
	}
	return throttleNames(mask)
}

func clock(card *nvmlHandle, kind nvml.ClockType) *float64 {
	mhz, r := card.GetClockInfo(kind)
	if r != nvml.SUCCESS {
		return nil
	}
	return number(mhz)
}

func number(v uint32) *float64 {
	f := float64(v)
	return &f
}

func percent(v uint32) *float64 {
	if v > 100 {
		return nil
	}
	return number(v)
}
