package master

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// Health is the answer of the master's health check.
type Health struct {
	// Clock is the master's time in the middle of the call, in whole seconds; zero where the
	// response had none.
	Clock time.Time
	// At is this machine's time in the middle of the call.
	At time.Time
	// TLS is the connection's; nil over plain HTTP.
	TLS *tls.ConnectionState
}

// Health asks whether the master is healthy. The call carries no key.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	sentAt := time.Now()
	err := c.do(ctx, call{
		method: http.MethodGet, path: "/health", timeout: c.cfg.CallTimeout, client: (*clients).unpooled, public: true,
	}, func(r *response) error {
		h.At = sentAt.Add(time.Since(sentAt) / 2)
		h.TLS = r.TLS
		if at, err := http.ParseTime(r.Header.Get("Date")); err == nil {
			h.Clock = at
		}
		return nil
	})
	return h, err
}

// Nodes calls visit for each node that the master lists.
func (c *Client) Nodes(ctx context.Context, visit func(protocol.Node)) error {
	return c.list(ctx, "nodes", c.cfg.ListTimeout, func(raw json.RawMessage) bool {
		var node protocol.Node
		if json.Unmarshal(raw, &node) == nil {
			visit(node)
		}
		return true
	})
}

// Jobs calls visit for each job that the master lists.
func (c *Client) Jobs(ctx context.Context, visit func(protocol.Job)) error {
	return c.jobs(ctx, c.cfg.ListTimeout, func(j protocol.Job) bool {
		visit(j)
		return true
	})
}
