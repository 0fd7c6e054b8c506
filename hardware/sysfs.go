package hardware

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// numberFile is a sysfs file that holds one number, such as energy_uj. It stays open, because
// opening costs ten times as much as reading, and is reopened after a failure.
type numberFile struct {
	path     string
	quantity string // what the number is, for errors: "energy in µJ"
	file     *os.File
	buf      [64]byte
}

// readAt returns the number and the time of the read. A read that was preempted is repeated,
// so that the time fits the number.
func (f *numberFile) readAt(now func() time.Time) (int64, time.Time, error) {
	const preempted, attempts = 2 * time.Millisecond, 3
	for attempt := 1; ; attempt++ {
		begin := now()
		value, err := f.read()
		took := now().Sub(begin)
		if err != nil || took < preempted || attempt == attempts {
			return value, begin.Add(took / 2), err
		}
	}
}

func (f *numberFile) read() (int64, error) {
	if f.file == nil {
		file, err := os.Open(f.path)
		if err != nil {
			return 0, withoutPath(err)
		}
		f.file = file
	}
	n, err := f.file.ReadAt(f.buf[:], 0)
	if n == 0 && err != nil && err != io.EOF {
		f.close()
		return 0, withoutPath(err)
	}
	text := strings.TrimSpace(string(f.buf[:n]))
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil || value < 0 {
		f.close()
		return 0, fmt.Errorf("invalid %s: %q", f.quantity, text)
	}
	return value, nil
}

func (f *numberFile) close() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

// withoutPath strips the path from a file error, for messages that name the file themselves.
func withoutPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// readWord returns the content of a small file without surrounding space; empty when it
// cannot be read.
func readWord(elem ...string) string {
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func orDefault(path, fallback string) string {
	if path == "" {
		return fallback
	}
	return path
}
