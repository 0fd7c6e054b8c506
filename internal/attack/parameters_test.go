//go:build attack

package attack

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"ffmpeg-agent/messages/protocol"
)

// parameterAttacks are jobs whose parameters are to become options or paths.
var parameterAttacks = []attack{{
	name: "an option as a value", threat: "T1",
	wants: "to have FFmpeg write a file of the job's choice",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		target := filepath.Join(b.dir, "written")
		for parameter, value := range map[string]string{
			"preset": "fast -y " + target, "bitrate": "2000k -f mp4 " + target, "codec": "libx264 -vf movie=/etc/passwd",
			"resolution": "64x64,movie=/etc/passwd", "audio_codec": "aac -map 0 " + target, "input": "concat:/etc/passwd|/etc/hosts",
		} {
			p := small()
			p[parameter] = value
			if result, _ := b.run(p); result.Status == protocol.StatusCompleted {
				got += fmt.Sprintf("%s=%q completed; ", parameter, value)
			}
		}
		if _, err := os.Lstat(target); err == nil {
			got += "the file was written"
		}
		b.wantAlive()
		return got
	},
}, {
	name: "an output outside of the roots", threat: "T1",
	wants: "to overwrite a file of the agent's",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		link := filepath.Join(b.files, "link")
		if err := os.Symlink("/etc", link); err != nil {
			t.Fatal(err)
		}
		for _, output := range []string{"/etc/cron.d/job.mp4", b.files + "/../../etc/job.mp4", link + "/job.mp4", "../../../etc/job.mp4"} {
			p := maps.Clone(small())
			p["output"] = output
			b.wantFailure(protocol.ReasonUserError, p)
		}
		for _, path := range []string{"/etc/cron.d/job.mp4", "/etc/job.mp4"} {
			if _, err := os.Lstat(path); err == nil {
				got += path + " was written; "
			}
		}
		return got
	},
}}
