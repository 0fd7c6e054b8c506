package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// master is the real master, in a process of its own, behind the proxies. By turns it
// fences attempts and does not: it changes whenever it forgets everything.
type master struct {
	binary, address string
	state, logFile  string
	facts           *recorder
	http            *http.Client

	gate sync.Mutex // held by who stops or starts it

	mu      sync.Mutex
	process *process
	memory  int // from 1
}

// fenced reports whether the master of a memory fences attempts.
func fenced(memory int) bool { return memory%2 == 1 }

func newMaster(binary, dir string, facts *recorder) (*master, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	m := &master{
		binary: binary, address: fmt.Sprintf("127.0.0.1:%d", ports[0]), state: dir + "/master.json", logFile: dir + "/master.log",
		facts: facts, http: &http.Client{Timeout: 20 * time.Second}, memory: 1,
	}
	m.began()
	return m, m.start()
}

func (m *master) began() {
	now := time.Now()
	m.facts.note(func(h *History) {
		if n := len(h.Memories); n > 0 {
			h.Memories[n-1].To = now
		}
		h.Memories = append(h.Memories, Memory{Number: m.memory, Span: Span{From: now}, Fenced: fenced(m.memory)})
	})
}

func (m *master) present() (p *process, memory int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process, m.memory
}

// start starts it with what it remembers, and waits until it answers.
func (m *master) start() error {
	m.mu.Lock()
	p, err := spawn(m.logFile, os.Environ(), m.binary, "--listen", m.address, "--state", m.state,
		"--unavailable-after", silentAfter.String(), "--fence="+strconv.FormatBool(fenced(m.memory)))
	m.process = p
	m.mu.Unlock()
	if err != nil {
		return err
	}
	healthy := waitFor(20*time.Second, func() bool {
		return p.ended() || ask(context.Background(), m.http, http.MethodGet, "http://"+m.address+"/health", nil, nil) == nil
	})
	if !healthy || p.ended() {
		return fmt.Errorf("the master does not come up; see %s", m.logFile)
	}
	return nil
}

func (m *master) stop(s syscall.Signal) {
	p, _ := m.present()
	_ = p.signal(syscall.SIGCONT)
	_ = p.signal(s)
	if !waitFor(15*time.Second, p.ended) {
		_ = p.signal(syscall.SIGKILL)
	}
	<-p.done
}

// forget stops the master, notes how its jobs stood, and starts one that knows nothing.
func (m *master) forget() error {
	m.stop(syscall.SIGTERM)
	var state struct {
		Jobs []struct {
			Job protocol.Job `json:"job"`
		} `json:"jobs"`
	}
	raw, err := os.ReadFile(m.state)
	if err == nil {
		err = json.Unmarshal(raw, &state)
	}
	if err != nil {
		return fmt.Errorf("reading what the master knew: %w", err)
	}
	_, memory := m.present()
	m.facts.note(func(h *History) {
		for i := range state.Jobs {
			h.seen(&state.Jobs[i].Job)
		}
		for _, j := range h.Jobs {
			j.Forgotten = j.Forgotten || j.Master == memory && !j.Status.Terminal()
		}
	})
	if err := os.Remove(m.state); err != nil {
		return err
	}
	m.mu.Lock()
	m.memory++
	m.mu.Unlock()
	m.began()
	return m.start()
}

// seen notes how a job stands.
func (h *History) seen(j *protocol.Job) {
	if known := h.Jobs[j.ID]; known != nil && !known.Forgotten {
		known.Status, known.Retries, known.Limit = j.Status, j.RetryCount, j.MaxRetries
	}
}

// adopt notes a job that the master accepted, and whose submitter got no answer. One that
// is just being submitted has its moment to be noted with all that is known of it.
func (h *History) adopt(j *protocol.Job, memory int) {
	const moment = 2 * time.Second
	if h.Jobs[j.ID] == nil && j.CreatedAt != nil && time.Since(*j.CreatedAt) > moment {
		h.Jobs[j.ID] = &Job{ID: j.ID, Sequence: j.SequenceNumber, Master: memory, Submitted: *j.CreatedAt, Stray: true}
	}
}

// submit has the master accept a job.
func (m *master) submit(ctx context.Context, req protocol.JobRequest, about Job) (*Job, error) {
	_, memory := m.present()
	var job protocol.Job
	if err := ask(ctx, m.http, http.MethodPost, "http://"+m.address+"/jobs", req, &job); err != nil {
		return nil, err
	}
	if _, now := m.present(); now != memory {
		return nil, fmt.Errorf("the master forgot job %s at once", job.ID)
	}
	about.ID, about.Sequence, about.Master = job.ID, job.SequenceNumber, memory
	about.Submitted, about.Status = time.Now(), job.Status
	m.facts.note(func(h *History) { h.Jobs[about.ID] = &about })
	return &about, nil
}

// look notes how all jobs stand, and returns those that have not ended.
func (m *master) look(ctx context.Context) ([]protocol.Job, error) {
	_, memory := m.present()
	var list struct{ Jobs []protocol.Job }
	if err := ask(ctx, m.http, http.MethodGet, "http://"+m.address+"/jobs", nil, &list); err != nil {
		return nil, err
	}
	if _, now := m.present(); now != memory {
		return nil, fmt.Errorf("the master has just forgotten everything")
	}
	var open []protocol.Job
	m.facts.note(func(h *History) {
		for i := range list.Jobs {
			h.adopt(&list.Jobs[i], memory)
			h.seen(&list.Jobs[i])
			if !list.Jobs[i].Status.Terminal() {
				open = append(open, list.Jobs[i])
			}
		}
	})
	return open, nil
}

// cancel cancels a job.
func (m *master) cancel(ctx context.Context, id string) error {
	return m.change(ctx, id, "cancel")
}

func (m *master) change(ctx context.Context, id, what string) error {
	return ask(ctx, m.http, http.MethodPost, "http://"+m.address+"/jobs/"+id+"/"+what, nil, nil)
}
