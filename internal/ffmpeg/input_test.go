package ffmpeg

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// ffmpegIn runs FFmpeg in a directory to make an input of a test.
func ffmpegIn(t *testing.T, dir string, args ...string) {
	t.Helper()
	c := exec.Command("ffmpeg", append([]string{"-nostdin", "-v", "error", "-y"}, args...)...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// hlsIn makes a playlist x.m3u8 of four segments of a second each in a directory.
func hlsIn(t *testing.T, dir string, more ...string) string {
	t.Helper()
	in := clip(t, filepath.Join(t.TempDir(), "in.mp4"), "4", "-g", "25")
	ffmpegIn(t, dir, append([]string{"-i", in, "-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod", "-hls_segment_filename", "s%d.ts"}, append(more, "x.m3u8")...)...)
	return filepath.Join(dir, "x.m3u8")
}

// encryptedHLS makes a playlist whose segments are encrypted with the key in enc.key.
func encryptedHLS(t *testing.T, dir string) string {
	t.Helper()
	for name, text := range map[string]string{"enc.key": "0123456789abcdef", "info": "enc.key\nenc.key\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return hlsIn(t, dir, "-hls_key_info_file", "info")
}

// finished runs a job to its verdict and returns how far it came.
func finished(t *testing.T, r *Runner, id, params string) (job.Encode, error) {
	t.Helper()
	run := r.Begin(lease(t, id, params))
	err := walk(testContext(t), run)
	return run.Snapshot().Encode, err
}

func serveFiles(t *testing.T, dir string) string {
	t.Helper()
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)
	return server.URL
}

func wantEncodeNote(t *testing.T, e job.Encode, text string) {
	t.Helper()
	if notes := strings.Join(e.Notes, "\n"); !strings.Contains(notes, text) {
		t.Errorf("got notes %q, want one with %q", notes, text)
	}
}

func TestHTTPInputIsFetchedBeforeFFmpeg(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	film, err := os.ReadFile(clip(t, filepath.Join(dir, "in.mp4"), "2")) // its index is at the end
	if err != nil {
		t.Fatal(err)
	}
	var heads atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { // without ranges
		if q.Method != http.MethodGet {
			heads.Add(1)
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(film)))
		_, _ = w.Write(film)
	}))
	t.Cleanup(server.Close)
	sum := sha256.Sum256(film)
	run := newRunner(t).Begin(lease(t, "fetched", `{`+small+`,"quality":"ssim","input_sha256":"`+strings.ToUpper(hex.EncodeToString(sum[:]))+`","input":`+
		quoted(server.URL+"/It's%20me.mp4?token=verysecret")+`}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatal(err)
	}
	state := run.Snapshot()
	e := state.Encode
	if e.Frames != 50 || e.InputBytes != int64(len(film)) || e.Fetch == nil || !e.Fetch.Done || e.Fetch.Bytes != int64(len(film)) || e.Fetch.Took <= 0 {
		t.Errorf("%d frames, %d bytes of input, fetch %+v", e.Frames, e.InputBytes, e.Fetch)
	}
	if shown := fmt.Sprint(e.Args); strings.Contains(shown, "http") || strings.Contains(shown, "verysecret") {
		t.Errorf("the URL is in FFmpeg's arguments: %s", shown)
	}
	if n := heads.Load(); n > 0 {
		t.Errorf("got %d requests that are not GET", n)
	}
	var phases []job.Phase
	for _, p := range state.Phases {
		phases = append(phases, p.Phase)
	}
	if got, want := fmt.Sprint(phases), "[prepare fetch prepare run check]"; got != want {
		t.Errorf("got phases %s, want %s", got, want)
	}
	if q := run.Measure(testContext(t)); q.SSIM == nil || *q.SSIM < 0.5 {
		t.Errorf("got quality %+v", q)
	}
}

func TestWrongChecksumIsInputError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := clip(t, filepath.Join(dir, "in.mp4"), "1")
	r := newRunner(t)
	for id, input := range map[string]string{"fetched": serveFiles(t, dir) + "/in.mp4", "local": in} {
		e, err := finished(t, r, id, `{`+small+`,"input_sha256":"`+strings.Repeat("0", 64)+`","input":`+quoted(input)+`}`)
		if f := wantFailure(t, err, protocol.ReasonInputError); !strings.Contains(f.Message, "SHA-256") || e.Started != nil {
			t.Errorf("%s: message %q, FFmpeg started at %v", id, f.Message, e.Started)
		}
	}
}

func TestFetchedInputIsNotCountedAsWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := clip(t, filepath.Join(dir, "in.mp4"), "2")
	f, err := os.OpenFile(in, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const padding = 2 << 20
	box := append(binary.BigEndian.AppendUint32(nil, padding), "free"...)
	if _, err := f.Write(append(box, make([]byte, padding-len(box))...)); err != nil {
		t.Fatal(err)
	}
	if _, err := finished(t, newRunner(t), "limited", `{`+small+`,"resource_limits":{"max_disk_mb":1},"input":`+quoted(serveFiles(t, dir)+"/in.mp4")+`}`); err != nil {
		t.Error(err)
	}
}

func TestStreamModeIsNotedAndHidesTheURL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	clip(t, filepath.Join(dir, "in.mp4"), "2")
	e, err := finished(t, newRunner(t), "streamed", `{`+small+`,"input_mode":"stream","input":`+quoted(serveFiles(t, dir)+"/in.mp4?token=verysecret")+`}`)
	if err != nil || e.Frames != 50 || e.Fetch != nil {
		t.Errorf("%d frames, fetch %+v, %v\n%s", e.Frames, e.Fetch, err, e.Log)
	}
	wantEncodeNote(t, e, "FFmpeg read the input itself: the job says input_mode: stream")
	if shown := fmt.Sprint(e.Args, e.Log); strings.Contains(shown, "verysecret") {
		t.Errorf("a secret is shown: %s", shown)
	}
	streams := newRunner(t, func(s *Settings) { s.StreamInputs = true })
	e, err = finished(t, streams, "configured", `{`+small+`,"input":`+quoted(serveFiles(t, dir)+"/in.mp4")+`}`)
	if err != nil {
		t.Error(err)
	}
	wantEncodeNote(t, e, "FFmpeg read the input itself: jobs.fetch_inputs is off")
}

func TestInputOfUnknownLengthIsNotFetched(t *testing.T) {
	t.Parallel()
	film, err := os.ReadFile(clip(t, filepath.Join(t.TempDir(), "in.mkv"), "2"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(film)
	}))
	t.Cleanup(server.Close)
	e, err := finished(t, newRunner(t), "endless", `{`+small+`,"input":`+quoted(server.URL)+`}`)
	if err != nil || e.Frames < 50 {
		t.Errorf("%d frames, %v\n%s", e.Frames, err, e.Log)
	}
	wantEncodeNote(t, e, "the server does not state its length")
}

func TestInputThatDoesNotFitIsRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	padded(t, clip(t, filepath.Join(dir, "in.mp4"), "2"), 2<<30)
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	free := disk.Bavail * uint64(disk.Bsize) // some of it is left, for the output
	full := newRunner(t, func(s *Settings) { s.MinFreeDisk = func(uint64) uint64 { return free - min(free, 1<<30) } })
	e, err := finished(t, full, "large", `{`+small+`,"input":`+quoted(serveFiles(t, dir)+"/in.mp4")+`}`)
	if err != nil || e.Frames != 50 {
		t.Errorf("%d frames, %v", e.Frames, err)
	}
	wantEncodeNote(t, e, "of disk are free for it")
}

// padded adds a box without content to an mp4 file, which takes no space on the disk.
func padded(t *testing.T, path string, bytes int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	header := binary.BigEndian.AppendUint64([]byte("\x00\x00\x00\x01free"), uint64(bytes)) // 1: the size is behind the type
	if _, err := f.Write(header); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err == nil {
		err = f.Truncate(info.Size() - int64(len(header)) + bytes)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFetchEndsAtTheJobsTimeout(t *testing.T) {
	t.Parallel()
	server := slowServer(t, nil)
	_, err := finished(t, newRunner(t), "slow", `{`+small+`,"resource_limits":{"timeout_sec":0.5},"input":`+quoted(server)+`}`)
	wantFailure(t, err, protocol.ReasonTimeout)
}

func TestFetchEndsWhenTheJobIsStopped(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 10)
	run := newRunner(t).Begin(lease(t, "stopped", `{`+small+`,"input":`+quoted(slowServer(t, asked))+`}`))
	walked := make(chan error, 1)
	go func() { walked <- walk(testContext(t), run) }()
	<-asked
	state := run.Snapshot()
	if state.Phase() != job.PhaseFetch {
		t.Errorf("got phase %s, want fetch", state.Phase())
	}
	if used, known := run.CPUTime(); used != 0 || !known { // else it would share the energy of other jobs equally
		t.Errorf("got CPU time %s, known: %t; want 0", used, known)
	}
	run.Stop(job.StopCanceled)
	wantFailure(t, <-walked, protocol.ReasonPlatformError)
}

// slowServer promises more than it sends.
func slowServer(t *testing.T, asked chan<- struct{}) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(make([]byte, 1000))
		_ = http.NewResponseController(w).Flush()
		if asked != nil {
			asked <- struct{}{}
		}
		<-q.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.URL + "/in.mp4"
}

func TestRedirectToMetadataIsRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.RedirectHandler("http://169.254.169.254/latest/meta-data/x.mp4", http.StatusFound))
	t.Cleanup(server.Close)
	for _, mode := range []string{"fetch", "stream"} {
		_, err := finished(t, newRunner(t), mode, `{`+small+`,"input_mode":"`+mode+`","input":`+quoted(server.URL+"/in.mp4")+`}`)
		if f := wantFailure(t, err, protocol.ReasonUserError); !strings.Contains(f.Message, "jobs.input_networks") {
			t.Errorf("%s: message %q", mode, f.Message)
		}
	}
}

func TestLoopbackInputsAreRefusedByDefault(t *testing.T) {
	t.Parallel()
	r := newRunner(t, func(s *Settings) { s.Inputs.Loopback = false })
	inputs := []string{"http://127.0.0.1:1/x.mp4", "http://127.0.0.1:1/x.mpd", "rtmp://127.0.0.1/live/x", "srt://[::1]:9000"}
	if _, err := net.LookupHost("localhost"); err == nil { // a bare tree has no /etc/hosts
		inputs = append(inputs, "rtmp://localhost/live/x")
	}
	for _, input := range inputs {
		_, err := finished(t, r, input, `{`+small+`,"input":`+quoted(input)+`}`)
		if f := wantFailure(t, err, protocol.ReasonUserError); !strings.Contains(f.Message, "jobs.input_networks") {
			t.Errorf("%s: message %q", input, f.Message)
		}
	}
}

func TestHLSOverHTTPIsFetched(t *testing.T) {
	t.Parallel()
	for name, build := range map[string]func(*testing.T, string) string{
		"plain": func(t *testing.T, dir string) string { return hlsIn(t, dir) }, "encrypted": encryptedHLS,
		"byte ranges": func(t *testing.T, dir string) string {
			return hlsIn(t, dir, "-hls_flags", "single_file", "-hls_segment_filename", "all.ts")
		},
		"fmp4": func(t *testing.T, dir string) string { return hlsIn(t, dir, "-hls_segment_type", "fmp4") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			build(t, dir)
			for id, input := range map[string]string{"fetched": serveFiles(t, dir) + "/x.m3u8", "local": filepath.Join(dir, "x.m3u8")} {
				e, err := finished(t, newRunner(t), id, `{`+small+`,"input":`+quoted(input)+`}`)
				if err != nil || e.Frames < 100 || e.Frames > 101 || e.InputBytes == 0 { // FFmpeg adds one where a stream begins
					t.Errorf("%s: %d frames, %d bytes, %v\n%s", id, e.Frames, e.InputBytes, err, e.Log)
				}
			}
		})
	}
}

func TestMissingSegmentIsInputError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list := hlsIn(t, dir)
	if err := os.Remove(filepath.Join(dir, "s2.ts")); err != nil {
		t.Fatal(err)
	}
	for id, input := range map[string]string{"fetched": serveFiles(t, dir) + "/x.m3u8", "local": list} {
		_, err := finished(t, newRunner(t), id, `{`+small+`,"input":`+quoted(input)+`}`)
		if f := wantFailure(t, err, protocol.ReasonInputError); !strings.Contains(f.Message, "segment 3 of 4") || !strings.Contains(f.Message, "s2.ts") {
			t.Errorf("%s: message %q", id, f.Message)
		}
	}
}

func TestSegmentMarkedAsMissingIsInputError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list := hlsIn(t, dir)
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, []byte(strings.Replace(string(text), "s2.ts", "#EXT-X-GAP\ns2.ts", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	r := newRunner(t)
	_, err = finished(t, r, "whole", `{`+small+`,"input":`+quoted(list)+`}`)
	if f := wantFailure(t, err, protocol.ReasonInputError); !strings.Contains(f.Message, "marks 1s of it as missing") {
		t.Errorf("message %q", f.Message)
	}
	e, err := finished(t, r, "accepted", `{`+small+`,"accept_damaged":true,"input":`+quoted(list)+`}`)
	if err != nil {
		t.Error(err)
	}
	wantEncodeNote(t, e, "marks 1s of it as missing")
	if _, err = finished(t, r, "before it", `{`+small+`,"duration":0.5,"input":`+quoted(list)+`}`); err != nil {
		t.Error(err)
	}
}

func TestLocalPlaylistStaysInItsFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	folder := filepath.Join(dir, "show")
	if err := os.MkdirAll(filepath.Join(folder, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	secret := clip(t, filepath.Join(dir, "secret.ts"), "1")
	clip(t, filepath.Join(folder, "own.ts"), "1")
	ffmpegIn(t, folder, "-i", "own.ts", "-c", "copy", "sub/own.ts")
	if err := os.Symlink(secret, filepath.Join(folder, "link.ts")); err != nil {
		t.Fatal(err)
	}
	media := func(uri string) string {
		return "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" + uri + "\n#EXT-X-ENDLIST\n"
	}
	const master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n"
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("nested.ts", media(secret))
	write("sub/up.m3u8", media("../own.ts"))
	write("sub/out.m3u8", media("../../secret.ts"))
	live := strings.ReplaceAll(media(secret), "#EXT-X-ENDLIST\n", "")
	for name, c := range map[string]struct {
		text string
		want protocol.FailureReason
	}{
		"own.m3u8":      {media("own.ts"), ""},
		"file.m3u8":     {media("file:" + filepath.Join(folder, "own.ts")), ""},
		"variant.m3u8":  {master + "sub/up.m3u8\n", ""},
		"up.m3u8":       {media("../secret.ts"), protocol.ReasonUserError},
		"absolute.m3u8": {media(secret), protocol.ReasonUserError},
		"link.m3u8":     {media("link.ts"), protocol.ReasonUserError},
		"http.m3u8":     {media("http://127.0.0.1:1/x.ts"), protocol.ReasonUserError},
		"concat.m3u8":   {media("concat:" + secret), protocol.ReasonUserError},
		"content.m3u8":  {media("nested.ts"), protocol.ReasonUserError},
		"master.m3u8":   {master + "sub/out.m3u8\n", protocol.ReasonUserError},
		"live.m3u8":     {live, protocol.ReasonUserError},
		"key.m3u8":      {strings.Replace(media("own.ts"), "#EXTINF", "#EXT-X-KEY:METHOD=AES-128,URI=\"../secret.ts\"\n#EXTINF", 1), protocol.ReasonUserError},
		"up.mpd":        {`<MPD><Period><AdaptationSet><SegmentTemplate media="../$Number$.m4s"/></AdaptationSet></Period></MPD>`, protocol.ReasonUserError},
		"base.mpd":      {`<MPD><BaseURL>http://127.0.0.1/</BaseURL></MPD>`, protocol.ReasonUserError},
		"link.mpd":      {`<MPD></MPD>`, protocol.ReasonUserError},
		"no-playlist":   {media("own.ts"), protocol.ReasonInputError}, // by its content alone
	} {
		e, err := finished(t, newRunner(t), name, `{`+small+`,"input":`+quoted(write(name, c.text))+`}`)
		if c.want == "" {
			if err != nil || e.Frames < 25 { // FFmpeg adds one where a transport stream begins
				t.Errorf("%s: %d frames, %v\n%s", name, e.Frames, err, e.Log)
			}
			continue
		}
		wantFailure(t, err, c.want)
	}
	e, err := finished(t, newRunner(t), "declared", `{`+small+`,"input_format":"hls","input":`+quoted(write("declared", media("own.ts")))+`}`)
	if err != nil || e.Frames < 25 {
		t.Errorf("declared by input_format: %d frames, %v", e.Frames, err)
	}
}

func TestFetchedSegmentReachesNoLocalFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := clip(t, filepath.Join(t.TempDir(), "secret.ts"), "1")
	nested := "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:" + secret + "\n#EXT-X-ENDLIST\n"
	for name, text := range map[string]string{"s.ts": nested, "x.m3u8": strings.Replace(nested, "file:"+secret, "s.ts", 1), "plain.mp4": nested} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	url := serveFiles(t, dir)
	_, err := finished(t, newRunner(t), "segment", `{`+small+`,"input":`+quoted(url+"/x.m3u8")+`}`)
	wantFailure(t, err, protocol.ReasonUserError)
	_, err = finished(t, newRunner(t), "file", `{`+small+`,"input":`+quoted(url+"/plain.mp4")+`}`)
	wantFailure(t, err, protocol.ReasonInputError)
}

func TestInputNameKeepsItsBlanks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	clip(t, filepath.Join(dir, "t.mp4"), "2")
	if err := os.Rename(clip(t, filepath.Join(dir, "other.mp4"), "1"), filepath.Join(dir, "t.mp4 ")); err != nil {
		t.Fatal(err)
	}
	e, err := finished(t, newRunner(t), "blank", `{`+small+`,"input":`+quoted(filepath.Join(dir, "t.mp4 "))+`}`)
	if err != nil || e.Frames != 25 {
		t.Errorf("%d frames, want the 25 of the file with the blank; %v", e.Frames, err)
	}
}

func TestBrokenTransferIsResumed(t *testing.T) {
	t.Parallel()
	film := clip(t, filepath.Join(t.TempDir(), "in.mp4"), "4", "-b:v", "4M", "-minrate", "4M", "-bufsize", "1M")
	info, err := os.Stat(film)
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		f, err := os.Open(film)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		w.Header().Set("ETag", `"one"`)
		if requests.Add(1) <= 3 {
			w = &breaking{ResponseWriter: w, left: info.Size() / 5}
		}
		http.ServeContent(w, q, "in.mp4", time.Time{}, f)
	}))
	t.Cleanup(server.Close)
	e, err := finished(t, newRunner(t), "resumed", `{`+small+`,"input":`+quoted(server.URL+"/in.mp4")+`}`)
	if err != nil || e.Frames != 100 || e.Fetch == nil || e.Fetch.Resumed != 3 || e.Fetch.Bytes != info.Size() {
		t.Errorf("%d frames, fetch %+v, %v", e.Frames, e.Fetch, err)
	}
}

// breaking breaks off after so many bytes.
type breaking struct {
	http.ResponseWriter
	left int64
}

func (b *breaking) Write(p []byte) (int, error) {
	if int64(len(p)) >= b.left {
		_, _ = b.ResponseWriter.Write(p[:b.left])
		_ = http.NewResponseController(b.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	b.left -= int64(len(p))
	return b.ResponseWriter.Write(p)
}

func TestInputFormatThatIsNotListedIsRefused(t *testing.T) {
	t.Parallel()
	in := clip(t, filepath.Join(t.TempDir(), "in.mp4"), "1", "-an", "-c:v", "flv1", "-f", "swf")
	r := newRunner(t, func(s *Settings) { s.InputFormats = []string{"mov", "matroska"} })
	run := r.Begin(lease(t, "rare", `{"input":`+quoted(in)+`,`+small+`}`))
	f := wantFailure(t, walk(testContext(t), run), protocol.ReasonUserError)
	if !strings.Contains(f.Message, `format "swf" is not allowed (jobs.input_formats)`) {
		t.Errorf("message: %s", f.Message)
	}
	// By its name too: the demuxer that the job names must be one of them.
	run = r.Begin(lease(t, "named", `{"input":`+quoted(in)+`,"input_format":"swf",`+small+`}`))
	f = wantFailure(t, run.Prepare(testContext(t)), protocol.ReasonUserError)
	if !strings.Contains(f.Message, "jobs.input_formats") {
		t.Errorf("message: %s", f.Message)
	}
}
