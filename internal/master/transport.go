package master

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// clients are what calls are made with: the key, and HTTP clients with the certificates. They
// are replaced as a whole by Reconfigure.
type clients struct {
	key              string
	heartbeatTimeout time.Duration
	sharedClient     *http.Client
	heartbeatClient  *http.Client
	unpooledClient   *http.Client
	certificates     certificates
}

// shared returns the client for most calls.
func (c *clients) shared() *http.Client { return c.sharedClient }

// forHeartbeats returns a client with its own connection, so that heartbeats do not wait
// for other calls.
func (c *clients) forHeartbeats() *http.Client { return c.heartbeatClient }

// unpooled returns a client that opens a connection for each request. The transport only
// resends requests on reused connections, so it never resends these.
func (c *clients) unpooled() *http.Client { return c.unpooledClient }

// open makes the HTTP clients. It makes no calls. seen learns the certificates of handshakes.
func (c *clients) open(cfg Config, seen *expiries) error {
	config, err := c.certificates.tlsConfig(cfg)
	if err != nil {
		return err
	}
	config.VerifyConnection = seen.observe(config.Certificates)
	c.sharedClient = newHTTPClient(config, true)
	c.heartbeatClient = newHTTPClient(config, true)
	c.unpooledClient = newHTTPClient(config, false)
	return nil
}

func (c *clients) close() {
	c.sharedClient.CloseIdleConnections()
	c.heartbeatClient.CloseIdleConnections()
	c.unpooledClient.CloseIdleConnections()
}

func newHTTPClient(config *tls.Config, keepAlive bool) *http.Client {
	const dialTimeout = 5 * time.Second
	// HTTP/2 would multiplex calls that must be independent on one connection, and its
	// transport has its own rules for resending requests.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Client{
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

// certificates are the contents of the certificate files, and whether they are used at all.
type certificates struct {
	ca, cert, key string // PEM; "": none
	skipVerify    bool
}

func readCertificates(cfg Config) (certificates, error) {
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return certificates{}, errors.New("master.cert and master.key (--cert, --key): a client certificate needs both")
	}
	read := certificates{skipVerify: cfg.InsecureSkipVerify}
	for _, file := range []struct {
		path string
		into *string
		what string
	}{
		{cfg.CAFile, &read.ca, "master.ca (--ca): reading the master's CA"},
		{cfg.CertFile, &read.cert, "master.cert (--cert): reading the client certificate"},
		{cfg.KeyFile, &read.key, "master.key (--key): reading the client certificate's key"},
	} {
		if file.path == "" {
			continue
		}
		pem, err := os.ReadFile(file.path)
		if err != nil {
			return certificates{}, fmt.Errorf("%s: %w", file.what, err)
		}
		*file.into = string(pem)
	}
	return read, nil
}

// tlsConfig makes the certificates into a TLS configuration; cfg names their files.
func (c certificates) tlsConfig(cfg Config) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.skipVerify}
	if cfg.CAFile != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(c.ca)) {
			return nil, fmt.Errorf("master.ca (--ca): no PEM certificate in %s", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" {
		pair, err := tls.X509KeyPair([]byte(c.cert), []byte(c.key))
		if err != nil {
			return nil, fmt.Errorf("master.cert, master.key (--cert, --key): reading the client certificate from %s and %s: %w", cfg.CertFile, cfg.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
