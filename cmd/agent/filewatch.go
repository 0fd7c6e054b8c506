package main

import (
	"crypto/sha256"
	"io"
	"maps"
	"os"
	"syscall"
)

// fileWatch finds out whether files have changed by comparing their content: that holds for
// files that are written in place, renamed over, or swapped by a symbolic link anywhere in
// their path, on every file system, and sees no change where only a time stamp is new.
type fileWatch struct {
	loaded fingerprints // of the content that was last read
	last   fingerprints // of the last call of changed
}

// fingerprints are the contents of files, by path; zero for what cannot be read.
type fingerprints map[string][sha256.Size]byte

// changed reports whether a file differs from what was loaded and no file has changed since
// the last call, so that files that are being written are left alone.
func (w *fileWatch) changed() bool {
	now := w.look()
	settled := maps.Equal(now, w.last)
	w.last = now
	return settled && !maps.Equal(now, w.loaded)
}

// look reads the files.
func (w *fileWatch) look() fingerprints {
	now := fingerprints{}
	for path := range w.loaded {
		now[path] = fingerprint(path)
	}
	return now
}

// reset watches these files, which have just been read, and no others.
func (w *fileWatch) reset(paths []string) {
	w.loaded = fingerprints{}
	for _, path := range paths {
		w.loaded[path] = fingerprint(path)
	}
}

// add watches further files, which could not be read.
func (w *fileWatch) add(files map[string]string) {
	for _, path := range files {
		if _, known := w.loaded[path]; !known {
			w.loaded[path] = fingerprint(path)
		}
	}
}

// seen takes these contents as those that were read, as far as the files are watched.
func (w *fileWatch) seen(contents fingerprints) {
	for path, content := range contents {
		if _, watched := w.loaded[path]; watched {
			w.loaded[path] = content
		}
	}
}

// maxWatched is more than any of the files may have, in bytes.
const maxWatched = 4 << 20

func fingerprint(path string) (sum [sha256.Size]byte) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO has no content
	if err != nil {
		return sum
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, io.LimitReader(f, maxWatched)); err != nil {
		return sum
	}
	hash.Sum(sum[:0])
	return sum
}
