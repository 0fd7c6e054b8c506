package actors

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/job"
)

// fullJournal is a journal whose disk is full while full is set.
type fullJournal struct {
	Journal
	full  atomic.Bool
	error atomic.Pointer[string]
}

func (j *fullJournal) try() error {
	if !j.full.Load() {
		j.error.Store(nil)
		return nil
	}
	err := fmt.Errorf("journal: %w", syscall.ENOSPC)
	text := err.Error()
	j.error.Store(&text)
	return err
}

func (j *fullJournal) Accept(lease job.Lease) (job.Record, error) {
	if err := j.try(); err != nil {
		return job.Record{}, err
	}
	return j.Journal.Accept(lease)
}

func (j *fullJournal) Finish(key job.Key, result []byte, release bool) error {
	if err := j.try(); err != nil {
		return err
	}
	return j.Journal.Finish(key, result, release)
}

func (j *fullJournal) SaveSamples(key job.Key, samples job.Samples) error {
	if err := j.try(); err != nil {
		return err
	}
	return j.Journal.SaveSamples(key, samples)
}

func (j *fullJournal) Probe() error {
	if err := j.try(); err != nil {
		return err
	}
	return j.Journal.Probe()
}

func (j *fullJournal) Stats() job.JournalStats {
	stats := j.Journal.Stats()
	if text := j.error.Load(); text != nil {
		stats.Error = *text
	}
	return stats
}

// TestFullJournalLosesNothingAndTakesNoJobs: the disk fills up while a job runs. Its result
// waits in memory and no job is taken, both are visible, and all goes on once there is room.
func TestFullJournalLosesNothingAndTakesNoJobs(t *testing.T) {
	t.Parallel()
	var journal *fullJournal
	s := newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Parts) {
			journal = &fullJournal{Journal: p.Journal}
			p.Journal = journal
		}
	})
	submitted := s.submit(map[string]any{"resolution": "320x240", "preset": "ultrafast", "duration": 2})
	s.ffmpegPID(submitted.ID)
	journal.full.Store(true)
	s.until("the journal to be tried", func() bool { return journal.error.Load() != nil })
	s.until("the check to fail", func() bool {
		return strings.Contains(s.agent.Board().Gates()[gateJournal], "no space left")
	})
	waiting := s.submit(map[string]any{"resolution": "160x120", "preset": "ultrafast", "duration": 1})
	if _, _, sent := s.master().Result(submitted.ID); sent {
		t.Error("a result was sent before it was on disk")
	}
	if status := s.agent.Status(); status.Journal.Error == "" {
		t.Error("the status says nothing of it")
	}
	if held, ok := s.master().Job(waiting.ID); !ok || held.Status.HeldByNode() {
		t.Errorf("the second job is %s", held.Status)
	}
	journal.full.Store(false)
	s.result(submitted.ID, 1)
	s.result(waiting.ID, 1)
	if gates := s.agent.Board().Gates(); gates[gateJournal] != "" {
		t.Errorf("gates %v", gates)
	}
}

// finishHook calls before when a result is to be written.
type finishHook struct {
	Journal
	before func()
}

func (j finishHook) Finish(key job.Key, result []byte, release bool) error {
	j.before()
	return j.Journal.Finish(key, result, release)
}

// TestJobFreesSpaceBeforeItsResultIsWritten: neither the workspace nor an open descriptor of
// a deleted file takes the space that the result may need.
func TestJobFreesSpaceBeforeItsResultIsWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var left []string
	s := newSite(t, func(c *siteConfig) {
		c.dir = dir
		c.wrap = func(p *Parts) {
			p.Journal = finishHook{p.Journal, func() {
				entries, _ := filepath.Glob(filepath.Join(dir, "work", "*"))
				descriptors, _ := filepath.Glob("/proc/self/fd/*")
				for _, fd := range descriptors {
					if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, dir+"/work") {
						entries = append(entries, to)
					}
				}
				left = entries
			}}
		}
	})
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
	if len(left) > 0 {
		t.Errorf("left when the result was written: %q, want nothing", left)
	}
}
