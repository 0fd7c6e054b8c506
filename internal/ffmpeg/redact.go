package ffmpeg

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
)

const redacted = "***"

// minSecret is the length from which a secret is redacted wherever it occurs; redacting a
// shorter one would garble the log. As part of its URL it is redacted all the same.
const minSecret = 4

// redactor replaces stream keys, passwords and signed queries in what people see.
type redactor struct {
	pairs    [][2]string // text, replacement
	replacer *strings.Replacer
}

// addURL redacts the secrets of a URL that FFmpeg gets.
func (r *redactor) addURL(raw string) {
	masked, secrets := maskURL(raw)
	r.pairs = append(r.pairs, [2]string{raw, masked})
	for _, s := range secrets {
		if len(s) >= minSecret {
			r.pairs = append(r.pairs, [2]string{s, redacted})
		}
	}
	r.prepare()
}

// replace shows a text, which is not secret but means nothing to people, as another one.
func (r *redactor) replace(text, by string) {
	r.pairs = append(r.pairs, [2]string{text, by})
	r.prepare()
}

// prepare puts longer texts first: a text must not be replaced in part.
func (r *redactor) prepare() {
	slices.SortStableFunc(r.pairs, func(a, b [2]string) int { return cmp.Compare(len(b[0]), len(a[0])) })
	var flat []string
	for _, p := range r.pairs {
		flat = append(flat, p[0], p[1])
	}
	r.replacer = strings.NewReplacer(flat...)
}

func (r *redactor) redact(text string) string {
	if r.replacer == nil {
		return text
	}
	return r.replacer.Replace(text)
}

func (r *redactor) redactAll(texts []string) []string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = r.redact(t)
	}
	return out
}

// maskURL returns a URL without its secrets, and these: user and password, the query, and
// the stream key of an rtmp URL, which is its last segment.
func maskURL(raw string) (masked string, secrets []string) {
	u, err := url.Parse(raw)
	if err != nil {
		if scheme, _, ok := strings.Cut(raw, "://"); ok {
			return scheme + "://" + redacted, nil
		}
		return redacted, nil
	}
	user, query, path := "", "", u.EscapedPath()
	if u.User != nil {
		if p, ok := u.User.Password(); ok {
			secrets = append(secrets, p)
		}
		secrets = append(secrets, u.User.String())
		user = redacted + "@"
	}
	if u.RawQuery != "" {
		secrets = append(secrets, u.RawQuery)
		query = "?" + redacted
	}
	if u.Scheme == "rtmp" || u.Scheme == "rtmps" {
		if i := strings.LastIndex(path, "/"); i > 0 && i+1 < len(path) {
			secrets = append(secrets, path[i+1:])
			path = path[:i+1] + redacted
		}
	}
	return u.Scheme + "://" + user + u.Host + path + query, secrets
}
