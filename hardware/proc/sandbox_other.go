//go:build unix && !linux

package proc

import (
	"errors"
	"os"
)

// SandboxSupported: commands can be given a Sandbox on this platform.
const SandboxSupported = false

var errNoSandbox = errors.New("no sandbox on this platform")

// Confine fails: there is no sandbox on this platform.
func Confine([]string) error { return errNoSandbox }

// Harden does nothing on this platform.
func Harden() error { return nil }

func memoryFile([]byte) (*os.File, error) { return nil, errNoSandbox }
