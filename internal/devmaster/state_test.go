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

// reopen is a master over a file that another may have left, closed or not.
func reopen(t *testing.T, file string) *Master {
	t.Helper()
	return newMaster(t, Config{StateFile: file, FenceAttempts: true})
}

func TestStateSurvivesARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	first := reopen(t, file)
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

	// No Close: as after a kill. What is on disk is what was answered.
	second := reopen(t, file)
	if diff := cmp.Diff(first.Jobs(), second.Jobs()); diff != "" {
		t.Errorf("jobs (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(first.Nodes(), second.Nodes(), cmpopts.IgnoreFields(protocol.Node{}, "LastHeartbeat")); diff != "" {
		t.Errorf("nodes (-before +after):\n%s", diff)
	}
	c = serve(t, second)
	if _, got := c.do("GET", "/jobs/1/result", ""); got != body {
		t.Errorf("result: %q, want %q", got, body)
	}
	c.want(http.StatusConflict, "POST", "/results", body, nil)
	c.want(http.StatusOK, "POST", "/results", result(running.ID, b.ID, protocol.StatusCompleted, 1), nil)
	c.want(http.StatusOK, "POST", "/results", result(canceled.ID, b.ID, protocol.StatusCanceled, 1), nil)
	if j := c.next(a.ID); j == nil || j.ID != waiting.ID {
		t.Errorf("next: %+v", j)
	}
	if j := c.post(`{}`); j.SequenceNumber != 5 {
		t.Errorf("sequence number %d, want 5", j.SequenceNumber)
	}
	if again := c.register("host-a"); again.ID != a.ID {
		t.Error("the node got a new id")
	}
}

func TestNodesGetTheirTimeAfterARestartOfTheMaster(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	synctest.Test(t, func(t *testing.T) {
		first, node, job := mute(t, Config{StateFile: file})
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		second := newMaster(t, Config{StateFile: file})
		time.Sleep(DefaultUnavailableAfter - time.Second)
		synctest.Wait()
		if n := mustNode(t, second, node); n.Status != nodeBusy || n.CurrentJobID != job {
			t.Errorf("node: %+v", n)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := mustNode(t, second, node); n.Status != nodeOffline {
			t.Errorf("the node stayed silent and is %s", n.Status)
		}
	})
}

func TestDeathBetweenTwoWritesLeavesTheOlderStateWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	first := reopen(t, file)
	job, err := first.Submit(protocol.JobRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".tmp", []byte(`{"version":1,"jobs":[{"jo`), 0o600); err != nil {
		t.Fatal(err)
	}
	second := reopen(t, file)
	if got := mustJob(t, second, job.ID); got.Status != protocol.StatusQueued {
		t.Errorf("job: %+v", got)
	}
	if _, err := second.Submit(protocol.JobRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file + ".tmp"); err == nil {
		t.Error("the half-written file is still there")
	}
}

func TestTheStateFileIsWholeAtEveryMoment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	m := reopen(t, file)
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
					t.Errorf("job %s was answered for and is not on disk", job.ID)
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
			t.Fatal("read half a state")
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

func TestDamagedStateIsRefusedAndLeftAlone(t *testing.T) {
	job := func(id string, n int) string {
		return fmt.Sprintf(`{"job":{"id":%q,"sequence_number":%d,"status":"queued"}}`, id, n)
	}
	for name, content := range map[string]string{
		"empty":             "",
		"cut":               `{"version":1,"jobs":[`,
		"something else":    `[1,2]`,
		"another version":   `{"version":2}`,
		"no version":        `{}`,
		"a null job":        `{"version":1,"jobs":[null]}`,
		"a gap":             `{"version":1,"jobs":[` + job("a", 1) + `,` + job("b", 3) + `]}`,
		"an id twice":       `{"version":1,"jobs":[` + job("a", 1) + `,` + job("a", 2) + `]}`,
		"a null node":       `{"version":1,"nodes":[null]}`,
		"a node without id": `{"version":1,"nodes":[{"address":"a"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state.json")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := New(Config{StateFile: file})
			if err == nil {
				_ = m.Close()
				t.Fatal("it was taken")
			}
			if !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("the error does not help: %v", err)
			}
			if got := readFile(t, file); got != content {
				t.Errorf("the file is now %q", got)
			}
		})
	}
}

func TestStateThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"a folder that is not there":     {StateFile: filepath.Join(dir, "none", "state.json")},
		"a folder as state file":         {StateFile: dir},
		"a file as folder of results":    {ResultsDir: blocked},
		"a file as folder of that state": {StateFile: filepath.Join(blocked, "state.json")},
	} {
		if m, err := New(cfg); err == nil {
			_ = m.Close()
			t.Errorf("%s was taken", name)
		}
	}
}

// TestNoAnswerRestsOnWhatIsNotOnDisk takes the disk away for a while: a result
// is then neither acknowledged nor refused as a repeat, and once the disk is
// back it is found taken, once.
func TestNoAnswerRestsOnWhatIsNotOnDisk(t *testing.T) {
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
				t.Errorf("on disk: %v", files)
			}
			if accepted := events(m, ResultAccepted); len(accepted) != 1 {
				t.Errorf("accepted %d times", len(accepted))
			}
		})
	}
}
