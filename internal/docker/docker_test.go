package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"

	"ffmpeg-agent/messages"
)

// fakeEngine answers on a real unix socket. The formulas are held against a real engine in
// `make container-test`.
type fakeEngine struct {
	*httptest.Server
	socket string

	mu    sync.Mutex
	stats map[string]string // JSON by container; "hangs": there is no answer
	calls int               // for stats
}

func startEngine(t *testing.T, socket string) *fakeEngine {
	t.Helper()
	e := &fakeEngine{socket: socket, stats: map[string]string{}}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(e.serve))
	e.Listener.Close()
	e.Listener = listener
	e.Start()
	t.Cleanup(e.Close)
	return e
}

func (e *fakeEngine) serve(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	_, rest, _ := strings.Cut(r.URL.Path, "/containers/")
	switch {
	case strings.HasSuffix(r.URL.Path, "/_ping"):
	case rest == "json":
		list := []map[string]any{}
		for id := range e.stats {
			list = append(list, map[string]any{"Id": id, "Names": []string{"/name-" + id}})
		}
		_ = json.NewEncoder(w).Encode(list)
	case strings.HasSuffix(rest, "/stats") && r.URL.Query().Get("one-shot") == "true":
		e.calls++
		stats := e.stats[strings.TrimSuffix(rest, "/stats")]
		if stats == "hangs" {
			e.mu.Unlock()
			<-r.Context().Done()
			e.mu.Lock()
			return
		}
		if stats == "gone" {
			http.Error(w, `{"message":"No such container"}`, http.StatusNotFound)
			return
		}
		fmt.Fprint(w, stats)
	default:
		http.NotFound(w, r)
	}
}

func (e *fakeEngine) set(stats map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats = stats
}

func statsOf(cpu, system time.Duration) string {
	return fmt.Sprintf(`{"read":"2026-03-01T12:00:00Z","cpu_stats":{"cpu_usage":{"total_usage":%d},"system_cpu_usage":%d,"online_cpus":4},
		"memory_stats":{"usage":1000,"limit":4000,"stats":{"inactive_file":300}},
		"networks":{"eth0":{"rx_bytes":10,"tx_bytes":20},"eth1":{"rx_bytes":1,"tx_bytes":2}},
		"blkio_stats":{"io_service_bytes_recursive":[{"op":"read","value":5},{"op":"write","value":7},{"op":"read","value":1}]}}`, cpu, system)
}

func of[T any](v T) *T { return &v }

func read(t *testing.T, e *Engine) []messages.Container {
	t.Helper()
	containers, err := e.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return containers
}

func TestReadContainers(t *testing.T) {
	fake := startEngine(t, filepath.Join(t.TempDir(), "docker.sock"))
	e := New(fake.socket)
	defer e.Close()
	if none := read(t, e); len(none) != 0 {
		t.Errorf("got %v, want no containers", none)
	}
	fake.set(map[string]string{"a": statsOf(time.Second, 40*time.Second)})
	want := []messages.Container{{
		ID: "a", Name: "name-a", CPUTime: time.Second, MemoryBytes: 700, MemoryLimitBytes: 4000,
		NetworkReceived: of(uint64(11)), NetworkSent: of(uint64(22)), BlockRead: 6, BlockWritten: 7,
	}}
	if diff := cmp.Diff(want, read(t, e)); diff != "" {
		t.Errorf("first reading (-want +got):\n%s", diff)
	}
	// In 10 s of 4 CPUs the container used 5 s: half a CPU.
	fake.set(map[string]string{"a": statsOf(6*time.Second, 80*time.Second), "b": "gone"})
	want[0].CPUTime, want[0].CPUPercent = 6*time.Second, of(50.)
	if diff := cmp.Diff(want, read(t, e)); diff != "" {
		t.Errorf("second reading, with a container that is gone (-want +got):\n%s", diff)
	}
	if fake.calls != 3 {
		t.Errorf("got %d calls for stats, want 3", fake.calls)
	}
}

func TestEngineThatIsNotThere(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	e := New(socket)
	defer e.Close()
	if _, err := e.Read(t.Context()); !errors.Is(err, ErrNoEngine) || !strings.Contains(err.Error(), socket) {
		t.Errorf("no socket: got %v, want ErrNoEngine and the path", err)
	}
	first := startEngine(t, socket)
	first.set(map[string]string{"a": statsOf(time.Second, 40*time.Second)})
	read(t, e)
	first.CloseClientConnections()
	first.Close() // removes the socket
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Read(t.Context()); err == nil || errors.Is(err, ErrNoEngine) || !strings.Contains(err.Error(), "hardware.docker_socket") {
		t.Errorf("engine down: got %v, want an error that names the key", err)
	}
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	// The engine is back, its counters begin anew.
	second := startEngine(t, socket)
	second.set(map[string]string{"a": statsOf(0, 41*time.Second)})
	if got := read(t, e); len(got) != 1 || got[0].CPUPercent != nil {
		t.Errorf("after a restart: got %+v, want one container without a CPU use", got)
	}
}

func TestForbiddenSocket(t *testing.T) {
	if os.Geteuid() == 0 {
		err := New("/s").explain(fmt.Errorf("dial: %w", fs.ErrPermission))
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "exporters.docker.enabled") {
			t.Errorf("got %v, want the reason and what to do", err)
		}
		return
	}
	fake := startEngine(t, filepath.Join(t.TempDir(), "docker.sock"))
	if err := os.Chmod(fake.socket, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := New(fake.socket).Read(t.Context()); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "exporters.docker.enabled") {
		t.Errorf("got %v, want the reason and what to do", err)
	}
}

func TestEngineThatHangs(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // accepts, and answers nothing
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := New(listener.Addr().String()).Read(ctx); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("got %v, want an error about a missing answer", err)
	}
}

// One container whose figures do not come costs no other its own.
func TestContainerThatHangs(t *testing.T) {
	engine := startEngine(t, filepath.Join(t.TempDir(), "docker.sock"))
	e := New(engine.socket)
	defer e.Close()
	engine.set(map[string]string{"a": statsOf(time.Second, time.Minute), "b": statsOf(time.Second, time.Minute)})
	read(t, e)
	e.statsTimeout = 100 * time.Millisecond
	engine.set(map[string]string{"a": "hangs", "b": "hangs"})
	if _, err := e.Read(t.Context()); !errors.Is(err, context.DeadlineExceeded) && (err == nil || !strings.Contains(err.Error(), "no answer")) {
		t.Errorf("all hang: got %v, want an error about a missing answer", err)
	}
	e.statsTimeout = time.Minute
	engine.set(map[string]string{"a": statsOf(time.Second, time.Minute), "b": statsOf(time.Second, time.Minute)})
	read(t, e)
	e.statsTimeout = time.Second
	engine.set(map[string]string{"a": "hangs", "b": statsOf(2*time.Second, time.Minute+4*time.Second)})
	unread := 0
	for _, c := range read(t, e) {
		switch {
		case c.Unread:
			unread++
		case c.ID != "b" || c.CPUPercent == nil || *c.CPUPercent != 100:
			t.Errorf("got %+v, want b at 100 %%", c)
		}
	}
	if unread != 1 {
		t.Errorf("got %d unread containers, want a alone", unread)
	}
}

// Bodies as engines of both kinds send them, shortened.
func TestConvert(t *testing.T) {
	for name, test := range map[string]struct {
		stats string
		want  messages.Container
	}{
		"cgroup v1": {
			`{"cpu_stats":{"cpu_usage":{"total_usage":2000000000,"percpu_usage":[1,2]}},
			"memory_stats":{"usage":5000,"limit":9000,"stats":{"inactive_file":1,"total_inactive_file":1200}},
			"blkio_stats":{"io_service_bytes_recursive":[{"op":"Read","value":4},{"op":"Write","value":8},{"op":"Sync","value":12},{"op":"Total","value":12}]}}`,
			messages.Container{CPUTime: 2 * time.Second, MemoryBytes: 3800, MemoryLimitBytes: 9000, BlockRead: 4, BlockWritten: 8},
		},
		"cgroup v2": {
			`{"memory_stats":{"usage":5000,"limit":9000,"stats":{"inactive_file":1200}},"blkio_stats":{"io_service_bytes_recursive":null}}`,
			messages.Container{MemoryBytes: 3800, MemoryLimitBytes: 9000},
		},
		"more cache than memory": {
			`{"memory_stats":{"usage":5000,"stats":{"inactive_file":6000}}}`,
			messages.Container{MemoryBytes: 5000},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stats container.StatsResponse
			if err := json.Unmarshal([]byte(test.stats), &stats); err != nil {
				t.Fatal(err)
			}
			test.want.ID, test.want.Name = "x", "n"
			got := convert(container.Summary{ID: "x", Names: []string{"/n"}}, &stats)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCPUPercent(t *testing.T) {
	usage := func(used, system uint64, cpus uint32) container.CPUStats {
		return container.CPUStats{CPUUsage: container.CPUUsage{TotalUsage: used, PercpuUsage: []uint64{1, 1}}, SystemUsage: system, OnlineCPUs: cpus}
	}
	for name, test := range map[string]struct {
		before, now container.CPUStats
		want        *float64
	}{
		"half of one of four":    {usage(0, 0, 4), usage(125, 1000, 4), of(50.)},
		"all of four":            {usage(0, 0, 4), usage(1000, 1000, 4), of(400.)},
		"CPUs by their counters": {usage(0, 0, 0), usage(500, 1000, 0), of(100.)},
		"idle":                   {usage(5, 0, 4), usage(5, 1000, 4), of(0.)},
		"restarted":              {usage(5, 0, 4), usage(1, 1000, 4), nil},
		"no time has passed":     {usage(5, 7, 4), usage(6, 7, 4), nil},
	} {
		if got := cpuPercent(test.before, test.now); !cmp.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
