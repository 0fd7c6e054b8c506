package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

// Config is what a run is made from.
type Config struct {
	Agent, Master string   // the programs
	Dir           string   // for logs, data and the schedule; short, for a socket lies in it
	Schedule      Schedule // what to do when
	Output        io.Writer
}

// field is a run's agents, their master, and what lies between.
type field struct {
	cfg     Config
	book    *recorder
	master  *master
	agents  []*agent
	feed    *feed
	cancel  context.CancelCauseFunc
	notes   []string // what could not be had on this machine
	closers []func()

	outputDisk *disk
	outputGate sync.Mutex
}

// breakdown ends the run: what it is made of failed, and not what it looks at.
func (f *field) breakdown(err error) { f.cancel(err) }

func (f *field) say(format string, args ...any) { fmt.Fprintf(f.cfg.Output, format+"\n", args...) }

// Run plays a schedule and returns all that was seen. An error means that the run itself
// could not be had, or was given up; what was seen until then is returned nevertheless.
func Run(ctx context.Context, cfg Config) (*History, []string, error) {
	f := &field{cfg: cfg, book: newRecorder(beatInterval)}
	defer f.close()
	ctx, f.cancel = context.WithCancelCause(ctx)
	defer f.cancel(nil)
	if err := f.build(ctx); err != nil {
		return &f.book.h, f.notes, err
	}
	err := f.play(ctx)
	return &f.book.h, f.notes, err
}

func (f *field) onClose(do func()) { f.closers = append(f.closers, do) }

func (f *field) close() {
	for i := len(f.closers) - 1; i >= 0; i-- {
		f.closers[i]()
	}
}

// build makes all there is, in order.
func (f *field) build(ctx context.Context) error {
	outputs := filepath.Join(f.cfg.Dir, "out")
	var why error
	f.outputDisk, why = newDisk(outputs, 64)
	f.onClose(f.outputDisk.remove)
	if why != nil {
		f.notes = append(f.notes, "no disk can be filled: "+why.Error())
	}
	var err error
	if f.master, err = newMaster(f.cfg.Master, f.cfg.Dir, f.book); err != nil {
		return err
	}
	f.onClose(func() {
		f.master.gate.Lock()
		defer f.master.gate.Unlock()
		if p, _ := f.master.present(); p != nil {
			f.master.stop(15)
		}
	})
	for n := range f.cfg.Schedule.Agents {
		a, err := f.newAgent(ctx, n, outputs)
		if err != nil {
			return err
		}
		f.agents = append(f.agents, a)
	}
	f.feed, err = newFeed(ctx, f.cfg.Dir, outputs, f.cfg.Schedule.Seed, len(f.agents), f.master)
	return err
}

func (f *field) newAgent(ctx context.Context, n int, outputs string) (*agent, error) {
	a := &agent{
		n: n, binary: f.cfg.Agent, dir: filepath.Join(f.cfg.Dir, fmt.Sprintf("a%d", n)), outputs: outputs,
		logFile: filepath.Join(f.cfg.Dir, fmt.Sprintf("agent-%d.log", n)), facts: f.book,
		http: &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	if err := os.MkdirAll(a.mark(), 0o755); err != nil {
		return nil, err
	}
	var why error
	a.data, why = newDisk(filepath.Join(a.dir, "d"), 64)
	f.onClose(a.data.remove)
	if why != nil && n == 0 {
		f.notes = append(f.notes, "no disk can be filled: "+why.Error())
	}
	a.socket = newSocket(filepath.Join(a.data.dir, "agent.sock"))
	if a.net, why = newNetwork(n); why != nil {
		if n == 0 {
			f.notes = append(f.notes, "agents share this machine's network: "+why.Error())
		}
		a.net = loopback()
	}
	f.onClose(a.net.remove)
	var err error
	if a.ports, err = freePorts(5); err != nil {
		return nil, err
	}
	if a.proxy, err = newProxy(n, a.net.host+":0", f.master.address, a.life, f.book); err != nil {
		return nil, err
	}
	f.onClose(a.proxy.close)
	return a, f.fakeHardware(ctx, a)
}

// fakeHardware gives an agent counters and cards that can fail.
func (f *field) fakeHardware(ctx context.Context, a *agent) (err error) {
	if a.tree, err = fakehw.New(filepath.Join(a.dir, "hw")); err != nil {
		return err
	}
	power := map[string]float64{}
	for _, z := range []struct {
		id, name string
		watts    float64
	}{{"intel-rapl:0", "package-0", 60}, {"intel-rapl:0:0", "core", 40}, {"intel-rapl:1", "package-1", 50}} {
		power[z.id] = z.watts
		zone, err := a.tree.AddZone(fakehw.ZoneConfig{ID: z.id, Name: z.name, Power: fakehw.Constant(z.watts), Range: 262143328850})
		if err != nil {
			return err
		}
		a.zones = append(a.zones, zone)
	}
	for _, c := range healthyCards().Cards {
		power[c.UUID] = c.Power.High
	}
	f.book.note(func(h *History) { h.Power, h.Inside = power, map[string]bool{"intel-rapl:0:0": true} })
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- a.tree.Run(running, 10*time.Millisecond) }()
	f.onClose(func() {
		stop()
		<-done
		_ = a.tree.Close()
	})
	cards := filepath.Join(a.dir, "nvml")
	if err := os.MkdirAll(cards, 0o755); err != nil {
		return err
	}
	var why error
	if a.cards, why = fakehw.NewNVML(cards, healthyCards()); why != nil && a.n == 0 {
		f.notes = append(f.notes, "no fake cards: "+why.Error())
	}
	return nil
}

// play keeps the agents going through the schedule and to rest.
func (f *field) play(ctx context.Context) error {
	alive, end := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	defer all.Wait()
	defer end()
	watching, stopWatching := context.WithCancel(alive)
	defer stopWatching()
	for _, a := range f.agents {
		all.Go(func() {
			if err := a.keep(alive); err != nil {
				f.breakdown(err)
			}
		})
		all.Go(func() { a.watch(watching) })
	}
	all.Go(func() { f.noteStalls(watching) })
	f.feed.paused.Store(true)
	all.Go(func() { f.feed.run(watching) })
	look := newInspector(f.outputDisk.dir, f.book)
	all.Go(func() { look.run(watching) })

	if why := f.rest(ctx, time.Minute); why != "" {
		return fmt.Errorf("the agents do not come up: %s; see the logs in %s", why, f.cfg.Dir)
	}
	for burst := range f.bursts() {
		if ctx.Err() != nil {
			break
		}
		f.feed.paused.Store(false)
		f.burst(ctx, burst)
		if burst+1 < f.bursts() {
			begun := time.Now()
			f.sayRest(begun, f.rest(ctx, restWithin))
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	begun := time.Now()
	why := f.rest(ctx, settleWithin)
	f.sayRest(begun, why)
	lost, blind := f.deadLetters(ctx), f.blind(ctx)
	var steps []Step
	for _, a := range f.agents {
		of, err := a.steps()
		if err != nil {
			return fmt.Errorf("reading the log of agent %d: %w", a.n, err)
		}
		steps = append(steps, of...)
	}
	f.book.note(func(h *History) { h.Unsettled, h.DeadLost, h.Blind, h.Steps = why, lost, blind, steps })
	return context.Cause(ctx)
}

const (
	// restWithin is how long agents may take to rest between bursts. A result whose
	// sending failed often waits for up to a minute: then there is no rest there.
	restWithin = 15 * time.Second
	// settleWithin is how long they may take at the end: a lost lease is looked for once
	// a minute, a result is sent again once a minute at the latest, and several in turn.
	settleWithin = 3 * time.Minute
	// seeAgainWithin is how long sensors may take to be read again at the end: what failed
	// often is looked for seldom.
	seeAgainWithin = 90 * time.Second
	// calm is how long an agent that rests is let be before it is looked at.
	calm = 1500 * time.Millisecond
)

func (f *field) bursts() int {
	s := f.cfg.Schedule
	return int((s.Length + s.Burst - 1) / s.Burst)
}

// burst plays the faults of one burst at their times. Then no more jobs come, and it waits
// for the last fault to be over.
func (f *field) burst(ctx context.Context, n int) {
	s := f.cfg.Schedule
	from, to := time.Duration(n)*s.Burst, min(time.Duration(n+1)*s.Burst, s.Length)
	begun := time.Now()
	var playing sync.WaitGroup
	count := 0
	for _, p := range s.Faults {
		if p.At < from || p.At >= to {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(begun.Add(p.At - from))):
		}
		if ctx.Err() != nil {
			break
		}
		count++
		playing.Go(func() { f.inject(ctx, p) })
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(begun.Add(to - from))):
	}
	f.feed.paused.Store(true)
	playing.Wait()
	f.say("burst %d of %d: %d faults", n+1, f.bursts(), count)
}

// inject plays one fault and notes what was seen of it.
func (f *field) inject(ctx context.Context, p Planned) {
	var kind Kind
	for _, k := range Kinds() {
		if k.Name == p.Kind {
			kind = k
		}
	}
	a := f.agents[p.Agent]
	if kind.Alone {
		a.gate.Lock()
		defer a.gate.Unlock()
	}
	begun := time.Now()
	within, cancel := context.WithTimeout(ctx, observeWithin)
	defer cancel()
	s := &scene{field: f, agent: a, kind: p.Kind, random: rand.New(rand.NewPCG(p.Draw, 3)), begun: begun}
	e, err := kind.play(within, s)
	fault := Injected{Planned: p, Span: Span{begun, time.Now()}, Seen: e.seen, Hit: e.hit, Actor: e.actor}
	if err != nil {
		fault.Seen, fault.Why, fault.Idle = "", err.Error(), errors.Is(err, errNothing)
	}
	f.book.note(func(h *History) { h.Faults = append(h.Faults, fault) })
}

// rest waits until no job is open and no agent has anything to do, and notes what they
// hold then. It returns why there was no rest.
func (f *field) rest(ctx context.Context, within time.Duration) (why string) {
	for end := time.Now().Add(within); ; {
		if why = f.unrest(ctx); why == "" {
			break
		}
		select {
		case <-ctx.Done():
			return "the run was given up"
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(end) {
			return why
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(calm):
	}
	for _, a := range f.agents {
		if l, err := a.level(ctx); err == nil {
			f.book.note(func(h *History) { h.Rest = append(h.Rest, l) })
		}
	}
	return ""
}

// deadLetters counts the results that agents hold as undeliverable, though their master
// did not forget the jobs.
func (f *field) deadLetters(ctx context.Context) (lost int) {
	var jobs []*Job
	var history History
	f.book.note(func(h *History) { jobs, history.Memories = h.sortedJobs(), slices.Clone(h.Memories) })
	for _, a := range f.agents {
		if a.status().Journal.DeadLetters == 0 {
			continue
		}
		for _, j := range jobs {
			records, err := a.socket.states(ctx, j.ID)
			for _, r := range records {
				if err == nil && r.State == "dead letter" && history.remembered(j, r.SettledAt) {
					lost++
				}
			}
		}
	}
	return lost
}

// blind are the sensors that agents do not read again in time.
func (f *field) blind(ctx context.Context) (names []string) {
	for end := time.Now().Add(seeAgainWithin); ; {
		names = nil
		for _, a := range f.agents {
			kinds := []string{"rapl"}
			if a.cards != nil {
				kinds = append(kinds, "nvml")
			}
			for _, kind := range kinds {
				if trouble, zones := a.status().sampler(kind); zones == 0 {
					names = append(names, fmt.Sprintf("%s of agent %d: %s", kind, a.n, trouble))
				}
			}
		}
		if len(names) == 0 || ctx.Err() != nil || time.Now().After(end) {
			return names
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (f *field) sayRest(begun time.Time, why string) {
	if why == "" {
		why = "all rest"
	}
	f.say("after %s: %s", time.Since(begun).Round(time.Second), why)
}

// unrest says what is still going on.
func (f *field) unrest(ctx context.Context) string {
	open, err := f.master.look(ctx)
	if err != nil {
		return err.Error()
	}
	if len(open) > 0 {
		return fmt.Sprintf("%d jobs are open at the master, among them %s (%s, attempt %d, node %s)",
			len(open), open[0].ID, open[0].Status, open[0].Attempt(), open[0].NodeID)
	}
	for _, a := range f.agents {
		a.mu.Lock()
		last := a.last
		a.mu.Unlock()
		switch {
		case last == nil:
			return fmt.Sprintf("agent %d has not been seen", a.n)
		case !last.idle():
			return fmt.Sprintf("agent %d has %d jobs, %d results to send, %d attempts unfinished", a.n, len(last.Jobs), last.Journal.Unsent, last.Journal.Unfinished)
		}
		if p := a.children(func(p Proc) bool { return p.Name == "ffmpeg" }); len(p) > 0 {
			return fmt.Sprintf("agent %d has %s", a.n, p[0])
		}
	}
	return ""
}

// noteStalls notes when this very program was not scheduled.
func (f *field) noteStalls(ctx context.Context) {
	const tick, late = 20 * time.Millisecond, 100 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now := time.Now(); now.Sub(last) > late {
			s := Span{last, now}
			f.book.note(func(h *History) { h.Stalls = append(h.Stalls, s) })
			last = now
		} else {
			last = now
		}
	}
}
