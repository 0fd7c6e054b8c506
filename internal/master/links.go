package master

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// links are the connections to the master under one set of certificates. When a
// certificate on disk is renewed, new links take their place.
type links struct {
	calls      http.Client // everything that is not named below
	heartbeats http.Client // wait for nothing else
	fresh      http.Client // a new connection each: never repeated by the transport
	made       files
}

func (l *links) ordinary() *http.Client      { return &l.calls }
func (l *links) forHeartbeats() *http.Client { return &l.heartbeats }
func (l *links) once() *http.Client          { return &l.fresh }

func newLinks(s Settings, made files) (*links, error) {
	config, err := tlsConfig(s)
	if err != nil {
		return nil, err
	}
	return &links{
		calls:      newClient(config, false),
		heartbeats: newClient(config, false),
		fresh:      newClient(config, true),
		made:       made,
	}, nil
}

func (l *links) close() {
	l.calls.CloseIdleConnections()
	l.heartbeats.CloseIdleConnections()
	l.fresh.CloseIdleConnections()
}

func newClient(config *tls.Config, fresh bool) http.Client {
	const dialTimeout = 5 * time.Second
	// HTTP/2 would put calls that must not wait for each other on one connection,
	// and its transport repeats requests by rules of its own.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return http.Client{
		// A redirect is an answer: following it would carry the key elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:        config.Clone(),
			TLSHandshakeTimeout:    dialTimeout,
			DisableKeepAlives:      fresh,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			Protocols:              &protocols,
		},
	}
}

func tlsConfig(s Settings) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.InsecureSkipVerify}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("master.ca (--ca): reading the master's CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("master.ca (--ca): %s holds no PEM certificate", s.CAFile)
		}
	}
	if s.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("master.cert, master.key (--cert, --key): reading the client certificate from %s and %s: %w", s.CertFile, s.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// current returns the links to use now. Where a certificate changed on disk they
// are made anew; where the new files are no good (half of a renewal, perhaps) the
// old ones go on, which is said once, and the next call looks again.
func (c *Client) current() *links {
	now := c.files()
	if l := c.links.Load(); l.made == now {
		return l
	}
	c.renewal.Lock()
	defer c.renewal.Unlock()
	old := c.links.Load()
	if old.made == now { // another call was first
		return old
	}
	renewed, err := newLinks(c.settings, now)
	if err != nil {
		if c.warned != now {
			c.log.Warn("certificates changed on disk cannot be used; going on with the old ones", zap.Error(err))
			c.warned = now
		}
		return old
	}
	c.links.Store(renewed)
	c.warned = files{}
	old.close()
	c.log.Info("certificates for the master renewed from disk")
	return renewed
}

// files tells one state of the certificates' files from the next.
type files [3]file

type file struct {
	inode    uint64
	size     int64
	modified time.Time
	missing  bool
}

func (c *Client) files() files {
	var state files
	for i, path := range []string{c.settings.CAFile, c.settings.CertFile, c.settings.KeyFile} {
		if path != "" {
			state[i] = look(path)
		}
	}
	return state
}

func look(path string) file {
	info, err := os.Stat(path)
	if err != nil {
		return file{missing: errors.Is(err, os.ErrNotExist)}
	}
	f := file{size: info.Size(), modified: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		f.inode = stat.Ino
	}
	return f
}
