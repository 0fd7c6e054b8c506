package devmaster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ffmpeg-agent/messages/protocol"
)

// open returns a master with a state file, which may have been left by another master that
// was not closed.
func open(t *testing.T, file string) *Master {
	t.Helper()
	return newMaster(t, Config{StateFile: file, FenceAttempts: true})
}

func TestStateSurvivesRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	first := open(t, file)
	c := serve(t, first)
	a, b := c.register("host-a"), c.register("host-b")
	done := c.post(`{"scenario":"720p30-h264","queue":"live","parameters":{"fps":29.970,"input":"<a&b>"},"wrapper_constraints":{"cpu_weight":50}}`)
	running, canceled, waiting := c.post(`{}`), c.post(`{"priority":"low"}`), c.post(`{"queue":"batch"}`)
	for _, node := range []string{a.ID, b.ID, b.ID} {
		c.next(node)
	}
	body := result(done.ID, a.ID, protocol.StatusCompleted, 1) + "\n"
	c.want(http.StatusOK, "POST", "/results", body, nil)
	c.want(http.StatusOK, "POST", "/jobs/"+canceled.ID+"/cancel", "", nil)

	// The first master is not closed, as after a kill.
	second := open(t, file)
	if diff := cmp.Diff(first.Jobs(), second.Jobs()); diff != "" {
		t.Errorf("jobs (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(first.Nodes(), second.Nodes(), cmpopts.IgnoreFields(protocol.Node{}, "LastHeartbeat")); diff != "" {
		t.Errorf("nodes (-before +after):\n%s", diff)
	}
	c = serve(t, second)
	if _, got := c.do("GET", "/jobs/1/result", ""); got != body {
		t.Errorf("got result %q, want %q", got, body)
	}
	c.want(http.StatusConflict, "POST", "/results", body, nil)
	c.want(http.StatusOK, "POST", "/results", result(running.ID, b.ID, protocol.StatusCompleted, 1), nil)
	c.want(http.StatusOK, "POST", "/results", result(canceled.ID, b.ID, protocol.StatusCanceled, 1), nil)
	if j := c.next(a.ID); j == nil || j.ID != waiting.ID {
		t.Errorf("got next job %+v, want %s", j, waiting.ID)
	}
	if j := c.post(`{}`); j.SequenceNumber != 5 {
		t.Errorf("got sequence number %d, want 5", j.SequenceNumber)
	}
	if again := c.register("host-a"); again.ID != a.ID {
		t.Errorf("got node ID %s, want %s", again.ID, a.ID)
	}
}

func TestRestartResetsTimeWithoutHeartbeat(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	synctest.Test(t, func(t *testing.T) {
		first, node, job := newBusyMaster(t, Config{StateFile: file})
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		second := newMaster(t, Config{StateFile: file})
		time.Sleep(DefaultUnavailableAfter - time.Second)
		synctest.Wait()
		if n := mustNode(t, second, node); n.Status != nodeBusy || n.CurrentJobID != job {
			t.Errorf("got node %+v, want it busy with %s", n, job)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := mustNode(t, second, node); n.Status != nodeOffline {
			t.Errorf("got status %s without heartbeats, want offline", n.Status)
		}
	})
}

func TestCrashDuringWriteKeepsOldState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	first := open(t, file)
	job, err := first.Submit(protocol.JobRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".tmp", []byte(`{"version":1,"jobs":[{"jo`), 0o600); err != nil {
		t.Fatal(err)
	}
	second := open(t, file)
	if got := mustJob(t, second, job.ID); got.Status != protocol.StatusQueued {
		t.Errorf("got job %+v, want it queued", got)
	}
	if _, err := second.Submit(protocol.JobRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file + ".tmp"); err == nil {
		t.Error("the temporary file still exists")
	}
}

func TestStateFileIsReplacedAtomically(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	m := open(t, file)
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 25 {
				job, err := m.Submit(protocol.JobRequest{Scenario: strings.Repeat("x", 2000)})
				if err != nil {
					t.Error(err)
					return
				}
				if !strings.Contains(readFile(t, file), job.ID) {
					t.Errorf("job %s is not on disk after Submit", job.ID)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		if !json.Valid([]byte(readFile(t, file))) {
			t.Fatal("read an incomplete state file")
		}
	}
}

func readFile(t *testing.T, path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

func TestDamagedStateIsRejectedAndKept(t *testing.T) {
	job := func(id string, n int) string {
		return fmt.Sprintf(`{"job":{"id":%q,"sequence_number":%d,"status":"queued"}}`, id, n)
	}
	for name, content := range map[string]string{
		"empty":                   "",
		"truncated":               `{"version":1,"jobs":[`,
		"wrong type":              `[1,2]`,
		"wrong version":           `{"version":2}`,
		"no version":              `{}`,
		"null job":                `{"version":1,"jobs":[null]}`,
		"gap in sequence numbers": `{"version":1,"jobs":[` + job("a", 1) + `,` + job("b", 3) + `]}`,
		"duplicate job ID":        `{"version":1,"jobs":[` + job("a", 1) + `,` + job("a", 2) + `]}`,
		"null node":               `{"version":1,"nodes":[null]}`,
		"node without ID":         `{"version":1,"nodes":[{"address":"a"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state.json")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := New(Config{StateFile: file})
			if err == nil {
				_ = m.Close()
				t.Fatal("got no error")
			}
			if !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("got error %v, want the path and damaged in it", err)
			}
			if got := readFile(t, file); got != content {
				t.Errorf("got file content %q, want it unchanged", got)
			}
		})
	}
}

func TestUnwritableState(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"missing directory":                  {StateFile: filepath.Join(dir, "none", "state.json")},
		"state file is a directory":          {StateFile: dir},
		"results directory is a file":        {ResultsDir: blocked},
		"parent of the state file is a file": {StateFile: filepath.Join(blocked, "state.json")},
	} {
		if m, err := New(cfg); err == nil {
			_ = m.Close()
			t.Errorf("%s: got no error", name)
		}
	}
}

// While the disk fails, a result must be neither acknowledged nor rejected as a duplicate.
// Afterwards it must have been accepted exactly once.
func TestResponsesWaitForStorage(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  func(dir string) Config
	}{
		{"state", func(dir string) Config { return Config{StateFile: filepath.Join(dir, "state.json")} }},
		{"results", func(dir string) Config { return Config{ResultsDir: dir} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "disk")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			cfg := tc.cfg(dir)
			cfg.FenceAttempts = true
			m := newMaster(t, cfg)
			c := serve(t, m)
			n := c.register("host-a")
			job := c.post(`{}`)
			c.next(n.ID)
			body := result(job.ID, n.ID, protocol.StatusCompleted, 1)

			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				c.want(http.StatusInternalServerError, "POST", "/results", body, nil)
			}
			c.want(http.StatusOK, "POST", "/nodes/"+n.ID+"/heartbeat", "", nil)
			if err := os.Rename(dir+".away", dir); err != nil {
				t.Fatal(err)
			}
			c.want(http.StatusConflict, "POST", "/results", body, nil)
			if files, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(files) != 1 {
				t.Errorf("got files %v, want one", files)
			}
			if got := len(events(m, ResultAccepted)); got != 1 {
				t.Errorf("got %d accepted results, want 1", got)
			}
		})
	}
}
