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
	beatInterval = 500 * time.Millisecond
	pollInterval = 200 * time.Millisecond
	hangAfter    = time.Second
	stallTimeout = 6 * time.Second // FFmpeg is nice, and this machine may be shared
	jobTimeout   = 30 * time.Second
	silentAfter  = 4 * time.Second // without a heartbeat, after which the master gives a job away
	lookInterval = 100 * time.Millisecond
)

// cleanWithin is how long an agent that can work may take to clean up after the one
// before it.
const cleanWithin = 20 * time.Second

// agent is one agent: started again whenever it ends, as a service manager does.
type agent struct {
	n       int
	binary  string
	dir     string // all of it, ours too
	data    *disk  // its data folder
	outputs string
	logFile string
	net     *network
	ports   []int // metrics, cpu, gpu, ffmpeg, docker
	proxy   *proxy
	tree    *fakehw.Tree
	zones   []*fakehw.Zone
	cards   *fakehw.NVML // nil: none
	facts   *recorder
	http    *http.Client
	socket  *socket

	// gate is held by a fault that ends or stops the agent, one at a time; deaths counts
	// those that end it, so that no other is taken for the cause.
	gate   sync.Mutex
	deaths atomic.Int32
	// One disturbance of its counters, of its cards, and of each actor at a time, for their
	// effects are told apart by that.
	raplGate, cardGate sync.Mutex
	actorGates         sync.Map // path → *sync.Mutex

	mu        sync.Mutex
	process   *process
	number    int                    // of the present life
	before    []func()               // what is done before the next start
	last      *status                // the latest; nil: this life has not been seen yet
	inherited map[string]func() bool // what dead lives left: name → whether it is still there
	amnesia   bool                   // the journal was damaged since: attempts may begin again
	cgroups   string                 // pattern of the names of its jobs' cgroups; empty: not seen yet
	broken    atomic.Int32           // faults under way that keep it from cleaning up
}

func (a *agent) life() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.number
}

// present is the process of the present life; nil while there is none.
func (a *agent) present() *process {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.process
}

// status is the latest that was seen of the present life; never nil.
func (a *agent) status() *status {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		return &status{}
	}
	return a.last
}

func (a *agent) mark() string { return filepath.Join(a.dir, "bin") }

func (a *agent) processes() []Proc {
	found, _ := processes("PATH=" + a.mark() + ":")
	return found
}

// children are its processes beside the agent itself.
func (a *agent) children(fits func(Proc) bool) []Proc {
	var self int
	if p := a.present(); p != nil {
		self = p.pid
	}
	return slices.DeleteFunc(a.processes(), func(p Proc) bool { return p.PID == self || !fits(p) })
}

func (a *agent) environment() []string {
	set := map[string]string{
		"DATA_DIR": a.data.dir, "NODE_ADDRESS": fmt.Sprintf("chaos-%d", a.n), "EXPORTERS_LISTEN_ADDRESS": a.net.agent,
		"DEBUG_FAULT_INJECTION": "true", "DEBUG_HANG_AFTER": hangAfter.String(),
		"HARDWARE_SYSFS_PATH": a.tree.Sys(), "HARDWARE_NVML_LIBRARY": "libnvidia-ml-of-nobody.so.1",
		"JOBS_OUTPUT_ROOTS": a.outputs, "JOBS_STALL_TIMEOUT": stallTimeout.String(), "JOBS_TIMEOUT": jobTimeout.String(),
		"JOBS_CANCEL_CHECK_INTERVAL": "500ms", "JOBS_MIN_FREE_DISK": "4MiB", "MASTER_UNAVAILABLE_AFTER": silentAfter.String(),
		"SHUTDOWN_DRAIN_TIMEOUT": "20s", "ENERGY_IDLE_INTERVAL": "200ms", "LOG_FORMAT": "json",
	}
	if a.cards != nil {
		set["HARDWARE_NVML_LIBRARY"] = a.cards.Library
	}
	for i, name := range []string{"CPU", "GPU", "FFMPEG", "DOCKER"} {
		set["EXPORTERS_"+name+"_PORT"] = strconv.Itoa(a.ports[1+i])
	}
	environ := []string{"PATH=" + a.mark() + ":" + os.Getenv("PATH"), "HOME=" + a.dir}
	for name, value := range set {
		environ = append(environ, "FFMPEG_AGENT_"+name+"="+value)
	}
	return environ
}

func (a *agent) metrics() string { return net.JoinHostPort(a.net.agent, strconv.Itoa(a.ports[0])) }

// keep starts the agent and starts it again whenever it ends, until the context does.
func (a *agent) keep(ctx context.Context) error {
	for ctx.Err() == nil {
		p, err := a.launch()
		if err != nil {
			return err
		}
		begun := time.Now()
		select {
		case <-p.done:
		case <-ctx.Done():
			_ = p.signal(syscall.SIGCONT)
			a.told()
			_ = p.signal(syscall.SIGTERM)
			if !waitFor(30*time.Second, p.ended) {
				_ = p.signal(syscall.SIGKILL)
			}
			<-p.done
		}
		a.bury(p, begun)
		if time.Since(begun) < 200*time.Millisecond { // a binary that does not even start
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

func (a *agent) launch() (*process, error) {
	a.mu.Lock()
	before := a.before
	a.before = nil
	a.mu.Unlock()
	for _, f := range before {
		f()
	}
	argv := a.net.wrap([]string{a.binary, "--register", "--master", "http://" + a.proxy.address, "--allow-master-as-worker",
		"--poll-interval", pollInterval.String(), "--heartbeat-interval", beatInterval.String(), "--metrics-port", strconv.Itoa(a.ports[0])})
	a.mu.Lock()
	defer a.mu.Unlock()
	p, err := spawn(a.logFile, a.environment(), argv...)
	if err != nil {
		return nil, err
	}
	a.number++
	a.process, a.last = p, nil
	life := Life{Agent: a.n, Number: a.number, PID: p.pid, Span: Span{From: time.Now()}}
	a.facts.note(func(h *History) { h.Lives = append(h.Lives, life) })
	return p, nil
}

// told notes that the present life is told to end.
func (a *agent) told() {
	now := time.Now()
	a.amend(a.life(), func(l *Life) {
		if l.Told.IsZero() {
			l.Told = now
		}
	})
}

// amend changes what was noted of a life.
func (a *agent) amend(number int, change func(*Life)) {
	a.facts.note(func(h *History) {
		for i := range h.Lives {
			if l := &h.Lives[i]; l.Agent == a.n && l.Number == number {
				change(l)
			}
		}
	})
}

// bury notes what outlived a life, ends it, and notes what the next has to clean up.
func (a *agent) bury(p *process, begun time.Time) {
	died := time.Now()
	left := func() []string {
		var who []string
		for _, c := range a.processes() {
			who = append(who, c.String())
		}
		for _, port := range a.ports {
			if conn, err := net.DialTimeout("tcp", net.JoinHostPort(a.net.agent, strconv.Itoa(port)), 100*time.Millisecond); err == nil {
				conn.Close()
				who = append(who, fmt.Sprintf("a listener on port %d", port))
			}
		}
		for _, g := range a.groups() {
			if populated(g) {
				who = append(who, "processes in cgroup "+g)
			}
		}
		return who
	}
	var survivors []string
	waitFor(2*time.Second, func() bool { survivors = left(); return len(survivors) == 0 })
	emptied := time.Since(died)
	for _, c := range a.processes() {
		_ = c.signal(syscall.SIGKILL)
	}
	things := a.leavings()
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(things, a.inherited) // what the life before did not get round to
	a.inherited = things
	a.process = nil
	a.amend(a.number, func(l *Life) { l.To, l.Exit, l.Emptied, l.Survivors = died, p.exit(), emptied, survivors })
}

// leavings are what a dead life has left for the next to clean up, each with a way to
// see whether it is still there. It is called while the agent is dead.
func (a *agent) leavings() map[string]func() bool {
	exists := func(path string) func() bool {
		return func() bool { _, err := os.Lstat(path); return err == nil }
	}
	things := map[string]func() bool{}
	workspaces, _ := filepath.Glob(filepath.Join(a.data.dir, "work", "*"))
	for _, w := range workspaces {
		things["workspace "+filepath.Base(w)] = exists(w)
		var manifest struct {
			Temps []string `json:"temporary_outputs"`
		}
		raw, _ := os.ReadFile(filepath.Join(w, "manifest.json"))
		if json.Unmarshal(raw, &manifest) == nil {
			for _, temp := range manifest.Temps {
				things["temporary output "+temp] = exists(temp)
			}
		}
		if at, ok := (Proc{Dir: w}).attempt(); ok {
			things[journalEntry(at)] = func() bool { return a.unfinished(at) }
		}
	}
	for _, c := range a.groups() {
		things["cgroup "+c] = exists(c)
	}
	return things
}

// groups are the cgroups of the agent's jobs.
func (a *agent) groups() []string {
	a.mu.Lock()
	pattern := a.cgroups
	a.mu.Unlock()
	if pattern == "" {
		return nil
	}
	groups, _ := filepath.Glob(pattern)
	return groups
}

// unfinished reports whether the journal still takes an attempt for running; true as
// long as it cannot be asked.
func (a *agent) unfinished(at Attempt) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	states, err := a.socket.states(ctx, at.Job)
	return err != nil || states[at.Number].State == "accepted" || states[at.Number].State == "running"
}

// watch looks at the agent all the time: its heartbeats, and whether it has cleaned up.
func (a *agent) watch(ctx context.Context) {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	var beat time.Time
	var clean cleaning
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		life := a.life()
		s, err := a.socket.status(ctx)
		if err != nil || life != a.life() || a.present() == nil || s.PID != a.present().pid {
			continue
		}
		a.mu.Lock()
		a.last = s
		a.mu.Unlock()
		if s.Heartbeat != nil && s.Heartbeat.LastAttempt != nil && s.Heartbeat.LastAttempt.After(beat) {
			beat = *s.Heartbeat.LastAttempt
			a.facts.note(func(h *History) { h.Beats = append(h.Beats, Beat{a.n, life, beat, s.Heartbeat.Attempts}) })
		}
		if a.groupsUnknown() && len(s.Jobs) > 0 {
			for _, p := range a.children(Proc.encodes) {
				a.learn(p)
			}
		}
		clean.look(a, life)
	}
}

// rerun notes attempts that a dead life had begun and that are begun again: they are to
// be reported as failed instead.
func (c *cleaning) rerun(a *agent) {
	now := a.status()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range now.Jobs {
		if j.Phase == "prepare" {
			continue // so far the journal may still say that it has ended
		}
		entry := journalEntry(Attempt{j.Key.Job, j.Key.Attempt})
		if _, begun := a.inherited[entry]; begun && !a.amnesia {
			again := entry + " runs again"
			if !slices.Contains(c.again, again) {
				c.again = append(c.again, again)
			}
		}
	}
}

func journalEntry(at Attempt) string { return fmt.Sprintf("journal entry %s#%d", at.Job, at.Number) }

func (a *agent) groupsUnknown() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cgroups == ""
}

// cleaning watches a life clean up after those before it.
type cleaning struct {
	life   int
	done   bool
	able   time.Duration // for how long the life could have cleaned up
	looked time.Time
	things int
	last   string   // one that was still there at the last look
	again  []string // attempts of the dead that run again
}

func (c *cleaning) look(a *agent, life int) {
	now := time.Now()
	if life != c.life {
		a.mu.Lock()
		*c = cleaning{life: life, looked: now, things: len(a.inherited)}
		a.mu.Unlock()
	}
	passed := min(now.Sub(c.looked), time.Second)
	c.looked = now
	if c.done {
		return
	}
	c.rerun(a)
	if a.broken.Load() == 0 {
		c.able += passed
	}
	a.mu.Lock()
	inherited := a.inherited
	a.mu.Unlock()
	var left []string
	for name, there := range inherited {
		if there() {
			left = append(left, name)
		}
	}
	left = append(left, c.again...)
	slices.Sort(left)
	if len(left) > len(c.again) && c.able < cleanWithin {
		c.last = left[0]
		return
	}
	c.done = true
	a.mu.Lock()
	a.inherited, a.amnesia = nil, false
	a.mu.Unlock()
	if c.things > 0 {
		a.facts.note(func(h *History) { h.Cleaned = append(h.Cleaned, Cleaned{a.n, life, c.things, left, c.able, c.last}) })
	}
}

// learn finds out how the agent names its jobs' cgroups, from one of their processes.
func (a *agent) learn(p Proc) {
	pattern := groupPattern(p.cgroup())
	if pattern == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cgroups = filepath.Join(cgroupMount(), pattern)
}

// groupPattern is what the cgroups of all jobs of an agent look like, given the path of one
// or of one below it; empty: it is no job's.
func groupPattern(path string) string {
	const prefix = "ffmpeg-agent-"
	const hash = 9 // what tells agents apart, and a dash
	for ; len(path) > 1; path = filepath.Dir(path) {
		if base := filepath.Base(path); strings.HasPrefix(base, prefix) && len(base) >= len(prefix)+hash {
			return filepath.Join(filepath.Dir(path), base[:len(prefix)+hash]+"*")
		}
	}
	return ""
}

// temporary is what only a job at work may have: cgroups, and outputs that are not final
// yet, in the folder of all agents.
func (a *agent) temporary() []string {
	partial, _ := filepath.Glob(filepath.Join(a.outputs, ".*.partial-*"))
	return append(partial, a.groups()...)
}

// level is what the agent holds now.
func (a *agent) level(ctx context.Context) (Level, error) {
	p := a.present()
	if p == nil {
		return Level{}, fmt.Errorf("agent %d does not run", a.n)
	}
	l := Level{Agent: a.n, Life: a.life(), At: time.Now(), Temporary: a.temporary()}
	sums, err := scrape(ctx, a.http, a.metrics())
	if err != nil {
		return l, err
	}
	l.Goroutines, l.Heap = int(sums["go_goroutines"]), int64(sums["go_memstats_heap_inuse_bytes"])
	l.Descriptors, l.Threads, l.Resident, err = counts(p.pid)
	l.Disk = sizeBelow(a.data.dir, func(name string) bool { return strings.Contains(name, ".damaged-") || name == ballast })
	return l, err
}

// steps reads from the agent's log what it did for which attempt.
func (a *agent) steps() ([]Step, error) {
	f, err := os.Open(a.logFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSteps(a.n, f)
}

func readSteps(agent int, log io.Reader) (all []Step, err error) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Time         time.Time
			Message, Job string
			Attempt      int
		}
		// What cannot be read is of a kill in the middle of it, or what the runtime says of a crash.
		if json.Unmarshal(lines.Bytes(), &line) == nil && slices.Contains(steps, line.Message) {
			all = append(all, Step{agent, Attempt{line.Job, line.Attempt}, line.Message, line.Time})
		}
	}
	return all, lines.Err()
}
