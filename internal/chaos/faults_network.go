package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// networkKinds are what befalls requests on their way to the master and back.
func networkKinds() []Kind {
	on := func(name string, weight float64, play func(s *scene) func(*proxy, http.ResponseWriter, *request), calls ...Call) Kind {
		return Kind{Name: name, Weight: weight, play: func(ctx context.Context, s *scene) (effect, error) {
			return s.meet(ctx, play(s), calls)
		}}
	}
	fixed := func(f func(*proxy, http.ResponseWriter, *request)) func(*scene) func(*proxy, http.ResponseWriter, *request) {
		return func(*scene) func(*proxy, http.ResponseWriter, *request) { return f }
	}
	garbled := []string{"<html><body>login</body></html>", `{"job":{"id":17,`, `[]`, "", `{"job":"none","id":"","nodes":7}`, "\x00\xff\xfe"}
	return []Kind{
		{Name: "net: connection refused", Weight: 3, play: refused},
		{Name: "net: partition", Weight: 1.5, play: partitioned},
		on("net: reset before the master", 6, fixed(resetBefore)),
		on("net: reset after the master", 6, fixed(resetAfter)),
		on("net: stall before the master", 2, func(s *scene) func(*proxy, http.ResponseWriter, *request) {
			return stall(s.between(time.Second, 4*time.Second), false)
		}),
		on("net: stall after the master", 2, func(s *scene) func(*proxy, http.ResponseWriter, *request) {
			return stall(s.between(time.Second, 4*time.Second), true)
		}),
		on("net: 5xx", 5, func(s *scene) func(*proxy, http.ResponseWriter, *request) {
			return refuseWith(one(s, []int{500, 502, 503, 504}), 0)
		}),
		on("net: Retry-After", 3, func(s *scene) func(*proxy, http.ResponseWriter, *request) {
			return refuseWith(one(s, []int{429, 503}), s.between(time.Second, 3*time.Second))
		}),
		on("net: 401 or 403", 1, func(s *scene) func(*proxy, http.ResponseWriter, *request) {
			return refuseWith(one(s, []int{401, 403}), 0)
		}, CallHeartbeat),
		on("net: node unknown", 1.5, fixed(refuseWith(http.StatusNotFound, 0)), CallHeartbeat),
		on("net: garbage", 4, func(s *scene) func(*proxy, http.ResponseWriter, *request) { return garbage(one(s, garbled)) }),
		on("net: huge answer", 1, fixed(huge)),
		on("net: trickle", 3, func(s *scene) func(*proxy, http.ResponseWriter, *request) {
			return trickle(s.between(time.Millisecond, 20*time.Millisecond))
		}),
		on("net: answer cut short", 4, fixed(cutShort)),
		on("net: slow", 2, func(s *scene) func(*proxy, http.ResponseWriter, *request) {
			return slow(s.between(200*time.Millisecond, 1500*time.Millisecond))
		}),
	}
}

// meet has a fault befall one of the agent's next requests.
func (s *scene) meet(ctx context.Context, play func(*proxy, http.ResponseWriter, *request), calls []Call) (effect, error) {
	if len(calls) == 0 {
		calls = one(s, [][]Call{{CallNext}, {CallNext}, {CallResult}, {CallResult}, {CallResult}, {CallHeartbeat}, {CallJob}, nil})
	}
	r := s.proxy.arm(s.kind, 1, play, calls...)
	defer s.proxy.disarm(r)
	select {
	case x := <-r.hit:
		return saw("%s %s", x.Call, x.Path), nil
	case <-ctx.Done():
		return effect{}, fmt.Errorf("%w: no request of %v came by", errNothing, calls)
	}
}

// refused takes the master's port away.
func refused(ctx context.Context, s *scene) (effect, error) {
	s.proxy.close()
	defer func() {
		if err := s.proxy.open(); err != nil {
			s.breakdown(err)
		}
	}()
	least := time.After(s.between(500*time.Millisecond, 2*time.Second))
	seen := s.until(ctx, func(st *status) string {
		if st.Heartbeat != nil && strings.Contains(st.Heartbeat.Error, "refused") {
			return st.Heartbeat.Error
		}
		return ""
	})
	<-least
	if seen == "" {
		return effect{}, errors.New("no heartbeat was refused")
	}
	return saw("%s", seen), nil
}

// partitioned cuts the way both ways: at the link where there is one, else by swallowing
// what comes.
func partitioned(ctx context.Context, s *scene) (effect, error) {
	before := s.status()
	s.proxy.partition()
	s.proxy.link(false)
	linked := s.net.namespace != "" && s.net.set(false) == nil
	defer func() {
		s.proxy.heal()
		if linked {
			if err := s.net.set(true); err != nil {
				s.breakdown(err)
			}
		}
		s.proxy.link(true)
	}()
	least := time.After(s.between(time.Second, silentAfter+2*time.Second))
	seen := s.until(ctx, func(st *status) string {
		if st.Heartbeat != nil && st.PID == before.PID && before.Heartbeat != nil && st.Heartbeat.Failed > before.Heartbeat.Failed {
			return st.Heartbeat.Error
		}
		return ""
	})
	<-least
	if seen == "" {
		return effect{}, errors.New("no heartbeat failed")
	}
	return saw("%s", seen), nil
}

// until waits until the agent's status shows something, and returns what; empty when the
// time is up.
func (s *scene) until(ctx context.Context, shows func(*status) string) string {
	for {
		if seen := shows(s.status()); seen != "" {
			return seen
		}
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(lookInterval / 2):
		}
	}
}
