package fetch

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/internal/hls"
	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/protocol"
)

// stream is a media playlist whose segments are fetched.
type stream struct {
	name  string // of its files
	label string // in errors
	url   *url.URL
	media *hls.Media
}

// errLive is the error for a playlist that is still growing.
var errLive = &Direct{Why: "a live playlist (no EXT-X-ENDLIST)", Format: reach.HLS, Live: true}

// fetchPlaylist fetches everything that an HLS playlist refers to, and writes a playlist of the
// local files.
func (j *fetching) fetchPlaylist(ctx context.Context, t *transfer, result Result) (Result, error) {
	list, err := hls.Parse(string(t.data))
	if err != nil {
		return Result{}, failure(protocol.ReasonInputError, "%s: %v", t.label, err)
	}
	streams := []*stream{{name: "video", label: t.label, url: t.final, media: list.Media}}
	var variant hls.Variant
	var audio *hls.Rendition
	if list.Master != nil {
		if variant, audio, err = j.choose(list.Master); err != nil {
			return Result{}, failure(protocol.ReasonInputError, "%s: %v", t.label, err)
		}
		if streams, err = j.fetchMedia(ctx, t, variant, audio); err != nil {
			return Result{}, err
		}
	}
	var unfetched int
	for _, s := range streams {
		if !s.media.Ended {
			return Result{}, errLive
		}
		if err := checkKeys(s.media); err != nil {
			return Result{}, failure(protocol.ReasonInputError, "%s: %v", s.label, err)
		}
		unfetched += j.dropAfterPart(s.media)
		result.Missing = max(result.Missing, j.dropGaps(s))
		if len(s.media.Segments) == 0 {
			return Result{}, failure(protocol.ReasonInputError, "%s: no segments", s.label)
		}
		j.segments += len(s.media.Segments)
	}
	if unfetched > 0 {
		j.note("HLS: the last %d segments were not fetched, since the job uses only %s", unfetched, j.request.Part)
	}
	first := streams[0].media
	result.Media = first.Duration()
	if size := float64(variant.Bandwidth) / 8 * result.Media.Seconds(); !j.fits(size) {
		return Result{}, &Direct{Why: fmt.Sprintf("its segments have about %s and less disk is free for it", bytesText(int64(size))), Format: reach.HLS}
	}
	for _, s := range first.Segments {
		result.Segments = append(result.Segments, s.Duration)
	}
	local := localFiles{fetching: j, names: map[string]localFile{}}
	for _, s := range streams {
		if err := local.fetchSegments(ctx, s); err != nil {
			return Result{}, err
		}
	}
	result.Format = reach.HLS
	result.Path, err = j.writePlaylists(streams, variant, audio)
	if err != nil {
		return Result{}, diskFailure(t.label, fmt.Errorf("%w: %w", errDisk, withoutPath(err)))
	}
	j.progress(true)
	return result, nil
}

func (j *fetching) fits(size float64) bool {
	free, limited := j.free()
	return !limited || size <= float64(free)
}

// choose returns the variant to fetch, and its audio rendition if there is a separate playlist
// for it.
func (j *fetching) choose(m *hls.Master) (hls.Variant, *hls.Rendition, error) {
	v := chooseVariant(m.Variants, j.request.Variant)
	if len(m.Variants) > 1 {
		j.note("HLS: read in the variant %s, one of %d", describe(v), len(m.Variants))
	}
	var group []hls.Rendition
	var subtitles int
	for _, r := range m.Renditions {
		switch {
		case r.Type == "AUDIO" && r.Group == v.Audio && v.Audio != "":
			group = append(group, r)
		case r.Type == "SUBTITLES" && r.Group == v.Subtitles && v.Subtitles != "":
			subtitles++
		}
	}
	if subtitles > 0 {
		j.note("HLS: subtitles left out (%d)", subtitles)
	}
	if len(group) == 0 {
		return v, nil, nil
	}
	slices.SortStableFunc(group, func(a, b hls.Rendition) int {
		return cmp.Or(compareBool(b.Default, a.Default), compareBool(b.Autoselectable, a.Autoselectable))
	})
	if len(group) > 1 {
		var names []string
		for _, r := range group[1:] {
			names = append(names, cmp.Or(r.Name, r.Language, "unnamed"))
		}
		j.note("HLS: audio left out: %s", strings.Join(names, ", "))
	}
	if group[0].URI == "" {
		return v, nil, nil
	}
	return v, &group[0], nil
}

func compareBool(a, b bool) int {
	if a == b {
		return 0
	}
	if a {
		return 1
	}
	return -1
}

// chooseVariant returns the smallest variant that is at least as large as want, or else the
// largest. Of variants of the same size it returns the one with the lowest sufficient
// bandwidth, or else the highest.
func chooseVariant(variants []hls.Variant, want Variant) hls.Variant {
	sized := slices.DeleteFunc(slices.Clone(variants), func(v hls.Variant) bool { return v.Width == 0 || v.Height == 0 })
	if len(sized) == 0 {
		return byBandwidth(variants, want.Bitrate)
	}
	pixels := func(v hls.Variant) int { return v.Width * v.Height }
	slices.SortStableFunc(sized, func(a, b hls.Variant) int { return cmp.Compare(pixels(a), pixels(b)) })
	chosen := sized[len(sized)-1]
	if want.Width > 0 && want.Height > 0 {
		for _, v := range sized {
			if v.Width >= want.Width && v.Height >= want.Height {
				chosen = v
				break
			}
		}
	}
	same := slices.DeleteFunc(sized, func(v hls.Variant) bool { return v.Width != chosen.Width || v.Height != chosen.Height })
	return byBandwidth(same, want.Bitrate)
}

func byBandwidth(variants []hls.Variant, want int64) hls.Variant {
	sorted := slices.SortedStableFunc(slices.Values(variants), func(a, b hls.Variant) int { return cmp.Compare(a.Bandwidth, b.Bandwidth) })
	if want > 0 {
		for _, v := range sorted {
			if v.Bandwidth >= want {
				return v
			}
		}
	}
	return sorted[len(sorted)-1]
}

func describe(v hls.Variant) string {
	rate := fmt.Sprintf("%.1f Mbit/s", float64(v.Bandwidth)/1e6)
	if v.Width == 0 {
		return rate
	}
	return fmt.Sprintf("%dx%d at %s", v.Width, v.Height, rate)
}

// fetchMedia fetches the playlists of a variant and of its audio.
func (j *fetching) fetchMedia(ctx context.Context, master *transfer, v hls.Variant, audio *hls.Rendition) ([]*stream, error) {
	streams := []*stream{{name: "video"}}
	uris := []string{v.URI}
	if audio != nil {
		streams = append(streams, &stream{name: "audio"})
		uris = append(uris, audio.URI)
	}
	for i, s := range streams {
		u, err := j.resolve(master.final, uris[i])
		if err != nil {
			f, _ := classify(master.label, err)
			return nil, f
		}
		s.label = fmt.Sprintf("%s: %s playlist %s", master.label, s.name, showPart(u))
		t := &transfer{fetching: j, label: s.label, url: u, limit: maxPlaylist, accept: func(fileHeader) error { return nil }}
		if err := t.run(ctx); err != nil {
			return nil, err
		}
		list, err := hls.Parse(string(t.data))
		if err == nil && list.Media == nil {
			err = errors.New("a master playlist within another")
		}
		if err != nil {
			return nil, failure(protocol.ReasonInputError, "%s: %v", s.label, err)
		}
		s.url, s.media = t.final, list.Media
	}
	return streams, nil
}

// resolve returns the absolute URL of a URI in a playlist.
func (j *fetching) resolve(base *url.URL, uri string) (*url.URL, error) {
	if base.Scheme == "file" {
		return j.resolveFile(base, uri)
	}
	u, err := base.Parse(uri)
	if err != nil {
		return nil, &problem{protocol.ReasonInputError, "the playlist refers to something that is not a URL"}
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, &problem{protocol.ReasonUserError, fmt.Sprintf("the playlist refers to protocol %.20q; a playlist from an HTTP server may refer to http and https only", u.Scheme)}
	}
	checked, err := j.settings.Policy.ParseURL(u.String())
	if err != nil {
		var refused *reach.Refused
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("the playlist refers to %s: %w", show(u), err)
		}
		return nil, &problem{protocol.ReasonInputError, fmt.Sprintf("the playlist refers to %s: %v", show(u), err)}
	}
	if checked.User == nil && checked.Scheme == base.Scheme && checked.Host == base.Host {
		checked.User = base.User
	}
	return checked, nil
}

// checkKeys returns an error for encryption that FFmpeg does not support.
func checkKeys(m *hls.Media) error {
	check := func(k *hls.Key) error {
		switch {
		case k == nil:
			return nil
		case k.Format != "" && k.Format != "identity":
			return fmt.Errorf("protected by DRM (EXT-X-KEY with KEYFORMAT %.60q), which is not supported", k.Format)
		case k.Method != "AES-128":
			return fmt.Errorf("encrypted with %.30q; only AES-128 is supported", k.Method)
		case k.URI == "":
			return errors.New("EXT-X-KEY without a URI")
		}
		return nil
	}
	for _, s := range m.Segments {
		if err := check(s.Key); err != nil {
			return err
		}
		if s.Map != nil {
			if err := check(s.Map.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropGaps removes the segments that the playlist marks as missing.
func (j *fetching) dropGaps(s *stream) (missing time.Duration) {
	all := len(s.media.Segments)
	s.media.Segments = slices.DeleteFunc(s.media.Segments, func(segment hls.Segment) bool {
		if segment.Gap {
			missing += segment.Duration
		}
		return segment.Gap
	})
	if dropped := all - len(s.media.Segments); dropped > 0 {
		j.note("HLS: %d of %d segments (%s) are marked as missing (EXT-X-GAP)", dropped, all, missing)
	}
	return missing
}

// dropAfterPart removes the segments after request.Part. One more is kept, because segments may
// be shorter than stated.
func (j *fetching) dropAfterPart(m *hls.Media) (dropped int) {
	if j.request.Part <= 0 {
		return 0
	}
	var before time.Duration
	for i, s := range m.Segments {
		if before > j.request.Part {
			dropped = len(m.Segments) - i - 1
			m.Segments = m.Segments[:i+1]
			return max(dropped, 0)
		}
		before += s.Duration
	}
	return 0
}

// showPart shows a URL in a playlist. The paths of servers may have keys in them.
func showPart(u *url.URL) string {
	if u.Scheme == "http" || u.Scheme == "https" {
		return show(u)
	}
	return u.EscapedPath()
}

// localFiles fetches the files that playlists refer to, each once.
type localFiles struct {
	*fetching
	names map[string]localFile // by URL
}

type localFile struct {
	name string
	size int64
}

// fetchSegments fetches everything that a media playlist refers to, and replaces its URIs by
// the names of the local files.
func (l *localFiles) fetchSegments(ctx context.Context, s *stream) error {
	keys, maps := map[*hls.Key]*hls.Key{}, map[*hls.Map]*hls.Map{}
	for i := range s.media.Segments {
		segment := &s.media.Segments[i]
		part := fmt.Sprintf("segment %d of %d", i+1, len(s.media.Segments))
		encrypted := segment.Key != nil
		key, err := l.localKey(ctx, s, segment.Key, keys)
		if err != nil {
			return err
		}
		if key != nil && key.IV == "" { // FFmpeg would number only the remaining segments
			withIV := *key
			withIV.IV = fmt.Sprintf("0x%032x", segment.Number)
			key = &withIV
		}
		segment.Key = key
		if segment.Map, err = l.localMap(ctx, s, segment.Map, keys, maps); err != nil {
			return err
		}
		file, err := l.fetch(ctx, s, part, segment.URI, encrypted, segment.Map != nil)
		if err != nil {
			return err
		}
		if err := checkRange(segment.Range, file.size); err != nil {
			return failure(protocol.ReasonInputError, "%s: %s: %v", s.label, part, err)
		}
		if err := l.checkContent(file.name, segment.Range, segment.Key); err != nil {
			return failure(protocol.ReasonUserError, "%s: %s: %v", s.label, part, err)
		}
		if segment.Key != nil && segment.Range != nil {
			if file, err = l.cut(file, *segment.Range); err != nil {
				return diskFailure(s.label+": "+part, fmt.Errorf("%w: %w", errDisk, withoutPath(err)))
			}
			segment.Range = nil
		}
		segment.URI = file.name
		l.segment++
		l.progress(false)
	}
	return nil
}

func checkRange(r *hls.Range, size int64) error {
	if r != nil && r.Offset+r.Length > size {
		return fmt.Errorf("bytes %d to %d of a file of %d", r.Offset, r.Offset+r.Length-1, size)
	}
	return nil
}

// checkContent refuses a segment whose decrypted content FFmpeg would take for a playlist:
// FFmpeg would read the local files that it names.
func (l *localFiles) checkContent(name string, r *hls.Range, key *hls.Key) error {
	f, err := os.Open(filepath.Join(l.request.Dir, name))
	if err != nil {
		return withoutPath(err)
	}
	defer f.Close()
	var offset int64
	if r != nil {
		offset = r.Offset
	}
	head := make([]byte, 32*aes.BlockSize)
	n, err := f.ReadAt(head, offset)
	if err != nil && err != io.EOF {
		return withoutPath(err)
	}
	head = head[:n]
	if key != nil {
		if head, err = l.decrypt(head, key); err != nil {
			return err
		}
	}
	return reach.CheckHead(head)
}

// decrypt decrypts the whole blocks of the beginning of a segment (RFC 8216 section 4.3.2.4).
func (l *localFiles) decrypt(head []byte, key *hls.Key) ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(l.request.Dir, key.URI))
	if err != nil {
		return nil, withoutPath(err)
	}
	digits := key.IV[min(len("0x"), len(key.IV)):]
	iv, err := hex.DecodeString(digits)
	if err != nil || len(iv) != aes.BlockSize {
		return nil, errors.New("EXT-X-KEY with an IV other than 0x and 32 hexadecimal digits")
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	head = head[:len(head)/aes.BlockSize*aes.BlockSize]
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(head, head)
	return head, nil
}

// cut copies an encrypted part of a file to a new file: FFmpeg would decrypt it as if the
// encryption started at the beginning of the whole file.
func (l *localFiles) cut(of localFile, r hls.Range) (localFile, error) {
	f, err := os.Open(filepath.Join(l.request.Dir, of.name))
	if err != nil {
		return localFile{}, err
	}
	defer f.Close()
	part := localFile{name: fmt.Sprintf("part-%05d%s", len(l.files), filepath.Ext(of.name)), size: r.Length}
	return part, l.writeFile(part.name, func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(f, r.Offset, r.Length))
		return err
	})
}

// keySize is the size of an AES-128 key in bytes.
const keySize = 16

func (l *localFiles) localKey(ctx context.Context, s *stream, k *hls.Key, known map[*hls.Key]*hls.Key) (*hls.Key, error) {
	if k == nil || known[k] != nil {
		return known[k], nil
	}
	u, err := l.resolve(s.url, k.URI)
	if err != nil {
		f, _ := classify(s.label, err)
		return nil, f
	}
	local := &hls.Key{Method: k.Method, IV: k.IV}
	known[k] = local
	if file, ok := l.names[u.String()]; ok {
		local.URI = file.name
		return local, nil
	}
	t := &transfer{
		fetching: l.fetching, label: fmt.Sprintf("%s: key %s", s.label, showPart(u)), url: u, limit: maxKey,
		accept: func(fileHeader) error { return nil },
	}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	if len(t.data) != keySize {
		return nil, failure(protocol.ReasonInputError, "%s: %d bytes instead of %d", t.label, len(t.data), keySize)
	}
	// FFmpeg opens a local key only if its name has a media file's extension.
	local.URI = fmt.Sprintf("key-%d.ts", len(l.names))
	l.names[u.String()] = localFile{name: local.URI, size: keySize}
	if err := l.writeFile(local.URI, func(w io.Writer) error { _, err := w.Write(t.data); return err }); err != nil {
		return nil, diskFailure(t.label, fmt.Errorf("%w: %w", errDisk, withoutPath(err)))
	}
	return local, nil
}

func (l *localFiles) localMap(ctx context.Context, s *stream, m *hls.Map, keys map[*hls.Key]*hls.Key, known map[*hls.Map]*hls.Map) (*hls.Map, error) {
	if m == nil || known[m] != nil {
		return known[m], nil
	}
	key, err := l.localKey(ctx, s, m.Key, keys)
	if err != nil {
		return nil, err
	}
	file, err := l.fetch(ctx, s, "initialization section", m.URI, m.Key != nil, true)
	if err != nil {
		return nil, err
	}
	if err := checkRange(m.Range, file.size); err != nil {
		return nil, failure(protocol.ReasonInputError, "%s: initialization section: %v", s.label, err)
	}
	if err := l.checkContent(file.name, m.Range, key); err != nil {
		return nil, failure(protocol.ReasonUserError, "%s: initialization section: %v", s.label, err)
	}
	part := m.Range
	if key != nil && part != nil {
		if file, err = l.cut(file, *part); err != nil {
			return nil, diskFailure(s.label, fmt.Errorf("%w: %w", errDisk, withoutPath(err)))
		}
		part = nil
	}
	known[m] = &hls.Map{URI: file.name, Range: part, Key: key}
	return known[m], nil
}

// fetch fetches one file of a stream.
func (l *localFiles) fetch(ctx context.Context, s *stream, part, uri string, encrypted, hasMap bool) (localFile, error) {
	u, err := l.resolve(s.url, uri)
	if err != nil {
		f, _ := classify(s.label+": "+part, err)
		return localFile{}, f
	}
	if file, ok := l.names[u.String()]; ok {
		return file, nil
	}
	t := &transfer{
		fetching: l.fetching, label: fmt.Sprintf("%s: %s (%s)", s.label, part, showPart(u)), url: u,
		path: filepath.Join(l.request.Dir, fmt.Sprintf("%s-%05d", s.name, len(l.names))),
	}
	t.accept = func(h fileHeader) error {
		if !l.fits(float64(h.size)) {
			return &Direct{Why: "less disk is free than its segments need", Format: reach.HLS}
		}
		return nil
	}
	if err := t.run(ctx); err != nil {
		return localFile{}, err
	}
	if t.n == 0 {
		return localFile{}, failure(protocol.ReasonInputError, "%s: empty", t.label)
	}
	file, err := l.name(t, u, encrypted, hasMap)
	if err != nil {
		return localFile{}, diskFailure(t.label, fmt.Errorf("%w: %w", errDisk, withoutPath(err)))
	}
	l.names[u.String()] = file
	return file, nil
}

// name renames a fetched file to have the extension that FFmpeg expects.
func (l *localFiles) name(t *transfer, u *url.URL, encrypted, hasMap bool) (localFile, error) {
	head := make([]byte, 8)
	f, err := os.Open(t.path)
	if err != nil {
		return localFile{}, err
	}
	n, err := io.ReadFull(f, head)
	f.Close()
	if err != nil && err != io.ErrUnexpectedEOF {
		return localFile{}, err
	}
	named := t.path + segmentExtension(head[:n], u.Path, encrypted, hasMap)
	l.files = append(l.files, named)
	return localFile{name: filepath.Base(named), size: t.n}, os.Rename(t.path, named)
}

// writePlaylists writes the local playlists and returns the path of the one to open.
func (j *fetching) writePlaylists(streams []*stream, v hls.Variant, audio *hls.Rendition) (string, error) {
	const name = "input.m3u8"
	path := filepath.Join(j.request.Dir, name)
	if audio == nil {
		return path, j.writeFile(name, streams[0].media.Write)
	}
	for _, s := range streams {
		if err := j.writeFile(s.name+".m3u8", s.media.Write); err != nil {
			return "", err
		}
	}
	v.URI, v.Audio = "video.m3u8", "audio"
	master := hls.Master{Variants: []hls.Variant{v}, Renditions: []hls.Rendition{{
		Type: "AUDIO", Group: "audio", Name: cmp.Or(audio.Name, "audio"), Language: audio.Language, Default: true, URI: "audio.m3u8",
	}}}
	return path, j.writeFile(name, master.Write)
}

func (j *fetching) writeFile(name string, write func(io.Writer) error) error {
	f, err := j.create(filepath.Join(j.request.Dir, name))
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
