package safetext

import (
	"net/url"
	"path"
	"regexp"
	"strings"
)

// Mark stands for a secret.
const Mark = "***"

// URL shows a URL of a job: its scheme and host and, over http and https, the name of its file
// where that does not look like a key. All else may be secret: user and password, the query, a
// stream key, a token as a part of the path.
func URL(raw string) string {
	shown := hostOf(raw)
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || !strings.HasSuffix(shown, "/"+Mark) {
		return shown
	}
	name := path.Base(u.EscapedPath())
	if len(path.Ext(name)) < 2 || len(name) > 64 || looksLikeKey(name) {
		return shown
	}
	return shown + "/" + name
}

// hostOf shows the scheme and the host of a URL, and that there is more.
func hostOf(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return Mark
	}
	end := strings.IndexAny(rest, "/?#\\")
	if end < 0 {
		end = len(rest)
	}
	host, user := rest[:end], ""
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		host, user = host[at+1:], Mark+"@"
	}
	if host != "" && !hostPattern.MatchString(host) { // such as the beginning of a password that was cut off
		host = Mark
	}
	host = user + host
	shown := strings.ToLower(scheme) + "://" + host
	switch more := rest[end:]; {
	case more == "" || more == "/":
		return shown + more
	case strings.HasPrefix(more, "/"+Mark): // it is shown already
		return shown + more
	}
	return shown + "/" + Mark
}

var hostPattern = regexp.MustCompile(`^(\[[0-9A-Fa-f:.%]+\]|[^\s:@%]+)(:\d{0,5})?$`)

// urlPattern matches URLs in a text, as far as a blank, a quotation mark or what else cannot be
// part of one.
var urlPattern = regexp.MustCompile("[A-Za-z][A-Za-z0-9+.-]*://[^\\s\"'<>`|]*")

// trailing is what ends a sentence, a list or a bracket rather than the URL before it.
const trailing = ".,;:)]}!"

// schemelessUser matches user and password after the // of a URL without its scheme.
var schemelessUser = regexp.MustCompile("//([^/?#@\\s\"'<>`|][^/?#\\s\"'<>`|]*)@")

// queryPair matches a name and its value in a query, also in one without the URL before it.
var queryPair = regexp.MustCompile("([?&;])([^?&;=/\\s]+)=([^&;#\\s\"'<>`|]+)")

// URLs shows a text that others wrote: of each URL in it scheme and host alone, of one without
// its scheme all but user, password and the values of secret names. File URLs stay.
func URLs(text string) string {
	if strings.Contains(text, "://") {
		text = urlPattern.ReplaceAllStringFunc(text, func(found string) string {
			if scheme, _, _ := strings.Cut(found, "://"); strings.EqualFold(scheme, "file") {
				return found
			}
			body := strings.TrimRight(found, trailing)
			return hostOf(body) + found[len(body):]
		})
	}
	if strings.Contains(text, "//") && strings.Contains(text, "@") {
		text = schemelessUser.ReplaceAllString(text, "//"+Mark+"@")
	}
	if !strings.ContainsAny(text, "?&") || !strings.Contains(text, "=") {
		return text
	}
	return queryPair.ReplaceAllStringFunc(text, func(found string) string {
		name, _, _ := strings.Cut(found, "=")
		if !isSecretName(name) {
			return found
		}
		return name + "=" + Mark
	})
}

// userinfo matches the user and password of URLs within a text.
var userinfo = regexp.MustCompile(`://[^/?#\s"]*@`)

// Userinfo removes user and password of the URLs of a text, which are those of the operator.
func Userinfo(text string) string { return userinfo.ReplaceAllString(text, "://"+Mark+"@") }

// keyRun matches what keys and tokens are made of.
var keyRun = regexp.MustCompile(`[A-Za-z0-9_~+=-]{12,}`)

// looksLikeKey reports whether a part of a path is likely a key: a long run of letters and
// digits in a mixture that names do not have.
func looksLikeKey(part string) bool {
	for _, run := range keyRun.FindAllString(part, -1) {
		changes, last := 0, 0
		for _, r := range run {
			kind := 1
			switch {
			case r >= '0' && r <= '9':
				kind = 2
			case r >= 'A' && r <= 'Z':
				kind = 3
			case strings.ContainsRune("_~+=-", r):
				continue
			}
			if last != 0 && kind != last {
				changes++
			}
			last = kind
		}
		if changes*4 >= len(run) || len(run) >= 32 {
			return true
		}
	}
	return false
}
