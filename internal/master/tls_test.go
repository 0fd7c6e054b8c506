package master

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue returns a certificate for 127.0.0.1 and its key, as PEM.
func (a *authority) issue(t *testing.T, name string, change ...func(*x509.Certificate)) (certPEM, keyPEM []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	for _, f := range change {
		f(template)
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// tlsMaster is a master with TLS.
type tlsMaster struct {
	*httptest.Server
	pair    atomic.Pointer[tls.Certificate]
	highest atomic.Uint32 // version of TLS; 0: the newest
	client  atomic.Value  // string: common name in the certificate of the last request
}

// use sets the master's certificate for new connections.
func (s *tlsMaster) use(t *testing.T, certPEM, keyPEM []byte) {
	t.Helper()
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	s.pair.Store(&pair)
}

// newTLSMaster returns a master that requires a certificate signed by clients, unless
// clients is nil.
func newTLSMaster(t *testing.T, clients *authority) *tlsMaster {
	t.Helper()
	s := &tlsMaster{}
	s.client.Store("")
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			s.client.Store(r.TLS.PeerCertificates[0].Subject.CommonName)
		}
		io.WriteString(w, `{"id":"n1","job":null}`)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.pair.Load(), nil }}
	if clients != nil {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients.pool()
	}
	s.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		config := s.TLS.Clone()
		config.GetConfigForClient, config.MaxVersion = nil, uint16(s.highest.Load())
		return config, nil
	}
	s.StartTLS()
	s.TLS.Certificates = nil // remove the one added by httptest
	t.Cleanup(s.Close)
	return s
}

// write replaces a file atomically.
func write(t *testing.T, path string, content []byte) {
	t.Helper()
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, path); err != nil {
		t.Fatal(err)
	}
}

func register(c *Client) error {
	_, err := c.Register(context.Background(), messages.NodeFacts{Address: "host"})
	return err
}

func TestTLSErrors(t *testing.T) {
	ca, otherCA := newAuthority(t, "ca"), newAuthority(t, "other ca")
	dir := t.TempDir()
	caFile := filepath.Join(dir, "ca.pem")
	write(t, caFile, ca.pem)
	expired := time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		issuer  *authority
		cert    func(*x509.Certificate)
		change  func(*Config)
		tls     uint16 // highest version of the master; 0: the newest
		message string // "" for no error
	}{
		"known CA":          {issuer: ca},
		"unknown CA":        {issuer: otherCA, message: "--ca (master.ca)"},
		"not verified":      {issuer: otherCA, change: func(cfg *Config) { cfg.InsecureSkipVerify = true }},
		"expired":           {issuer: ca, cert: func(c *x509.Certificate) { c.NotAfter = expired }, message: "expired on " + expired.UTC().Format(time.RFC3339) + " according to this machine's clock"},
		"not yet valid":     {issuer: ca, cert: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, message: "is not valid before "},
		"another host":      {issuer: ca, cert: func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"master.example.org"} }, message: "is for master.example.org, not for 127.0.0.1"},
		"no host":           {issuer: ca, cert: func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, nil }, message: "is for no host"},
		"old TLS":           {issuer: ca, tls: tls.VersionTLS11, message: "enable TLS 1.2 or 1.3"},
		"plain HTTP to TLS": {issuer: ca, change: func(cfg *Config) { cfg.URL = strings.Replace(cfg.URL, "https", "http", 1) }, message: "its URL must start with https://"},
		"system CAs":        {issuer: ca, change: func(cfg *Config) { cfg.CAFile = "" }, message: "--ca (master.ca)"},
	} {
		t.Run(name, func(t *testing.T) {
			server := newTLSMaster(t, nil)
			var change []func(*x509.Certificate)
			if c.cert != nil {
				change = append(change, c.cert)
			}
			certPEM, keyPEM := c.issuer.issue(t, "master", change...)
			server.use(t, certPEM, keyPEM)
			server.highest.Store(uint32(c.tls))
			client := clientFor(t, server.URL, func(cfg *Config) {
				cfg.CAFile = caFile
				if c.change != nil {
					c.change(cfg)
				}
			})
			err := register(client)
			if c.message == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e := protocolError(t, err)
			if !strings.Contains(err.Error(), c.message) || strings.Contains(err.Error(), "x509:") {
				t.Errorf("got error %q, want %q in it", err, c.message)
			}
			if e.Ambiguous || (e.Kind != protocol.Unreachable && e.Kind != protocol.Malformed) {
				t.Errorf("got %+v, want it unreachable or malformed and not ambiguous", e)
			}
		})
	}
}

func TestExpiryOfCertificatesIsKnown(t *testing.T) {
	m := newMTLSMaster(t)
	core, logs := observer.New(zap.WarnLevel)
	c := clientFor(t, m.URL, m.useFiles, func(cfg *Config) { cfg.Logger = zap.New(core) })
	if got := c.Certificates(); len(got) != 0 {
		t.Errorf("got %v before the first call, want none", got)
	}
	for range 2 {
		if err := register(c); err != nil {
			t.Fatal(err)
		}
	}
	got := c.Certificates()
	if len(got) != 2 || got[0].Name != "client" || got[1].Name != "master" || time.Until(got[0].ExpiresAt) > time.Hour || time.Until(got[1].ExpiresAt) > time.Hour {
		t.Errorf("got %+v, want both certificates, which expire within the hour", got)
	}
	if n := logs.FilterMessageSnippet("expires soon").Len(); n != 2 {
		t.Errorf("got %d warnings, want one for each certificate", n)
	}

	// Certificates that are valid for long are not warned about.
	logs.TakeAll()
	certPEM, keyPEM := m.servers.issue(t, "master", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(31 * 24 * time.Hour) })
	m.use(t, certPEM, keyPEM)
	fresh := clientFor(t, m.URL, m.useFiles, func(cfg *Config) { cfg.Logger = zap.New(core) })
	if err := register(fresh); err != nil {
		t.Fatal(err)
	}
	for _, line := range logs.FilterMessageSnippet("the master's certificate").All() {
		t.Errorf("got %q, want no warning 31 days before", line.Message)
	}
}

func TestTLSToPlainHTTPMaster(t *testing.T) {
	server, _ := respondWith(t, 200, `{}`)
	err := register(clientFor(t, strings.Replace(server.URL, "http", "https", 1)))
	if e := wantError(t, err, protocol.Unreachable, "does not use TLS on this port; its URL must start with http://"); e.Ambiguous {
		t.Errorf("got %+v, want it not ambiguous", e)
	}
}

// mtlsMaster is a master that requires client certificates, with the files of a client.
type mtlsMaster struct {
	*tlsMaster
	servers, clients      *authority
	ca, cert, key         string
	masterCert, masterKey []byte
}

func newMTLSMaster(t *testing.T) *mtlsMaster {
	t.Helper()
	dir := t.TempDir()
	m := &mtlsMaster{servers: newAuthority(t, "servers"), clients: newAuthority(t, "clients"),
		ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	m.tlsMaster = newTLSMaster(t, m.clients)
	m.masterCert, m.masterKey = m.servers.issue(t, "master")
	m.use(t, m.masterCert, m.masterKey)
	write(t, m.ca, m.servers.pem)
	m.renew(t, m.clients, "agent 1")
	return m
}

// renew replaces the client's certificate.
func (m *mtlsMaster) renew(t *testing.T, issuer *authority, name string) {
	t.Helper()
	certPEM, keyPEM := issuer.issue(t, name)
	write(t, m.cert, certPEM)
	write(t, m.key, keyPEM)
}

func (m *mtlsMaster) useFiles(cfg *Config) {
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = m.ca, m.cert, m.key
}

// same changes nothing but what the files hold.
func same(*Config) {}

func TestClientCertificateReload(t *testing.T) {
	m := newMTLSMaster(t)
	c := clientFor(t, m.URL, m.useFiles)
	for name, call := range map[string]func() error{
		"register":  func() error { return register(c) },
		"heartbeat": func() error { return c.Heartbeat(context.Background(), session, messages.NodeStatus{}) },
		"next":      func() error { _, err := c.Next(context.Background(), session); return err },
	} {
		if err := call(); err != nil {
			t.Fatal(err)
		}
		m.renew(t, m.clients, "renewed for "+name)
		reconfigure(t, c, same)
		if err := call(); err != nil {
			t.Fatal(err)
		}
		if got := m.client.Load(); got != "renewed for "+name {
			t.Errorf("%s: got client certificate %q, want %q", name, got, "renewed for "+name)
		}
	}
}

// A connection that is open stays in use, so that a reload costs no handshake.
func TestUnchangedCertificatesKeepConnections(t *testing.T) {
	m := newMTLSMaster(t)
	c := clientFor(t, m.URL, m.useFiles)
	before := c.clients.Load()
	reconfigure(t, c, func(cfg *Config) { cfg.APIKey, cfg.HeartbeatTimeout = "other", time.Minute })
	if after := c.clients.Load(); after.sharedClient != before.sharedClient || after.heartbeatClient != before.heartbeatClient {
		t.Error("a changed key replaced the connections")
	}
	m.renew(t, m.clients, "agent 2")
	reconfigure(t, c, same)
	if after := c.clients.Load(); after.sharedClient == before.sharedClient || after.heartbeatClient == before.heartbeatClient {
		t.Error("changed certificates did not replace the connections")
	}
}

func TestInvalidCertificatesAreNotLoaded(t *testing.T) {
	m := newMTLSMaster(t)
	c := clientFor(t, m.URL, m.useFiles)
	certPEM, keyPEM := m.clients.issue(t, "agent 2")
	for _, damage := range []struct {
		name, key, file string
		do              func()
	}{
		{"certificate does not match key", "master.cert", m.cert, func() { write(t, m.cert, certPEM) }},
		{"missing key", "master.key", m.key, func() { os.Remove(m.key) }},
		{"empty CA", "master.ca", m.ca, func() { write(t, m.ca, nil); write(t, m.cert, certPEM); write(t, m.key, keyPEM) }},
	} {
		damage.do()
		err := c.Reconfigure(c.cfg)
		if err == nil || !strings.Contains(err.Error(), damage.key) || !strings.Contains(err.Error(), damage.file) {
			t.Errorf("%s: got error %v, want %s and %s in it", damage.name, err, damage.key, damage.file)
		}
		if err := register(c); err != nil {
			t.Fatalf("%s: %v", damage.name, err)
		}
		if got := m.client.Load(); got != "agent 1" {
			t.Errorf("%s: got client certificate %q, want the old one", damage.name, got)
		}
	}
	write(t, m.ca, m.servers.pem)
	reconfigure(t, c, same)
	if err := register(c); err != nil || m.client.Load() != "agent 2" {
		t.Errorf("all files replaced: got client certificate %q, error %v; want agent 2", m.client.Load(), err)
	}
}

func TestCAReload(t *testing.T) {
	m := newMTLSMaster(t)
	c := clientFor(t, m.URL, m.useFiles)
	if err := register(c); err != nil {
		t.Fatal(err)
	}
	next := newAuthority(t, "next servers")
	certPEM, keyPEM := next.issue(t, "master")
	m.use(t, certPEM, keyPEM)
	_, err := c.Next(context.Background(), session)
	wantError(t, err, protocol.Unreachable, "--ca")
	write(t, m.ca, next.pem)
	reconfigure(t, c, same)
	if err := register(c); err != nil {
		t.Errorf("Register with the new CA: %v", err)
	}
	m.use(t, m.masterCert, m.masterKey)
	_, err = c.Next(context.Background(), session)
	wantError(t, err, protocol.Unreachable, "--ca")
}

// With TLS 1.3 the master rejects a client after the request was written, but before it
// reads it.
func TestRejectedClientCertificate(t *testing.T) {
	m := newMTLSMaster(t)
	for name, prepare := range map[string]func(*Config){
		"no certificate": func(cfg *Config) { cfg.CAFile = m.ca },
		"unknown issuer": func(cfg *Config) { m.useFiles(cfg); m.renew(t, newAuthority(t, "other ca"), "agent") },
	} {
		for range 5 {
			_, err := clientFor(t, m.URL, prepare).Next(context.Background(), session)
			e := wantError(t, err, protocol.Unreachable)
			if strings.Contains(err.Error(), "--cert, --key") {
				if e.Ambiguous {
					t.Errorf("%s: got %+v, want it not ambiguous", name, e)
				}
			} else if !strings.Contains(err.Error(), "connection closed") { // an RST can overtake the alert
				t.Errorf("%s: got %v, want a rejected certificate or a closed connection", name, err)
			}
		}
		if m.client.Load() != "" {
			t.Errorf("%s: the master handled the request", name)
		}
	}
}
