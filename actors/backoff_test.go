package actors

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ffmpeg-agent/messages/protocol"
)

var errDown = errors.New("connection refused")

// failFor fails calls for so long and returns each wait with the time it began at.
func failFor(b *callBackoff, during time.Duration) (at, waits []time.Duration) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for now := time.Duration(0); now < during; {
		wait := b.next(start.Add(now), errDown)
		at, waits = append(at, now), append(waits, wait)
		now += max(wait, time.Millisecond)
	}
	return at, waits
}

// exact takes the jitter out: each wait is the middle of its range, 7/8 of the longest.
func exact(b *callBackoff) *callBackoff {
	b.exponential.RandomizationFactor = 0
	return b
}

func sevenEighths(longest ...time.Duration) []time.Duration {
	for i, d := range longest {
		longest[i] = d - d/8
	}
	return longest
}

func TestRegistrationStaysQuickForAMinute(t *testing.T) {
	at, waits := failFor(exact(registrationBackoff()), 10*time.Minute)
	quick := sevenEighths(1500 * time.Millisecond)[0]
	var grown []time.Duration
	for i, wait := range waits {
		switch {
		case at[i] < time.Minute && wait != quick:
			t.Errorf("after %v: got %v, want %v", at[i], wait, quick)
		case at[i] >= time.Minute:
			grown = append(grown, wait)
		}
	}
	want := sevenEighths(3*time.Second, 6*time.Second, 12*time.Second, 24*time.Second, 48*time.Second, time.Minute, time.Minute)
	if !slices.Equal(grown[:len(want)], want) || grown[len(grown)-1] != want[len(want)-1] {
		t.Errorf("after the first minute: got %v, want %v", grown, want)
	}
}

func TestUploadsBackOffToAMinute(t *testing.T) {
	_, waits := failFor(exact(uploadBackoff()), 4*time.Minute)
	want := sevenEighths(time.Second, 2*time.Second, 4*time.Second, 8*time.Second, 16*time.Second, 32*time.Second, time.Minute, time.Minute)
	if got := waits[:len(want)]; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestProbesBackOffToFiveMinutes(t *testing.T) {
	_, waits := failFor(exact(probeBackoff()), time.Hour)
	want := sevenEighths(time.Second, 2*time.Second, 5*time.Minute)
	if got := []time.Duration{waits[0], waits[1], waits[len(waits)-1]}; !slices.Equal(got, want) {
		t.Errorf("first, second and last: got %v, want %v", got, want)
	}
}

func TestResetBeginsAnew(t *testing.T) {
	for name, b := range map[string]*callBackoff{"registration": registrationBackoff(), "upload": uploadBackoff()} {
		_, before := failFor(exact(b), 5*time.Minute)
		b.reset()
		_, after := failFor(b, 5*time.Minute)
		if !slices.Equal(before, after) {
			t.Errorf("%s: got %v after the reset, want %v", name, after, before)
		}
	}
}

func TestMastersAnswerSetsTheBackoff(t *testing.T) {
	master := func(e protocol.Error) error { return fmt.Errorf("registering: %w", &e) }
	for name, test := range map[string]struct {
		err       error
		low, high time.Duration
	}{
		"unreachable":              {master(protocol.Error{Kind: protocol.Unreachable}), 1125 * time.Millisecond, 1500 * time.Millisecond},
		"refused key":              {master(protocol.Error{Kind: protocol.Unauthorized}), 30 * time.Second, time.Minute},
		"busy for 20 s":            {master(protocol.Error{Kind: protocol.Busy, RetryAfter: 20 * time.Second}), 20 * time.Second, 22 * time.Second},
		"busy for a day":           {master(protocol.Error{Kind: protocol.Busy, RetryAfter: 24 * time.Hour}), 10 * time.Minute, 11 * time.Minute},
		"busy without Retry-After": {master(protocol.Error{Kind: protocol.Busy}), 1125 * time.Millisecond, 1500 * time.Millisecond},
		"server error":             {master(protocol.Error{Kind: protocol.ServerError}), 1125 * time.Millisecond, 1500 * time.Millisecond},
		"not the master's":         {errDown, 1125 * time.Millisecond, 1500 * time.Millisecond},
	} {
		least, most := test.high, test.low
		for range 1000 {
			wait := registrationBackoff().next(time.Now(), test.err)
			least, most = min(least, wait), max(most, wait)
		}
		// The waits spread over the range and stay in it.
		span := test.high - test.low
		if least < test.low || most > test.high || least > test.low+span/10 || most < test.high-span/10 {
			t.Errorf("%s: got waits from %v to %v, want %v to %v", name, least, most, test.low, test.high)
		}
	}
}

func TestEveryWaitIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := registrationBackoff()
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		begun := now
		for range rapid.IntRange(1, 200).Draw(t, "failures") {
			kind := protocol.ErrorKind(rapid.IntRange(int(protocol.Unreachable), int(protocol.Malformed)).Draw(t, "kind"))
			after := time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "retry after"))
			wait := b.next(now, &protocol.Error{Kind: kind, RetryAfter: after, Err: errDown})
			most := time.Minute
			switch {
			case kind == protocol.Unauthorized:
			case kind == protocol.Busy && after > 0:
				most = 11 * time.Minute
			case now.Sub(begun) < time.Minute:
				most = 1500 * time.Millisecond
			}
			if wait > most || wait <= 0 {
				t.Fatalf("after %v of failures (%v): got %v, want at most %v", now.Sub(begun), kind, wait, most)
			}
			now = now.Add(wait)
		}
	})
}
