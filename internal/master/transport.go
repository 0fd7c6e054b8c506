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

// clients are the HTTP clients for one version of the certificates. They are replaced when
// a certificate file changes.
type clients struct {
	sharedClient    http.Client
	heartbeatClient http.Client
	unpooledClient  http.Client
	files           certFiles
}

// shared returns the client for most calls.
func (c *clients) shared() *http.Client { return &c.sharedClient }

// forHeartbeats returns a client with its own connection, so that heartbeats do not wait
// for other calls.
func (c *clients) forHeartbeats() *http.Client { return &c.heartbeatClient }

// unpooled returns a client that opens a connection for each request. The transport only
// resends requests on reused connections, so it never resends these.
func (c *clients) unpooled() *http.Client { return &c.unpooledClient }

func newClients(cfg Config, files certFiles) (*clients, error) {
	config, err := tlsConfig(cfg)
	if err != nil {
		return nil, err
	}
	return &clients{
		sharedClient:    newHTTPClient(config, true),
		heartbeatClient: newHTTPClient(config, true),
		unpooledClient:  newHTTPClient(config, false),
		files:           files,
	}, nil
}

func (c *clients) close() {
	c.sharedClient.CloseIdleConnections()
	c.heartbeatClient.CloseIdleConnections()
	c.unpooledClient.CloseIdleConnections()
}

func newHTTPClient(config *tls.Config, keepAlive bool) http.Client {
	const dialTimeout = 5 * time.Second
	// HTTP/2 would multiplex calls that must be independent on one connection, and its
	// transport has its own rules for resending requests.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return http.Client{
		// Following a redirect would send the API key to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:        config.Clone(),
			TLSHandshakeTimeout:    dialTimeout,
			DisableKeepAlives:      !keepAlive,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			Protocols:              &protocols,
		},
	}
}

func tlsConfig(cfg Config) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: cfg.InsecureSkipVerify}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("master.ca (--ca): reading the master's CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("master.ca (--ca): no PEM certificate in %s", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("master.cert, master.key (--cert, --key): reading the client certificate from %s and %s: %w", cfg.CertFile, cfg.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// currentClients returns the clients to use, and replaces them first if a certificate file
// has changed. If the new files are invalid, for example because only some of them have
// been replaced yet, it logs that once, keeps the old clients, and the next call tries again.
func (c *Client) currentClients() *clients {
	files := c.certFiles()
	if clients := c.clients.Load(); clients.files == files {
		return clients
	}
	c.reload.Lock()
	defer c.reload.Unlock()
	old := c.clients.Load()
	if old.files == files { // replaced by a concurrent call
		return old
	}
	reloaded, err := newClients(c.cfg, files)
	if err != nil {
		if c.warned != files {
			c.log.Warn("could not reload certificates, keeping the old ones", zap.Error(err))
			c.warned = files
		}
		return old
	}
	c.clients.Store(reloaded)
	c.warned = certFiles{}
	old.close()
	c.log.Info("reloaded certificates for the master")
	return reloaded
}

// certFiles identifies a version of the CA, certificate and key files.
type certFiles [3]fileVersion

type fileVersion struct {
	inode    uint64
	size     int64
	modified time.Time
	missing  bool
}

func (c *Client) certFiles() certFiles {
	var files certFiles
	for i, path := range []string{c.cfg.CAFile, c.cfg.CertFile, c.cfg.KeyFile} {
		if path != "" {
			files[i] = versionOf(path)
		}
	}
	return files
}

func versionOf(path string) fileVersion {
	info, err := os.Stat(path)
	if err != nil {
		return fileVersion{missing: errors.Is(err, os.ErrNotExist)}
	}
	f := fileVersion{size: info.Size(), modified: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		f.inode = stat.Ino
	}
	return f
}
