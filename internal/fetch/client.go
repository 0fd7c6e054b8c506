package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/protocol"
)

// client sends requests. The policy checks the addresses of direct connections when they are
// made, but not that of a proxy.
type client struct {
	policy          *reach.Policy
	proxy           func(*http.Request) (*url.URL, error)
	roots           *x509.CertPool
	direct, proxied *http.Transport
}

func newClient(s Settings) client {
	return client{
		policy: s.Policy, proxy: s.Proxy, roots: s.RootCAs,
		direct:  newTransport(s, nil, s.Policy),
		proxied: newTransport(s, s.Proxy, nil),
	}
}

func newTransport(s Settings, proxy func(*http.Request) (*url.URL, error), policy *reach.Policy) *http.Transport {
	dialer := newDialer(policy)
	var dialTLS func(context.Context, string, string) (net.Conn, error)
	if proxy == nil { // otherwise the transport must first request a tunnel from the proxy
		dialTLS = func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialCountedTLS(ctx, dialer, network, address, s.RootCAs)
		}
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy: proxy,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &countingConn{Conn: conn}, nil
		},
		DialTLSContext:         dialTLS,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.RootCAs},
		TLSHandshakeTimeout:    dialTimeout,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              &protocols,
	}
}

// dialCountedTLS connects with TLS and counts the decrypted bytes.
func dialCountedTLS(ctx context.Context, dialer *net.Dialer, network, address string, roots *x509.CertPool) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	plain, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(plain, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: host})
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		plain.Close()
		return nil, err
	}
	return &countingConn{Conn: conn}, nil
}

func (c *client) close() {
	c.direct.CloseIdleConnections()
	c.proxied.CloseIdleConnections()
}

const maxRedirects = 10

// get sends a GET request and follows redirects. The final URL is that of the response's
// request. User and password of the URL are sent to its own host only. last closes the
// connection after the response.
func (c *client) get(ctx context.Context, u *url.URL, header http.Header, last bool) (*http.Response, error) {
	for redirects := 0; ; redirects++ {
		resp, err := c.send(ctx, u, header, last)
		if err != nil {
			if redirects > 0 {
				return nil, fmt.Errorf("redirected to %s: %w", show(u), err)
			}
			return nil, err
		}
		location := resp.Header.Get("Location")
		if !slices.Contains([]int{301, 302, 303, 307, 308}, resp.StatusCode) || location == "" {
			return resp, nil
		}
		resp.Body.Close()
		if redirects == maxRedirects {
			return nil, &problem{protocol.ReasonInputError, fmt.Sprintf("more than %d redirects", maxRedirects)}
		}
		if u, err = c.redirect(u, location); err != nil {
			return nil, err
		}
	}
}

func (c *client) redirect(from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	if err != nil {
		return nil, &problem{protocol.ReasonInputError, "redirected to something that is not a URL"}
	}
	if to.Scheme != "http" && to.Scheme != "https" {
		return nil, &problem{protocol.ReasonUserError, "redirected to " + show(to) + ", which is neither http nor https"}
	}
	checked, err := c.policy.ParseURL(to.String())
	var refused *reach.Refused
	if err != nil && !errors.As(err, &refused) {
		return nil, &problem{protocol.ReasonInputError, fmt.Sprintf("redirected to %s: %v", show(to), err)}
	}
	if err != nil {
		return nil, fmt.Errorf("redirected to %s: %w", show(to), err)
	}
	if from.Scheme == "https" && checked.Scheme == "http" {
		return nil, &problem{protocol.ReasonUserError, "redirected from https to " + show(to) + ", which is not encrypted"}
	}
	return checked, nil
}

func (c *client) send(ctx context.Context, u *url.URL, header http.Header, last bool) (*http.Response, error) {
	req := (&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header.Clone(), Close: last}).WithContext(ctx)
	req.Header.Set("Accept", "*/*")
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "ffmpeg-agent")
	if user := u.User; user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	proxy, err := c.proxy(req)
	if err != nil {
		return nil, err
	}
	transport := c.direct
	if proxy != nil {
		if err := c.checkBehindProxy(ctx, u.Hostname()); err != nil {
			return nil, err
		}
		transport = c.proxied
	}
	var sent *atomic.Int64
	resp, err := transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, countTrace(&sent))))
	if err == nil && sent != nil && resp.ContentLength >= 0 {
		resp.Body = &statedBody{ReadCloser: resp.Body, stated: resp.ContentLength, sent: sent}
	}
	return resp, err
}

// checkBehindProxy checks the addresses of a host behind the proxy, if this machine can resolve
// it.
func (c *client) checkBehindProxy(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := c.policy.CheckHost(ctx, host)
	var refused *reach.Refused
	if errors.As(err, &refused) {
		return err
	}
	return nil // this machine cannot resolve it
}

// proxyVariables are the variables that httpproxy.FromEnvironment reads, in its order.
var proxyVariables = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"}

// ProxyFromEnvironment returns a function that selects the proxy of a request by HTTP_PROXY,
// HTTPS_PROXY and NO_PROXY, in upper or lower case, like golang.org/x/net/http/httpproxy.
// Requests to localhost use none. It fails if a variable is not the URL of a proxy; the error
// does not contain the password.
func ProxyFromEnvironment() (func(*http.Request) (*url.URL, error), error) {
	for _, name := range proxyVariables {
		if err := checkProxy(name, os.Getenv(name)); err != nil {
			return nil, err
		}
	}
	proxy := httpproxy.FromEnvironment().ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }, nil
}

// checkProxy reports a malformed URL, which httpproxy silently ignores.
func checkProxy(name, value string) error {
	if value == "" {
		return nil
	}
	if !strings.Contains(value, "://") { // http is the default
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err == nil && u.Hostname() == "" {
		err = errors.New("no host")
	}
	if err != nil {
		return fmt.Errorf("environment variable %s is not the URL of a proxy, such as http://proxy.example:3128", name)
	}
	if allowed := []string{"http", "https", "socks5", "socks5h"}; !slices.Contains(allowed, u.Scheme) {
		return fmt.Errorf("environment variable %s: proxy scheme %q; allowed are %v", name, u.Scheme, allowed)
	}
	return nil
}
