package ffmpeg

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// findings are what FFmpeg's log says of an input, of its decoding and of the cause of a
// failure. They are counted while FFmpeg writes it, so that a long log loses none. The
// texts are those of FFmpeg 5.1 to 7.1 (libavformat, libavcodec, fftools/ffmpeg*.c).
type findings struct {
	Packets      int64 // read of the video; -1 if not stated
	Frames       int64 // decoded of the video; -1 if not stated
	DecodeErrors int64 // frames of the video that the decoder refused or marked corrupt, after its first frame
	AudioErrors  int64 // likewise, packets of the audio
	AudioPackets int64 // read of the audio
	FramesIn     int64 // of the first output's rate filter, all of its graphs; -1 if not stated
	FramesOut    int64
	Damaged      int64  // places where the container or its packets were damaged
	PartsMissing int64  // segments that could not be read
	ReadError    string // why reading ended before its time; empty: it did not
	CutOff       bool   // the file ends within a packet or an element
	NewVideo     bool   // another video stream began while FFmpeg read
	HTTPStatus   int    // of a refused request
	FirstError   string // the first line that says why FFmpeg failed
	EncoderError string // the first line of an encoder that could not be opened
	// RefusedFormat is the demuxer of an input, or of a part of it, that is not allowed.
	RefusedFormat string `json:",omitempty"`
	HeaderError   bool   // the container does not take a stream
}

// encoderFailed is in the line that says that an encoder could not be opened. An encoder that
// gives a reason has logged it before.
const encoderFailed = "Error while opening encoder"

// maxLogLine bounds a line of FFmpeg's log that is looked at, in bytes.
const maxLogLine = 4096

// logReader reads FFmpeg's log: what people need goes into a buffer, and what it says
// about the input is counted.
type logReader struct {
	keep     *logBuffer
	input    string   // the URL that FFmpeg was given, with which it begins a read error
	decoders []string // codecs of the input, whose lines are no cause of a failure
	video    int      // index of the video stream; -1 if unknown
	found    findings
	decoding bool   // a frame of the video was decoded, or its first packet is a key frame
	fps      int64  // number of the rate filter that was counted
	kept     bool   // the last line went into the buffer
	cut      bool   // the last line is only the beginning of a long one, in which secrets are not recognized
	last     string // the last line, which the next one may say was repeated
}

func newLogReader(keep *logBuffer, input string, of media) *logReader {
	l := &logReader{keep: keep, input: input, decoders: of.codecs, video: -1, found: findings{Packets: -1, Frames: -1, FramesIn: -1}}
	if of.probed {
		l.video, l.decoding = of.index, of.indexed
	}
	return l
}

// read reads the log to its end.
func (l *logReader) read(in io.Reader) {
	lines := bufio.NewReaderSize(in, maxLogLine)
	for {
		line, err := lines.ReadSlice('\n')
		l.cut = errors.Is(err, bufio.ErrBufferFull)
		l.line(line)
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a long line
			if line, err = lines.ReadSlice('\n'); l.kept {
				_, _ = l.keep.Write(line)
			}
		}
		if err != nil {
			return
		}
	}
}

var (
	logLine       = regexp.MustCompile(`^((?:\[[^\]]* @ 0x[0-9a-f]+\] )*)\[(quiet|panic|fatal|error|warning|info|verbose|debug|trace)\] (.*)$`)
	encoderLine   = regexp.MustCompile(`^(?:Svt|x265) ?\[error\]: (?:Instance \d+: )?(.*)$`)
	repeatedLine  = regexp.MustCompile(`^    Last message repeated (\d+) times$`)
	videoGraph    = regexp.MustCompile(`^\[graph -?\d+ input from stream `) // set up by the first frame
	packetsRead   = regexp.MustCompile(`^  Input stream #0:\d+ \((video|audio)\): (\d+) packets read`)
	streamMapping = regexp.MustCompile(`^  Stream #0:\d+ -> #\d+:\d+ \((\w+) \(([^)]+)\) -> `)
	fpsInstance   = regexp.MustCompile(`^\[Parsed_fps_(\d+) @`)
	framesDecoded = regexp.MustCompile(`; (\d+) frames decoded`)
	fpsFilter     = regexp.MustCompile(`^(\d+) frames in, (\d+) frames out;`)
	badFrame      = regexp.MustCompile(`corrupt decoded frame(?: in stream (\d+))?$|^Error while decoding stream #0:(\d+): |^Error submitting packet to decoder: |^Decoding error: `)
	badContainer  = regexp.MustCompile(`max resync size reached|invalid as first byte of an EBML number|^Packet corrupt |corrupt input packet|PES packet size mismatch|^Packet mismatch`)
	missingPart   = regexp.MustCompile(`Failed to open (?:segment|fragment)`)
	endsEarly     = regexp.MustCompile(`File ended prematurely|: partial file$`)
	demuxError    = regexp.MustCompile(`^Error during demuxing: (.*)$`)
	httpError     = regexp.MustCompile(`HTTP error (\d{3})`)
	headerError   = regexp.MustCompile(`^Could not find tag for codec |^Could not write header`)
)

// line takes in a line with its end.
func (l *logReader) line(raw []byte) {
	text := string(bytes.TrimRight(raw, "\r\n"))
	if m := repeatedLine.FindStringSubmatch(text); m != nil {
		l.count(l.last, parseCount(m[1]))
	} else if m := logLine.FindStringSubmatch(text); m != nil {
		l.kept = m[2] != "verbose" && m[2] != "debug" && m[2] != "trace"
		l.last = text
		l.count(text, 1)
	} else if m := encoderLine.FindStringSubmatch(text); m != nil {
		l.kept = true
		l.cause(m[1])
	}
	if l.kept {
		_, _ = l.keep.Write(raw)
	}
}

// count counts a line that was logged n times.
func (l *logReader) count(line string, n int64) {
	m := logLine.FindStringSubmatch(line)
	if m == nil {
		return
	}
	from, level, text, f := m[1], m[2], m[3], &l.found
	switch {
	case level == "verbose":
		l.figures(from, text)
	case badFrame.MatchString(text):
		l.badFrames(from, text, n)
	case badContainer.MatchString(text):
		f.Damaged += n
	case missingPart.MatchString(text):
		f.PartsMissing += n
	case endsEarly.MatchString(text):
		f.CutOff = true
	case strings.HasPrefix(text, "Format not on whitelist"):
		if f.RefusedFormat == "" {
			f.RefusedFormat, _, _ = strings.Cut(strings.TrimLeft(from, "["), " @ ")
		}
	case strings.HasPrefix(text, "New video stream"):
		f.NewVideo = true
	case strings.Contains(text, "Stream ends prematurely"):
		f.ReadError = "the transfer ended early"
	case demuxError.MatchString(text):
		f.ReadError = demuxError.FindStringSubmatch(text)[1]
	case (level == "error" || level == "fatal") && !l.ofDecoder(from):
		l.failed(text)
	default:
		l.refused(text)
		if m := streamMapping.FindStringSubmatch(text); m != nil {
			l.decoders = append(l.decoders, m[1], m[2])
		}
	}
}

// figures takes in the counts that FFmpeg logs at its end.
func (l *logReader) figures(from, text string) {
	f := &l.found
	switch m := packetsRead.FindStringSubmatch(text); {
	case m == nil:
	case m[1] == "audio":
		f.AudioPackets += parseCount(m[2])
	default:
		f.Packets = max(f.Packets, parseCount(m[2]))
		if m := framesDecoded.FindStringSubmatch(text); m != nil {
			f.Frames = max(f.Frames, parseCount(m[1]))
		}
	}
	if videoGraph.MatchString(from) {
		l.decoding = true
	}
	if m, of := fpsFilter.FindStringSubmatch(text), fpsInstance.FindStringSubmatch(from); m != nil && of != nil {
		l.rateFilter(parseCount(of[1]), parseCount(m[1]), parseCount(m[2]))
	}
}

// rateFilter takes in the counts of a rate filter. The first output's has the lowest number;
// a change of the input's size replaces its graph by another with the same number.
func (l *logReader) rateFilter(number, in, out int64) {
	f := &l.found
	switch {
	case f.FramesIn < 0 || number < l.fps:
		l.fps, f.FramesIn, f.FramesOut = number, in, out
	case number == l.fps:
		f.FramesIn, f.FramesOut = f.FramesIn+in, f.FramesOut+out
	}
}

// badFrames counts frames that the decoder refused or marked as corrupt. Those of the
// video before its first frame are not counted: a recording may begin between key frames.
func (l *logReader) badFrames(from, text string, n int64) {
	isVideo := !strings.HasPrefix(from, "[aist#")
	m := badFrame.FindStringSubmatch(text)
	if stream := m[1] + m[2]; stream != "" && l.video >= 0 {
		isVideo = stream == strconv.Itoa(l.video)
	}
	switch {
	case !isVideo:
		l.found.AudioErrors += n
	case l.decoding:
		l.found.DecodeErrors += n
	}
}

// ofDecoder: the line is that of one of the input's decoders or parsers.
func (l *logReader) ofDecoder(from string) bool {
	name, _, _ := strings.Cut(strings.TrimPrefix(from, "["), " @ ")
	return name == "NULL" || name != "" && slices.Contains(l.decoders, name)
}

// failed takes in a line that may say why FFmpeg failed.
func (l *logReader) failed(text string) {
	f := &l.found
	l.refused(text)
	if why, ok := strings.CutPrefix(text, l.input+": "); ok && l.input != "" && l.decoding {
		f.ReadError = why
	}
	f.HeaderError = f.HeaderError || headerError.MatchString(text)
	l.cause(text)
	if strings.Contains(text, encoderFailed) && f.EncoderError == "" {
		f.EncoderError = f.FirstError
	}
}

// refused takes in a line that may state an HTTP status.
func (l *logReader) refused(text string) {
	if m := httpError.FindStringSubmatch(text); m != nil {
		l.found.HTTPStatus = int(parseCount(m[1]))
	}
}

// cause keeps the first of the lines that may say why FFmpeg failed.
func (l *logReader) cause(text string) {
	if l.found.FirstError == "" && !l.cut {
		l.found.FirstError = text
	}
}

func parseCount(digits string) int64 {
	n, _ := strconv.ParseInt(digits, 10, 64)
	return n
}
