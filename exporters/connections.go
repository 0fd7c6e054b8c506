package exporters

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections keeps the number of a port's connections within bounds: the one that has waited
// longest for a request gives way to a new one, so that idle connections block no other client.
type connections struct {
	mu  sync.Mutex
	all map[net.Conn]*connection
}

type connection struct {
	peer   string    // its IP address
	active bool      // a request is being read or answered
	since  time.Time // when it became idle
}

// changed is the ConnState hook of the port's server. The server calls it for a new connection
// before it accepts the next one.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		peer, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		c.all[conn] = &connection{peer: peer, since: time.Now()}
		c.makeRoom(conn, peer)
	case http.StateActive, http.StateIdle:
		if known := c.all[conn]; known != nil {
			known.active, known.since = state == http.StateActive, time.Now()
		}
	default:
		delete(c.all, conn)
	}
}

// makeRoom closes a connection where there are too many: of the peer, or of all. Where all
// others are busy it is the new one.
func (c *connections) makeRoom(added net.Conn, peer string) {
	ofPeer := 0
	for _, known := range c.all {
		if known.peer == peer {
			ofPeer++
		}
	}
	if ofPeer <= maxPeerConnections && len(c.all) <= maxConnections {
		return
	}
	victim := added
	for conn, known := range c.all {
		if conn == added || known.active || ofPeer > maxPeerConnections && known.peer != peer {
			continue
		}
		if victim == added || known.since.Before(c.all[victim].since) {
			victim = conn
		}
	}
	delete(c.all, victim)
	if t, ok := victim.(*tls.Conn); ok { // whose Close would wait for the peer
		victim = t.NetConn()
	}
	_ = victim.Close()
}
