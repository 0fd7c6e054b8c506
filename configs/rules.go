package configs

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A rule says what a value may be: in words, and as a check of a parsed value.
type rule struct {
	allowed string
	check   func(v any) error
	path    bool // the value is a path: on the command line it may be relative
	url     bool // the value may hold a password by mistake
}

var (
	errOutOfRange = errors.New("out of range")
	errEmpty      = errors.New("empty")
	errRelative   = errors.New("not an absolute path")
)

// ruleFor reads an allow tag: "1..10" is a range of numbers or durations, both
// ends included, "a|b" is one of these words, anything else is a rule by name.
func ruleFor(t reflect.Type, allow, example string) rule {
	if low, high, ok := strings.Cut(allow, ".."); ok {
		return rangeRule(t, low, high, example)
	}
	if strings.Contains(allow, "|") {
		return wordRule(strings.Split(allow, "|"))
	}
	if allow == "" && t == reflect.TypeFor[bool]() {
		return rule{allowed: "true or false", check: func(any) error { return nil }}
	}
	r, ok := namedRule(allow)
	if !ok {
		panic("configs: no rule is called " + strconv.Quote(allow))
	}
	return r
}

func namedRule(name string) (r rule, ok bool) {
	switch name {
	case "url":
		r = rule{allowed: "http:// or https:// with a host, such as https://192.168.1.100:8080, and no user, password, query or fragment", check: on(checkURL), url: true}
	case "secret":
		r = rule{allowed: "text without spaces and control characters", check: on(checkSecret)}
	case "path":
		r = rule{allowed: "an absolute path", check: on(checkPath), path: true}
	case "optional-path":
		r = rule{allowed: "an absolute path, or empty for none", check: on(unless("", checkPath)), path: true}
	case "auto-path":
		r = rule{allowed: "an absolute path, or auto", check: on(unless("auto", checkPath)), path: true}
	case "paths":
		r = rule{allowed: "a list of absolute paths", check: on(each(checkPath))}
	case "program":
		r = rule{allowed: "a program's name to be found on PATH, or an absolute path", check: on(checkNameOrPath)}
	case "library":
		r = rule{allowed: "a library's file name, or an absolute path", check: on(checkNameOrPath)}
	case "address":
		r = rule{allowed: "a name of 1 to 255 characters without spaces, or auto for the host name", check: on(checkAddress)}
	case "listen":
		r = rule{allowed: "an IP address or host name without a port, or empty for all interfaces", check: on(checkListen)}
	case "protocols":
		r = rule{allowed: "at least one of " + strings.Join(inputProtocols(), ", "), check: on(checkProtocols)}
	case "labels":
		r = rule{allowed: "names of letters, digits and . _ - / with values of up to 255 printable characters, no commas", check: on(checkLabels)}
	case "size":
		r = rule{allowed: "auto, a size up to 1PiB such as 5GiB or 500MB, or a share of the disk such as 10%", check: func(any) error { return nil }}
	}
	return r, r.check != nil
}

// on makes a check of one type a check of any value.
func on[T any](check func(T) error) func(any) error {
	return func(v any) error { return check(v.(T)) }
}

func unless(exempt string, check func(string) error) func(string) error {
	return func(text string) error {
		if text == exempt {
			return nil
		}
		return check(text)
	}
}

func each(check func(string) error) func([]string) error {
	return func(items []string) error {
		for _, item := range items {
			if err := check(item); err != nil {
				return fmt.Errorf("%q: %w", shorten(item), err)
			}
		}
		return nil
	}
}

func rangeRule(t reflect.Type, low, high, example string) rule {
	from, to := mustNumber(t, low), mustNumber(t, high)
	allowed := fmt.Sprintf("a whole number from %s to %s", low, high)
	switch t {
	case reflect.TypeFor[time.Duration]():
		allowed = fmt.Sprintf("a duration from %s to %s, such as %s", low, high, example)
	case reflect.TypeFor[float64]():
		allowed = fmt.Sprintf("a number from %s to %s", low, high)
	}
	return rule{allowed: allowed, check: func(v any) error {
		if n := number(v); n >= from && n <= to { // so that NaN is outside
			return nil
		}
		return errOutOfRange
	}}
}

func mustNumber(t reflect.Type, text string) float64 {
	v, err := parse(t, text)
	if err != nil {
		panic("configs: range end " + text + ": " + err.Error())
	}
	return number(v)
}

func number(v any) float64 {
	switch v := v.(type) {
	case int:
		return float64(v)
	case time.Duration:
		return float64(v)
	case float64:
		return v
	}
	panic(fmt.Sprintf("configs: a range of %T", v))
}

func wordRule(words []string) rule {
	last := len(words) - 1
	return rule{
		allowed: strings.Join(words[:last], ", ") + " or " + words[last],
		check: on(func(word string) error {
			switch {
			case word == "":
				return errEmpty
			case !slices.Contains(words, word):
				return errors.New("unknown")
			}
			return nil
		}),
	}
}

// checkURL says nothing of what is in the URL: it may hold a password.
func checkURL(text string) error {
	if text == "" {
		return errEmpty
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("does not begin with http:// or https://")
	case u.User != nil:
		return errors.New("holds a user name or password; the key belongs in master.api_key")
	case u.Hostname() == "" || strings.ContainsFunc(u.Host, unicode.IsSpace):
		return errors.New("has no host")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return errors.New("has a query or fragment")
	}
	if u.Port() == "" {
		if strings.HasSuffix(u.Host, ":") {
			return errors.New("has a colon but no port")
		}
		return nil
	}
	if port, err := strconv.Atoi(u.Port()); err != nil || port < 1 || port > 65535 {
		return errors.New("its port is outside 1 to 65535")
	}
	return nil
}

func checkSecret(s Secret) error {
	bad := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar }
	if strings.ContainsFunc(s.Reveal(), bad) {
		return errors.New("has spaces or control characters in it")
	}
	return nil
}

func checkPath(path string) error {
	switch {
	case path == "":
		return errEmpty
	case strings.ContainsFunc(path, unicode.IsControl):
		return errors.New("has control characters in it")
	case !filepath.IsAbs(path):
		return errRelative
	}
	return nil
}

func checkNameOrPath(name string) error {
	if name == "" || strings.Contains(name, "/") {
		return checkPath(name)
	}
	return checkPath("/" + name)
}

func checkAddress(name string) error {
	bad := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
	switch {
	case name == "":
		return errEmpty
	case len(name) > 255:
		return errors.New("too long")
	case strings.ContainsFunc(name, bad):
		return errors.New("has spaces or control characters in it")
	}
	return nil
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9.-]*[A-Za-z][A-Za-z0-9.-]*$`)

func checkListen(host string) error {
	if host == "" || hostPattern.MatchString(host) {
		return nil
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return errors.New("neither an IP address nor a host name")
	}
	return nil
}

// inputProtocols are those of FFmpeg's that carry media from where they say.
// Its others (concat, subfile, data, pipe, crypto, …) would open what the input
// roots are there to keep closed.
func inputProtocols() []string {
	return []string{"file", "http", "https", "rtmp", "rtmps", "rtmpt", "rtmpts", "rtsp", "rtsps",
		"rtp", "srtp", "srt", "rist", "udp", "tcp", "tls", "ftp", "sftp"}
}

func checkProtocols(names []string) error {
	if len(names) == 0 {
		return errEmpty
	}
	for _, name := range names {
		if !slices.Contains(inputProtocols(), name) {
			return fmt.Errorf("%q is not a protocol that a job may read", shorten(name))
		}
	}
	return nil
}

var labelPattern = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,63}$`)

func checkLabels(labels Labels) error {
	for name, value := range labels {
		bad := func(r rune) bool { return !unicode.IsPrint(r) || r == ',' }
		if !labelPattern.MatchString(name) || len(value) > 255 || strings.ContainsFunc(value, bad) {
			return fmt.Errorf("label %q is not allowed", shorten(name))
		}
	}
	return nil
}
