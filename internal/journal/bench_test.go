package journal

import (
	"fmt"
	"testing"

	"ffmpeg-agent/messages/job"
)

// BenchmarkJob takes one attempt through the journal, each step on disk: what a job waits
// for.
func BenchmarkJob(b *testing.B) {
	j := open(b, Settings{})
	for i := 0; b.Loop(); i++ {
		completeJob(b, j, i, 20_000)
	}
}

// BenchmarkAccept is between the master's acceptance of a result and the start of the next
// FFmpeg.
func BenchmarkAccept(b *testing.B) {
	j := open(b, Settings{})
	for i := 0; b.Loop(); i++ {
		_, err := j.Accept(lease(fmt.Sprint("job-", i), 1))
		ok(b, err)
	}
}

func BenchmarkRecord(b *testing.B) {
	j := open(b, Settings{})
	key := advance(b, j, "job", job.RecordResult)
	for b.Loop() {
		record(b, j, key)
	}
}

// BenchmarkOpen includes the inspector's process.
func BenchmarkOpen(b *testing.B) {
	for name, jobs := range map[string]int{"empty": 0, "50MB": 1200} {
		b.Run(name, func(b *testing.B) {
			j := open(b, Settings{noSync: true, KeepSettled: jobs})
			advance(b, j, "first", job.RecordSent)
			for i := range jobs {
				completeJob(b, j, i, 30_000)
			}
			used, err := j.db.used()
			ok(b, err)
			for b.Loop() {
				j = reopen(b, j)
			}
			b.ReportMetric(float64(used)/1e6, "MB")
		})
	}
}

func completeJob(b *testing.B, j *Journal, i, resultSize int) {
	b.Helper()
	key := keyOf(fmt.Sprint("job-", i))
	_, err := j.Accept(lease(key.JobID, 1))
	ok(b, err)
	ok(b, j.Running(key, job.Process{PID: i}))
	ok(b, j.Finish(key, resultOf(resultSize), false))
	ok(b, j.Settle(key, job.RecordSent, ""))
}
