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

// asCommand makes this test binary the command itself, so that tests start
// real processes, signal them and see their exit status.
const asCommand = "DEVMASTER_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// hang is how long a test waits for what must come; it is no measure of speed.
const hang = 30 * time.Second

// process is a running devmaster.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	url    string
	greet  string
	stderr bytes.Buffer
}

// start runs devmaster on a port of its own and waits until it listens.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
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
		p.greet += lines.Text() + "\n"
		if strings.HasPrefix(lines.Text(), "start a node:") {
			break
		}
	}
	_, after, ok := strings.Cut(p.greet, "devmaster listens on ")
	if !ok {
		_ = p.cmd.Wait()
		t.Fatalf("no greeting: %q, %s", p.greet, p.stderr.String())
	}
	p.url, _, _ = strings.Cut(after, "\n")
	return p
}

// end sends a signal, waits, and returns the exit status (-1: killed).
func (p *process) end(signal os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

// call makes a request and returns status and body; 0 where there is no answer.
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

func TestSignalsEndItCleanly(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := start(t)
		if code, body := call(http.DefaultClient, "GET", p.url+"/health", ""); code != 200 {
			t.Errorf("health: %d %s", code, body)
		}
		if code := p.end(signal); code != 0 {
			t.Errorf("%v: exit %d, %s", signal, code, p.stderr.String())
		}
	}
}

func TestGreetingShowsACallThatWorks(t *testing.T) {
	p := start(t, "--api-key", "secret", "--api-key", "other")
	defer p.end(syscall.SIGTERM)
	_, line, _ := strings.Cut(p.greet, "post a job:")
	line, _, _ = strings.Cut(line, "\n")
	_, body, _ := strings.Cut(line, "-d '")
	body = strings.TrimSuffix(body, "'")
	if !strings.Contains(line, p.url+"/jobs") || !strings.Contains(line, "Bearer $MASTER_API_KEY") || strings.Contains(p.greet, "secret") {
		t.Fatalf("greeting:\n%s", p.greet)
	}
	if code, _ := call(http.DefaultClient, "POST", p.url+"/jobs", body); code != 401 {
		t.Errorf("without a key: %d", code)
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
		t.Errorf("with a key: %d", resp.StatusCode)
	}
}

// TestKillLosesNothingThatWasAcknowledged runs workers against a master that
// is killed in the middle, and looks for each acknowledged result after it.
func TestKillLosesNothingThatWasAcknowledged(t *testing.T) {
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
				t.Errorf("register: %s", body)
				return
			}
			for {
				var next protocol.NextJobResponse
				call(client, "POST", p.url+"/jobs", `{}`)
				_, body := call(client, "GET", p.url+"/jobs/next?node_id="+node.ID, "")
				if json.Unmarshal([]byte(body), &next) != nil || next.Job == nil {
					return // killed
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
	case <-time.After(hang):
		t.Error("the workers do not get on")
	}
	if code := p.end(syscall.SIGKILL); code != -1 {
		t.Errorf("exit %d", code)
	}
	wg.Wait()

	p = start(t, args...)
	defer p.end(syscall.SIGTERM)
	for id, result := range acknowledged {
		stored, err := os.ReadFile(filepath.Join(dir, "results", id+".attempt-1.json"))
		if err != nil || string(stored) != result {
			t.Errorf("file of job %s: %q, %v", id, stored, err)
		}
		if code, body := call(client, "POST", p.url+"/results", result); code != 409 {
			t.Errorf("job %s again: %d %s, want 409", id, code, body)
		}
	}
}

func TestExitStatus(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	damaged := filepath.Join(dir, "damaged.json")
	if err := os.WriteFile(damaged, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := certificate(t, dir)
	here := "127.0.0.1:0"
	for _, tc := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"help", []string{"--help"}, 0, ""},
		{"unknown flag", []string{"--nope"}, 2, "unknown flag: --nope"},
		{"argument", []string{"start"}, 2, `unexpected argument "start"`},
		{"bad duration", []string{"--unavailable-after", "soon"}, 2, "--unavailable-after"},
		{"no duration", []string{"--unavailable-after", "0s"}, 2, "must be above 0"},
		{"negative retries", []string{"--max-retries", "-1"}, 2, "must be 0 or more"},
		{"no address", []string{"--listen", "8080"}, 2, "must be HOST:PORT"},
		{"bad level", []string{"--log-level", "loud"}, 2, "must be debug, info"},
		{"empty key", []string{"--api-key", ""}, 2, "must not be empty"},
		{"certificate without key", []string{"--tls-cert", cert}, 2, "go together"},
		{"client CA without certificate", []string{"--client-ca", cert}, 2, "needs --tls-cert"},
		{"port taken", []string{"--listen", taken.Addr().String()}, 1, "is taken by another program"},
		{"damaged state", []string{"--listen", here, "--state", damaged}, 1, "is damaged"},
		{"certificate missing", []string{"--listen", here, "--tls-cert", filepath.Join(dir, "no"), "--tls-key", key}, 1, "no such file"},
		{"client CA empty", []string{"--listen", here, "--tls-cert", cert, "--tls-key", key, "--client-ca", damaged}, 1, "holds no certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), hang)
			defer cancel()
			var stdout, stderr bytes.Buffer
			if code := run(ctx, tc.args, &stdout, &stderr); code != tc.code || !strings.Contains(stderr.String(), tc.says) {
				t.Errorf("exit %d, %q; want %d, %q", code, stderr.String(), tc.code, tc.says)
			}
		})
	}
}

func TestHTTPSWithClientCertificates(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	p := start(t, "--tls-cert", cert, "--tls-key", key, "--client-ca", cert)
	defer p.end(syscall.SIGTERM)
	if !strings.HasPrefix(p.url, "https://127.0.0.1:") {
		t.Fatalf("listens on %s", p.url)
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
	ask := func(certs ...tls.Certificate) (int, string) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs}}
		defer transport.CloseIdleConnections()
		return call(&http.Client{Transport: transport}, "GET", p.url+"/health", "")
	}
	if code, body := ask(own); code != 200 {
		t.Errorf("with a certificate: %d %s", code, body)
	}
	if code, _ := ask(); code != 0 {
		t.Errorf("without one: %d, want no answer", code)
	}
}

// certificate writes a self-signed certificate that serves as server, client and CA.
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
