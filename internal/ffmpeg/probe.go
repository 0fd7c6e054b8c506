package ffmpeg

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Bounds of a probe.
const (
	probeLocalTimeout   = 2 * time.Minute
	probeNetworkTimeout = 20 * time.Second
	maxProbeOutput      = 4 << 20 // bytes
)

// probed is the part of ffprobe's report on a file that is used here.
type probed struct {
	Streams []probedStream `json:"streams"`
	Format  struct {
		Name     string `json:"format_name"`
		Start    string `json:"start_time"`
		Duration string `json:"duration"`
	} `json:"format"`
	Chapters []struct {
		ID int64 `json:"id"`
	} `json:"chapters"`
	Error *probeError `json:"error"`
}

type probedStream struct {
	Index        int    `json:"index"`
	Type         string `json:"codec_type"`
	Codec        string `json:"codec_name"`
	Width        int    `json:"width"`
	Height       int    `json:"height"`
	SAR          string `json:"sample_aspect_ratio"`
	PixelFormat  string `json:"pix_fmt"`
	FieldOrder   string `json:"field_order"`
	Transfer     string `json:"color_transfer"`
	Rate         string `json:"avg_frame_rate"` // mean, such as 30000/1001; 0/0 if unknown
	BaseRate     string `json:"r_frame_rate"`   // lowest rate at which the time of every frame is exact
	Start        string `json:"start_time"`
	Duration     string `json:"duration"`
	Frames       string `json:"nb_frames"`  // from the container
	SampleFormat string `json:"sample_fmt"` // empty: no decoder for the audio
	Channels     int    `json:"channels"`
	Tags         struct {
		Duration string `json:"DURATION"`
	} `json:"tags"`
	Disposition struct {
		Default         int `json:"default"`
		AttachedPicture int `json:"attached_pic"`
	} `json:"disposition"`
	SideData []struct {
		Rotation float64 `json:"rotation"` // degrees
	} `json:"side_data_list"`
}

// probeError is FFmpeg's error number and text.
type probeError struct {
	Code  int    `json:"code"`
	Text  string `json:"string"`
	cause string // the first line of ffprobe's log, where it says more than the text

	format string // the demuxer that was refused
}

func (e *probeError) String() string {
	text := e.Text
	if text == "" {
		text = fmt.Sprintf("error %d", e.Code)
	}
	if e.cause != "" {
		text += ": " + e.cause
	}
	return text
}

// video returns the stream that is encoded: the first that is not a cover picture.
func (p *probed) video() (probedStream, bool) {
	if tracks := p.tracks("video"); len(tracks) > 0 {
		return tracks[0], true
	}
	return probedStream{}, false
}

// size is that of the pictures that FFmpeg decodes: it turns them as the file says.
func (s *probedStream) size() size {
	for _, d := range s.SideData {
		if math.Abs(math.Remainder(d.Rotation, 180)) > 45 {
			return size{s.Height, s.Width}
		}
	}
	return size{s.Width, s.Height}
}

// rate is the frame rate to encode the stream with; zero if unknown. A mean that is close
// to the base rate differs by the rounding of times and by the last frame's length alone,
// and the fields of interlaced pictures have twice their rate.
func (s *probedStream) rate() (r rate, uneven bool) {
	mean, known := parseRate(s.Rate)
	base, hasBase := parseRate(s.BaseRate)
	switch f := base.float() / mean.float(); {
	case !known:
		return base, false
	case !hasBase || f == 1 || f == 2:
		return mean, false
	case f > 0.99 && f < 1.01:
		return base, false
	case f > 1.98 && f < 2.02 && s.FieldOrder != "progressive":
		return rate{base.num, 2 * base.den}, false
	}
	if base.float() <= maxEvenRate { // keeps every frame
		return base, true
	}
	return mean, true
}

// maxEvenRate is the highest rate that frames of uneven distance are encoded at, to keep
// each of them; above it they are encoded at their mean rate.
const maxEvenRate = 60

// probe runs ffprobe on a URL. What is wrong with the file is part of the report, not an
// error.
func (r *Run) probe(ctx context.Context, url string, options ...string) (probed, error) {
	var report []byte
	args := append([]string{"-v", "level+error", "-of", "json", "-show_error", "-show_entries",
		"format=format_name,start_time,duration:stream=index,codec_type,codec_name,width,height,sample_aspect_ratio,pix_fmt,field_order,color_transfer," +
			"avg_frame_rate,r_frame_rate,start_time,duration,nb_frames,sample_fmt,channels:stream_tags=DURATION:" +
			"stream_disposition=default,attached_pic:stream_side_data=rotation:chapter=id"}, options...)
	c := r.command(r.tools.ffprobe, append(args, "-i", url))
	c.Stdout = func(in io.Reader) { report, _ = io.ReadAll(io.LimitReader(in, maxProbeOutput)) }
	log := newLogReader(new(logBuffer), url, media{})
	c.Stderr = log.read
	exit, err := r.runHelper(ctx, c)
	if err != nil {
		return probed{}, fmt.Errorf("running ffprobe: %w", err)
	}
	var p probed
	if err := json.Unmarshal(report, &p); err != nil {
		return probed{}, fmt.Errorf("ffprobe: %s, and its report cannot be parsed: %w", exit, err)
	}
	if !exit.OK() && p.Error == nil {
		return probed{}, fmt.Errorf("ffprobe: %s", exit)
	}
	if p.Error != nil && !strings.HasSuffix(log.found.FirstError, p.Error.Text) {
		p.Error.cause = log.found.FirstError
	}
	if p.Error != nil {
		p.Error.format = log.found.RefusedFormat
	}
	return p, nil
}

// ownOutput are the options to read an output: a file in one of the formats of containers.
var ownOutput = whitelist([]string{"file"}, "mov,matroska,webm,mpegts,flv,live_flv,avi")

// slowDisk is what a slow disk reads, bytes/s.
const slowDisk = 10 << 20

// diskTime is how long a slow disk takes for an amount of bytes.
func diskTime(bytes int64) time.Duration { return time.Duration(bytes/slowDisk) * time.Second }

// probeOutput probes an output of a certain size and measures its video by its packets.
func (r *Run) probeOutput(ctx context.Context, url string, size int64) (p probed, video packets, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeLocalTimeout+diskTime(size))
	defer cancel()
	p, err = r.probe(ctx, url, ownOutput...)
	if err != nil || p.Error != nil {
		return p, video, err
	}
	v, ok := p.video()
	if n, err := strconv.ParseInt(v.Frames, 10, 64); err == nil && ok && p.isFormat("mov") {
		return p, packets{count: n, length: parseSeconds(v.Duration)}, nil // the index lists them
	}
	args := append([]string{"-v", "quiet", "-select_streams", "V:0", "-show_entries", "packet=pts_time,dts_time,duration_time,size", "-of", "compact=p=0"}, ownOutput...)
	c := r.command(r.tools.ffprobe, append(args, "-i", url))
	c.Stdout = func(in io.Reader) { video = readPackets(in) }
	_, err = r.runHelper(ctx, c)
	return p, video, err
}

// packets are what a stream's packets come to.
type packets struct {
	count  int64
	length time.Duration // from the first presentation time to the end of the last packet
}

// packetFields are the fields of a line of ffprobe's compact form, by name.
func packetFields(line string) map[string]string {
	fields := map[string]string{}
	for _, f := range strings.Split(line, "|") {
		key, value, _ := strings.Cut(f, "=")
		fields[key] = value
	}
	return fields
}

// readPackets reads ffprobe's lines such as
// "pts_time=0.08|dts_time=0.04|duration_time=0.04|size=1234". Empty packets, with which AVI
// fills gaps, are no frames.
func readPackets(in io.Reader) packets {
	var count int64
	var first, end time.Duration
	for lines := bufio.NewScanner(in); lines.Scan(); {
		fields := packetFields(lines.Text())
		at, ok := fields["pts_time"]
		if !ok || at == "N/A" {
			at = fields["dts_time"]
		}
		if size, err := strconv.ParseInt(fields["size"], 10, 64); err != nil || size <= 0 {
			continue
		}
		begin := parseOffset(at)
		if count == 0 || begin < first {
			first = begin
		}
		end = max(end, begin+parseSeconds(fields["duration_time"]))
		count++
	}
	return packets{count, max(0, end-first)}
}

// probeInput probes the job's input, once.
func (r *Run) probeInput(ctx context.Context) (probed, error) {
	in := r.files.input
	timeout := probeLocalTimeout
	if in.network {
		timeout = probeNetworkTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return r.input.get(ctx, func(ctx context.Context) (probed, error) { return r.probe(ctx, in.url, in.options...) })
}

// checkMedia reports what is wrong with an input that was probed; nil: nothing.
func (r *Run) checkMedia(p probed) *job.Failure {
	name := quote("input", r.plan.input)
	if f := r.relayFailure(); f != nil && p.Error != nil {
		return f
	}
	if p.Error != nil {
		f := inputFailure(*p.Error, r.files.input.network)
		if bytes := r.Snapshot().Encode.InputBytes; r.lacks > 0 {
			f.Message = fmt.Sprintf("the file is cut off: it has %d of %d bytes", bytes, bytes+r.lacks)
		}
		if p.Error.format != "" {
			f = formatRefused(p.Error.format)
		}
		if kind := pictureType(r.files.inputPath); kind != "" {
			f.Message = fmt.Sprintf("a picture (%s), not a video", kind)
		}
		f.Message = fmt.Sprintf("input %s: %s", name, f.Message)
		return f
	}
	if _, ok := p.video(); !ok {
		return failure(protocol.ReasonInputError, "input %s: no video stream", name)
	}
	return nil
}

// formatRefused is the failure of an input whose demuxer is not allowed: the job's fault where
// an operator could allow it, otherwise the input's, which is no video.
func formatRefused(format string) *job.Failure {
	reason := protocol.ReasonInputError
	for name := range strings.SplitSeq(format, ",") {
		if slices.Contains(strings.Split(selfContained, ","), name) {
			reason = protocol.ReasonUserError
		}
	}
	return failure(reason, "format %s is not allowed (jobs.input_formats)", show(format))
}

// pictureType is the type of a file that is a still picture, which inputs may not be;
// empty otherwise.
func pictureType(path string) string {
	f, err := reach.OpenRegular(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 512) // as much as DetectContentType looks at
	n, _ := io.ReadFull(f, head)
	if kind := http.DetectContentType(head[:n]); strings.HasPrefix(kind, "image/") {
		return kind
	}
	return ""
}

// checkInput finds out, after FFmpeg failed, whether the job's input is the cause; nil
// when it is not, or the job has none.
func (r *Run) checkInput(ctx context.Context) *job.Failure {
	if r.plan.input == "" {
		return nil
	}
	network := r.files.input.network
	p, err := r.probeInput(ctx)
	switch {
	case network && errors.Is(err, context.DeadlineExceeded):
		return failure(protocol.ReasonNetworkError, "input %s: timeout after %s", quote("input", r.plan.input), probeNetworkTimeout)
	case err != nil:
		return nil
	}
	if f := r.checkMedia(p); f != nil {
		return f
	}
	if network {
		return nil
	}
	if decodes, why := r.decodes(ctx); !decodes {
		return failure(protocol.ReasonInputError, "input %s: cannot be decoded%s", quote("input", r.plan.input), why)
	}
	return nil
}

// decodes reports whether FFmpeg can decode as much of the input as the job uses, and why
// not. An input that takes longer than a probe may counts as decodable.
func (r *Run) decodes(ctx context.Context) (ok bool, why string) {
	ctx, cancel := context.WithTimeout(ctx, probeLocalTimeout)
	defer cancel()
	args := append([]string{"-nostdin", "-v", "level+error", "-max_error_rate", "1"}, r.files.input.args()...)
	args = append(args, "-map", "0:V:0", "-t", seconds(r.plan.maxMedia()), "-f", "null", "-")
	c := r.command(r.tools.ffmpeg, args)
	log := newLogReader(new(logBuffer), r.files.input.url, media{})
	c.Stderr = log.read
	exit, err := r.runHelper(ctx, c)
	if first := log.found.FirstError; first != "" {
		why = ": " + first
	}
	return err != nil || exit.OK() || exit.Signal != 0, why
}

// lazy is a value that is computed once; a failed computation is repeated by the next
// caller.
type lazy[T any] struct {
	mu    sync.Mutex
	known bool
	value T
}

func (l *lazy[T]) get(ctx context.Context, compute func(context.Context) (T, error)) (T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known {
		return l.value, nil
	}
	v, err := compute(ctx)
	if err != nil {
		return v, err
	}
	l.value, l.known = v, true
	return v, nil
}
