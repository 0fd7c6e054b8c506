package exporters_test

import (
	"context"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

var update = flag.Bool("update", false, "update the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// timeout is how long tests wait before they report a hang.
const timeout = 20 * time.Second

// testServer is a server that is listening.
type testServer struct {
	*exporters.Server
	t      *testing.T
	client *http.Client
	url    string
	cancel context.CancelFunc
	done   chan error
}

// serve starts a server on a free loopback port and waits until it is listening.
func serve(t *testing.T, cfg exporters.Config) *testServer {
	t.Helper()
	cfg.Address = "127.0.0.1"
	server, err := exporters.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &testServer{
		Server: server, t: t, cancel: cancel, done: make(chan error, 1),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: timeout},
	}
	go func() { s.done <- server.Serve(ctx) }()
	t.Cleanup(func() { s.cancel(); s.wait() })
	for deadline := time.Now().Add(timeout); server.Addr() == nil; time.Sleep(time.Millisecond) {
		select {
		case err := <-s.done:
			t.Fatalf("Serve returned before listening: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("server not listening after %v", timeout)
		}
	}
	s.url = "http://" + server.Addr().String()
	return s
}

// restart serves anew, on the same port or another.
func (s *testServer) restart() {
	s.t.Helper()
	s.cancel()
	if err := s.wait(); err != nil {
		s.t.Fatal(err)
	}
	<-s.done
	scheme, _, _ := strings.Cut(s.url, ":")
	ctx, cancel := context.WithCancel(s.t.Context())
	s.cancel = cancel
	go func() { s.done <- s.Serve(ctx) }()
	for deadline := time.Now().Add(timeout); s.Addr() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("server not listening after %v", timeout)
		}
	}
	s.url = scheme + "://" + s.Addr().String()
}

// wait waits until Serve returns. It may be called again.
func (s *testServer) wait() error {
	s.t.Helper()
	select {
	case err := <-s.done:
		s.done <- err
		return err
	case <-time.After(timeout):
		s.t.Errorf("Serve still running after %v", timeout)
		return nil
	}
}

func (s *testServer) get(path string) (status int, body string) {
	s.t.Helper()
	response, err := s.client.Get(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

func (s *testServer) scrape() string {
	s.t.Helper()
	code, body := s.get("/metrics")
	if code != http.StatusOK {
		s.t.Fatalf("GET /metrics: got %d %s, want 200", code, body)
	}
	return body
}

// scrapeOf scrapes a single collector over HTTP.
func scrapeOf(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	return serve(t, exporters.Config{Name: "test", Collectors: []prometheus.Collector{c}}).scrape()
}

var duration = regexp.MustCompile(`(?m)^(exporter_collector_duration_seconds\{.*\}) .*$`)

// golden compares a scrape with a golden file, with durations and Go version replaced.
func golden(t *testing.T, name, scrape string) {
	t.Helper()
	scrape = duration.ReplaceAllString(scrape, "$1 DURATION")
	scrape = strings.ReplaceAll(scrape, `"`+runtime.Version()+`"`, `"GO"`)
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(scrape), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), scrape); diff != "" {
		t.Errorf("scrape differs from %s (-want +got):\n%s", path, diff)
	}
}

// lint runs promlint on a scrape. Problems with the exempted names, which are fixed for
// compatibility, are ignored.
func lint(t *testing.T, scrape string, exempted ...string) {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(scrape)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, p := range problems {
		found[p.Metric] = true
	}
	for _, name := range exempted {
		if !found[name] {
			t.Errorf("%s is exempted but promlint reports no problem", name)
		}
		delete(found, name)
	}
	for _, p := range problems {
		if found[p.Metric] {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
}

// value returns the value of a series in a scrape.
func value(scrape, series string) (text string, ok bool) {
	for line := range strings.Lines(scrape) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

func wantValue(t *testing.T, scrape, series, want string) {
	t.Helper()
	if got, ok := value(scrape, series); !ok || got != want {
		t.Errorf("%s: got %q (present: %v), want %q", series, got, ok, want)
	}
}

func wantAbsent(t *testing.T, scrape string, prefixes ...string) {
	t.Helper()
	for _, prefix := range prefixes {
		for line := range strings.Lines(scrape) {
			if strings.HasPrefix(line, prefix) {
				t.Errorf("got series %s, want none with prefix %s", strings.TrimSpace(line), prefix)
			}
		}
	}
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) *time.Time {
	t := start.Add(d)
	return &t
}

func pointer[T any](v T) *T { return &v }

// encoding returns a job in the run phase.
func encoding(id string, frames int64) messages.JobStatus {
	return messages.JobStatus{
		Key: job.Key{JobID: id, Attempt: 1}, Scenario: "720p30-h264", Phase: job.PhaseRun,
		Encoder: "libx264", Started: at(50 * time.Second), PID: 4711,
		Progress: job.Progress{
			At: start.Add(60 * time.Second), Percent: 25, Frames: frames, Dropped: 2, FPS: 50, Speed: 2.5,
			BitrateKbps: 1900, OutTime: job.Seconds(20 * time.Second), SizeBytes: 5_000_000,
		},
		Energy: pointer(energy.Joules(420.5)), Power: pointer(energy.Watts(42)), Source: energy.Measured,
	}
}

// status returns the status of an agent that started a minute ago and runs the jobs.
func status(jobs ...messages.JobStatus) messages.Status {
	walls := messages.NewHistogram([]float64{1, 60, 3600})
	for _, seconds := range []float64{0.5, 12, 60, 5000} {
		walls.Observe(seconds)
	}
	return messages.Status{
		Version: "1.2.3", PID: 42, StartedAt: start, At: start.Add(time.Minute), Address: "worker-1",
		Session: &messages.Session{NodeID: "node-1", Address: "worker-1", Master: "http://op:hunter2@master:8080", Since: start},
		Heartbeat: &messages.HeartbeatStatus{
			LastAttempt: at(58 * time.Second), LastSuccess: at(50 * time.Second), Sent: 5, Failed: 1,
			Error: `Post "http://op:hunter2@master:8080/nodes/node-1/heartbeat": connection refused`,
		},
		Slots:  2,
		Checks: []messages.Check{{Name: "disk"}, {Name: "ffmpeg"}},
		Jobs:   jobs,
		Actors: []messages.ActorStatus{
			{Path: "agent", State: "running"},
			{Path: "agent/heartbeat", State: "running", Restarts: 2, Abandoned: 1, Failures: 3, MailboxDepth: 4, Dropped: 5},
			{Path: "agent/jobs", State: "restarting", Restarts: 1, Failures: 1},
		},
		Samplers: []messages.SamplerHealth{{Name: "rapl", Source: "rapl", Zones: 2, Since: start}},
		Power:    pointer(energy.Watts(95.5)), Source: energy.Measured,
		Journal: job.JournalStats{Unfinished: len(jobs), Unsent: 2, OldestAt: at(15 * time.Second), Sent: 7, Superseded: 1, DeadLetters: 1},
		Counts: messages.Counts{
			JobsCompleted: 6, JobsFailed: 1, JobsCanceled: 1, Completed: 6, Failed: 2, Canceled: 1, Superseded: 1, Delivered: 7, DeadLetters: 1,
			FailedByReason: map[protocol.FailureReason]uint64{protocol.ReasonTimeout: 2},
			Energy:         []messages.ChargedEnergy{{Codec: "h264", Source: "measured", Joules: 1234.5}},
			Walls:          map[protocol.Status]*messages.Histogram{protocol.StatusCompleted: walls},
		},
		Certificates: []messages.Certificate{{Name: "master", ExpiresAt: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)}},
	}
}
