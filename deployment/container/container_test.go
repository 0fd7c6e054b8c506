//go:build container

// Package container tests the image of the agent, and the metrics of containers, on the real
// container engine of this machine. `make container-test` builds what it needs.
package container

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	image  = "ffmpeg-rtmp/agent"
	prefix = "ffmpeg-agent-test-"
	hang   = 3 * time.Minute
)

func docker(t *testing.T, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("docker", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// run starts a container that is removed with its volumes at the end of the test.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command("docker", "logs", "--tail", "60", prefix+name).CombinedOutput()
			t.Logf("log of %s:\n%s", name, out)
		}
		_ = exec.Command("docker", "rm", "-f", "-v", prefix+name).Run()
	})
	return docker(t, append([]string{"run", "-d", "--name", prefix + name}, args...)...)
}

func waitFor(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !reached(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %s", what, hang)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// site is a master in a container, and a network on which it is named master.
type site struct {
	t            *testing.T
	network, url string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, network: prefix + "net"}
	docker(t, "network", "create", s.network)
	t.Cleanup(func() { _ = exec.Command("docker", "network", "rm", s.network).Run() })
	port := freePort(t)
	run(t, "master", "--network", s.network, "--network-alias", "master", "-p", fmt.Sprintf("127.0.0.1:%d:8080", port), "ffmpeg-rtmp/devmaster")
	s.url = fmt.Sprintf("http://127.0.0.1:%d", port)
	waitFor(t, "master", func() bool { return s.get("/health", nil) })
	return s
}

func (s *site) get(path string, into any) bool {
	resp, err := http.Get(s.url + path)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK && (into == nil || json.Unmarshal(body, into) == nil)
}

type node struct {
	ID         string `json:"id"`
	Address    string `json:"address"`
	Status     string `json:"status"`
	CPUThreads int    `json:"cpu_threads"`
	RAM        uint64 `json:"ram_total_bytes"`
}

func (s *site) nodes() []node {
	var list struct {
		Nodes []node `json:"nodes"`
	}
	s.get("/nodes", &list)
	return list.Nodes
}

func (s *site) submit(seconds int) string {
	s.t.Helper()
	body := fmt.Sprintf(`{"scenario":"360p30-h264","parameters":{"duration":%d,"preset":"ultrafast","resolution":"320x240","resource_limits":{"max_memory_mb":400,"max_cpu_percent":100}}}`, seconds)
	resp, err := http.Post(s.url+"/jobs", "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var job struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&job); err != nil || job.ID == "" {
		s.t.Fatalf("submitting a job: %v", err)
	}
	return job.ID
}

func (s *site) await(job, status string) {
	s.t.Helper()
	waitFor(s.t, "job with status "+status, func() bool {
		var list struct {
			Jobs []struct{ ID, Status, Error string }
		}
		s.get("/jobs", &list) // an id that begins with a digit may be read as a number
		for _, j := range list.Jobs {
			if j.ID == job && j.Status == "failed" && status != "failed" {
				s.t.Fatalf("the job failed: %s", j.Error)
			}
			if j.ID == job && j.Status == status {
				return true
			}
		}
		return false
	})
}

// awaitFFmpeg waits until an encode of the agent runs.
func awaitFFmpeg(t *testing.T, container string) {
	t.Helper()
	waitFor(t, "running FFmpeg", func() bool {
		out, _ := exec.Command("docker", "exec", container, "agent", "status").Output()
		return strings.Contains(string(out), "ffmpeg pid")
	})
}

func TestAgent(t *testing.T) {
	t.Logf("size of the image: %s", docker(t, "image", "inspect", "-f", "{{.Size}} bytes", image))
	s := newSite(t)
	// docker run ffmpeg-rtmp/agent --master http://master:8080, with a network and limits.
	agent := run(t, "agent", "--network", s.network, "-e", "FFMPEG_AGENT_JOBS_SANDBOX=require", "--cpus", "1", "--memory", "700m", "--health-interval", "1s",
		image, "--master", "http://master:8080", "--poll-interval", "1s", "--heartbeat-interval", "2s")
	waitFor(t, "registered node", func() bool { return len(s.nodes()) == 1 })
	first := s.nodes()[0]
	if !strings.HasPrefix(first.Address, "node-") || first.CPUThreads != 1 || first.RAM != 700<<20 {
		t.Errorf("got address %s, %d threads, %d bytes of memory; want a generated address and the container's own limits", first.Address, first.CPUThreads, first.RAM)
	}
	if log := docker(t, "logs", agent); !strings.Contains(log, "node.address") || !strings.Contains(log, "volume") {
		t.Error("the log does not tell how to give the node an identity")
	}
	waitFor(t, "healthy container", func() bool { return docker(t, "inspect", "-f", "{{.State.Health.Status}}", agent) == "healthy" })
	if user := docker(t, "exec", agent, "id", "-u"); user == "0" {
		t.Error("the agent runs as root")
	}
	var status struct {
		Sandbox struct {
			Mode   string
			Layers []struct{ Name, Missing, Lacks string }
		}
	}
	var out string
	waitFor(t, "first FFmpeg", func() bool {
		out = docker(t, "exec", agent, "agent", "status", "--json")
		return !strings.Contains(out, "not known yet")
	})
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatal(err)
	}
	t.Logf("sandbox: %+v", status.Sandbox)
	for _, layer := range status.Sandbox.Layers {
		if status.Sandbox.Mode != "require" || layer.Missing != "" || layer.Lacks != "" {
			t.Errorf("sandbox %s: %s: missing %q, lacks %q", status.Sandbox.Mode, layer.Name, layer.Missing, layer.Lacks)
		}
	}

	t.Run("jobs leave no zombies", func(t *testing.T) {
		var jobs []string
		for range 4 {
			jobs = append(jobs, s.submit(2))
		}
		for _, job := range jobs {
			s.await(job, "completed")
		}
		if zombies := docker(t, "exec", agent, "sh", "-c", `grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null | wc -l`); zombies != "0" {
			t.Errorf("got %s zombies after 4 jobs, want none", zombies)
		}
		var result json.RawMessage
		s.get("/jobs/"+jobs[0]+"/result", &result)
		if !bytes.Contains(result, []byte("memory limited to")) {
			t.Errorf("the result does not note how the job was limited: %s", result)
		}
	})

	t.Run("kill -9 costs no job", func(t *testing.T) {
		job := s.submit(60)
		awaitFFmpeg(t, agent)
		docker(t, "kill", "-s", "KILL", agent)
		docker(t, "start", agent)
		s.await(job, "completed")
		nodes := s.nodes()
		if len(nodes) != 1 || nodes[0].Address != first.Address || nodes[0].ID != first.ID {
			t.Errorf("got nodes %+v, want the one from before", nodes)
		}
	})

	t.Run("stop drains", func(t *testing.T) {
		job := s.submit(60)
		awaitFFmpeg(t, agent)
		began := time.Now()
		docker(t, "stop", "-t", "120", agent)
		if status := docker(t, "inspect", "-f", "{{.State.ExitCode}}", agent); status != "0" || time.Since(began) > 110*time.Second {
			t.Errorf("got exit status %s after %s, want 0 once the job has ended", status, time.Since(began))
		}
		s.await(job, "completed")
	})
}

// compose runs a command of Docker Compose, the plugin or the older program, on compose.yaml.
func compose(t *testing.T, args ...string) {
	t.Helper()
	command := []string{"docker", "compose"}
	if exec.Command("docker", "compose", "version").Run() != nil {
		command = []string{"docker-compose"}
	}
	args = append(append(command[1:], "-f", "../compose.yaml", "-p", prefix+"compose"), args...)
	if out, err := exec.Command(command[0], args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", command[0], strings.Join(args, " "), err, out)
	}
}

// A job goes through, and Prometheus sees it.
func TestCompose(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command("docker", "ps", "-a", "--filter", "name="+prefix+"compose").CombinedOutput()
			t.Logf("containers:\n%s", out)
		}
		compose(t, "down", "-v")
	})
	compose(t, "up", "-d")
	s := &site{t: t, url: "http://127.0.0.1:8080"}
	waitFor(t, "registered node", func() bool { n := s.nodes(); return len(n) == 1 && n[0].Address == "agent-1" })
	s.await(s.submit(2), "completed")
	prometheus := &site{t: t, url: "http://127.0.0.1:9090"}
	query := func(expr string) float64 {
		var answer struct {
			Data struct {
				Result []struct{ Value [2]any }
			}
		}
		prometheus.get("/api/v1/query?query="+url.QueryEscape(expr), &answer)
		if len(answer.Data.Result) != 1 {
			return 0
		}
		text, _ := answer.Data.Result[0].Value[1].(string)
		v, _ := strconv.ParseFloat(text, 64)
		return v
	}
	waitFor(t, "completed job in Prometheus", func() bool { return query(`ffmpeg_agent_jobs_total{outcome="completed"}`) == 1 })
	waitFor(t, "all five ports in Prometheus", func() bool { return query(`count(up == 1)`) == 5 })
	var rules json.RawMessage
	if !prometheus.get("/api/v1/rules", &rules) || !bytes.Contains(rules, []byte("FFmpegAgentDown")) {
		t.Errorf("got rules %s, want the alerts", rules)
	}
}

// exporter is the agent on this machine, which exports the containers.
type exporter struct {
	cmd *exec.Cmd
	url string
}

func startExporter(t *testing.T) *exporter {
	t.Helper()
	port := freePort(t)
	binary, err := filepath.Abs("../../bin/agent")
	if err != nil {
		t.Fatal(err)
	}
	e := &exporter{cmd: exec.Command(binary, "exporters"), url: fmt.Sprintf("http://127.0.0.1:%d/metrics", port)}
	e.cmd.Env = append(os.Environ(), fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_DOCKER_PORT=%d", port), "FFMPEG_AGENT_EXPORTERS_CPU_ENABLED=false",
		"FFMPEG_AGENT_EXPORTERS_GPU_ENABLED=false", "FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS=127.0.0.1", "FFMPEG_AGENT_DATA_DIR="+t.TempDir())
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.cmd.Process.Signal(syscall.SIGTERM); _ = e.cmd.Wait() })
	return e
}

// value is that of a container's series; false if there is none.
func (e *exporter) value(series string) (float64, bool) {
	resp, err := http.Get(e.url)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	m := regexp.MustCompile(`(?m)^` + series + ` (\S+)$`).FindSubmatch(body)
	if m == nil {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	return v, err == nil
}

func of(name, metric string) string {
	return metric + `\{container="` + prefix + name + `",id="[0-9a-f]{12}"\}`
}

// The exporter against docker stats, for a container that may use half a CPU and 256 MiB. Other
// work on this machine takes from that, so both are averaged over the same time.
func TestContainerMetrics(t *testing.T) {
	e := startExporter(t)
	run(t, "load", "--no-healthcheck", "--cpus", "0.5", "--memory", "256m", "--entrypoint", "sh", image, "-c", `while :; do :; done`)
	waitFor(t, "CPU use", func() bool { _, known := e.value(of("load", "docker_container_cpu_percent")); return known })
	var percents, theirs []float64
	first, _ := e.value(of("load", "docker_container_cpu_seconds_total"))
	began := time.Now()
	for time.Since(began) < 45*time.Second {
		shown, _, _ := strings.Cut(docker(t, "stats", "--no-stream", "--format", "{{.CPUPerc}}", prefix+"load"), "%")
		percent, err := strconv.ParseFloat(shown, 64)
		if err != nil {
			t.Fatal(err)
		}
		theirs = append(theirs, percent)
		if percent, known := e.value(of("load", "docker_container_cpu_percent")); known {
			percents = append(percents, percent)
		}
	}
	last, _ := e.value(of("load", "docker_container_cpu_seconds_total"))
	counted := 100 * (last - first) / time.Since(began).Seconds()
	used, _ := e.value(of("load", "docker_container_memory_usage_bytes"))
	limit, _ := e.value(of("load", "docker_container_memory_limit_bytes"))
	t.Logf("CPU: exporter %.1f %%, its counter %.1f %%, docker stats %.1f %%", mean(percents), counted, mean(theirs))
	shown := docker(t, "stats", "--no-stream", "--format", "{{.MemUsage}}", prefix+"load")
	t.Logf("memory: exporter %.2f MiB of %.0f MiB, docker stats %s", used/(1<<20), limit/(1<<20), shown)
	if m := regexp.MustCompile(`^([0-9.]+)([KM])iB / `).FindStringSubmatch(shown); m == nil {
		t.Errorf("docker stats shows %q", shown)
	} else if bytes, _ := strconv.ParseFloat(m[1], 64); math.Abs(used-bytes*map[string]float64{"K": 1 << 10, "M": 1 << 20}[m[2]]) > 1<<20 {
		t.Errorf("memory: got %.0f bytes, docker stats %s, want the same within 1 MiB", used, shown)
	}
	for name, got := range map[string]float64{"percent": mean(percents), "counter": counted} {
		if math.Abs(got-mean(theirs)) > 10 || got < 5 || got > 60 {
			t.Errorf("CPU by the %s: got %.1f %%, docker stats %.1f %%, want the same within 10 points, and 50 %% at most", name, got, mean(theirs))
		}
	}
	if limit != 256<<20 || used <= 0 || used > 256<<20 {
		t.Errorf("memory: got %.0f of %.0f bytes, want at most the limit of 256 MiB", used, limit)
	}
	docker(t, "rm", "-f", prefix+"load")
	waitFor(t, "end of the series", func() bool { _, there := e.value(of("load", "docker_container_cpu_percent")); return !there })
}

func mean(values []float64) (sum float64) {
	for _, v := range values {
		sum += v / float64(len(values))
	}
	return sum
}

// cpuTime is that of a process so far.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')'):]))
	user, _ := strconv.Atoi(fields[12])
	system, _ := strconv.Atoi(fields[13])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func TestContainerMetricsCost(t *testing.T) {
	const containers, seconds = 20, 60
	for i := range containers {
		run(t, fmt.Sprintf("idle-%d", i), "--no-healthcheck", "--network", "none", "--entrypoint", "sleep", image, "600")
	}
	e := startExporter(t)
	waitFor(t, "all containers", func() bool { n, _ := e.value("docker_containers_total"); return n >= containers })
	before := cpuTime(t, e.cmd.Process.Pid)
	time.Sleep(seconds * time.Second)
	percent := 100 * (cpuTime(t, e.cmd.Process.Pid) - before).Seconds() / seconds
	t.Logf("the exporter uses %.2f %% of a core for %d containers", percent, containers)
	if percent >= 1 {
		t.Errorf("got %.2f %% of a core, want less than 1 %%", percent)
	}
}
