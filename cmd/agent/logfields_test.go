package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"go.uber.org/zap"

	"ffmpeg-agent/configs"
)

func TestLogLinesAreBoundedAndPrintable(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		var out bytes.Buffer
		log := newLogger(configs.Log{Level: "info", Format: format}, &out)
		huge := strings.Repeat("x", 900_000)
		log.With(zap.String("job", huge)).Warn("a\u009bb", zap.Error(errors.New(huge)), zap.String("id", "c\u202ed\u2028e\x1b[2J"), zap.Any("any", []string{huge}),
			zap.Strings("args", []string{"f\u009bg"}))
		log.close()
		line := out.String()
		if len(line) > 10_000 || strings.ContainsAny(line, "\u009b\u202e\u2028\x1b") || strings.Count(line, "\n") != 1 {
			t.Errorf("%s: %d bytes: %.300q", format, len(line), line)
		}
		if format == "json" && !json.Valid(out.Bytes()) {
			t.Errorf("not JSON: %.300q", line)
		}
	}
}
