package ffmpeg

import (
	"bufio"
	"context"
	"io"
	"strconv"
	"time"
)

// scanned is what an input's packets show of damage to its container.
type scanned struct {
	lost      time.Duration // of the video, where bytes were skipped
	elsewhere bool          // the video goes on in another stream
	end       int64         // of the packets, in bytes from the start of the file
	stopped   bool          // ffprobe stopped at large damage, which FFmpeg does not
}

// scanInput reads the packets of a stored input once more: where FFmpeg reported damage, or
// where a transport stream has several videos. Gaps in time stamps are damage only where the
// demuxer skipped bytes.
func (r *Run) scanInput(ctx context.Context) (s scanned) {
	in, of := r.files.input, r.source
	damaged := r.found.Damaged > 0 && !of.indexed
	if r.origin() != originStored || !damaged && !r.found.NewVideo && !of.several {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, probeLocalTimeout+diskTime(r.Snapshot().Encode.InputBytes))
	defer cancel()
	args := append([]string{"-v", "quiet", "-show_entries", "packet=codec_type,stream_index,pts_time,dts_time,duration_time,pos,size", "-of", "compact=p=0"}, in.options...)
	c := r.command(r.tools.ffprobe, append(args, "-i", in.url))
	c.Stdout = func(out io.Reader) { s = scanPackets(out, of.index) }
	if _, err := r.runHelper(ctx, c); err != nil {
		return scanned{}
	}
	size := r.Snapshot().Encode.InputBytes
	s.stopped = damaged && s.end < size-size/50
	return s
}

// minSkipped is the least number of bytes between two packets that counts as skipped.
const minSkipped = 8 << 10

// scanPackets reads ffprobe's lines such as
// "codec_type=video|stream_index=0|dts_time=0.04|duration_time=0.04|size=1234|pos=564".
func scanPackets(in io.Reader, video int) (s scanned) {
	var bytes, packets int64
	var videoEnd time.Duration
	var begun, skipped bool
	type counts struct{ before, after, at int64 } // packets of another video, before and after our last one
	others := map[int64]*counts{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		fields := packetFields(lines.Text())
		index, err := strconv.ParseInt(fields["stream_index"], 10, 32)
		if err != nil {
			continue
		}
		size := parseCount(fields["size"])
		pos, err := strconv.ParseInt(fields["pos"], 10, 64)
		if err == nil && pos >= 0 {
			if gap := pos - s.end; packets > 0 && gap > minSkipped+size/8+8*(bytes/packets) {
				skipped = true
			} else if gap > 0 {
				bytes += gap
			}
			s.end = max(s.end, pos+size)
			bytes += size
			packets++
		}
		switch {
		case index == int64(video):
			at, length := parseOffset(fields["pts_time"]), parseSeconds(fields["duration_time"])
			if at == 0 {
				at = parseOffset(fields["dts_time"])
			}
			if begun && skipped && at > videoEnd+length {
				s.lost += at - videoEnd
			}
			begun, skipped, videoEnd = true, false, max(videoEnd, at+length)
			for _, o := range others {
				if pos >= o.at { // the last one of a stream comes once the file ends
					o.before, o.after = o.before+o.after, 0
				}
			}
		case fields["codec_type"] == "video":
			if others[index] == nil {
				others[index] = &counts{}
			}
			others[index].after++
			others[index].at = pos
		}
	}
	for _, o := range others {
		s.elsewhere = s.elsewhere || o.after >= 12 && o.after > 10*o.before
	}
	return s
}
