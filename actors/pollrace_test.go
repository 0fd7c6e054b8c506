package actors

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestALookForLostLeasesDropsNoPoll: a poll that comes due while the agent asks what the
// master holds as its own is made up for. No timer was left to bring it up again: an idle
// agent never asked for work any more.
func TestALookForLostLeasesDropsNoPoll(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *siteConfig) { c.PollInterval, c.ReconcileInterval = 100*time.Millisecond, 300*time.Millisecond })
	s.await("the registration", registered)
	var looks, polls atomic.Int64
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/next"):
			polls.Add(1)
		case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/nodes/"):
			looks.Add(1)
			time.Sleep(250 * time.Millisecond) // a poll comes due meanwhile
		}
		next.ServeHTTP(w, r)
	})
	for range 5 {
		before, from := polls.Load(), looks.Load()
		s.until("two more looks", func() bool { return looks.Load() >= from+3 })
		if polls.Load() == before {
			t.Fatalf("no poll during %d looks", looks.Load()-from)
		}
	}
}
