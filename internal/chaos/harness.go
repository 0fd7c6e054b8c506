package chaos

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

// harness is a run's agents, their master, and the network between them.
type harness struct {
	cfg       Config
	history   *recorder
	master    *master
	agents    []*agent
	submitter *submitter
	cancel    context.CancelCauseFunc
	notes     []string // what this machine does not have
	closers   []func()

	outputDisk *disk
	outputMu   sync.Mutex
}

// abort ends the run: the harness failed, not the agents.
func (f *harness) abort(err error) { f.cancel(err) }

func (f *harness) logf(format string, args ...any) { fmt.Fprintf(f.cfg.Output, format+"\n", args...) }

func (f *harness) onClose(do func()) { f.closers = append(f.closers, do) }

func (f *harness) close() {
	for i := len(f.closers) - 1; i >= 0; i-- {
		f.closers[i]()
	}
}

// setUp creates everything, in order.
func (f *harness) setUp(ctx context.Context) error {
	outputs := filepath.Join(f.cfg.Dir, "out")
	var why error
	f.outputDisk, why = newDisk(outputs, 64)
	f.onClose(f.outputDisk.remove)
	if why != nil {
		f.notes = append(f.notes, "no disk can be filled: "+why.Error())
	}
	var err error
	if f.master, err = newMaster(f.cfg.Master, f.cfg.Dir, f.cfg.LikeField, f.history); err != nil {
		return err
	}
	f.onClose(func() {
		f.master.restartMu.Lock()
		defer f.master.restartMu.Unlock()
		if p, _ := f.master.running(); p != nil {
			f.master.stop(15)
		}
	})
	f.submitter, err = newSubmitter(ctx, f.cfg.Dir, outputs, f.cfg.Schedule.Seed, f.cfg.Schedule.Agents, f.master)
	if err != nil {
		return err
	}
	for n := range f.cfg.Schedule.Agents {
		a, err := f.newAgent(ctx, n, outputs)
		if err != nil {
			return err
		}
		f.agents = append(f.agents, a)
	}
	return nil
}

func (f *harness) newAgent(ctx context.Context, n int, outputs string) (*agent, error) {
	a := &agent{
		n: n, binary: f.cfg.Agent, dir: filepath.Join(f.cfg.Dir, fmt.Sprintf("a%d", n)), outputs: outputs,
		logFile: filepath.Join(f.cfg.Dir, fmt.Sprintf("agent-%d.log", n)), recorder: f.history,
		http: &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	if err := os.MkdirAll(a.binDir(), 0o755); err != nil {
		return nil, err
	}
	var why error
	a.data, why = newDisk(filepath.Join(a.dir, "d"), 64)
	f.onClose(a.data.remove)
	if why != nil && n == 0 {
		f.notes = append(f.notes, "no disk can be filled: "+why.Error())
	}
	a.control = newControlClient(filepath.Join(a.data.dir, "agent.sock"))
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
	if a.proxy, err = newProxy(n, a.net.host+":0", f.master.address, a.processNumber, f.history); err != nil {
		return nil, err
	}
	f.onClose(a.proxy.close)
	if a.films, err = newFilms(a.net.host+":0", f.submitter.clip); err != nil {
		return nil, err
	}
	f.onClose(a.films.close)
	return a, f.fakeHardware(ctx, a)
}

// fakeHardware gives an agent counters and cards that can fail.
func (f *harness) fakeHardware(ctx context.Context, a *agent) (err error) {
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
	f.history.update(func(h *History) { h.TruePower, h.NestedZones = power, map[string]bool{"intel-rapl:0:0": true} })
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
