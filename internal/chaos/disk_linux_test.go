package chaos

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestDiskIsFilledAndFreed(t *testing.T) {
	d, why := newDisk(filepath.Join(t.TempDir(), "d"), 4)
	defer d.remove()
	if why != nil {
		if d.mounted {
			t.Fatal(why)
		}
		return // nobody but root may mount
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- d.fill(stop) }()
	file := filepath.Join(d.dir, "f")
	full := func() bool {
		defer os.Remove(file) // whose room is to be taken as well
		return os.WriteFile(file, make([]byte, 64<<10), 0o644) != nil
	}
	if !waitUntil(20*time.Second, full) {
		t.Error("there is room")
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := d.free(); err != nil {
		t.Error(err)
	}
	if full() {
		t.Error("there is no room")
	}
}
