package hls

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func parse(t *testing.T, text string) *Playlist {
	t.Helper()
	p, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseMedia(t *testing.T) {
	p := parse(t, "\ufeff#EXTM3U\r\n#EXT-X-VERSION:7\r\n#EXT-X-TARGETDURATION:6\r\n#EXT-X-MEDIA-SEQUENCE:7\r\n"+`#EXT-X-MAP:URI="init.mp4",BYTERANGE="720@0"
#EXT-X-KEY:METHOD=AES-128,URI="k?a=1,b=2",IV=0x1f
#EXT-X-DATERANGE:ID="x",X-URI="no",URI="ad.m3u8"
#EXTINF:6.006,a title, with a comma
#EXT-X-BYTERANGE:100@720
all.mp4
# a comment
#EXTINF:4
#EXT-X-BYTERANGE:50
all.mp4
#EXT-X-KEY:METHOD=NONE
#EXT-X-DISCONTINUITY
#EXT-X-GAP
#EXTINF:2.5,
other.ts
#EXT-X-ENDLIST`)
	key := &Key{Method: "AES-128", URI: "k?a=1,b=2", IV: "0x1f"}
	initial := &Map{URI: "init.mp4", Range: &Range{0, 720}}
	want := &Media{
		Ended: true, Sequence: 7, Segments: []Segment{
			{URI: "all.mp4", Duration: 6006 * time.Millisecond, Range: &Range{720, 100}, Key: key, Map: initial, Number: 7},
			{URI: "all.mp4", Duration: 4 * time.Second, Range: &Range{820, 50}, Key: key, Map: initial, Number: 8},
			{URI: "other.ts", Duration: 2500 * time.Millisecond, Map: initial, Discontinuity: true, Gap: true, Number: 9},
		},
	}
	if diff := cmp.Diff(want, p.Media); diff != "" {
		t.Errorf("media playlist (-want +got):\n%s", diff)
	}
	if want := []string{"init.mp4", "k?a=1,b=2", "ad.m3u8", "all.mp4", "all.mp4", "other.ts"}; !slices.Equal(p.URIs(), want) {
		t.Errorf("got URIs %q, want %q", p.URIs(), want)
	}
	if got, want := p.Media.Duration(), 12506*time.Millisecond; got != want {
		t.Errorf("got duration %s, want %s", got, want)
	}
}

func TestParseMaster(t *testing.T) {
	p := parse(t, `#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="English, mono",LANGUAGE="en",DEFAULT=YES,AUTOSELECT=YES,URI="en.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=1280000,RESOLUTION=1280x720,CODECS="avc1.4d401f,mp4a.40.2",AUDIO="a",SUBTITLES="s"
720.m3u8
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="iframes.m3u8"
`)
	want := &Master{
		Variants: []Variant{{
			URI: "720.m3u8", Bandwidth: 1280000, Width: 1280, Height: 720, Codecs: "avc1.4d401f,mp4a.40.2", Audio: "a", Subtitles: "s",
		}},
		Renditions: []Rendition{{
			Type: "AUDIO", URI: "en.m3u8", Group: "a", Name: "English, mono", Language: "en", Default: true, Autoselectable: true,
		}},
	}
	if diff := cmp.Diff(want, p.Master); diff != "" {
		t.Errorf("master playlist (-want +got):\n%s", diff)
	}
	if want := []string{"en.m3u8", "720.m3u8", "iframes.m3u8"}; !slices.Equal(p.URIs(), want) {
		t.Errorf("got URIs %q, want %q", p.URIs(), want)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "#EXTM3U",
		"<html>":                         "#EXTM3U",
		"#EXTM3U\n":                      "neither segments nor variants",
		"#EXTM3U\na.ts":                  "without EXTINF",
		"#EXTM3U\n#EXTINF:x,\na.ts":      "#EXTINF",
		"#EXTM3U\n#EXTINF:NaN,\na.ts":    "#EXTINF",
		"#EXTM3U\n#EXTINF:1e9,\na.ts":    "#EXTINF",
		"#EXTM3U\n#EXTINF:1,\na\x00b.ts": "control character",
		"#EXTM3U\n#EXTINF:1,\n#EXT-X-BYTERANGE:-4\na.ts":                    "BYTERANGE",
		"#EXTM3U\n#EXTINF:1,\n#EXT-X-BYTERANGE:9223372036854775807@2\na.ts": "BYTERANGE",
		"#EXTM3U\n#EXT-X-MAP:X=1":                                           "no URI",
		"#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"k\",IV=\"0x1,URI=file:\"": "IV",
		"#EXTM3U\n#EXT-X-STREAM-INF:X=1\nv\n#EXTINF:1,\na.ts":               "both variants and segments",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want %q in it", text, err, want)
		}
	}
}

// FuzzParse checks that a playlist survives writing and parsing, and that no value can inject a
// tag into the written playlist.
func FuzzParse(f *testing.F) {
	f.Add("#EXTM3U\n#EXT-X-MAP:URI=\"i\",BYTERANGE=\"7@0\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"k\",IV=0x1\n#EXTINF:6.5,t\n#EXT-X-BYTERANGE:1@2\na\n#EXT-X-ENDLIST")
	f.Add("#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",URI=\"b\"\n#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=1x2,AUDIO=\"a\"\nv")
	f.Add("#EXTM3U\n#EXT-X-DISCONTINUITY\n#EXT-X-GAP\n#EXT-X-KEY:METHOD=NONE\n#EXTINF:1\r#EXT-X-BYTERANGE:1\nx\n#EXT-X-ENDLIST")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil || p.Media == nil {
			return
		}
		for _, s := range p.Media.Segments {
			if strings.ContainsAny(s.URI, "\r\n\"") || s.Key != nil && s.Key.Method != "AES-128" || s.Map != nil && s.Map.Key != nil && s.Map.Key.Method != "AES-128" {
				return // not written by the callers
			}
		}
		var b strings.Builder
		if err := p.Media.Write(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(b.String())
		if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
		if len(again.Media.Segments) != len(p.Media.Segments) || again.Media.Duration() != p.Media.Duration() || again.Media.Ended != p.Media.Ended {
			t.Errorf("got\n%s\nfrom\n%s", b.String(), text)
		}
	})
}
