package devmaster

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"ffmpeg-agent/messages/protocol"
)

// maxBody is the maximum size of a request's body in bytes.
const maxBody = 8 << 20

// statusError is an error with an HTTP status.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

func reject(code int, format string, args ...any) error {
	return &statusError{code: code, text: fmt.Sprintf(format, args...)}
}

// handlerFunc handles a request. It returns a status and a body to be encoded as JSON, or an
// error, which is sent with the code of a statusError or else with 500.
type handlerFunc func(r *http.Request) (code int, body any, err error)

// Handler returns the handler of the master's HTTP API.
func (m *Master) Handler() http.Handler {
	mux := http.NewServeMux()
	read := func(pattern string, h handlerFunc) { mux.Handle(pattern, m.handle(h)) }
	// Changes are stored before the response is sent, also before an error, which may
	// depend on a concurrent change: a 409 for a reported attempt must not be sent before
	// the report is stored.
	change := func(pattern string, h handlerFunc) {
		read(pattern, func(r *http.Request) (int, any, error) {
			code, body, err := h(r)
			if storeErr := m.flush(); storeErr != nil {
				return 0, nil, storeErr
			}
			return code, body, err
		})
	}

	change("POST /nodes/register", m.postRegister)
	read("POST /nodes/{id}/heartbeat", m.postHeartbeat)
	read("GET /nodes", m.getNodes)
	read("GET /nodes/{id}", m.getNode)
	change("DELETE /nodes/{id}", m.deleteNode)

	change("GET /jobs/next", m.getNext)
	change("POST /jobs", m.postJob)
	read("GET /jobs", m.getJobs)
	read("GET /jobs/{id}", m.getJob)
	read("GET /jobs/{id}/result", m.getResult)
	change("POST /jobs/{id}/cancel", jobChange("canceled", m.cancelJob))
	change("POST /jobs/{id}/pause", jobChange("paused", m.pauseJob))
	change("POST /jobs/{id}/resume", jobChange("resumed", m.resumeJob))
	change("POST /results", m.postResult)

	read("GET /health", func(*http.Request) (int, any, error) {
		return http.StatusOK, protocol.StatusResponse{Status: "healthy"}, nil
	})
	return m.authorize(mux)
}

func (m *Master) postRegister(r *http.Request) (int, any, error) {
	body, err := readBody(r)
	if err != nil {
		return 0, nil, err
	}
	code, n, err := m.register(body)
	return code, n, err
}

func (m *Master) postHeartbeat(r *http.Request) (int, any, error) {
	body, err := readBody(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, nil, m.heartbeat(r.PathValue("id"), body)
}

func (m *Master) getNodes(*http.Request) (int, any, error) {
	nodes := m.listedNodes()
	return http.StatusOK, map[string]any{"nodes": nodes, "count": len(nodes)}, nil
}

func (m *Master) getNode(r *http.Request) (int, any, error) {
	n, err := m.node(r.PathValue("id"))
	return http.StatusOK, n, err
}

func (m *Master) deleteNode(r *http.Request) (int, any, error) {
	id := r.PathValue("id")
	return http.StatusOK, protocol.StatusResponse{Status: "removed", NodeID: id}, m.removeNode(id)
}

func (m *Master) getNext(r *http.Request) (int, any, error) {
	if r.Method != http.MethodGet { // GET patterns match HEAD too, which must not assign a job
		return 0, nil, reject(http.StatusMethodNotAllowed, "method not allowed")
	}
	job, err := m.nextJob(r.URL.Query().Get("node_id"))
	return http.StatusOK, protocol.NextJobResponse{Job: job}, err
}

func (m *Master) postJob(r *http.Request) (int, any, error) {
	body, err := readBody(r)
	if err != nil {
		return 0, nil, err
	}
	job, err := m.submit(body)
	return http.StatusCreated, job, err
}

func (m *Master) getJobs(*http.Request) (int, any, error) {
	jobs := m.Jobs()
	return http.StatusOK, map[string]any{"jobs": jobs, "count": len(jobs)}, nil
}

func (m *Master) getJob(r *http.Request) (int, any, error) {
	job, err := m.lookUp(r.PathValue("id"))
	return http.StatusOK, job, err
}

func (m *Master) getResult(r *http.Request) (int, any, error) {
	raw, err := m.rawResult(r.PathValue("id"))
	return http.StatusOK, verbatim(raw), err
}

func jobChange(status string, change func(reference string) (id string, err error)) handlerFunc {
	return func(r *http.Request) (int, any, error) {
		id, err := change(r.PathValue("id"))
		return http.StatusOK, protocol.StatusResponse{Status: status, JobID: id}, err
	}
}

func (m *Master) postResult(r *http.Request) (int, any, error) {
	body, err := readBody(r)
	if err != nil {
		m.recordRejected(protocol.JobResult{}, err)
		return 0, nil, err
	}
	response, err := m.acceptResult(body)
	return http.StatusOK, response, err
}

// verbatim is JSON that is sent unchanged.
type verbatim []byte

func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, reject(http.StatusRequestEntityTooLarge, "body larger than %d bytes", maxBody)
	}
	if err != nil {
		return nil, reject(http.StatusBadRequest, "reading the body: %v", err)
	}
	return body, nil
}

func (m *Master) handle(h handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		code, body, err := h(r)
		if err == nil {
			err = m.respond(w, code, body)
		}
		if err == nil {
			return
		}
		code = http.StatusInternalServerError
		if se, ok := errors.AsType[*statusError](err); ok {
			code = se.code
		} else {
			m.log.Error("request failed", zap.String("call", r.Method+" "+r.URL.Path), zap.Error(err))
		}
		http.Error(w, err.Error(), code)
	})
}

// respond sends a response. If it returns an error, nothing has been sent yet; write errors
// are ignored.
func (m *Master) respond(w http.ResponseWriter, code int, body any) error {
	data, ok := body.(verbatim)
	if !ok && body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encoding the response: %w", err)
		}
		data = append(encoded, '\n')
	}
	if body != nil {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(code)
	_, _ = w.Write(data)
	return nil
}

// authorize requires a bearer key for all requests except /health. It responds with 401 if
// there is none and 403 if it is wrong.
func (m *Master) authorize(next http.Handler) http.Handler {
	if len(m.cfg.APIKeys) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			next.ServeHTTP(w, r)
			return
		}
		scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		code, text := 0, ""
		switch key = strings.TrimSpace(key); {
		case !strings.EqualFold(scheme, "Bearer") || key == "":
			code, text = http.StatusUnauthorized, "API key required: Authorization: Bearer KEY"
			w.Header().Set("WWW-Authenticate", "Bearer")
		case !m.validKey(key):
			code, text = http.StatusForbidden, "invalid API key"
		default:
			next.ServeHTTP(w, r)
			return
		}
		m.record(Event{Kind: Unauthorized, Code: code, Detail: r.Method + " " + r.URL.Path})
		http.Error(w, text, code)
	})
}

// validKey compares the key in constant time.
func (m *Master) validKey(key string) bool {
	got := sha256.Sum256([]byte(key))
	valid := 0
	for _, k := range m.cfg.APIKeys {
		want := sha256.Sum256([]byte(k))
		valid |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	return valid == 1
}
