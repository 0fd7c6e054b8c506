package proc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
)

// procTree makes a directory a /proc with one process, 4242.
func procTree(t testing.TB, dir string, files map[string]string) procfs.FS {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, "4242"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, "4242", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return openFS(t, dir)
}

func openFS(t testing.TB, dir string) procfs.FS {
	t.Helper()
	fs, err := procfs.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// after is what follows the command in /proc/PID/stat: state, parent and the rest, with
// 150 and 50 ticks of CPU time and a start at tick 987654321.
const after = " S 17 4242 4242 0 -1 4194304 100 0 0 0 150 50 7 7 20 5 1 0 987654321 1000 200 18446744073709551615" +
	" 1 1 140728 0 0 0 0 4096 0 1 0 0 17 3 0 0 0 0 0 0 0 0 0 0 0 0 0\n"

func TestReadStat(t *testing.T) {
	want := Stat{State: 'S', Parent: 17, Threads: 1, CPU: 2 * time.Second, StartTicks: 987654321}
	for name, command := range map[string]string{
		"plain": "(sleep)", "parentheses": "(a) b (c) R)", "empty": "()", "newline": "(a\nb)", "not UTF-8": "(\xff\xfe)", "a state in it": "(x) Z 1)",
	} {
		if got, err := readStat(procTree(t, t.TempDir(), map[string]string{"stat": "4242 " + command + after}), 4242); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
	}
	for name, content := range map[string]string{
		"empty":                     "",
		"no command":                "4242 sleep" + after,
		"command without an end":    "1 (x",
		"parentheses reversed":      "1 )x(" + after,
		"ends after the command":    "1 (x)",
		"ends after the state":      "1 (x) S",
		"start is no number":        "1 (x)" + strings.Replace(after, "987654321", "x", 1),
		"CPU time below 0":          "1 (x)" + strings.Replace(after, " 150 ", " -150 ", 1),
		"CPU time out of any range": "1 (x)" + strings.Replace(after, " 150 ", " 18446744073709551615 ", 1),
		"state of two letters":      "1 (x)" + strings.Replace(after, " S ", " SS ", 1),
	} {
		if got, err := readStat(procTree(t, t.TempDir(), map[string]string{"stat": content}), 4242); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
	if got, err := readStat(openFS(t, t.TempDir()), 4242); err == nil {
		t.Errorf("no such process: got %+v, want an error", got)
	}
}

func TestZombieHasEnded(t *testing.T) {
	for state, want := range map[byte]bool{'Z': true, 'X': true, 'R': false, 'S': false, 'D': false, 'T': false} {
		if got := (Stat{State: state}).Ended(); got != want {
			t.Errorf("state %c: ended is %t, want %t", state, got, want)
		}
	}
}

func TestResident(t *testing.T) {
	want := 42 * int64(os.Getpagesize())
	if got, err := resident(procTree(t, t.TempDir(), map[string]string{"statm": "1000 42 3 4 0 5 0\n"}), 4242); err != nil || got != want {
		t.Errorf("got %d, %v; want %d", got, err, want)
	}
	for _, content := range []string{"", "1000", "1000 x 3 4 0 5 0", "1 18446744073709551615 0 0 0 0 0"} {
		if got, err := resident(procTree(t, t.TempDir(), map[string]string{"statm": content}), 4242); err == nil {
			t.Errorf("%q: got %d, want an error", content, got)
		}
	}
}

func FuzzReadStat(f *testing.F) {
	dir := f.TempDir()
	fs := procTree(f, dir, nil)
	f.Add([]byte("4242 (a) b (c) R)" + after))
	f.Add([]byte("1 (x)"))
	f.Add([]byte(")00\xb300"))
	f.Add([]byte(")A 0 0 0 0 0 0 0 0 0 0 0 Ƀǈ 0 0 0 0 0 0 0"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(filepath.Join(dir, "4242", "stat"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := readStat(fs, 4242); err == nil && (s.State == 0 || s.CPU < 0) {
			t.Errorf("%q is read as %+v", raw, s)
		}
	})
}
