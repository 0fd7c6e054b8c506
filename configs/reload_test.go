package configs

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReloadedTakesOnlyLiveKeys(t *testing.T) {
	running := mustLoad(t, machine(t).withEnv("MASTER_API_KEY=one")).Config
	loaded := mustLoad(t, machine(t).withEnv("MASTER_API_KEY=two", "FFMPEG_AGENT_POLL_INTERVAL=3s", "FFMPEG_AGENT_METRICS_PORT=9099", "FFMPEG_AGENT_JOBS_MIN_FREE_DISK=1GiB")).Config
	next, changed, restart := running.Reloaded(loaded)
	if want := []string{"master.api_key", "poll_interval", "jobs.min_free_disk"}; !slices.Equal(changed, want) {
		t.Errorf("changed: got %q, want %q", changed, want)
	}
	if want := []string{"metrics_port"}; !slices.Equal(restart, want) {
		t.Errorf("restart: got %q, want %q", restart, want)
	}
	if next.PollInterval != 3*time.Second || next.Master.APIKey.Reveal() != "two" || next.MetricsPort != 9091 {
		t.Errorf("got poll_interval %s, key %q, metrics_port %d; want 3s, two, 9091", next.PollInterval, next.Master.APIKey.Reveal(), next.MetricsPort)
	}
	// The same file again: the port still waits for a restart, and nothing else has changed.
	if _, changed, restart := next.Reloaded(loaded); len(changed) != 0 || !slices.Equal(restart, []string{"metrics_port"}) {
		t.Errorf("second reload: got changed %q, restart %q; want none, metrics_port", changed, restart)
	}
}

// The example file lists the keys and sections that need a restart.
func TestExampleFileListsKeysThatNeedARestart(t *testing.T) {
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(strings.ReplaceAll(string(text), "\n#", ""), "need a restart: ")
	list, _, _ = strings.Cut(list, ". ")
	listed := strings.Split(list, ", ")
	for _, k := range schema() {
		covered := slices.ContainsFunc(listed, func(name string) bool { return k.path == name || strings.HasPrefix(k.path, name+".") })
		if covered == k.live {
			t.Errorf("%s: listed as needing a restart: %v; takes effect by a reload: %v", k.path, covered, k.live)
		}
	}
}

func TestConfigFileIsKnownBeforeItExists(t *testing.T) {
	src := machine(t)
	if got := src.ConfigFile(); got != src.DefaultFile {
		t.Errorf("default: got %s, want %s", got, src.DefaultFile)
	}
	if got := src.withEnv("FFMPEG_AGENT_CONFIG=/a.yaml").withFlags(t, "--config", "/b.yaml").ConfigFile(); got != "/b.yaml" {
		t.Errorf("flag over variable: got %s, want /b.yaml", got)
	}
}
