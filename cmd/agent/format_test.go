package main

import (
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0.0s", 0: "0.0s", 1490 * time.Millisecond: "1.4s", 9999 * time.Millisecond: "9.9s", 42 * time.Second: "42s",
		185 * time.Second: "3m5s", 127 * time.Minute: "2h7m", 47*time.Hour + 59*time.Minute: "47h59m", 123 * time.Hour: "5d3h",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v): got %s, want %s", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1<<64 - 1: "16.0 EiB"} {
		if got := size(&n); got != want {
			t.Errorf("size(%d): got %s, want %s", n, got, want)
		}
	}
}
