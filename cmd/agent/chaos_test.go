package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/messages/protocol"
)

var (
	chaosSeed = flag.Uint64("chaos.seed", 1, "seed of the faults")
	chaosFor  = flag.Duration("chaos.for", 30*time.Second, "how long faults are injected")
)

const chaosBeat = 500 * time.Millisecond

// storm is a master, an agent that is started again whenever it ends, jobs that flow,
// and what was seen of it all from outside.
type storm struct {
	*field
	port int
	rnd  *rand.Rand

	mu       sync.Mutex
	beats    []time.Time             // arrivals of heartbeats, whether the master was there or not
	accepted map[string]int          // results with a 2xx, by job and attempt
	ends     []time.Time             // of the agent's lives
	agent    *process                // the present life
	faults   map[string]int          // those whose effect was seen, by kind
	jobs     map[string]protocol.Job // submitted
	states   map[string]protocol.Status
}

// TestChaos: whatever dies, each job ends in one result, heartbeats go on, and
// nothing is left behind.
func TestChaos(t *testing.T) {
	s := newStorm(t)
	level := s.settle()
	stop := make(chan struct{})
	var keeper sync.WaitGroup
	keeper.Go(func() { s.keep(stop) })

	for end := time.Now().Add(*chaosFor); time.Now().Before(end); {
		s.feed()
		s.fault()
		time.Sleep(time.Duration(100+s.rnd.IntN(500)) * time.Millisecond) // the pace of faults, not a wait
	}

	waitFor(t, "the end of all jobs", func() bool { return s.unfinished() == 0 })
	after := s.settle()
	s.checkResults()
	s.checkBeats()
	if after.goroutines > level.goroutines+10 || after.fds > level.fds+6 {
		t.Errorf("goroutines %d → %d, descriptors %d → %d", level.goroutines, after.goroutines, level.fds, after.fds)
	}
	close(stop)
	s.present().Process.Signal(syscall.SIGTERM)
	keeper.Wait()
	if left := ffmpegs(s.dir); len(left) > 0 {
		t.Errorf("FFmpeg lives on: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "work", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	t.Logf("seed %d: %s", *chaosSeed, s.verdict())
}

func newStorm(t *testing.T) *storm {
	s := &storm{
		field: &field{t: t, state: filepath.Join(t.TempDir(), "master.json"), dir: shortDir(t)},
		port:  freePort(t), rnd: rand.New(rand.NewPCG(*chaosSeed, 0)),
		accepted: map[string]int{}, faults: map[string]int{}, jobs: map[string]protocol.Job{}, states: map[string]protocol.Status{},
	}
	s.server = httptest.NewServer(http.HandlerFunc(s.watch))
	t.Cleanup(s.server.Close)
	s.start()
	t.Cleanup(func() { s.master.Close() })
	s.launch()
	return s
}

// start starts the master with what it remembers and patience for many retries.
func (s *storm) start() {
	m, err := devmaster.New(devmaster.Config{StateFile: s.state, FenceAttempts: true, MaxRetries: 1000, UnavailableAfter: 30 * time.Second})
	if err != nil {
		s.t.Error(err)
		return
	}
	s.master = m
	h := m.Handler()
	s.handler.Store(&h)
}

// watch passes requests on and notes what the invariants are about.
func (s *storm) watch(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/heartbeat") {
		s.mu.Lock()
		s.beats = append(s.beats, time.Now())
		s.mu.Unlock()
	}
	h := s.handler.Load()
	if h == nil {
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			conn.Close()
		}
		return
	}
	if r.URL.Path != "/results" {
		(*h).ServeHTTP(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	(*h).ServeHTTP(answer, r)
	var result protocol.JobResult
	if json.Unmarshal(body, &result) == nil && answer.Code == http.StatusOK {
		s.mu.Lock()
		s.accepted[fmt.Sprintf("%s#%d", result.JobID, result.Attempt)]++
		s.mu.Unlock()
	}
	w.WriteHeader(answer.Code)
	w.Write(answer.Body.Bytes())
}

// launch starts a life of the agent.
func (s *storm) launch() {
	p := startAgent(s.t, append(s.environment(),
		"FFMPEG_AGENT_DEBUG_FAULT_INJECTION=true", "FFMPEG_AGENT_DEBUG_HANG_AFTER=1s", "FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS=127.0.0.1"),
		append(s.flags(), "--metrics-port", strconv.Itoa(s.port), "--heartbeat-interval", chaosBeat.String())...)
	s.mu.Lock()
	s.agent = p
	s.mu.Unlock()
}

func (s *storm) present() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agent
}

// keep starts the agent again whenever it ends, as a service manager does.
func (s *storm) keep(stop <-chan struct{}) {
	for {
		s.present().Wait()
		s.mu.Lock()
		s.ends = append(s.ends, time.Now())
		s.mu.Unlock()
		select {
		case <-stop:
			return
		default:
			s.launch()
		}
	}
}

// feed keeps a few jobs of a second or two waiting.
func (s *storm) feed() {
	for s.unfinished() < 3 {
		job, err := s.master.Submit(protocol.JobRequest{Scenario: "chaos-h264", Parameters: map[string]any{
			"resolution": "320x240", "duration": 5 + s.rnd.IntN(10), "preset": "medium",
		}})
		if err != nil {
			s.t.Fatal(err)
		}
		s.jobs[job.ID] = job
	}
}

func (s *storm) unfinished() int {
	n := 0
	for id := range s.jobs {
		if job, ok := s.master.Job(id); !ok || !job.Status.Terminal() {
			n++
		} else {
			s.states[id] = job.Status
		}
	}
	return n
}

// fault injects one fault; it counts when its effect was seen.
func (s *storm) fault() {
	kinds := []struct {
		name   string
		weight int
		inject func() bool
	}{
		{"actor crashed", 8, s.crashActor},
		{"actor hung", 2, s.hangActor},
		{"ffmpeg killed", 4, s.killFFmpeg},
		{"master restarted", 2, s.restartMaster},
		{"agent killed", 1, s.killAgent},
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	n := s.rnd.IntN(total)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			if k.inject() {
				s.faults[k.name]++
			}
			return
		}
	}
}

// actor picks one; false while the agent does not answer.
func (s *storm) actor() (client *control.Client, path string, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	client = control.Dial(filepath.Join(s.dir, "agent.sock"))
	status, err := client.Status(ctx)
	if err != nil {
		return client, "", false
	}
	return client, status.Actors[s.rnd.IntN(len(status.Actors))].Path, true
}

func (s *storm) crashActor() bool {
	client, path, ok := s.actor()
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return client.Crash(ctx, path) == nil
}

func (s *storm) hangActor() bool {
	client, path, ok := s.actor()
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return client.Hang(ctx, path, 3*time.Second) == nil
}

func (s *storm) killFFmpeg() bool {
	pids := ffmpegs(s.dir)
	return len(pids) > 0 && syscall.Kill(pids[s.rnd.IntN(len(pids))], syscall.SIGKILL) == nil
}

func (s *storm) restartMaster() bool {
	s.handler.Store(nil)
	if err := s.master.Close(); err != nil {
		s.t.Error(err)
	}
	time.Sleep(time.Duration(s.rnd.IntN(1000)) * time.Millisecond) // how long it is away
	s.start()
	return true
}

func (s *storm) killAgent() bool {
	p := s.present()
	return p.Process.Kill() == nil
}

// idle is what an agent without work holds.
type idle struct{ goroutines, fds int }

// settle waits until the agent is at rest, and counts what it holds.
func (s *storm) settle() (level idle) {
	s.t.Helper()
	waitFor(s.t, "an agent at rest", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		status, err := control.Dial(filepath.Join(s.dir, "agent.sock")).Status(ctx)
		if err != nil || status.Session == nil || len(status.Jobs) > 0 || status.Journal.Unsent > 0 || len(ffmpegs(s.dir)) > 0 {
			return false
		}
		for _, a := range status.Actors {
			if a.State != "running" {
				return false
			}
		}
		level, err = s.hold()
		return err == nil
	})
	return level
}

func (s *storm) hold() (idle, error) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.present().Process.Pid))
	if err != nil {
		return idle{}, err
	}
	for line := range strings.Lines(get(s.t, fmt.Sprintf("http://127.0.0.1:%d/metrics", s.port))) {
		if text, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(text))
			return idle{n, len(fds)}, err
		}
	}
	return idle{}, fmt.Errorf("no go_goroutines among the metrics")
}

// checkResults: every job ended, and no attempt was accepted twice.
func (s *storm) checkResults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, n := range s.accepted {
		if n > 1 {
			s.t.Errorf("the result of %s was accepted %d times", key, n)
		}
	}
	for id := range s.jobs {
		if status := s.states[id]; status != protocol.StatusCompleted {
			s.t.Errorf("job %s ended as %s", id, status)
		}
	}
}

// checkBeats: within a life of the agent, heartbeats are never more than two intervals
// apart. The allowance is for a machine that schedules nobody for a moment.
func (s *storm) checkBeats() {
	s.mu.Lock()
	defer s.mu.Unlock()
	const allowance = time.Second
	for i := 1; i < len(s.beats); i++ {
		from, to := s.beats[i-1], s.beats[i]
		died := slices.ContainsFunc(s.ends, func(end time.Time) bool { return end.After(from) && end.Before(to) })
		if gap := to.Sub(from); gap > 2*chaosBeat+allowance && !died {
			s.t.Errorf("no heartbeat for %s, the interval is %s", gap, chaosBeat)
		}
	}
}

func (s *storm) verdict() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d jobs, %d results, %d heartbeats, %d lives of the agent, faults %v",
		len(s.jobs), len(s.accepted), len(s.beats), len(s.ends), s.faults)
}
