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
	"net/url"
	"syscall"
	"time"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// ErrNotRunning: no agent answers on the socket.
var ErrNotRunning = errors.New("no agent is running")

// answerTimeout is how long an agent may take for an answer.
const answerTimeout = 10 * time.Second

// Client is the operator's end of the socket. It is safe for concurrent use and
// holds nothing between calls.
type Client struct {
	path string
	http *http.Client
}

// Dial makes a client for the agent with the socket at an absolute path. Whether
// there is one shows with the first call, whose error wraps ErrNotRunning if not.
func Dial(path string) *Client {
	dialer := &net.Dialer{Timeout: answerTimeout}
	return &Client{path: path, http: &http.Client{
		Timeout: answerTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", path)
			},
		},
	}}
}

// Socket is the path that the client asks at.
func (c *Client) Socket() string { return c.path }

// Status asks how the agent fares.
func (c *Client) Status(ctx context.Context) (messages.Status, error) {
	var s messages.Status
	err := c.call(ctx, "asking for its status", http.MethodGet, pathStatus, nil, &s)
	return s, err
}

// Drain asks the agent to end once its jobs are done. It does not wait for that.
func (c *Client) Drain(ctx context.Context) error {
	return c.call(ctx, "asking it to drain", http.MethodPost, pathDrain, nil, nil)
}

// Find asks for the attempts at a job that the agent's journal has, the newest
// last; none is no error. The job's parameters are not told.
func (c *Client) Find(ctx context.Context, jobID string) ([]job.Record, error) {
	var answer recordsAnswer
	query := url.Values{queryJob: {jobID}}
	if err := c.call(ctx, "asking for job "+jobID, http.MethodGet, pathRecords+"?"+query.Encode(), nil, &answer); err != nil {
		return nil, err
	}
	var records []job.Record
	for _, r := range answer.Records {
		records = append(records, r.untell())
	}
	return records, nil
}

// Crash has an actor panic, where the agent's fault injection is on.
func (c *Client) Crash(ctx context.Context, actorPath string) error {
	return c.call(ctx, "crashing "+actorPath, http.MethodPost, pathCrash, crashRequest{actorPath}, nil)
}

// Hang blocks an actor for so long, where the agent's fault injection is on.
func (c *Client) Hang(ctx context.Context, actorPath string, d time.Duration) error {
	return c.call(ctx, "hanging "+actorPath, http.MethodPost, pathHang, hangRequest{actorPath, d}, nil)
}

func (c *Client) call(ctx context.Context, doing, method, target string, in, out any) error {
	if err := checkPath(c.path); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := c.do(ctx, method, target, in, out); err != nil {
		if errors.Is(err, ErrNotRunning) {
			return err
		}
		return fmt.Errorf("%s: %w", doing, err)
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
		return c.unanswered(ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return c.unanswered(ctx, err)
	case len(raw) > maxAnswer:
		return fmt.Errorf("the agent's answer is larger than %d bytes", maxAnswer)
	case res.StatusCode >= 300:
		return refused(res.Status, raw)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("understanding the agent's answer, which may be of another version: %w", err)
	}
	return nil
}

// refused is what the agent said when it did not do it.
func refused(status string, body []byte) error {
	var r refusal
	if json.Unmarshal(body, &r) == nil && r.Error != "" {
		return errors.New(r.Error)
	}
	return fmt.Errorf("the agent answered %s; it may be of another version", status)
}

// unanswered says why there was no answer, and what to do.
func (c *Client) unanswered(ctx context.Context, err error) error {
	var slow interface{ Timeout() bool }
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: nobody listens on %s; start an agent, or name the socket of the one that runs with --socket", ErrNotRunning, c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not use the control socket %s: ask as the agent's user or as root (sudo)", c.path)
	case errors.As(err, &slow) && slow.Timeout():
		return fmt.Errorf("the agent on %s did not answer within %s", c.path, answerTimeout)
	}
	return fmt.Errorf("the agent on %s did not answer: %w", c.path, err)
}
