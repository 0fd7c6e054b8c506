package safetext

import (
	"cmp"
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Lengths from which a secret is removed wherever it occurs; removing a shorter one would
// garble the text. As a part of its URL it is removed all the same.
const (
	minSecret = 4
	minValue  = 8 // of a query value whose name does not say that it is secret
)

// Secrets are the secrets of a job or of the agent, in every encoding in which a server or
// FFmpeg may repeat them. The zero value has none. Adding and using it is not safe at once.
type Secrets struct {
	pairs    [][2]string // text, what is shown for it
	replacer *strings.Replacer
}

// Add adds a secret.
func (s *Secrets) Add(secret string) {
	if len(secret) < minSecret {
		return
	}
	for _, form := range encodings(secret) {
		s.pairs = append(s.pairs, [2]string{form, Mark})
	}
	s.replacer = nil
}

// AddURL adds the secrets of a URL: user and password, values of the query, the stream key of
// an rtmp URL, and parts of the path that look like keys. The URL itself is shown as URL does.
func (s *Secrets) AddURL(raw string) {
	s.Show(raw, URL(raw))
	rest := raw
	if _, after, ok := strings.Cut(raw, "://"); ok {
		rest = after
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		s.addUser(authority[:at])
	}
	path, query, _ := strings.Cut(path, "?")
	s.addPath(path, strings.HasPrefix(strings.ToLower(raw), "rtmp"))
	s.addQuery(query)
}

// addUser adds what is in front of the @ of a URL.
func (s *Secrets) addUser(userinfo string) {
	user, password, _ := strings.Cut(userinfo, ":")
	s.Add(userinfo)
	s.Add(password)
	if password == "" {
		s.Add(user) // a token
	}
	for _, user := range decodings(user) { // HTTP's basic authentication
		for _, password := range decodings(password) {
			pair := []byte(user + ":" + password)
			s.Add(base64.StdEncoding.EncodeToString(pair))
			s.Add(base64.URLEncoding.EncodeToString(pair))
		}
	}
}

func (s *Secrets) addPath(path string, rtmp bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, part := range parts {
		if slices.ContainsFunc(decodings(part), looksLikeKey) || rtmp && i > 0 {
			s.Add(part)
		}
	}
	if rtmp && len(parts) > 2 {
		s.Add(strings.Join(parts[1:], "/"))
	}
}

// secretNames are parts of the names of values that are secret however short they are.
var secretNames = []string{"key", "token", "sig", "pass", "pwd", "secret", "auth", "hash", "streamid", "credential", "hmac", "cookie", "bearer", "jwt", "session"}

// isSecretName reports whether the name of a value says that the value is secret.
func isSecretName(name string) bool {
	name = strings.ToLower(name)
	return name != "input_sha256" && slices.ContainsFunc(secretNames, func(part string) bool { return strings.Contains(name, part) })
}

func (s *Secrets) addQuery(query string) {
	query, _, _ = strings.Cut(query, "#")
	if query == "" {
		return
	}
	if len(query) >= minValue {
		s.Add(query)
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if isSecretName(name) || len(value) >= minValue {
			s.Add(value)
		}
		if value == "" && looksLikeKey(name) {
			s.Add(name)
		}
	}
}

// AddParameters adds the secrets among a job's parameters: its URLs and its stream keys,
// whatever they are called and however deep they are.
func (s *Secrets) AddParameters(name string, value any) {
	switch value := value.(type) {
	case string:
		switch {
		case strings.Contains(value, "://"):
			s.AddURL(value)
			if trimmed := strings.TrimSpace(value); trimmed != value {
				s.AddURL(trimmed)
			}
		case isSecretName(name):
			s.Add(value)
			path, query, _ := strings.Cut(value, "?")
			s.Add(path)
			s.addQuery(query)
			s.addHeader(value)
		default:
			s.addReference(value)
		}
	case []any:
		for _, v := range value {
			s.AddParameters(name, v)
		}
	case map[string]any:
		for k, v := range value {
			s.AddParameters(k, v)
		}
	}
}

// addReference adds the secrets of a URL without its scheme: of //USER:PASSWORD@HOST/PATH, and
// of a path with a query of name=value pairs.
func (s *Secrets) addReference(text string) {
	for _, found := range schemelessUser.FindAllStringSubmatch(text, -1) {
		s.addUser(found[1])
	}
	if _, query, _ := strings.Cut(text, "?"); strings.Contains(query, "=") {
		s.addQuery(query)
	}
}

// addHeader adds the secrets of a header's value: what follows the scheme of an authorization,
// and the values of cookies.
func (s *Secrets) addHeader(value string) {
	scheme, credentials, _ := strings.Cut(strings.TrimSpace(value), " ")
	credentials = strings.TrimSpace(credentials)
	s.Add(credentials)
	if pair, err := base64.StdEncoding.DecodeString(credentials); err == nil && strings.EqualFold(scheme, "Basic") {
		s.addUser(string(pair))
	}
	for pair := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ';' || r == ',' || r == ' ' }) {
		if _, v, ok := strings.Cut(pair, "="); ok {
			s.Add(strings.Trim(v, `"`))
		}
	}
}

// Show shows a text, which need not be secret, as another one.
func (s *Secrets) Show(text, as string) {
	if text == "" {
		return
	}
	s.pairs = append(s.pairs, [2]string{text, as})
	s.replacer = nil
}

// Clone returns a copy that is independent of s.
func (s *Secrets) Clone() Secrets { return Secrets{pairs: slices.Clone(s.pairs)} }

// Hide returns a text without the secrets.
func (s *Secrets) Hide(text string) string {
	if len(s.pairs) == 0 {
		return text
	}
	if s.replacer == nil {
		// Longer texts first: none must be replaced in part.
		slices.SortStableFunc(s.pairs, func(a, b [2]string) int { return cmp.Compare(len(b[0]), len(a[0])) })
		var flat []string
		for _, p := range s.pairs {
			flat = append(flat, p[0], p[1])
		}
		s.replacer = strings.NewReplacer(flat...)
	}
	return s.replacer.Replace(text)
}

// Redact returns a text without the secrets, and with scheme and host alone of each URL.
func (s *Secrets) Redact(text string) string { return URLs(s.Hide(text)) }

// encodings are the forms of a secret in which others may repeat it: percent-encoded once and
// twice, decoded, in the escapes of JSON and of Go, and in base64.
func encodings(secret string) []string {
	plain := decodings(secret)
	forms := slices.Clone(plain)
	for _, text := range plain {
		for _, escape := range []func(string) string{url.QueryEscape, url.PathEscape, strictEscape} {
			once := escape(text)
			forms = append(forms, once, escape(once), url.QueryEscape(once))
		}
	}
	for _, form := range slices.Clone(forms) {
		forms = append(forms, lowerEscapes(form))
	}
	for _, text := range plain {
		quoted := strconv.Quote(text)
		forms = append(forms, quoted[1:len(quoted)-1])
		if len(text) >= minValue {
			forms = append(forms, base64.RawStdEncoding.EncodeToString([]byte(text)), base64.RawURLEncoding.EncodeToString([]byte(text)))
		}
	}
	slices.Sort(forms)
	return slices.DeleteFunc(slices.Compact(forms), func(form string) bool { return len(form) < minSecret })
}

// decodings are a text as it is, and with its percent signs decoded once and twice.
func decodings(text string) []string {
	all := []string{text}
	for range 2 {
		decoded, err := url.PathUnescape(text)
		if err != nil || decoded == text {
			break
		}
		text = decoded
		all = append(all, text)
	}
	return all
}

// strictEscape escapes all but letters and digits.
func strictEscape(text string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// lowerEscapes writes the digits of percent signs in lower case.
func lowerEscapes(text string) string {
	b := []byte(text)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], strings.ToLower(string(b[i+1:i+3])))
		}
	}
	return string(b)
}
