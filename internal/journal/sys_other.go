//go:build !linux

package journal

import (
	"errors"
	"os"
)

func allocate(*os.File, int64, int64) error { return errors.ErrUnsupported }

func deallocate(*os.File, int64, int64) error { return errors.ErrUnsupported }

func memoryFile(name string) (*os.File, error) { return os.CreateTemp("", name) }
