package hardware

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	minRestartDelay = 100 * time.Millisecond // of the child, after its second failure in a row
	maxRestartDelay = 30 * time.Second
	// healthyAfter is the uptime after which the restart delay is reset.
	healthyAfter = 10 * time.Second
	// Delays of a new child after a card was lost: only a new initialization finds it again.
	minReinitDelay = time.Second
	maxReinitDelay = time.Minute
	// exitTimeout limits how long a Read waits for the previous child to exit.
	exitTimeout = 100 * time.Millisecond
	// detailsInterval is how often values that change slowly are read.
	detailsInterval = time.Second
)

var (
	errClosed     = errors.New("closed")
	errNoResponse = errors.New("no response")
)

// nvmlReader sends requests to a child process that runs ServeNVML. A child that exits, does
// not respond or sends an invalid response is killed and replaced, with backoff.
type nvmlReader struct {
	config  NVMLConfig
	closing chan struct{} // interrupts a wait for the child
	once    sync.Once

	child     *nvmlChild // nil before the first start
	ready     bool       // the child has responded
	stoppedAt time.Time  // when the child was asked to exit or was killed; zero: neither
	requestID uint64
	sentAt    int64     // of the latest request; CLOCK_MONOTONIC
	detailsAt time.Time // of the latest response with details; zero: none from this child

	restarts retryDelay
	reinits  retryDelay
	err      error // of the latest failure
}

func newNVMLReader(config NVMLConfig) *nvmlReader {
	return &nvmlReader{
		config: config, closing: make(chan struct{}),
		restarts: newRetryDelay(minRestartDelay, maxRestartDelay),
		reinits:  newRetryDelay(minReinitDelay, maxReinitDelay),
	}
}

// read returns the child's response to one request.
func (r *nvmlReader) read() (nvmlResponse, error) {
	switch {
	case r.closed():
		return nvmlResponse{}, errClosed
	case r.child == nil || !r.stoppedAt.IsZero():
		return r.start(r.config.Timeout)
	case !r.ready:
		if _, err := r.awaitReady(r.config.Timeout); err != nil {
			return nvmlResponse{}, err
		}
		r.detailsAt = time.Time{} // the first response is out of date
	}
	return r.request()
}

// start starts a child and waits for its first response. It fails until the restart delay has
// passed.
func (r *nvmlReader) start(timeout time.Duration) (nvmlResponse, error) {
	if r.child != nil && !r.child.waitDone(exitTimeout) {
		if time.Since(r.stoppedAt) > 2*orphanGrace {
			r.child.kill()
		}
		return nvmlResponse{}, fmt.Errorf("the NVML process %d does not exit", r.child.ID().PID)
	}
	if wait := r.restarts.remaining(time.Now()); wait > 0 {
		return nvmlResponse{}, fmt.Errorf("%w (next attempt in %v)", r.err, wait.Round(time.Millisecond))
	}
	child, err := startNVMLChild(r.config.Command)
	if err != nil {
		r.scheduleRestart(err)
		return nvmlResponse{}, err
	}
	r.child, r.ready, r.stoppedAt, r.detailsAt = child, false, time.Time{}, time.Time{}
	r.requestID++
	r.sentAt = monotonic()
	setup := nvmlSetup{Library: r.config.Library, ProcfsPath: r.config.ProcfsPath}
	if err := child.send(r.config.Timeout, setup, nvmlRequest{ID: r.requestID, Details: true}); err != nil {
		return nvmlResponse{}, r.abandon(err)
	}
	return r.awaitReady(timeout)
}

// awaitReady waits for the child's first response, which comes when NVML is initialized.
func (r *nvmlReader) awaitReady(timeout time.Duration) (nvmlResponse, error) {
	left := r.config.StartTimeout - time.Since(r.child.Started())
	response, err := r.receive(min(timeout, left))
	switch {
	case errors.Is(err, errNoResponse) && timeout < left:
		return response, fmt.Errorf("NVML has been starting for %v", time.Since(r.child.Started()).Round(time.Millisecond))
	case errors.Is(err, errNoResponse):
		err = fmt.Errorf("NVML did not start within %v", r.config.StartTimeout)
	}
	if err != nil {
		return response, r.abandon(err)
	}
	r.ready = true
	r.detailsAt = time.Now()
	return response, nil
}

// request sends a request to a ready child and returns the response.
func (r *nvmlReader) request() (nvmlResponse, error) {
	select {
	case line, open := <-r.child.lines:
		if open {
			return nvmlResponse{}, r.abandon(fmt.Errorf("unexpected line from the NVML process: %.60q", line.text))
		}
		return nvmlResponse{}, r.abandon(r.child.exitError())
	default:
	}
	now := time.Now()
	details := now.Sub(r.detailsAt) >= detailsInterval
	r.requestID++
	r.sentAt = monotonic()
	if err := r.child.send(r.config.Timeout, nvmlRequest{ID: r.requestID, Details: details}); err != nil {
		return nvmlResponse{}, r.abandon(err)
	}
	response, err := r.receive(r.config.Timeout)
	if err != nil {
		return response, r.abandon(err)
	}
	if details {
		r.detailsAt = now
	}
	if now.Sub(r.child.Started()) >= healthyAfter {
		r.restarts.reset()
	}
	return response, nil
}

// receive waits for the response to the latest request.
func (r *nvmlReader) receive(timeout time.Duration) (nvmlResponse, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case line, open := <-r.child.lines:
		if !open {
			return nvmlResponse{}, r.child.exitError()
		}
		return r.parse(line)
	case <-timer.C:
		return nvmlResponse{}, fmt.Errorf("%w from the NVML process within %v", errNoResponse, timeout)
	case <-r.closing:
		return nvmlResponse{}, errClosed
	}
}

func (r *nvmlReader) parse(line nvmlLine) (nvmlResponse, error) {
	if line.err != nil {
		return nvmlResponse{}, fmt.Errorf("invalid response of the NVML process: %w", line.err)
	}
	response, err := parseResponse(line.text, r.requestID, r.sentAt, monotonic())
	switch {
	case err != nil:
		return response, fmt.Errorf("invalid response of the NVML process: %w", err)
	case response.Failure != nil && response.Failure.Missing:
		return response, fmt.Errorf("%w: %s", ErrNoNVML, response.Failure.Reason)
	case response.Failure != nil:
		return response, errors.New(response.Failure.Reason)
	}
	return response, nil
}

// abandon kills the child and schedules its replacement. The next start reaps it: a child that
// hangs in the driver may take any time to exit.
func (r *nvmlReader) abandon(err error) error {
	r.child.kill()
	r.stoppedAt = time.Now()
	r.scheduleRestart(err)
	return err
}

// scheduleRestart schedules the first restart at once, and later ones with backoff.
func (r *nvmlReader) scheduleRestart(err error) {
	now := time.Now()
	if r.restarts.pending() {
		r.restarts.next(now)
	} else {
		r.restarts.at = now
	}
	r.err = err
}

// reinitialize replaces the child, and thus initializes NVML again, once a card has been stale
// for long enough: only a new initialization finds a lost card again.
func (r *nvmlReader) reinitialize(stale bool) {
	now := time.Now()
	if !stale {
		r.reinits.reset()
		return
	}
	if !r.reinits.pending() {
		r.reinits.next(now)
	}
	if r.reinits.remaining(now) > 0 {
		return
	}
	r.reinits.next(now)
	r.child.closeInput()
	r.stoppedAt = now
}

func (r *nvmlReader) interrupt() { r.once.Do(func() { close(r.closing) }) }

func (r *nvmlReader) closed() bool {
	select {
	case <-r.closing:
		return true
	default:
		return false
	}
}

// close ends the child. It kills a child that does not exit when its input ends.
func (r *nvmlReader) close() error {
	if r.child == nil {
		return nil
	}
	r.child.closeInput()
	if r.child.waitDone(exitTimeout) {
		return nil
	}
	r.child.kill()
	if !r.child.waitDone(r.config.Timeout) {
		return fmt.Errorf("the NVML process %d was killed and does not exit", r.child.ID().PID)
	}
	return nil
}

// retryDelay schedules retries with exponential backoff.
type retryDelay struct {
	policy *backoff.ExponentialBackOff
	at     time.Time // of the next attempt; zero: none is scheduled
}

func newRetryDelay(first, limit time.Duration) retryDelay {
	return retryDelay{policy: &backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 2, MaxInterval: limit}}
}

func (d *retryDelay) reset() {
	d.policy.Reset()
	d.at = time.Time{}
}

func (d *retryDelay) next(now time.Time)                    { d.at = now.Add(d.policy.NextBackOff()) }
func (d *retryDelay) pending() bool                         { return !d.at.IsZero() }
func (d *retryDelay) remaining(now time.Time) time.Duration { return d.at.Sub(now) }
