package devmaster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// stateVersion is the version of the state file's form.
const stateVersion = 1

// state is the state file. Jobs are in the order of their sequence numbers.
type state struct {
	Version int              `json:"version"`
	Nodes   []*protocol.Node `json:"nodes"`
	Jobs    []*record        `json:"jobs"`
}

// load reads the state file, if there is one, and proves that it and the
// folder of results can be written.
func (m *Master) load() error {
	if m.cfg.ResultsDir != "" {
		if err := os.MkdirAll(m.cfg.ResultsDir, 0o755); err != nil {
			return fmt.Errorf("making the folder of results: %w", err)
		}
	}
	if m.cfg.StateFile == "" {
		return nil
	}
	data, err := os.ReadFile(m.cfg.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		m.version++
		return m.flush()
	}
	if err != nil {
		return fmt.Errorf("reading state: %w", err)
	}
	if err := m.restore(data); err != nil {
		return fmt.Errorf("state file %s is damaged (move it away to start with an empty state): %w", m.cfg.StateFile, err)
	}
	m.version++
	return m.flush()
}

// restore takes over a stored state. Nodes that were not offline get the time
// a silent node gets: the master was away, not they.
func (m *Master) restore(data []byte) error {
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	if s.Version != stateVersion {
		return fmt.Errorf("version %d, where %d was expected", s.Version, stateVersion)
	}
	for i, r := range s.Jobs {
		switch {
		case r == nil || r.Job.ID == "" || m.byID[r.Job.ID] != nil:
			return fmt.Errorf("job %d has no id of its own", i+1)
		case r.Job.SequenceNumber != int64(i)+1:
			return fmt.Errorf("job %d has sequence number %d", i+1, r.Job.SequenceNumber)
		}
		m.add(r)
	}
	now := time.Now()
	for i, n := range s.Nodes {
		if n == nil || n.ID == "" || m.nodes[n.ID] != nil {
			return fmt.Errorf("node %d has no id of its own", i+1)
		}
		if n.Status != nodeOffline {
			n.LastHeartbeat = now
		}
		m.nodes[n.ID] = n
	}
	return nil
}

// flush puts every change made before the call on disk. Concurrent callers
// share one write. What failed to be written is tried again by the next call,
// and until then no answer that depends on it is given.
func (m *Master) flush() error {
	if m.cfg.StateFile == "" && m.cfg.ResultsDir == "" {
		return nil
	}
	m.storeMu.Lock()
	defer m.storeMu.Unlock()
	version, files, data, err := m.snapshot()
	if err != nil || version == m.stored {
		return err
	}
	for _, f := range files {
		if err := writeFile(filepath.Join(m.cfg.ResultsDir, f.name), f.data); err != nil {
			return fmt.Errorf("storing result: %w", err)
		}
	}
	if m.cfg.StateFile != "" {
		if err := writeFile(m.cfg.StateFile, data); err != nil {
			return fmt.Errorf("storing state: %w", err)
		}
	}
	m.stored = version
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unstored = m.unstored[len(files):]
	return nil
}

// snapshot returns what is to be written; nothing when all is on disk already.
func (m *Master) snapshot() (version uint64, files []resultFile, data []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.version == m.stored || m.cfg.StateFile == "" {
		return m.version, m.unstored, nil, nil
	}
	data, err = json.Marshal(state{Version: stateVersion, Nodes: m.sortedNodes(), Jobs: m.jobs})
	if err != nil {
		return 0, nil, nil, fmt.Errorf("encoding state: %w", err)
	}
	return m.version, m.unstored, data, nil
}

// writeFile replaces a file atomically and durably: after a crash at any
// moment the file is the old one or the new one, whole.
func writeFile(path string, data []byte) error {
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename inside a folder durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
