package main

import (
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

// The master is down when a result is due, and the agent is killed before it can deliver it.
func TestResultSurvivesAgentAndMaster(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	agent := bed.startAgent()
	job := bed.submit(ffmpegtest.Quick())
	bed.await("the assignment", func(e devmaster.Event) bool { return e.Kind == devmaster.JobAssigned })
	bed.stopMaster()
	waitFor(t, "failed delivery", func() bool { return strings.Contains(agent.log(), "could not deliver a result") })
	agent.kill()

	bed.startMaster(devmaster.Config{MaxRetries: 3, FenceAttempts: true})
	bed.startAgent()
	if e := bed.awaitResult(job.ID, protocol.StatusCompleted); e.Attempt != 1 {
		t.Errorf("got the result of attempt %d, want 1", e.Attempt)
	}
	bed.awaitResult(bed.submit(ffmpegtest.Quick()).ID, protocol.StatusCompleted)
	for _, e := range bed.master.Events() {
		if e.JobID == job.ID && e.Kind == devmaster.ResultRejected {
			t.Errorf("the result was delivered twice: %+v", e)
		}
	}
}

func TestFFmpegDiesWithKilledAgent(t *testing.T) {
	bed := newTestbed(t)
	agent := bed.startAgent()
	job := bed.submit(ffmpegtest.Long())
	bed.awaitFFmpeg()
	agent.kill()
	waitFor(t, "end of FFmpeg", func() bool { return len(bed.ffmpegs()) == 0 })
	bed.startAgent()
	if e := bed.awaitResult(job.ID, protocol.StatusFailed); e.Attempt != 1 {
		t.Errorf("got the result of attempt %d, want 1", e.Attempt)
	}
	if r, _, _ := bed.master.Result(job.ID); r.FailureReason != protocol.ReasonPlatformError {
		t.Errorf("got failure reason %s (%s), want %s", r.FailureReason, r.Error, protocol.ReasonPlatformError)
	}
}

// With a poll interval of an hour, only a poll that does not wait for it brings the retries.
func TestRetriesAfterCrashDoNotWaitForPoll(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	flags := append(bed.flags(), "--poll-interval", "1h", "--max-concurrent-jobs", "2")
	agent := startAgent(t, bed.environment(), flags...)
	bed.awaitRegistration()
	agent.kill() // its first poll found nothing
	jobs := []string{bed.submit(ffmpegtest.Long()).ID, bed.submit(ffmpegtest.Long()).ID}
	agent = startAgent(t, bed.environment(), flags...)
	bed.awaitFFmpegs(2)
	agent.kill()
	agent = newProcess(t, bed.environment(), flags...)
	// The results arrive after the master has been asked which jobs it holds as ours.
	next := *bed.handler.Load()
	bed.handler.Store(of(http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/results" {
			for range time.Tick(5 * time.Millisecond) {
				if strings.Count(agent.log(), "ended here") == len(jobs) || r.Context().Err() != nil {
					break
				}
			}
		}
		next.ServeHTTP(w, r)
	}))))
	agent.start(t)
	for _, job := range jobs {
		bed.await("the second attempt", func(e devmaster.Event) bool {
			return e.Kind == devmaster.JobAssigned && e.JobID == job && e.Attempt == 2
		})
	}
}

// A master that does not fence reassigns the job of an agent that is stopped. When the agent
// continues, it stops FFmpeg and delivers nothing of the lost attempt.
func TestFrozenAgentDropsReassignedJob(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	bed.stopMaster()
	bed.startMaster(devmaster.Config{UnavailableAfter: 3 * time.Second, Habits: devmaster.FieldHabits()})
	agent := startAgent(t, append(bed.environment(), "FFMPEG_AGENT_MASTER_UNAVAILABLE_AFTER=3s"), bed.flags()...)
	job := bed.submit(ffmpegtest.Long())
	pid := bed.awaitFFmpeg()
	agent.signal(t, syscall.SIGSTOP)
	bed.await("the reassignment", func(e devmaster.Event) bool { return e.Kind == devmaster.JobReassigned && e.JobID == job.ID })
	agent.signal(t, syscall.SIGCONT)
	waitFor(t, "end of the lost attempt's FFmpeg", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	bed.await("the next attempt", func(e devmaster.Event) bool {
		return e.Kind == devmaster.JobAssigned && e.JobID == job.ID && e.Attempt == 2
	})
	for _, e := range bed.master.Events() {
		if e.JobID == job.ID && e.Kind == devmaster.ResultAccepted {
			t.Errorf("the master accepted a result: %+v", e)
		}
	}
}

func TestSecondAgentOnDataDirIsRefused(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	first := bed.startAgent()
	bed.awaitRegistration()
	second := bed.startAgent()
	second.wantExit(t, exitFailed)
	if pid := strconv.Itoa(first.Process.Pid); !strings.Contains(second.log(), pid) {
		t.Errorf("got output %q, want the first agent's pid %s in it", second.log(), pid)
	}
}
