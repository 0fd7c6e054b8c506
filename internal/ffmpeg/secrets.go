package ffmpeg

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
)

const hidden = "***"

// shortestSecret is the length from which a secret is hidden wherever it stands;
// hiding a shorter one would garble the log. As part of its URL it is hidden all the same.
const shortestSecret = 4

// secrets hides stream keys, passwords and signed queries in what people see.
type secrets struct {
	pairs    [][2]string // secret, what stands for it
	replacer *strings.Replacer
}

// addURL takes the secrets of a URL that FFmpeg is given.
func (s *secrets) addURL(raw string) {
	masked, parts := maskURL(raw)
	s.pairs = append(s.pairs, [2]string{raw, masked})
	for _, p := range parts {
		if len(p) >= shortestSecret {
			s.pairs = append(s.pairs, [2]string{p, hidden})
		}
	}
	s.prepare()
}

// show has one text stand for another, which is no secret but says nothing to people.
func (s *secrets) show(text, as string) {
	s.pairs = append(s.pairs, [2]string{text, as})
	s.prepare()
}

// prepare puts longer texts first, or a part would hide what it is part of.
func (s *secrets) prepare() {
	slices.SortStableFunc(s.pairs, func(a, b [2]string) int { return cmp.Compare(len(b[0]), len(a[0])) })
	var flat []string
	for _, p := range s.pairs {
		flat = append(flat, p[0], p[1])
	}
	s.replacer = strings.NewReplacer(flat...)
}

func (s *secrets) hide(text string) string {
	if s.replacer == nil {
		return text
	}
	return s.replacer.Replace(text)
}

func (s *secrets) hideAll(texts []string) []string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = s.hide(t)
	}
	return out
}

// maskURL returns a URL fit to be shown, and the secrets found in it: user and
// password, the query, and of an rtmp URL the stream key, its last segment.
func maskURL(raw string) (masked string, found []string) {
	u, err := url.Parse(raw)
	if err != nil {
		if scheme, _, ok := strings.Cut(raw, "://"); ok {
			return scheme + "://" + hidden, nil
		}
		return hidden, nil
	}
	user, query, path := "", "", u.EscapedPath()
	if u.User != nil {
		if p, ok := u.User.Password(); ok {
			found = append(found, p)
		}
		found = append(found, u.User.String())
		user = hidden + "@"
	}
	if u.RawQuery != "" {
		found = append(found, u.RawQuery)
		query = "?" + hidden
	}
	if u.Scheme == "rtmp" || u.Scheme == "rtmps" {
		if i := strings.LastIndex(path, "/"); i > 0 && i+1 < len(path) {
			found = append(found, path[i+1:])
			path = path[:i+1] + hidden
		}
	}
	return u.Scheme + "://" + user + u.Host + path + query, found
}
