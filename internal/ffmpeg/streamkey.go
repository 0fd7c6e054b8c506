package ffmpeg

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// maxPresetLine bounds a line of a preset file of FFmpeg's (fftools/ffmpeg_opt.c), in bytes.
const maxPresetLine = 990

// hideStreamKey puts the application and the stream key of an rtmp destination into a file
// that only this user can read, and takes them out of the URL, which stands in FFmpeg's
// arguments. Where that is not possible it notes that they can be seen there.
func (r *Run) hideStreamKey(i int, t *target) error {
	visible, options := splitRTMP(t.url)
	u, err := url.Parse(t.url)
	if err != nil || u.User != nil || !r.caps.Presets || len(options[0]) > maxPresetLine || len(options[1]) > maxPresetLine || strings.Contains(t.url, "slist=") {
		r.note("the URL of output %d, with its secrets, is visible to other users of this machine in FFmpeg's arguments", i)
		return nil
	}
	path := filepath.Join(r.scratch(), fmt.Sprintf("stream-%d.ffpreset", i))
	if err := os.WriteFile(path, []byte(strings.Join(options, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("writing the options of a stream: %w", err)
	}
	t.arg, r.plan.renditions[i].preset = visible, path
	return nil
}

// splitRTMP splits an rtmp URL as FFmpeg does (libavformat/rtmpproto.c, rtmp_open): into the
// URL of the server, and the options with the application and the name of the stream.
func splitRTMP(raw string) (server string, options []string) {
	scheme, rest, _ := strings.Cut(raw, "://")
	host, path, _ := strings.Cut(rest, "/")
	app, name := path, ""
	if p := strings.IndexByte(path, '/'); p >= 0 {
		app, name = path[:p], path[p+1:]
		slash, colon := strings.IndexByte(name, '/'), strings.IndexByte(name, ':')
		if slash >= 0 && (colon < 0 || colon > slash) { // an instance of the application
			app, name = path[:p+1+slash], name[slash+1:]
		}
	}
	switch {
	case !strings.Contains(name, ":") && (strings.HasSuffix(name, ".f4v") || strings.HasSuffix(name, ".mp4")):
		name = "mp4:" + name
	default:
		name = strings.TrimSuffix(name, ".flv")
	}
	return scheme + "://" + host, []string{"rtmp_app=" + app, "rtmp_playpath=" + name}
}
