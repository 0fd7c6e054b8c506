package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
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
func (a *authority) issue(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// guard is a master behind TLS that asks for a client certificate and a key, and remembers
// who called.
type guard struct {
	*httptest.Server
	errors output // of TLS handshakes

	mu      sync.Mutex
	pair    tls.Certificate
	clients *x509.CertPool
	keys    []string
	calls   int
	refused int
	key     string // of the last call
	client  string // name in the certificate of the last call
}

func newGuard(t *testing.T, master http.Handler) *guard {
	g := &guard{}
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.admit(r) {
			http.Error(w, "unknown key", http.StatusUnauthorized)
			return
		}
		master.ServeHTTP(w, r)
	}))
	g.Config.ErrorLog = log.New(&g.errors, "", 0)
	g.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		return &tls.Config{Certificates: []tls.Certificate{g.pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: g.clients, MinVersion: tls.VersionTLS12}, nil
	}}
	g.StartTLS()
	t.Cleanup(g.Close)
	return g
}

func (g *guard) admit(r *http.Request) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls++
	g.key, g.client = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), r.TLS.PeerCertificates[0].Subject.CommonName
	if !slices.Contains(g.keys, g.key) {
		g.refused++
		return false
	}
	return true
}

// require sets what later calls, on new connections, must show.
func (g *guard) require(t *testing.T, server *authority, clients []*authority, keys ...string) {
	t.Helper()
	cert, key := server.issue(t, "master")
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pair, g.clients, g.keys = pair, x509.NewCertPool(), keys
	for _, a := range clients {
		g.clients.AddCert(a.cert)
	}
}

// settle waits until several calls in a row came with a key and a client certificate, so that
// none with others is in flight.
func (g *guard) settle(t *testing.T, key, client string) {
	t.Helper()
	row, seen := 0, 0
	waitFor(t, "calls with key "+key+" and certificate "+client, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.calls > seen {
			seen = g.calls
			row++
			if g.key != key || g.client != client {
				row = 0
			}
		}
		return row >= 10
	})
}

func (g *guard) failures() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if text := g.errors.String(); g.refused > 0 || text != "" {
		return fmt.Sprintf("%d calls refused of %d; TLS errors: %q", g.refused, g.calls, text)
	}
	return ""
}

// reloading is an agent with a configuration file.
type reloading struct {
	*testbed
	dir   string
	agent *process
}

func (r *reloading) path(name string) string { return filepath.Join(r.dir, name) }

func (r *reloading) status() messages.Status {
	s, err := control.NewClient(filepath.Join(r.testbed.dir, "agent.sock")).Status(context.Background())
	if err != nil {
		return messages.Status{}
	}
	return s
}

func (r *reloading) awaitStatus(what string, reached func(*messages.Status) bool) {
	r.t.Helper()
	waitFor(r.t, what, func() bool { s := r.status(); return s.Configuration != nil && reached(&s) })
}

func startReloading(t *testing.T, yaml string) *reloading {
	r := &reloading{testbed: newTestbed(t), dir: t.TempDir()}
	overwrite(t, r.path("agent.yaml"), "register: true\nallow_master_as_worker: true\nmaster:\n  url: "+r.server.URL+"\n"+yaml)
	r.agent = startAgent(t, r.environment(), "--config", r.path("agent.yaml"), "--metrics-port", "0")
	return r
}

// Neither side may notice more of a rotation than that it happened.
func TestRotationCostsNoCall(t *testing.T) {
	t.Parallel()
	first, second, clients, nextClients := newAuthority(t), newAuthority(t), newAuthority(t), newAuthority(t)
	r := &reloading{testbed: newTestbed(t), dir: t.TempDir()}
	g := newGuard(t, *r.handler.Load())
	g.require(t, first, []*authority{clients}, "old")
	cert, key := clients.issue(t, "agent 1")
	for name, content := range map[string]string{"key": "old\n", "ca.pem": first.pem, "cert.pem": cert, "key.pem": key} {
		overwrite(t, r.path(name), content)
	}
	overwrite(t, r.path("agent.yaml"), fmt.Sprintf("register: true\nallow_master_as_worker: true\npoll_interval: 100ms\nheartbeat_interval: 4s\nmetrics_port: 0\n"+
		"master:\n  url: %s\n  api_key_file: %s\n  ca: %s\n  cert: %s\n  key: %s\n", g.URL, r.path("key"), r.path("ca.pem"), r.path("cert.pem"), r.path("key.pem")))
	r.agent = startAgent(t, r.environment(), "--config", r.path("agent.yaml"))
	g.settle(t, "old", "agent 1")
	job := r.submit(ffmpegtest.Long())
	r.awaitFFmpeg()

	g.require(t, first, []*authority{clients}, "old", "new")
	replace(t, r.path("key"), "new\n")
	g.settle(t, "new", "agent 1")
	g.require(t, first, []*authority{clients, nextClients}, "new")

	// The certificate comes before its key, so that they do not match for a while.
	cert, key = nextClients.issue(t, "agent 2")
	replace(t, r.path("cert.pem"), cert)
	r.awaitStatus("the error about the certificate", func(s *messages.Status) bool {
		return strings.Contains(s.Configuration.Error, "master.cert") && strings.Contains(s.Configuration.Error, r.path("cert.pem"))
	})
	g.settle(t, "new", "agent 1")
	replace(t, r.path("key.pem"), key)
	g.settle(t, "new", "agent 2")
	r.awaitStatus("the end of the error", func(s *messages.Status) bool { return s.Configuration.Error == "" })
	g.require(t, first, []*authority{nextClients}, "new")

	// The master's own authority: the agent trusts both before the master changes.
	replace(t, r.path("ca.pem"), first.pem+second.pem)
	waitFor(t, "the reload", func() bool { return strings.Contains(r.agent.log(), `"changed":["master.ca"]`) })
	g.require(t, second, []*authority{nextClients}, "new")
	g.CloseClientConnections() // idle ones, but perhaps one in use as well
	g.settle(t, "new", "agent 2")

	if failed := g.failures(); failed != "" {
		t.Errorf("got %s; want no failure", failed)
	}
	g.mu.Lock()
	t.Logf("%d calls, %d refused", g.calls, g.refused)
	g.mu.Unlock()
	s := r.status()
	if s.Heartbeat == nil || s.Heartbeat.Sent == 0 || s.Heartbeat.Failed > 1 || len(s.Jobs) != 1 {
		t.Errorf("got heartbeats %+v and %d jobs, want no failure but that of the connections closed here, and the running job", s.Heartbeat, len(s.Jobs))
	}
	r.cancel(job.ID)
	if text := r.agent.log(); strings.Contains(text, `"new"`) || strings.Contains(text, "EC PRIVATE") {
		t.Error("the log contains a secret")
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	r := startReloading(t, "poll_interval: 100ms\nheartbeat_interval: 4s\n")
	r.awaitRegistration()
	one, two := r.submit(ffmpegtest.Long()), r.submit(ffmpegtest.Long())
	r.awaitStatus("a running job", func(s *messages.Status) bool { return len(s.Jobs) == 1 && s.Slots == 1 })
	text, err := os.ReadFile(r.path("agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	valid := string(text)

	// Slots, level and intervals take effect; a port and a format do not.
	r.awaitStatus("the configuration", func(s *messages.Status) bool { return s.Configuration.File == r.path("agent.yaml") })
	valid = strings.ReplaceAll(valid, "4s", "2s") + "jobs:\n  max_concurrent: 2\nlog:\n  level: debug\n  format: console\nexporters:\n  docker:\n    port: 9999\n"
	replace(t, r.path("agent.yaml"), valid)
	r.awaitStatus("the second job", func(s *messages.Status) bool { return len(s.Jobs) == 2 && s.Slots == 2 })
	waiting := []string{"exporters.docker.port", "log.format"}
	r.awaitStatus("the keys that need a restart", func(s *messages.Status) bool { return slices.Equal(s.Configuration.Restart, waiting) })
	if !strings.Contains(r.agent.log(), `"need_restart":["exporters.docker.port","log.format"]`) {
		t.Error("the log does not name the keys that need a restart")
	}
	waitFor(t, "a line of level debug", func() bool { return strings.Contains(r.agent.log(), `"level":"debug"`) })

	// A broken file changes nothing, and is named with its line.
	before := r.status()
	replace(t, r.path("agent.yaml"), valid+"poll_interval: soon\nmetrics_port: 1\n")
	line := fmt.Sprintf("%s:%d", r.path("agent.yaml"), strings.Count(valid, "\n")+1)
	r.awaitStatus("the error", func(s *messages.Status) bool { return strings.Contains(s.Configuration.Error, line) })
	reload := func(code int, want string) {
		t.Helper()
		if got, out, errs := command(t, "reload", "--socket", filepath.Join(r.testbed.dir, "agent.sock")); got != code || !strings.Contains(out+errs, want) {
			t.Errorf("agent reload: got exit status %d: %s%s, want %d and %q", got, out, errs, code, want)
		}
	}
	reload(exitFailed, line)
	after := r.status()
	if after.Slots != 2 || !after.Configuration.LoadedAt.Equal(before.Configuration.LoadedAt) || !slices.Equal(after.Configuration.Restart, waiting) {
		t.Errorf("after the broken file: got %d slots, %+v; want what was before", after.Slots, after.Configuration)
	}
	refused := func(why string) {
		t.Helper()
		r.awaitStatus("the error: "+why, func(s *messages.Status) bool { return strings.Contains(s.Configuration.Error, why) })
	}
	replace(t, r.path("agent.yaml"), "") // cut off, as by a full disk
	refused("no longer sets any key")
	os.Remove(r.path("agent.yaml"))
	refused("does not exist")
	if err := syscall.Mkfifo(r.path("agent.yaml"), 0o600); err != nil { // nobody writes to it
		t.Fatal(err)
	}
	r.agent.signal(t, syscall.SIGHUP)
	refused("is not a regular file")

	// SIGHUP reads the files again even where none has changed.
	replace(t, r.path("agent.yaml"), valid)
	r.awaitStatus("the reload of the mended file", func(s *messages.Status) bool { return s.Configuration.Error == "" })
	reload(exitOK, "needs a restart of the agent: exporters.docker.port, log.format")
	loaded := r.status().Configuration.LoadedAt
	r.agent.signal(t, syscall.SIGHUP)
	r.awaitStatus("the reload by SIGHUP", func(s *messages.Status) bool { return s.Configuration.LoadedAt.After(loaded) })

	if h := r.status().Heartbeat; h.Failed != 0 {
		t.Errorf("got %d failed heartbeats, want none", h.Failed)
	}
	for _, job := range []protocol.Job{one, two} {
		r.cancel(job.ID)
	}
}

func TestReloadOfTheWebConfiguration(t *testing.T) {
	t.Parallel()
	bed, dir, port := newTestbed(t), t.TempDir(), freePort(t)
	config, web := filepath.Join(dir, "agent.yaml"), filepath.Join(dir, "web.yaml")
	overwrite(t, config, "log:\n  level: info\n")
	agent := startAgent(t, bed.environment(), append(bed.flags()[:len(bed.flags())-2:len(bed.flags())-2], "--config", config, "--metrics-port", fmt.Sprint(port))...)
	answers := func(password string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/health", port), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth("op", password)
		request.Close = true
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0
		}
		response.Body.Close()
		return response.StatusCode
	}
	want := func(when, password string, code int) {
		t.Helper()
		waitFor(t, fmt.Sprintf("%s: status %d for password %s", when, code, password), func() bool { return answers(password) == code })
	}
	users := func(password string) string {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("basic_auth_users:\n  op: %s\n", hash)
	}
	want("without a web configuration", "", http.StatusOK)
	overwrite(t, web, users("first"))
	replace(t, config, "exporters:\n  web_config: "+web+"\n")
	want("with one", "wrong", http.StatusUnauthorized)
	want("with one", "first", http.StatusOK)
	replace(t, web, users("second"))
	want("after a change of it", "first", http.StatusUnauthorized)
	want("after a change of it", "second", http.StatusOK)
	replace(t, web, "basic_auth_users:\n  op: no-hash\nrubbish: 1\n")
	waitFor(t, "the error", func() bool { return strings.Contains(agent.log(), web) && strings.Contains(agent.log(), "line 3") })
	want("while it is broken", "second", http.StatusOK)
	if strings.Contains(agent.log(), "no-hash") {
		t.Error("the log contains a password")
	}
}

// Each key that takes effect by a reload must reach a part of the agent that is reconfigured,
// and each such part must have been asked for: a key is never applied by half.
func TestLiveKeysReachTheirPart(t *testing.T) {
	load := func(environ ...string) configs.Config {
		t.Helper()
		loaded, err := configs.Load(configs.Source{Environ: append(environ, "HOME=/home/op"), DefaultFile: filepath.Join(t.TempDir(), "none")})
		if err != nil {
			t.Fatal(err)
		}
		return loaded.Config
	}
	parts := func(cfg configs.Config) []any {
		e := effective{Config: cfg, apiKey: cfg.Master.APIKey}
		a, r := actorSettings(e), runnerSettings(cfg)
		disk := a.MinFreeDisk(1 << 40)
		a.MinFreeDisk, r.MinFreeDisk = nil, nil
		return []any{a, r, clientConfig(e), disk, journalReserve(cfg), cfg.Shutdown, cfg.Log.Level}
	}
	values := map[string]string{
		"master.api_key": "k3y", "master.insecure_skip_verify": "true", "master.unavailable_after": "777s",
		"poll_interval": "7s", "heartbeat_interval": "7s", "jobs.max_concurrent": "77", "jobs.generate_input": "false", "jobs.timeout": "7s",
		"jobs.stall_timeout": "7s", "jobs.cancel_check_interval": "7s", "jobs.damaged_input": "accept", "jobs.engine_fallback": "false",
		"jobs.prefer_hardware": "true", "jobs.default_presets": "h264=slow", "jobs.keep_inputs": "true", "jobs.keep_outputs": "true",
		"jobs.output_roots": "/a", "jobs.input_roots": "/a", "jobs.input_protocols": "file", "jobs.input_networks": "127.0.0.0/8", "jobs.fetch_inputs": "false",
		"jobs.min_free_disk": "1GiB", "shutdown.drain_timeout": "7s", "energy.sample_interval": "7s", "energy.idle_interval": "7s", "log.level": "debug",
		"master.ca": "/a", "jobs.input_formats": "mov", "jobs.limits.memory": "1GiB", "jobs.limits.disk": "1GiB", "jobs.limits.output_bytes": "1GiB",
		"jobs.limits.pixels": "65536", "jobs.limits.outputs": "2", "jobs.limits.duration": "1h", "jobs.limits.timeout": "1h",
		// Files, whose content is read beforehand.
		"master.api_key_file": "", "exporters.web_config": "", "master.cert": "", "master.key": "",
	}
	base := load()
	for key, value := range values {
		if value == "" {
			continue
		}
		changed := load("FFMPEG_AGENT_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_")) + "=" + value)
		next, live, _ := base.Reloaded(changed)
		if !slices.Equal(live, []string{key}) {
			t.Errorf("%s: got live keys %q, want it", key, live)
		}
		if reflect.DeepEqual(parts(base), parts(next)) {
			t.Errorf("%s reaches no part of the agent", key)
		}
	}
	for _, key := range configs.LiveKeys() {
		if _, known := values[key]; !known {
			t.Errorf("%s takes effect by a reload, but is not tested here", key)
		}
	}
	if got, want := len(configs.LiveKeys()), len(values); got != want {
		t.Errorf("got %d keys that take effect by a reload, want %d", got, want)
	}
}
