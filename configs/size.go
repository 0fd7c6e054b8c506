package configs

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
)

const (
	gib      = 1 << 30
	maxBytes = 1 << 50 // 1 PiB: a larger value is likely a typo, and float64 is exact up to here
)

// A Size is an amount of disk space or memory: a number of bytes, a percentage of all there
// is, or auto. The zero Size is 0 bytes.
type Size struct {
	auto    bool
	percent float64 // of the disk, 0 to 100; 0 if the size is in bytes
	bytes   uint64
}

var errSize = errors.New("not a size")

var sizePattern = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(%|[A-Za-z]+)$`)

// sizeUnits is in descending order, so that String finds the shortest form.
var sizeUnits = []struct {
	name  string
	bytes uint64
}{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
}

// ParseSize parses "auto", a percentage such as "10%", or an amount such as "5GiB",
// "500MB" or "1.5 TB", up to 1 PiB. A number without a unit is an error, except for 0.
func ParseSize(text string) (Size, error) {
	switch text {
	case "auto":
		return Size{auto: true}, nil
	case "0":
		return Size{}, nil
	}
	m := sizePattern.FindStringSubmatch(text)
	if m == nil {
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			return Size{}, errors.New("a number without a unit")
		}
		return Size{}, errSize
	}
	number, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return Size{}, errSize
	}
	if m[2] == "%" {
		if number > 100 {
			return Size{}, errors.New("more than 100%")
		}
		return Size{percent: number}, nil
	}
	for _, unit := range sizeUnits {
		if !strings.EqualFold(unit.name, m[2]) {
			continue
		}
		bytes := math.Round(number * float64(unit.bytes))
		if bytes > maxBytes {
			return Size{}, errors.New("too large")
		}
		return Size{bytes: uint64(bytes)}, nil
	}
	return Size{}, errors.New("unknown unit " + strconv.Quote(shorten(m[2])))
}

// Of returns the size in bytes, given the disk's capacity in bytes; auto is the smaller of
// 10 % of the disk and 5 GiB.
func (s Size) Of(capacity uint64) uint64 {
	switch {
	case s.auto:
		return min(capacity/10, 5*gib)
	case s.percent > 0:
		return uint64(float64(capacity) * (s.percent / 100))
	}
	return s.bytes
}

// Or returns the size in bytes, given what it is a percentage of, or what auto stands for.
func (s Size) Or(auto, capacity uint64) uint64 {
	if s.auto {
		return auto
	}
	return s.Of(capacity)
}

// String returns the size in a form that ParseSize accepts.
func (s Size) String() string {
	switch {
	case s.auto:
		return "auto"
	case s.percent > 0:
		return strconv.FormatFloat(s.percent, 'f', -1, 64) + "%"
	case s.bytes == 0:
		return "0"
	}
	for _, unit := range sizeUnits {
		if s.bytes%unit.bytes == 0 {
			return strconv.FormatUint(s.bytes/unit.bytes, 10) + unit.name
		}
	}
	return "0" // unreachable: the last unit divides every number
}
