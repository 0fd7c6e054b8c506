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

// stateVersion is the version of the state file's format.
const stateVersion = 1

// state is the content of the state file. Jobs are ordered by sequence number.
type state struct {
	Version int              `json:"version"`
	Nodes   []*protocol.Node `json:"nodes"`
	Jobs    []*jobRecord     `json:"jobs"`
}

// load reads the state file, if it exists, creates ResultsDir, and checks that the state file
// is writable.
func (m *Master) load() error {
	if m.cfg.ResultsDir != "" {
		if err := os.MkdirAll(m.cfg.ResultsDir, 0o755); err != nil {
			return fmt.Errorf("creating the results directory: %w", err)
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
		return fmt.Errorf("state file %s is damaged (move it away to start with empty state): %w", m.cfg.StateFile, err)
	}
	m.version++
	return m.flush()
}

// restore restores the content of a state file. For nodes that were not offline, the time
// without heartbeats starts at 0, because it was the master that was down.
func (m *Master) restore(data []byte) error {
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	if s.Version != stateVersion {
		return fmt.Errorf("version %d, want %d", s.Version, stateVersion)
	}
	for i, r := range s.Jobs {
		switch {
		case r == nil || r.Job.ID == "" || m.byID[r.Job.ID] != nil:
			return fmt.Errorf("job %d has no unique ID", i+1)
		case r.Job.SequenceNumber != int64(i)+1:
			return fmt.Errorf("job %d has sequence number %d", i+1, r.Job.SequenceNumber)
		}
		m.add(r)
	}
	now := time.Now()
	for i, n := range s.Nodes {
		if n == nil || n.ID == "" || m.nodes[n.ID] != nil {
			return fmt.Errorf("node %d has no unique ID", i+1)
		}
		if n.Status != nodeOffline {
			n.LastHeartbeat = now
		}
		m.nodes[n.ID] = n
		if m.cfg.Habits.UnreadableAfterRestart {
			m.unreadable[n.ID] = true
		}
	}
	return nil
}

// flush stores all changes made before the call. Concurrent calls share a write. If it fails,
// the next call tries again.
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

// snapshot returns the current version and the files to write for it.
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

// writeFile replaces a file atomically and durably: after a crash the file has either the old
// or the new content.
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

// syncDir makes a rename in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
