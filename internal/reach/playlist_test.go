package reach

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folderWithLinks makes a folder show with a file, a subfolder and links, beside a secret.
func folderWithLinks(t *testing.T) (dir, show string) {
	t.Helper()
	dir = t.TempDir()
	show = filepath.Join(dir, "show")
	if err := os.MkdirAll(filepath.Join(show, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"secret.ts": "secret", "show/a.ts": "a", "show/sub/b.ts": "b", "show/50%41.ts": "percent", "show/empty.ts": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"inside.ts": "sub/b.ts", "outside.ts": "../secret.ts", "up": "..", "nowhere.ts": "../none.ts"} {
		if err := os.Symlink(to, filepath.Join(show, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, show
}

func TestBelow(t *testing.T) {
	dir, show := folderWithLinks(t)
	for uri, want := range map[string]string{
		"a.ts": "a.ts", "sub/b.ts": "sub/b.ts", "./sub/../a.ts": "a.ts", "inside.ts": "sub/b.ts", "50%41.ts": "50%41.ts",
		show + "/a.ts": "a.ts", "file:" + show + "/a.ts": "a.ts", "file://" + show + "/a.ts": "a.ts",
		"../secret.ts": "refused", "outside.ts": "refused", "up/secret.ts": "refused", "up/show/a.ts": "a.ts", dir + "/secret.ts": "refused", "/etc/passwd": "refused",
		"http://host/a.ts": "refused", "concat:a.ts|sub/b.ts": "refused", "file,,start,0:a.ts": "refused", "data:text/plain,x": "refused",
		"none.ts": "missing", "empty.ts": "unreadable", "sub": "unreadable", "nowhere.ts": "unreadable",
	} {
		real, err := Below(show, show, uri)
		got, _ := filepath.Rel(show, real)
		var invalid *Invalid
		switch {
		case errors.As(err, &invalid):
			got = "refused"
		case errors.Is(err, fs.ErrNotExist):
			got = "missing"
		case err != nil:
			got = "unreadable"
		}
		if got != want {
			t.Errorf("%s: got %s (%v), want %s", uri, got, err, want)
		}
	}
	if real, err := Below(show, filepath.Join(show, "sub"), "../a.ts"); err != nil || real != filepath.Join(show, "a.ts") {
		t.Errorf("from a subfolder: got %s, %v", real, err)
	}
}

func TestCheckDASHPlaylist(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		refused bool
	}{
		"relative template": {`<MPD><Period><AdaptationSet><SegmentTemplate media="v/$RepresentationID$-$Number$.m4s" initialization="init.mp4"/></AdaptationSet></Period></MPD>`, false},
		"relative base":     {`<MPD><BaseURL>./</BaseURL><Period><BaseURL> media/ </BaseURL></Period></MPD>`, false},
		"namespaces":        {`<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" xmlns:xlink="http://www.w3.org/1999/xlink"><Period id="1"/></MPD>`, false},
		"base on a server":  {`<MPD><BaseURL>http://host/</BaseURL></MPD>`, true},
		"base that is root": {`<MPD><BaseURL>/</BaseURL></MPD>`, true},
		"base in CDATA":     {`<MPD><BaseURL><![CDATA[../]]></BaseURL></MPD>`, true},
		"base with entity":  {`<MPD><BaseURL>.&#46;/x</BaseURL></MPD>`, true},
		"template above":    {`<MPD><SegmentTemplate media="../$Number$.m4s"/></MPD>`, true},
		"id that is a path": {`<MPD><Representation id="../x"/></MPD>`, true},
		"list":              {`<MPD><SegmentURL media="file:/etc/passwd"/></MPD>`, true},
		"initialization":    {`<MPD><Initialization sourceURL="/etc/passwd"/></MPD>`, true},
		"remote element":    {`<MPD><Period xlink:href="http://host/p.xml"/></MPD>`, true},
		"location":          {`<MPD><Location>http://host/x.mpd</Location></MPD>`, true},
		"DTD":               {`<!DOCTYPE MPD [<!ENTITY x SYSTEM "file:///etc/passwd">]><MPD/>`, true},
	} {
		path := filepath.Join(t.TempDir(), "x.mpd")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var invalid *Invalid
		if err := CheckPlaylist(path, DASH); (err != nil) != c.refused || err != nil && !errors.As(err, &invalid) {
			t.Errorf("%s: got %v, want refused: %t", name, err, c.refused)
		}
	}
	_, show := folderWithLinks(t)
	path := filepath.Join(show, "x.mpd")
	if err := os.WriteFile(path, []byte("<MPD/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckPlaylist(path, DASH); err == nil || !strings.Contains(err.Error(), "link") {
		t.Errorf("a folder with a link that leads out of it: got %v", err)
	}
}

func TestCheckHead(t *testing.T) {
	for head, refused := range map[string]bool{
		"#EXTM3U\n": true, "\ufeff#EXTM3U": true, "\n #EXTM3U": true, "<?xml version='1.0'?>\n<MPD xmlns=''>": true, "\x47\x40\x11": false, "": false, "film #EXTM3U": false,
	} {
		if err := CheckHead([]byte(head)); (err != nil) != refused {
			t.Errorf("%q: got %v, want refused: %t", head, err, refused)
		}
	}
}
