package reach

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ffmpeg-agent/internal/hls"
)

// Bounds of a local playlist.
const (
	maxPlaylist = 4 << 20 // bytes
	maxNested   = 100     // playlists that a master playlist refers to
	maxFiles    = 100_000 // below the folder of a DASH playlist
)

// CheckPlaylist checks that a local playlist, which FFmpeg is about to read itself, refers only
// to files below its own directory. The links of path must have been resolved. The error is an
// *Invalid or that of the file system.
func CheckPlaylist(path, format string) error {
	if format == DASH {
		return checkDASH(path)
	}
	return checkHLS(filepath.Dir(path), path, map[string]bool{})
}

// checkHLS checks a playlist and those that it refers to.
func checkHLS(folder, path string, seen map[string]bool) error {
	if seen[path] {
		return nil
	}
	if seen[path] = true; len(seen) > maxNested {
		return invalid("more than %d playlists", maxNested)
	}
	list, err := ReadHLS(path)
	if err != nil {
		return err
	}
	for _, uri := range list.URIs() {
		real, err := Below(folder, filepath.Dir(path), uri)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // refers to no file
		case err != nil:
		case names(list.Master, uri):
			err = checkHLS(folder, real, seen)
		default:
			err = CheckSegment(real)
		}
		if err != nil {
			return fmt.Errorf("%.200s: %w", uri, err)
		}
	}
	return nil
}

// names reports whether a master playlist names a media playlist.
func names(m *hls.Master, uri string) bool {
	return m != nil && (slices.ContainsFunc(m.Variants, func(v hls.Variant) bool { return v.URI == uri }) ||
		slices.ContainsFunc(m.Renditions, func(r hls.Rendition) bool { return r.URI == uri }))
}

// ReadHLS reads a playlist from a file.
func ReadHLS(path string) (*hls.Playlist, error) {
	raw, err := readPlaylist(path)
	if err != nil {
		return nil, err
	}
	list, err := hls.Parse(string(raw))
	if err != nil {
		return nil, fmt.Errorf("parsing the playlist: %w", err)
	}
	return list, nil
}

func readPlaylist(path string) ([]byte, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxPlaylist+1))
	if err == nil && len(raw) > maxPlaylist {
		err = fmt.Errorf("a playlist of more than %d bytes", maxPlaylist)
	}
	return raw, withoutPath(err)
}

// CheckSegment refuses a segment that is itself a playlist.
func CheckSegment(path string) error {
	f, err := OpenRegular(path)
	if err != nil {
		return withoutPath(err)
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return withoutPath(err)
	}
	return CheckHead(head[:n])
}

// CheckHead is CheckSegment for the first bytes of a segment. FFmpeg detects the format of a
// segment by its content, and would read the unchecked inputs that such a playlist names.
func CheckHead(head []byte) error {
	head = bytes.TrimLeft(head, "\ufeff \t\r\n")
	if bytes.HasPrefix(head, []byte("#EXTM3U")) || bytes.Contains(head, []byte("<MPD")) {
		return invalid("a segment that is itself a playlist")
	}
	return nil
}

// checkDASH checks that all URLs in a playlist are relative and below its directory, and that no
// symbolic link in the directory leads out of it. The links of single segments cannot be
// checked, since templates name the segments.
func checkDASH(path string) error {
	raw, err := readPlaylist(path)
	if err != nil {
		return err
	}
	decoder := xml.NewDecoder(bytes.NewReader(raw))
	for inBase := false; ; {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("parsing the playlist: %w", err)
		}
		var uris []string
		switch token := token.(type) {
		case xml.StartElement:
			inBase = slices.Contains([]string{"BaseURL", "Location", "PatchLocation"}, token.Name.Local)
			for _, a := range token.Attr {
				switch a.Name.Local {
				case "media", "initialization", "index", "sourceURL", "bitstreamSwitching", "href":
					uris = append(uris, a.Value)
				case "id": // what a template's $RepresentationID$ stands for
					if strings.ContainsAny(a.Value, "/:") {
						return invalid("the playlist has an id with a slash or a colon")
					}
				}
			}
		case xml.EndElement:
			inBase = false
		case xml.CharData:
			if inBase {
				uris = append(uris, strings.TrimSpace(string(token)))
			}
		case xml.Directive:
			return invalid("the playlist has a document type definition")
		}
		for _, uri := range uris {
			if name, _, rest := CutProtocol(uri); name != "" || uri != "" && uri != "./" && !filepath.IsLocal(rest) {
				return invalid("a local playlist refers to %.200q; it reaches files below its own folder only", uri)
			}
		}
	}
	return checkLinks(filepath.Dir(path))
}

// checkLinks checks that no link below a folder leads out of it.
func checkLinks(folder string) error {
	files := 0
	return filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if files++; files > maxFiles {
			return invalid("the playlist's folder has more than %d files", maxFiles)
		}
		if err != nil || e.Type() != os.ModeSymlink {
			return nil // FFmpeg cannot read it either
		}
		if real, _, err := ResolveLinks(path); err == nil && !Within(real, []string{folder}) {
			return invalid("the playlist's folder has a link that leads out of it: %.200q", filepath.Base(path))
		}
		return nil
	})
}
