package configs

import (
	"errors"
	"strconv"
	"time"
)

// LimitDuration is a ceiling of a duration; 0 is auto.
type LimitDuration time.Duration

// LimitCount is a ceiling of a number; 0 is auto.
type LimitCount int64

// Or returns the ceiling, or what auto stands for.
func (d LimitDuration) Or(auto time.Duration) time.Duration {
	if d == 0 {
		return auto
	}
	return time.Duration(d)
}

// Or returns the ceiling, or what auto stands for.
func (n LimitCount) Or(auto int64) int64 {
	if n == 0 {
		return auto
	}
	return int64(n)
}

func (d LimitDuration) String() string {
	if d == 0 {
		return "auto"
	}
	return formatDuration(time.Duration(d))
}

func (n LimitCount) String() string {
	if n == 0 {
		return "auto"
	}
	return strconv.FormatInt(int64(n), 10)
}

func parseLimitDuration(text string) (LimitDuration, error) {
	if text == "auto" {
		return 0, nil
	}
	d, err := parseDuration(text)
	if err == nil && d < time.Second {
		err = errOutOfRange
	}
	return LimitDuration(d), err
}

func parseLimitCount(text string) (LimitCount, error) {
	if text == "auto" {
		return 0, nil
	}
	n, err := parseInt(text)
	if err == nil && n < 1 {
		err = errOutOfRange
	}
	return LimitCount(n), err
}

// limitRule is the rule of a ceiling that is auto or at most a number.
func limitRule(allowed string, most float64) rule {
	return rule{allowed: "auto, or " + allowed, check: func(v any) error {
		n := 0.0
		switch v := v.(type) {
		case LimitDuration:
			n = float64(v)
		case LimitCount:
			n = float64(v)
		}
		if n > most {
			return errOutOfRange
		}
		return nil
	}}
}

// checkAmount refuses what is no fixed number of bytes.
func checkAmount(s Size) error {
	if s.percent > 0 {
		return errors.New("a percentage")
	}
	return checkAboveZero(s)
}

func checkAboveZero(s Size) error {
	if s == (Size{}) {
		return errOutOfRange
	}
	return nil
}
