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

	"ffmpeg-agent/messages/job"

	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/messages/protocol"
)

func TestMain(m *testing.M) {
	if os.Getenv("GUEST_WRITES_TO") != "" {
		write(os.Getenv("GUEST_WRITES_TO"))
		return
	}
	os.Exit(m.Run())
}

// silence is how long a guest may say nothing.
const silence = 3 * time.Minute

func TestLimitsHoldWhereTheControllersAre(t *testing.T) {
	img := newImage(t, "limits.sh")
	img.addProgram("ffmpeg")
	img.addProgram("ffprobe")
	img.addTests("/proc.test", "ffmpeg-agent/hardware/proc")
	img.addTests("/ffmpeg.test", "ffmpeg-agent/internal/ffmpeg")
	on := accelerator(t)
	begun := time.Now()
	m := boot(t, on, img.done(), newDisk(t), "3G")
	passed, ended := 0, ""
	for ended == "" {
		line, ok := m.next(silence)
		if !ok {
			t.Fatal("the guest went off or silent")
		}
		t.Log(line)
		switch {
		case strings.Contains(line, "--- PASS: "):
			passed++
		case strings.Contains(line, "--- SKIP: "), strings.Contains(line, "--- FAIL: "):
			t.Error(line)
		case strings.HasPrefix(line, "guest: ended with "):
			ended = strings.TrimPrefix(line, "guest: ended with ")
		}
	}
	t.Logf("%d tests in %s on %s", passed, time.Since(begun).Round(time.Second), on)
	if ended != "0" || passed < 18 {
		t.Errorf("ended with %s after %d good tests", ended, passed)
	}
}

// rank orders the states that an attempt goes through.
var rank = map[job.RecordState]int{job.RecordAccepted: 1, job.RecordRunning: 2, job.RecordResult: 3, job.RecordSent: 4}

// TestNothingAcknowledgedIsLostWithThePower cuts a guest's power at random moments while it
// writes a journal, boots it again and compares. The guest's memory is lost, the disk
// keeps what reached it: a drive that loses its own cache is not shown. Beside the journal
// goes a file that is written without waiting for the disk; if nothing of that were lost,
// the test would show nothing.
func TestNothingAcknowledgedIsLostWithThePower(t *testing.T) {
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
	at, disk, on := img.done(), newDisk(t), accelerator(t)
	said := map[string]job.RecordState{}
	unsynced, lost := 0, 0
	for round := range rounds + 1 {
		m := boot(t, on, at, disk, "512M")
		held, bare := m.recall(t)
		for id, state := range said {
			if rank[held[id]] < rank[state] {
				t.Errorf("round %d: %s was acknowledged as %s and is %q", round, id, state, held[id])
			}
		}
		if unsynced > bare {
			lost += unsynced - bare
		}
		if round == rounds {
			break
		}
		unsynced = m.listen(t, said, random.IntN(60), time.Duration(random.IntN(50))*time.Millisecond)
		m.off()
	}
	t.Logf("seed %d, on %s: power lost %d times, %d jobs, none of what was acknowledged was lost; of the unsynced file %d lines were", seed, on, rounds, len(said), lost)
	if lost == 0 {
		t.Error("not even the unsynced file has lost anything: this test shows nothing")
	}
}

// recall reads what the guest finds on its disk after it came up.
func (m *machine) recall(t *testing.T) (held map[string]job.RecordState, bare int) {
	t.Helper()
	held = map[string]job.RecordState{}
	for {
		line, ok := m.next(silence)
		if !ok {
			t.Fatal("the guest went off or silent")
		}
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case "held":
			id, state, _ := strings.Cut(rest, " ")
			held[id] = job.RecordState(state)
		case "bare":
			bare, _ = strconv.Atoi(rest)
		case "ready":
			return held, bare
		default:
			t.Log(line)
			if strings.Contains(line, "damaged") || strings.HasPrefix(line, "guest: ended") || strings.HasPrefix(line, "panic") {
				t.Fatal("the journal did not come up whole")
			}
		}
	}
}

// listen takes in at least so many acknowledgements, and then what comes for a while.
// It returns how long the unsynced file was at the last one.
func (m *machine) listen(t *testing.T, said map[string]job.RecordState, count int, more time.Duration) (unsynced int) {
	t.Helper()
	patience := silence
	var end time.Time
	for {
		if count == 0 {
			end = time.Now().Add(more)
		}
		if count <= 0 {
			patience = time.Until(end)
		}
		line, ok := m.next(patience)
		if !ok && count <= 0 {
			return unsynced
		}
		if !ok {
			t.Fatal("the guest went off or silent")
		}
		if f := strings.Fields(line); len(f) == 4 && f[0] == "said" {
			said[f[1]] = job.RecordState(f[2])
			unsynced, _ = strconv.Atoi(f[3])
			count--
		}
	}
}

// write is the guest's part: it tells what is there and writes on for ever.
func write(dir string) {
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
			fmt.Println("held", r.Lease.Job.ID, r.State)
		}
	}
	bare, err := os.OpenFile(filepath.Join(dir, "bare"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	must(err)
	lines := 0
	for s := bufio.NewScanner(bare); s.Scan(); {
		lines++
	}
	fmt.Println("bare", lines)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	must(err)
	fmt.Println("ready")
	for n := 0; ; n++ {
		id := fmt.Sprintf("%.8s-%d", boot, n)
		say := func(state job.RecordState, err error) {
			must(err)
			_, err = fmt.Fprintln(bare, id)
			must(err)
			lines++
			fmt.Println("said", id, state, lines)
		}
		lease := job.Lease{Job: protocol.Job{ID: id}, NodeID: "node"}
		key := lease.Key()
		_, err := j.Accept(lease)
		say(job.RecordAccepted, err)
		say(job.RecordRunning, j.Running(key, job.Process{PID: 7}))
		result, err := json.Marshal(protocol.JobResult{JobID: id, Logs: strings.Repeat("log ", n%5000)})
		must(err)
		say(job.RecordResult, j.Finish(key, result, false))
		if n%2 == 0 {
			say(job.RecordSent, j.Settle(key, job.RecordSent, ""))
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
