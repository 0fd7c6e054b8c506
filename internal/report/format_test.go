package report

import (
	"testing"
	"time"
)

func TestFormats(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{fixed(0, 3), "0.000"},
		{fixed(1234.5678, 3), "1234.568"},
		{fixed(12345.678, 1), "12\u202f345.7"},
		{fixed(-1234567, 0), "−1\u202f234\u202f567"},
		{fixed(1e300, 3), "1e+300"},
		{measure(1108355.2), "1\u202f108\u202f355"},
		{measure(56.1264), "56.126"},
		{measure(0.080231), "0.0802"},
		{amountOf(0.123, 1), "0.1"},
		{amountOf(0.04, 1), "<\u00a00.1"},
		{amountOf(0, 1), "0.0"},
		{amountOf(0.2, 0), "<\u00a01"},
		{part(1, 3), "33.3\u00a0%"},
		{part(1, 0), unknown},
		{length(3600 * time.Millisecond), "3.600 s"},
		{length(61500 * time.Millisecond), "1 min 1.5 s"},
		{length(59*time.Minute + 59990*time.Millisecond), "1 h 0 min"},
		{length(3*time.Hour + 125*time.Second), "3 h 2 min"},
		{length(75 * 24 * time.Hour), "75 days"},
		{length(-2 * time.Second), "−2.000 s"},
		{amount(999), "999 bytes"},
		{amount(67_512_044), "67.51 MB (67\u202f512\u202f044 bytes)"},
		{also(6735.2), "6.74 kJ, 1.87 Wh"},
		{also(208.6), "0.0579 Wh"},
		{also(1), "0.000278 Wh"},
		{also(0.01), ""},
		{also(3.6e6), "3.6 MJ, 1000 Wh"},
		{percentText(99.98), "99.9"},
		{percentText(100), "100.0"},
		{plain("a\x1b[1m\nb\u202ec "), "a?[1m b?c"},
		{cut("äöü", 2), "äö…"},
		{several(0, "gap"), "no gaps"},
		{several(1, "gap"), "1 gap"},
		{several(2, "gap"), "2 gaps"},
		{quoted("it's"), `'it'\''s'`},
		{quoted("-c:v"), "-c:v"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestDecimalsFollowTheErrorBound(t *testing.T) {
	for bound, want := range map[float64]int{0: 3, 0.0001: 3, 0.02: 3, 0.2: 2, 2.4: 1, 24: 0, 2400: 0, -1: 3} {
		if got := decimalsOf(bound); got != want {
			t.Errorf("± %v: %d decimals, want %d", bound, got, want)
		}
	}
}
