package configs

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// crossCheck reports settings that contradict each other.
func (l *loader) crossCheck() {
	cfg := &l.loaded.Config
	checks := []struct {
		key, other string
		wrong      bool
		reason     string
		allowed    string
	}{
		{"master.cert", "master.key", cfg.Master.Cert != "" && cfg.Master.Key == "", "certificate without private key", "both master.cert and master.key, or neither"},
		{"master.key", "master.cert", cfg.Master.Key != "" && cfg.Master.Cert == "", "private key without certificate", "both master.cert and master.key, or neither"},
		{"heartbeat_interval", "master.unavailable_after", cfg.HeartbeatInterval >= cfg.Master.UnavailableAfter,
			"too long: the master would reassign the node's jobs", "less than " + l.describe("master.unavailable_after")},
		{"energy.cpu_max_watts", "energy.cpu_idle_watts", cfg.Energy.CPUMaxWatts > 0 && cfg.Energy.CPUMaxWatts < cfg.Energy.CPUIdleWatts,
			"below energy.cpu_idle_watts", "0 for unknown, or at least " + l.describe("energy.cpu_idle_watts")},
	}
	for _, c := range checks {
		if c.wrong && !l.bad[c.key] && !l.bad[c.other] {
			l.report(c.key, l.shownValue(c.key), c.reason, c.allowed)
		}
	}
	l.checkPorts()
}

// checkPorts reports listeners that share a port.
func (l *loader) checkPorts() {
	cfg := &l.loaded.Config
	taken := map[int]string{}
	for _, listener := range []struct {
		key     string
		enabled bool
		port    int
	}{
		{"metrics_port", cfg.MetricsPort != 0, cfg.MetricsPort},
		{"exporters.cpu.port", cfg.Exporters.CPU.Enabled, cfg.Exporters.CPU.Port},
		{"exporters.gpu.port", cfg.Exporters.GPU.Enabled, cfg.Exporters.GPU.Port},
		{"exporters.ffmpeg.port", cfg.Exporters.FFmpeg.Enabled, cfg.Exporters.FFmpeg.Port},
		{"exporters.docker.port", cfg.Exporters.Docker.Enabled, cfg.Exporters.Docker.Port},
	} {
		if !listener.enabled || l.bad[listener.key] {
			continue
		}
		if first, twice := taken[listener.port]; twice {
			l.report(listener.key, l.shownValue(listener.key), "same port as "+l.describe(first), "a port that no other listener uses")
			continue
		}
		taken[listener.port] = listener.key
	}
}

func (l *loader) shownValue(path string) string {
	i := slices.IndexFunc(l.keys, func(k key) bool { return k.path == path })
	return l.keys[i].shown(l.settings[path].raw)
}

// describe returns a key with its value and origin, for a problem with another key.
func (l *loader) describe(path string) string {
	return fmt.Sprintf("%s %s (%s)", path, l.shownValue(path), l.settings[path].origin)
}

func (l *loader) warn() {
	if key := l.settings["master.api_key"]; key.origin.Kind == FromFlag && key.raw != "" {
		l.loaded.Warnings = append(l.loaded.Warnings, "the key given with --api-key is visible to other users of this machine; use MASTER_API_KEY or --api-key-file instead")
	}
	if given := givenLegacyFlags(l.src.Flags); len(given) > 0 {
		l.loaded.Warnings = append(l.loaded.Warnings, "flags that do nothing in this agent: "+strings.Join(given, ", ")+"; remove them from the start command")
	}
	if m := l.loaded.Config.Master; (m.APIKey.IsSet() || m.APIKeyFile != "") && overPlainHTTP(m.URL) {
		l.loaded.Warnings = append(l.loaded.Warnings, fmt.Sprintf("the API key is sent unencrypted (master.url, %s): anyone on the network path can read it; use https://", l.settings["master.url"].origin))
	}
	if l.loaded.Config.Master.InsecureSkipVerify {
		l.loaded.Warnings = append(l.loaded.Warnings, fmt.Sprintf("the master's certificate is not verified (%s): anyone on the network path can read the API key and send jobs", l.settings["master.insecure_skip_verify"].origin))
	}
}

// overPlainHTTP reports whether what is sent to a URL leaves this machine unencrypted.
func overPlainHTTP(master string) bool {
	u, err := url.Parse(master)
	if err != nil || u.Scheme != "http" {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return strings.ToLower(u.Hostname()) != "localhost" && (err != nil || !addr.Unmap().IsLoopback())
}
