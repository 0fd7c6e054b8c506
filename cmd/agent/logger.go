package main

import (
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"ffmpeg-agent/configs"
)

// newLogger logs to out, one line an event: readable on a terminal, JSON elsewhere.
func newLogger(cfg configs.Log, out io.Writer) *zap.Logger {
	level, err := zapcore.ParseLevel(cfg.Level)
	if err != nil {
		level = zapcore.InfoLevel // not reached: the configuration allows only levels
	}
	return zap.New(zapcore.NewCore(encoder(cfg.Format, out), zapcore.Lock(zapcore.AddSync(out)), level))
}

func encoder(format string, out io.Writer) zapcore.Encoder {
	encoding := zap.NewProductionEncoderConfig()
	encoding.TimeKey = "time"
	encoding.MessageKey = "message"
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoding.EncodeDuration = zapcore.StringDurationEncoder
	if format == "json" || (format == "auto" && !isTerminal(out)) {
		return zapcore.NewJSONEncoder(encoding)
	}
	encoding.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
	encoding.EncodeLevel = zapcore.CapitalLevelEncoder
	encoding.ConsoleSeparator = "  "
	return zapcore.NewConsoleEncoder(encoding)
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
