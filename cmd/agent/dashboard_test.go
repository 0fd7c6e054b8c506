//go:build observe

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

// Each query of the dashboard is answered by a Prometheus that scrapes an agent with jobs, RAPL
// and a card, and that evaluates the rules.
func TestDashboardQueriesAnswer(t *testing.T) {
	deployment, err := filepath.Abs("../../deployment")
	if err != nil {
		t.Fatal(err)
	}
	tree, _ := runningTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(50), Range: 262e9})
	if err := tree.SetCPU(fakehw.CPUConfig{Model: "Test", Threads: 8, Busy: fakehw.Constant(0.5), MemoryTotal: 16 << 30, MemoryAvailable: 8 << 30}); err != nil {
		t.Fatal(err)
	}
	nvml, err := fakehw.NewNVML(t.TempDir(), fakehw.NVMLScenario{Driver: "550.1", Cards: fakehw.NVMLCards(120)})
	if err != nil {
		t.Fatal(err)
	}
	bed := newTestbed(t)
	ports := map[string]int{}
	env := append(bed.environment(), "FFMPEG_AGENT_HARDWARE_SYSFS_PATH="+tree.Sys(), "FFMPEG_AGENT_HARDWARE_PROCFS_PATH="+tree.Proc(), "FFMPEG_AGENT_HARDWARE_NVML_LIBRARY="+nvml.Library)
	for _, name := range []string{"CPU", "GPU", "FFMPEG"} {
		ports[name] = freePort(t)
		env = append(env, "FFMPEG_AGENT_EXPORTERS_"+name+"_ENABLED=true", fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_%s_PORT=%d", name, ports[name]))
	}
	ports["agent"] = freePort(t)
	startAgent(t, env, append(bed.flags(), "--metrics-port", fmt.Sprint(ports["agent"]))...)

	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - {job_name: ffmpeg-agent, static_configs: [{targets: ["127.0.0.1:%d"]}]}
  - {job_name: ffmpeg-encodes, static_configs: [{targets: ["127.0.0.1:%d"]}]}
  - {job_name: ffmpeg-power, static_configs: [{targets: ["127.0.0.1:%d", "127.0.0.1:%d"]}]}
`, filepath.Join(deployment, "prometheus", "rules.yml"), ports["agent"], ports["FFMPEG"], ports["CPU"], ports["GPU"])
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	server := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen)
	var log output
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		http.DefaultClient.CloseIdleConnections()
		if t.Failed() {
			t.Logf("Prometheus:\n%s", log.String())
		}
	})
	query := func(expr string) (samples int, failure string) {
		resp, err := http.Get("http://" + listen + "/api/v1/query?" + url.Values{"query": {expr}}.Encode())
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		var answer struct {
			Status, Error string
			Data          struct{ Result []json.RawMessage }
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return 0, err.Error()
		}
		if answer.Status != "success" {
			return 0, answer.Error
		}
		return len(answer.Data.Result), ""
	}
	waitFor(t, "first scrape", func() bool { n, _ := query(`up{job="ffmpeg-agent"} == 1`); return n == 1 })
	for range 2 {
		bed.awaitResult(bed.submit(ffmpegtest.Quick()).ID, protocol.StatusCompleted)
	}
	running := bed.submit(ffmpegtest.Long())
	bed.awaitFFmpeg()

	raw, err := os.ReadFile(filepath.Join(deployment, "grafana", "ffmpeg-agent.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &dashboard); err != nil || len(dashboard.Panels) < 10 {
		t.Fatalf("%v: got %d panels", err, len(dashboard.Panels))
	}
	variables := strings.NewReplacer("$__rate_interval", "30s", "$__range", "5m", "$instance", ".*")
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expr := variables.Replace(target.Expr)
			var failure string
			waitFor(t, "answer to "+panel.Title+": "+expr, func() bool {
				var n int
				n, failure = query(expr)
				return n > 0 || failure != ""
			})
			if failure != "" {
				t.Errorf("%s: %s: %s", panel.Title, expr, failure)
			}
		}
	}
	// A real refusal of the recording rules would show as their absence.
	waitFor(t, "recorded watts of jobs", func() bool {
		n, _ := query("instance_codec_source:ffmpeg_agent_job_energy_joules:rate5m")
		return n > 0
	})
	if n, _ := query(`ALERTS{alertstate="firing"}`); n != 0 {
		t.Errorf("got %d firing alerts of a healthy agent, want none", n)
	}
	bed.cancel(running.ID)
}
