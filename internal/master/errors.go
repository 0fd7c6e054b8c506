package master

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/protocol"
)

// callError is the single-line message of a failed call. It wraps the cause for errors.Is
// and errors.As.
type callError struct {
	text  string
	cause error
}

func (e *callError) Error() string { return e.text }

func (e *callError) Unwrap() error { return e.cause }

// unregistered is the error of a call that needs a node ID before registration.
func unregistered(name string) error {
	return &protocol.Error{Kind: protocol.NotFound, Err: errors.New(name + ": this node is not registered")}
}

// invalidRequest is the error of a call whose request could not be built.
func invalidRequest(name string, err error) error {
	return &protocol.Error{Kind: protocol.Rejected, Err: fmt.Errorf("%s: %w", name, err)}
}

// statusError returns the error and its message for a response other than 2xx.
func statusError(r *http.Response, key string) (*protocol.Error, string) {
	e := &protocol.Error{Kind: statusKind(r.StatusCode), Status: r.StatusCode}
	detail := firstLine(r, key)
	text := statusText(r.StatusCode)
	switch {
	case e.Kind == protocol.Busy:
		e.RetryAfter = retryAfter(r.Header, time.Now())
	case e.Kind == protocol.Unauthorized && r.StatusCode != http.StatusProxyAuthRequired && key != "":
		text += ": the master rejected the API key (--api-key, MASTER_API_KEY, master.api_key_file)"
	case e.Kind == protocol.Unauthorized && r.StatusCode != http.StatusProxyAuthRequired:
		text += ": the master requires an API key (--api-key, MASTER_API_KEY, master.api_key_file)"
	case r.StatusCode/100 == 3:
		text += redirectText(r)
		detail = ""
	case r.StatusCode == http.StatusBadRequest && isTLSPort(detail):
		// Not Rejected: the request was not processed, the URL is wrong.
		e.Kind = protocol.Malformed
		text += ": the master uses TLS; its URL must start with https://"
		detail = ""
	case r.StatusCode == http.StatusBadGateway || r.StatusCode == http.StatusGatewayTimeout:
		// Sent by a proxy: the master behind it may have processed the request.
		e.Ambiguous = true
	}
	if detail != "" {
		text += ": " + detail
	}
	return e, text
}

func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

func statusKind(status int) protocol.ErrorKind {
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

// redirectText describes a redirect. Redirects are not followed, because the API key would
// be sent to the target. Only the host is shown, because path and query may be secret.
func redirectText(r *http.Response) string {
	const text = ": redirects are not followed"
	if to, err := r.Location(); err == nil && to.Host != "" {
		return text + "; set master.url to the master itself (the redirect points to " + safetext.Shorten(oneLine(to.Host), 100) + ")"
	}
	return text
}

// isTLSPort recognizes how the servers of Go, nginx and Apache respond to plain HTTP on a
// TLS port.
func isTLSPort(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "http request") && strings.Contains(text, "https")
}

// retryAfter parses Retry-After, which is a number of seconds or a date (RFC 9110). A date
// is relative to the master's clock if the response has a Date header.
func retryAfter(h http.Header, now time.Time) time.Duration {
	const maximum = 24 * time.Hour
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(max(0, min(seconds, int64(maximum/time.Second)))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(0, min(at.Sub(now), maximum))
}

// explain describes why there was no complete response.
func (c *Client) explain(ctx context.Context, timeout time.Duration, err error) string {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // without the URL, since the message already has the call's name
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
		return fmt.Sprintf("no complete response within %v", timeout)
	case ctx.Err() != nil:
		return "canceled before the response was complete"
	case isOldTLS(err):
		return "the master offers no version of TLS from 1.2 up, and older ones are not used; enable TLS 1.2 or 1.3 there"
	case errors.As(err, &authority):
		return "the master's certificate is signed by an unknown authority; set --ca (master.ca) to the CA's certificate"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the master's certificate " + validity(invalid.Cert, time.Now())
	case errors.As(err, &name):
		return fmt.Sprintf("the master's certificate is for %s, not for %s; use a name of it in master.url, or a certificate for this one", certificateNames(name.Certificate), oneLine(name.Host))
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the master does not use TLS on this port; its URL must start with http://"
	case clientCertRejected(err):
		return "the master requires a client certificate or rejected it (--cert, --key): " + oneLine(err.Error())
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "proxy from the environment: " + oneLine(err.Error())
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection to " + c.host + " refused"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "unknown host " + safetext.Shorten(oneLine(dns.Name), 100)
	case errors.As(err, &network) && network.Timeout():
		return "connection to " + c.host + " timed out"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection closed before the response was complete"
	}
	return oneLine(err.Error())
}

// certificateNames are the hosts that a certificate is for.
func certificateNames(cert *x509.Certificate) string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no host (it has no subject alternative names)"
	}
	return safetext.Shorten(oneLine(strings.Join(names, ", ")), 200)
}

func validity(cert *x509.Certificate, now time.Time) string {
	const clock = " according to this machine's clock"
	if now.Before(cert.NotBefore) {
		return "is not valid before " + cert.NotBefore.UTC().Format(time.RFC3339) + clock + "; set the clock that is wrong"
	}
	return "expired on " + cert.NotAfter.UTC().Format(time.RFC3339) + clock + "; renew it on the master's host"
}

// isOldTLS recognizes a server that offers only versions of TLS below 1.2.
func isOldTLS(err error) bool {
	var alert tls.AlertError
	const protocolVersion = 70 // RFC 8446, section 6
	return errors.As(err, &alert) && uint8(alert) == protocolVersion ||
		strings.Contains(err.Error(), "protocol version not supported") || strings.Contains(err.Error(), "unsupported protocol version")
}

// clientCertRejected recognizes the TLS alert for a missing or rejected client certificate.
// With TLS 1.3 it arrives after the request was written, but before the master has read it.
func clientCertRejected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate")
}

// firstLine returns the first line of a plain-text error, at most 200 characters. It
// returns "" for an HTML page, unless that reports plain HTTP on a TLS port.
func firstLine(r *http.Response, key string) string {
	const maxLen = 200
	body, _ := io.ReadAll(io.LimitReader(r.Body, 4<<10)) // an incomplete body does not matter
	text := strings.TrimSpace(string(body))
	if strings.HasPrefix(text, "<") {
		if !isTLSPort(text) {
			return ""
		}
		return "plain HTTP request sent to HTTPS port"
	}
	line, _, _ := strings.Cut(text, "\n")
	return safetext.Shorten(redact(oneLine(line), key), maxLen)
}

// oneLine makes one line of a text of the master or the system.
func oneLine(text string) string { return strings.TrimSpace(safetext.Line(text)) }

// redact removes the API key, which a master may echo.
func redact(text, key string) string {
	var secrets safetext.Secrets
	secrets.Show(key, safetext.Mark) // however short it is
	secrets.Add(key)
	return secrets.Hide(text)
}
