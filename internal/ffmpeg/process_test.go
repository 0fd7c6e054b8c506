package ffmpeg

import (
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"ffmpeg-agent/hardware/proc"
)

func TestFFmpegGetsNoKeysOfTheAgent(t *testing.T) {
	t.Setenv("MASTER_API_KEY", "verysecret")
	t.Setenv("FFMPEG_AGENT_MASTER_API_KEY", "verysecret")
	t.Setenv("NVIDIA_TOKEN", "verysecret")
	t.Setenv("NVIDIA_VISIBLE_DEVICES", "all")
	t.Setenv("CUDA_VISIBLE_DEVICES", "1")
	// The empty element and the relative one are in the working directory.
	t.Setenv("PATH", "bin:"+os.Getenv("PATH"))
	t.Setenv("LD_LIBRARY_PATH", "/opt/x::lib:/opt/y:")
	t.Setenv("SSL_CERT_FILE", "certificates.pem")
	dir := t.TempDir()
	var written string
	c := command("/bin/sh", dir, "-c", "env; pwd")
	c.Stdout = func(in io.Reader) {
		raw, _ := io.ReadAll(in)
		written = string(raw)
	}
	if exit, err := proc.Run(testContext(t), c); err != nil || !exit.OK() {
		t.Fatal(exit, err)
	}
	if strings.Contains(written, "PATH=bin") || strings.Contains(written, "SSL_CERT_FILE") {
		t.Errorf("a relative path in:\n%s", written)
	}
	if strings.Contains(written, "verysecret") {
		t.Errorf("a key in:\n%s", written)
	}
	lines := strings.Split(written, "\n")
	for _, want := range []string{"HOME=" + dir, "TMPDIR=" + dir, "LANG=C", "NVIDIA_VISIBLE_DEVICES=all", "CUDA_VISIBLE_DEVICES=1", "LD_LIBRARY_PATH=/opt/x:/opt/y", dir} {
		if !slices.Contains(lines, want) {
			t.Errorf("%s is missing from:\n%s", want, written)
		}
	}
}
