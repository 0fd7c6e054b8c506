package report

import (
	"testing"
	"time"
)

func TestFormatting(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{fixed(0, 3), "0.000"},
		{fixed(1234.5678, 3), "1234.568"},
		{fixed(12345.678, 1), "12\u202f345.7"},
		{fixed(-1234567, 0), "−1\u202f234\u202f567"},
		{fixed(1e300, 3), "1e+300"},
		{significant(1108355.2), "1\u202f108\u202f355"},
		{significant(56.1264), "56.126"},
		{significant(0.080231), "0.0802"},
		{fixedNonZero(0.123, 1), "0.1"},
		{fixedNonZero(0.04, 1), "<\u00a00.1"},
		{fixedNonZero(0, 1), "0.0"},
		{fixedNonZero(0.2, 0), "<\u00a01"},
		{percentage(1, 3), "33.3\u00a0%"},
		{percentage(1, 0), unknown},
		{formatDuration(3600 * time.Millisecond), "3.600 s"},
		{formatDuration(61500 * time.Millisecond), "1 min 1.5 s"},
		{formatDuration(59*time.Minute + 59990*time.Millisecond), "1 h 0 min"},
		{formatDuration(3*time.Hour + 125*time.Second), "3 h 2 min"},
		{formatDuration(75 * 24 * time.Hour), "75 days"},
		{formatDuration(-2 * time.Second), "−2.000 s"},
		{byteSize(999), "999 bytes"},
		{byteSize(67_512_044), "67.51 MB (67\u202f512\u202f044 bytes)"},
		{otherUnits(6735.2), "6.74 kJ, 1.87 Wh"},
		{otherUnits(208.6), "0.0579 Wh"},
		{otherUnits(1), "0.000278 Wh"},
		{otherUnits(0.01), ""},
		{otherUnits(3.6e6), "3.6 MJ, 1000 Wh"},
		{coverageText(99.98), "99.9"},
		{coverageText(100), "100.0"},
		{sanitize("a\x1b[1m\nb\u202ec "), "a?[1m b?c"},
		{sanitizeTo("äöü", 2), "ä…"},
		{plural(0, "gap"), "no gaps"},
		{plural(1, "gap"), "1 gap"},
		{plural(2, "gap"), "2 gaps"},
		{shellQuote("it's"), `'it'\''s'`},
		{shellQuote("-c:v"), "-c:v"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestDecimalsFor(t *testing.T) {
	for bound, want := range map[float64]int{0: 3, 0.0001: 3, 0.02: 3, 0.2: 2, 2.4: 1, 24: 0, 2400: 0, -1: 3} {
		if got := decimalsFor(bound); got != want {
			t.Errorf("error bound %v: got %d decimals, want %d", bound, got, want)
		}
	}
}
