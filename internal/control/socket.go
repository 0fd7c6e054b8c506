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

// ErrInUse means that another process is listening on the socket.
var ErrInUse = errors.New("in use by another process")

// socketMode allows only the owner and root to connect.
const socketMode = 0o600

// staleTimeout limits the attempt to connect to an existing socket.
const staleTimeout = 2 * time.Second

// socket is a listener and its file.
type socket struct {
	*net.UnixListener
	path string
	file fs.FileInfo
}

// listen creates the socket. It replaces a stale socket left by a dead process, but fails
// with ErrInUse if a process is listening.
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
	l.SetUnlinkOnClose(false) // see remove: the path may belong to another socket by then
	s := &socket{UnixListener: l, path: path}
	if err := s.restrict(); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func bind(ctx context.Context, path string) (*net.UnixListener, error) {
	// On Linux bind creates the file with the mode of the socket, so others can never
	// open it. On other systems restrict sets the mode afterwards.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), socketMode) })
	}}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// restrict sets the file's mode, owner and group, and records its identity.
func (s *socket) restrict() (err error) {
	if s.file, err = os.Lstat(s.path); err != nil {
		return err
	}
	// The group is another one in a folder with the setgid bit. The systemd unit does not allow
	// chown, so it is not called for nothing.
	if is, ok := s.file.Sys().(*syscall.Stat_t); !ok || int(is.Uid) != os.Geteuid() || int(is.Gid) != os.Getegid() {
		if err := os.Lchown(s.path, os.Geteuid(), os.Getegid()); err != nil {
			return err
		}
	}
	return os.Chmod(s.path, socketMode)
}

// inPlace reports whether the path still refers to this socket.
func (s *socket) inPlace() bool {
	file, err := os.Lstat(s.path)
	return err == nil && s.file != nil && os.SameFile(file, s.file)
}

// remove stops listening and removes the file, unless it has been replaced.
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

// removeStale removes a socket that no process is listening on.
func removeStale(ctx context.Context, path string) error {
	before, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if before.Mode().Type() != fs.ModeSocket {
		return errors.New("the path exists and is not a socket")
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
		return fmt.Errorf("checking whether it is in use: %w", err)
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
		return ErrInUse // replaced by another process in the meantime
	}
	return os.Remove(path)
}

// explain adds the directory to errors of bind.
func explain(path string, err error) error {
	dir := filepath.Dir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("directory %s does not exist: %w", dir, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("directory %s is not writable: %w", dir, err)
	}
	return err
}
