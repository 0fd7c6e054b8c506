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
	likeField       bool
	state, logFile  string
	recorder        *recorder
	http            *http.Client

	restartMu sync.Mutex // held by who stops or starts it

	mu      sync.Mutex
	program *program
	epoch   int // from 1
}

// fences reports whether the master of this epoch fences attempts. Masters in use do not.
func (m *master) fences() bool { return !m.likeField && m.epoch%2 == 1 }

func newMaster(binary, dir string, likeField bool, recorder *recorder) (*master, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	m := &master{
		binary: binary, likeField: likeField, address: fmt.Sprintf("127.0.0.1:%d", ports[0]), state: dir + "/master.json", logFile: dir + "/master.log",
		recorder: recorder, http: &http.Client{Timeout: 20 * time.Second}, epoch: 1,
	}
	m.recordEpoch()
	return m, m.start()
}

func (m *master) recordEpoch() {
	now := time.Now()
	m.recorder.update(func(h *History) {
		if n := len(h.Epochs); n > 0 {
			h.Epochs[n-1].To = now
		}
		h.Epochs = append(h.Epochs, MasterEpoch{Number: m.epoch, Span: Span{From: now}, Fences: m.fences()})
	})
}

func (m *master) running() (p *program, epoch int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.program, m.epoch
}

// start starts it with its saved state, and waits until it answers.
func (m *master) start() error {
	m.mu.Lock()
	args := []string{m.binary, "--listen", m.address, "--state", m.state,
		"--unavailable-after", unavailableAfter.String(), "--fence=" + strconv.FormatBool(m.fences())}
	if m.likeField {
		args = append(args, "--like-field", "--stale-after", staleAfter.String(), "--live-stale-after", staleAfter.String())
	}
	p, err := spawn(m.logFile, os.Environ(), args...)
	m.program = p
	m.mu.Unlock()
	if err != nil {
		return err
	}
	healthy := waitUntil(20*time.Second, func() bool {
		return p.ended() || callJSON(context.Background(), m.http, http.MethodGet, "http://"+m.address+"/health", nil, nil) == nil
	})
	if !healthy || p.ended() {
		return fmt.Errorf("the master did not start; see %s", m.logFile)
	}
	return nil
}

func (m *master) stop(s syscall.Signal) {
	p, _ := m.running()
	_ = p.signal(syscall.SIGCONT)
	_ = p.signal(s)
	if !waitUntil(15*time.Second, p.ended) {
		_ = p.signal(syscall.SIGKILL)
	}
	<-p.done
}

// restartEmpty stops the master, notes the status of its jobs, and starts one without state.
func (m *master) restartEmpty() error {
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
		return fmt.Errorf("reading the jobs that the master had: %w", err)
	}
	_, epoch := m.running()
	m.recorder.update(func(h *History) {
		for i := range state.Jobs {
			h.updateJob(&state.Jobs[i].Job)
		}
		for _, j := range h.Jobs {
			j.Forgotten = j.Forgotten || j.Epoch == epoch && !j.Status.Terminal()
		}
	})
	if err := os.Remove(m.state); err != nil {
		return err
	}
	m.mu.Lock()
	m.epoch++
	m.mu.Unlock()
	m.recordEpoch()
	return m.start()
}

// updateJob notes a job's status.
func (h *History) updateJob(j *protocol.Job) {
	if tracked := h.Jobs[j.ID]; tracked != nil && !tracked.Forgotten {
		tracked.Status, tracked.Retries, tracked.MaxRetries = j.Status, j.RetryCount, j.MaxRetries
	}
}

// adoptJob notes a job that the master accepted, and whose submitter got no answer. One that
// is just being submitted has its moment to be noted with all that is known of it.
func (h *History) adoptJob(j *protocol.Job, epoch int) {
	const delay = 2 * time.Second
	if h.Jobs[j.ID] == nil && j.CreatedAt != nil && time.Since(*j.CreatedAt) > delay {
		output, _ := j.Parameters["output"].(string)
		h.Jobs[j.ID] = &Job{ID: j.ID, Sequence: j.SequenceNumber, Epoch: epoch, Submitted: *j.CreatedAt, RequestUnknown: true, Output: output}
	}
}

// submit submits a job to the master.
func (m *master) submit(ctx context.Context, req protocol.JobRequest, job Job) (*Job, error) {
	_, epoch := m.running()
	var accepted protocol.Job
	if err := callJSON(ctx, m.http, http.MethodPost, "http://"+m.address+"/jobs", req, &accepted); err != nil {
		return nil, err
	}
	if _, now := m.running(); now != epoch {
		return nil, fmt.Errorf("the master forgot job %s at once", accepted.ID)
	}
	job.ID, job.Sequence, job.Epoch = accepted.ID, accepted.SequenceNumber, epoch
	job.Submitted, job.Status = time.Now(), accepted.Status
	m.recorder.update(func(h *History) { h.Jobs[job.ID] = &job })
	return &job, nil
}

// pollJobs notes the status of all jobs, and returns those that have not ended.
func (m *master) pollJobs(ctx context.Context) ([]protocol.Job, error) {
	_, epoch := m.running()
	var list struct{ Jobs []protocol.Job }
	if err := callJSON(ctx, m.http, http.MethodGet, "http://"+m.address+"/jobs", nil, &list); err != nil {
		return nil, err
	}
	if _, now := m.running(); now != epoch {
		return nil, fmt.Errorf("the master has just forgotten everything")
	}
	var open []protocol.Job
	m.recorder.update(func(h *History) {
		for i := range list.Jobs {
			h.adoptJob(&list.Jobs[i], epoch)
			h.updateJob(&list.Jobs[i])
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
	return callJSON(ctx, m.http, http.MethodPost, "http://"+m.address+"/jobs/"+id+"/"+what, nil, nil)
}
