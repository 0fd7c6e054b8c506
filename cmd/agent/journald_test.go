package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestJournalLinesCarryPriorities(t *testing.T) {
	for format, want := range map[string]string{
		"auto": "<7>low {\"job\": \"j1\"}\n<6>registrar: registered\n<4>high\n<3>failed {\"error\": \"first\\nsecond\"}\n",
		"json": `<7>{"level":"debug","message":"low","job":"j1"}` + "\n" + `<6>{"level":"info","logger":"registrar","message":"registered"}` + "\n" +
			`<4>{"level":"warn","message":"high"}` + "\n" + `<3>{"level":"error","message":"failed","error":"first\nsecond"}` + "\n",
	} {
		t.Run(format, func(t *testing.T) {
			var out scriptedOutput
			encoder := newEncoder(format, false, true)
			log := zap.New(zapcore.NewCore(encoder.Clone(), zapcore.AddSync(&out), zapcore.DebugLevel), zap.WithClock(fixedClock{}))
			log.Debug("low", zap.String("job", "j1"))
			log.Named("registrar").Info("registered")
			log.Warn("high")
			log.With().Error("failed", zap.Error(errors.New("first\nsecond")))
			if got := out.written(); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

type fixedClock struct{}

func (fixedClock) Now() time.Time                         { return time.Time{} }
func (fixedClock) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }

// The output counts as journald's only where it is the file that JOURNAL_STREAM names.
func TestJournalIsRecognized(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(w.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]string{
		fmt.Sprintf("%d:%d", stat.Dev, stat.Ino):   "<3>agent: ",
		fmt.Sprintf("%d:%d", stat.Dev, stat.Ino+1): "agent: ",
	} {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "no-such-command")
		cmd.Env = append(os.Environ(), asAgent+"=1", "JOURNAL_STREAM="+stream)
		cmd.Stderr = w
		if err := cmd.Run(); err == nil {
			t.Fatal("an unknown command succeeded")
		}
		buffer := make([]byte, 4096)
		n, err := r.Read(buffer)
		if got := string(buffer[:n]); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("stream %s: got %q, %v, want it to begin with %q", stream, got, err, want)
		}
	}
}
