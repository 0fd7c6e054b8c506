package ffmpeg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

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
		Duration string `json:"duration"`
	} `json:"format"`
	Error *probeError `json:"error"`
}

type probedStream struct {
	Type        string `json:"codec_type"`
	Width       int    `json:"width"`
	Height      int    `json:"height"`
	Rate        string `json:"avg_frame_rate"` // mean, such as 30000/1001; 0/0 if unknown
	BaseRate    string `json:"r_frame_rate"`   // lowest at which the time of every frame can be told
	Duration    string `json:"duration"`
	Frames      string `json:"nb_frames"`       // from the container
	Packets     string `json:"nb_read_packets"` // as counted
	Disposition struct {
		AttachedPicture int `json:"attached_pic"`
	} `json:"disposition"`
	SideData []struct {
		Rotation float64 `json:"rotation"` // degrees
	} `json:"side_data_list"`
}

// probeError is FFmpeg's error number and text.
type probeError struct {
	Code int    `json:"code"`
	Text string `json:"string"`
}

// video returns the stream that is encoded: the first that is not a cover picture.
func (p *probed) video() (probedStream, bool) {
	i := slices.IndexFunc(p.Streams, func(s probedStream) bool { return s.Type == "video" && s.Disposition.AttachedPicture == 0 })
	if i < 0 {
		return probedStream{}, false
	}
	return p.Streams[i], true
}

// frames is the number of frames; false when it was neither stated nor counted.
func (s *probedStream) frames() (int64, bool) {
	for _, text := range []string{s.Packets, s.Frames} {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, true
		}
	}
	return 0, false
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
	case f > 1.98 && f < 2.02:
		return rate{base.num, 2 * base.den}, false
	}
	return mean, true
}

// picture is what is known of the video that is encoded.
func (p *probed) picture() (of picture) {
	if video, ok := p.video(); ok && p.Error == nil {
		of.size = video.size()
		of.fps, of.uneven = video.rate()
	}
	return of
}

// duration is the length of the media; 0 if unknown.
func (p *probed) duration() time.Duration { return parseSeconds(p.Format.Duration) }

// length is how much media an encode of this input yields; 0 when the container does not
// state its length, which ffprobe then estimates.
func (p *probed) length(sound bool) time.Duration {
	stated := false
	for _, name := range strings.Split(p.Format.Name, ",") {
		stated = stated || slices.Contains([]string{"mov", "matroska", "avi", "flv", "asf", "mxf", "nut"}, name)
	}
	video, ok := p.video()
	if !stated || !ok {
		return 0
	}
	longest := parseSeconds(video.Duration)
	if longest == 0 {
		return p.duration()
	}
	if sound {
		for _, s := range p.Streams {
			if s.Type == "audio" { // the first one is encoded
				return max(longest, parseSeconds(s.Duration))
			}
		}
	}
	return longest
}

func parseSeconds(s string) time.Duration {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > math.MaxInt32 {
		return 0
	}
	return time.Duration(math.Round(f*1e6)) * time.Microsecond
}

// probe runs ffprobe on a URL. What is wrong with the file is part of the report, not an
// error.
func (r *Run) probe(ctx context.Context, url string, options ...string) (probed, error) {
	var report []byte
	args := append([]string{"-v", "quiet", "-of", "json", "-show_error", "-show_entries",
		"format=format_name,duration:stream=codec_type,width,height,avg_frame_rate,r_frame_rate,duration,nb_frames,nb_read_packets:" +
			"stream_disposition=attached_pic:stream_side_data=rotation"}, options...)
	c := command(r.tools.ffprobe, r.workspace, append(args, "-i", url)...)
	c.Files = r.files.inherited()
	c.Stdout = func(in io.Reader) { report, _ = io.ReadAll(io.LimitReader(in, maxProbeOutput)) }
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
	return p, nil
}

// ownOutput are the options to read an output: a file that refers to no other one.
var ownOutput = whitelist([]string{"file"}, selfContained)

// slowDisk is what a slow disk reads, bytes/s.
const slowDisk = 10 << 20

// probeOutput probes an output of a certain size. Where its container does not state the
// number of frames, they are counted, which reads the whole file.
func (r *Run) probeOutput(ctx context.Context, url string, size int64) (probed, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLocalTimeout+time.Duration(size/slowDisk)*time.Second)
	defer cancel()
	p, err := r.probe(ctx, url, ownOutput...)
	if err != nil || p.Error != nil {
		return p, err
	}
	if v, ok := p.video(); ok {
		if _, known := v.frames(); known {
			return p, nil
		}
	}
	return r.probe(ctx, url, append(slices.Clone(ownOutput), "-select_streams", "v:0", "-count_packets")...)
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
		return failure(protocol.ReasonNetworkError, "input %s: timeout after %s", r.redactor.redact(show(r.plan.input)), probeNetworkTimeout)
	case err != nil:
		return nil
	case p.Error != nil:
		f := inputFailure(*p.Error, network)
		f.Message = r.redactor.redact("input " + show(r.plan.input) + ": " + f.Message)
		return f
	}
	if _, ok := p.video(); !ok {
		return failure(protocol.ReasonInputError, "input %s: no video stream", r.redactor.redact(show(r.plan.input)))
	}
	if !network && !r.decodes(ctx) {
		return failure(protocol.ReasonInputError, "input %s: cannot be decoded", r.redactor.redact(show(r.plan.input)))
	}
	return nil
}

// decodes reports whether FFmpeg can decode as much of the input as the job uses. An input
// that takes longer than a probe may counts as decodable.
func (r *Run) decodes(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeLocalTimeout)
	defer cancel()
	args := append([]string{"-nostdin", "-v", "quiet"}, r.files.input.args()...)
	args = append(args, "-map", "0:V:0", "-t", seconds(r.plan.maxMedia()), "-f", "null", "-")
	c := command(r.tools.ffmpeg, r.workspace, args...)
	c.Files = r.files.inherited()
	exit, err := r.runHelper(ctx, c)
	return err != nil || exit.OK() || exit.Signal != 0
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
