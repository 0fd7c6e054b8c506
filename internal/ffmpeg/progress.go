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

// maxProgressLine bounds a line of -progress, in bytes; FFmpeg's are under 100.
const maxProgressLine = 4096

// progressReport is one block of FFmpeg's -progress output. A value that is not available
// in a block is that of the block before.
type progressReport struct {
	frames     int64
	dropped    int64
	duplicated int64         // to fill the time before and behind the frames of a filter
	fps        float64       // 0 if unknown, as in the first second
	speed      float64       // media seconds a second; 0 if unknown
	kbps       float64       // 0 if unknown
	outTime    time.Duration // never negative
	size       int64         // bytes, of the first output only; 0 if unknown
	end        bool          // the last block
}

// readProgress reads -progress output to its end and emits each block. Malformed and
// overlong lines are skipped: a broken report is no reason to fail an encode. The error is
// the reader's, nil at its end.
func readProgress(r io.Reader, emit func(progressReport)) error {
	lines := bufio.NewReaderSize(r, maxProgressLine)
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

// set sets one value; complete: it is the last one of a block.
func (p *progressReport) set(key, value string) (complete bool) {
	switch key {
	case "frame":
		setCount(&p.frames, value)
	case "dup_frames":
		setCount(&p.duplicated, value)
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
	case "out_time_us", "out_time_ms": // both are in microseconds, despite the name
		p.setOutTime(value)
	case "progress":
		p.end = value == "end"
		return true
	}
	return false
}

// setOutTime sets the media time from microseconds, which are negative while FFmpeg fills
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
