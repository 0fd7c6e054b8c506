package fetch

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http/httptrace"
	"sync"
	"sync/atomic"

	"ffmpeg-agent/messages/protocol"
)

// countingConn counts the bytes of a response's body as they arrive at the connection, after
// decryption, because net/http silently drops those beyond Content-Length. What arrives through
// the tunnel of a proxy is not counted.
type countingConn struct {
	net.Conn
	mu     sync.Mutex
	header []byte // until its end has arrived
	inBody bool
	body   *atomic.Int64 // bytes, of the response that is being read
}

const maxHeader = 64 << 10 // bytes

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.body == nil: // no request yet
	case c.inBody:
		c.body.Add(int64(n))
	case len(c.header) < maxHeader:
		c.header = append(c.header, p[:n]...)
		c.findBody()
	}
	return n, err
}

func (c *countingConn) findBody() {
	for {
		_, rest, ended := bytes.Cut(c.header, []byte("\r\n\r\n"))
		if !ended {
			return
		}
		if !bytes.HasPrefix(c.header, []byte("HTTP/1.1 1")) { // not an interim response
			c.header, c.inBody = nil, true
			c.body.Store(int64(len(rest)))
			return
		}
		c.header = rest
	}
}

// begin returns the count of the next response on the connection.
func (c *countingConn) begin() *atomic.Int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header, c.inBody, c.body = nil, false, new(atomic.Int64)
	return c.body
}

// countTrace sets *body to the count of a response's body; nil if its bytes are not counted.
func countTrace(body **atomic.Int64) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		*body = nil
		if c, ok := info.Conn.(*countingConn); ok {
			*body = c.begin()
		}
	}}
}

// statedBody is the body of a response of stated length. It ends with an error where the
// server sent more.
type statedBody struct {
	io.ReadCloser
	stated, read int64
	sent         *atomic.Int64
}

// Read reads the last byte on its own: only then does net/http read on and buffer what the
// server sent beyond the stated length.
func (b *statedBody) Read(p []byte) (int, error) {
	if rest := b.stated - b.read; rest > 1 && rest <= int64(len(p)) {
		p = p[:rest-1]
	} else if rest == 1 && len(p) > 1 {
		p = p[:1]
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if err == io.EOF && b.sent.Load() > b.stated {
		err = tooMuch(b.stated)
	}
	return n, err
}

func tooMuch(stated int64) error {
	return &problem{protocol.ReasonInputError, fmt.Sprintf("the server sent more than its Content-Length of %d bytes", stated)}
}
