package main

import (
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
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware"
	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// clinic is a machine for doctor on which everything is as it should be.
type clinic struct {
	t    *testing.T
	dir  string
	env  map[string]string
	args []string
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := &clinic{t: t, dir: dir, env: map[string]string{
		"FFMPEG_AGENT_DATA_DIR": dir, "FFMPEG_AGENT_REGISTER": "true", "FFMPEG_AGENT_ALLOW_MASTER_AS_WORKER": "true",
		"FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS": "127.0.0.1", "FFMPEG_AGENT_JOBS_MIN_FREE_DISK": "0",
	}}
	for _, key := range []string{"METRICS_PORT", "EXPORTERS_CPU_PORT", "EXPORTERS_GPU_PORT", "EXPORTERS_FFMPEG_PORT", "EXPORTERS_DOCKER_PORT"} {
		c.env["FFMPEG_AGENT_"+key] = fmt.Sprint(freePort(t))
	}
	return c
}

// findings runs some checks, and those that they need.
func (c *clinic) findings(names ...string) []finding {
	c.t.Helper()
	for k, v := range c.env {
		c.t.Setenv(k, v)
	}
	cmd := newDoctor()
	cmd.SetContext(c.t.Context())
	if err := cmd.ParseFlags(c.args); err != nil {
		c.t.Fatal(err)
	}
	needs := map[string]string{}
	for _, check := range doctorChecks {
		needs[check.name] = check.needs
	}
	wanted := map[string]bool{}
	for _, name := range names {
		for ; name != ""; name = needs[name] {
			wanted[name] = true
		}
	}
	var checks []doctorCheck
	for _, check := range doctorChecks {
		if wanted[check.name] {
			checks = append(checks, check)
		}
	}
	return examine(cmd, checks, func(finding) {})
}

// want runs a check and looks for its worst finding.
func (c *clinic) want(name string, state findingState, message, fix string) {
	c.t.Helper()
	check := name // some checks name their findings
	switch {
	case strings.HasPrefix(name, "port "):
		check = "ports"
	case name == "master certificate" || name == "encryption":
		check = "master"
	}
	found := c.findings(check)
	worst := finding{}
	rank := map[findingState]int{findingOK: 1, findingWarning: 2, findingFailed: 3}
	for _, f := range found {
		if f.Name == name && rank[f.State] > rank[worst.State] {
			worst = f
		}
		if (f.Fix == "") != (f.State == findingOK) {
			c.t.Errorf("got %+v, want a fix exactly where something is wrong", f)
		}
	}
	if worst.State != state || !strings.Contains(worst.Message, message) || !strings.Contains(worst.Fix, fix) {
		c.t.Errorf("%s: got %+v\nwant %s with %q and the fix %q; all findings: %+v", name, worst, state, message, fix, found)
	}
}

// doctorMaster is a master whose requests can be changed on their way.
func doctorMaster(t *testing.T, cfg devmaster.Config, change func(http.ResponseWriter)) (*devmaster.Master, string) {
	t.Helper()
	m, err := devmaster.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	h := m.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if change != nil {
			change(w)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return m, server.URL
}

func TestDoctorChecksTheMaster(t *testing.T) {
	c := newClinic(t)
	port := freePort(t)
	c.env["MASTER_URL"] = fmt.Sprintf("http://127.0.0.1:%d", port)
	c.want("master", findingFailed, "refused", fmt.Sprintf("sport = :%d", port))
	c.env["MASTER_URL"] = "http://master.invalid:8080"
	c.want("master", findingFailed, "unknown host master.invalid", "getent hosts master.invalid")

	m, url := doctorMaster(t, devmaster.Config{APIKeys: []string{"right"}}, nil)
	c.env["MASTER_URL"] = url
	c.want("master", findingOK, "answers", "")
	c.want("master host", findingOK, "allow_master_as_worker", "")
	c.env["FFMPEG_AGENT_ALLOW_MASTER_AS_WORKER"] = "false"
	c.want("master host", findingFailed, "refuses to start", "--allow-master-as-worker")
	c.env["FFMPEG_AGENT_ALLOW_MASTER_AS_WORKER"] = "true"

	c.want("key", findingFailed, "requires an API key", "master.api_key_file")
	c.env["MASTER_API_KEY"] = "wrong"
	c.want("key", findingFailed, "rejected the API key", "MASTER_API_KEY")
	c.env["MASTER_API_KEY"] = ""
	file := filepath.Join(t.TempDir(), "key")
	c.args = []string{"--api-key-file", file}
	c.want("secret files", findingFailed, file+" (flag --api-key-file): no such file", "/dev/stdin "+file)
	overwrite(t, file, "right\n")
	c.want("secret files", findingOK, "closed", "")
	c.want("key", findingOK, "accepts", "")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	c.want("secret files", findingWarning, "every user", "sudo chmod o= "+file)
	c.args = nil
	c.env["MASTER_API_KEY"] = "right"
	c.want("key", findingOK, "accepts", "")

	c.want("node", findingOK, "not registered yet", "")
	c.env["FFMPEG_AGENT_REGISTER"] = "false"
	c.want("node", findingFailed, "not registered", "agent --register")
	c.env["FFMPEG_AGENT_REGISTER"] = "true"
	if n, err := http.Post(url+"/nodes/register", "application/json", strings.NewReader("{}")); err == nil {
		n.Body.Close() // without a key: refused
	}
	c.want("waiting jobs", findingOK, "none", "")
	if _, err := m.Submit(protocol.JobRequest{Scenario: "x"}); err != nil {
		t.Fatal(err)
	}
	c.want("waiting jobs", findingOK, "1 at the master", "")
	idle := messages.Status{Version: version, At: time.Now(), StartedAt: time.Now().Add(-time.Hour), Slots: 1}
	stop := serveControl(t, filepath.Join(c.dir, "agent.sock"), control.Handlers{Status: func() messages.Status { return idle }})
	c.want("waiting jobs", findingWarning, "given none", "/nodes")
	stop()

	t.Setenv("HTTP_PROXY", "::bad::")
	c.want("proxy", findingFailed, "HTTP_PROXY", "unset")
}

// pretendAgent is the argument that makes this test binary a process which says on a control
// socket that it is an agent.
const pretendAgent = "pretend-agent"

func serveStatus(socket, master string) {
	status := messages.Status{Version: version, PID: os.Getpid(), Master: master, Address: "box7", At: time.Now(), StartedAt: time.Now()}
	err := control.NewServer(socket, control.Handlers{Status: func() messages.Status { return status }}, zap.NewNop()).Serve(context.Background())
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// startPretender starts such a process, as the user uid.
func startPretender(t *testing.T, uid int, binary, socket, master string, env ...string) {
	t.Helper()
	agent := exec.Command(binary, pretendAgent, socket, master)
	agent.Env, agent.Stderr = append(env, "GORACE=atexit_sleep_ms=0"), os.Stderr
	if uid != os.Geteuid() {
		agent.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: []uint32{4711}}}
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Process.Kill(); _ = agent.Wait() })
	waitFor(t, "control socket", func() bool { _, err := control.NewClient(socket).Status(t.Context()); return err == nil })
}

// The master and its key may be known to the running agent alone, such as from its unit.
func TestDoctorAsksTheMasterOfTheRunningAgent(t *testing.T) {
	_, url := doctorMaster(t, devmaster.Config{APIKeys: []string{"right"}}, nil)
	c := newClinic(t)
	c.env["MASTER_URL"] = ""
	key := filepath.Join(t.TempDir(), "key")
	overwrite(t, key, "right\n")
	env := []string{"MASTER_URL=" + url, "FFMPEG_AGENT_MASTER_API_KEY_FILE=" + key}
	for name, value := range c.env {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	c.env["MASTER_API_KEY"] = "of the shell" // must not conflict with the file
	startPretender(t, os.Geteuid(), executable(t), filepath.Join(c.dir, "agent.sock"), url, env...)
	c.want("key", findingOK, "accepts", "")
	c.want("agent", findingOK, "version", "")
}

// An agent whose environment cannot be read, such as that of a container, tells its master.
func TestDoctorTakesTheMasterFromTheStatus(t *testing.T) {
	_, url := doctorMaster(t, devmaster.Config{}, nil)
	c := newClinic(t)
	c.env["MASTER_URL"] = ""
	status := messages.Status{Version: version, PID: 1, Master: url, Address: "box7"} // the PID is of another namespace
	serveControl(t, filepath.Join(c.dir, "agent.sock"), control.Handlers{Status: func() messages.Status { return status }})
	c.want("master", findingOK, url+" answers", "")
	c.env["MASTER_URL"] = "http://other.invalid:8080"
	c.want("agent", findingWarning, "uses the master "+url, "--master "+url)
}

// The user that the agent runs as can listen on the control socket in its place, and name programs and
// files there. Root's doctor runs and reads nothing of it with root's rights.
func TestDoctorOfRootGivesTheAgentsUserNoRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, whose rights are at stake")
	}
	s := newStranger(t)
	if err := os.Chmod(s.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	var sent atomic.Pointer[string]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if header := r.Header.Get("Authorization"); header != "" {
			sent.Store(&header)
		}
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(server.Close)
	ran, evil := filepath.Join(s.dir, "ran"), filepath.Join(s.dir, "evil.sh")
	if err := os.WriteFile(evil, []byte("#!/bin/sh\n{ id -u; id -G; test -t 0 && echo terminal; } >>"+ran+"\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	key, socket := filepath.Join(t.TempDir(), "key"), filepath.Join(s.dir, "agent.sock")
	if err := os.WriteFile(key, []byte("of root\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	startPretender(t, s.uid, s.binary, socket, server.URL, asAgent+"=1", "MASTER_URL="+server.URL,
		"FFMPEG_AGENT_DATA_DIR="+s.dir, "FFMPEG_AGENT_MASTER_API_KEY_FILE="+key, "FFMPEG_AGENT_HARDWARE_FFMPEG="+evil, "FFMPEG_AGENT_HARDWARE_FFPROBE="+evil)
	t.Setenv("MASTER_API_KEY", "of root's shell")
	_, out, errs := command(t, "doctor", "--socket", socket)
	if errs != "" || !strings.Contains(out, "user "+userName("65534")) {
		t.Errorf("got %s\n%s\nwant the checks, made as the agent's user", errs, out)
	}
	got, err := os.ReadFile(ran)
	if lines := strings.Split(strings.TrimSpace(string(got)), "\n"); err != nil || len(lines) < 2 || lines[0] != "65534" || lines[1] != "65534 4711" || strings.Contains(string(got), "\n0") || strings.Contains(string(got), "terminal") {
		t.Errorf("FFmpeg of the agent's environment: got ids\n%s%v\nwant those of the agent's user and its groups", got, err)
	}
	if header := sent.Load(); header != nil {
		t.Errorf("the master of the agent's environment got %q, want nothing of root's", *header)
	}
	if _, out, errs := command(t, "doctor", "--socket", socket, "--json"); errs != "" || !json.Valid([]byte(out)) {
		t.Errorf("got %s\n%s\nwant JSON", errs, out)
	}
}

func TestDoctorComparesClocks(t *testing.T) {
	var ahead time.Duration
	_, url := doctorMaster(t, devmaster.Config{}, func(w http.ResponseWriter) {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
	})
	c := newClinic(t)
	c.env["MASTER_URL"] = url
	for offset, want := range map[time.Duration]findingState{0: findingOK, time.Minute: findingWarning, -time.Hour: findingFailed} {
		ahead = offset
		fix, text := setClock, "clock is"
		if want == findingOK {
			fix, text = "", "agrees"
		}
		c.want("clock", want, text, fix)
	}
}

// certificate returns a certificate for 127.0.0.1 and its key as PEM, signed by itself.
func certificate(t *testing.T, change func(*x509.Certificate)) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "master"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

func TestDoctorChecksCertificates(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	c := newClinic(t)
	c.env["FFMPEG_AGENT_MASTER_CA"] = ca
	serve := func(change func(*x509.Certificate), config *tls.Config) (url string) {
		t.Helper()
		certPEM, keyPEM := certificate(t, change)
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(ca, certPEM, 0o600); err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.TLS = config
		config.Certificates = []tls.Certificate{pair}
		server.StartTLS()
		t.Cleanup(server.Close)
		return server.URL
	}
	for name, test := range map[string]struct {
		change       func(*x509.Certificate)
		config       *tls.Config
		check        string
		state        findingState
		message, fix string
	}{
		"valid":         {func(*x509.Certificate) {}, &tls.Config{}, "master certificate", findingOK, "TLS 1.3", ""},
		"expires soon":  {func(x *x509.Certificate) { x.NotAfter = time.Now().Add(240 * time.Hour) }, &tls.Config{}, "master certificate", findingWarning, "expires in 9d", "renew"},
		"expired":       {func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) }, &tls.Config{}, "master", findingFailed, "expired on", "renew"},
		"not yet valid": {func(x *x509.Certificate) { x.NotBefore = time.Now().Add(time.Hour) }, &tls.Config{}, "master", findingFailed, "not valid before", setClock},
		"another host":  {func(x *x509.Certificate) { x.IPAddresses, x.DNSNames = nil, []string{"m.example.org"} }, &tls.Config{}, "master", findingFailed, "is for m.example.org, not for 127.0.0.1", "master.url"},
		"old TLS":       {func(*x509.Certificate) {}, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "master", findingFailed, "TLS 1.2", "TLS 1.2"},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			c.env["MASTER_URL"] = serve(test.change, test.config)
			c.want(test.check, test.state, test.message, test.fix)
		})
	}
	c.t = t
	url := serve(func(*x509.Certificate) {}, &tls.Config{})
	c.env["MASTER_URL"] = strings.Replace(url, "https", "http", 1)
	c.want("master", findingFailed, "uses TLS", "https://127.0.0.1")
	c.env["MASTER_URL"] = url
	other, _ := certificate(t, func(*x509.Certificate) {})
	if err := os.WriteFile(ca, other, 0o600); err != nil {
		t.Fatal(err)
	}
	c.want("master", findingFailed, "unknown authority", "master.ca")
	c.env["FFMPEG_AGENT_MASTER_INSECURE_SKIP_VERIFY"] = "true"
	c.want("master certificate", findingWarning, "not verified", "master.insecure_skip_verify")
	_, plainURL := doctorMaster(t, devmaster.Config{}, nil)
	c.env["MASTER_URL"] = strings.Replace(plainURL, "http", "https", 1)
	c.want("master", findingFailed, "does not use TLS", "http://127.0.0.1")

	cert, key := filepath.Join(c.dir, "cert.pem"), filepath.Join(c.dir, "key.pem")
	c.env["FFMPEG_AGENT_MASTER_CERT"], c.env["FFMPEG_AGENT_MASTER_KEY"] = cert, key
	for left, want := range map[time.Duration]findingState{-time.Minute: findingFailed, time.Hour: findingWarning, 1000 * time.Hour: findingOK} {
		certPEM, keyPEM := certificate(t, func(x *x509.Certificate) { x.NotAfter = time.Now().Add(left) })
		for path, text := range map[string][]byte{cert: certPEM, key: keyPEM} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fix := ""
		if want != findingOK {
			fix = "renew " + cert
		}
		c.want("client certificate", want, "", fix)
	}
}

func TestDoctorChecksTheMachine(t *testing.T) {
	c := newClinic(t)
	tree, zones := runningTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(50), Range: 262e9})
	_ = zones
	c.env["FFMPEG_AGENT_HARDWARE_SYSFS_PATH"], c.env["FFMPEG_AGENT_HARDWARE_PROCFS_PATH"] = tree.Sys(), tree.Proc()
	machine := func(threads int, memory uint64) {
		t.Helper()
		if err := tree.SetCPU(fakehw.CPUConfig{Model: "Test", Threads: threads, Busy: fakehw.Constant(0), MemoryTotal: memory, MemoryAvailable: memory / 2}); err != nil {
			t.Fatal(err)
		}
	}
	machine(2, 4<<30)
	c.want("processors", findingWarning, "2 threads", "nproc")
	c.want("memory", findingWarning, "4.0 GiB", "free -h")
	machine(8, 16<<30)
	c.want("processors", findingOK, "8 threads", "")
	c.want("memory", findingOK, "16.0 GiB", "")

	c.want("CPU energy", findingOK, "measured by RAPL, 1 zone", "")
	agent := messages.Status{Version: version, At: time.Now(), StartedAt: time.Now(), Samplers: []messages.SamplerHealth{{Name: "rapl", Source: "estimate"}}}
	stop := serveControl(t, filepath.Join(c.dir, "agent.sock"), control.Handlers{Status: func() messages.Status { return agent }})
	c.want("CPU energy", findingFailed, "does not read it", "chgrp")
	stop()
	c.env["FFMPEG_AGENT_HARDWARE_SYSFS_PATH"] = t.TempDir()
	c.want("CPU energy", findingWarning, "estimated", "energy.cpu_idle_watts")
	c.env["FFMPEG_AGENT_ENERGY_ESTIMATE"] = "off"
	c.want("CPU energy", findingWarning, "no energy", "FFMPEG_AGENT_ENERGY_ESTIMATE")

	c.want("GPU", findingOK, "no NVIDIA card", "")
	device := filepath.Join(c.env["FFMPEG_AGENT_HARDWARE_SYSFS_PATH"], "bus/pci/devices/0000:41:00.0")
	if err := os.MkdirAll(device, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"vendor": "0x10de\n", "class": "0x030200\n"} {
		if err := os.WriteFile(filepath.Join(device, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.env["FFMPEG_AGENT_HARDWARE_NVML_LIBRARY"] = "libnvidia-none.so.1"
	c.want("GPU", findingFailed, "has an NVIDIA card", "nvidia-driver")

	c.env["FFMPEG_AGENT_JOBS_MIN_FREE_DISK"] = "100%"
	c.want("disk", findingFailed, "jobs.min_free_disk", "df -h")
	c.env["FFMPEG_AGENT_JOBS_MIN_FREE_DISK"] = "0"
	for _, f := range c.findings("disk") {
		if f.State == findingFailed {
			t.Errorf("got %+v, want enough space", f)
		}
	}
	c.want("data directory", findingOK, c.dir, "")
	if err := os.Chmod(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c.want("data directory", findingWarning, "open to other users", "chmod 700")
	file := filepath.Join(c.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.env["FFMPEG_AGENT_DATA_DIR"], c.env["FFMPEG_AGENT_CONTROL_SOCKET"] = file, filepath.Join(c.dir, "agent.sock")
	c.want("data directory", findingFailed, "not a directory", "FFMPEG_AGENT_DATA_DIR")
}

// A card without its driver, then with it, whose encoder fails first.
func TestDoctorChecksTheGPU(t *testing.T) {
	c := newClinic(t)
	tree, _ := runningTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(50), Range: 262e9})
	device := filepath.Join(tree.Sys(), "bus/pci/devices/0000:41:00.0")
	if err := os.MkdirAll(device, 0o755); err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(device, "vendor"), "0x10de\n")
	overwrite(t, filepath.Join(device, "class"), "0x030200\n")
	c.env["FFMPEG_AGENT_HARDWARE_SYSFS_PATH"] = tree.Sys()
	c.env["FFMPEG_AGENT_HARDWARE_NVML_LIBRARY"] = "libnvidia-none.so.1"
	c.want("GPU", findingFailed, "has an NVIDIA card", "nvidia-driver")

	scenario := fakehw.NVMLScenario{Driver: "550.1", Cards: fakehw.NVMLCards(120)}
	nvml, err := fakehw.NewNVML(t.TempDir(), scenario)
	if err != nil {
		t.Fatal(err)
	}
	c.env["FFMPEG_AGENT_HARDWARE_NVML_LIBRARY"] = nvml.Library
	c.want("GPU", findingOK, scenario.Cards[0].Name, "")
	agent := messages.Status{Version: version, At: time.Now(), StartedAt: time.Now(), Samplers: []messages.SamplerHealth{{Name: "nvml", Error: "GPU is lost"}}}
	stop := serveControl(t, filepath.Join(c.dir, "agent.sock"), control.Handlers{Status: func() messages.Status { return agent }})
	c.want("GPU", findingFailed, "GPU is lost", "nvidia-smi")
	stop()

	c.env["FFMPEG_AGENT_HARDWARE_FFMPEG"], c.env["FFMPEG_AGENT_HARDWARE_FFPROBE"] = ffmpegtest.WithPassedTrials(t, t.TempDir(), "libx264"), ffmpegtest.FFprobe()
	c.want("encoders", findingWarning, "built without nvenc", "-encoders | grep nvenc")
	c.env["FFMPEG_AGENT_HARDWARE_FFMPEG"] = ffmpegtest.WithPassedTrials(t, t.TempDir(), "libx264", "h264_nvenc")
	c.want("encoders", findingOK, "h264_nvenc", "")
}

func TestDoctorChecksTheJournal(t *testing.T) {
	c := newClinic(t)
	c.want("journal", findingOK, "0 unsent", "")
	dir, j, _ := newJournal(t)
	c.env["FFMPEG_AGENT_DATA_DIR"] = dir
	c.want("journal", findingWarning, "in use", "fuser")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	c.want("journal", findingOK, "2 sent", "")
	if err := os.Truncate(journalPath(dir), 100); err != nil {
		t.Fatal(err)
	}
	c.want("journal", findingFailed, "journal.db", "restart ffmpeg-agent")
	if j, err := journal.Open(journal.Settings{Path: journalPath(dir)}); err != nil { // as the agent at its start
		t.Fatal(err)
	} else if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	c.want("journal", findingOK, "0 unsent", "")
}

// What the master lists is compared with what the agent does.
func TestDoctorChecksTheNode(t *testing.T) {
	m, url := doctorMaster(t, devmaster.Config{}, nil)
	c := newClinic(t)
	c.env["MASTER_URL"], c.env["FFMPEG_AGENT_NODE_ADDRESS"] = url, "worker-7"
	status := messages.Status{Version: version, At: time.Now(), StartedAt: time.Now(), Slots: 1,
		Checks: []messages.Check{{Name: "registered", Reason: "not registered with the master: 400 Bad Request"}}}
	serveControl(t, filepath.Join(c.dir, "agent.sock"), control.Handlers{Status: func() messages.Status { return status }})
	c.want("node", findingFailed, "400 Bad Request", "journalctl")
	status.Checks, status.Session = nil, &messages.Session{NodeID: "gone", Address: "worker-7", Master: url}
	c.want("node", findingWarning, "does not list worker-7", "agent status")

	answer, err := http.Post(url+"/nodes/register", "application/json", strings.NewReader(`{"address":"worker-7","type":"server","cpu_threads":4}`))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var node protocol.Node
	if err := json.NewDecoder(answer.Body).Decode(&node); err != nil {
		t.Fatal(err)
	}
	status.Session.NodeID = node.ID
	c.want("node", findingOK, node.ID, "")
	job, err := m.Submit(protocol.JobRequest{Scenario: "x"})
	if err != nil {
		t.Fatal(err)
	}
	next, err := http.Get(url + "/jobs/next?node_id=" + node.ID)
	if err != nil {
		t.Fatal(err)
	}
	next.Body.Close()
	c.want("node", findingWarning, "busy with job "+job.ID, "/jobs/"+job.ID+"/cancel")
	// The fix, as printed.
	canceled, err := http.Post(url+"/jobs/"+job.ID+"/cancel", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	canceled.Body.Close()
	c.want("node", findingOK, "available", "")

	c.env["MASTER_API_KEY"] = "secret"
	for _, f := range c.findings("master") {
		if f.Name == "encryption" {
			t.Errorf("got %+v, want nothing, since nobody listens on loopback", f)
		}
	}
	c.env["MASTER_URL"] = strings.Replace(url, "127.0.0.1", "0.0.0.0", 1)
	c.want("encryption", findingWarning, "crosses the network unencrypted", "https://")
}

func TestDoctorChecksFFmpeg(t *testing.T) {
	c := newClinic(t)
	c.env["FFMPEG_AGENT_HARDWARE_FFMPEG"] = filepath.Join(c.dir, "ffmpeg")
	c.want("ffmpeg", findingFailed, "no such file", "apt-get install ffmpeg")
	c.env["FFMPEG_AGENT_HARDWARE_FFMPEG"], c.env["FFMPEG_AGENT_HARDWARE_FFPROBE"] = ffmpegtest.FFmpeg(), filepath.Join(c.dir, "ffprobe")
	c.want("ffmpeg", findingFailed, "no such file", "apt-get install ffmpeg")
	c.env["FFMPEG_AGENT_HARDWARE_FFPROBE"] = ffmpegtest.FFprobe()
	c.want("ffmpeg", findingOK, ffmpegtest.FFmpeg(), "")
	c.want("encoders", findingOK, "libx264", "")
}

func TestDoctorChecksPortsAndSockets(t *testing.T) {
	c := newClinic(t)
	taken, err := net.Listen("tcp", "127.0.0.1:"+c.env["FFMPEG_AGENT_EXPORTERS_GPU_PORT"])
	if err != nil {
		t.Fatal(err)
	}
	name := "port " + c.env["FFMPEG_AGENT_EXPORTERS_GPU_PORT"]
	c.want(name, findingFailed, "exporters.gpu.port", "ss -ltnp")
	taken.Close()
	c.want("ports", findingOK, c.env["FFMPEG_AGENT_EXPORTERS_GPU_PORT"], "")
	c.env["FFMPEG_AGENT_EXPORTERS_GPU_ENABLED"] = "false"
	c.want("ports", findingOK, "exporters.gpu.enabled is false", "")

	socket := filepath.Join(c.dir, "docker.sock")
	c.env["FFMPEG_AGENT_HARDWARE_DOCKER_SOCKET"] = socket
	c.want("Docker", findingOK, "no engine", "")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c.want("Docker", findingOK, "engine on", "")
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	listener.Close()
	c.want("Docker", findingWarning, "refused", "systemctl start docker")
}

func TestDoctorAsksTheRunningAgent(t *testing.T) {
	c := newClinic(t)
	c.want("agent", findingWarning, "not running", "systemctl start")
	sick := messages.Status{
		Version: version, At: time.Now(), StartedAt: ago(0), Draining: true, Slots: 1, Cgroups: "none: no cgroup v2 tree is mounted",
		Checks:    []messages.Check{{Name: "disk", Reason: "1 MiB free"}, {Name: "ffmpeg"}},
		Listeners: []messages.ListenerHealth{{Name: "gpu-metrics", Error: "address already in use"}, {Name: "cpu-metrics"}},
		Journal:   job.JournalStats{DeadLetters: 2},
		Actors:    []messages.ActorStatus{{Path: "agent/meter", State: "hung", LastFailure: "no answer"}},
	}
	status := sick
	serveControl(t, filepath.Join(c.dir, "agent.sock"), control.Handlers{Status: func() messages.Status { return status }})
	c.want("agent", findingWarning, "agent/meter is hung", "agent status")
	c.want("taking jobs", findingFailed, "disk: 1 MiB free", "df -h")
	c.want("port "+c.env["FFMPEG_AGENT_EXPORTERS_GPU_PORT"], findingFailed, "already in use", "ss -ltnp")
	c.want("journal", findingWarning, "2 results", "agent jobs --failed")
	c.want("cgroups", findingWarning, "no cgroup v2", "Delegate=yes")
	c.env["FFMPEG_AGENT_HARDWARE_FFMPEG"], c.env["FFMPEG_AGENT_HARDWARE_FFPROBE"] = ffmpegtest.FFmpeg(), ffmpegtest.FFprobe()
	status.Sandbox = messages.Sandbox{Mode: "auto", Layers: []messages.SandboxLayer{{Name: "seccomp"}, {Name: "landlock", Missing: "not in this kernel"}}}
	c.want("sandbox", findingWarning, "without landlock: not in this kernel", "uname -r")
	status.Sandbox.Mode = "require"
	c.want("sandbox", findingFailed, "no job is taken without landlock", "jobs.sandbox")
	status.Sandbox.Mode = "off"
	c.want("sandbox", findingWarning, "off", "jobs.sandbox")
	status.Sandbox = messages.Sandbox{Mode: "auto", Layers: []messages.SandboxLayer{{Name: "seccomp"}}}
	c.want("sandbox", findingOK, "seccomp", "")
	status = messages.Status{Version: version, At: time.Now(), StartedAt: ago(0), Slots: 1, Cgroups: "one for each job below /x, limits on cpu",
		Checks: []messages.Check{{Name: "disk"}}, Listeners: []messages.ListenerHealth{{Name: "gpu-metrics"}}}
	for _, name := range []string{"agent", "taking jobs", "ports", "journal", "cgroups"} {
		c.want(name, findingOK, "", "")
	}
	status.Version = "v0.0.0"
	c.want("agent", findingWarning, "v0.0.0", "systemctl restart")
}

func TestDoctorNamesSecretsInArguments(t *testing.T) {
	c := newClinic(t)
	c.env["FFMPEG_AGENT_HARDWARE_FFMPEG"], c.env["FFMPEG_AGENT_HARDWARE_FFPROBE"] = ffmpegtest.FFmpeg(), ffmpegtest.FFprobe()
	c.want("secrets", findingOK, "passwords in the rtmp URLs of outputs; the URLs of rtmp, rtmps, srt inputs", "")
	c.env["FFMPEG_AGENT_JOBS_INPUT_PROTOCOLS"] = "file,https"
	for _, f := range c.findings("secrets") {
		if f.Name == "secrets" && strings.Contains(f.Message, "inputs") {
			t.Errorf("got %q, want nothing of inputs, which are fetched", f.Message)
		}
	}
	old := filepath.Join(t.TempDir(), "ffmpeg")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *'-h long'*) exit 0 ;; esac\nexec %s \"$@\"\n", ffmpegtest.FFmpeg())
	if err := os.WriteFile(old, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c.env["FFMPEG_AGENT_HARDWARE_FFMPEG"] = old
	c.want("secrets", findingWarning, "their stream keys", "-fpre")
}

// Five things are broken at once: each has a line with its fix, and what depends on them is
// left out.
func TestDoctorReadsWellWithFiveFaults(t *testing.T) {
	c := newClinic(t)
	taken, err := net.Listen("tcp", "127.0.0.1:"+c.env["FFMPEG_AGENT_EXPORTERS_CPU_PORT"])
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c.env["MASTER_URL"] = fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	c.env["FFMPEG_AGENT_ALLOW_MASTER_AS_WORKER"] = "false"
	c.env["FFMPEG_AGENT_HARDWARE_FFMPEG"] = "/none/ffmpeg"
	c.env["FFMPEG_AGENT_JOBS_MIN_FREE_DISK"] = "100%"
	for k, v := range c.env {
		t.Setenv(k, v)
	}
	status, out, errs := command(t, "doctor")
	if status != exitFailed || errs != "" {
		t.Errorf("got exit status %d, %s, want %d and no message beside the findings", status, errs, exitFailed)
	}
	if got := strings.Count(out, "FAILED"); got != 5 {
		t.Errorf("got %d failures, want 5", got)
	}
	if want := "Failed: master, master host, disk, ffmpeg, port " + c.env["FFMPEG_AGENT_EXPORTERS_CPU_PORT"] + "."; !strings.Contains(out, want) {
		t.Errorf("got\n%s\nwant %q in it", out, want)
	}
	for _, name := range []string{"clock", "key", "encoders"} {
		if strings.Contains(out, " "+name+" ") {
			t.Errorf("got\n%s\nwant no check of %s, which depends on a failed one", out, name)
		}
	}
	status, out, _ = command(t, "doctor", "--json")
	var doc struct {
		OK     *bool
		Checks []struct{ Name, State, Message, Fix string }
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || status != exitFailed || doc.OK == nil || *doc.OK || len(doc.Checks) < 10 {
		t.Fatalf("got %v, exit status %d: %s", err, status, out)
	}
	for _, check := range doc.Checks {
		if check.State == "failed" && (check.Fix == "" || check.Message == "" || check.Name == "") {
			t.Errorf("got %+v, want name, message and fix", check)
		}
	}

	t.Setenv("FFMPEG_AGENT_POLL_INTERVAL", "10")
	status, out, _ = command(t, "doctor")
	if status != exitFailed || !strings.Contains(out, "FAILED   configuration") || !strings.Contains(out, "set the environment variable FFMPEG_AGENT_POLL_INTERVAL") {
		t.Errorf("bad configuration: exit status %d\n%s", status, out)
	}
	if status, _, errs := command(t, "doctor", "--no-such-flag"); status != exitUsage {
		t.Errorf("unknown flag: exit status %d: %s", status, errs)
	}
}

// stranger is a user without rights, who runs the agent's program.
type stranger struct {
	t           *testing.T
	uid         int
	dir, binary string
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	s := &stranger{t: t, uid: 65534, dir: shortDir(t)}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.binary = filepath.Join(s.dir, "agent")
	if err := exec.Command("cp", executable(t), s.binary).Run(); err != nil {
		t.Fatal(err)
	}
	return s
}

// run returns what a command prints, and the error of its end.
func (s *stranger) run(env []string, args ...string) (string, error) {
	cmd := exec.Command(s.binary, args...)
	cmd.Env = append(append(os.Environ(), asAgent+"=1", "HOME="+s.dir), env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.uid)}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// doctor returns the findings by name, without a master and FFmpeg.
func (s *stranger) doctor(env ...string) map[string]finding {
	s.t.Helper()
	out, _ := s.run(append(env, "FFMPEG_AGENT_HARDWARE_FFMPEG=/none", fmt.Sprintf("MASTER_URL=http://127.0.0.1:%d", freePort(s.t))), "doctor", "--json") // fails, since there is no master
	var doc struct{ Checks []finding }
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	found := map[string]finding{}
	for _, f := range doc.Checks {
		found[f.Name] = f
	}
	return found
}

// Beside the agent of another user nothing is reported that is true of this user only, and
// nothing is advised that would harm the agent.
func TestDoctorBesideAnotherUsersAgent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run doctor as the user nobody")
	}
	s := newStranger(t)
	data := filepath.Join(s.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)
	metrics := []string{"FFMPEG_AGENT_METRICS_PORT=" + port, "FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS=127.0.0.1"}

	found := s.doctor(append(metrics, "FFMPEG_AGENT_DATA_DIR="+data)...)
	if f := found["agent"]; f.State != findingWarning || !strings.Contains(f.Message, "permission denied") || f.Fix != "sudo agent doctor" {
		t.Errorf("agent: got %+v, want a warning and doctor as root", f)
	}
	for _, name := range []string{"data directory", "journal", "cgroups", "CPU energy", "GPU", "Docker", "ports", "port " + port} {
		if f, ok := found[name]; ok {
			t.Errorf("got %+v, want nothing, since only root or the agent's user can tell", f)
		}
	}

	// Without a configuration that names the agent's directory.
	f := s.doctor(metrics...)["port "+port]
	if f.State != findingWarning || !strings.Contains(f.Message, "user root") || !strings.HasPrefix(f.Fix, "sudo agent doctor ") {
		t.Errorf("port: got %+v, want a warning that names the owner, and doctor as root", f)
	}

	key, config := filepath.Join(s.dir, "key"), filepath.Join(s.dir, "agent.yaml")
	for path, text := range map[string]string{key: "secret\n", config: "master: {api_key_file: " + key + "}\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{key, config} {
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		out, _ := s.run(nil, "doctor", "--config", config)
		if want := "fix: sudo agent doctor --config " + config; !strings.Contains(out, want) || !strings.Contains(out, "chgrp nobody "+path) && !strings.Contains(out, "chgrp 65534 "+path) {
			t.Errorf("%s is not readable: got\n%s\nwant %q and how to allow it", path, out, want)
		}
	}
}

// The checks whose outcome depends on the user, as one without rights.
func TestDoctorAsUserWithoutRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run doctor as the user nobody")
	}
	s := newStranger(t)
	dir := s.dir
	zone := filepath.Join(dir, "sys/class/powercap/intel-rapl:0")
	if err := os.MkdirAll(zone, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"name": "package-0\n", "energy_uj": "1000\n", "max_energy_range_uj": "262143328850\n"} {
		if err := os.WriteFile(filepath.Join(zone, name), []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	counter, socket, data := filepath.Join(zone, "energy_uj"), filepath.Join(dir, "docker.sock"), filepath.Join(dir, "data")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	mode := func(path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	run := func() map[string]finding {
		t.Helper()
		return s.doctor("FFMPEG_AGENT_DATA_DIR="+data, "FFMPEG_AGENT_HARDWARE_SYSFS_PATH="+filepath.Join(dir, "sys"), "FFMPEG_AGENT_HARDWARE_DOCKER_SOCKET="+socket)
	}
	mode(counter, 0o400)
	mode(socket, 0o700)
	broken := run()
	for name, want := range map[string]struct {
		state findingState
		fix   string
	}{
		"CPU energy": {findingFailed, "chmod g+r"}, "Docker": {findingWarning, "usermod -aG docker"}, "data directory": {findingFailed, "install -d -m 700 -o nobody"},
	} {
		if got := broken[name]; got.State != want.state || !strings.Contains(got.Fix, want.fix) {
			t.Errorf("%s: got %+v, want %s and the fix %q", name, got, want.state, want.fix)
		}
	}
	mode(counter, 0o440)
	mode(socket, 0o777)
	for path, uid := range map[string]int{counter: 0, dir: s.uid} {
		if err := os.Chown(path, uid, s.uid); err != nil {
			t.Fatal(err)
		}
	}
	mended := run()
	for _, name := range []string{"CPU energy", "Docker", "data directory"} {
		if got := mended[name]; got.State != findingOK {
			t.Errorf("%s, mended: got %+v, want ok", name, got)
		}
	}
}

func TestDoctorSeesFewInodes(t *testing.T) {
	free, size, total := uint64(399), uint64(100<<30), uint64(20_000)
	e := &examination{cfg: effective{Config: configs.Defaults()}, host: hardware.HostStatus{DiskFree: &size, DiskTotal: &size, InodesFree: &free, InodesTotal: &total}}
	got := checkDisk(t.Context(), e)[0]
	if want := "399 inodes free on the disk of data_dir, but jobs need 400"; got.State != findingFailed || !strings.Contains(got.Message, want) || !strings.Contains(got.Fix, "df -i ") {
		t.Errorf("got %+v, want it to say %s", got, want)
	}
	free++
	if got := checkDisk(t.Context(), e)[0]; got.State != findingOK {
		t.Errorf("one more: got %+v, want it to pass", got)
	}
}
