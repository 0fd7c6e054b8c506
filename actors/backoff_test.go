package actors

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"

	"pgregory.net/rapid"
)

var errDown = errors.New("connection refused")

// walk lets calls fail for so long and returns each wait with the time it began at.
func walk(p *Pacer, during time.Duration, err error) (at, waits []time.Duration) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for now := time.Duration(0); now < during; {
		wait := p.Next(start.Add(now), err)
		at, waits = append(at, now), append(waits, wait)
		now += max(wait, time.Millisecond)
	}
	return at, waits
}

func fixed(p *Pacer, random float64) *Pacer {
	p.random = func() float64 { return random }
	return p
}

func TestRegistrationIsPacedCloselyForAMinuteAndThenDoubles(t *testing.T) {
	at, waits := walk(fixed(NewRegistrationPacer(), 1), 10*time.Minute, errDown)
	grown := []time.Duration{}
	for i, wait := range waits {
		switch {
		case at[i] < time.Minute && wait != 1500*time.Millisecond:
			t.Errorf("after %v: %v, want 1.5s", at[i], wait)
		case at[i] >= time.Minute:
			grown = append(grown, wait)
		}
	}
	want := []time.Duration{3 * time.Second, 6 * time.Second, 12 * time.Second, 24 * time.Second, 48 * time.Second, time.Minute, time.Minute}
	if fmt.Sprint(grown[:len(want)]) != fmt.Sprint(want) {
		t.Errorf("after the first minute: %v, want %v", grown[:len(want)], want)
	}
	if last := grown[len(grown)-1]; last != time.Minute {
		t.Errorf("at last: %v, want 1m", last)
	}
}

func TestUploadsDoubleFromASecondToAMinute(t *testing.T) {
	_, waits := walk(fixed(NewUploadPacer(), 1), 4*time.Minute, errDown)
	want := "[1s 2s 4s 8s 16s 32s 1m0s 1m0s]"
	if got := fmt.Sprint(waits[:8]); got != want {
		t.Errorf("waits %s, want %s", got, want)
	}
}

func TestProbesDoubleFromASecondToFiveMinutes(t *testing.T) {
	_, waits := walk(fixed(NewProbePacer(), 1), time.Hour, errDown)
	if waits[0] != time.Second || waits[1] != 2*time.Second || waits[len(waits)-1] != 5*time.Minute {
		t.Errorf("waits %v", waits)
	}
}

func TestResetBeginsAnew(t *testing.T) {
	for name, p := range map[string]*Pacer{"registration": fixed(NewRegistrationPacer(), 1), "upload": fixed(NewUploadPacer(), 1)} {
		_, before := walk(p, 5*time.Minute, errDown)
		p.Reset()
		_, after := walk(p, 5*time.Minute, errDown)
		if fmt.Sprint(before) != fmt.Sprint(after) || before[0] == time.Minute {
			t.Errorf("%s: before %v, after %v", name, before, after)
		}
	}
}

func TestTheMastersAnswerSetsThePace(t *testing.T) {
	master := func(e protocol.Error) error { return fmt.Errorf("registering: %w", &e) }
	for name, c := range map[string]struct {
		err       error
		low, high time.Duration
	}{
		"unreachable":            {master(protocol.Error{Kind: protocol.Unreachable}), 1125 * time.Millisecond, 1500 * time.Millisecond},
		"refused key":            {master(protocol.Error{Kind: protocol.Unauthorized}), 30 * time.Second, time.Minute},
		"busy for 20 s":          {master(protocol.Error{Kind: protocol.Busy, RetryAfter: 20 * time.Second}), 20 * time.Second, 22 * time.Second},
		"busy for a day":         {master(protocol.Error{Kind: protocol.Busy, RetryAfter: 24 * time.Hour}), 10 * time.Minute, 11 * time.Minute},
		"busy, not said how":     {master(protocol.Error{Kind: protocol.Busy}), 1125 * time.Millisecond, 1500 * time.Millisecond},
		"broken":                 {master(protocol.Error{Kind: protocol.ServerError}), 1125 * time.Millisecond, 1500 * time.Millisecond},
		"no error of a master's": {errDown, 1125 * time.Millisecond, 1500 * time.Millisecond},
	} {
		for _, end := range []struct {
			random float64
			want   time.Duration
		}{{0, c.low}, {1, c.high}} {
			if got := fixed(NewRegistrationPacer(), end.random).Next(time.Now(), c.err); got != end.want {
				t.Errorf("%s: %v, want %v", name, got, end.want)
			}
		}
	}
}

// However the failures are mixed, no wait is outside what SPEC allows, and two
// agents do not wait alike.
func TestEveryWaitIsBoundedAndJittered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewRegistrationPacer()
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		begun := now
		for range rapid.IntRange(1, 200).Draw(t, "failures") {
			kind := protocol.ErrorKind(rapid.IntRange(int(protocol.Unreachable), int(protocol.Malformed)).Draw(t, "kind"))
			after := time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "retry after"))
			wait := p.Next(now, &protocol.Error{Kind: kind, RetryAfter: after, Err: errDown})
			most := time.Minute
			switch {
			case kind == protocol.Unauthorized:
			case kind == protocol.Busy && after > 0:
				most = 11 * time.Minute
			case now.Sub(begun) < time.Minute:
				most = 1500 * time.Millisecond
			}
			if wait > most || wait <= 0 {
				t.Fatalf("%v after %v of failures (%v): want at most %v", wait, now.Sub(begun), kind, most)
			}
			now = now.Add(wait)
		}
	})
	seen := map[time.Duration]bool{}
	for range 20 {
		seen[NewRegistrationPacer().Next(time.Now(), errDown)] = true
	}
	if len(seen) < 2 {
		t.Error("20 agents all wait alike")
	}
}
