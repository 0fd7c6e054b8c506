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

// nvmlSession is NVML from nvmlInit to nvmlShutdown, in the child process. There is one per
// process, so that a restart also loads a library that was replaced in the meantime.
type nvmlSession struct {
	library *dl.DynamicLibrary
	symbols map[string]bool // whether the library has a symbol, as far as looked up
	nvml    nvml.Interface
	driver  string
	count   int
	cards   []*nvmlDevice
	openErr error // of a card that could not be opened
}

// nvmlDevice is the handle of one card.
type nvmlDevice struct {
	nvml.Device
	index      int
	uuid, name string
	processes  *processTimes
}

// requiredSymbols are the symbols without which no card can be read.
var requiredSymbols = []string{"nvmlInit_v2", "nvmlShutdown", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID"}

func openNVMLSession(setup nvmlSetup) (*nvmlSession, *nvmlFailure) {
	s := &nvmlSession{
		library: dl.New(setup.Library, dl.RTLD_LAZY|dl.RTLD_GLOBAL), symbols: map[string]bool{},
		nvml: nvml.New(nvml.WithLibraryPath(setup.Library)),
	}
	if err := s.library.Open(); err != nil {
		return nil, &nvmlFailure{Missing: strings.Contains(err.Error(), "No such file"), Reason: err.Error()}
	}
	for _, symbol := range requiredSymbols {
		if !s.has(symbol) {
			return nil, &nvmlFailure{Reason: fmt.Sprintf("%s lacks %s", setup.Library, symbol)}
		}
	}
	if r := s.nvml.Init(); r != nvml.SUCCESS {
		return nil, &nvmlFailure{Missing: r == nvml.ERROR_DRIVER_NOT_LOADED, Reason: "initializing NVML: " + s.explain(r)}
	}
	if failure := s.openCards(setup.ProcfsPath); failure != nil {
		s.close()
		return nil, failure
	}
	return s, nil
}

// openCards gets a handle of each card. It fails if none can be opened.
func (s *nvmlSession) openCards(procfs string) *nvmlFailure {
	count, r := s.nvml.DeviceGetCount()
	switch {
	case r != nvml.SUCCESS:
		return &nvmlFailure{Reason: "counting cards: " + s.explain(r)}
	case count == 0:
		return &nvmlFailure{Missing: true, Reason: "the NVIDIA driver lists no card"}
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
			s.openErr = err
			continue
		}
		s.cards = append(s.cards, card)
	}
	if len(s.cards) == 0 {
		return &nvmlFailure{Reason: s.openErr.Error()}
	}
	return nil
}

func (s *nvmlSession) open(index int, procfs string) (*nvmlDevice, error) {
	device, r := s.nvml.DeviceGetHandleByIndex(index)
	if r != nvml.SUCCESS {
		return nil, fmt.Errorf("opening card %d: %s", index, s.explain(r))
	}
	uuid, r := device.GetUUID()
	if r != nvml.SUCCESS {
		return nil, fmt.Errorf("reading the UUID of card %d: %s", index, s.explain(r))
	}
	card := &nvmlDevice{Device: device, index: index, uuid: uuid, processes: newProcessTimes(procfs)}
	if s.has("nvmlDeviceGetName") {
		if name, r := device.GetName(); r == nvml.SUCCESS {
			card.name = name
		}
	}
	return card, nil
}

func (s *nvmlSession) close() { s.nvml.Shutdown() }

// has reports whether the library has a symbol. Calling a missing one would end the process.
func (s *nvmlSession) has(symbol string) bool {
	present, known := s.symbols[symbol]
	if !known {
		present = s.library.Lookup(symbol) == nil
		s.symbols[symbol] = present
	}
	return present
}

// explain returns NVML's text for a return code.
func (s *nvmlSession) explain(r nvml.Return) string {
	if !s.has("nvmlErrorString") {
		return fmt.Sprintf("NVML error %d", r)
	}
	return fmt.Sprintf("%s (NVML error %d)", nvml.ErrorString(r), r)
}

// read reads energy and power of each card, and the other values when details are asked for.
func (s *nvmlSession) read(details bool) nvmlResponse {
	response := nvmlResponse{Stale: s.openErr != nil}
	for _, card := range s.cards {
		v := s.readCard(card)
		if details {
			v.Details, v.MaxPower, v.Processes = s.details(card), s.maxPower(card), s.processTimes(card)
		}
		response.Stale = response.Stale || v.Fault != ""
		response.Cards = append(response.Cards, v)
	}
	if details {
		count, r := s.nvml.DeviceGetCount()
		response.Stale = response.Stale || r != nvml.SUCCESS || count != s.count
	}
	return response
}

func (s *nvmlSession) readCard(card *nvmlDevice) nvmlValues {
	v := nvmlValues{UUID: card.uuid}
	begin := monotonic()
	counter, counterFault := s.value("nvmlDeviceGetTotalEnergyConsumption", card.GetTotalEnergyConsumption)
	end := monotonic()
	power, powerFault := s.value("nvmlDeviceGetPowerUsage", func() (uint64, nvml.Return) {
		power, r := card.GetPowerUsage()
		return uint64(power), r
	})
	if counter == nil {
		begin, end = end, monotonic()
	}
	v.At = begin + (end-begin)/2
	average, instant := s.powerFields(card)
	if power == nil {
		power = average
	}
	v.Energy, v.Power, v.Instant = counter, power, instant
	// Without power the energy counter only lacks its cross-check.
	if v.Fault = counterFault; v.Fault == "" && v.Energy == nil && v.power() == nil {
		v.Fault = powerFault
	}
	if v.Power != nil && *v.Power > maxCardMW {
		v.Power = nil // how some drivers report an unknown power
	}
	return v
}

// value returns the result of a call; nil if the card does not support it. The string describes
// any other failure.
func (s *nvmlSession) value(symbol string, call func() (uint64, nvml.Return)) (*uint64, string) {
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

// powerFields returns the average and the instant power, which newer drivers have.
func (s *nvmlSession) powerFields(card *nvmlDevice) (average, instant *uint64) {
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

// maxPower returns the highest power limit that can be set, else the enforced one, in mW.
func (s *nvmlSession) maxPower(card *nvmlDevice) *uint64 {
	var highest uint64
	if s.has("nvmlDeviceGetPowerManagementLimitConstraints") {
		if _, limit, r := card.GetPowerManagementLimitConstraints(); r == nvml.SUCCESS {
			highest = uint64(limit)
		}
	}
	if limit := s.enforcedLimit(card); limit != nil {
		highest = max(highest, *limit)
	}
	if highest == 0 || highest > maxCardMW {
		return nil
	}
	return &highest
}

func (s *nvmlSession) enforcedLimit(card *nvmlDevice) *uint64 {
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

func (s *nvmlSession) details(card *nvmlDevice) *energy.GPU {
	d := &energy.GPU{Index: card.index, Name: card.name, UUID: card.uuid, Driver: s.driver}
	if s.has("nvmlDeviceGetMigMode") {
		current, _, r := card.GetMigMode()
		d.MIG = r == nvml.SUCCESS && current == nvml.DEVICE_MIG_ENABLE
	}
	d.PowerLimit = watts(s.enforcedLimit(card))
	if s.has("nvmlDeviceGetTemperature") {
		if celsius, r := card.GetTemperature(nvml.TEMPERATURE_GPU); r == nvml.SUCCESS && celsius < 200 {
			d.TemperatureCelsius = number(celsius)
		}
	}
	s.setUtilization(card, d)
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
	d.ThrottleReasons = s.throttleReasons(card)
	return d
}

func (s *nvmlSession) setUtilization(card *nvmlDevice, d *energy.GPU) {
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

// processTimes returns the time for which each process has used the card; nil if unknown.
func (s *nvmlSession) processTimes(card *nvmlDevice) map[int]energy.GPUTime {
	if !s.has("nvmlDeviceGetProcessUtilization") {
		return nil
	}
	samples, ok := processSamples(card)
	return card.processes.add(samples, ok, time.Now())
}

// processSamples returns each process's utilization since the previous read; false if the card
// does not report it.
func processSamples(card *nvmlDevice) (samples []processSample, ok bool) {
	// go-nvml slices beyond its buffer when a process starts between its two calls.
	defer func() {
		if recover() != nil {
			samples, ok = nil, false
		}
	}()
	last := uint64(card.processes.readAt.UnixMicro())
	reported, r := card.GetProcessUtilization(last)
	switch {
	case r == nvml.ERROR_NOT_FOUND, r == nvml.ERROR_INSUFFICIENT_SIZE && len(reported) == 0:
		return nil, true // no process used the card
	case r != nvml.SUCCESS:
		return nil, false
	}
	for _, p := range reported {
		if p.TimeStamp > last { // the driver also returns older samples
			samples = append(samples, processSample{int(p.Pid), p.SmUtil, p.EncUtil, p.DecUtil})
		}
	}
	return samples, true
}

// throttleReasons returns the reasons for lowered clocks, by the names of nvml.h.
func (s *nvmlSession) throttleReasons(card *nvmlDevice) []string {
	var mask uint64
	r := nvml.ERROR_FUNCTION_NOT_FOUND
	if s.has("nvmlDeviceGetCurrentClocksEventReasons") {
		mask, r = card.GetCurrentClocksEventReasons()
	} else if s.has("nvmlDeviceGetCurrentClocksThrottleReasons") { // the name before driver 535
		mask, r = card.GetCurrentClocksThrottleReasons()
	}
	if r != nvml.SUCCESS {
		return nil
	}
	return throttleNames(mask)
}

// throttleReasonNames are NVML's reasons for lowered clocks, by bit
// (nvmlClocksEventReason… in nvml.h). Bit 0, that the card is idle, is not reported.
var throttleReasonNames = []string{
	"", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal_slowdown",
	"hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clock_setting", "board_limit", "reliability",
}

// throttleNames returns the names of the bits in a mask. A bit without a name gets its number.
func throttleNames(mask uint64) []string {
	names := []string{}
	for bit := 1; bit < 64; bit++ {
		switch {
		case mask>>bit&1 == 0:
		case bit < len(throttleReasonNames):
			names = append(names, throttleReasonNames[bit])
		default:
			names = append(names, fmt.Sprintf("bit_%d", bit))
		}
	}
	return names
}

func clock(card *nvmlDevice, kind nvml.ClockType) *float64 {
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
