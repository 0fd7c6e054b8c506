// Package hls parses and writes the playlists of HTTP Live Streaming (RFC 8216), as far as
// fetching and checking an input requires. It fetches nothing and applies no policy.
package hls

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Playlist is a playlist as parsed: either Master or Media is set.
type Playlist struct {
	Master *Master
	Media  *Media
	uris   []string
}

// URIs returns everything that the playlist refers to, as written and in order: variants,
// renditions, segments, keys, initialization sections, and the values of URI attributes of
// tags that this package ignores.
func (p *Playlist) URIs() []string { return p.uris }

// Master is a master playlist: the same content in several qualities.
type Master struct {
	Variants   []Variant
	Renditions []Rendition
}

// Variant is one quality of the content (EXT-X-STREAM-INF).
type Variant struct {
	URI           string
	Bandwidth     int64 // bits per second; 0 if not stated
	Width, Height int   // pixels; 0 if not stated
	Codecs        string
	Audio         string // GROUP-ID of its audio renditions; empty: its audio is in its own playlist
	Subtitles     string // GROUP-ID of its subtitle renditions
}

// Rendition is an alternative track (EXT-X-MEDIA). Without a URI it is in the playlists of
// the variants.
type Rendition struct {
	Type                    string // AUDIO, VIDEO, SUBTITLES or CLOSED-CAPTIONS
	URI                     string
	Group, Name, Language   string
	Default, Autoselectable bool
}

// Media is a media playlist: the segments of one variant or rendition.
type Media struct {
	Segments              []Segment
	Ended                 bool // EXT-X-ENDLIST: no segments will be added
	Sequence              uint64
	DiscontinuitySequence uint64
	IFramesOnly           bool
}

// Duration is the sum of the segments' durations, gaps included.
func (m *Media) Duration() time.Duration {
	var sum time.Duration
	for _, s := range m.Segments {
		sum += s.Duration
	}
	return sum
}

// Segment is one piece of media.
type Segment struct {
	URI           string
	Duration      time.Duration
	Range         *Range // nil: all of the resource
	Key           *Key   // nil: not encrypted
	Map           *Map   // nil: none
	Discontinuity bool
	Gap           bool // EXT-X-GAP: absent from the server
	Number        uint64
}

// Range is a part of a resource, in bytes.
type Range struct{ Offset, Length int64 }

// Key is how segments are encrypted (EXT-X-KEY).
type Key struct {
	Method string // AES-128, SAMPLE-AES, ...; NONE is no Key
	URI    string
	IV     string // hexadecimal with 0x; empty: the segment's number
	Format string // KEYFORMAT; empty is the same as identity
}

// Map is an initialization section (EXT-X-MAP).
type Map struct {
	URI   string
	Range *Range
	Key   *Key // nil: not encrypted
}

// Parse parses a playlist. It is as lenient as FFmpeg: unknown tags and attributes are
// ignored. Errors name the tag.
func Parse(text string) (*Playlist, error) {
	p := parser{rangeEnds: map[string]int64{}}
	text = strings.TrimPrefix(text, "\ufeff")
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }) // FFmpeg ends lines at both
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "#EXTM3U") {
		return nil, errors.New("not an HLS playlist: the first line is not #EXTM3U")
	}
	for _, line := range lines[1:] {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if strings.ContainsFunc(line, unicode.IsControl) {
			return nil, fmt.Errorf("control character in %.60q", line)
		}
		if err := p.line(line); err != nil {
			return nil, err
		}
	}
	return p.playlist()
}

type parser struct {
	master    Master
	media     Media
	uris      []string
	variant   *Variant // its URI has not been read yet
	segment   Segment  // its URI has not been read yet
	timed     bool     // segment has a duration
	key       *Key
	mapped    *Map
	rangeSpec string           // EXT-X-BYTERANGE of the segment
	rangeEnds map[string]int64 // end of the last range, by URI
	target    bool             // there was a tag that only media playlists have
}

func (p *parser) playlist() (*Playlist, error) {
	switch {
	case len(p.master.Variants) > 0 && len(p.media.Segments) > 0:
		return nil, errors.New("both variants and segments")
	case len(p.master.Variants) > 0:
		return &Playlist{Master: &p.master, uris: p.uris}, nil
	case len(p.media.Segments) > 0 || p.target:
		for i := range p.media.Segments {
			p.media.Segments[i].Number = p.media.Sequence + uint64(i)
		}
		return &Playlist{Media: &p.media, uris: p.uris}, nil
	}
	return nil, errors.New("neither segments nor variants")
}

func (p *parser) line(line string) error {
	if !strings.HasPrefix(line, "#") {
		p.uris = append(p.uris, line)
		return p.uri(line)
	}
	tag, value, _ := strings.Cut(line, ":")
	if strings.HasPrefix(tag, "#EXT") {
		if uri := attributes(value)["URI"]; uri != "" {
			p.uris = append(p.uris, uri)
		}
	}
	if err := p.tag(tag, value); err != nil {
		return fmt.Errorf("%s: %w", tag, err)
	}
	return nil
}

func (p *parser) uri(uri string) (err error) {
	if p.variant != nil {
		p.variant.URI = uri
		p.master.Variants = append(p.master.Variants, *p.variant)
		p.variant = nil
		return nil
	}
	if !p.timed {
		return errors.New("a segment without EXTINF")
	}
	s := p.segment
	s.URI, s.Key, s.Map = uri, p.key, p.mapped
	if p.rangeSpec != "" {
		if s.Range, err = p.byteRange(uri, p.rangeSpec); err != nil {
			return fmt.Errorf("EXT-X-BYTERANGE: %w", err)
		}
	}
	p.media.Segments = append(p.media.Segments, s)
	p.segment, p.timed, p.rangeSpec = Segment{}, false, ""
	return nil
}

func (p *parser) tag(tag, value string) (err error) {
	switch tag {
	case "#EXTINF":
		p.timed = true
		p.segment.Duration, err = seconds(value)
	case "#EXT-X-BYTERANGE":
		p.rangeSpec = value
	case "#EXT-X-DISCONTINUITY":
		p.segment.Discontinuity = true
	case "#EXT-X-GAP":
		p.segment.Gap = true
	case "#EXT-X-KEY":
		p.key, err = newKey(attributes(value))
	case "#EXT-X-MAP":
		p.mapped, err = p.newMap(attributes(value))
	case "#EXT-X-TARGETDURATION":
		p.target = true
	case "#EXT-X-ENDLIST":
		p.media.Ended = true
	case "#EXT-X-I-FRAMES-ONLY":
		p.media.IFramesOnly = true
	case "#EXT-X-MEDIA-SEQUENCE":
		p.media.Sequence, err = strconv.ParseUint(value, 10, 63)
	case "#EXT-X-DISCONTINUITY-SEQUENCE":
		p.media.DiscontinuitySequence, err = strconv.ParseUint(value, 10, 63)
	case "#EXT-X-STREAM-INF":
		p.variant = newVariant(attributes(value))
	case "#EXT-X-MEDIA":
		p.master.Renditions = append(p.master.Renditions, newRendition(attributes(value)))
	}
	return err
}

// maxSeconds is the maximum duration of a segment: a day.
const maxSeconds = 86400

func seconds(value string) (time.Duration, error) {
	value, _, _ = strings.Cut(value, ",")
	s, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || math.IsNaN(s) || s < 0 || s > maxSeconds {
		return 0, fmt.Errorf("%.40q is not a duration of 0 to %d s", value, maxSeconds)
	}
	return time.Duration(math.Round(s * float64(time.Second))), nil
}

// byteRange parses LENGTH[@OFFSET]. Without an offset the range follows the last one of the
// same resource.
func (p *parser) byteRange(uri, spec string) (*Range, error) {
	length, offset, explicit := strings.Cut(strings.TrimSpace(spec), "@")
	r := Range{Offset: p.rangeEnds[uri]}
	var err error
	if r.Length, err = strconv.ParseInt(length, 10, 64); err == nil && explicit {
		r.Offset, err = strconv.ParseInt(offset, 10, 64)
	}
	if err != nil || r.Length <= 0 || r.Offset < 0 || r.Offset > math.MaxInt64-r.Length {
		return nil, fmt.Errorf("%.40q is not LENGTH[@OFFSET]", spec)
	}
	p.rangeEnds[uri] = r.Offset + r.Length
	return &r, nil
}

// hexadecimal matches an initialization vector of 128 bits.
var hexadecimal = regexp.MustCompile(`^0[xX][0-9A-Fa-f]{1,32}$`)

func newKey(a map[string]string) (*Key, error) {
	if a["METHOD"] == "NONE" {
		return nil, nil
	}
	if iv := a["IV"]; iv != "" && !hexadecimal.MatchString(iv) {
		return nil, fmt.Errorf("IV %.40q is not a hexadecimal number of 128 bits", iv)
	}
	return &Key{Method: a["METHOD"], URI: a["URI"], IV: a["IV"], Format: a["KEYFORMAT"]}, nil
}

func (p *parser) newMap(a map[string]string) (*Map, error) {
	if a["URI"] == "" {
		return nil, errors.New("no URI")
	}
	m := Map{URI: a["URI"], Key: p.key}
	var err error
	if spec := a["BYTERANGE"]; spec != "" {
		m.Range, err = p.byteRange(m.URI, spec)
	}
	return &m, err
}

func newVariant(a map[string]string) *Variant {
	v := Variant{Codecs: a["CODECS"], Audio: a["AUDIO"], Subtitles: a["SUBTITLES"]}
	v.Bandwidth, _ = strconv.ParseInt(a["BANDWIDTH"], 10, 64)
	if w, h, ok := strings.Cut(a["RESOLUTION"], "x"); ok {
		v.Width, _ = strconv.Atoi(w)
		v.Height, _ = strconv.Atoi(h)
	}
	return &v
}

func newRendition(a map[string]string) Rendition {
	return Rendition{
		Type: a["TYPE"], URI: a["URI"], Group: a["GROUP-ID"], Name: a["NAME"], Language: a["LANGUAGE"],
		Default: a["DEFAULT"] == "YES", Autoselectable: a["AUTOSELECT"] == "YES",
	}
}

// attributes parses an attribute list (RFC 8216 section 4.2). The values are without quotes.
func attributes(list string) map[string]string {
	out := map[string]string{}
	for name, value := range eachAttribute(list) {
		if _, given := out[name]; !given {
			out[name] = value
		}
	}
	return out
}

func eachAttribute(list string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for list != "" {
			name, rest, ok := strings.Cut(list, "=")
			if !ok {
				return
			}
			var value string
			if quoted, isQuoted := strings.CutPrefix(rest, `"`); isQuoted {
				value, rest, _ = strings.Cut(quoted, `"`)
				_, list, _ = strings.Cut(rest, ",")
			} else {
				value, list, _ = strings.Cut(rest, ",")
				value = strings.TrimSpace(value)
			}
			if !yield(strings.TrimSpace(name), value) {
				return
			}
		}
	}
}

// Write writes a media playlist in version 7.
func (m *Media) Write(w io.Writer) error {
	var b strings.Builder
	var longest time.Duration
	for _, s := range m.Segments {
		longest = max(longest, s.Duration)
	}
	fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:%d\n", int64(math.Ceil(longest.Seconds())))
	fmt.Fprintf(&b, "#EXT-X-MEDIA-SEQUENCE:%d\n#EXT-X-DISCONTINUITY-SEQUENCE:%d\n", m.Sequence, m.DiscontinuitySequence)
	if m.IFramesOnly {
		b.WriteString("#EXT-X-I-FRAMES-ONLY\n")
	}
	var key *Key
	var mapped *Map
	setKey := func(next *Key) {
		if next != key {
			next.write(&b)
			key = next
		}
	}
	for _, s := range m.Segments {
		if s.Discontinuity {
			b.WriteString("#EXT-X-DISCONTINUITY\n")
		}
		if s.Map != mapped && s.Map != nil {
			setKey(s.Map.Key)
			fmt.Fprintf(&b, `#EXT-X-MAP:URI=%s`, quote(s.Map.URI))
			if r := s.Map.Range; r != nil {
				fmt.Fprintf(&b, `,BYTERANGE="%d@%d"`, r.Length, r.Offset)
			}
			b.WriteString("\n")
			mapped = s.Map
		}
		setKey(s.Key)
		if s.Gap {
			b.WriteString("#EXT-X-GAP\n")
		}
		fmt.Fprintf(&b, "#EXTINF:%s,\n", strconv.FormatFloat(s.Duration.Seconds(), 'f', -1, 64))
		if s.Range != nil {
			fmt.Fprintf(&b, "#EXT-X-BYTERANGE:%d@%d\n", s.Range.Length, s.Range.Offset)
		}
		b.WriteString(s.URI + "\n")
	}
	if m.Ended {
		b.WriteString("#EXT-X-ENDLIST\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (k *Key) write(b *strings.Builder) {
	if k == nil {
		b.WriteString("#EXT-X-KEY:METHOD=NONE\n")
		return
	}
	fmt.Fprintf(b, `#EXT-X-KEY:METHOD=%s,URI=%s`, k.Method, quote(k.URI))
	if k.IV != "" {
		b.WriteString(",IV=" + k.IV)
	}
	b.WriteString("\n")
}

// Write writes a master playlist.
func (m *Master) Write(w io.Writer) error {
	var b strings.Builder
	b.WriteString("#EXTM3U\n#EXT-X-VERSION:7\n")
	for _, r := range m.Renditions {
		fmt.Fprintf(&b, `#EXT-X-MEDIA:TYPE=%s,GROUP-ID=%s,NAME=%s`, r.Type, quote(r.Group), quote(r.Name))
		if r.Language != "" {
			fmt.Fprintf(&b, `,LANGUAGE=%s`, quote(r.Language))
		}
		fmt.Fprintf(&b, ",DEFAULT=%s,AUTOSELECT=%s", yesNo(r.Default), yesNo(r.Autoselectable || r.Default))
		if r.URI != "" {
			fmt.Fprintf(&b, `,URI=%s`, quote(r.URI))
		}
		b.WriteString("\n")
	}
	for _, v := range m.Variants {
		fmt.Fprintf(&b, "#EXT-X-STREAM-INF:BANDWIDTH=%d", v.Bandwidth)
		if v.Width > 0 && v.Height > 0 {
			fmt.Fprintf(&b, ",RESOLUTION=%dx%d", v.Width, v.Height)
		}
		if v.Codecs != "" {
			fmt.Fprintf(&b, `,CODECS=%s`, quote(v.Codecs))
		}
		if v.Audio != "" {
			fmt.Fprintf(&b, `,AUDIO=%s`, quote(v.Audio))
		}
		b.WriteString("\n" + v.URI + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// quote returns a quoted-string, which cannot contain quotes and has no escapes.
func quote(text string) string { return `"` + strings.ReplaceAll(text, `"`, "'") + `"` }

func yesNo(yes bool) string {
	if yes {
		return "YES"
	}
	return "NO"
}
