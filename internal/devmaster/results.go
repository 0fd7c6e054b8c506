package devmaster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"ffmpeg-agent/messages/protocol"
)

// resultFile is an accepted result on its way into ResultsDir.
type resultFile struct {
	name string
	data []byte
}

// decodeResult reads a result as strictly as masters in use do: one wrong type
// refuses the whole.
func decodeResult(body []byte) (protocol.JobResult, error) {
	var res protocol.JobResult
	if err := json.Unmarshal(body, &res); err != nil {
		return res, refuse(http.StatusBadRequest, "invalid result: %v", err)
	}
	switch {
	case res.JobID == "":
		return res, refuse(http.StatusBadRequest, "invalid result: job_id is missing")
	case res.Progress < 0 || res.Progress > 100:
		return res, refuse(http.StatusBadRequest, "invalid result: progress %d is not within 0 to 100", res.Progress)
	}
	switch res.Status {
	case protocol.StatusCompleted, protocol.StatusFailed, protocol.StatusCanceled:
		return res, nil
	}
	return res, refuse(http.StatusBadRequest, "invalid result: status %q is not completed, failed or canceled", res.Status)
}

// takeResult stores a result and moves its job on.
func (m *Master) takeResult(body []byte) (protocol.ResultResponse, error) {
	res, err := decodeResult(body)
	if err != nil {
		m.noteRefused(res, err)
		return protocol.ResultResponse{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.byID[res.JobID]
	if r == nil {
		err = refuse(http.StatusInternalServerError, "failed to update job status: job not found")
	} else if m.cfg.FenceAttempts {
		err = r.fence(res)
	}
	if err != nil {
		m.noteRefused(res, err)
		return protocol.ResultResponse{}, err
	}
	return m.apply(r, res, body), nil
}

func (m *Master) noteRefused(res protocol.JobResult, err error) {
	e := Event{Kind: ResultRefused, NodeID: res.NodeID, JobID: res.JobID, Attempt: res.Attempt, Status: res.Status, Detail: err.Error()}
	if re, ok := errors.AsType[*refusal](err); ok {
		e.Code = re.code
	}
	m.note(e)
}

// fence refuses a result that is not of the job's current node and attempt, or
// whose attempt has reported already. A canceled job's worker may report once.
// A result without an attempt is judged by its node alone.
func (r *record) fence(res protocol.JobResult) error {
	j := &r.Job
	switch {
	case j.NodeID != res.NodeID || j.NodeID == "":
		return refuse(http.StatusConflict, "stale result: the job is not with node %s", res.NodeID)
	case res.Attempt != 0 && res.Attempt != j.Attempt():
		return refuse(http.StatusConflict, "stale result: attempt %d, but the job is at attempt %d", res.Attempt, j.Attempt())
	case r.Reported:
		return refuse(http.StatusConflict, "stale result: attempt %d has reported already", j.Attempt())
	case j.Status.Terminal() && j.Status != protocol.StatusCanceled:
		return refuse(http.StatusConflict, "stale result: the job is %s", j.Status)
	}
	return nil
}

// apply takes a result whose right to be taken has been decided.
func (m *Master) apply(r *record, res protocol.JobResult, body []byte) protocol.ResultResponse {
	j := &r.Job
	answer := protocol.ResultResponse{Status: "success"}
	event := Event{Kind: ResultAccepted, Code: http.StatusOK, NodeID: res.NodeID, JobID: j.ID, Attempt: res.Attempt, Status: res.Status}
	holder, attempt := j.NodeID, j.Attempt()
	r.Reported, r.Result = true, slices.Clone(body)
	j.Progress = float64(res.Progress)
	if j.Status != protocol.StatusCanceled { // canceled stays canceled, whatever its worker says
		j.Error, j.FailureReason = res.Error, res.FailureReason
		if res.Status == protocol.StatusFailed && j.RetryCount < j.MaxRetries {
			r.requeue()
			answer = protocol.ResultResponse{Status: "retrying", Retry: j.RetryCount, MaxRetries: j.MaxRetries}
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
	m.note(event)
	return answer
}

// Result returns the last result that was taken for a job, as decoded and as
// it was received; ok is false when there is none.
func (m *Master) Result(jobID string) (res protocol.JobResult, raw []byte, ok bool) {
	raw, err := m.rawResult(jobID)
	if err != nil || json.Unmarshal(raw, &res) != nil {
		return protocol.JobResult{}, nil, false
	}
	return res, raw, true
}

func (m *Master) rawResult(value string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(value)
	if err != nil {
		return nil, err
	}
	if r.Result == nil {
		return nil, refuse(http.StatusNotFound, "the job has no result yet")
	}
	return slices.Clone(r.Result), nil
}
