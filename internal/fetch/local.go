package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Link is Fetch for an HLS playlist on this machine: it links the segments into r.Dir, so that
// FFmpeg reads exactly the files that were checked, under names that it accepts. The symbolic
// links of path must have been resolved; r.URL is not used.
func (f *Fetcher) Link(ctx context.Context, path string, r Request) (Result, error) {
	j := &fetching{Fetcher: f, request: r, root: filepath.Dir(path), total: -1}
	t := &transfer{fetching: j, label: "input " + strconv.Quote(path), url: fileURL(path), limit: maxPlaylist}
	var result Result
	err := t.run(ctx)
	if err == nil {
		result, err = j.fetchPlaylist(ctx, t, result)
	}
	if err != nil {
		j.removeFiles()
		return Result{}, err
	}
	result.Bytes, result.Notes = j.bytes, j.notes
	return result, nil
}

func fileURL(path string) *url.URL { return &url.URL{Scheme: "file", Path: path} }

// resolveFile returns the file that a local playlist refers to.
func (j *fetching) resolveFile(base *url.URL, uri string) (*url.URL, error) {
	path, err := reach.Below(j.root, filepath.Dir(base.Path), uri)
	var invalid *reach.Invalid
	switch {
	case errors.As(err, &invalid):
		return nil, &problem{protocol.ReasonUserError, err.Error()}
	case err != nil:
		return nil, &problem{protocol.ReasonInputError, fmt.Sprintf("%.200q: %v", uri, err)}
	}
	return fileURL(path), nil
}

// link is run for a local file: it reads the file into memory or links to it.
func (t *transfer) link() error {
	t.final = t.url
	f, err := reach.OpenRegular(t.url.Path)
	if err != nil {
		return t.unreadable(err)
	}
	defer f.Close()
	if t.path == "" {
		if t.data, err = io.ReadAll(io.LimitReader(f, t.limit+1)); err != nil {
			return t.unreadable(err)
		}
		if int64(len(t.data)) > t.limit {
			return failure(protocol.ReasonInputError, "%s: larger than %d bytes", t.label, t.limit)
		}
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return t.unreadable(err)
	}
	if err := os.Symlink(t.url.Path, t.path); err != nil {
		return diskFailure(t.label, fmt.Errorf("%w: %w", errDisk, withoutPath(err)))
	}
	t.files = append(t.files, t.path)
	t.n = info.Size()
	t.bytes += t.n
	return nil
}

func (t *transfer) unreadable(err error) *job.Failure {
	return failure(protocol.ReasonInputError, "%s: %v", t.label, withoutPath(err))
}
