package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// asCommand is an environment variable that makes the test binary run as devmaster, so that
// tests can start, signal and kill real processes.
const asCommand = "DEVMASTER_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// timeout is how long tests wait before they report a hang.
const timeout = 30 * time.Second

// process is a running devmaster.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	url    string
	usage  string // printed on standard output
	stderr bytes.Buffer
}

// start runs devmaster on a free port and waits until it is listening.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	p := &process{t: t, cmd: exec.CommandContext(ctx, os.Args[0], append([]string{"--listen", "127.0.0.1:0"}, args...)...)}
	p.cmd.Env = append(os.Environ(), asCommand+"=1", "MASTER_API_KEY=", "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		p.usage += lines.Text() + "\n"
		if strings.HasPrefix(lines.Text(), "start an agent:") {
			break
		}
	}
	_, after, ok := strings.Cut(p.usage, "devmaster listening on ")
	if !ok {
		_ = p.cmd.Wait()
		t.Fatalf("got output %q, %s; want a URL", p.usage, p.stderr.String())
	}
	p.url, _, _ = strings.Cut(after, "\n")
	return p
}

// stop sends a signal, waits, and returns the exit status, -1 if killed.
func (p *process) stop(signal os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

// call makes a request and returns status and body. The status is 0 if there was no response.
func call(client *http.Client, method, url, body string) (int, string) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

func TestSignalStopsCleanly(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := start(t)
		if code, body := call(http.DefaultClient, "GET", p.url+"/health", ""); code != 200 {
			t.Errorf("GET /health: got %d %s, want 200", code, body)
		}
		if code := p.stop(signal); code != 0 {
			t.Errorf("%v: got exit status %d, %s; want 0", signal, code, p.stderr.String())
		}
	}
}

func TestPrintedCommandSubmitsAJob(t *testing.T) {
	p := start(t, "--api-key", "secret", "--api-key", "other")
	defer p.stop(syscall.SIGTERM)
	_, line, _ := strings.Cut(p.usage, "submit a job:")
	line, _, _ = strings.Cut(line, "\n")
	_, body, _ := strings.Cut(line, "-d '")
	body = strings.TrimSuffix(body, "'")
	if !strings.Contains(line, p.url+"/jobs") || !strings.Contains(line, "Bearer $MASTER_API_KEY") || strings.Contains(p.usage, "secret") {
		t.Fatalf("got output\n%s\nwant a curl command with $MASTER_API_KEY", p.usage)
	}
	if code, _ := call(http.DefaultClient, "POST", p.url+"/jobs", body); code != 401 {
		t.Errorf("without a key: got %d, want 401", code)
	}
	req, err := http.NewRequest("POST", p.url+"/jobs", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer other")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 201 {
		t.Errorf("with a key: got %d, want 201", resp.StatusCode)
	}
}

// Kills the master while workers report results, and checks each acknowledged result after a
// restart.
func TestAcknowledgedResultsSurviveKill(t *testing.T) {
	dir := t.TempDir()
	args := []string{"--state", filepath.Join(dir, "state.json"), "--results-dir", filepath.Join(dir, "results"), "--log-level", "error"}
	p := start(t, args...)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()

	var mu sync.Mutex
	acknowledged := map[string]string{}
	enough := make(chan struct{})
	var wg sync.WaitGroup
	for worker := range 3 {
		wg.Go(func() {
			_, body := call(client, "POST", p.url+"/nodes/register", fmt.Sprintf(`{"address":"host-%d"}`, worker))
			var node protocol.Node
			if err := json.Unmarshal([]byte(body), &node); err != nil {
				t.Errorf("decoding the node: %v: %s", err, body)
				return
			}
			for {
				var next protocol.NextJobResponse
				call(client, "POST", p.url+"/jobs", `{}`)
				_, body := call(client, "GET", p.url+"/jobs/next?node_id="+node.ID, "")
				if json.Unmarshal([]byte(body), &next) != nil || next.Job == nil {
					return // the master was killed
				}
				result := fmt.Sprintf(`{"job_id":%q,"node_id":%q,"status":"completed","progress":100,"attempt":1}`, next.Job.ID, node.ID)
				if code, _ := call(client, "POST", p.url+"/results", result); code != 200 {
					return
				}
				mu.Lock()
				if acknowledged[next.Job.ID] = result; len(acknowledged) == 10 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(timeout):
		t.Errorf("fewer than 10 results after %v", timeout)
	}
	if code := p.stop(syscall.SIGKILL); code != -1 {
		t.Errorf("got exit status %d, want -1", code)
	}
	wg.Wait()

	p = start(t, args...)
	defer p.stop(syscall.SIGTERM)
	for id, result := range acknowledged {
		stored, err := os.ReadFile(filepath.Join(dir, "results", id+".attempt-1.json"))
		if err != nil || string(stored) != result {
			t.Errorf("result file of job %s: got %q, %v; want %q", id, stored, err, result)
		}
		if code, body := call(client, "POST", p.url+"/results", result); code != 409 {
			t.Errorf("second result of job %s: got %d %s, want 409", id, code, body)
		}
	}
}

func TestExitStatus(t *testing.T) {
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	dir := t.TempDir()
	damaged := filepath.Join(dir, "damaged.json")
	if err := os.WriteFile(damaged, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := certificate(t, dir)
	free := "127.0.0.1:0"
	for _, tc := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"help", []string{"--help"}, 0, ""},
		{"unknown flag", []string{"--nope"}, 2, "unknown flag: --nope"},
		{"argument", []string{"start"}, 2, `unexpected argument "start"`},
		{"bad duration", []string{"--unavailable-after", "soon"}, 2, "--unavailable-after"},
		{"no duration", []string{"--unavailable-after", "0s"}, 2, "must be positive"},
		{"negative retries", []string{"--max-retries", "-1"}, 2, "must not be negative"},
		{"no limit for jobs", []string{"--like-field", "--stale-after", "0s"}, 2, "--stale-after 0s: must be positive"},
		{"no limit for live jobs", []string{"--like-field", "--live-stale-after", "-1s"}, 2, "--live-stale-after -1s: must be positive"},
		{"limit without the habit", []string{"--stale-after", "1m"}, 2, "--stale-after needs --like-field"},
		{"no address", []string{"--listen", "8080"}, 2, "must be HOST:PORT"},
		{"bad level", []string{"--log-level", "loud"}, 2, "must be debug, info"},
		{"empty key", []string{"--api-key", ""}, 2, "must not be empty"},
		{"certificate without key", []string{"--tls-cert", cert}, 2, "must be used together"},
		{"client CA without certificate", []string{"--client-ca", cert}, 2, "requires --tls-cert"},
		{"port in use", []string{"--listen", used.Addr().String()}, 1, "is in use by another program"},
		{"damaged state", []string{"--listen", free, "--state", damaged}, 1, "is damaged"},
		{"certificate missing", []string{"--listen", free, "--tls-cert", filepath.Join(dir, "no"), "--tls-key", key}, 1, "no such file"},
		{"client CA without certificate", []string{"--listen", free, "--tls-cert", cert, "--tls-key", key, "--client-ca", damaged}, 1, "no certificate in file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			var stdout, stderr bytes.Buffer
			if code := run(ctx, tc.args, &stdout, &stderr); code != tc.code || !strings.Contains(stderr.String(), tc.stderr) {
				t.Errorf("got exit status %d, %q; want %d, %q", code, stderr.String(), tc.code, tc.stderr)
			}
		})
	}
}

func TestHTTPSWithClientCertificates(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	p := start(t, "--tls-cert", cert, "--tls-key", key, "--client-ca", cert)
	defer p.stop(syscall.SIGTERM)
	if !strings.HasPrefix(p.url, "https://127.0.0.1:") {
		t.Fatalf("got URL %s, want https", p.url)
	}
	data, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(data)
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	get := func(certs ...tls.Certificate) (int, string) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs}}
		defer transport.CloseIdleConnections()
		return call(&http.Client{Transport: transport}, "GET", p.url+"/health", "")
	}
	if code, body := get(own); code != 200 {
		t.Errorf("with a certificate: got %d %s, want 200", code, body)
	}
	if code, _ := get(); code != 0 {
		t.Errorf("without a certificate: got %d, want no response", code)
	}
}

// certificate writes a self-signed certificate for server, client and CA.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "devmaster"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
