package configs

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSizeOf(t *testing.T) {
	tests := []struct {
		text     string
		capacity uint64
		want     uint64
	}{
		{"auto", 1000 * gib, 5 * gib},
		{"auto", 20 * gib, 2 * gib},
		{"10%", 1000, 100},
		{"0.5%", 1000, 5},
		{"0%", 1000, 0},
		{"100%", 1 << 40, 1 << 40},
		{"0", 1000, 0},
		{"5GiB", 1000, 5 * gib},
		{"5 GiB", 1000, 5 * gib},
		{"5gib", 1000, 5 * gib},
		{"500MB", 1000, 500e6},
		{"1.5kB", 1000, 1500},
		{"1TiB", 1000, 1 << 40},
		{"17B", 1000, 17},
		{"1024TiB", 1000, 1 << 50},
	}
	for _, test := range tests {
		size, err := ParseSize(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		if got := size.Of(test.capacity); got != test.want {
			t.Errorf("%s of %d: got %d, want %d", test.text, test.capacity, got, test.want)
		}
	}
}

func TestParseSizeRejects(t *testing.T) {
	for _, text := range []string{"", "5", "1e3", "-1GiB", "+1GiB", "GiB", "%", "1..5GiB", "NaN%", "Inf", "1GiB x", "0x5B", "100.1%", "1025TiB", "AUTO", "1 Gibi"} {
		if size, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, size)
		}
	}
}

func TestSizeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(
			rapid.Just(Size{auto: true}),
			rapid.Map(rapid.Uint64Range(0, maxBytes), func(n uint64) Size { return Size{bytes: n} }),
			rapid.Map(rapid.Float64Range(1e-6, 100), func(p float64) Size { return Size{percent: p} }),
		).Draw(t, "size")
		if got, err := ParseSize(size.String()); err != nil || got != size {
			t.Fatalf("%+v formats as %q, which parses as %+v, %v", size, size, got, err)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	for _, text := range []string{
		"auto", "5GiB", "10%", "1.5 TB", "0", "1", "99999999999999999999999999999999TiB", "0t", "0A0", "0AAAAAAAAAAAAAAAA",
		"00000000000000000", "A\xff", "\xf0\xba\xcb0", "\U000489c8", "\U00040227\U00048208", strings.Repeat("0", 300) + "A", "0" + strings.Repeat("A", 100),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := ParseSize(text)
		if err != nil {
			return
		}
		if again, err := ParseSize(size.String()); err != nil || again.Of(1<<40) != size.Of(1<<40) {
			t.Errorf("%q parses as %v, which parses as %v, %v", text, size, again, err)
		}
	})
}
