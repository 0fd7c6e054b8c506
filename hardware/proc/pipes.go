package proc

import (
	"cmp"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// pipes are the pipes between a child and the agent.
type pipes struct {
	child   []*os.File // the child's ends, until it is started
	stdin   *os.File   // nil: none
	outputs []output
	reading sync.WaitGroup
	drain   time.Duration
}

type output struct {
	r    *os.File
	sink func(io.Reader)
}

// connect makes the pipes of a command.
func connect(c *Command, cmd *exec.Cmd) (*pipes, error) {
	p := &pipes{drain: cmp.Or(c.DrainTimeout, 2*time.Second)}
	if c.Stdin {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		cmd.Stdin, p.stdin, p.child = r, w, append(p.child, r)
	}
	for _, to := range []struct {
		sink func(io.Reader)
		set  func(*os.File)
	}{
		{c.Stdout, func(w *os.File) { cmd.Stdout = w }},
		{c.Stderr, func(w *os.File) { cmd.Stderr = w }},
		{c.FD3, func(w *os.File) { cmd.ExtraFiles = []*os.File{w} }},
	} {
		if to.sink == nil {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			p.close()
			return nil, err
		}
		p.outputs, p.child = append(p.outputs, output{r, to.sink}), append(p.child, w)
		to.set(w)
	}
	if len(c.Files) > 0 {
		if cmd.ExtraFiles == nil {
			cmd.ExtraFiles = []*os.File{nil}
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, c.Files...)
	}
	return p, nil
}

// startReading leaves the child's ends to the child alone and starts the sinks.
func (p *pipes) startReading() {
	for _, f := range p.child {
		_ = f.Close()
	}
	for _, o := range p.outputs {
		p.reading.Go(func() {
			defer func() {
				_ = recover() // a sink that panics must not end the agent, nor block the child
				_, _ = io.Copy(io.Discard, o.r)
			}()
			o.sink(o.r)
		})
	}
}

// finish waits until the sinks have read all that the ended child wrote.
func (p *pipes) finish() {
	deadline := time.Now().Add(p.drain)
	for _, o := range p.outputs {
		_ = o.r.SetReadDeadline(deadline)
	}
	p.reading.Wait()
}

func (p *pipes) close() {
	for _, f := range p.child {
		_ = f.Close()
	}
	for _, o := range p.outputs {
		_ = o.r.Close()
	}
	_ = p.stdin.Close() // of nil as well
}
