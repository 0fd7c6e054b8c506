package journal

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate makes the file system assign blocks to a range of the file, and extends the
// file if the range reaches beyond its end. Contents do not change.
func allocate(file *os.File, offset, size int64) error {
	return unix.Fallocate(int(file.Fd()), 0, offset, size)
}

// deallocate returns the blocks of a range to the file system. The range reads as zeros
// afterwards, and the file keeps its size.
func deallocate(file *os.File, offset, size int64) error {
	return unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, size)
}

// memoryFile makes a file that exists in memory only.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
