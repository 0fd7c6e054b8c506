//go:build linux && cgo

package hardware

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

func TestNVMLRecoversFromLibraryFaults(t *testing.T) {
	for name, test := range map[string]struct {
		breakIt func(*fakehw.NVMLScenario)
		want    string // in the fault
	}{
		"segmentation fault": {func(s *fakehw.NVMLScenario) { s.Crash = "nvmlDeviceGetTotalEnergyConsumption" }, "SIGSEGV"},
		"hanging call":       {func(s *fakehw.NVMLScenario) { s.Hang = "nvmlDeviceGetPowerUsage" }, "no response from the NVML process within 300ms"},
		"driver unloaded": {func(s *fakehw.NVMLScenario) {
			s.Fail = map[string]int{"nvmlInit_v2": fakehw.NVMLDriverNotLoaded, "nvmlDeviceGetTotalEnergyConsumption": fakehw.NVMLDriverNotLoaded}
		}, "Driver Not Loaded"},
		"no cards left": {func(s *fakehw.NVMLScenario) { s.Cards = nil }, "GPU is lost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNVML(t, twoCards())
			n := openNVML(t, fake, func(c *NVMLConfig) { c.Timeout = 300 * time.Millisecond })
			n.reader.config.StartTimeout = time.Second // of the children after the first
			m := totals{}
			readings, _ := readUntil(t, n, "reading", noFault)
			m.add(readings)
			zones := n.Zones()

			change(t, fake, test.breakIt)
			_, faults := readUntil(t, n, "fault", anyFault)
			if len(faults) != 2 || faults[0].Zone != zones[0] || !strings.Contains(faults[0].Err, test.want) {
				t.Fatalf("got faults %+v, want one of each zone with %q", faults, test.want)
			}
			if card := n.Cards()[0]; !strings.Contains(card.Fault, test.want) || card.Power != nil || card.UUID != zones[0].ID || card.TemperatureCelsius != nil {
				t.Errorf("got card %+v, want its identity and the fault", card)
			}
			readUntil(t, n, "fault of a new child", anyFault)

			healthy := twoCards()
			change(t, fake, func(s *fakehw.NVMLScenario) { *s = healthy })
			readings, _ = readUntil(t, n, "recovery", noFault)
			m.add(readings)
			if !slices.Equal(n.Zones(), zones) {
				t.Errorf("got zones %v, want %v", n.Zones(), zones)
			}
			m.expectEnergy(t, fake) // the counter went on
		})
	}
}

func TestNVMLReadsTheOtherCardsWhileOneIsLost(t *testing.T) {
	t.Parallel()
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	m := totals{}
	m.add(readAll(t, n))
	zones := n.Zones()
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Cards[1].Fail = map[string]int{"*": fakehw.NVMLGPUIsLost} })
	for range 20 { // across restarts of the child, which finds one card only
		readUntil(t, n, "reading beside a fault", func(readings []energy.Reading, faults []energy.Fault) bool {
			m.add(readings)
			return len(readings) == 1 && readings[0].Zone == zones[0] && len(faults) == 1 && faults[0].Zone == zones[1]
		})
	}
	first := n.reader.child.ID().PID
	readUntil(t, n, "new child", func(readings []energy.Reading, _ []energy.Fault) bool {
		m.add(readings)
		return n.reader.child.ID().PID != first && len(readings) == 1
	})
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Cards[1].Fail = nil })
	readings, _ := readUntil(t, n, "recovery", func(readings []energy.Reading, faults []energy.Fault) bool {
		m.add(readings)
		return noFault(readings, faults)
	})
	if len(readings) != 2 || !slices.Equal(n.Zones(), zones) {
		t.Errorf("got readings %+v of zones %v, want both of %v", readings, n.Zones(), zones)
	}
	m.expectEnergy(t, fake)
}

// After the reload the cards are in another order, with one more, and their counters at 0.
func TestNVMLDriverReload(t *testing.T) {
	t.Parallel()
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	m := totals{}
	m.add(readAll(t, n))
	zones := n.Zones()
	change(t, fake, func(s *fakehw.NVMLScenario) {
		third := fakehw.NVMLCards(0, 0, 30)[2]
		s.Cards = []fakehw.NVMLCard{third, s.Cards[1], s.Cards[0]}
	})
	must(t, fake.Reload())
	readUntil(t, n, "fault", anyFault)
	readUntil(t, n, "recovery", func(readings []energy.Reading, faults []energy.Fault) bool {
		m.add(readings)
		return len(readings) == 3 && len(faults) == 0
	})
	m.add(readAll(t, n))
	after := n.Zones()
	if len(after) != 3 || !slices.Equal(after[:2], zones) {
		t.Fatalf("got zones %v, want %v and one more", after, zones)
	}
	if after[0].Name != "gpu0" || after[1].Name != "gpu1" || after[2].Name != "gpu2" {
		t.Errorf("got names %s, %s, %s; want gpu0, gpu1, gpu2", after[0].Name, after[1].Name, after[2].Name)
	}
	if cards := n.Cards(); cards[0].UUID != after[2].ID || cards[2].UUID != after[0].ID {
		t.Errorf("got cards %+v, want them in the order of their indices", cards)
	}
	begin := map[string]energy.Reading{}
	for uuid, z := range m {
		begin[uuid] = z.last
		want := 1
		if uuid == after[2].ID {
			want = 0
		}
		if z.Gaps() != want {
			t.Errorf("%s: got %d gaps, want %d", z.last.Zone.Name, z.Gaps(), want)
		}
	}
	m.sample(t, n, 50*time.Millisecond, 500*time.Millisecond)
	for uuid, z := range m {
		got := (z.last.Counter - begin[uuid].Counter).Joules()
		expectNear(t, "energy since the reload", float64(got), trueEnergy(t, fake, uuid, begin[uuid].At, z.last.At), 2*fakeUpdate.Seconds()*200)
	}
}

func TestNVMLKillsAChildThatDoesNotExit(t *testing.T) {
	t.Parallel()
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	readAll(t, n)
	signalChild(t, n, syscall.SIGSTOP)
	n.reader.reinits.at = time.Now()
	n.reader.reinitialize(true)
	if _, faults := n.Read(); len(faults) != 2 || !strings.Contains(faults[0].Err, "does not exit") {
		t.Errorf("got faults %+v, want one of each zone", faults)
	}
	readUntil(t, n, "recovery", noFault)
}

func TestOpenNVMLErrors(t *testing.T) {
	t.Cleanup(func() { expectNoChildren(t) })
	failing := func(call string, code int) fakehw.NVMLScenario {
		return fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70), Fail: map[string]int{call: code}}
	}
	fakeOf := func(s fakehw.NVMLScenario, without ...string) func(*testing.T) string {
		return func(t *testing.T) string { return newFakeNVML(t, s, without...).Library }
	}
	for name, test := range map[string]struct {
		library func(*testing.T) string
		missing bool // the error is ErrNoNVML
		want    string
	}{
		"no library":        {func(t *testing.T) string { return filepath.Join(t.TempDir(), "libnvidia-ml.so") }, true, "No such file"},
		"driver not loaded": {fakeOf(failing("nvmlInit_v2", fakehw.NVMLDriverNotLoaded)), true, "Driver Not Loaded"},
		"no card":           {fakeOf(fakehw.NVMLScenario{}), true, "the NVIDIA driver lists no card"},
		"not a library": {func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "libnvidia-ml.so")
			must(t, os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755))
			return path
		}, false, "file too short"},
		"no permission":       {fakeOf(failing("nvmlInit_v2", fakehw.NVMLNoPermission)), false, "NVML error 4"},
		"cannot count":        {fakeOf(failing("nvmlDeviceGetCount_v2", fakehw.NVMLUnknownError)), false, "counting cards"},
		"only card lost":      {fakeOf(failing("nvmlDeviceGetHandleByIndex_v2", fakehw.NVMLGPUIsLost)), false, "opening card 0: GPU is lost"},
		"crash at the start":  {fakeOf(fakehw.NVMLScenario{Crash: "nvmlInit_v2"}), false, "SIGSEGV"},
		"crash at first read": {fakeOf(fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70), Crash: "nvmlDeviceGetMemoryInfo"}), false, "SIGSEGV"},
		"ancient library":     {fakeOf(fakehw.NVMLScenario{}, "nvmlInit_v2"), false, "lacks nvmlInit_v2"},
		"hang at the start":   {fakeOf(fakehw.NVMLScenario{Hang: "nvmlInit_v2"}), false, "NVML did not start within 500ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := nvmlConfig(test.library(t))
			if strings.HasPrefix(name, "hang") {
				config.StartTimeout = 500 * time.Millisecond
			}
			n, err := OpenNVML(config)
			if err == nil {
				n.Close()
				t.Fatal("got no error")
			}
			if errors.Is(err, ErrNoNVML) != test.missing || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %q (ErrNoNVML: %v), want %q (%v)", err, errors.Is(err, ErrNoNVML), test.want, test.missing)
			}
		})
	}
	if _, err := OpenNVML(NVMLConfig{Command: []string{filepath.Join(t.TempDir(), "agent")}}); err == nil || errors.Is(err, ErrNoNVML) {
		t.Errorf("missing program: got error %v, want one other than ErrNoNVML", err)
	}
}

func TestNVMLReadDoesNotWaitForASlowStart(t *testing.T) {
	t.Parallel()
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake, func(c *NVMLConfig) { c.Timeout = 200 * time.Millisecond })
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Hang = "nvmlInit_v2" })
	first := n.reader.child.ID().PID
	signalChild(t, n, syscall.SIGKILL)
	readUntil(t, n, "fault of a starting child", func(_ []energy.Reading, faults []energy.Fault) bool {
		return len(faults) == 2 && strings.Contains(faults[0].Err, "NVML has been starting for")
	})
	second := n.reader.child.ID().PID
	_, faults := n.Read()
	if third := n.reader.child.ID().PID; second == first || third != second || len(faults) != 2 {
		t.Errorf("got children %d, %d, %d and faults %+v; want the second child kept", first, second, third, faults)
	}
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Hang = "" })
	signalChild(t, n, syscall.SIGKILL) // the call in the second child hangs for good
	readUntil(t, n, "recovery", noFault)
}

func TestNVMLReplacesABrokenChild(t *testing.T) {
	write := func(text string) func(*testing.T, *NVML) {
		return func(t *testing.T, n *NVML) {
			out, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", n.reader.child.ID().PID), os.O_WRONLY, 0)
			must(t, err)
			defer out.Close()
			_ = out.SetWriteDeadline(time.Now().Add(deadline))
			if _, err := out.WriteString(text); err != nil && !errors.Is(err, syscall.EPIPE) {
				t.Fatal(err)
			}
		}
	}
	for name, breakIt := range map[string]func(*testing.T, *NVML){
		"killed":                          func(t *testing.T, n *NVML) { signalChild(t, n, syscall.SIGKILL) },
		"stopped":                         func(t *testing.T, n *NVML) { signalChild(t, n, syscall.SIGSTOP) },
		"garbage":                         write("\x00\xff nvidia\n"),
		"part of a line":                  write(`{"id":`),
		"response to another request":     write(`{"id":1,"cards":[]}` + "\n"),
		"endless line":                    write(strings.Repeat("x", 2*maxResponse)),
		"more lines than are read":        write(strings.Repeat("x\n", 1000)),
		"responses that nobody asked for": write(strings.Repeat(`{"id":7}`+"\n", 1000)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNVML(t, twoCards())
			n := openNVML(t, fake, func(c *NVMLConfig) { c.Timeout = 300 * time.Millisecond })
			m := totals{}
			readings, _ := readUntil(t, n, "reading", noFault)
			m.add(readings)
			for range 3 {
				breakIt(t, n)
				readUntil(t, n, "fault", anyFault)
				readings, _ := readUntil(t, n, "recovery", noFault)
				m.add(readings)
			}
			m.expectEnergy(t, fake)
		})
	}
}

func TestNVMLBacksOffFromAFailingChild(t *testing.T) {
	t.Parallel()
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Crash = "nvmlInit_v2" })
	signalChild(t, n, syscall.SIGKILL)
	readUntil(t, n, "backoff", func(_ []energy.Reading, faults []energy.Fault) bool {
		return n.reader.restarts.remaining(time.Now()) > 2*minRestartDelay && len(faults) == 2 &&
			strings.Contains(faults[0].Err, "SIGSEGV") && strings.Contains(faults[0].Err, "next attempt in")
	})
	pid := n.reader.child.ID().PID
	for range 5 {
		if _, faults := n.Read(); len(faults) != 2 || n.reader.child.ID().PID != pid {
			t.Errorf("got child %d and faults %+v, want no new child", n.reader.child.ID().PID, faults)
		}
	}
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Crash = "" })
	readUntil(t, n, "recovery", noFault)
}

func TestNVMLRestartDelays(t *testing.T) {
	r := newNVMLReader(NVMLConfig{})
	var delays []time.Duration
	for range 12 {
		r.scheduleRestart(errClosed)
		delays = append(delays, r.restarts.remaining(time.Now()).Round(10*time.Millisecond))
	}
	ms := time.Millisecond
	want := []time.Duration{0, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 25600 * ms, 30000 * ms, 30000 * ms}
	if !slices.Equal(delays, want) {
		t.Errorf("got delays %v, want %v", delays, want)
	}
	if r.restarts.reset(); r.restarts.remaining(time.Now()) > 0 {
		t.Errorf("after a reset: got delay %v, want none", r.restarts.remaining(time.Now()))
	}
}

// The child gets no secret and no signal that is sent to the agent's process group.
func TestNVMLChildIsIsolated(t *testing.T) {
	t.Setenv("MASTER_API_KEY", "a-secret")
	t.Setenv("LD_LIBRARY_PATH", "/nowhere")
	n := openNVML(t, newFakeNVML(t, twoCards()))
	pid := n.reader.child.ID().PID
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	must(t, err)
	if text := string(environ); strings.Contains(text, "a-secret") || !strings.Contains(text, "LD_LIBRARY_PATH=/nowhere") {
		t.Errorf("got environment %q, want LD_LIBRARY_PATH and no secret", text)
	}
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("got process group %d and error %v, want %d", group, err, pid)
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		signalChild(t, n, s)
	}
	readAll(t, n) // only the parent ends the child
}

func TestNVMLLeavesNoProcessesOrFiles(t *testing.T) {
	fake := newFakeNVML(t, twoCards())
	openFiles := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	before := 0
	for round := range 4 {
		n, err := OpenNVML(nvmlConfig(fake.Library))
		must(t, err)
		readAll(t, n)
		signalChild(t, n, syscall.SIGKILL)
		readUntil(t, n, "recovery", noFault)
		if round == 2 {
			signalChild(t, n, syscall.SIGSTOP)
		}
		must(t, n.Close())
		if _, faults := n.Read(); len(faults) != 2 || faults[0].Err != "closed" {
			t.Errorf("after Close: got faults %+v, want \"closed\"", faults)
		}
		if err := n.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		expectNoChildren(t)
		if round == 0 {
			before = openFiles() // includes what the runtime keeps open
		}
	}
	if after := openFiles(); after > before {
		t.Errorf("got %d open files, want %d", after, before)
	}
}

// expectNoChildren fails when this process has a child, running or a zombie.
func expectNoChildren(t *testing.T) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(lists) == 0 {
		t.Fatalf("listing children: %v", err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // of a thread that may have ended
		for pid := range strings.FieldsSeq(string(text)) {
			t.Errorf("process %s was left", pid)
		}
	}
}

// runNVMLParent prints the PID of its child and reads until it is killed.
func runNVMLParent(library string) {
	n, err := OpenNVML(nvmlConfig(library))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(n.reader.child.ID().PID)
	for {
		n.Read()
		time.Sleep(10 * time.Millisecond)
	}
}

func TestNVMLChildEndsWithItsParent(t *testing.T) {
	must(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	for name, prepare := range map[string]func(*testing.T, *fakehw.NVML, int){
		"responding": func(*testing.T, *fakehw.NVML, int) {},
		"hanging":    func(t *testing.T, f *fakehw.NVML, _ int) { change(t, f, hangOnRead) },
		"stopped":    func(_ *testing.T, _ *fakehw.NVML, pid int) { _ = syscall.Kill(pid, syscall.SIGSTOP) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNVML(t, twoCards())
			parent := exec.Command("/proc/self/exe", roleNVMLParent, fake.Library)
			out, err := parent.StdoutPipe()
			must(t, err)
			must(t, parent.Start())
			line, _ := bufio.NewReader(out).ReadString('\n')
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatalf("got %q from the parent, want a PID", line)
			}
			prepare(t, fake, pid)
			must(t, parent.Process.Kill())
			_ = parent.Wait()
			expectExit(t, pid)
		})
	}
}

// expectExit waits for an orphan, which this process has inherited.
func expectExit(t *testing.T, pid int) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := syscall.Wait4(pid, nil, 0, nil)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("waiting for the orphan: %v", err)
		}
	case <-time.After(deadline):
		t.Errorf("process %d is still running", pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		<-done
	}
}

// Where the parent's death sends no signal, the end of the input ends the child.
func TestNVMLChildEndsWithItsInput(t *testing.T) {
	t.Parallel()
	for name, scenario := range map[string]fakehw.NVMLScenario{
		"responding":            twoCards(),
		"hanging":               {Cards: fakehw.NVMLCards(70), Hang: "nvmlDeviceGetTotalEnergyConsumption"},
		"hanging at its start":  {Hang: "nvmlInit_v2"},
		"hanging while it ends": {Cards: fakehw.NVMLCards(70), Hang: "nvmlShutdown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNVML(t, scenario)
			child := exec.Command("/proc/self/exe", roleNVMLChild)
			in, err := child.StdinPipe()
			must(t, err)
			must(t, child.Start())
			timer := time.AfterFunc(deadline, func() {
				t.Error("the child is still running after the end of its input")
				_ = child.Process.Kill()
			})
			defer timer.Stop()
			fmt.Fprintf(in, `{"library":%q,"procfs_path":"/proc"}`+"\n"+`{"id":1,"details":true}`+"\n", fake.Library)
			in.Close()
			_ = child.Wait()
		})
	}
}
