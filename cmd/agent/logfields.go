package main

import (
	"fmt"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"ffmpeg-agent/internal/safetext"
)

// maxFieldText bounds a text in a log line, in characters: ids and errors come from masters
// and servers. A stack is longer.
const maxFieldText = 2000

// boundedCore cuts the texts of fields.
type boundedCore struct{ zapcore.Core }

func (c boundedCore) With(fields []zapcore.Field) zapcore.Core {
	return boundedCore{c.Core.With(boundFields(fields))}
}

func (c boundedCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c boundedCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	entry.Message = boundText(entry.Message)
	return c.Core.Write(entry, boundFields(fields))
}

func boundText(text string) string { return safetext.Shorten(text, maxFieldText) }

// boundFields returns fields with their texts bounded. A stack stays.
func boundFields(fields []zapcore.Field) []zapcore.Field {
	bounded := make([]zapcore.Field, len(fields))
	for i, f := range fields {
		switch f.Type {
		case zapcore.StringType:
			f.String = boundText(f.String)
		case zapcore.ErrorType:
			if err, ok := f.Interface.(error); ok && err != nil {
				f = zap.String(f.Key, boundText(err.Error()))
			}
		case zapcore.ReflectType, zapcore.ArrayMarshalerType:
			if text := fmt.Sprint(f.Interface); len(text) > 4*maxFieldText { // FFmpeg's arguments are no more
				f = zap.String(f.Key, boundText(text))
			}
		}
		bounded[i] = f
	}
	return bounded
}
