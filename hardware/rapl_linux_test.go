package hardware

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody runs f as a user whom file modes bind, also where the tests run as
// root: Linux looks at files as a thread's own file system user.
func asNobody(t *testing.T, f func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		return f()
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		const nobody = 65534
		if _, err := unix.SetfsuidRetUid(nobody); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

// passable lets everybody through to a file in a test's temporary folder.
func passable(t *testing.T, tree string) {
	t.Helper()
	if err := os.Chmod(filepath.Dir(tree), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestUnreadableCountersAreNamedWithTheRemedy(t *testing.T) {
	tree, zones := machine(t, zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "core"))
	for _, z := range zones {
		if err := os.Chmod(z.Path(), 0); err != nil {
			t.Fatal(err)
		}
	}
	passable(t, filepath.Dir(tree.Sys()))
	err := asNobody(t, func() error {
		_, err := OpenRAPL(tree.Sys())
		return err
	})
	var unreadable *UnreadableError
	if !errors.As(err, &unreadable) || !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{zones["intel-rapl:0"].Path(), "permission denied", "udev", "chgrp"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %q", err, want)
		}
	}
}
