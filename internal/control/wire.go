package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"ffmpeg-agent/messages/job"
)

// The requests that there are.
const (
	pathStatus  = "/status"      // GET → messages.Status
	pathDrain   = "/drain"       // POST → 202
	pathRecords = "/records"     // GET ?job=ID → recordsAnswer
	pathCrash   = "/debug/crash" // POST crashRequest → 202
	pathHang    = "/debug/hang"  // POST hangRequest → 202
	queryJob    = "job"          // of pathRecords
	jsonType    = "application/json"
	maxRequest  = 16 << 10 // bytes of a request's body
	maxAnswer   = 64 << 20 // bytes of an answer's body
	maxPath     = 107      // bytes of a unix socket's path
	maxRequests = 32       // at one time
)

type crashRequest struct {
	Actor string `json:"actor"` // path in the tree
}

type hangRequest struct {
	Actor string        `json:"actor"` // path in the tree
	For   time.Duration `json:"for_ns"`
}

type refusal struct {
	Error string `json:"error"`
}

type recordsAnswer struct {
	Records []record `json:"records"`
}

// record is a journal record whose result stays what it is to the byte: as a JSON
// value inside another it would be written anew.
type record struct {
	job.Record
	Result []byte `json:"result,omitempty"`
}

// tell is what an operator is told of a record.
func tell(r job.Record) record {
	told := record{Record: r, Result: r.Result}
	told.Record.Result = nil
	told.Lease.Job.Parameters = nil
	return told
}

func (r record) untell() job.Record {
	told := r.Record
	told.Result = json.RawMessage(r.Result)
	return told
}

func checkPath(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q is not an absolute path", path)
	case len(path) > maxPath:
		return fmt.Errorf("the path has %d bytes, and a unix socket's may have %d: choose a shorter one", len(path), maxPath)
	}
	return nil
}

var errNotAnActor = errors.New("an actor's path is needed, such as agent/heartbeat")
