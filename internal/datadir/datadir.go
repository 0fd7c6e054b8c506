// Package datadir makes sure that the agent's data directory is the agent's own: what another
// user can put into it could have the agent remove or overwrite files elsewhere.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// directories are those that the agent creates in it.
var directories = []string{"work", "inputs", "outputs"}

// Prepare creates the directory where there is none and leaves access to its owner alone. It
// refuses a directory, and files in it, that are links or belong to another user. Warnings are
// for the log.
func Prepare(dir string) (warnings []string, err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("creating the parent of data_dir: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating data_dir: %w", err)
	}
	if err := Check(dir); err != nil {
		return nil, err
	}
	for _, path := range append([]string{dir}, subdirectories(dir)...) {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			warnings = append(warnings, fmt.Sprintf("other users had access to %s (mode %04o); it is 0700 now", path, info.Mode().Perm()))
			err = os.Chmod(path, 0o700)
		}
		if err != nil {
			return warnings, fmt.Errorf("restricting data_dir to its owner: %w", err)
		}
	}
	parent, err := os.Stat(filepath.Dir(dir))
	if err == nil && parent.Mode().Perm()&0o002 != 0 && parent.Mode()&fs.ModeSticky == 0 {
		warnings = append(warnings, fmt.Sprintf("every user can replace data_dir, because %s is writable by all and has no sticky bit", filepath.Dir(dir)))
	}
	return warnings, nil
}

func subdirectories(dir string) (paths []string) {
	for _, name := range directories {
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths
}

// Check returns an error where the directory exists and is not the agent's own. It changes
// nothing.
func Check(dir string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("examining data_dir: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("data_dir %s is %s; it must be a directory of the agent's user", dir, kind(info))
	}
	if owner, own := ownedByUs(info); !own {
		return fmt.Errorf("data_dir %s belongs to user %d and the agent runs as user %d; use another directory, or `chown -R %d %s` if its content can be trusted",
			dir, owner, os.Geteuid(), os.Geteuid(), dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("examining data_dir: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || e.Name() == "lost+found" {
			continue
		}
		if err != nil {
			return fmt.Errorf("examining data_dir: %w", err)
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("data_dir contains a link, %s; remove it: the agent does not follow links there", filepath.Join(dir, e.Name()))
		}
		if owner, own := ownedByUs(info); !own {
			return fmt.Errorf("data_dir contains %s, which belongs to user %d and not to the agent's user %d; remove it", filepath.Join(dir, e.Name()), owner, os.Geteuid())
		}
	}
	return nil
}

func kind(info fs.FileInfo) string {
	if info.Mode()&fs.ModeSymlink != 0 {
		return "a link"
	}
	return "no directory"
}

func ownedByUs(info fs.FileInfo) (owner int, own bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, true
	}
	return int(stat.Uid), int(stat.Uid) == os.Geteuid()
}
