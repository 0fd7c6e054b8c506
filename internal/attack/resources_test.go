//go:build attack

package attack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// resourceAttacks are jobs that want more of the machine than they may have.
var resourceAttacks = []attack{{
	name: "raw video", threat: "T6",
	wants: "to fill the disk",
	run: func(t *testing.T) (got string) {
		b := newBed(t, "FFMPEG_AGENT_JOBS_LIMITS_OUTPUT_BYTES=32MiB")
		b.wantFailure(protocol.ReasonResourceError, map[string]any{"codec": "rawvideo", "resolution": "1920x1080", "duration": 3600, "output": filepath.Join(b.files, "raw.mkv")})
		left, _ := filepath.Glob(filepath.Join(b.files, "*"))
		if len(left) > 0 {
			got = "left " + strings.Join(left, ", ")
		}
		b.wantAlive()
		return got
	},
}, {
	name: "a disk that fills", threat: "T6",
	wants: "the space that others need on the disk",
	run: func(t *testing.T) (got string) {
		const guarded = 512 << 20
		if lowest := fillDisk(t, "512MiB"); lowest < guarded/2 {
			got = fmt.Sprintf("all but %d MiB", lowest>>20)
		} else {
			t.Logf("%d MiB were left of the 512 MiB to keep free", lowest>>20)
		}
		if lowest := fillDisk(t, "1MiB"); lowest > guarded/4 {
			t.Errorf("without the guard %d MiB are left, so the attack proves nothing", lowest>>20)
		}
		return got
	},
}, {
	name: "threads", threat: "T6",
	wants: "to have more threads and processes than the machine can serve",
	run: func(t *testing.T) (got string) {
		for _, sandbox := range []string{"require", "off"} {
			b := prepareBed(t)
			b.compile("ffmpeg", "testdata/threads.c", "-DMOST=20000", "-pthread")
			b.start(os.Geteuid(), "FFMPEG_AGENT_HARDWARE_FFMPEG="+filepath.Join(b.home, "ffmpeg"), "FFMPEG_AGENT_JOBS_SANDBOX="+sandbox)
			input := b.video("in.mp4")
			ctx, cancel := context.WithCancel(t.Context())
			counted := make(chan int)
			go func() {
				most := 0
				for ctx.Err() == nil {
					for _, pid := range b.children() {
						tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
						most = max(most, len(tasks))
					}
				}
				counted <- most
			}()
			result, _ := b.run(map[string]any{"input": input, "resolution": "64x64"})
			cancel()
			most := <-counted
			if result.Status != protocol.StatusFailed || result.FailureReason != protocol.ReasonResourceError || !strings.Contains(result.Error, "threads") {
				got += fmt.Sprintf("%s: %d threads: %s %q; ", sandbox, most, result.Status, result.Error)
			} else if most > 15_000 {
				got += fmt.Sprintf("%s: %d threads; ", sandbox, most)
			} else {
				t.Logf("sandbox %s: ended with at most %d threads: %s", sandbox, most, result.Error)
			}
		}
		return got
	},
}, {
	name: "a job without an end", threat: "T6",
	wants: "a slot for ever",
	run: func(t *testing.T) (got string) {
		p := map[string]any{"resolution": "64x64", "duration": 80_000, "preset": "ultrafast", "resource_limits": map[string]any{"timeout_sec": 600_000}}
		b := newBed(t, "FFMPEG_AGENT_JOBS_LIMITS_TIMEOUT=2s")
		b.wantFailure(protocol.ReasonTimeout, p)
		b.wantAlive()
		b = newBed(t, "FFMPEG_AGENT_JOBS_LIMITS_DURATION=1h")
		b.wantFailure(protocol.ReasonUserError, p)
		b.wantAlive()
		return ""
	},
}, {
	name: "a playlist without an end", threat: "T6",
	wants: "the agent's memory",
	run: func(t *testing.T) (got string) {
		var sent atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
			endless(w, &sent, "#EXTM3U\n#EXT-X-TARGETDURATION:1\n", "#EXTINF:1,\nsegment.ts\n")
		}))
		defer server.Close()
		b := newBed(t)
		for _, mode := range []string{"fetch", "stream"} {
			before := sent.Load()
			result, _ := b.run(map[string]any{"resolution": "64x64", "input": server.URL + "/live.m3u8", "input_mode": mode, "resource_limits": map[string]any{"timeout_sec": 20, "max_memory_mb": 300}})
			if result.Status != protocol.StatusFailed {
				t.Errorf("%s: got %s", mode, result.Status)
			}
			t.Logf("%s: took %d MiB of it: %s %s", mode, (sent.Load()-before)>>20, result.FailureReason, result.Error)
		}
		if peak := b.peakMemory(); peak > mostMemory {
			got = fmt.Sprintf("%d MiB", peak)
		}
		b.wantAlive()
		return got
	},
}, {
	name: "huge pictures", threat: "T6",
	wants: "to use up the memory",
	run: func(t *testing.T) (got string) {
		b := newBed(t, "FFMPEG_AGENT_JOBS_LIMITS_MEMORY=256MiB")
		var outputs []any
		for range 16 {
			outputs = append(outputs, map[string]any{"resolution": "8192x8192"})
		}
		b.wantFailure(protocol.ReasonUserError, map[string]any{"outputs": outputs})
		b.wantFailure(protocol.ReasonResourceError, map[string]any{"resolution": "4096x4096", "duration": 60, "preset": "veryslow"})
		b.wantAlive()
		return ""
	},
}, {
	name: "listening inputs", threat: "T7",
	wants: "a port of the job's choice on this machine",
	run: func(t *testing.T) (got string) {
		b := newBed(t, "FFMPEG_AGENT_JOBS_INPUT_PROTOCOLS=file,srt,tcp,udp,rist")
		for _, input := range []string{
			"srt://0.0.0.0:19991?mode=listener", "srt://127.0.0.1:19991?x=1&mode=listener", "srt://0.0.0.0:19991?x=1#&mode=listener", "tcp://127.0.0.1:19991?listen",
			"udp://127.0.0.1:19991?localport=19991", "rist://@127.0.0.1:19991",
		} {
			b.wantFailure(protocol.ReasonUserError, map[string]any{"input": input, "resolution": "64x64"})
		}
		return ""
	},
}, {
	name: "a playlist by its content", threat: "T7",
	wants: "to read a file of another tenant",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		victim := b.video("victim.ts")
		for _, text := range []string{
			"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" + victim + "\n#EXT-X-ENDLIST\n",
			"ffconcat version 1.0\nfile " + victim + "\n",
		} {
			p := small()
			p["input"] = b.file("a.mp4", text)
			if result, _ := b.run(p); result.Status == protocol.StatusCompleted {
				got += "read it by " + strings.Fields(text)[0] + "; "
			}
		}
		return got
	},
}, {
	name: "a playlist by the content that a server sends", threat: "T7",
	wants: "requests from this machine to a server that trusts it",
	run: func(t *testing.T) (got string) {
		var admin atomic.Int32
		trusting := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { admin.Add(1) }))
		defer trusting.Close()
		at := trusting.URL + "/admin?x=.ts"
		text := "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI=\"" + at + "\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"" + at + "\"\n#EXTINF:1,\n" + at + "\n#EXT-X-ENDLIST\n"
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", map[bool]string{true: "video/mp4", false: "application/vnd.apple.mpegurl"}[strings.HasSuffix(r.URL.Path, ".mp4")])
			_, _ = io.WriteString(w, text)
		}))
		defer server.Close()
		b := newBed(t)
		for _, mode := range []string{"fetch", "stream"} {
			b.wantFailed(map[string]any{"resolution": "64x64", "input": server.URL + "/upload.mp4", "input_mode": mode})
			if n := admin.Swap(0); n > 0 {
				got += fmt.Sprintf("%d requests by %s; ", n, mode)
			}
		}
		b.wantFailed(map[string]any{"resolution": "64x64", "input": server.URL + "/list.m3u8"})
		if admin.Load() == 0 {
			t.Error("as a playlist it leads to no request either, so the attack proves nothing")
		}
		return got
	},
}, {
	name: "metadata services", threat: "T7",
	wants: "the machine's credentials in its cloud",
	run: func(t *testing.T) (got string) {
		const address = "169.254.169.254"
		ownNetwork(t, address+"/32", "fd00:ec2::254/128")
		var asked atomic.Int32
		for _, at := range []string{address + ":80", "[fd00:ec2::254]:80", address + ":1935"} {
			listener, err := net.Listen("tcp", at)
			must(t, err)
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					asked.Add(1)
					_ = conn.Close()
				}
			}()
			defer listener.Close()
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+address+r.URL.Path, http.StatusFound)
		}))
		defer server.Close()
		inputs := []string{
			"http://" + address + "/a.mp4", "http://[::ffff:" + address + "]/a.mp4", "http://[::ffff:a9fe:a9fe]/a.m3u8", "http://2852039166/a.mp4", "http://0xa9fea9fe/a.mp4", "http://169.254.43518/a.mp4",
			"http://[fd00:ec2::254]/a.mp4", "http://user@" + address + "/a.mp4", "rtmp://" + address + "/a/b", "srt://" + address + ":80", server.URL + "/a.mp4", server.URL + "/a.m3u8",
		}
		b := newBed(t)
		for _, mode := range []string{"fetch", "stream"} {
			for _, input := range inputs {
				b.wantFailed(map[string]any{"resolution": "64x64", "input": input, "input_mode": mode, "resource_limits": map[string]any{"timeout_sec": 20}})
				if n := asked.Swap(0); n > 0 {
					got += fmt.Sprintf("%d connections by %s %s; ", n, mode, input)
				}
			}
		}
		b = newBed(t, "FFMPEG_AGENT_JOBS_INPUT_NETWORKS=169.254.0.0/16")
		for _, input := range []string{inputs[0], "rtmp://" + address + "/a/b", server.URL + "/a.mp4"} {
			b.wantFailed(map[string]any{"resolution": "64x64", "input": input})
			if asked.Swap(0) == 0 {
				t.Errorf("%s: no connection although the operator allows the network, so the attack proves nothing", input)
			}
		}
		return got
	},
}, {
	name: "a rare demuxer", threat: "T7",
	wants: "code that is seldom tested with hostile files",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		p := small()
		p["input"] = b.file("movie.smk", "SMK2"+strings.Repeat("\x01", 4096))
		b.wantFailure(protocol.ReasonUserError, p)
		// Where the operator allows the format, its demuxer reads the file, and finds it damaged.
		allowed := newBed(t, "FFMPEG_AGENT_JOBS_INPUT_FORMATS=smk")
		allowed.wantFailure(protocol.ReasonInputError, p)
		return ""
	},
}, {
	name: "a huge parameter", threat: "T11",
	wants: "a journal that grows without bounds",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		p := small()
		p["unknown"] = strings.Repeat("x", 700_000)
		for range 5 {
			if result, _ := b.run(p); result.Status != protocol.StatusCompleted {
				t.Errorf("got %s %q", result.Status, result.Error)
			}
		}
		info, err := os.Stat(filepath.Join(b.dir, "journal.db"))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(b.dir, "journal.db"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), strings.Repeat("x", 10_000)) {
			got = "the parameter is in the journal"
		}
		t.Logf("the journal has %d bytes", info.Size())
		return got
	},
}}

// fillDisk runs a job that writes raw video to a disk of 1 GiB, of which the agent is to keep so
// much free, and returns the least that was free, in bytes.
func fillDisk(t *testing.T, keep string) (lowest uint64) {
	t.Helper()
	b := prepareBed(t)
	// The disk is mounted where only the agent sees it, and what it starts.
	b.within = []string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs -o size=1g tmpfs "$0" && exec "$@"`, b.files}
	if os.Geteuid() != 0 {
		b.within = append([]string{"unshare", "--map-root-user"}, b.within[1:]...)
	}
	b.start(os.Geteuid(), "FFMPEG_AGENT_JOBS_MIN_FREE_DISK="+keep)
	job := b.submit(map[string]any{"codec": "rawvideo", "resolution": "1920x1080", "duration": 3600, "output": filepath.Join(b.files, "raw.mkv")})
	b.encoder()
	disk := fmt.Sprintf("/proc/%d/root%s", b.agent.Process.Pid, b.files)
	ctx, cancel := context.WithCancel(t.Context())
	measured := make(chan uint64)
	go func() {
		lowest := uint64(1 << 30)
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			var s syscall.Statfs_t
			if syscall.Statfs(disk, &s) == nil {
				lowest = min(lowest, s.Bavail*uint64(s.Bsize))
			}
		}
		measured <- lowest
	}()
	result, _ := b.await(job)
	cancel()
	lowest = <-measured
	if result.Status != protocol.StatusFailed || result.FailureReason != protocol.ReasonResourceError {
		t.Errorf("with %s to keep free: got %s %s %q, want failed resource_error", keep, result.Status, result.FailureReason, result.Error)
	}
	left, _ := os.ReadDir(disk)
	if len(left) > 0 {
		t.Errorf("with %s to keep free: %s is left", keep, left[0].Name())
	}
	b.wantAlive()
	return lowest
}
