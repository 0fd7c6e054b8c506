package master

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages"
)

// A certificate is warned about from expiryWarning before it expires, once each warnInterval.
const (
	expiryWarning = 30 * 24 * time.Hour
	warnInterval  = 24 * time.Hour
)

// expiries remembers when the certificates of the connection to the master expire, as seen in
// handshakes.
type expiries struct {
	log *zap.Logger

	mu     sync.Mutex
	seen   map[string]time.Time // by name of messages.Certificate
	warned map[string]time.Time
}

// Certificates returns the certificates that were seen so far.
func (c *Client) Certificates() []messages.Certificate {
	e := &c.expiries
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []messages.Certificate
	for name, at := range e.seen {
		all = append(all, messages.Certificate{Name: name, ExpiresAt: at})
	}
	slices.SortFunc(all, func(a, b messages.Certificate) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// observe returns a function for tls.Config.VerifyConnection.
func (e *expiries) observe(own []tls.Certificate) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) > 0 {
			e.note("master", slices.MinFunc(state.PeerCertificates, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }))
		}
		for _, pair := range own {
			if pair.Leaf != nil {
				e.note("client", pair.Leaf)
			}
		}
		return nil
	}
}

func (e *expiries) note(name string, cert *x509.Certificate) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen == nil {
		e.seen, e.warned = map[string]time.Time{}, map[string]time.Time{}
	}
	e.seen[name] = cert.NotAfter
	if left := cert.NotAfter.Sub(now); left < expiryWarning && now.Sub(e.warned[name]) >= warnInterval {
		e.warned[name] = now
		what := map[string]string{"master": "the master's certificate expires soon: renew it on the master's host", "client": "the client certificate expires soon: renew the files of master.cert and master.key"}[name]
		// Text, since the console format shows no date of a time.
		e.log.Warn(what, zap.String("expires_at", cert.NotAfter.UTC().Format(time.RFC3339)), zap.Int("days_left", int(left.Hours()/24)))
	}
}
