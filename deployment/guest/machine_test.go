//go:build guest

package guest

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// machine is a running guest.
type machine struct {
	cmd   *exec.Cmd
	lines chan string // output of its serial port; closed at exit
}

// boot starts a guest, with parameters for its kernel and init. It is killed when the test ends.
func boot(t *testing.T, accelerator, image, disk, memory string, parameters ...string) *machine {
	t.Helper()
	cpu := "max"
	if accelerator == "kvm" {
		cpu = "host"
	}
	args := []string{"-nodefaults", "-nic", "none", "-display", "none", "-serial", "stdio", "-no-reboot", "-M", "pc", "-accel", accelerator, "-cpu", cpu,
		"-smp", "2", "-m", memory, "-kernel", filepath.Join(fetched(t), "kernel"), "-initrd", image, "-append", strings.Join(append([]string{"console=ttyS0 quiet loglevel=3 panic=-1"}, parameters...), " ")}
	if disk != "" {
		args = append(args, "-drive", "file="+disk+",format=raw,if=virtio,cache=writeback")
	}
	m := &machine{cmd: exec.Command("qemu-system-x86_64", args...), lines: make(chan string, 1000)}
	m.cmd.Stderr = t.Output()
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go m.read(out)
	t.Cleanup(m.powerOff)
	return m
}

// read sends the lines of the output. An incomplete last line is dropped.
func (m *machine) read(out io.Reader) {
	defer close(m.lines)
	for r := bufio.NewReader(out); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		m.lines <- strings.TrimRight(line, "\r\n")
	}
}

// powerOff kills the guest, and waits for its end.
func (m *machine) powerOff() {
	_ = m.cmd.Process.Signal(syscall.SIGKILL)
	for range m.lines {
	}
	_ = m.cmd.Wait() // fails if it is called again
}

// outputTimeout is how long a guest may print nothing.
const outputTimeout = 3 * time.Minute

// next returns the guest's next line; false if it has exited or prints nothing in time.
func (m *machine) next(timeout time.Duration) (string, bool) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case line, ok := <-m.lines:
		return line, ok
	case <-timer.C:
		return "", false
	}
}

// accelerator returns the QEMU accelerator to use: kvm if a guest boots with it, else tcg.
// GUEST_ACCELERATOR overrides the choice.
func accelerator(t *testing.T) string {
	t.Helper()
	if chosen := os.Getenv("GUEST_ACCELERATOR"); chosen != "" {
		return chosen
	}
	detected.Do(func() {
		detected.name = "tcg"
		kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return
		}
		_ = kvm.Close()
		img := newImage(t, os.DevNull)
		m := boot(t, "kvm", img.done(), "", "256M")
		defer m.powerOff()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for ctx.Err() == nil {
			line, ok := m.next(10 * time.Second)
			if strings.HasPrefix(line, "guest: ended") {
				detected.name = "kvm"
			}
			if !ok {
				return
			}
		}
	})
	return detected.name
}

var detected struct {
	sync.Once
	name string
}
