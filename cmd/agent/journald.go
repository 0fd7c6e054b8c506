package main

import (
	"io"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// isJournal reports whether an output of this process is journald's, which keeps the time of
// each line itself and takes its priority from a prefix (sd-daemon(3)).
func isJournal(out io.Writer) bool {
	var is bool
	switch f, _ := out.(*os.File); f {
	case os.Stdout:
		is, _ = journal.StdoutIsJournalStream()
	case os.Stderr:
		is, _ = journal.StderrIsJournalStream()
	}
	return is
}

// journalEncoder adds the prefix with the priority to the lines of another encoder.
type journalEncoder struct{ zapcore.Encoder }

func (e journalEncoder) Clone() zapcore.Encoder { return journalEncoder{e.Encoder.Clone()} }

func (e journalEncoder) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	line, err := e.Encoder.EncodeEntry(entry, fields)
	if err != nil {
		return nil, err
	}
	defer line.Free()
	prefixed := buffers.Get()
	prefixed.AppendString(journalPrefix(entry.Level))
	_, _ = prefixed.Write(line.Bytes()) // it cannot fail
	return prefixed, nil
}

var buffers = buffer.NewPool()

// withPriority adds the prefix of a level to each line.
func withPriority(level zapcore.Level, text string) string {
	prefix := journalPrefix(level)
	return prefix + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+prefix) + "\n"
}

// journalPrefix is the prefix of a line of a level: a priority of syslog(3).
func journalPrefix(level zapcore.Level) string {
	switch {
	case level <= zapcore.DebugLevel:
		return "<7>"
	case level == zapcore.InfoLevel:
		return "<6>"
	case level == zapcore.WarnLevel:
		return "<4>"
	case level == zapcore.ErrorLevel:
		return "<3>"
	}
	return "<2>"
}
