package master

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"ffmpeg-agent/messages/protocol"
)

// callError is a failed call in one plain line; its cause is there for errors.Is.
type callError struct {
	text  string
	cause error
}

func (e *callError) Error() string { return e.text }

func (e *callError) Unwrap() error { return e.cause }

// unregistered is the error of a call that needs a node id, made without one.
func unregistered(name string) error {
	return &protocol.Error{Kind: protocol.NotFound, Err: errors.New(name + ": this node has no id yet: it must register first")}
}

// refusedHere is the error of a call that could not even be put into words.
func refusedHere(name string, err error) error {
	return &protocol.Error{Kind: protocol.Rejected, Err: fmt.Errorf("%s: %w", name, err)}
}

// refusal turns an answer other than 2xx into an error and a text for people.
func refusal(r *http.Response, key string) (*protocol.Error, string) {
	e := &protocol.Error{Kind: kindOf(r.StatusCode), Status: r.StatusCode}
	said := firstLine(r, key)
	text := statusText(r.StatusCode)
	switch {
	case e.Kind == protocol.Busy:
		e.RetryAfter = retryAfter(r.Header, time.Now())
	case e.Kind == protocol.Unauthorized && r.StatusCode != http.StatusProxyAuthRequired && key != "":
		text += ": the master does not accept the API key (--api-key, MASTER_API_KEY, master.api_key_file)"
	case e.Kind == protocol.Unauthorized && r.StatusCode != http.StatusProxyAuthRequired:
		text += ": the master wants an API key (--api-key, MASTER_API_KEY, master.api_key_file)"
	case r.StatusCode/100 == 3:
		text += redirection(r)
		said = ""
	case r.StatusCode == http.StatusBadRequest && wantsTLS(said):
		// Nothing has judged the request yet: it is the URL that is wrong.
		e.Kind = protocol.Malformed
		text += ": the master speaks TLS: its URL begins with https://"
		said = ""
	case r.StatusCode == http.StatusBadGateway || r.StatusCode == http.StatusGatewayTimeout:
		// A proxy speaks; what the master behind it did nobody knows.
		e.Ambiguous = true
	}
	if said != "" {
		text += ": " + said
	}
	return e, text
}

func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

func kindOf(status int) protocol.ErrorKind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return protocol.Unauthorized
	case http.StatusNotFound:
		return protocol.NotFound
	case http.StatusConflict:
		return protocol.Conflict
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusRequestTimeout, http.StatusTooEarly:
		return protocol.Busy
	}
	switch status / 100 {
	case 4:
		return protocol.Rejected
	case 5:
		return protocol.ServerError
	}
	return protocol.Malformed
}

// redirection says where a redirect points to. It is not followed, since the key
// would go along; of the place only the host is named.
func redirection(r *http.Response) string {
	const text = ": redirects are not followed"
	if to, err := r.Location(); err == nil && to.Host != "" {
		return text + "; it points to " + shorten(oneLine(to.Host), 100) + ": name the master itself as master.url"
	}
	return text
}

// wantsTLS recognizes what Go's, nginx's and Apache's servers say to plain HTTP on
// a TLS port.
func wantsTLS(said string) bool {
	said = strings.ToLower(said)
	return strings.Contains(said, "http request") && strings.Contains(said, "https")
}

// retryAfter reads Retry-After, which is seconds or a date. A date is compared
// with the master's own clock where the answer shows it.
func retryAfter(h http.Header, now time.Time) time.Duration {
	const most = 24 * time.Hour
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(max(0, min(seconds, int64(most/time.Second)))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if theirs, err := http.ParseTime(h.Get("Date")); err == nil {
		now = theirs
	}
	return max(0, min(at.Sub(now), most))
}

// explain says in words why there is no whole answer.
func (c *Client) explain(ctx context.Context, within time.Duration, err error) string {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // its text shows the URL, which the call's name shows better
	}
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		dns       *net.DNSError
		op        *net.OpError
		network   net.Error
	)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Sprintf("no whole answer within %v", within)
	case ctx.Err() != nil:
		return "given up before the answer"
	case errors.As(err, &authority):
		return "the master's certificate is signed by an authority that this machine does not know: name its file with --ca (master.ca)"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the master's certificate " + validity(invalid.Cert, time.Now())
	case errors.As(err, &name):
		return "the master's certificate is for another host: " + oneLine(name.Error())
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the master does not speak TLS there: its URL begins with http://"
	case certificateRefused(err):
		return "the master does not accept our client certificate, or wants one (--cert, --key): " + oneLine(err.Error())
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "through the proxy that the environment names: " + oneLine(err.Error())
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: nothing listens at " + c.host
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the host name " + shorten(oneLine(dns.Name), 100) + " is not known"
	case errors.As(err, &network) && network.Timeout():
		return "no connection to " + c.host + " in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection broke before the whole answer was there"
	}
	return oneLine(err.Error())
}

func validity(cert *x509.Certificate, now time.Time) string {
	const clock = ", by this machine's clock"
	if now.Before(cert.NotBefore) {
		return "is not valid before " + cert.NotBefore.UTC().Format(time.RFC3339) + clock
	}
	return "expired on " + cert.NotAfter.UTC().Format(time.RFC3339) + clock
}

// certificateRefused recognizes the alert by which a master turns our certificate
// down. With TLS 1.3 it comes only after the request was written, yet before the
// master has read any of it.
func certificateRefused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate")
}

// firstLine is the first line of an error's plain text, at most 200 characters.
// A page for browsers says nothing in its first line.
func firstLine(r *http.Response, key string) string {
	const most = 200
	body, _ := io.ReadAll(io.LimitReader(r.Body, 4<<10)) // the status stands even when its text breaks off
	text := strings.TrimSpace(string(body))
	if strings.HasPrefix(text, "<") {
		if !wantsTLS(text) {
			return ""
		}
		return "the plain HTTP request was sent to an HTTPS port"
	}
	line, _, _ := strings.Cut(text, "\n")
	return shorten(redact(oneLine(line), key), most)
}

// oneLine makes text fit for a log: no control characters, no broken UTF-8.
func oneLine(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	return strings.TrimSpace(text)
}

// shorten cuts text to at most so many characters.
func shorten(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// redact hides the key, should a master or a library repeat it.
func redact(text, key string) string {
	if key == "" {
		return text
	}
	return strings.ReplaceAll(text, key, "***")
}
