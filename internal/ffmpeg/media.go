package ffmpeg

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// media is what a probe found out about a job's input. The zero value is that of an input
// that was not probed, such as a live one.
type media struct {
	probed bool
	size   size // as decoded: turned, where the input says so
	fps    rate // mean
	// uneven: its frames are not equally spaced.
	uneven bool
	// length is how long the video is at least; 0 where its container does not say.
	length time.Duration
	// indexed: the file lists its packets, and begins with a key frame.
	indexed bool
	// playlist: the length is that of segments, and may be rounded.
	playlist bool
	// indexLast: the file may end with an index that no encode needs.
	indexLast bool
	// exact: the container derives that length from an index or states it of the track.
	exact   bool
	guessed time.Duration // length of the longest track, by ffprobe's estimate
	index   int           // of the video stream
	codecs  []string      // of all streams
	audio   []probedStream
	track   int // index among the audio tracks of the one that is encoded; -1: none can be

	sar        string   // sample aspect ratio, such as 16:15; empty if unknown
	interlaced string   // field order, such as "top field first"; empty: progressive or unknown
	bits       int      // a sample
	transfer   string   // such as smpte2084
	rgb        bool     // its samples are RGB
	leftOut    []string // tracks beside the audio that are not encoded, counted by kind
	several    bool     // a transport stream with several videos
}

// media reads what ffprobe reports of an input.
func (p *probed) media() (of media) {
	video, ok := p.video()
	if p.Error != nil || !ok {
		return of
	}
	of = media{
		probed: true, index: video.Index, size: video.size(), guessed: parseSeconds(p.Format.Duration),
		sar: video.SAR, interlaced: fieldOrders[video.FieldOrder],
		bits: video.bits(), transfer: video.Transfer, rgb: rgbFormat.MatchString(video.PixelFormat),
	}
	of.length, of.exact = p.videoLength(video)
	of.fps, of.uneven = video.rate()
	for _, s := range p.Streams {
		of.codecs = append(of.codecs, s.Codec)
	}
	of.audio = p.tracks("audio")
	of.track = bestAudio(of.audio)
	of.leftOut = p.leftOut()
	of.several = p.isFormat("mpegts") && len(p.tracks("video")) > 1
	of.indexed, of.indexLast, of.playlist = p.isFormat("mov"), p.isFormat("matroska"), p.isFormat("hls", "dash")
	return of
}

var fieldOrders = map[string]string{
	"tt": "top field first", "tb": "top field first", "bb": "bottom field first", "bt": "bottom field first",
}

var (
	deepFormat = regexp.MustCompile(`(9|10|12|14|16)(?:le|be)$`)
	rgbFormat  = regexp.MustCompile(`^(?:x2|[ax0]?)(?:rgb|bgr|gbr)|^pal8$`)
)

// bits is the number of bits of a sample: 10 of yuv420p10le.
func (s *probedStream) bits() int {
	if m := deepFormat.FindStringSubmatch(s.PixelFormat); m != nil {
		return int(parseCount(m[1]))
	}
	return 8
}

// tracks are the streams of a kind, without pictures that are attached.
func (p *probed) tracks(kind string) []probedStream {
	var of []probedStream
	for _, s := range p.Streams {
		if s.Type == kind && s.Disposition.AttachedPicture == 0 {
			of = append(of, s)
		}
	}
	return of
}

// decodable: this FFmpeg has a decoder for the audio track, without which ffprobe cannot
// find its parameters.
func (s *probedStream) decodable() bool { return s.SampleFormat != "" && s.Channels > 0 }

func (s *probedStream) codecName() string { return cmp.Or(s.Codec, "an unknown codec") }

// bestAudio chooses a track: one that is marked as default, else the first, of those that
// this FFmpeg can decode. -1: none.
func bestAudio(tracks []probedStream) int {
	best := -1
	for i, s := range tracks {
		switch {
		case !s.decodable():
		case best < 0, s.Disposition.Default == 1 && tracks[best].Disposition.Default == 0:
			best = i
		}
	}
	return best
}

// leftOut names the tracks beside the audio that no encode takes, counted by kind.
func (p *probed) leftOut() (names []string) {
	for _, kind := range []struct {
		name  string
		count int
	}{{"video", len(p.tracks("video")) - 1}, {"subtitle", len(p.tracks("subtitle"))}} {
		if kind.count > 0 {
			names = append(names, tracksText(kind.count, kind.name))
		}
	}
	return names
}

func tracksText(n int, kind string) string {
	if n == 1 {
		return "1 " + kind + " track"
	}
	return fmt.Sprintf("%d %s tracks", n, kind)
}

// videoLength is how long the video is at least, without its start offset; 0 where its
// container does not say, as transport and raw streams, whose length ffprobe guesses.
func (p *probed) videoLength(video probedStream) (length time.Duration, exact bool) {
	whole := parseSeconds(p.Format.Duration)
	switch {
	case p.isFormat("mov", "mxf", "avi"): // from the index
		return parseSeconds(video.Duration), true
	case p.isFormat("matroska"):
		// A tag states the time of the track's end (matroskaenc.c, mkvmerge). It may be left
		// from an earlier file, so the length of this file bounds it.
		if end := parseClock(video.Tags.Duration); end > 0 {
			return max(0, min(end, whole)-parseSeconds(video.Start)), true
		}
		return p.alone(whole - p.start()), true
	case p.isFormat("flv", "asf", "nut"):
		return p.alone(whole - p.start()), false
	case p.isFormat("hls", "dash"):
		return whole, false
	}
	return 0, false
}

// alone is the length of a file unless another track or a chapter may be what lasts so long.
func (p *probed) alone(length time.Duration) time.Duration {
	if len(p.Chapters) > 0 || len(p.tracks("subtitle")) > 0 || len(p.tracks("audio")) > 0 {
		return 0
	}
	return max(0, length)
}

func (p *probed) isFormat(names ...string) bool {
	return slices.ContainsFunc(strings.Split(p.Format.Name, ","), func(f string) bool { return slices.Contains(names, f) })
}

// start is the time at which the file begins; 0 if it is not later.
func (p *probed) start() time.Duration { return parseSeconds(p.Format.Start) }

// parseSeconds reads a length; 0 if it is unknown or negative.
func parseSeconds(s string) time.Duration { return max(0, parseOffset(s)) }

// parseOffset reads seconds, which may be negative; 0 if unknown.
func parseOffset(s string) time.Duration {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > math.MaxInt32 {
		return 0
	}
	return time.Duration(math.Round(f*1e6)) * time.Microsecond
}

// parseClock reads HH:MM:SS.fraction; 0 if it is none.
func parseClock(s string) time.Duration {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return 0
	}
	h, err1 := strconv.ParseUint(parts[0], 10, 16)
	m, err2 := strconv.ParseUint(parts[1], 10, 8)
	if err1 != nil || err2 != nil || m > 59 {
		return 0
	}
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + parseSeconds(parts[2])
}
