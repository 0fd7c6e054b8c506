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

// A rule defines the allowed values of a key.
type rule struct {
	allowed string            // description for error messages
	check   func(v any) error // check of a parsed value
	path    bool              // the value is a path, which may be relative on the command line
	url     bool              // the value may contain a password by mistake
}

var (
	errOutOfRange = errors.New("out of range")
	errEmpty      = errors.New("empty")
	errRelative   = errors.New("not an absolute path")
)

// ruleFor parses an allow tag: "1..10" is an inclusive range of numbers or durations,
// "a|b" a choice of words, anything else the name of a rule in namedRule.
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
		panic("configs: unknown rule " + strconv.Quote(allow))
	}
	return r
}

func namedRule(name string) (r rule, ok bool) {
	switch name {
	case "url":
		r = rule{allowed: "http:// or https:// with a host, such as https://192.168.1.100:8080, without user, password, query or fragment", check: on(checkURL), url: true}
	case "optional-url":
		r = rule{allowed: "http:// or https:// with a host, such as http://collector:4318/v1/traces, without user, password, query or fragment, or empty", check: on(unless("", checkURL)), url: true}
	case "secret":
		r = rule{allowed: "text without spaces or control characters", check: on(checkSecret)}
	case "path":
		r = rule{allowed: "an absolute path", check: on(checkPath), path: true}
	case "optional-path":
		r = rule{allowed: "an absolute path, or empty", check: on(unless("", checkPath)), path: true}
	case "auto-path":
		r = rule{allowed: "an absolute path, or auto", check: on(unless("auto", checkPath)), path: true}
	case "paths":
		r = rule{allowed: "a list of absolute paths", check: on(each(checkPath))}
	case "program":
		r = rule{allowed: "the name of a program on PATH, or an absolute path", check: on(checkNameOrPath)}
	case "library":
		r = rule{allowed: "the file name of a library, or an absolute path", check: on(checkNameOrPath)}
	case "address":
		r = rule{allowed: "a name of 1 to 255 bytes without spaces, or auto for the host name", check: on(checkAddress)}
	case "listen":
		r = rule{allowed: "an IP address or host name without a port, or empty for all interfaces", check: on(checkListen)}
	case "protocols":
		r = rule{allowed: "at least one of " + strings.Join(inputProtocols(), ", "), check: on(checkProtocols)}
	case "formats":
		r = rule{allowed: "at least one of " + strings.Join(inputFormats(), ", "), check: on(checkFormats)}
	case "networks":
		r = rule{allowed: "a list of networks in CIDR notation, such as 127.0.0.0/8", check: on(each(checkNetwork))}
	case "user":
		r = rule{allowed: "the name of a user of this system, or empty for the agent's", check: on(checkUser)}
	case "layers":
		r = rule{allowed: "a list of " + strings.Join(sandboxLayers, ", "), check: on(each(checkLayer))}
	case "labels":
		r = rule{allowed: "names made of letters, digits and . _ - / with values of up to 255 printable bytes without commas", check: on(checkLabels)}
	case "presets":
		r = rule{allowed: allowedPresets, check: on(checkPresets)}
	case "exporter-port":
		r = rangeRule(reflect.TypeFor[int](), "1", "65535", "")
		r.allowed += "; enabled: false beside it turns the exporter off"
	case "memory":
		r = rule{allowed: "auto, a size above 0 such as 8GiB, or a percentage of the memory", check: on(checkAboveZero)}
	case "amount":
		r = rule{allowed: "auto, or a size above 0 such as 200GiB", check: on(checkAmount)}
	case "limit-24h":
		r = limitRule("a duration from 1s to 24h", float64(24*time.Hour))
	case "limit-168h":
		r = limitRule("a duration from 1s to 168h", float64(168*time.Hour))
	case "pixels":
		r = limitRule("a whole number from 1 to 1000000000000", 1e12)
	case "outputs":
		r = limitRule("a whole number from 1 to 16", 16)
	case "size":
		r = rule{allowed: "auto, a size up to 1PiB such as 5GiB or 500MB, or a percentage of the disk such as 10%", check: func(any) error { return nil }}
	}
	return r, r.check != nil
}

// on adapts a check of one type to a check of any value.
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
		if n := number(v); n >= from && n <= to { // false for NaN
			return nil
		}
		return errOutOfRange
	}}
}

func mustNumber(t reflect.Type, text string) float64 {
	v, err := parse(t, text)
	if err != nil {
		panic("configs: bound " + text + ": " + err.Error())
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
	panic(fmt.Sprintf("configs: range of %T", v))
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

// checkURL returns errors that do not quote the URL, because it may contain a password.
func checkURL(text string) error {
	if text == "" {
		return errEmpty
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("does not start with http:// or https://")
	case u.User != nil:
		return errors.New("contains a user name or password")
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
		return errors.New("port out of range 1 to 65535")
	}
	return nil
}

func checkSecret(s Secret) error {
	bad := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar }
	if strings.ContainsFunc(s.Reveal(), bad) {
		return errors.New("contains spaces or control characters")
	}
	return nil
}

func checkPath(path string) error {
	switch {
	case path == "":
		return errEmpty
	case strings.ContainsFunc(path, unicode.IsControl):
		return errors.New("contains control characters")
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
		return errors.New("contains spaces or control characters")
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

// inputProtocols returns the FFmpeg protocols that can be allowed for inputs. Others
// (concat, subfile, data, pipe, crypto, …) could bypass jobs.input_roots.
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
			return fmt.Errorf("%q is not an allowed protocol", shorten(name))
		}
	}
	return nil
}

// inputFormats returns the demuxers that can be allowed for inputs: those of files and streams
// that contain the video themselves. Devices, scripts that name other files, image sequences
// and readers that take any text for video could bypass jobs.input_roots.
func inputFormats() []string {
	return []string{"mov", "matroska", "webm", "mpegts", "mpeg", "mpegvideo", "avi", "flv", "live_flv", "kux", "ogg", "asf", "asf_o", "mxf", "nut",
		"ivf", "h264", "hevc", "vvc", "av1", "obu", "m4v", "h261", "h263", "vc1", "vc1test", "dirac", "dnxhd", "mjpeg", "mpjpeg", "yuv4mpegpipe",
		"rm", "gif", "apng", "dv", "gxf", "wtv", "swf", "nsv", "r3d", "cavsvideo", "avs2", "avs3", "roq", "smk", "bink", "nuv", "pva", "flic"}
}

func checkFormats(names []string) error {
	if len(names) == 0 {
		return errEmpty
	}
	for _, name := range names {
		if !slices.Contains(inputFormats(), name) {
			return fmt.Errorf("%q is not a demuxer that can be allowed", shorten(name))
		}
	}
	return nil
}

func checkNetwork(text string) error {
	network, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return errors.New("not a network")
	case network != network.Masked():
		return fmt.Errorf("has bits beyond its prefix; %s is the network", network.Masked())
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

var userName = regexp.MustCompile(`^[A-Za-z0-9_.-]{0,64}$`)

func checkUser(name string) error {
	if !userName.MatchString(name) {
		return errors.New("not a user's name")
	}
	return nil
}

// sandboxLayers are the names of proc.Layers.
var sandboxLayers = []string{"no_new_privs", "capabilities", "landlock", "seccomp", "rlimits", "oom_score_adj"}

func checkLayer(name string) error {
	if !slices.Contains(sandboxLayers, name) {
		return errors.New("not a layer of the sandbox")
	}
	return nil
}
