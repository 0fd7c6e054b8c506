package ffmpeg

import (
	"slices"
	"strings"
)

// defaultExtension is that of an output without a name.
const defaultExtension = ".mp4"

// container is a file format of outputs.
type container struct {
	format string   // FFmpeg's muxer
	video  []string // codecs it takes; nil: FFmpeg decides
	audio  []string // audio encoders it takes, the default first
	args   []string
}

// takes reports whether the format can hold a codec, as far as that is known.
func (c container) takes(codec string) bool {
	switch {
	case c.video != nil:
		return slices.Contains(c.video, codec)
	case c.format == "mp4" || c.format == "mov":
		return codec != "vp8"
	}
	return true
}

var (
	anyAudio = []string{"aac", "libopus", "libmp3lame", "copy"}
	isoMedia = []string{"-movflags", "+faststart"}
)

// containers by the extension of an output's name.
var containers = map[string]container{
	".mp4":  {format: "mp4", audio: anyAudio, args: isoMedia},
	".m4v":  {format: "mp4", audio: anyAudio, args: isoMedia},
	".mov":  {format: "mov", audio: []string{"aac", "libmp3lame", "copy"}, args: isoMedia},
	".mkv":  {format: "matroska", audio: anyAudio},
	".webm": {format: "webm", video: []string{"vp8", "vp9", "av1"}, audio: []string{"libopus", "copy"}},
	".ts":   {format: "mpegts", video: []string{"h264", "h265", "mpeg1video", "mpeg2video", "mpeg4"}, audio: anyAudio},
	".flv":  {format: "flv", video: []string{"h264", "flv1"}, audio: []string{"aac", "libmp3lame", "copy"}},
	".avi":  {format: "avi", audio: []string{"libmp3lame", "aac", "copy"}},
}

// extensions lists them, for a message.
func extensions() string {
	var names []string
	for e := range containers {
		names = append(names, e)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// selfContained are the demuxers that inputs may use where the operator lists none: those of
// containers and raw streams that contain the video themselves. Left out are devices, scripts
// that name other files, image sequences, and readers that take any text for video (tty).
const selfContained = "mov,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,live_flv,kux,ogg,asf,asf_o,mxf,mxf_opatom,nut,ivf,h264,hevc,vvc,av1,obu," +
	"m4v,h261,h263,vc1,vc1test,dirac,dnxhd,mjpeg,mpjpeg,yuv4mpegpipe,rm,gif,apng,dv,gxf,wtv,swf,nsv,r3d,cavsvideo,avs2,avs3,roq,smk,bink,nuv,pva,flic"
