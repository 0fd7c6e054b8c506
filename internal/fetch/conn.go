package fetch

import (
	"bytes"
	"net"
	"net/http/httptrace"
	"sync"
)

// countingConn counts the bytes of a response's body as they arrive at the connection, after
// decryption, because net/http silently drops those beyond Content-Length. What arrives through
// the tunnel of a proxy is not counted.
type countingConn struct {
	net.Conn
	mu     sync.Mutex
	header []byte // until its end has arrived
	inBody bool
	body   int64
}

const maxHeader = 64 << 10 // bytes

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inBody {
		c.body += int64(n)
	} else if len(c.header) < maxHeader {
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
			c.header, c.inBody, c.body = nil, true, int64(len(rest))
			return
		}
		c.header = rest
	}
}

// begin resets the count for the next response on the connection.
func (c *countingConn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header, c.inBody, c.body = nil, false, 0
}

func (c *countingConn) bodyBytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.body
}

// countTrace sets *counted to the connection of a request; nil if its bytes are not counted.
func countTrace(counted **countingConn) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		*counted = nil
		if c, ok := info.Conn.(*countingConn); ok {
			c.begin()
			*counted = c
		}
	}}
}
