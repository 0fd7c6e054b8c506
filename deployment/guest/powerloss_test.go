//go:build guest

package guest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func TestMain(m *testing.M) {
	if os.Getenv("GUEST_JOURNAL_DIR") != "" {
		writeJournal(os.Getenv("GUEST_JOURNAL_DIR"))
		return
	}
	os.Exit(m.Run())
}

// rank orders the states of an attempt.
var rank = map[job.RecordState]int{job.RecordAccepted: 1, job.RecordRunning: 2, job.RecordResult: 3, job.RecordSent: 4}

// TestPowerLossLosesNothingAcknowledged cuts a guest's power at random moments while it
// writes a journal, boots it again and compares. The guest's memory is lost; the disk keeps
// all that was written to it, so the loss of a drive's own cache is not tested. The guest also
// writes a file without syncing it. If nothing of that is lost, the test proves nothing.
func TestPowerLossLosesNothingAcknowledged(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("GUEST_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	rounds := 10
	if n, err := strconv.Atoi(os.Getenv("GUEST_ROUNDS")); err == nil {
		rounds = n
	}
	random := rand.New(rand.NewPCG(seed, 0))
	img := newImage(t, "power.sh")
	img.addTests("/guest.test", "ffmpeg-agent/deployment/guest")
	root, disk, accel := img.done(), newDisk(t), accelerator(t)
	acked := map[string]job.RecordState{}
	unsynced, lost := 0, 0
	for round := range rounds + 1 {
		m := boot(t, accel, root, disk, "512M")
		found, kept := m.readRecords(t)
		for id, state := range acked {
			if rank[found[id]] < rank[state] {
				t.Errorf("round %d: %s: got state %q, want at least %s, which was acknowledged", round, id, found[id], state)
			}
		}
		lost += max(0, unsynced-kept)
		if round == rounds {
			break
		}
		unsynced = m.readAcks(t, acked, random.IntN(60), time.Duration(random.IntN(50))*time.Millisecond)
		m.powerOff()
	}
	t.Logf("seed %d, on %s: %d power losses, %d jobs, %d lines of the unsynced file lost", seed, accel, rounds, len(acked), lost)
	if lost == 0 {
		t.Error("the unsynced file lost nothing: the test proves nothing")
	}
}

// readRecords reads what the guest finds on its disk after a boot: the states in the journal
// and the number of lines in the unsynced file.
func (m *machine) readRecords(t *testing.T) (found map[string]job.RecordState, unsynced int) {
	t.Helper()
	found = map[string]job.RecordState{}
	for {
		line, ok := m.next(outputTimeout)
		if !ok {
			t.Fatal("the guest exited or printed nothing for too long")
		}
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case "record":
			id, state, _ := strings.Cut(rest, " ")
			found[id] = job.RecordState(state)
		case "unsynced":
			unsynced, _ = strconv.Atoi(rest)
		case "ready":
			return found, unsynced
		default:
			t.Log(line)
			if strings.Contains(line, "damaged") || strings.HasPrefix(line, "guest: ended") || strings.HasPrefix(line, "panic") {
				t.Fatal("the journal was damaged or did not open")
			}
		}
	}
}

// readAcks reads a number of acknowledgements, and those that follow within a time. It returns
// the number of lines in the unsynced file at the last one.
func (m *machine) readAcks(t *testing.T, acked map[string]job.RecordState, count int, more time.Duration) (unsynced int) {
	t.Helper()
	timeout := outputTimeout
	var end time.Time
	for {
		if count == 0 {
			end = time.Now().Add(more)
		}
		if count <= 0 {
			timeout = time.Until(end)
		}
		line, ok := m.next(timeout)
		if !ok && count <= 0 {
			return unsynced
		}
		if !ok {
			t.Fatal("the guest exited or printed nothing for too long")
		}
		if f := strings.Fields(line); len(f) == 4 && f[0] == "acked" {
			acked[f[1]] = job.RecordState(f[2])
			unsynced, _ = strconv.Atoi(f[3])
			count--
		}
	}
}

// writeJournal runs in the guest: it prints what the journal holds and then writes to it
// until the power is cut.
func writeJournal(dir string) {
	j, err := journal.Open(journal.Settings{Path: filepath.Join(dir, "journal.db"), KeepSettled: 1 << 20})
	must(err)
	files, err := filepath.Glob(filepath.Join(dir, "journal.db?*"))
	must(err)
	if len(files) > 0 {
		fmt.Println("damaged:", files)
	}
	for _, list := range []func() ([]job.Record, error){j.Unfinished, j.Unsent, func() ([]job.Record, error) { return j.Settled(1 << 20) }} {
		records, err := list()
		must(err)
		for _, r := range records {
			fmt.Println("record", r.Lease.Job.ID, r.State)
		}
	}
	file, err := os.OpenFile(filepath.Join(dir, "unsynced"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	must(err)
	lines := 0
	for s := bufio.NewScanner(file); s.Scan(); {
		lines++
	}
	fmt.Println("unsynced", lines)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	must(err)
	fmt.Println("ready")
	for n := 0; ; n++ {
		id := fmt.Sprintf("%.8s-%d", boot, n)
		ack := func(state job.RecordState, err error) {
			must(err)
			_, err = fmt.Fprintln(file, id)
			must(err)
			lines++
			fmt.Println("acked", id, state, lines)
		}
		lease := job.Lease{Job: protocol.Job{ID: id}, NodeID: "node"}
		key := lease.Key()
		_, err := j.Accept(lease)
		ack(job.RecordAccepted, err)
		ack(job.RecordRunning, j.Running(key, job.Process{PID: 7}))
		result, err := json.Marshal(protocol.JobResult{JobID: id, Logs: strings.Repeat("log ", n%5000)})
		must(err)
		ack(job.RecordResult, j.Finish(key, result, false))
		if n%2 == 0 {
			ack(job.RecordSent, j.Settle(key, job.RecordSent, ""))
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
