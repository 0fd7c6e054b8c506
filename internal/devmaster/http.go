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

// maxBody bounds the body of a request, in bytes.
const maxBody = 8 << 20

// refusal is an answer other than 2xx.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return r.text }

func refuse(code int, format string, args ...any) error {
	return &refusal{code: code, text: fmt.Sprintf(format, args...)}
}

// call answers a request with a status and a body to be sent as JSON, or with
// an error; a refusal decides the status itself.
type call func(r *http.Request) (code int, body any, err error)

// Handler serves the whole protocol.
func (m *Master) Handler() http.Handler {
	mux := http.NewServeMux()
	route := func(pattern string, c call) { mux.Handle(pattern, m.answer(c)) }
	// A change is on disk before anyone hears of it, and so is a change that a
	// refusal rests on: "409, reported already" must not outlive the report.
	change := func(pattern string, c call) {
		route(pattern, func(r *http.Request) (int, any, error) {
			code, body, err := c(r)
			if stored := m.flush(); stored != nil {
				return 0, nil, stored
			}
			return code, body, err
		})
	}

	change("POST /nodes/register", m.postRegister)
	route("POST /nodes/{id}/heartbeat", m.postHeartbeat)
	route("GET /nodes", m.getNodes)
	route("GET /nodes/{id}", m.getNode)
	change("DELETE /nodes/{id}", m.deleteNode)

	change("GET /jobs/next", m.getNext)
	change("POST /jobs", m.postJob)
	route("GET /jobs", m.getJobs)
	route("GET /jobs/{id}", m.getJob)
	route("GET /jobs/{id}/result", m.getResult)
	change("POST /jobs/{id}/cancel", jobChange("canceled", m.cancelJob))
	change("POST /jobs/{id}/pause", jobChange("paused", m.pauseJob))
	change("POST /jobs/{id}/resume", jobChange("resumed", m.resumeJob))
	change("POST /results", m.postResult)

	route("GET /health", func(*http.Request) (int, any, error) {
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
	nodes := m.Nodes()
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
	if r.Method != http.MethodGet { // the pattern lets HEAD through, which must assign nothing
		return 0, nil, refuse(http.StatusMethodNotAllowed, "method not allowed")
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

func jobChange(status string, change func(value string) (id string, err error)) call {
	return func(r *http.Request) (int, any, error) {
		id, err := change(r.PathValue("id"))
		return http.StatusOK, protocol.StatusResponse{Status: status, JobID: id}, err
	}
}

func (m *Master) postResult(r *http.Request) (int, any, error) {
	body, err := readBody(r)
	if err != nil {
		m.noteRefused(protocol.JobResult{}, err)
		return 0, nil, err
	}
	answer, err := m.takeResult(body)
	return http.StatusOK, answer, err
}

// verbatim is JSON to be sent byte for byte.
type verbatim []byte

func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", maxBody)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "reading the body: %v", err)
	}
	return body, nil
}

// answer makes an HTTP handler of a call.
func (m *Master) answer(c call) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		code, body, err := c(r)
		if err == nil {
			err = m.write(w, code, body)
		}
		if err == nil {
			return
		}
		code = http.StatusInternalServerError
		if re, ok := errors.AsType[*refusal](err); ok {
			code = re.code
		} else {
			m.log.Error("request failed", zap.String("call", r.Method+" "+r.URL.Path), zap.Error(err))
		}
		http.Error(w, err.Error(), code)
	})
}

// write sends a body; an error means that nothing has been sent yet. A client
// that goes away while it is being sent is no concern of the master's.
func (m *Master) write(w http.ResponseWriter, code int, body any) error {
	data, ok := body.(verbatim)
	if !ok && body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
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

// authorize demands a bearer key on everything but /health: 401 without one,
// 403 with a wrong one.
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
			code, text = http.StatusUnauthorized, "an API key is required: Authorization: Bearer KEY"
			w.Header().Set("WWW-Authenticate", "Bearer")
		case !m.knowsKey(key):
			code, text = http.StatusForbidden, "the API key is not accepted"
		default:
			next.ServeHTTP(w, r)
			return
		}
		m.note(Event{Kind: Unauthorized, Code: code, Detail: r.Method + " " + r.URL.Path})
		http.Error(w, text, code)
	})
}

// knowsKey compares in a time that tells nothing about the keys.
func (m *Master) knowsKey(key string) bool {
	given := sha256.Sum256([]byte(key))
	known := 0
	for _, k := range m.cfg.APIKeys {
		want := sha256.Sum256([]byte(k))
		known |= subtle.ConstantTimeCompare(given[:], want[:])
	}
	return known == 1
}
