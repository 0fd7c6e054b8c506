package chaos

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// resetBeforeForward: the master does not get the request.
func resetBeforeForward(_ *proxy, w http.ResponseWriter, _ *request) { reset(w) }

// resetAfterForward: the master has acted on it.
func resetAfterForward(p *proxy, w http.ResponseWriter, r *request) {
	p.forward(r)
	reset(w)
}

// stallRequest gives no answer for a while, or until the agent gives up.
func stallRequest(d time.Duration, forward bool) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		if forward {
			p.forward(r)
		}
		ctx, cancel := context.WithTimeout(r.Context(), d)
		defer cancel()
		<-ctx.Done()
		reset(w)
	}
}

// respondWith answers in the master's place.
func respondWith(status int, retryAfter time.Duration) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		header := http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
		if retryAfter > 0 {
			header.Set("Retry-After", strconv.Itoa(max(1, int(retryAfter.Seconds()))))
		}
		p.respond(w, r, &response{status, header, []byte(http.StatusText(status) + "\n")})
	}
}

// garbageResponse answers 200 with another body, once the master has acted.
func garbageResponse(text string) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		if p.forward(r) == nil || r.exchange.MasterStatus/100 != 2 {
			reset(w) // a 200 would say that the master took what it did not
			return
		}
		p.respond(w, r, &response{http.StatusOK, http.Header{"Content-Type": {"application/json"}}, []byte(text)})
		r.exchange.Views, r.exchange.Delivered = nil, false
	}
}

// hugeResponse answers 200 with an endless body, until the agent closes the connection.
func hugeResponse(p *proxy, w http.ResponseWriter, r *request) {
	if p.forward(r) == nil || r.exchange.MasterStatus/100 != 2 {
		reset(w)
		return
	}
	const limit = 64 << 20
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	r.exchange.AgentStatus = http.StatusOK
	chunk := bytes.Repeat([]byte(`{"jobs":[`), 8<<10)
	for sent := 0; sent < limit; sent += len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// trickleResponse passes the answer on byte by byte.
func trickleResponse(pause time.Duration) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		a := p.forward(r)
		if a == nil {
			reset(w)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
		w.WriteHeader(a.status)
		r.exchange.AgentStatus = a.status
		flush := http.NewResponseController(w)
		_ = flush.Flush()
		for i := range a.body {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(pause):
			}
			if _, err := w.Write(a.body[i : i+1]); err != nil || flush.Flush() != nil {
				return
			}
		}
		r.exchange.Delivered = true
		r.exchange.Views = p.jobViews(r.exchange.Call, a)
	}
}

// truncateResponse announces the whole response and sends half of it.
func truncateResponse(p *proxy, w http.ResponseWriter, r *request) {
	a := p.forward(r)
	if a == nil {
		reset(w)
		return
	}
	conn := hijack(w)
	if conn == nil {
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, err := fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s", a.status, http.StatusText(a.status), len(a.body)+10, a.body[:len(a.body)/2])
	if err == nil {
		r.exchange.AgentStatus = a.status
	}
}

// delayRequest lets the request wait before it is passed on.
func delayRequest(d time.Duration) func(*proxy, http.ResponseWriter, *request) {
	return func(p *proxy, w http.ResponseWriter, r *request) {
		time.Sleep(d)
		p.passThrough(w, r)
	}
}
