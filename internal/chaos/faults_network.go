package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// networkKinds are faults of requests and responses on their way.
func networkKinds() []Kind {
	on := func(name string, weight float64, play func(s *injector) func(*proxy, http.ResponseWriter, *request), calls ...Call) Kind {
		return Kind{Name: name, Weight: weight, inject: func(ctx context.Context, s *injector) (effect, error) {
			return s.injectRequest(ctx, play(s), calls)
		}}
	}
	fixed := func(f func(*proxy, http.ResponseWriter, *request)) func(*injector) func(*proxy, http.ResponseWriter, *request) {
		return func(*injector) func(*proxy, http.ResponseWriter, *request) { return f }
	}
	garbled := []string{"<html><body>login</body></html>", `{"job":{"id":17,`, `[]`, "", `{"job":"none","id":"","nodes":7}`, "\x00\xff\xfe"}
	return []Kind{
		{Name: "net: connection refused", Weight: 3, inject: refuseConnections},
		{Name: "net: partition", Weight: 1.5, inject: partitionNetwork},
		on("net: reset before the master", 6, fixed(resetBeforeForward)),
		on("net: reset after the master", 6, fixed(resetAfterForward)),
		on("net: stall before the master", 2, func(s *injector) func(*proxy, http.ResponseWriter, *request) {
			return stallRequest(s.between(time.Second, 4*time.Second), false)
		}),
		on("net: stall after the master", 2, func(s *injector) func(*proxy, http.ResponseWriter, *request) {
			return stallRequest(s.between(time.Second, 4*time.Second), true)
		}),
		on("net: 5xx", 5, func(s *injector) func(*proxy, http.ResponseWriter, *request) {
			return respondWith(pick(s, []int{500, 502, 503, 504}), 0)
		}),
		on("net: Retry-After", 3, func(s *injector) func(*proxy, http.ResponseWriter, *request) {
			return respondWith(pick(s, []int{429, 503}), s.between(time.Second, 3*time.Second))
		}),
		on("net: 401 or 403", 1, func(s *injector) func(*proxy, http.ResponseWriter, *request) {
			return respondWith(pick(s, []int{401, 403}), 0)
		}, CallHeartbeat),
		on("net: node unknown", 1.5, fixed(respondWith(http.StatusNotFound, 0)), CallHeartbeat),
		on("net: garbage", 4, func(s *injector) func(*proxy, http.ResponseWriter, *request) {
			return garbageResponse(pick(s, garbled))
		}),
		on("net: huge answer", 1, fixed(hugeResponse)),
		on("net: trickle", 3, func(s *injector) func(*proxy, http.ResponseWriter, *request) {
			return trickleResponse(s.between(time.Millisecond, 20*time.Millisecond))
		}),
		on("net: answer cut short", 4, fixed(truncateResponse)),
		on("net: slow", 2, func(s *injector) func(*proxy, http.ResponseWriter, *request) {
			return delayRequest(s.between(200*time.Millisecond, 1500*time.Millisecond))
		}),
	}
}

// injectRequest plays a fault on one of the agent's next requests.
func (s *injector) injectRequest(ctx context.Context, play func(*proxy, http.ResponseWriter, *request), calls []Call) (effect, error) {
	if len(calls) == 0 {
		calls = pick(s, [][]Call{{CallNext}, {CallNext}, {CallResult}, {CallResult}, {CallResult}, {CallHeartbeat}, {CallJob}, nil})
	}
	r := s.proxy.arm(s.kindName, 1, play, calls...)
	defer s.proxy.disarm(r)
	select {
	case x := <-r.matched:
		return observed("%s %s", x.Call, x.Path), nil
	case <-ctx.Done():
		return effect{}, fmt.Errorf("%w: there was no request of %v", errNoTarget, calls)
	}
}

// refuseConnections closes the master's port.
func refuseConnections(ctx context.Context, s *injector) (effect, error) {
	s.proxy.close()
	defer func() {
		if err := s.proxy.listen(); err != nil {
			s.abort(err)
		}
	}()
	least := time.After(s.between(500*time.Millisecond, 2*time.Second))
	seen := s.awaitStatus(ctx, func(st *agentStatus) string {
		if st.Heartbeat != nil && strings.Contains(st.Heartbeat.Error, "refused") {
			return st.Heartbeat.Error
		}
		return ""
	})
	<-least
	if seen == "" {
		return effect{}, errors.New("no heartbeat was refused")
	}
	return observed("%s", seen), nil
}

// partitionNetwork cuts the network in both directions: at the link where there is one, else in
// the proxy.
func partitionNetwork(ctx context.Context, s *injector) (effect, error) {
	before := s.status()
	s.proxy.partition()
	s.proxy.setLink(false)
	linked := s.net.namespace != "" && s.net.setLink(false) == nil
	defer func() {
		s.proxy.heal()
		if linked {
			if err := s.net.setLink(true); err != nil {
				s.abort(err)
			}
		}
		s.proxy.setLink(true)
	}()
	least := time.After(s.between(time.Second, unavailableAfter+2*time.Second))
	seen := s.awaitStatus(ctx, func(st *agentStatus) string {
		if st.Heartbeat != nil && st.PID == before.PID && before.Heartbeat != nil && st.Heartbeat.Failed > before.Heartbeat.Failed {
			return st.Heartbeat.Error
		}
		return ""
	})
	<-least
	if seen == "" {
		return effect{}, errors.New("no heartbeat failed")
	}
	return observed("%s", seen), nil
}

// awaitStatus waits until the agent's status shows something, and returns what; empty when the
// time is up.
func (s *injector) awaitStatus(ctx context.Context, match func(*agentStatus) string) string {
	for {
		if seen := match(s.status()); seen != "" {
			return seen
		}
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(statusInterval / 2):
		}
	}
}
