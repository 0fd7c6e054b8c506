package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The demo's page is a whole one; what keeps it from being written is said.
func TestDemoWritesThePageOfAJob(t *testing.T) {
	_, book, _ := kept(t)
	w := &worker{journal: book}
	path := filepath.Join(t.TempDir(), "page.html")
	if err := w.writeReport(path, "job-a"); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(page), "<!DOCTYPE html>") || !strings.Contains(string(page), "Attempt 1") {
		t.Errorf("%v: %.200s", err, page)
	}
	if err := w.writeReport(filepath.Join(path, "none"), "job-a"); err == nil || !strings.Contains(err.Error(), "writing the report") {
		t.Errorf("a folder that is none: %v", err)
	}
	if err := w.writeReport(path, "job-b"); err == nil || !strings.Contains(err.Error(), "never came") {
		t.Errorf("a job that was not here: %v", err)
	}
}
