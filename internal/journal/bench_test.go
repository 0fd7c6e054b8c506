package journal

import (
	"fmt"
	"testing"

	"ffmpeg-agent/messages/job"
)

// One job's way through the journal, each step on disk: what a job waits for.
func BenchmarkJob(b *testing.B) {
	j := open(b, Settings{})
	result := resultOf(20_000)
	i := 0
	for b.Loop() {
		i++
		key := job.Key{JobID: fmt.Sprint("job-", i), Attempt: 1}
		_, err := j.Accept(lease(key.JobID, 1))
		ok(b, err)
		ok(b, j.Running(key, job.Process{PID: i}))
		ok(b, j.Finish(key, result, false))
		ok(b, j.Settle(key, job.RecordSent, ""))
	}
}

// Accept lies between the master's acceptance of a result and the next FFmpeg's start.
func BenchmarkAccept(b *testing.B) {
	j := open(b, Settings{})
	i := 0
	for b.Loop() {
		i++
		_, err := j.Accept(lease(fmt.Sprint("job-", i), 1))
		ok(b, err)
	}
}

func BenchmarkRecord(b *testing.B) {
	j := open(b, Settings{})
	key := bring(b, j, "job", job.RecordResult)
	for b.Loop() {
		record(b, j, key)
	}
}

func BenchmarkOpen(b *testing.B) {
	j := open(b, Settings{noSync: true})
	for i := range 1000 {
		key := job.Key{JobID: fmt.Sprint("job-", i), Attempt: 1}
		_, err := j.Accept(lease(key.JobID, 1))
		ok(b, err)
		ok(b, j.Finish(key, resultOf(20_000), false))
		ok(b, j.Settle(key, job.RecordSent, ""))
	}
	for b.Loop() {
		ok(b, j.Close())
		again, err := Open(j.settings)
		ok(b, err)
		j = again
	}
	ok(b, j.Close())
}
