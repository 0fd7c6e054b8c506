package fetch

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ffmpeg-agent/internal/hls"
	"ffmpeg-agent/messages/protocol"
)

// Six seconds of video and sound, 25 frames per second, in segments of one second.
const (
	frames   = 150
	segments = 6
)

var media = []string{
	"-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=6", "-f", "lavfi", "-i", "sine=d=6:r=48000",
	"-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p", "-c:a", "aac",
}

func ffmpeg(t *testing.T, dir string, args ...string) string {
	t.Helper()
	c := exec.Command("ffmpeg", append([]string{"-nostdin", "-v", "error"}, args...)...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("ffmpeg %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// makeHLS writes video.m3u8, its segments and secret.key to a new directory.
func makeHLS(t *testing.T, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secret.key"), secretKey)
	args := append(slices.Clone(media), "-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod")
	ffmpeg(t, dir, append(append(args, options...), "video.m3u8")...)
	return dir
}

const secretKey = "0123456789abcdef"

// encryption returns options of FFmpeg for AES-128 with secret.key.
func encryption(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "key"), secretKey)
	write(t, filepath.Join(dir, "info"), "secret.key?token=hunter2\n"+filepath.Join(dir, "key")+"\n")
	return []string{"-hls_key_info_file", filepath.Join(dir, "info")}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// replace changes a file of a directory.
func replace(t *testing.T, dir, name, from, to string) {
	t.Helper()
	text := read(t, filepath.Join(dir, name))
	if !strings.Contains(text, from) {
		t.Fatalf("no %q in %s:\n%s", from, name, text)
	}
	write(t, filepath.Join(dir, name), strings.Replace(text, from, to, 1))
}

// requests are the requested paths.
type requests struct {
	mu    sync.Mutex
	paths []string
}

func serveDir(t *testing.T, dir string) (url string, seen *requests) {
	seen = &requests{}
	files := http.FileServer(http.Dir(dir))
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen.mu.Lock()
		seen.paths = append(seen.paths, r.URL.Path)
		seen.mu.Unlock()
		files.ServeHTTP(w, r)
	})
	return s.URL, seen
}

// wantPlayable decodes a fetched playlist like the agent, from its directory alone, and checks
// the number of frames.
func wantPlayable(t *testing.T, path string, wantFrames int, wantAudio bool) {
	t.Helper()
	out := ffmpeg(t, "/", "-protocol_whitelist", "file,crypto", "-i", path, "-map", "0", "-f", "framecrc", "-")
	var video, audio int
	types := map[string]string{} // by stream
	for line := range strings.Lines(out) {
		if kind, ok := strings.CutPrefix(line, "#media_type "); ok {
			stream, kind, _ := strings.Cut(kind, ": ")
			types[stream] = strings.TrimSpace(kind)
		}
		stream, _, _ := strings.Cut(line, ",")
		switch types[stream] {
		case "video":
			video++
		case "audio":
			audio++
		}
	}
	if video != wantFrames || (audio > 0) != wantAudio {
		t.Errorf("got %d frames, %d of audio, want %d and audio %t", video, audio, wantFrames, wantAudio)
	}
}

func TestFetchesHLS(t *testing.T) {
	for name, options := range map[string][]string{
		"MPEG-TS":        nil,
		"fMP4":           {"-hls_segment_type", "fmp4"},
		"one file":       {"-hls_flags", "single_file"},
		"fMP4, one file": {"-hls_segment_type", "fmp4", "-hls_flags", "single_file"},
		"AES-128":        encryption(t),
		"other name":     {"-hls_segment_filename", "part%d.ts"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := makeHLS(t, options...)
			url, _ := serveDir(t, dir)
			var last Progress
			r, err := newFetcher(t, nil).Fetch(t.Context(), Request{URL: url + "/video.m3u8?token=hunter2", Dir: t.TempDir()}, func(p Progress) { last = p })
			if err != nil {
				t.Fatal(err)
			}
			if r.Format != "hls" || len(r.Segments) != segments || (r.Media-6*time.Second).Abs() > 50*time.Millisecond {
				t.Errorf("got format %q, %d segments, %s; want hls, %d, 6s", r.Format, len(r.Segments), r.Media, segments)
			}
			if last.Segment != segments || last.Segments != segments || last.Bytes != r.Bytes || last.Total != -1 {
				t.Errorf("got last progress %+v, want %d segments and %d bytes", last, segments, r.Bytes)
			}
			wantPlayable(t, r.Path, frames, true)
			if text := read(t, r.Path); strings.Contains(text, "hunter2") || strings.Contains(text, "://") {
				t.Errorf("the local playlist refers elsewhere:\n%s", text)
			}
		})
	}
}

// master is a master playlist with video in three sizes and separate audio.
func makeMaster(t *testing.T) string {
	dir := makeHLS(t, "-an")
	ffmpeg(t, dir, append(slices.Clone(media), "-vn", "-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod", "audio.m3u8")...)
	write(t, filepath.Join(dir, "master.m3u8"), `#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="Deutsch",LANGUAGE="de",URI="missing.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="English",LANGUAGE="en",DEFAULT=YES,AUTOSELECT=YES,URI="audio.m3u8"
#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="English",URI="missing.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=900000,RESOLUTION=320x240,AUDIO="a",SUBTITLES="s"
missing.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=300000,RESOLUTION=160x120,AUDIO="a",SUBTITLES="s"
video.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=100000,RESOLUTION=80x60,AUDIO="a"
missing.m3u8
`)
	return dir
}

func TestHLSVariantWithSeparateAudio(t *testing.T) {
	url, seen := serveDir(t, makeMaster(t))
	r, err := newFetcher(t, nil).Fetch(t.Context(), Request{
		URL: url + "/master.m3u8", Dir: t.TempDir(), Variant: Variant{Width: 128, Height: 96},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantPlayable(t, r.Path, frames, true)
	notes := strings.Join(r.Notes, "\n")
	for _, want := range []string{"160x120", "one of 3", "audio left out: Deutsch", "subtitles left out"} {
		if !strings.Contains(notes, want) {
			t.Errorf("got notes %q, want %q in them", notes, want)
		}
	}
	if slices.Contains(seen.paths, "/missing.m3u8") {
		t.Error("a variant that is not needed was fetched")
	}
}

func TestHLSErrors(t *testing.T) {
	sound := makeHLS(t)
	for name, test := range map[string]struct {
		options []string
		change  func(t *testing.T, dir string)
		reason  protocol.FailureReason
		words   []string
	}{
		"missing segment": {nil, func(t *testing.T, dir string) { replace(t, dir, "video.m3u8", "video4.ts", "hunter2/video4.ts") },
			protocol.ReasonInputError, []string{"segment 5 of 6", "/video4.ts", "HTTP 404"}},
		"empty segment": {nil, func(t *testing.T, dir string) { write(t, filepath.Join(dir, "video1.ts"), "") },
			protocol.ReasonInputError, []string{"segment 2 of 6", "empty"}},
		"range beyond the file": {[]string{"-hls_flags", "single_file"}, func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "video.ts"), 100_000); err != nil {
				t.Fatal(err)
			}
		}, protocol.ReasonInputError, []string{"segment", "of a file of 100000"}},
		"SAMPLE-AES": {nil, func(t *testing.T, dir string) {
			replace(t, dir, "video.m3u8", "#EXTINF", "#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"k\"\n#EXTINF")
		}, protocol.ReasonInputError, []string{"SAMPLE-AES"}},
		"DRM": {nil, func(t *testing.T, dir string) {
			replace(t, dir, "video.m3u8", "#EXTINF", "#EXT-X-KEY:METHOD=AES-128,URI=\"skd://k\",KEYFORMAT=\"com.apple.streamingkeydelivery\"\n#EXTINF")
		}, protocol.ReasonInputError, []string{"DRM"}},
		"key of another size": {nil, func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "k"), "short")
			replace(t, dir, "video.m3u8", "#EXTINF", "#EXT-X-KEY:METHOD=AES-128,URI=\"k?x=hunter2\"\n#EXTINF")
		}, protocol.ReasonInputError, []string{"key http://", "/***: 5 bytes instead of 16"}},
		"local file": {nil, func(t *testing.T, dir string) { replace(t, dir, "video.m3u8", "video2.ts", "file:///etc/passwd") },
			protocol.ReasonUserError, []string{"segment 3 of 6", "file"}},
		"local key": {nil, func(t *testing.T, dir string) {
			replace(t, dir, "video.m3u8", "#EXTINF", "#EXT-X-KEY:METHOD=AES-128,URI=\"file:///etc/passwd\"\n#EXTINF")
		}, protocol.ReasonUserError, []string{"file"}},
		"metadata": {nil, func(t *testing.T, dir string) {
			replace(t, dir, "video.m3u8", "video2.ts", "http://169.254.169.254/latest?x=hunter2")
		}, protocol.ReasonUserError, []string{"segment 3 of 6", "169.254.169.254"}},
		"not a playlist": {nil, func(t *testing.T, dir string) { write(t, filepath.Join(dir, "video.m3u8"), "<html>") },
			protocol.ReasonInputError, []string{"#EXTM3U"}},
		"too large": {nil, func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "video.m3u8"), "#EXTM3U\n"+strings.Repeat("#\n", maxPlaylist))
		}, protocol.ReasonInputError, []string{"larger than"}},
		"no segments": {nil, func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "video.m3u8"), "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-ENDLIST\n")
		}, protocol.ReasonInputError, []string{"no segments"}},
		"master in a master": {nil, func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "video.m3u8"), "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nvideo.m3u8\n")
		}, protocol.ReasonInputError, []string{"master playlist within another"}},
	} {
		t.Run(name, func(t *testing.T) {
			source := t.TempDir()
			made := sound
			if test.options != nil {
				made = makeHLS(t, test.options...)
			}
			if err := os.CopyFS(source, os.DirFS(made)); err != nil {
				t.Fatal(err)
			}
			test.change(t, source)
			url, _ := serveDir(t, source)
			dir := t.TempDir()
			_, err := newFetcher(t, nil).Fetch(t.Context(), Request{URL: url + "/video.m3u8?k=hunter2", Dir: dir}, nil)
			wantFailure(t, err, test.reason, append(test.words, "/video.m3u8")...)
			wantEmpty(t, dir)
		})
	}
}

func TestHLSGapIsLeftOut(t *testing.T) {
	dir := makeHLS(t, encryption(t)...)
	playlist := filepath.Join(dir, "video.m3u8")
	write(t, playlist, regexp.MustCompile(`,IV=\w+`).ReplaceAllString(read(t, playlist), "")) // it is the segment's number
	replace(t, dir, "video.m3u8", "video2.ts", "#EXT-X-GAP\nvideo2.ts")
	os.Remove(filepath.Join(dir, "video2.ts"))
	url, _ := serveDir(t, dir)
	r, err := fetchURL(t, newFetcher(t, nil), url+"/video.m3u8")
	if err != nil {
		t.Fatal(err)
	}
	wantPlayable(t, r.Path, frames-25, true)
	// A wrong vector garbles only the first 16 bytes of a segment, which FFmpeg survives.
	if text := read(t, r.Path); strings.Contains(text, "IV=0x"+strings.Repeat("0", 31)+"2") || !strings.Contains(text, "IV=0x"+strings.Repeat("0", 31)+"3") {
		t.Errorf("got initialization vectors\n%s\nwant the segments' original numbers 0, 1, 3, 4, 5", text)
	}
	if r.Missing != time.Second || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "1 of 6 segments (1s)") {
		t.Errorf("got %s missing, notes %q; want 1s and a note", r.Missing, r.Notes)
	}
}

func TestHLSPartNeedsFewerSegments(t *testing.T) {
	url, seen := serveDir(t, makeHLS(t))
	r, err := newFetcher(t, nil).Fetch(t.Context(), Request{URL: url + "/video.m3u8", Dir: t.TempDir(), Part: 1500 * time.Millisecond}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantPlayable(t, r.Path, 75, true)
	if len(r.Segments) != 3 || slices.Contains(seen.paths, "/video3.ts") {
		t.Errorf("got %d segments, requests %v; want 3", len(r.Segments), seen.paths)
	}
}

func TestHLSThatDoesNotFit(t *testing.T) {
	url, _ := serveDir(t, makeMaster(t))
	dir := t.TempDir()
	r := Request{URL: url + "/master.m3u8", Dir: dir, Variant: Variant{Width: 128, Height: 96}, FreeDisk: func() int64 { return 1000 }}
	_, err := newFetcher(t, nil).Fetch(t.Context(), r, nil)
	wantDirect(t, err, "disk")
	wantEmpty(t, dir)
}

func TestChooseVariant(t *testing.T) {
	ladder := []hls.Variant{
		{URI: "1080", Width: 1920, Height: 1080, Bandwidth: 5e6}, {URI: "720low", Width: 1280, Height: 720, Bandwidth: 2e6},
		{URI: "720high", Width: 1280, Height: 720, Bandwidth: 3e6}, {URI: "audio", Bandwidth: 1e5}, {URI: "360", Width: 640, Height: 360, Bandwidth: 1e6},
	}
	rates := []hls.Variant{{URI: "b", Bandwidth: 2e6}, {URI: "a", Bandwidth: 1e6}, {URI: "c", Bandwidth: 3e6}}
	for _, test := range []struct {
		variants []hls.Variant
		want     Variant
		uri      string
	}{
		{ladder, Variant{}, "1080"}, {ladder, Variant{Width: 640, Height: 360}, "360"}, {ladder, Variant{Width: 642, Height: 360}, "720high"},
		{ladder, Variant{Width: 1280, Height: 720, Bitrate: 1e6}, "720low"}, {ladder, Variant{Width: 1280, Height: 720, Bitrate: 9e6}, "720high"},
		{ladder, Variant{Width: 3840, Height: 2160}, "1080"}, {rates, Variant{Width: 1280, Height: 720}, "c"}, {rates, Variant{Bitrate: 15e5}, "b"},
	} {
		t.Run(fmt.Sprint(test.want), func(t *testing.T) {
			if got := chooseVariant(test.variants, test.want).URI; got != test.uri {
				t.Errorf("got %s, want %s", got, test.uri)
			}
		})
	}
}

// FFmpeg would decrypt the first block of each part wrongly, which not every format survives.
func TestEncryptedPartsOfOneFile(t *testing.T) {
	dir := makeHLS(t, encryption(t)...)
	var all []byte
	var parts []string
	lines := strings.Split(read(t, filepath.Join(dir, "video.m3u8")), "\n")
	for i, line := range lines {
		if strings.HasSuffix(line, ".ts") {
			part := read(t, filepath.Join(dir, line))
			lines[i] = fmt.Sprintf("#EXT-X-BYTERANGE:%d@%d\nall.ts", len(part), len(all))
			all = append(all, part...)
			parts = append(parts, part)
		}
	}
	write(t, filepath.Join(dir, "all.ts"), string(all))
	write(t, filepath.Join(dir, "video.m3u8"), strings.Join(lines, "\n"))
	url, seen := serveDir(t, dir)
	f := newFetcher(t, nil)
	fetched, err := fetchURL(t, f, url+"/video.m3u8")
	if err != nil {
		t.Fatal(err)
	}
	wantPlayable(t, fetched.Path, frames, true)
	wantParts(t, fetched.Path, parts)
	if n := len(seen.paths); n != 3 { // playlist, key and one file
		t.Errorf("got requests %v, want 3", seen.paths)
	}
	write(t, filepath.Join(dir, "secret.key?token=hunter2"), secretKey) // its name on a disk
	linked, err := f.Link(t.Context(), filepath.Join(dir, "video.m3u8"), Request{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	wantPlayable(t, linked.Path, frames, true)
	wantParts(t, linked.Path, parts)
}

// wantParts checks what the segments of a local playlist contain.
func wantParts(t *testing.T, playlist string, want []string) {
	t.Helper()
	list, err := hls.Parse(read(t, playlist))
	if err != nil || len(list.Media.Segments) != len(want) {
		t.Fatalf("got playlist %+v, %v; want %d segments", list, err, len(want))
	}
	for i, s := range list.Media.Segments {
		if got := read(t, filepath.Join(filepath.Dir(playlist), s.URI)); got != want[i] || s.Range != nil {
			t.Errorf("segment %d: got %d bytes and range %v, want the %d of the original and none", i+1, len(got), s.Range, len(want[i]))
		}
	}
}

func TestEncryptedPlaylistAsSegmentIsRefused(t *testing.T) {
	dir := makeHLS(t, encryption(t)...)
	nested := []byte("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:/etc/passwd\n#EXT-X-ENDLIST\n")
	nested = append(nested, make([]byte, aes.BlockSize-len(nested)%aes.BlockSize)...)
	block, err := aes.NewCipher([]byte(secretKey))
	if err != nil {
		t.Fatal(err)
	}
	iv := make([]byte, aes.BlockSize)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(nested, nested)
	write(t, filepath.Join(dir, "video0.ts"), string(nested))
	text := regexp.MustCompile(`IV=0x[0-9a-f]+`).ReplaceAllString(read(t, filepath.Join(dir, "video.m3u8")), "IV=0x"+strings.Repeat("0", 32))
	write(t, filepath.Join(dir, "video.m3u8"), text)
	url, _ := serveDir(t, dir)
	_, err = fetchURL(t, newFetcher(t, nil), url+"/video.m3u8")
	wantFailure(t, err, protocol.ReasonUserError, "a segment that is itself a playlist")
}

func TestSegmentsThatDoNotFitAreLeftToFFmpeg(t *testing.T) {
	url, _ := serveDir(t, makeHLS(t))
	dir := t.TempDir()
	free := int64(100_000) // its playlist states no bandwidth
	_, err := newFetcher(t, nil).Fetch(t.Context(), Request{URL: url + "/video.m3u8", Dir: dir, FreeDisk: func() int64 {
		free /= 2
		return free
	}}, nil)
	wantDirect(t, err, "less disk is free")
	wantEmpty(t, dir)
}
