package exporters

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// connections keeps the number of a port's connections within bounds. A new connection always
// gets in, and one of the peer that has most gives way to it: the one that has been idle longest,
// or else the one whose request has been in progress longest. So neither idle nor slow clients
// block others.
type connections struct {
	mu  sync.Mutex
	all map[net.Conn]*connection
}

type connection struct {
	peer  string    // see peerOf
	idle  bool      // it has had a request, and waits for the next one
	since time.Time // when it became idle, active or was accepted
}

// changed is the ConnState hook of the port's server. The server calls it for a new connection
// before it accepts the next one.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		peer := peerOf(conn.RemoteAddr())
		c.all[conn] = &connection{peer: peer, since: time.Now()}
		c.makeRoom(conn, peer)
	case http.StateActive, http.StateIdle:
		if known := c.all[conn]; known != nil {
			known.idle, known.since = state == http.StateIdle, time.Now()
		}
	default:
		delete(c.all, conn)
	}
}

// peerOf returns who a connection counts for: its IPv4 address, or the network of 64 bits that a
// host with IPv6 may choose addresses from.
func peerOf(remote net.Addr) string {
	host, _, _ := net.SplitHostPort(remote.String())
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	bits := 32
	if ip = ip.Unmap(); ip.Is6() {
		bits = 64
	}
	network, _ := ip.WithZone("").Prefix(bits)
	return network.String()
}

// makeRoom closes a connection where there are too many: of the peer, or of all.
func (c *connections) makeRoom(added net.Conn, peer string) {
	held, most := map[string]int{}, 0
	for _, known := range c.all {
		held[known.peer]++
		most = max(most, held[known.peer])
	}
	crowded := held[peer] > maxPeerConnections
	if !crowded && len(c.all) <= maxConnections {
		return
	}
	victim := added
	for conn, known := range c.all {
		gives := held[known.peer] == most
		if crowded {
			gives = known.peer == peer
		}
		if gives && conn != added && (victim == added || known.before(c.all[victim])) {
			victim = conn
		}
	}
	delete(c.all, victim)
	if t, ok := victim.(*tls.Conn); ok { // whose Close would wait for the peer
		victim = t.NetConn()
	}
	_ = victim.Close()
}

// before reports whether a connection gives way before another one.
func (c *connection) before(other *connection) bool {
	if c.idle != other.idle {
		return c.idle
	}
	return c.since.Before(other.since)
}
