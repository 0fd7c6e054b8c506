//go:build attack

package attack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/messages/protocol"
)

// parameterAttacks are jobs whose parameters are to become options or paths.
var parameterAttacks = []attack{{
	name: "an option as a value", threat: "T1",
	wants: "to have FFmpeg write a file of the job's choice",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		target := filepath.Join(b.dir, "written")
		for parameter, value := range map[string]string{
			"preset": "fast -y " + target, "bitrate": "2000k -f mp4 " + target, "codec": "libx264 -vf movie=/etc/passwd",
			"resolution": "64x64,movie=/etc/passwd", "audio_codec": "aac -map 0 " + target, "input": "concat:/etc/passwd|/etc/hosts",
		} {
			p := small()
			p[parameter] = value
			if result, _ := b.run(p); result.Status == protocol.StatusCompleted {
				got += fmt.Sprintf("%s=%q completed; ", parameter, value)
			}
		}
		if _, err := os.Lstat(target); err == nil {
			got += "the file was written"
		}
		b.wantAlive()
		return got
	},
}, {
	name: "an output outside of the roots", threat: "T1",
	wants: "to overwrite a file of the agent's",
	run: func(t *testing.T) (got string) {
		b := newBed(t)
		link := filepath.Join(b.files, "link")
		if err := os.Symlink("/etc", link); err != nil {
			t.Fatal(err)
		}
		for _, output := range []string{"/etc/cron.d/job.mp4", b.files + "/../../etc/job.mp4", link + "/job.mp4", "../../../etc/job.mp4"} {
			p := maps.Clone(small())
			p["output"] = output
			b.wantFailure(protocol.ReasonUserError, p)
		}
		for _, path := range []string{"/etc/cron.d/job.mp4", "/etc/job.mp4"} {
			if _, err := os.Lstat(path); err == nil {
				got += path + " was written; "
			}
		}
		return got
	},
}, {
	name: "1,300 hostile jobs", threat: "T1",
	wants: "an option or a filter of the job's choice",
	run: func(t *testing.T) (got string) {
		const word = "INJECTED"
		b := prepareBed(t)
		record := filepath.Join(b.home, "record")
		b.compile("ffmpeg", "testdata/recording.c", "-DRECORD="+quoted(record), "-DWORD="+quoted(word))
		ffmpeg := filepath.Join(b.home, "ffmpeg")
		// Without the sandbox, which would keep the record from being written.
		b.start(os.Geteuid(), "FFMPEG_AGENT_HARDWARE_FFMPEG="+ffmpeg, "FFMPEG_AGENT_JOBS_SANDBOX=off", "FFMPEG_AGENT_JOBS_MAX_CONCURRENT=4",
			"FFMPEG_AGENT_JOBS_INPUT_PROTOCOLS=file,http,https,rtmp,rtmps,srt,tcp,udp")
		var jobs []protocol.Job
		for _, name := range hostileParameters {
			for _, value := range hostileValues(word, name) {
				p := maps.Clone(small())
				set(p, name, value)
				jobs = append(jobs, b.submit(p))
			}
		}
		for _, job := range jobs {
			b.await(job)
		}
		raw, err := os.ReadFile(record)
		must(t, err)
		encodes := 0
		for line := range strings.Lines(string(raw)) {
			if strings.HasPrefix(line, "encode") {
				encodes++
			}
			for i, fields := 1, strings.Split(strings.TrimSpace(line), "\t"); i+1 < len(fields); i += 2 {
				got += fmt.Sprintf("%q %q; ", fields[i], fields[i+1])
			}
		}
		t.Logf("%d jobs with %d encodes", len(jobs), encodes) // most are refused, the others run with a note
		if len(jobs) < 1300 || encodes < 100 {
			t.Errorf("%d jobs with %d encodes, want 1300 with 100", len(jobs), encodes)
		}
		// The record shows what is in the arguments.
		if out, err := exec.Command(ffmpeg, "-"+word, "x").CombinedOutput(); err == nil {
			t.Errorf("FFmpeg accepts the option: %s", out)
		}
		if more, err := os.ReadFile(record); err != nil || len(more) == len(raw) {
			t.Errorf("an option is not recorded, so the attack proves nothing: %v", err)
		}
		return got
	},
}, {
	name: "paths that change", threat: "T1",
	wants: "to have a checked path lead elsewhere when it is opened",
	run: func(t *testing.T) (got string) {
		b := prepareBed(t)
		b.start(os.Geteuid(), "FFMPEG_AGENT_JOBS_INPUT_ROOTS="+b.files)
		b.wantAlive()
		victim, err := os.MkdirTemp("/var/tmp", "attack-") // beside the roots, and the temporary folder
		must(t, err)
		t.Cleanup(func() { os.RemoveAll(victim) })
		must(t, os.Chmod(victim, 0o755))
		here, link := filepath.Join(b.files, "here"), filepath.Join(b.files, "link")
		must(t, os.Mkdir(here, 0o755))
		must(t, os.Symlink(victim, link))
		must(t, os.Rename(b.video("in.mp4"), filepath.Join(here, "in.mp4")))
		content, err := os.ReadFile(b.videoOf("128x128", "theirs.mp4"))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(victim, "in.mp4"), content, 0o644))
		ctx, cancel := context.WithCancel(t.Context())
		swapped := make(chan int)
		go func() {
			n := 0
			for ; ctx.Err() == nil; n++ {
				if err := unix.Renameat2(unix.AT_FDCWD, here, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
					break
				}
			}
			swapped <- n
		}()
		completed := 0
		for i := range 60 {
			p := maps.Clone(small())
			if i%2 == 0 {
				p["output"] = filepath.Join(here, fmt.Sprintf("%d.mp4", i))
			} else {
				p = map[string]any{"input": filepath.Join(here, "in.mp4"), "preset": "ultrafast"}
			}
			result, raw := b.run(p)
			if result.Status == protocol.StatusCompleted {
				completed++
			}
			if strings.Contains(raw, "128x128") {
				got += "an input; "
			}
		}
		names := func() (names []string) {
			entries, err := os.ReadDir(victim)
			must(t, err)
			for _, e := range entries {
				if e.Name() != "in.mp4" {
					names = append(names, e.Name())
				}
			}
			return names
		}
		if written := names(); len(written) > 0 {
			got += fmt.Sprintf("%d files: %v", len(written), written)
		}
		// A program that checks a path and then opens it is led elsewhere.
		escaped := false
		for i := 0; i < 100_000 && !escaped; i++ {
			path := filepath.Join(here, "control")
			if info, err := os.Lstat(here); err == nil && info.IsDir() {
				_ = os.WriteFile(path, nil, 0o644)
				escaped = slices.Contains(names(), "control")
			}
		}
		cancel()
		n := <-swapped
		t.Logf("%d swaps, %d of 60 jobs completed", n, completed)
		if !escaped || n < 10_000 {
			t.Errorf("%d swaps, which led a check and an open apart: %t, so the attack proves nothing", n, escaped)
		}
		return got
	},
}, {
	name: "jobs whose names collide", threat: "T3",
	wants: "the workspace of another job",
	run: func(t *testing.T) (got string) {
		b := prepareBed(t)
		first, second := collidingIDs()
		p := map[string]any{"resolution": "320x240", "duration": 20, "preset": "medium", "output": filepath.Join(b.files, "first.mp4")}
		q := maps.Clone(p)
		q["output"] = filepath.Join(b.files, "second.mp4")
		var mu sync.Mutex
		results := map[string]string{}
		hostile, _ := hostileJobs(protocol.Job{ID: first, Parameters: p}, protocol.Job{ID: second, Parameters: q})
		b.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/results" {
				body, _ := io.ReadAll(r.Body)
				r.Body = io.NopCloser(bytes.NewReader(body))
				var result protocol.JobResult
				_ = json.Unmarshal(body, &result)
				mu.Lock()
				results[result.JobID] = string(result.Status) + " " + result.Error
				mu.Unlock()
			}
			return hostile(w, r)
		})
		b.start(os.Geteuid(), "FFMPEG_AGENT_JOBS_MAX_CONCURRENT=2")
		most := 0
		waitFor(t, "end of both jobs", func() bool {
			workspaces, _ := os.ReadDir(filepath.Join(b.dir, "work"))
			most = max(most, len(workspaces))
			mu.Lock()
			defer mu.Unlock()
			return len(results) == 2
		})
		if most != 2 {
			t.Errorf("%d workspaces at once, want 2, so the attack proves nothing", most)
		}
		for id, result := range results {
			if !strings.HasPrefix(result, "completed") {
				got += id + ": " + result + "; "
			}
		}
		return got
	},
}}

// hostileParameters are the names of parameters whose values become arguments or paths; a dot
// leads into an object or the first element of a list.
var hostileParameters = []string{
	"input", "output", "output_mode", "rtmp_url", "stream_key", "codec", "encoder", "bitrate", "preset", "crf", "resolution", "resolution_width", "fps", "duration", "hwaccel",
	"audio_codec", "audio_bitrate", "quality", "input_format", "input_mode", "engine", "scenario", "unknown", "outputs.codec", "outputs.output", "outputs.preset", "resource_limits.timeout_sec",
}

// hostileValues are values that would become an option, a filter or a file of their own if a
// parameter were passed on as it is.
func hostileValues(word, name string) (values []any) {
	texts := []string{
		"-%", " -%", "--%", "-y -% x", "x -%", "x\t-%", "x\n-%", "x\r-%", "x\x00-%", "x'-%", `x" -%`, "x`-%`", "x;-%", "x|-%", "x$(%)", "x\\ -%",
		"@%", "movie=%", "x,movie=%", "x[a];movie=%[b]", "x:filename=%", "x=%", "null,metadata=print:file=%", "sendcmd=f=%", "lavfi:movie=%", "concat:%|%", "file:%", "pipe:%", "data:,%",
		"subfile,,start,0,end,1,,:%", "tee:%", "crypto:%", "cache:%", "async:%", "fd:%", "%d%%0999999d-%", "x?%=-%", "libx264 -%", "libx264:%", "fast:%", "2000k -%", "64x64 -%", "64x64,%", "23 -%", "1/-%",
		"1e9999%", "NaN%", "\u2028-%", "\u00ad-%", "\ufeff-%",
	}
	for _, text := range texts {
		values = append(values, strings.ReplaceAll(text, "%", word))
	}
	values = append(values, []any{"-" + word}, map[string]any{"-" + word: "-" + word}, []any{[]any{"-" + word}}, -1, 1e300)
	return values
}

// set sets a parameter by its name in hostileParameters.
func set(p map[string]any, name string, value any) {
	switch object, field, nested := strings.Cut(name, "."); {
	case !nested:
		p[name] = value
	case object == "outputs":
		p[object] = []any{map[string]any{field: value}}
	default:
		p[object] = map[string]any{field: value}
	}
}

// collidingIDs are two ids whose hashes have the same first 32 bits.
func collidingIDs() (first, second string) {
	seen := map[[4]byte]string{}
	for i := 0; ; i++ {
		id := fmt.Sprintf("%s/%d", strings.Repeat("j", 60), i)
		sum := sha256.Sum256([]byte(id))
		key := [4]byte(sum[:4])
		if other, found := seen[key]; found {
			return other, id
		}
		seen[key] = id
	}
}
