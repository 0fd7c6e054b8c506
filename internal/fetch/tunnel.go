package fetch

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/proxy"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/protocol"
)

const dialTimeout = 10 * time.Second

func newDialer(policy *reach.Policy) *net.Dialer {
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	if policy != nil {
		d.ControlContext = policy.Control
	}
	return d
}

func (c *client) tlsConfig(server string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.roots, ServerName: server}
}

// tunnel opens a TCP connection to an HTTPS server, through a proxy if one is configured. The
// TLS handshake is left to the caller.
func (c *client) tunnel(ctx context.Context, u *url.URL) (net.Conn, error) {
	address := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))
	via, err := c.proxy(&http.Request{URL: u})
	if err != nil {
		return nil, err
	}
	if via == nil {
		return newDialer(c.policy).DialContext(ctx, "tcp", address)
	}
	if err := c.checkBehindProxy(ctx, u.Hostname()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if via.Scheme == "socks5" || via.Scheme == "socks5h" {
		dialer, err := proxy.FromURL(via, newDialer(nil))
		if err != nil {
			return nil, fmt.Errorf("proxy %s: %w", via.Host, err)
		}
		return dialer.(proxy.ContextDialer).DialContext(ctx, "tcp", address)
	}
	return c.tunnelHTTP(ctx, via, address)
}

// tunnelHTTP requests a tunnel from an HTTP proxy.
func (c *client) tunnelHTTP(ctx context.Context, via *url.URL, address string) (_ net.Conn, err error) {
	port := "80"
	if via.Scheme == "https" {
		port = "443"
	}
	conn, err := newDialer(nil).DialContext(ctx, "tcp", net.JoinHostPort(via.Hostname(), cmp.Or(via.Port(), port)))
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", via.Host, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		if err != nil || !stop() {
			conn.Close()
		}
	}()
	if via.Scheme == "https" {
		conn = tls.Client(conn, c.tlsConfig(via.Hostname()))
	}
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if user := via.User; user != nil {
		password, _ := user.Password()
		login := &http.Request{Header: http.Header{}}
		login.SetBasicAuth(user.Username(), password)
		request.Header.Set("Proxy-Authorization", login.Header.Get("Authorization"))
	}
	if err := request.Write(conn); err != nil {
		return nil, fmt.Errorf("proxy %s: %w", via.Host, err)
	}
	// In TLS the client sends first, so the buffer holds no bytes of the server that would be
	// lost with it.
	resp, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", via.Host, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &problem{protocol.ReasonNetworkError, fmt.Sprintf("proxy %s: HTTP %d", via.Host, resp.StatusCode)}
	}
	return conn, nil
}
