package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func failure(reason protocol.FailureReason, format string, args ...any) *job.Failure {
	return &job.Failure{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// classify turns an error of a request, of a body or of the disk into one that Fetch returns.
// final reports whether a retry is pointless.
func classify(label string, err error) (f error, final bool) {
	var known *job.Failure
	var direct *Direct
	var stated *problem
	var refused *reach.Refused
	var invalid *reach.Invalid
	var status *statusError
	switch {
	case errors.As(err, &known):
		return known, true
	case errors.As(err, &direct):
		return direct, true
	case errors.As(err, &stated):
		return failure(stated.reason, "%s: %s", label, stated.text), true
	case errors.As(err, &refused), errors.As(err, &invalid):
		return failure(protocol.ReasonUserError, "%s: %v", label, err), true
	case errors.As(err, &status):
		return failure(status.reason(), "%s: %v", label, status), !status.temporary()
	case errors.Is(err, errDisk):
		return diskFailure(label, err), true
	case isVerification(err):
		return failure(protocol.ReasonNetworkError, "%s: the server's certificate is not trusted: %v", label, err), true
	case isNotFound(err):
		return failure(protocol.ReasonNetworkError, "%s: %v", label, err), true
	}
	return failure(protocol.ReasonNetworkError, "%s: %v", label, err), false
}

// problem is an error with a known reason. classify adds the label of the URL.
type problem struct {
	reason protocol.FailureReason
	text   string
}

func (p *problem) Error() string { return p.text }

// errDisk wraps write errors.
var errDisk = errors.New("writing to disk")

func diskFailure(label string, err error) *job.Failure {
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, full) {
			return failure(protocol.ReasonResourceError, "%s: %v", label, err)
		}
	}
	return failure(protocol.ReasonPlatformError, "%s: %v", label, err)
}

func isVerification(err error) bool {
	var verification *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verification) || errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid)
}

// isNotFound reports whether name resolution failed because the host does not exist.
func isNotFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// statusError is a response with an unexpected status.
type statusError struct {
	code  int
	retry string // its Retry-After
}

func (s *statusError) Error() string {
	if text := http.StatusText(s.code); text != "" {
		return fmt.Sprintf("HTTP %d %s", s.code, text)
	}
	return fmt.Sprintf("HTTP %d", s.code)
}

func (s *statusError) temporary() bool {
	switch s.code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return s.code >= 500
}

func (s *statusError) reason() protocol.FailureReason {
	if s.temporary() || s.code >= 500 || s.code == http.StatusProxyAuthRequired {
		return protocol.ReasonNetworkError
	}
	return protocol.ReasonInputError
}
