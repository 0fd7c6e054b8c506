package ffmpeg

import (
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/job"
)

// process is one of an attempt's processes.
type process struct {
	*proc.Child
	limit atomic.Pointer[job.Failure] // the limit that it was killed for
}

// killForLimit kills the process because it exceeded a limit.
func (p *process) killForLimit(f *job.Failure) {
	p.limit.CompareAndSwap(nil, f)
	p.Signal(syscall.SIGKILL)
}

// command is a call of FFmpeg or ffprobe. It gets of the agent's environment what
// loaders, GPU drivers and TLS need, and never a key. Its home is the directory it
// works in.
func command(path, dir string, args ...string) proc.Command {
	search := os.Getenv("PATH")
	if search == "" {
		search = "/usr/local/bin:/usr/bin:/bin"
	}
	return proc.Command{
		Path: path, Args: args, Dir: dir,
		Env:     []string{"PATH=" + search, "HOME=" + dir, "TMPDIR=" + dir, "LANG=C", "LC_ALL=C"},
		PassEnv: passesEnv,
	}
}

// passesEnv reports whether a variable of the agent's environment is passed on.
func passesEnv(name string) bool {
	switch name {
	case "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LIBVA_DRIVER_NAME", "LIBVA_DRIVERS_PATH",
		"GPU_DEVICE_ORDINAL", "SSL_CERT_FILE", "SSL_CERT_DIR":
		return true
	}
	if !strings.HasPrefix(name, "NVIDIA_") {
		return false
	}
	for _, word := range []string{"KEY", "TOKEN", "SECRET", "PASSWORD"} {
		if strings.Contains(name, word) {
			return false
		}
	}
	return true
}
