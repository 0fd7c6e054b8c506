package exporters_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/crypto/bcrypt"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
)

func TestDefaultRoutes(t *testing.T) {
	server := serve(t, exporters.Config{
		Name: "agent", Title: "Agent <1>", Description: "Agent metrics",
		Routes: map[string]http.Handler{"/ready": exporters.HealthHandler(nil)},
	})
	_, page := server.get("/")
	for _, want := range []string{"Agent &lt;1&gt;", "Agent metrics", `href="/metrics"`, `href="/health"`, `href="/ready"`} {
		if !strings.Contains(page, want) {
			t.Errorf("landing page lacks %s:\n%s", want, page)
		}
	}
	if strings.Contains(page, "debug/pprof") {
		t.Error("landing page links to /debug/pprof, which is not served")
	}
	for path, want := range map[string]int{"/metrics": 200, "/health": 200, "/ready": 200, "/nothing": 404, "/debug/pprof/": 404} {
		if code, body := server.get(path); code != want {
			t.Errorf("GET %s: got %d %s, want %d", path, code, body, want)
		}
	}
	response, err := server.client.Post(server.url+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics: got %d, want 405", response.StatusCode)
	}
}

func TestNewServerRejectsInvalidConfig(t *testing.T) {
	cpu := exporters.NewCPU(func() *energy.Snapshot { return nil }, exporters.CPUConfig{})
	for name, test := range map[string]struct {
		cfg  exporters.Config
		want string
	}{
		"port":                 {exporters.Config{Name: "cpu", Port: 70000, Key: "exporters.cpu.port"}, "exporters.cpu.port"},
		"same collector twice": {exporters.Config{Name: "cpu", Collectors: []prometheus.Collector{cpu, cpu}}, "cpu exporter: registering"},
		"route over metrics":   {exporters.Config{Routes: map[string]http.Handler{"/metrics": http.NotFoundHandler()}}, `"/metrics"`},
		"route pattern":        {exporters.Config{Routes: map[string]http.Handler{"/{": http.NotFoundHandler()}}, `"/{"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exporters.NewServer(test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %s", err, test.want)
			}
		})
	}
}

func TestServeOnUsedPort(t *testing.T) {
	holder, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	port := holder.Addr().(*net.TCPAddr).Port
	server, err := exporters.NewServer(exporters.Config{
		Name: "cpu", Key: "exporters.cpu.port", Address: "127.0.0.1", Port: port,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = server.Serve(t.Context())
	if err == nil {
		t.Fatal("Serve on a used port: got nil, want an error")
	}
	for _, want := range []string{strconv.Itoa(port), "exporters.cpu.port", "in use", "ss -ltnp"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q in it", err, want)
		}
	}
	if server.Addr() != nil {
		t.Errorf("got address %v after Serve failed, want nil", server.Addr())
	}
	holder.Close()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	for server.Addr() == nil {
		select {
		case err := <-done:
			t.Fatalf("Serve on a free port: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServeOnForeignAddress(t *testing.T) {
	server, err := exporters.NewServer(exporters.Config{Name: "cpu", Key: "exporters.cpu.port", Address: "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(t.Context()); err == nil || !strings.Contains(err.Error(), "exporters.listen_address") {
		t.Errorf("got error %v, want exporters.listen_address in it", err)
	}
}

func TestConcurrentScrapersGetTheSame(t *testing.T) {
	snapshot := &energy.Snapshot{Zones: []energy.ZoneState{zone("package-0", "rapl", energy.Measured, true)}}
	w := &fakeAgent{}
	w.set(exporters.EncodeTotals{Frames: 100}, encoding("a", 500))
	server := serve(t, exporters.Config{Name: "cpu", Collectors: []prometheus.Collector{
		exporters.NewCPU(func() *energy.Snapshot { return snapshot }, exporters.CPUConfig{Version: "1"}),
		exporters.NewFFmpeg(w.status, w.totals),
	}})
	var scrapers sync.WaitGroup
	scrapes := make([][]string, 2)
	for i := range scrapes {
		scrapers.Go(func() {
			for range 20 {
				response, err := server.client.Get(server.url + "/metrics")
				if err != nil {
					t.Error(err)
					return
				}
				var body bytes.Buffer
				body.ReadFrom(response.Body)
				response.Body.Close()
				if response.StatusCode != http.StatusOK {
					t.Errorf("got status %d, want 200", response.StatusCode)
				}
				scrapes[i] = append(scrapes[i], duration.ReplaceAllString(body.String(), "$1"))
			}
		})
	}
	scrapers.Wait()
	for _, scrape := range append(scrapes[0], scrapes[1]...) {
		if scrape != scrapes[0][0] {
			t.Fatalf("scrapes differ:\n%s\n%s", scrapes[0][0], scrape)
		}
	}
	wantValue(t, scrapes[0][0], "ffmpeg_frames_total", "600")
}

func TestCollectorPanic(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	broken := true
	server := serve(t, exporters.Config{Name: "x", Logger: zap.New(core), Collectors: []prometheus.Collector{
		exporters.NewFFmpeg(func() messages.Status {
			if broken {
				panic("no status")
			}
			return status()
		}, func() exporters.EncodeTotals { return exporters.EncodeTotals{} }),
		exporters.NewCPU(func() *energy.Snapshot { return nil }, exporters.CPUConfig{}),
	}})
	scrape := server.scrape()
	wantValue(t, scrape, `exporter_collector_success{collector="ffmpeg"}`, "0")
	wantValue(t, scrape, `exporter_collector_success{collector="cpu"}`, "1")
	wantValue(t, scrape, "rapl_available", "0")
	wantAbsent(t, scrape, "ffmpeg_")
	if entries := logs.All(); len(entries) != 1 || !strings.Contains(entries[0].Message, "no status") {
		t.Errorf("got log %v, want one line with the panic", entries)
	}
	broken = false
	scrape = server.scrape()
	wantValue(t, scrape, `exporter_collector_success{collector="ffmpeg"}`, "1")
	wantValue(t, scrape, "ffmpeg_exporter_up", "1")
}

func TestHandlerPanic(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	server := serve(t, exporters.Config{Name: "agent", Logger: zap.New(core), Routes: map[string]http.Handler{
		"/status": exporters.StatusHandler(func() messages.Status { panic("a broken invariant") }),
	}})
	if code, body := server.get("/status"); code != http.StatusInternalServerError || strings.Contains(body, "invariant") {
		t.Errorf("got %d %s, want 500 without the panic", code, body)
	}
	entries := logs.All()
	if len(entries) != 1 || entries[0].ContextMap()["panic"] != "a broken invariant" ||
		!strings.Contains(fmt.Sprintf("%s", entries[0].ContextMap()["stack"]), "StatusHandler") {
		t.Errorf("got log %v, want one line with panic and stack", entries)
	}
	if code, _ := server.get("/health"); code != http.StatusOK {
		t.Errorf("GET /health after the panic: got %d, want 200", code)
	}
}

func TestStopFinishesPendingRequests(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	server := serve(t, exporters.Config{Name: "agent", Routes: map[string]http.Handler{
		"/slow": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-release
			w.Write([]byte("whole"))
		}),
	}})
	address := server.Addr().String()
	answered := make(chan string, 1)
	go func() {
		response, err := server.client.Get(server.url + "/slow")
		if err != nil {
			answered <- err.Error()
			return
		}
		defer response.Body.Close()
		var body bytes.Buffer
		body.ReadFrom(response.Body)
		answered <- body.String()
	}()
	<-entered
	server.cancel()
	for { // until it no longer listens
		conn, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		conn.Close()
	}
	close(release)
	if got := <-answered; got != "whole" {
		t.Errorf("pending request: got %q, want \"whole\"", got)
	}
	if err := server.wait(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if server.Addr() != nil {
		t.Errorf("got address %v after Serve returned, want nil", server.Addr())
	}
}

func TestStopAbortsHungRequests(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	server := serve(t, exporters.Config{Name: "agent", Routes: map[string]http.Handler{
		"/hung": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(entered); <-release }),
	}})
	failed := make(chan error, 1)
	go func() {
		response, err := server.client.Get(server.url + "/hung")
		if err == nil {
			response.Body.Close()
		}
		failed <- err
	}()
	<-entered
	server.cancel()
	if err := server.wait(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("hung request: got a response, want an error")
	}
	close(release)
}

// webConfig writes a web configuration with TLS and the user op, and returns its path and
// the CA pool for clients.
func webConfig(t *testing.T, password string) (string, *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	write(t, filepath.Join(dir, "cert.pem"), certPEM)
	write(t, filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyBytes}))
	path := filepath.Join(dir, "web.yml")
	write(t, path, []byte("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"+users(t, password)))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return path, pool
}

func users(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("basic_auth_users:\n  op: %s\n", hash)
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWebConfig(t *testing.T) {
	path, trusted := webConfig(t, "first")
	server := serve(t, exporters.Config{Name: "cpu", WebConfig: load(t, path)})
	server.url = strings.Replace(server.url, "http:", "https:", 1)
	server.client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trusted}}
	get := func(path, password string) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			request.SetBasicAuth("op", password)
		}
		response, err := server.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	for _, path := range []string{"/metrics", "/health", "/"} {
		for password, want := range map[string]int{"first": 200, "second": 401, "": 401} {
			if got := get(path, password); got != want {
				t.Errorf("GET %s with password %q: got %d, want %d", path, password, got, want)
			}
		}
	}
	plain, err := server.client.Get("http://" + server.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	plain.Body.Close()
	if plain.StatusCode != http.StatusBadRequest {
		t.Errorf("GET without TLS: got %d, want 400", plain.StatusCode)
	}

	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tlsPart, _, _ := strings.Cut(string(config), "basic_auth_users")
	// A file that is broken, as halfway through an edit, does not affect a server.
	write(t, path, []byte("tls_server_config:\n  cert_fi"))
	if got := get("/metrics", "first"); got != 200 {
		t.Errorf("while the file is broken: got %d, want 200", got)
	}
	write(t, path, []byte(tlsPart+users(t, "second")))
	server.SetWebConfig(load(t, path))
	server.restart()
	if first, second := get("/metrics", "first"), get("/metrics", "second"); first != 401 || second != 200 {
		t.Errorf("after a password change: got %d and %d, want 401 and 200", first, second)
	}
}

func load(t *testing.T, path string) exporters.WebConfig {
	t.Helper()
	c, err := exporters.LoadWebConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWebConfigIdentity(t *testing.T) {
	path, _ := webConfig(t, "first")
	before := load(t, path)
	if same := load(t, path); before.ID() == "" || same.ID() != before.ID() {
		t.Errorf("same file: got IDs %q and %q, want one", before.ID(), same.ID())
	}
	other, _ := webConfig(t, "first")
	for _, file := range []string{"cert.pem", "key.pem"} {
		pem, err := os.ReadFile(filepath.Join(filepath.Dir(other), file))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(filepath.Dir(path), file), pem)
	}
	if renewed := load(t, path); renewed.ID() == before.ID() || len(renewed.Files) != 3 {
		t.Errorf("renewed certificate: got the same ID (%v) and files %q, want another ID and 3 files", renewed.ID() == before.ID(), renewed.Files)
	}
	if none := load(t, ""); none.IsSet() || none.ID() != "" {
		t.Errorf("no file: got %v, want none", none)
	}
}

func TestInvalidWebConfig(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct{ content, want string }{
		"unknown key": {"tls_config: {}\n", "line 1"},
		"no hash":     {"basic_auth_users:\n  op: plain-password\n", "too short"},
		"no cert":     {"tls_server_config:\n  cert_file: missing.pem\n  key_file: missing.pem\n", "missing.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			write(t, path, []byte(test.content))
			_, err := exporters.LoadWebConfig(path)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), path) {
				t.Errorf("got error %v, want %q, and the path left to the caller", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "plain-password") {
				t.Errorf("error contains the password: %v", err)
			}
		})
	}
}

// Existing dashboards rely on these names and labels.
func TestFixedMetricNames(t *testing.T) {
	snapshot := &energy.Snapshot{Zones: []energy.ZoneState{zone("package-0", "rapl", energy.Measured, true)}}
	cpu := scrapeCPU(t, snapshot)
	gpu := scrapeGPU(t, nil, card(0, "GPU-a"))
	w, server := serveFFmpeg(t)
	w.set(exporters.EncodeTotals{}, encoding("a", 500))
	ffmpeg := server.scrape()
	cardLabels := `{gpu_id="0",gpu_name="NVIDIA L4",gpu_uuid="GPU-a"} `
	for scrape, names := range map[string][]string{
		cpu: {
			`rapl_power_watts{zone="package-0"} `, "rapl_zones_discovered ", "rapl_available ", `cpu_exporter_info{source="measured",version="1.2.3"} `,
			`rapl_energy_joules_total{zone="package-0"} `,
		},
		gpu: {
			"gpu_exporter_alive ", "gpu_count ", "gpu_power_draw_watts" + cardLabels, "gpu_power_limit_watts" + cardLabels,
			"gpu_temperature_celsius" + cardLabels, "gpu_utilization_percent" + cardLabels, "gpu_memory_utilization_percent" + cardLabels,
			"gpu_encoder_utilization_percent" + cardLabels, "gpu_decoder_utilization_percent" + cardLabels,
			"gpu_memory_used_bytes" + cardLabels, "gpu_memory_total_bytes" + cardLabels, "gpu_clocks_graphics_mhz" + cardLabels,
			"gpu_clocks_sm_mhz" + cardLabels, "gpu_clocks_memory_mhz" + cardLabels,
			`gpu_exporter_info{driver_version="550.1",gpu_id="0",gpu_name="NVIDIA L4",gpu_uuid="GPU-a",version="1.2.3"} `,
		},
		ffmpeg: {
			"ffmpeg_exporter_up", "ffmpeg_stream_active", "ffmpeg_encoder_load_percent", "ffmpeg_dropped_frames_total",
			"ffmpeg_frames_total", "ffmpeg_avg_bitrate_kbps", "ffmpeg_current_bitrate_kbps", "ffmpeg_encode_latency_ms",
			"ffmpeg_fps", "ffmpeg_speed", "ffmpeg_processing_time_seconds", "ffmpeg_uptime_seconds",
		},
	} {
		for _, name := range names {
			if !strings.Contains(scrape, "\n"+name) {
				t.Errorf("scrape lacks %s", name)
			}
		}
	}
}
