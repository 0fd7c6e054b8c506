package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ffmpeg-agent/internal/control"
)

const (
	linesFlag   = "lines"
	maxFindings = 1 << 20 // bytes of all findings of examineAs
)

// examineAs has a process of the agent's user make the checks, with the agent's environment, and
// passes each finding on. Root must not make them: that user could name the programs that they run
// and the files that they send, by listening on the control socket in place of the agent. The
// process gets no terminal, to which it could write commands for root.
func examineAs(cmd *cobra.Command, agent control.Peer, socket string, report func(finding)) {
	args := []string{"doctor", "--" + linesFlag, "--socket=" + socket}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Name != "socket" && f.Name != "json" {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	child := exec.CommandContext(cmd.Context(), self, args...)
	child.Env, _ = environOf(agent)
	if child.Env == nil {
		child.Env = []string{"PATH=" + os.Getenv("PATH")} // and nothing else of root's
	}
	child.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: syscall.SIGKILL,
		Credential: &syscall.Credential{Uid: agent.UID, Gid: agent.GID, Groups: agent.Groups},
	}
	runtime.LockOSThread() // whose end would kill the child
	defer runtime.UnlockOSThread()
	var complaint bytes.Buffer
	err := readFindings(child, &complaint, report)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitFailed && complaint.Len() == 0 {
		err = nil // a check failed, which is reported
	}
	if err != nil {
		user := userName(strconv.Itoa(int(agent.UID)))
		text, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n")
		report(failed("sudo -u "+user+" agent doctor", "checking as user %s, as which the agent runs: %s", user, cmp.Or(text, err.Error())).named("agent"))
	}
}

// readFindings runs a process that prints findings as lines of JSON.
func readFindings(child *exec.Cmd, complaint *bytes.Buffer, report func(finding)) error {
	out, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	errs, err := child.StderrPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(complaint, io.LimitReader(errs, 4<<10))
		_, _ = io.Copy(io.Discard, errs)
	}()
	lines := json.NewDecoder(io.LimitReader(out, maxFindings))
	for err == nil {
		var f finding
		if err = lines.Decode(&f); err == nil {
			report(f)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	} else {
		_ = child.Process.Kill()
	}
	<-ended
	return errors.Join(err, child.Wait())
}

// environOf is the environment of an agent. An error that another process has got its PID
// meanwhile is returned as well: one whose user is another one.
func environOf(agent control.Peer) ([]string, error) {
	process, err := os.OpenRoot("/proc/" + strconv.Itoa(agent.PID)) // remains that of one process
	if err != nil {
		return nil, err
	}
	defer process.Close()
	info, err := process.Stat(".")
	if err != nil {
		return nil, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != agent.UID {
		return nil, fmt.Errorf("process %d is not of user %d", agent.PID, agent.UID)
	}
	text, err := process.ReadFile("environ")
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), nil
}
