package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

// runningTree is a fake machine whose counters advance until the test ends.
func runningTree(t *testing.T, zones ...fakehw.ZoneConfig) (*fakehw.Tree, []*fakehw.Zone) {
	t.Helper()
	tree, err := fakehw.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var all []*fakehw.Zone
	for _, config := range zones {
		zone, err := tree.AddZone(config)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, zone)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := tree.Run(ctx, time.Millisecond); err != nil && ctx.Err() == nil {
			t.Errorf("running the fake machine: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait(); tree.Close() })
	return tree, all
}

// series returns the value of a series in a scrape.
func series(scrape, name string) (float64, bool) {
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(scrape)
	if m == nil {
		return 0, false
	}
	value, err := strconv.ParseFloat(m[1], 64)
	return value, err == nil
}

func TestExportersCommand(t *testing.T) {
	t.Parallel()
	tree, _ := runningTree(t,
		fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(50), Range: 262e9},
		fakehw.ZoneConfig{ID: "intel-rapl:0:0", Name: "core", Power: fakehw.Constant(30), Range: 262e9})
	cpu, gpu, containers, agent, encodes, dir := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t), filepath.Join(t.TempDir(), "data")
	p := startAgent(t, []string{
		"FFMPEG_AGENT_HARDWARE_SYSFS_PATH=" + tree.Sys(),
		"FFMPEG_AGENT_HARDWARE_NVML_LIBRARY=/nowhere/libnvidia-ml.so",
		"FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS=127.0.0.1",
		fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_CPU_PORT=%d", cpu),
		fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_GPU_PORT=%d", gpu),
		fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_DOCKER_PORT=%d", containers),
		"FFMPEG_AGENT_HARDWARE_DOCKER_SOCKET=/nowhere/docker.sock",
		fmt.Sprintf("FFMPEG_AGENT_METRICS_PORT=%d", agent),
		fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_FFMPEG_PORT=%d", encodes),
		"FFMPEG_AGENT_DATA_DIR=" + dir,
		"FFMPEG_AGENT_ENERGY_IDLE_INTERVAL=50ms",
	}, "exporters")
	var before float64
	waitFor(t, "energy counter", func() (counted bool) {
		before, counted = series(get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", cpu)), `rapl_energy_joules_total{zone="package-0"}`)
		return counted && before > 0
	})
	waitFor(t, "higher energy counter", func() bool {
		now, _ := series(get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", cpu)), `rapl_energy_joules_total{zone="package-0"}`)
		return now > before+1
	})
	cards := get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", gpu))
	if alive, ok := series(cards, "gpu_exporter_alive"); !ok || alive != 0 {
		t.Errorf("gpu_exporter_alive is %v (exported: %v), want 0", alive, ok)
	}
	if up, ok := series(get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", containers)), "docker_stats_exporter_up"); !ok || up != 0 {
		t.Errorf("docker_stats_exporter_up is %v (exported: %v), want 0", up, ok)
	}
	for _, port := range []int{agent, encodes} {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			conn.Close()
			t.Errorf("port %d is served, want only the ports of CPU, GPU and Docker", port)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the data directory was created")
	}
	p.signal(t, syscall.SIGHUP)
	waitFor(t, "SIGHUP in the log", func() bool { return strings.Contains(p.log(), "SIGHUP received") })
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, exitOK)
}

// Zones that cannot be read are exported as discovered, and the estimate has a name of its own.
func TestExportersEstimateUnreadableZones(t *testing.T) {
	t.Parallel()
	tree, zones := runningTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0"}, fakehw.ZoneConfig{ID: "intel-rapl:0:0", Name: "core"})
	for _, zone := range zones {
		if err := os.Remove(zone.Path()); err != nil {
			t.Fatal(err)
		}
	}
	cpu := freePort(t)
	startAgent(t, []string{
		"FFMPEG_AGENT_HARDWARE_SYSFS_PATH=" + tree.Sys(),
		"FFMPEG_AGENT_EXPORTERS_GPU_ENABLED=false", "FFMPEG_AGENT_EXPORTERS_DOCKER_ENABLED=false",
		"FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS=127.0.0.1",
		fmt.Sprintf("FFMPEG_AGENT_EXPORTERS_CPU_PORT=%d", cpu),
		"FFMPEG_AGENT_ENERGY_IDLE_INTERVAL=50ms",
	}, "exporters")
	var scrape string
	waitFor(t, "estimate", func() bool {
		scrape = get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", cpu))
		return strings.Contains(scrape, "\ncpu_estimated_power_watts{")
	})
	for name, want := range map[string]float64{"rapl_zones_discovered": 2, "rapl_available": 0} {
		if got, ok := series(scrape, name); !ok || got != want {
			t.Errorf("%s is %v (exported: %v), want %v", name, got, ok, want)
		}
	}
	if strings.Contains(scrape, "\nrapl_power_watts{") || strings.Contains(scrape, "\nrapl_energy_joules_total{") {
		t.Errorf("got series of zones that cannot be read:\n%s", scrape)
	}
}

func TestExportersWithNothingToExport(t *testing.T) {
	t.Setenv("FFMPEG_AGENT_EXPORTERS_CPU_ENABLED", "false")
	t.Setenv("FFMPEG_AGENT_EXPORTERS_GPU_ENABLED", "false")
	t.Setenv("FFMPEG_AGENT_EXPORTERS_DOCKER_ENABLED", "false")
	if status, _, stderr := command(t, "exporters"); status != exitUsage || !strings.Contains(stderr, "exporters.cpu.enabled") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	if _, err := os.Stat("journal.db"); err == nil {
		t.Error("a journal was created")
	}
}
