package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"ffmpeg-agent/hardware/proc"
)

// bbolt maps its file and follows what it reads there. A damaged page makes it panic, fault,
// loop or overrun the stack, in part on goroutines of its own where nothing can be
// recovered. Therefore a child process, the inspector, reads a file before this process
// opens it. It reads what a damaged file still holds, too (salvage.go).
//
// The inspector writes findings to its standard output, one JSON value a line: first one
// that it started, then the records it was asked for, last its verdict. If it ends without
// a verdict, the file ended it.

// The operations of the inspector.
const (
	inspectCheck   = "check"   // PATH
	inspectSalvage = "salvage" // PATH BUCKET DIRECTION
)

// finding is one line of the inspector's output; one of its parts is set.
type finding struct {
	Started bool     `json:"started,omitempty"`
	Entry   *entry   `json:"entry,omitempty"`
	Verdict *verdict `json:"verdict,omitempty"`
}

// entry is a key in a bucket with its value.
type entry struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// verdict is how an inspection ended.
type verdict struct {
	Damage    string        `json:"damage,omitempty"` // what is wrong; of a salvage: what was not read
	Schema    int           `json:"schema,omitempty"` // of the file, where it is newer than ours
	InUse     bool          `json:"in_use,omitempty"`
	Error     string        `json:"error,omitempty"` // the file could not be read, for no fault of its own
	Errno     syscall.Errno `json:"errno,omitempty"` // belongs to Error
	OneHeader bool          `json:"one_header,omitempty"`
}

// inspector runs inspections.
type inspector struct {
	command []string // empty: in this process
	within  time.Duration
	log     *zap.Logger
}

func (s Settings) inspector() inspector {
	return inspector{command: s.Inspector, within: s.inspectWithin, log: s.Logger}
}

// check reports whether bbolt can be trusted with a file: nil if it can or if the file is
// missing or empty, *damage if it cannot. Other errors say nothing about the contents.
func (i inspector) check(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("not a regular file")
	case info.Size() == 0:
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), i.deadline(info.Size()))
	defer cancel()
	v, err := i.run(ctx, func(entry) {}, inspectCheck, path)
	if err != nil {
		return err
	}
	if v.OneHeader {
		i.log.Warn("one of the journal's two headers is unreadable: the last write before this start may be missing",
			zap.String("path", path))
	}
	return v.err()
}

// deadline is how long an inspection may take: as long as the slowest disk needs. A
// damaged file rarely takes that long, since most endless loops run out of memory.
func (i inspector) deadline(size int64) time.Duration {
	if i.within > 0 {
		return i.within
	}
	return 30*time.Second + time.Duration(size>>20)*time.Second
}

func (v verdict) err() error {
	switch {
	case v.Damage != "":
		return &damage{errors.New(v.Damage)}
	case v.Schema != 0:
		return checkSchema(v.Schema)
	case v.InUse:
		return fmt.Errorf("%w: another process has it open", ErrInUse)
	case v.Errno != 0:
		return fmt.Errorf("inspecting: %s: %w", v.Error, v.Errno)
	case v.Error != "":
		return fmt.Errorf("inspecting: %s", v.Error)
	}
	return nil
}

// run carries out one inspection and calls each for every entry that it reads. The error is
// *damage if the inspector started and crashed, or did not end in time.
func (i inspector) run(ctx context.Context, each func(entry), args ...string) (verdict, error) {
	if len(i.command) == 0 {
		return inspectHere(each, args)
	}
	var started bool
	var v *verdict
	var stderr []byte
	exit, err := proc.Run(ctx, proc.Command{
		Path: i.command[0],
		Args: slices.Concat(i.command[1:], args),
		Env:  []string{"GOTRACEBACK=none"}, // the reason of a crash is enough
		// GORACE: a race-enabled build sleeps for 1 s at exit unless that says otherwise.
		PassEnv: func(name string) bool { return name == "LD_LIBRARY_PATH" || name == "GORACE" },
		Limits:  proc.Limits{DataBytes: inspectorMemory},
		Stdout:  func(r io.Reader) { started, v = receive(r, each) },
		Stderr:  func(r io.Reader) { stderr, _ = io.ReadAll(io.LimitReader(r, 1<<10)) },
	})
	said := strings.Join(strings.Fields(string(stderr)), " ")
	switch {
	case v != nil:
		return *v, nil
	case errors.Is(err, context.DeadlineExceeded):
		return verdict{}, damagef("reading it did not end in time: %w", err)
	case err != nil:
		return verdict{}, fmt.Errorf("running the inspector: %w", err)
	case !started:
		return verdict{}, fmt.Errorf("the inspector %q did not start: %v: %s", i.command[0], exit, said)
	case killedFromOutside(exit.Signal):
		return verdict{}, fmt.Errorf("the inspector was %v", exit)
	}
	return verdict{}, damagef("reading it crashed: %v: %s", exit, said)
}

// receive reads findings up to the verdict, nil if none comes.
func receive(from io.Reader, each func(entry)) (started bool, v *verdict) {
	for lines := json.NewDecoder(from); ; {
		var f finding
		if err := lines.Decode(&f); err != nil || f.Verdict != nil {
			return started, f.Verdict
		}
		started = started || f.Started
		if f.Entry != nil {
			each(*f.Entry)
		}
	}
}

// inspectHere is run without a process of its own.
func inspectHere(each func(entry), args []string) (verdict, error) {
	var out bytes.Buffer
	if err := inspect(args, &out); err != nil {
		return verdict{}, err
	}
	_, v := receive(&out, each)
	if v == nil {
		return verdict{}, errors.New("the inspection has no verdict")
	}
	return *v, nil
}

// killedFromOutside reports whether a signal says nothing of what the process did, such as
// that of the kernel when memory is short.
func killedFromOutside(s syscall.Signal) bool {
	return slices.Contains([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}, s)
}

// The limits of the inspector's process, in bytes. Loops in a damaged file grow a slice or
// the stack, and end here.
const (
	inspectorMemory = 512 << 20
	inspectorStack  = 64 << 20
)

// Inspect is the inspector's process: it carries out one inspection, for the process that
// started it with Settings.Inspector and these arguments, and writes its findings to out. An
// error means that it could not.
func Inspect(args []string, out io.Writer) error {
	debug.SetMaxStack(inspectorStack)
	return inspect(args, out)
}

func inspect(args []string, out io.Writer) error {
	write := json.NewEncoder(out)
	if err := write.Encode(finding{Started: true}); err != nil {
		return err
	}
	var err error
	var v verdict
	switch {
	case len(args) == 2 && args[0] == inspectCheck:
		v.OneHeader, err = checkFile(args[1])
	case len(args) == 4 && args[0] == inspectSalvage:
		err = salvageBucket(args[1], args[2], args[3], func(e entry) error { return write.Encode(finding{Entry: &e}) })
	default:
		return fmt.Errorf("unknown inspection %q", args)
	}
	var newer *newerSchema
	switch {
	case err == nil:
	case isDamage(err):
		v.Damage = strings.TrimPrefix(err.Error(), "damaged: ")
	case errors.As(err, &newer):
		v.Schema = newer.schema
	case errors.Is(err, ErrInUse):
		v.InUse = true
	default:
		v.Error = err.Error()
		if errors.As(err, &v.Errno) {
			v.Error = strings.TrimSuffix(v.Error, ": "+v.Errno.Error())
		}
	}
	return write.Encode(finding{Verdict: &v})
}

// openToInspect opens a file that may be damaged.
func openToInspect(path string) (*handle, error) {
	return openBolt(path, bbolt.Options{ReadOnly: true, Timeout: time.Second})
}

// checkFile reads all of a file, and has bbolt check it. oneHeader: only one of the header
// pages is valid, as after a torn write.
func checkFile(path string) (oneHeader bool, err error) {
	db, err := openToInspect(path)
	if err != nil {
		return false, err
	}
	err = guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			schema, err := schemaOf(tx)
			if err == nil {
				err = checkSchema(schema)
			}
			if err != nil {
				return err
			}
			for fault := range tx.Check() { // one is enough; the others may go on for ever
				return asDamage(fault)
			}
			if err := tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return readAll(b) }); err != nil {
				return err
			}
			if schema == 0 {
				return nil
			}
			_, err = audit(tx)
			return err
		})
	})
	if err != nil {
		db.abandon()
		return false, err
	}
	oneHeader = !bothHeaders(db)
	return oneHeader, db.Close()
}

// readAll reads each key and value once, which faults where they are not in the file.
func readAll(b *bbolt.Bucket) error {
	return b.ForEach(func(key, value []byte) error {
		if value == nil {
			return readAll(b.Bucket(key))
		}
		crc32.Update(crc32.ChecksumIEEE(key), crc32.IEEETable, value)
		return nil
	})
}

// bothHeaders reports whether both header pages are valid. bbolt is content with one and
// does not say which, so each is shown to it alone.
func bothHeaders(db *handle) bool {
	size := int64(db.Info().PageSize)
	for page := range int64(2) {
		header := make([]byte, size)
		if _, err := db.file.ReadAt(header, page*size); err != nil {
			return false
		}
		file, err := memoryFile("journal-header")
		if err != nil {
			return true // unknown
		}
		_, err = file.WriteAt(header, page*size)
		if err == nil {
			err = file.Truncate(4 * size)
		}
		if err != nil {
			_ = file.Close()
			return true
		}
		alone, err := openBolt(file.Name(), bbolt.Options{ReadOnly: true, OpenFile: func(string, int, fs.FileMode) (*os.File, error) {
			return file, nil
		}})
		if err != nil {
			return false
		}
		_ = alone.Close()
	}
	return true
}
