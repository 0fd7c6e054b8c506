package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"syscall"
	"time"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// ErrNotRunning means that no agent is listening on the socket.
var ErrNotRunning = errors.New("no agent is running")

// requestTimeout limits a request including its response.
const requestTimeout = 10 * time.Second

// Client sends requests to an agent. It is safe for concurrent use and keeps no
// connections open.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client for the socket at an absolute path. It does not connect:
// if no agent is running, each call returns an error that wraps ErrNotRunning, and where this
// user may not use the socket, one that wraps fs.ErrPermission.
func NewClient(path string) *Client {
	dialer := &net.Dialer{Timeout: requestTimeout}
	return &Client{path: path, http: &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", path)
			},
		},
	}}
}

// Socket returns the path of the socket.
func (c *Client) Socket() string { return c.path }

// Status returns the agent's status.
func (c *Client) Status(ctx context.Context) (messages.Status, error) {
	var s messages.Status
	err := c.call(ctx, "getting the status", http.MethodGet, pathStatus, nil, &s)
	return s, err
}

// Peer is the process that listens on the socket, as the kernel knows it. What the process itself
// says of this, such as the PID in its status, is not to be relied on by root: whoever may write
// the socket's directory may listen there.
type Peer struct {
	Known    bool // false on systems other than Linux
	PID      int  // 0 if it is not of this PID namespace
	UID, GID uint32
	Groups   []uint32 // supplementary ones; empty before Linux 4.13
}

// Identify returns the status, and which process has sent it.
func (c *Client) Identify(ctx context.Context) (messages.Status, Peer, error) {
	var peer Peer
	s, err := c.Status(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { peer = peerOf(info.Conn) },
	}))
	return s, peer, err
}

// Drain makes the agent exit after its running jobs. It does not wait for that.
func (c *Client) Drain(ctx context.Context) error {
	return c.call(ctx, "draining", http.MethodPost, pathDrain, nil, nil)
}

// UndoDrain makes a draining agent take jobs again. It fails once the agent is stopping.
func (c *Client) UndoDrain(ctx context.Context) error {
	return c.call(ctx, "undoing the drain", http.MethodDelete, pathUndo, nil, nil)
}

// Reload makes the agent load its configuration again, and waits for that. The error is why
// nothing has changed.
func (c *Client) Reload(ctx context.Context) error {
	return c.call(ctx, "reloading", http.MethodPost, pathReload, nil, nil)
}

// Find returns the attempts of a job in the agent's journal, latest last. It returns none
// and no error if there are none. The job's parameters are omitted.
func (c *Client) Find(ctx context.Context, jobID string) ([]job.Record, error) {
	var response recordsResponse
	query := url.Values{queryJob: {jobID}}
	if err := c.call(ctx, "getting job "+jobID, http.MethodGet, pathRecords+"?"+query.Encode(), nil, &response); err != nil {
		return nil, err
	}
	var records []job.Record
	for _, r := range response.Records {
		records = append(records, r.decode())
	}
	return records, nil
}

// Recent returns all attempts in the agent's journal, latest first.
func (c *Client) Recent(ctx context.Context) ([]job.Summary, error) {
	var all []job.Summary
	err := c.call(ctx, "listing jobs", http.MethodGet, pathRecent, nil, &all)
	return all, err
}

// Crash makes an actor panic. It fails if the agent's fault injection is disabled.
func (c *Client) Crash(ctx context.Context, actorPath string) error {
	return c.call(ctx, "crashing "+actorPath, http.MethodPost, pathCrash, crashRequest{actorPath}, nil)
}

// Hang blocks an actor for a duration. It fails if the agent's fault injection is disabled.
func (c *Client) Hang(ctx context.Context, actorPath string, d time.Duration) error {
	return c.call(ctx, "hanging "+actorPath, http.MethodPost, pathHang, hangRequest{actorPath, d}, nil)
}

// call makes a request; action describes it in errors.
func (c *Client) call(ctx context.Context, action, method, target string, in, out any) error {
	if err := checkPath(c.path); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := c.do(ctx, method, target, in, out); err != nil {
		if errors.Is(err, ErrNotRunning) {
			return err
		}
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, target string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+target, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.explain(ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxResponse+1))
	switch {
	case err != nil:
		return c.explain(ctx, err)
	case len(raw) > maxResponse:
		return fmt.Errorf("response larger than %d bytes", maxResponse)
	case res.StatusCode >= 300:
		return statusError(res.Status, raw)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("decoding the response (the agent may have another version): %w", err)
	}
	return nil
}

// statusError returns the error in a response.
func statusError(status string, body []byte) error {
	var r errorResponse
	if json.Unmarshal(body, &r) == nil && r.Error != "" {
		return errors.New(r.Error)
	}
	return fmt.Errorf("unexpected response %s (the agent may have another version)", status)
}

// forbidden is an fs.ErrPermission that says what to do.
type forbidden struct{ path string }

func (f forbidden) Error() string {
	return fmt.Sprintf("permission denied for control socket %s; run the command as the agent's user or as root (sudo)", f.path)
}

func (forbidden) Unwrap() error { return fs.ErrPermission }

// explain describes why there was no response, and what to do about it.
func (c *Client) explain(ctx context.Context, err error) error {
	var slow interface{ Timeout() bool }
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w on %s; start one, or select the socket of the running one with --socket", ErrNotRunning, c.path)
	case errors.Is(err, fs.ErrPermission):
		return forbidden{c.path}
	case errors.As(err, &slow) && slow.Timeout():
		return fmt.Errorf("no response from the agent on %s within %s", c.path, requestTimeout)
	}
	return fmt.Errorf("no response from the agent on %s: %w", c.path, err)
}
