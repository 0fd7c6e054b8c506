package main

import (
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"ffmpeg-agent/configs"
)

// logger is the log of a command that does the agent's work. Logging never blocks:
// lines that the output does not accept in time are dropped and counted.
type logger struct {
	*zap.Logger
	writer *logWriter
	level  zap.AtomicLevel
}

// newLogger logs to out, one line an event: console format on a terminal and to journald,
// JSON elsewhere.
// Call close before the process exits.
func newLogger(cfg configs.Log, out io.Writer) *logger {
	encoder := newEncoder(cfg.Format, isTerminal(out), isJournal(out))
	w := newLogWriter(out, func(dropped int, since time.Time) []byte {
		return droppedNotice(encoder.Clone(), dropped, since)
	})
	l := &logger{writer: w, level: zap.NewAtomicLevel()}
	l.Logger = zap.New(boundedCore{zapcore.NewCore(encoder, w, l.level)}, zap.ErrorOutput(w))
	l.setLevel(cfg)
	return l
}

// setLevel changes the level from now on.
func (l *logger) setLevel(cfg configs.Log) {
	if level, err := zapcore.ParseLevel(cfg.Level); err == nil { // configs accepts only valid levels
		l.level.SetLevel(level)
	}
}

func newEncoder(format string, terminal, journal bool) zapcore.Encoder {
	config := zap.NewProductionEncoderConfig()
	config.TimeKey = "time"
	config.MessageKey = "message"
	config.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	config.EncodeDuration = func(d time.Duration, to zapcore.PrimitiveArrayEncoder) {
		unit := time.Millisecond
		if d >= time.Minute {
			unit = time.Second
		}
		to.AppendString(d.Round(unit).String())
	}
	var encoder zapcore.Encoder
	if format == "json" || (format == "auto" && !terminal && !journal) {
		encoder = zapcore.NewJSONEncoder(config)
	} else {
		config.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		config.EncodeLevel = zapcore.CapitalLevelEncoder
		config.ConsoleSeparator = "  "
		if journal {
			config.TimeKey, config.LevelKey, config.ConsoleSeparator = zapcore.OmitKey, zapcore.OmitKey, " "
			config.EncodeName = func(name string, to zapcore.PrimitiveArrayEncoder) { to.AppendString(name + ":") }
		}
		encoder = zapcore.NewConsoleEncoder(config)
	}
	if journal {
		return journalEncoder{encoder}
	}
	return encoder
}

// droppedNotice is the log line that reports dropped lines once the output accepts lines again.
func droppedNotice(encoder zapcore.Encoder, dropped int, since time.Time) []byte {
	now := time.Now()
	entry := zapcore.Entry{Level: zapcore.WarnLevel, Time: now, LoggerName: "log", Message: "log output works again; lines were dropped"}
	buffer, err := encoder.EncodeEntry(entry, []zapcore.Field{
		zap.Int("dropped", dropped), zap.Duration("after", now.Sub(since)),
	})
	if err != nil {
		return []byte(entry.Message + "\n") // not reached: both fields can be encoded
	}
	defer buffer.Free()
	return append([]byte(nil), buffer.Bytes()...)
}

// redirectStandardLog sends what libraries log through the standard library's log and
// slog packages, which would block on standard error, to this log until restored.
func (l *logger) redirectStandardLog() (restore func()) {
	restore, err := zap.RedirectStdLogAt(l.Named("stdlib"), zap.WarnLevel)
	if err != nil {
		return func() {} // not reached: the level is valid
	}
	return restore
}

// close writes the queued lines, and gives up after flushTimeout.
func (l *logger) close() { l.writer.close() }

// terminalWidth is the number of columns of a terminal, otherwise a default.
func terminalWidth(out any, otherwise int) int {
	if f, ok := out.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return otherwise
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
