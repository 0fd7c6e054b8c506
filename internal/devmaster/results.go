package devmaster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"ffmpeg-agent/messages/protocol"
)

// resultFile is an accepted result to be written to ResultsDir.
type resultFile struct {
	name string
	data []byte
}

// decodeResult decodes a result as strictly as deployed masters: a field of the wrong type
// makes the whole result invalid.
func decodeResult(body []byte) (protocol.JobResult, error) {
	var res protocol.JobResult
	if err := json.Unmarshal(body, &res); err != nil {
		return res, reject(http.StatusBadRequest, "invalid result: %v", err)
	}
	switch {
	case res.JobID == "":
		return res, reject(http.StatusBadRequest, "invalid result: missing job_id")
	case res.Progress < 0 || res.Progress > 100:
		return res, reject(http.StatusBadRequest, "invalid result: progress %d: must be from 0 to 100", res.Progress)
	}
	switch res.Status {
	case protocol.StatusCompleted, protocol.StatusFailed, protocol.StatusCanceled:
		return res, nil
	}
	return res, reject(http.StatusBadRequest, "invalid result: status %q: must be completed, failed or canceled", res.Status)
}

// acceptResult checks a result and updates its job.
func (m *Master) acceptResult(body []byte) (protocol.ResultResponse, error) {
	res, err := decodeResult(body)
	if err != nil {
		m.recordRejected(res, err)
		return protocol.ResultResponse{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.byID[res.JobID]
	if r == nil {
		err = reject(http.StatusInternalServerError, "failed to update job status: job not found")
	} else if m.cfg.FenceAttempts {
		err = r.fence(res)
	}
	if err != nil {
		m.recordRejected(res, err)
		return protocol.ResultResponse{}, err
	}
	return m.apply(r, res, body), nil
}

func (m *Master) recordRejected(res protocol.JobResult, err error) {
	e := Event{Kind: ResultRejected, NodeID: res.NodeID, JobID: res.JobID, Attempt: res.Attempt, Status: res.Status, Detail: err.Error()}
	if se, ok := errors.AsType[*statusError](err); ok {
		e.Code = se.code
	}
	m.record(e)
}

// fence rejects a result unless it is the first one from the job's current node and attempt.
// The node of a canceled job may still report once. For a result without an attempt, only the
// node is checked.
func (r *jobRecord) fence(res protocol.JobResult) error {
	j := &r.Job
	switch {
	case j.NodeID != res.NodeID || j.NodeID == "":
		return reject(http.StatusConflict, "stale result: the job is not assigned to node %s", res.NodeID)
	case res.Attempt != 0 && res.Attempt != j.Attempt():
		return reject(http.StatusConflict, "stale result: attempt %d, but the job is at attempt %d", res.Attempt, j.Attempt())
	case r.Reported:
		return reject(http.StatusConflict, "stale result: attempt %d was already reported", j.Attempt())
	case j.Status.Terminal() && j.Status != protocol.StatusCanceled:
		return reject(http.StatusConflict, "stale result: the job is %s", j.Status)
	}
	return nil
}

// apply updates a job with an accepted result.
func (m *Master) apply(r *jobRecord, res protocol.JobResult, body []byte) protocol.ResultResponse {
	j := &r.Job
	response := protocol.ResultResponse{Status: "success"}
	event := Event{Kind: ResultAccepted, Code: http.StatusOK, NodeID: res.NodeID, JobID: j.ID, Attempt: res.Attempt, Status: res.Status}
	holder, attempt := j.NodeID, j.Attempt()
	r.Reported, r.Result = true, slices.Clone(body)
	j.Progress = float64(res.Progress)
	if j.Status != protocol.StatusCanceled { // a canceled job stays canceled
		j.Error, j.FailureReason = res.Error, res.FailureReason
		if res.Status == protocol.StatusFailed && j.RetryCount < j.MaxRetries {
			r.requeue()
			response = protocol.ResultResponse{Status: "retrying", Retry: j.RetryCount, MaxRetries: j.MaxRetries}
			event.Detail = fmt.Sprintf("retry %d of %d", j.RetryCount, j.MaxRetries)
		} else {
			r.end(res.Status)
		}
	}
	m.refresh(holder)
	if m.cfg.ResultsDir != "" {
		name := fmt.Sprintf("%s.attempt-%d.json", j.ID, attempt)
		m.unstored = append(m.unstored, resultFile{name, r.Result})
	}
	m.version++
	m.record(event)
	return response
}

// Result returns the latest accepted result of a job, decoded and as received. ok is false if
// there is none.
func (m *Master) Result(jobID string) (res protocol.JobResult, raw []byte, ok bool) {
	raw, err := m.rawResult(jobID)
	if err != nil || json.Unmarshal(raw, &res) != nil {
		return protocol.JobResult{}, nil, false
	}
	return res, raw, true
}

func (m *Master) rawResult(reference string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(reference)
	if err != nil {
		return nil, err
	}
	if r.Result == nil {
		return nil, reject(http.StatusNotFound, "the job has no result yet")
	}
	return slices.Clone(r.Result), nil
}
