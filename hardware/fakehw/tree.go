package fakehw

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Tree is one fake machine. Its methods may be called from several goroutines.
type Tree struct {
	dir string

	mu    sync.Mutex
	now   time.Duration // the tree's time: since its start
	epoch time.Time     // when now was 0, while Run runs
	zones []*Zone
	chips []*Chip
	cpu   *cpu
}

// New creates a machine without sensors below a directory: sys and proc.
func New(dir string) (*Tree, error) {
	t := &Tree{dir: dir}
	for _, d := range []string{t.Sys("class"), t.Sys("devices", "virtual"), t.Proc()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("creating a fake machine: %w", err)
		}
	}
	return t, nil
}

// Sys returns the path of the fake /sys, or of a file in it.
func (t *Tree) Sys(elem ...string) string {
	return filepath.Join(append([]string{t.dir, "sys"}, elem...)...)
}

// Proc returns the path of the fake /proc, or of a file in it.
func (t *Tree) Proc(elem ...string) string {
	return filepath.Join(append([]string{t.dir, "proc"}, elem...)...)
}

// Write writes a file and creates its directory. The path is below Sys or Proc.
func (t *Tree) Write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// Now returns the tree's time, as of which the counters are written.
func (t *Tree) Now() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// AdvanceTo sets the tree's time and updates every counter.
func (t *Tree) AdvanceTo(to time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, z := range t.zones {
		errs = append(errs, z.advance(t.now, to))
	}
	for _, c := range t.chips {
		errs = append(errs, c.advance(t.now, to))
	}
	if t.cpu != nil {
		errs = append(errs, t.cpu.advance(t.now, to))
	}
	t.now = to
	return errors.Join(errs...)
}

// Run advances the tree's time in real time and updates the counters once an interval (real ones
// do each millisecond), until the context ends.
func (t *Tree) Run(ctx context.Context, interval time.Duration) error {
	t.mu.Lock()
	t.epoch = time.Now().Add(-t.now)
	t.mu.Unlock()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			if err := t.AdvanceTo(now.Sub(t.epoch)); err != nil {
				return err
			}
		}
	}
}

// Since converts a time to the tree's time, for Zone.Joules. The tree must be running.
func (t *Tree) Since(at time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return at.Sub(t.epoch)
}

// Close closes the counters' files and leaves them in place.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, z := range t.zones {
		if z.file != nil {
			errs = append(errs, z.file.Close())
			z.file = nil
		}
	}
	for _, c := range t.chips {
		errs = append(errs, c.close())
	}
	if t.cpu != nil {
		errs = append(errs, t.cpu.file.Close())
	}
	t.zones, t.chips, t.cpu = nil, nil, nil
	return errors.Join(errs...)
}

// pwrite replaces a file's content with one write, padded with newlines so that it never
// shrinks.
func pwrite(file *os.File, text string) error {
	const width = 24
	for len(text) < width {
		text += "\n"
	}
	_, err := file.WriteAt([]byte(text), 0)
	return err
}
