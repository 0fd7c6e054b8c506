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

// issue makes a certificate for 127.0.0.1 and its key, as PEM.
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

// secure is a master behind TLS that notes whom its last caller's certificate names.
type secure struct {
	*httptest.Server
	pair   atomic.Pointer[tls.Certificate]
	caller atomic.Value // string
}

// use gives the master a certificate for its next connections.
func (s *secure) use(t *testing.T, certPEM, keyPEM []byte) {
	t.Helper()
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	s.pair.Store(&pair)
}

// newSecure demands a client certificate of clients, where that is not nil.
func newSecure(t *testing.T, clients *authority) *secure {
	t.Helper()
	s := &secure{}
	s.caller.Store("")
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			s.caller.Store(r.TLS.PeerCertificates[0].Subject.CommonName)
		}
		io.WriteString(w, `{"id":"n1","job":null}`)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.pair.Load(), nil }}
	if clients != nil {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients.pool()
	}
	s.StartTLS()
	s.TLS.Certificates = nil // httptest's own, which it adds
	t.Cleanup(s.Close)
	return s
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, path); err != nil { // as whoever renews certificates should
		t.Fatal(err)
	}
}

func register(c *Client) error {
	_, err := c.Register(context.Background(), messages.NodeFacts{Address: "host"})
	return err
}

func TestTLSErrorsSayWhatIsWrong(t *testing.T) {
	ca, stranger := newAuthority(t, "ours"), newAuthority(t, "stranger")
	dir := t.TempDir()
	caFile := filepath.Join(dir, "ca.pem")
	write(t, caFile, ca.pem)
	expired := time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		by     *authority
		cert   func(*x509.Certificate)
		change func(*Settings)
		says   string // "" for no error
	}{
		"known authority":      {by: ca},
		"unknown authority":    {by: stranger, says: "--ca (master.ca)"},
		"not asked":            {by: stranger, change: func(s *Settings) { s.InsecureSkipVerify = true }},
		"expired":              {by: ca, cert: func(c *x509.Certificate) { c.NotAfter = expired }, says: "expired on " + expired.UTC().Format(time.RFC3339) + ", by this machine's clock"},
		"not yet valid":        {by: ca, cert: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, says: "is not valid before "},
		"another host":         {by: ca, cert: func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"master.example.org"} }, says: "is for another host"},
		"plain HTTP to TLS":    {by: ca, change: func(s *Settings) { s.URL = strings.Replace(s.URL, "https", "http", 1) }, says: "its URL begins with https://"},
		"system's authorities": {by: ca, change: func(s *Settings) { s.CAFile = "" }, says: "--ca (master.ca)"},
	} {
		t.Run(name, func(t *testing.T) {
			server := newSecure(t, nil)
			var change []func(*x509.Certificate)
			if c.cert != nil {
				change = append(change, c.cert)
			}
			certPEM, keyPEM := c.by.issue(t, "master", change...)
			server.use(t, certPEM, keyPEM)
			client := clientFor(t, server.URL, func(s *Settings) {
				s.CAFile = caFile
				if c.change != nil {
					c.change(s)
				}
			})
			err := register(client)
			if c.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e := failure(t, err)
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "x509:") && name != "another host" {
				t.Errorf("error %q, want %q", err, c.says)
			}
			if e.Ambiguous || (e.Kind != protocol.Unreachable && e.Kind != protocol.Malformed) {
				t.Errorf("%+v: the master never saw the request", e)
			}
		})
	}
}

func TestTLSToAPlainMaster(t *testing.T) {
	server, _ := answering(t, 200, `{}`)
	err := register(clientFor(t, strings.Replace(server.URL, "http", "https", 1)))
	if e := wantFailure(t, err, protocol.Unreachable, "does not speak TLS there: its URL begins with http://"); e.Ambiguous {
		t.Errorf("%+v", e)
	}
}

// mutual is a master that wants client certificates, and the files of a client.
type mutual struct {
	*secure
	servers, clients      *authority
	ca, cert, key         string
	masterCert, masterKey []byte
}

func newMutual(t *testing.T) *mutual {
	t.Helper()
	dir := t.TempDir()
	m := &mutual{servers: newAuthority(t, "servers"), clients: newAuthority(t, "clients"),
		ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	m.secure = newSecure(t, m.clients)
	m.masterCert, m.masterKey = m.servers.issue(t, "master")
	m.use(t, m.masterCert, m.masterKey)
	write(t, m.ca, m.servers.pem)
	m.renew(t, m.clients, "agent 1")
	return m
}

func (m *mutual) renew(t *testing.T, by *authority, name string) {
	t.Helper()
	certPEM, keyPEM := by.issue(t, name)
	write(t, m.cert, certPEM)
	write(t, m.key, keyPEM)
}

func (m *mutual) with(s *Settings) { s.CAFile, s.CertFile, s.KeyFile = m.ca, m.cert, m.key }

func TestClientCertificatesAreRenewedFromDisk(t *testing.T) {
	m := newMutual(t)
	core, logs := observer.New(zap.InfoLevel)
	c := clientFor(t, m.URL, m.with, func(s *Settings) { s.Logger = zap.New(core) })
	for name, call := range map[string]func() error{
		"register":  func() error { return register(c) },
		"heartbeat": func() error { return c.Heartbeat(context.Background(), session, messages.NodeStatus{}) },
		"next":      func() error { _, err := c.Next(context.Background(), session); return err },
	} {
		if err := call(); err != nil {
			t.Fatal(err)
		}
		m.renew(t, m.clients, "renewed for "+name)
		if err := call(); err != nil {
			t.Fatal(err)
		}
		if got := m.caller.Load(); got != "renewed for "+name {
			t.Errorf("%s came as %q", name, got)
		}
	}
	if n := logs.FilterMessageSnippet("renewed").Len(); n != 3 {
		t.Errorf("3 renewals were logged %d times", n)
	}
}

func TestHalfARenewalChangesNothing(t *testing.T) {
	m := newMutual(t)
	core, logs := observer.New(zap.WarnLevel)
	c := clientFor(t, m.URL, m.with, func(s *Settings) { s.Logger = zap.New(core) })
	certPEM, keyPEM := m.clients.issue(t, "agent 2")
	for name, breakIt := range map[string]func(){
		"certificate without its key": func() { write(t, m.cert, certPEM) },
		"key gone":                    func() { os.Remove(m.key) },
		"CA empty":                    func() { write(t, m.ca, nil) },
	} {
		before := logs.Len()
		breakIt()
		for range 3 {
			if err := register(c); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := m.caller.Load(); got != "agent 1" {
				t.Errorf("%s: came as %q", name, got)
			}
		}
		if n := logs.Len() - before; n != 1 {
			t.Errorf("%s: warned %d times, want once", name, n)
		}
	}
	write(t, m.ca, m.servers.pem)
	write(t, m.cert, certPEM)
	write(t, m.key, keyPEM)
	if err := register(c); err != nil || m.caller.Load() != "agent 2" {
		t.Errorf("once it is whole: came as %q, error %v", m.caller.Load(), err)
	}
}

func TestTheMastersCAIsRenewedFromDisk(t *testing.T) {
	m := newMutual(t)
	c := clientFor(t, m.URL, m.with)
	if err := register(c); err != nil {
		t.Fatal(err)
	}
	next := newAuthority(t, "next servers")
	certPEM, keyPEM := next.issue(t, "master")
	m.use(t, certPEM, keyPEM)
	_, err := c.Next(context.Background(), session)
	wantFailure(t, err, protocol.Unreachable, "--ca")
	write(t, m.ca, next.pem)
	if err := register(c); err != nil {
		t.Errorf("under the new authority: %v", err)
	}
	m.use(t, m.masterCert, m.masterKey)
	_, err = c.Next(context.Background(), session)
	wantFailure(t, err, protocol.Unreachable, "--ca")
}

// The master turns a client down only after the request was written (TLS 1.3), and
// has not read it.
func TestAMasterThatDoesNotTrustUs(t *testing.T) {
	m := newMutual(t)
	for name, prepare := range map[string]func(*Settings){
		"no certificate": func(s *Settings) { s.CAFile = m.ca },
		"a stranger's":   func(s *Settings) { m.with(s); m.renew(t, newAuthority(t, "stranger"), "agent") },
	} {
		for range 5 {
			_, err := clientFor(t, m.URL, prepare).Next(context.Background(), session)
			e := wantFailure(t, err, protocol.Unreachable)
			if strings.Contains(err.Error(), "--cert, --key") {
				if e.Ambiguous {
					t.Errorf("%s: %+v", name, e)
				}
			} else if !strings.Contains(err.Error(), "the connection broke") { // the alert can lose against the RST behind it
				t.Errorf("%s: %v", name, err)
			}
		}
		if m.caller.Load() != "" {
			t.Errorf("%s: the request was carried out", name)
		}
	}
}
