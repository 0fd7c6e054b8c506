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
	"time"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Bounds of a look at a file or an address.
const (
	probeLocal   = 2 * time.Minute
	probeNetwork = 20 * time.Second
	probeOutput  = 4 << 20 // bytes of ffprobe's answer
)

// probed is what ffprobe says of one file, as far as it is asked.
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
	Duration    string `json:"duration"`
	Frames      string `json:"nb_frames"`       // as the container says
	Packets     string `json:"nb_read_packets"` // as counted
	Disposition struct {
		AttachedPicture int `json:"attached_pic"`
	} `json:"disposition"`
}

// probeError is FFmpeg's error number and its words for people.
type probeError struct {
	Code int    `json:"code"`
	Text string `json:"string"`
}

// video returns the stream that is encoded: the first that is no cover picture.
func (p *probed) video() (probedStream, bool) {
	i := slices.IndexFunc(p.Streams, func(s probedStream) bool { return s.Type == "video" && s.Disposition.AttachedPicture == 0 })
	if i < 0 {
		return probedStream{}, false
	}
	return p.Streams[i], true
}

// frames is the number of a stream's frames; false when it was neither said nor counted.
func (s *probedStream) frames() (int64, bool) {
	for _, text := range []string{s.Packets, s.Frames} {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, true
		}
	}
	return 0, false
}

// duration is the media's length; 0 when it is not known.
func (p *probed) duration() time.Duration { return parseSeconds(p.Format.Duration) }

// length is how much media an encode of this input gets out of it; 0 when the
// container does not say so itself but ffprobe guesses.
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
			if s.Type == "audio" { // the first is taken
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

// probe asks ffprobe about a file or an address. That the file is bad is no error
// but in the answer.
func (r *Run) probe(ctx context.Context, url string, options ...string) (probed, error) {
	var out []byte
	args := append([]string{"-v", "quiet", "-of", "json", "-show_error", "-show_entries",
		"format=format_name,duration:stream=codec_type,width,height,duration,nb_frames,nb_read_packets:stream_disposition=attached_pic"}, options...)
	c := command(r.tools.ffprobe, r.workspace, append(args, "-i", url)...)
	c.Files = r.place.files()
	c.Stdout = func(in io.Reader) { out, _ = io.ReadAll(io.LimitReader(in, probeOutput)) }
	exit, err := r.finish(ctx, c)
	if err != nil {
		return probed{}, fmt.Errorf("running ffprobe: %w", err)
	}
	var p probed
	if err := json.Unmarshal(out, &p); err != nil {
		return probed{}, fmt.Errorf("ffprobe: %s, and an answer that cannot be read: %w", exit, err)
	}
	if !exit.OK() && p.Error == nil {
		return probed{}, fmt.Errorf("ffprobe: %s", exit)
	}
	return p, nil
}

// ownOutput are the options to read an output with: a file that names no other.
var ownOutput = whitelist([]string{"file"}, selfContained)

// countingRate is what a slow disk reads in a second, bytes.
const countingRate = 10 << 20

// probeMade looks at an output of so many bytes; frames that its container does not
// tell are counted, for which all of it is read.
func (r *Run) probeMade(ctx context.Context, url string, size int64) (probed, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLocal+time.Duration(size/countingRate)*time.Second)
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

// probeInput looks at the job's input, once.
func (r *Run) probeInput(ctx context.Context) (probed, error) {
	in := r.place.input
	limit := probeLocal
	if in.network {
		limit = probeNetwork
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return r.input.get(ctx, func(ctx context.Context) (probed, error) { return r.probe(ctx, in.url, in.options...) })
}

// judgeInput finds out, after FFmpeg failed, whether the job's input is to blame;
// nil when it is not, or the job has none.
func (r *Run) judgeInput(ctx context.Context) *job.Failure {
	if r.plan.input == "" {
		return nil
	}
	network := r.place.input.network
	p, err := r.probeInput(ctx)
	switch {
	case network && errors.Is(err, context.DeadlineExceeded):
		return failure(protocol.ReasonNetworkError, "input %s: no answer within %s", r.secret.hide(show(r.plan.input)), probeNetwork)
	case err != nil:
		return nil
	case p.Error != nil:
		f := inputFailure(*p.Error, network)
		f.Message = r.secret.hide("input " + show(r.plan.input) + ": " + f.Message)
		return f
	}
	if _, ok := p.video(); !ok {
		return failure(protocol.ReasonInputError, "input %s: it holds no video", r.secret.hide(show(r.plan.input)))
	}
	if !network && !r.decodes(ctx) {
		return failure(protocol.ReasonInputError, "input %s: it cannot be decoded", r.secret.hide(show(r.plan.input)))
	}
	return nil
}

// decodes tries whether FFmpeg can decode as much of the input as the job wants,
// within the time of a probe. An input that takes longer has shown that it can be read.
func (r *Run) decodes(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeLocal)
	defer cancel()
	args := append([]string{"-nostdin", "-v", "quiet"}, r.place.input.args()...)
	args = append(args, "-map", "0:V:0", "-t", seconds(r.plan.timeLimit()), "-f", "null", "-")
	c := command(r.tools.ffmpeg, r.workspace, args...)
	c.Files = r.place.files()
	exit, err := r.finish(ctx, c)
	return err != nil || exit.OK() || exit.Signal != 0
}

// timeLimit is how much of the input the job can use.
func (p *plan) timeLimit() time.Duration {
	if p.whole {
		return maxDuration
	}
	return p.duration
}
