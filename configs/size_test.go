package configs

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSizeOfADisk(t *testing.T) {
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
			t.Errorf("%s of %d is %d, want %d", test.text, test.capacity, got, test.want)
		}
	}
}

func TestSizeRefuses(t *testing.T) {
	for _, text := range []string{"", "5", "1e3", "-1GiB", "+1GiB", "GiB", "%", "1..5GiB", "NaN%", "Inf", "1GiB x", "0x5B", "100.1%", "1025TiB", "AUTO", "1 Gibi"} {
		if size, err := ParseSize(text); err == nil {
			t.Errorf("%q is %v", text, size)
		}
	}
}

func TestSizeReadsWhatItWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(
			rapid.Just(Size{auto: true}),
			rapid.Map(rapid.Uint64Range(0, maxBytes), func(n uint64) Size { return Size{bytes: n} }),
			rapid.Map(rapid.Float64Range(1e-6, 100), func(p float64) Size { return Size{percent: p} }),
		).Draw(t, "size")
		text, err := size.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Size
		if err := got.UnmarshalText(text); err != nil || got != size {
			t.Fatalf("%+v is written %q and read %+v, %v", size, text, got, err)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"auto", "5GiB", "10%", "1.5 TB", "0", "99999999999999999999999999999999TiB"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := ParseSize(text)
		if err != nil {
			return
		}
		if again, err := ParseSize(size.String()); err != nil || again.Of(1<<40) != size.Of(1<<40) {
			t.Errorf("%q is %v and that is %v, %v", text, size, again, err)
		}
	})
}
