package actors

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/hardware"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpeg"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/internal/master"
	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func TestMain(m *testing.M) { ffmpegtest.Main(m) }

// hang is the deadline for whatever a test waits for.
const hang = 60 * time.Second

// site is a whole agent with a real journal and real FFmpeg, and a real master over real
// sockets. Only the intervals are short.
type site struct {
	t       *testing.T
	link    *link
	agent   *Agent
	runner  *ffmpeg.Runner
	journal *journal.Journal
	logs    *observer.ObservedLogs

	lateness atomic.Int64 // ns by which a plain timer was late at most
}

// watchTimers records how late timers fire on this machine.
func (s *site) watchTimers() {
	const tick = 20 * time.Millisecond
	stop, stopped := make(chan struct{}), make(chan struct{})
	s.t.Cleanup(func() { close(stop); <-stopped })
	go func() {
		defer close(stopped)
		for {
			begun := time.Now()
			select {
			case <-stop:
				return
			case <-time.After(tick):
			}
			s.lateness.Store(max(s.lateness.Load(), int64(time.Since(begun)-tick)))
		}
	}()
}

// siteConfig is what a test may change before the agent starts.
type siteConfig struct {
	Settings
	dir    string
	ffmpeg string // the binary
	sysfs  string // where power sensors are looked for
	apiKey string
	link   *link
	wrap   func(*Dependencies) // puts something between the actors and a real part

	hangAfter time.Duration // 0: the default
	fatal     func(reason string)
}

const beat = 200 * time.Millisecond

func newSite(t *testing.T, change func(*siteConfig)) *site {
	t.Helper()
	cfg := siteConfig{
		Settings: Settings{
			Register: true, FirstProofWithin: hang, PollInterval: 50 * time.Millisecond, HeartbeatInterval: beat, ReconcileInterval: time.Minute,
			UnavailableAfter: 90 * time.Second, Slots: 1, CancelCheckInterval: 100 * time.Millisecond,
			SampleInterval: 50 * time.Millisecond, IdleSampleInterval: 200 * time.Millisecond,
			MinFreeDisk: func(uint64) uint64 { return 0 },
		},
		dir:    t.TempDir(),
		ffmpeg: ffmpegtest.FFmpeg(),
		sysfs:  "/sys",
	}
	if change != nil {
		change(&cfg)
	}
	if cfg.link == nil {
		cfg.link = newLink(t)
		cfg.link.connect(newMaster(t, devmaster.Config{FenceAttempts: true, MaxRetries: 3, UnavailableAfter: 90 * time.Second}))
	}
	core, logs := observer.New(zap.DebugLevel)
	log := zap.New(core)
	s := &site{t: t, link: cfg.link, logs: logs}
	s.watchTimers()

	var err error
	s.journal, err = journal.Open(journal.Settings{Path: filepath.Join(cfg.dir, "journal.db"), Logger: log})
	must(t, err)
	t.Cleanup(func() { must(t, s.journal.Close()) })
	client, err := master.New(master.Config{
		URL: cfg.link.URL, APIKey: cfg.apiKey,
		HeartbeatTimeout: cfg.HeartbeatInterval / 2, CallTimeout: 5 * time.Second,
	})
	must(t, err)
	t.Cleanup(client.Close)
	s.runner, err = ffmpeg.New(ffmpeg.Settings{
		FFmpeg: cfg.ffmpeg, FFprobe: ffmpegtest.FFprobe(), DataDir: cfg.dir, MasterHost: "127.0.0.1", GenerateInput: true,
		Timeout: time.Hour, StallTimeout: time.Minute, Inputs: &reach.Policy{Protocols: []string{"file", "http"}, Roots: []string{"/"}, Loopback: true},
		StopGrace: 500 * time.Millisecond,
		Logger:    log,
	})
	must(t, err)
	t.Cleanup(func() { must(t, s.runner.Close(context.Background())) })

	deps := Dependencies{
		Master: client, Journal: s.journal, Runner: portRunner{s.runner}, Janitor: s.runner.Janitor(),
		Host: testHost{hardware.NewHost(hardware.HostConfig{DataDir: cfg.dir})},
		OpenPower: func() (PowerSensors, error) {
			return hardware.OpenCPUPower(hardware.CPUPowerConfig{SysfsPath: cfg.sysfs, ProcfsPath: "/proc", Estimate: "auto"})
		},
		CPUUse: func() (time.Duration, time.Duration, error) { return hardware.CPUUse("/proc") },
		Facts:  messages.NodeFacts{Address: "test-node", Type: "server", CPUThreads: 2},
	}
	if cfg.wrap != nil {
		cfg.wrap(&deps)
	}
	s.agent, err = Start(Config{
		Dependencies: deps,
		Settings:     cfg.Settings,
		Supervision: supervision.Config{
			FaultInjection: true, HangAfter: cfg.hangAfter, ProbeInterval: cfg.hangAfter / 5, OnFatal: cfg.fatal,
		},
		Logger: log,
	})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), hang)
		defer cancel()
		if cfg.hangAfter > 0 {
			// An actor that hung on purpose returns at the end of its time.
			s.until("the end of all actors", func() bool { return s.agent.Close(ctx) == nil })
			return
		}
		must(t, s.agent.Close(ctx))
	})
	return s
}

// portRunner adapts the real runner to the port, as the command does.
type portRunner struct{ *ffmpeg.Runner }

func (r portRunner) Begin(l job.Lease) Run { return r.Runner.Begin(l) }

// testHost reads the real disk.
type testHost struct{ *hardware.Host }

func (h testHost) Look(context.Context) (messages.HostStatus, error) {
	s, err := h.Host.Status()
	return messages.HostStatus{DiskFreeBytes: s.DiskFree, DiskTotalBytes: s.DiskTotal, InodesFree: s.InodesFree, InodesTotal: s.InodesTotal}, err
}

// link is the network to a master, which can be cut, moved, and made to misbehave.
type link struct {
	*httptest.Server
	handler atomic.Pointer[http.Handler]
	master  atomic.Pointer[devmaster.Master]
	tamper  atomic.Pointer[func(http.Handler, http.ResponseWriter, *http.Request)]
}

func newLink(t *testing.T) *link {
	l := &link{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := l.handler.Load()
		if h == nil {
			hangUp(w)
			return
		}
		if tamper := l.tamper.Load(); tamper != nil {
			(*tamper)(*h, w, r)
			return
		}
		(*h).ServeHTTP(w, r)
	}))
	t.Cleanup(l.Close)
	return l
}

// hangUp closes the connection without a response.
func hangUp(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

func newMaster(t *testing.T, cfg devmaster.Config) *devmaster.Master {
	t.Helper()
	m, err := devmaster.New(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, m.Close()) })
	return m
}

func (l *link) connect(m *devmaster.Master) {
	h := m.Handler()
	l.master.Store(m)
	l.handler.Store(&h)
}

func (l *link) cut() { l.handler.Store(nil) }

// interfere passes every request to f, which may pass it on.
func (l *link) interfere(f func(next http.Handler, w http.ResponseWriter, r *http.Request)) {
	l.tamper.Store(&f)
}

func (s *site) master() *devmaster.Master { return s.link.master.Load() }

// await returns the first event of the current master that fits.
func (s *site) await(what string, fits func(devmaster.Event) bool) devmaster.Event {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	e, err := s.master().Await(ctx, fits)
	if err != nil {
		s.t.Fatalf("waiting for %s: %v\nlog: %s", what, err, s.tail())
	}
	return e
}

// until polls until a state is reached.
func (s *site) until(what string, reached func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(hang); !reached(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited %s for %s\nlog: %s", hang, what, s.tail())
		}
	}
}

// tail returns the last lines of the log, without those of calls that repeat all the time.
func (s *site) tail() string {
	const lines = 60
	calls := []string{"heartbeat answered", "polled: the master has no job"}
	entries := s.logs.Filter(func(e observer.LoggedEntry) bool { return !slices.Contains(calls, e.Message) }).All()
	var out string
	for _, e := range entries[max(0, len(entries)-lines):] {
		out += "\n" + e.Level.String() + " " + e.LoggerName + " " + e.Message
		for _, f := range e.Context {
			out += " " + f.Key + "=" + f.String
			if err, ok := f.Interface.(error); ok {
				out += err.Error()
			}
		}
	}
	return out
}

func (s *site) submit(parameters map[string]any) protocol.Job {
	s.t.Helper()
	j, err := s.master().Submit(protocol.JobRequest{Scenario: "test-h264", Parameters: parameters})
	must(s.t, err)
	return j
}

// result waits for the job's accepted result of an attempt.
func (s *site) result(id string, attempt int) protocol.JobResult {
	s.t.Helper()
	s.await("the result of job "+id, func(e devmaster.Event) bool {
		return e.Kind == devmaster.ResultAccepted && e.JobID == id && e.Attempt == attempt
	})
	r, _, ok := s.master().Result(id)
	if !ok {
		s.t.Fatalf("the master has no result of job %s", id)
	}
	return r
}

// ffmpegPID waits until FFmpeg of a job runs.
func (s *site) ffmpegPID(jobID string) int {
	s.t.Helper()
	pid := 0
	s.until("FFmpeg of job "+jobID, func() bool {
		records, err := s.journal.Unfinished()
		must(s.t, err)
		for _, r := range records {
			if r.Lease.Job.ID == jobID && r.Process != nil {
				pid = r.Process.PID
			}
		}
		return pid != 0
	})
	return pid
}

func (s *site) stats(path string) (supervision.ActorStats, bool) {
	all := s.agent.Actors()
	i := slices.IndexFunc(all, func(a supervision.ActorStats) bool { return a.Path == path })
	if i < 0 {
		return supervision.ActorStats{}, false
	}
	return all[i], true
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
