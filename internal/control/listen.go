package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrInUse: another process answers on the socket.
var ErrInUse = errors.New("another process answers there")

// socketMode lets only the owner, and root, open the socket.
const socketMode = 0o600

// staleTimeout is how long a process that may live behind a socket has to take a call.
const staleTimeout = 2 * time.Second

// socket is a listener and the file that leads to it.
type socket struct {
	*net.UnixListener
	path string
	file fs.FileInfo
}

// listen makes the socket. A file that a dead process left in its place is
// removed; a socket that somebody answers on is left alone.
func listen(ctx context.Context, path string) (*socket, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	l, err := bind(ctx, path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(ctx, path); err != nil {
			return nil, err
		}
		l, err = bind(ctx, path)
	}
	if err != nil {
		return nil, explain(path, err)
	}
	// By path it would be removed, whoever's it is by then.
	l.SetUnlinkOnClose(false)
	s := &socket{UnixListener: l, path: path}
	if err := s.settle(); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func bind(ctx context.Context, path string) (*net.UnixListener, error) {
	// Linux gives the file the mode that the socket had when it was bound, so that
	// there is no moment at which others can open it. Where a system does not,
	// settle sets the mode.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), socketMode) })
	}}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// settle gives the file its mode, owner and group, and remembers which it is.
func (s *socket) settle() (err error) {
	if s.file, err = os.Lstat(s.path); err != nil {
		return err
	}
	if err := os.Lchown(s.path, os.Geteuid(), os.Getegid()); err != nil {
		return err
	}
	return os.Chmod(s.path, socketMode)
}

// inPlace reports whether the path still leads to this socket.
func (s *socket) inPlace() bool {
	file, err := os.Lstat(s.path)
	return err == nil && s.file != nil && os.SameFile(file, s.file)
}

// remove stops listening and removes the file where it is still this socket's.
func (s *socket) remove() error {
	err := s.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if s.inPlace() {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}

// removeStale removes a socket that nobody answers on.
func removeStale(ctx context.Context, path string) error {
	before, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if before.Mode().Type() != fs.ModeSocket {
		return errors.New("something that is no socket lies there; it is left alone")
	}
	ctx, cancel := context.WithTimeout(ctx, staleTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return ErrInUse
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("finding out whether a process answers there: %w", err)
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
		return ErrInUse // somebody else took it over just now
	}
	return os.Remove(path)
}

// explain says what to mend where the system's word alone does not.
func explain(path string, err error) error {
	dir := filepath.Dir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("its folder %s is not there: %w", dir, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("its folder %s cannot be written to: %w", dir, err)
	}
	return err
}
