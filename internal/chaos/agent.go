package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

// Intervals that agents are given: short, so that much happens in little time.
const (
	heartbeatInterval = 500 * time.Millisecond
	pollInterval      = 200 * time.Millisecond
	hangAfter         = time.Second
	stallTimeout      = 6 * time.Second // FFmpeg is nice, and this machine may be shared
	jobTimeout        = 30 * time.Second
	unavailableAfter  = 4 * time.Second // without a heartbeat, after which the master gives a job away
	staleAfter        = 3 * time.Second // of a job, after which a master with the habits of those in use re-queues it
	statusInterval    = 100 * time.Millisecond
)

// agent is one agent. It is restarted whenever it ends, as by a service manager.
type agent struct {
	n        int
	binary   string
	dir      string // all of it, ours too
	data     *disk  // its data folder
	outputs  string
	logFile  string
	net      *network
	ports    []int // metrics, cpu, gpu, ffmpeg, docker
	proxy    *proxy
	films    *films // what its jobs fetch
	tree     *fakehw.Tree
	zones    []*fakehw.Zone
	cards    *fakehw.NVML // nil: none
	recorder *recorder
	http     *http.Client
	control  *controlClient

	// exclusiveMu is held by a fault that ends or stops the agent, one at a time; deaths counts
	// those that end it, so that no other is taken for the cause.
	exclusiveMu  sync.Mutex
	terminations atomic.Int32
	// One disturbance of its counters, of its cards, and of each actor at a time, for their
	// effects are distinguished by that.
	raplMu, nvmlMu sync.Mutex
	actorMus       sync.Map // path → *sync.Mutex

	mu             sync.Mutex
	program        *program
	starts         int                    // so far; the number of the current process
	beforeStart    []func()               // what is done before the next start
	lastStatus     *agentStatus           // the latest; nil: this process has not been seen yet
	leftovers      map[string]func() bool // left by earlier processes: name → whether it still exists
	journalDamaged bool                   // the journal was damaged since: attempts may begin again
	cgroupPattern  string                 // pattern of the names of its jobs' cgroups; empty: not seen yet
	blocked        atomic.Int32           // faults under way that keep it from cleaning up
}

func (a *agent) processNumber() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.starts
}

// running returns the current process; nil while there is none.
func (a *agent) running() *program {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.program
}

// status returns the latest status of the current process; never nil, empty before the first.
func (a *agent) status() *agentStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lastStatus == nil {
		return &agentStatus{}
	}
	return a.lastStatus
}

func (a *agent) binDir() string { return filepath.Join(a.dir, "bin") }

func (a *agent) processes() []Proc {
	found, _ := findProcesses("PATH=" + a.binDir() + ":")
	return found
}

// children are its processes beside the agent itself.
func (a *agent) children(match func(Proc) bool) []Proc {
	var self int
	if p := a.running(); p != nil {
		self = p.pid
	}
	return slices.DeleteFunc(a.processes(), func(p Proc) bool { return p.PID == self || !match(p) })
}

func (a *agent) environment() []string {
	settings := map[string]string{
		"DATA_DIR": a.data.dir, "NODE_ADDRESS": fmt.Sprintf("chaos-%d", a.n), "EXPORTERS_LISTEN_ADDRESS": a.net.agent,
		"DEBUG_FAULT_INJECTION": "true", "DEBUG_HANG_AFTER": hangAfter.String(),
		"HARDWARE_SYSFS_PATH": a.tree.Sys(), "HARDWARE_NVML_LIBRARY": "libnvidia-ml-of-nobody.so.1",
		"JOBS_OUTPUT_ROOTS": a.outputs, "JOBS_STALL_TIMEOUT": stallTimeout.String(), "JOBS_TIMEOUT": jobTimeout.String(),
		"JOBS_CANCEL_CHECK_INTERVAL": "500ms", "JOBS_MIN_FREE_DISK": "4MiB", "MASTER_UNAVAILABLE_AFTER": unavailableAfter.String(),
		"SHUTDOWN_DRAIN_TIMEOUT": "20s", "ENERGY_IDLE_INTERVAL": "200ms", "LOG_FORMAT": "json",
	}
	if a.cards != nil {
		settings["HARDWARE_NVML_LIBRARY"] = a.cards.Library
	}
	for i, name := range []string{"CPU", "GPU", "FFMPEG", "DOCKER"} {
		settings["EXPORTERS_"+name+"_PORT"] = strconv.Itoa(a.ports[1+i])
	}
	environ := []string{
		"PATH=" + a.binDir() + ":" + os.Getenv("PATH"), "HOME=" + a.dir,
		"HTTP_PROXY=http://" + a.films.address(), "NO_PROXY=" + a.net.host,
	}
	for name, value := range settings {
		environ = append(environ, "FFMPEG_AGENT_"+name+"="+value)
	}
	return environ
}

func (a *agent) metricsAddress() string {
	return net.JoinHostPort(a.net.agent, strconv.Itoa(a.ports[0]))
}

// supervise starts the agent and starts it again whenever it ends, until the context does.
func (a *agent) supervise(ctx context.Context) error {
	for ctx.Err() == nil {
		p, err := a.start()
		if err != nil {
			return err
		}
		started := time.Now()
		select {
		case <-p.done:
		case <-ctx.Done():
			_ = p.signal(syscall.SIGCONT)
			a.noteStopRequest()
			_ = p.signal(syscall.SIGTERM)
			if !waitUntil(30*time.Second, p.ended) {
				_ = p.signal(syscall.SIGKILL)
			}
			<-p.done
		}
		a.recordExit(p, started)
		if time.Since(started) < 200*time.Millisecond { // a binary that does not even start
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

func (a *agent) start() (*program, error) {
	a.mu.Lock()
	before := a.beforeStart
	a.beforeStart = nil
	a.mu.Unlock()
	for _, f := range before {
		f()
	}
	argv := a.net.command([]string{a.binary, "--register", "--master", "http://" + a.proxy.address, "--allow-master-as-worker",
		"--poll-interval", pollInterval.String(), "--heartbeat-interval", heartbeatInterval.String(), "--metrics-port", strconv.Itoa(a.ports[0])})
	a.mu.Lock()
	defer a.mu.Unlock()
	p, err := spawn(a.logFile, a.environment(), argv...)
	if err != nil {
		return nil, err
	}
	a.starts++
	a.program, a.lastStatus = p, nil
	record := Process{Agent: a.n, Number: a.starts, PID: p.pid, Span: Span{From: time.Now()}}
	a.recorder.update(func(h *History) { h.Processes = append(h.Processes, record) })
	return p, nil
}

// noteStopRequest notes that the current process was asked to end.
func (a *agent) noteStopRequest() {
	now := time.Now()
	a.updateProcess(a.processNumber(), func(l *Process) {
		if l.StopRequested.IsZero() {
			l.StopRequested = now
		}
	})
}

// updateProcess changes what was noted of a process.
func (a *agent) updateProcess(process int, change func(*Process)) {
	a.recorder.update(func(h *History) {
		for i := range h.Processes {
			if l := &h.Processes[i]; l.Agent == a.n && l.Number == process {
				change(l)
			}
		}
	})
}

// recordExit notes what outlived a process, ends it, and notes what the next has to clean up.
func (a *agent) recordExit(p *program, started time.Time) {
	exited := time.Now()
	survivors := func() []string {
		var found []string
		for _, c := range a.processes() {
			found = append(found, c.String())
		}
		for _, port := range a.ports {
			if conn, err := net.DialTimeout("tcp", net.JoinHostPort(a.net.agent, strconv.Itoa(port)), 100*time.Millisecond); err == nil {
				conn.Close()
				found = append(found, fmt.Sprintf("a listener on port %d", port))
			}
		}
		for _, g := range a.jobCgroups() {
			if cgroupPopulated(g) {
				found = append(found, "processes in cgroup "+g)
			}
		}
		return found
	}
	var found []string
	waitUntil(2*time.Second, func() bool { found = survivors(); return len(found) == 0 })
	goneAfter := time.Since(exited)
	for _, c := range a.processes() {
		_ = c.signal(syscall.SIGKILL)
	}
	items := a.findLeftovers()
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(items, a.leftovers) // what the previous process did not do
	a.leftovers = items
	a.program = nil
	a.updateProcess(a.starts, func(l *Process) { l.To, l.Exit, l.GoneAfter, l.Survivors = exited, p.exit(), goneAfter, found })
}

// watch polls the agent for its heartbeats and for what it has cleaned up.
func (a *agent) watch(ctx context.Context) {
	ticker := time.NewTicker(statusInterval)
	defer ticker.Stop()
	var lastHeartbeat time.Time
	var cleanup cleanupWatch
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		process := a.processNumber()
		s, err := a.control.status(ctx)
		if err != nil || process != a.processNumber() || a.running() == nil || s.PID != a.running().pid {
			continue
		}
		a.mu.Lock()
		a.lastStatus = s
		a.mu.Unlock()
		if s.Heartbeat != nil && s.Heartbeat.LastAttempt != nil && s.Heartbeat.LastAttempt.After(lastHeartbeat) {
			lastHeartbeat = *s.Heartbeat.LastAttempt
			a.recorder.update(func(h *History) {
				h.Heartbeats = append(h.Heartbeats, Heartbeat{a.n, process, lastHeartbeat, s.Heartbeat.Attempts})
			})
		}
		if a.cgroupPatternUnknown() && len(s.Jobs) > 0 {
			for _, p := range a.children(Proc.isEncoder) {
				a.learnCgroupPattern(p)
			}
		}
		cleanup.check(a, process)
	}
}

// usage is what the agent uses now.
func (a *agent) usage(ctx context.Context) (Usage, error) {
	p := a.running()
	if p == nil {
		return Usage{}, fmt.Errorf("agent %d does not run", a.n)
	}
	l := Usage{Agent: a.n, Process: a.processNumber(), At: time.Now(), Leftovers: a.jobLeftovers()}
	// The liveness probe wakes all actors at once, each in a goroutine of its own for a moment.
	// So the lowest of several counts is taken.
	for n := range 3 {
		sums, err := scrape(ctx, a.http, a.metricsAddress())
		if err != nil {
			return l, err
		}
		if goroutines := int(sums["go_goroutines"]); n == 0 || goroutines < l.Goroutines {
			l.Goroutines = goroutines
		}
		l.HeapBytes = int64(sums["go_memstats_heap_inuse_bytes"])
		time.Sleep(50 * time.Millisecond)
	}
	var err error
	l.Descriptors, l.Threads, l.ResidentBytes, err = resourceCounts(p.pid)
	l.DiskBytes = sizeBelow(a.data.dir, func(name string) bool { return strings.Contains(name, ".damaged-") || name == ballast })
	return l, err
}

// readEvents reads from the agent's log what it did for which attempt.
func (a *agent) readEvents() ([]AttemptEvent, error) {
	f, err := os.Open(a.logFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseEvents(a.n, f)
}

func parseEvents(agent int, log io.Reader) (all []AttemptEvent, err error) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Time         time.Time
			Message, Job string
			Attempt      int
		}
		// A line that cannot be read was cut off by a kill, or is the runtime's output of a crash.
		if json.Unmarshal(lines.Bytes(), &line) == nil && slices.Contains(eventMessages, line.Message) {
			all = append(all, AttemptEvent{agent, Attempt{line.Job, line.Attempt}, line.Message, line.Time})
		}
	}
	return all, lines.Err()
}
