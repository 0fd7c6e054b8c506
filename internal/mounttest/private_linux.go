// Package mounttest is for tests that mount file systems in a namespace of their own.
package mounttest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// KeepPrivate keeps what is mounted from now on in the namespace of this process from
// appearing in others, where under systemd mounts are shared. That is set at the root of the
// namespace, which lies outside of a chroot: there the process leaves it and returns.
func KeepPrivate() (err error) {
	err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if !errors.Is(err, unix.EINVAL) { // "/" is not a mount point
		return err
	}
	work, err := os.Getwd()
	if err != nil {
		return err
	}
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	outside, err := os.MkdirTemp("", "")
	if err != nil {
		return err
	}
	defer os.Remove(outside)
	// A directory above the root has no bound: ".." leads from it to the namespace's root.
	if err := unix.Chroot(outside); err != nil {
		return fmt.Errorf("leaving the chroot: %w", err)
	}
	err = root.Chdir()
	for range 100 {
		err = errors.Join(err, os.Chdir(".."))
	}
	if err == nil {
		err = unix.Chroot(".")
	}
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	return errors.Join(err, root.Chdir(), unix.Chroot("."), os.Chdir(work))
}
