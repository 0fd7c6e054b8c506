//go:build attack

package attack

import (
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// secretAttacks are jobs whose secrets others want to see in a result or the log.
var secretAttacks = []attack{{
	name: "secrets in errors", threat: "T8",
	wants: "stream keys, passwords and signed values from results and the log",
	run: func(t *testing.T) (got string) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth() // a server that repeats what it was given
			http.Error(w, r.URL.String()+" "+user+":"+password+" "+r.Header.Get("Authorization"), http.StatusForbidden)
		}))
		defer server.Close()
		host := strings.TrimPrefix(server.URL, "http://")
		playlist := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { // of segments with signatures
			w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
			_, _ = io.WriteString(w, "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"+server.URL+"/s3cretsegment0123456789/1.ts?sig=s3cretsignature\n#EXT-X-ENDLIST\n")
		}))
		defer playlist.Close()
		b := newBed(t)
		long := strings.Repeat("a", 70)
		secrets := []string{"s3cretpassw0rd", "s3cret%2Fpassw0rd", "s3cretsignature", "s3cretstreamkey", "s3cretsegment0123456789", base64.StdEncoding.EncodeToString([]byte("user:s3cretpassw0rd"))}
		for _, p := range []map[string]any{
			{"input": "http://user:s3cretpassw0rd@" + host + "/s3cretsegment0123456789/clip.mp4?sig=s3cretsignature"},
			{"input": "http://user:s3cret%2Fpassw0rd@" + host + "/clip.mp4?sig=s3cretsignature", "input_mode": "stream"},
			{"input": "http://host/" + long + "?sig=s3cretsignature\x01"},
			{"output": "rtmp://127.0.0.1:1/live/s3cretstreamkey"},
			{"output": "rtmp:/127.0.0.1/live/s3cretstreamkey.mp4"},
			{"output_mode": "rtmp", "rtmp_url": "rtmp://127.0.0.1:1/live/s3cretstreamkey"},
			{"output_mode": "rtmp", "rtmp_url": "rtmp://user:s3cretpassw0rd@127.0.0.1:1/live/s3cretstreamkey"},
			{"output_mode": "rtmp", "stream_key": "s3cretstreamkey|"},
			{"input": playlist.URL + "/list.m3u8"},
			{"input": playlist.URL + "/list.m3u8", "input_mode": "stream"},
		} {
			for k, v := range small() {
				if _, named := p[k]; !named {
					p[k] = v
				}
			}
			result, raw := b.run(p)
			if result.Status != protocol.StatusFailed {
				t.Errorf("%v: got %s", p, result.Status)
			}
			for _, secret := range append(secrets, b.dir) { // whose place is not the master's business
				if strings.Contains(raw, secret) {
					got += "a result of " + secret + "; "
				}
			}
		}
		for _, secret := range append(secrets, apiKey) {
			if strings.Contains(b.log.String(), secret) {
				got += "a log line of " + secret + "; "
			}
		}
		return got
	},
}, {
	name: "secrets in arguments", threat: "T8",
	wants: "what other users of the machine see of a process",
	run: func(t *testing.T) (got string) {
		rtmp, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections, and no more
		must(t, err)
		defer rtmp.Close()
		server := httptest.NewServer(slowly(newVideo(t)))
		defer server.Close()
		b := newBed(t)
		host := strings.TrimPrefix(server.URL, "http://")
		for name, p := range map[string]map[string]any{
			"s3cretstreamkey":         {"output_mode": "rtmp", "rtmp_url": "rtmp://" + rtmp.Addr().String() + "/live/s3cretstreamkey"},
			"s3cretsignature":         {"input": "http://" + host + "/clip.ts?sig=s3cretsignature", "input_mode": "stream"},
			"s3cretpassw0rd":          {"input": "http://user:s3cretpassw0rd@" + host + "/clip.ts", "input_mode": "stream"},
			"s3cretsegment0123456789": {"input": "http://" + host + "/s3cretsegment0123456789/clip.ts", "input_mode": "stream"},
			"visible-s3cret":          {"output_mode": "rtmp", "rtmp_url": "rtmp://user:visible-s3cret@" + rtmp.Addr().String() + "/live/key"}, // as THREATS.md says
		} {
			p["resolution"] = "64x64"
			job := b.submit(p)
			pid := b.encoder()
			line := cmdline(pid)
			environment, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // which other users cannot read
			b.cancel(job)
			if !strings.Contains(line, "-progress") || len(environment) == 0 { // both are empty once it has ended
				t.Errorf("%s: FFmpeg ended before they were read: arguments %q, %d bytes of environment; so the attack proves nothing", name, line, len(environment))
			}
			if strings.HasPrefix(name, "visible") {
				if !strings.Contains(line, name) {
					t.Errorf("what is known to be visible is not: %s; so the attack proves nothing", line)
				}
				continue
			}
			for what, text := range map[string]string{"arguments": line, "environment": string(environment)} {
				if strings.Contains(text, name) || strings.Contains(text, apiKey) {
					got += name + " in the " + what + "; "
				}
			}
		}
		return got
	},
}, {
	name: "the relay of an input", threat: "T8",
	wants: "another user's input, by the port on which FFmpeg reads it",
	run: func(t *testing.T) (got string) {
		if os.Geteuid() != 0 {
			t.Skip("only root can be several users")
		}
		const daemon = 1
		server := httptest.NewServer(slowly(newVideo(t)))
		defer server.Close()
		playlist := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
			_, _ = io.WriteString(w, "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n"+server.URL+"/a.ts\n") // it is live
		}))
		defer playlist.Close()
		b := prepareBed(t)
		b.start(nobody)
		for _, input := range []string{server.URL + "/clip.ts", playlist.URL + "/list.m3u8"} {
			job := b.submit(map[string]any{"resolution": "64x64", "input": input, "input_mode": "stream", "duration": 60})
			line := cmdline(b.encoder())
			url := regexp.MustCompile(`http://127\.0\.0\.1:\d+/[A-Z0-9]{26}/\S+`).FindString(line)
			proxy := ""
			if url == "" { // of a playlist the relay is the proxy
				found := regexp.MustCompile(`-http_proxy (http://\S+)`).FindStringSubmatch(line)
				if found == nil {
					t.Fatalf("no relay in %s", line)
				}
				url, proxy = server.URL+"/b.ts", found[1]
			}
			for uid, may := range map[int]bool{nobody: true, daemon: false} {
				switch read := reads(t, uid, url, proxy); {
				case read > 0 && !may:
					got += fmt.Sprintf("user %d reads %d bytes of %s; ", uid, read, input)
				case read == 0 && may:
					t.Errorf("FFmpeg's own user does not read %s either, so the attack proves nothing", input)
				}
			}
			b.cancel(job)
		}
		return got
	},
}, {
	name: "servers with wrong certificates", threat: "T12",
	wants: "an input's password, a stream key, or to send media of its own",
	run: func(t *testing.T) (got string) {
		var asked atomic.Int32
		video := newVideo(t)
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			_, _ = w.Write(video)
		}))
		defer server.Close()
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		host := strings.TrimPrefix(server.URL, "https://")
		playlist := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
			_, _ = io.WriteString(w, "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"+server.URL+"/1.ts\n#EXT-X-ENDLIST\n")
		}))
		defer playlist.Close()
		b := newBed(t)
		for _, p := range []map[string]any{
			{"input": "https://user:password@" + host + "/clip.ts"}, {"input": server.URL + "/clip.ts", "input_mode": "stream"}, {"input": server.URL + "/list.m3u8", "input_format": "hls", "input_mode": "stream"},
			{"input": playlist.URL + "/list.m3u8"}, {"input": playlist.URL + "/list.m3u8", "input_mode": "stream"}, {"output_mode": "rtmp", "rtmp_url": "rtmps://" + host + "/live/key"},
			{"input": "rtmps://" + host + "/live/key"},
		} {
			p["resolution"], p["resource_limits"] = "64x64", map[string]any{"timeout_sec": 30}
			result, _ := b.run(p)
			if result.Status != protocol.StatusFailed {
				got += fmt.Sprintf("%v: %s; ", p, result.Status)
			} else if result.FailureReason != protocol.ReasonNetworkError {
				t.Errorf("%v: got %s %q, want network_error", p, result.FailureReason, result.Error)
			}
			if n := asked.Swap(0); n > 0 {
				got += fmt.Sprintf("%v: %d requests; ", p, n)
			}
		}
		// FFmpeg by itself does not verify.
		if out, err := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-i", server.URL+"/clip.ts", "-f", "null", "-").CombinedOutput(); err != nil || asked.Load() == 0 {
			t.Errorf("FFmpeg by itself does not read it: %v: %s; so the attack proves nothing", err, out)
		}
		return got
	},
}}

// newVideo is a transport stream of some seconds.
func newVideo(t *testing.T) []byte {
	t.Helper()
	out, err := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25:duration=5", "-f", "mpegts", "-").Output()
	if err != nil {
		t.Fatalf("making a video: %v", err)
	}
	return out
}

// slowly serves a video over and over, and pauses after each time, so that the job that reads it
// does not end by itself.
func slowly(video []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(video); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(time.Second):
			}
		}
	})
}

// reads is how many bytes a user gets of a URL within 3 s, by a program that is not the agent's.
func reads(t *testing.T, uid int, url, proxy string) int {
	t.Helper()
	args := []string{"-nostdin", "-v", "error", "-rw_timeout", "2000000"}
	if proxy != "" {
		args = append(args, "-http_proxy", proxy)
	}
	c := exec.Command("ffmpeg", append(args, "-i", url, "-t", "1", "-c", "copy", "-f", "mpegts", "-")...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, _ := c.Output()
	return len(out)
}
