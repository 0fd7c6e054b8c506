package reach

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Input is the input of a job.
type Input struct {
	Path   string   // of a file, with links resolved; empty: over the network
	URL    *url.URL // nil: a file
	Format string   // HLS or DASH: a playlist, by its name or because the job says so
}

// Invalid is the error for an input that no policy can allow. Like Refused, it is the job's
// fault.
type Invalid struct{ Why string }

func (i *Invalid) Error() string { return i.Why }

func invalid(format string, args ...any) error { return &Invalid{fmt.Sprintf(format, args...)} }

// protocolName matches what FFmpeg takes for a protocol and not for a path, with options
// before the colon (subfile,,start,0,end,9,,:x).
var protocolName = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*)(,[^/]*)?:`)

// CutProtocol splits a path or URL, like FFmpeg, into the name of its protocol in lower case,
// the options of the protocol with their leading comma, and the rest. Without a protocol, rest
// is the whole.
func CutProtocol(given string) (name, options, rest string) {
	m := protocolName.FindStringSubmatch(given)
	if m == nil {
		return "", "", given
	}
	return strings.ToLower(m[1]), m[2], given[len(m[0]):]
}

// Input determines what kind of input a job has and checks it, except for the addresses of
// hosts. A relative path is relative to dir. The error is a *Refused, an *Invalid, or that of
// the file system for a file that cannot be read.
func (p *Policy) Input(given, inputFormat, dir string) (in Input, err error) {
	protocol, options, rest := CutProtocol(given)
	if options != "" || protocol != "" && !slices.Contains(p.Protocols, protocol) {
		if options != "" { // which may contain anything
			protocol += ",…"
		}
		return Input{}, p.refuseProtocol(protocol)
	}
	switch protocol {
	case "":
		if !slices.Contains(p.Protocols, "file") {
			return Input{}, p.refuseProtocol("file")
		}
		rest = given
	case "file":
		rest = strings.TrimPrefix(rest, "//")
	default:
		if in.URL, err = p.ParseURL(given); err == nil {
			err = checkStream(in.URL)
		}
		if err != nil {
			return Input{}, err
		}
		in.Format, _ = IsPlaylist(in.URL.Path, "", inputFormat)
		return in, nil
	}
	if !filepath.IsAbs(rest) {
		rest = filepath.Join(dir, rest)
	}
	if in.Path, err = p.file(rest); err != nil {
		return Input{}, err
	}
	in.Format, _ = IsPlaylist(rest, "", inputFormat)
	return in, nil
}

func (p *Policy) refuseProtocol(name string) error {
	return &Refused{What: fmt.Sprintf("protocol %.80q", name), Key: "jobs.input_protocols: " + strings.Join(p.Protocols, ", ")}
}

// ParseURL parses the URL of an input and checks its protocol. A fragment is removed. The
// error contains no secret: neither user nor query.
func (p *Policy) ParseURL(given string) (*url.URL, error) {
	u, err := url.Parse(given)
	if err != nil {
		var at *url.Error
		if errors.As(err, &at) && !strings.Contains(at.Err.Error(), "userinfo") {
			err = at.Err
		} else {
			err = errors.New("invalid")
		}
		return nil, invalid("not a URL: %v", err)
	}
	u.Scheme = strings.ToLower(u.Scheme)
	if !slices.Contains(p.Protocols, u.Scheme) {
		return nil, p.refuseProtocol(u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, invalid("not a URL: no host")
	}
	u.Fragment, u.RawFragment = "", ""
	u.RawQuery = strings.ReplaceAll(u.RawQuery, " ", "%20")
	return u, nil
}

// checkStream refuses URLs that would make FFmpeg listen on this machine instead of connecting,
// and characters that FFmpeg's protocols would take for the start of an option.
func checkStream(u *url.URL) error {
	if IsHTTP(u) {
		return nil
	}
	if strings.ContainsAny(u.String(), " |\\\"'<>") {
		return invalid("not a URL: it contains a space, a quotation mark or one of |\\<>")
	}
	switch u.Scheme {
	case "tcp", "tls", "udp", "rtp", "srtp", "rist": // listen, localaddr, localport, mode, …
		if u.RawQuery != "" || u.User != nil { // rist://@HOST listens
			return invalid("a %s URL with options", u.Scheme)
		}
	case "srt":
		if !isCaller(u) {
			return invalid("srt with mode=listener or rendezvous; only mode=caller is allowed")
		}
	}
	return nil
}

// isCaller reports whether an SRT URL makes FFmpeg connect, which is the default.
func isCaller(u *url.URL) bool {
	for _, mode := range u.Query()["mode"] {
		if mode != "caller" {
			return false
		}
	}
	return !strings.Contains(u.RawQuery, ";") // Query skips parameters that contain one
}

// IsHTTP reports whether a URL has the scheme http or https. It is false for nil.
func IsHTTP(u *url.URL) bool { return u != nil && (u.Scheme == "http" || u.Scheme == "https") }
