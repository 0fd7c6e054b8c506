package ffmpeg

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// progressLine bounds a line of -progress; FFmpeg's own stay under 100 bytes.
const progressLine = 4096

// progressReport is one block of FFmpeg's -progress output. A value that FFmpeg
// does not know in this block keeps what the blocks before it said.
type progressReport struct {
	frames  int64
	dropped int64
	fps     float64       // 0 while FFmpeg does not know it, which is the first second or so
	speed   float64       // media seconds a second; 0 while unknown
	kbps    float64       // 0 while unknown
	outTime time.Duration // never negative
	size    int64         // bytes, of the first output alone; 0 while unknown
	end     bool          // FFmpeg's last report
}

// readProgress reads -progress output to its end and hands over each block. Lines
// that make no sense, or no end, are passed over: a broken report is no reason to
// fail an encode. The error is that of the reader, nil at its end.
func readProgress(r io.Reader, emit func(progressReport)) error {
	lines := bufio.NewReaderSize(r, progressLine)
	var report progressReport
	for {
		line, err := lines.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if !tooLong {
			if key, value, ok := bytes.Cut(bytes.TrimSpace(line), []byte("=")); ok && report.set(string(key), strings.TrimSpace(string(value))) {
				emit(report)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// set takes one key; it reports whether that was the last of a block.
func (p *progressReport) set(key, value string) (complete bool) {
	switch key {
	case "frame":
		setCount(&p.frames, value)
	case "drop_frames":
		setCount(&p.dropped, value)
	case "total_size":
		setCount(&p.size, value)
	case "fps":
		setNumber(&p.fps, value)
	case "speed":
		setNumber(&p.speed, strings.TrimSuffix(value, "x"))
	case "bitrate":
		setNumber(&p.kbps, strings.TrimSuffix(value, "kbits/s"))
	case "out_time_us", "out_time_ms": // both are in microseconds, whatever the name says
		p.setOutTime(value)
	case "progress":
		p.end = value == "end"
		return true
	}
	return false
}

// setOutTime takes media time in microseconds. It is negative while FFmpeg fills
// its buffers.
func (p *progressReport) setOutTime(value string) {
	us, err := strconv.ParseInt(value, 10, 64)
	if err != nil || us > math.MaxInt64/int64(time.Microsecond) {
		return
	}
	p.outTime = max(p.outTime, time.Duration(max(us, 0))*time.Microsecond)
}

func setCount(into *int64, value string) {
	if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
		*into = max(*into, n)
	}
}

func setNumber(into *float64, value string) {
	if f, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil && f >= 0 && !math.IsInf(f, 0) {
		*into = f
	}
}
