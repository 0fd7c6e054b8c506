package master

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

func boundsClient(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := New(Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestJobWithAHugeIDIsMalformed(t *testing.T) {
	c := boundsClient(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"job":{"id":%q}}`, strings.Repeat("x", 900_000))
	})
	lease, err := c.Next(context.Background(), messages.Session{NodeID: "n"})
	if lease != nil || protocol.KindOf(err) != protocol.Malformed || len(err.Error()) > 1000 {
		t.Errorf("got a lease %v, error %.300v", lease != nil, err)
	}
}

func TestNumberOfHeldLeasesIsBounded(t *testing.T) {
	c := boundsClient(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/jobs" {
			fmt.Fprint(w, `{"id":"n"}`)
			return
		}
		_, _ = io.WriteString(w, `{"jobs":[{"id":"`+strings.Repeat("x", 900_000)+`","node_id":"n","status":"assigned"}`)
		for i := range 5_000 {
			fmt.Fprintf(w, `,{"id":"j%d","node_id":"n","status":"assigned"}`, i)
		}
		_, _ = io.WriteString(w, `]}`)
	})
	held, err := c.Held(context.Background(), messages.Session{NodeID: "n"})
	if err != nil || len(held.Leases) != maxLeases || held.Leases[0].Job.ID != "j0" {
		t.Errorf("%d leases, %v; want %d, without the one with a huge id", len(held.Leases), err, maxLeases)
	}
}
