package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"ffmpeg-agent/messages/job"
)

const (
	pathStatus  = "/status"      // GET → messages.Status
	pathDrain   = "/drain"       // POST → 202
	pathUndo    = "/drain"       // DELETE → 202
	pathReload  = "/reload"      // POST → 202
	pathRecords = "/records"     // GET ?job=ID → recordsResponse
	pathRecent  = "/jobs"        // GET → []job.Summary
	pathCrash   = "/debug/crash" // POST crashRequest → 202
	pathHang    = "/debug/hang"  // POST hangRequest → 202
	queryJob    = "job"          // query parameter of pathRecords

	maxRequest  = 16 << 10 // bytes of a request's body
	maxResponse = 64 << 20 // bytes of a response's body
	maxPath     = 107      // bytes of a unix socket's path
	maxRequests = 32       // concurrent requests
)

type crashRequest struct {
	Actor string `json:"actor"` // path in the tree
}

type hangRequest struct {
	Actor string        `json:"actor"` // path in the tree
	For   time.Duration `json:"for_ns"`
}

type errorResponse struct {
	Error string `json:"error"`
}

type recordsResponse struct {
	Records []record `json:"records"`
}

// record is a journal record that keeps the exact bytes of its result. As a
// json.RawMessage the result would be reformatted.
type record struct {
	job.Record
	Result []byte `json:"result,omitempty"`
}

// encodeRecord returns r without the job's parameters.
func encodeRecord(r job.Record) record {
	encoded := record{Record: r, Result: r.Result}
	encoded.Record.Result = nil
	encoded.Lease.Job.Parameters = nil
	return encoded
}

func (r record) decode() job.Record {
	decoded := r.Record
	decoded.Result = json.RawMessage(r.Result)
	return decoded
}

func checkPath(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q is not an absolute path", path)
	case len(path) > maxPath:
		return fmt.Errorf("the path has %d bytes, more than the %d of a unix socket", len(path), maxPath)
	}
	return nil
}

var errMissingActor = errors.New("missing actor path, such as agent/heartbeat")
