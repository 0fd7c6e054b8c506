package ffmpeg

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/protocol"
)

// hostileFiles is a world with a root for inputs and one for outputs, a place
// outside of both, and links between them.
func hostileFiles(t *testing.T) (dir string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"in", "out/sub", "out-side", "tmp", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"in/a.mp4", "out-side/secret.mp4", "out/there.mp4", "in/b,c:d.mp4"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("precious"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"in/link.mp4": "../out-side/secret.mp4", "in/good.mp4": "a.mp4", "out/away": "../out-side", "out/here": "sub",
		"out/end.mp4": "../out-side/secret.mp4", "out/nowhere": "../out-side/not-yet", "out/loop": "loop",
		"out/linked.mp4": "../in/a.mp4",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "in/a.mp4"), filepath.Join(dir, "out/same.mp4")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func resolverIn(dir string) pathResolver {
	return pathResolver{
		settings: Settings{
			DataDir: filepath.Join(dir, "data"), GenerateInput: true,
			Inputs:      &reach.Policy{Protocols: []string{"file", "http", "rtmp"}, Roots: []string{filepath.Join(dir, "in")}},
			OutputRoots: []string{filepath.Join(dir, "out")},
		},
		workspace: filepath.Join(dir, "data/work/job"), name: "job",
	}
}

func TestWhereInputsMayLie(t *testing.T) {
	dir := hostileFiles(t)
	for input, want := range map[string]string{
		"/in/a.mp4":                             "file:/in/a.mp4",
		"/in/good.mp4":                          "file:/in/a.mp4",
		"/in/../in/./a.mp4":                     "file:/in/a.mp4",
		"/in/b,c:d.mp4":                         "file:/in/b,c:d.mp4",
		"file:DIR/in/a.mp4":                     "file:/in/a.mp4",
		"file://DIR/in/a.mp4":                   "file:/in/a.mp4",
		"/in/link.mp4":                          "user_error",
		"/in/../out-side/secret":                "user_error",
		"/out-side/secret.mp4":                  "user_error",
		"/out-side/missing.mp4":                 "user_error",
		"/in":                                   "user_error",
		"/in/missing.mp4":                       "input_error",
		"=missing.mp4":                          "user_error", // relative: the workspace is no input root
		"=concat:/etc/passwd|/etc/shadow":       "user_error",
		"=subfile,,start,0,end,9,,:/etc/passwd": "user_error",
		"=data:text/plain,hello":                "user_error",
		"=pipe:0":                               "user_error",
		"=fd:0":                                 "user_error",
		"=crypto:/etc/passwd":                   "user_error",
		"=cache:http://h/x":                     "user_error",
		"=async:file:/etc/passwd":               "user_error",
		"=tcp://127.0.0.1:22":                   "user_error",
		"=https://h/x":                          "user_error", // not one of this node's
		"=http:/etc/passwd":                     "user_error",
		"=http://":                              "user_error",
		"=http://h/It's%20me.mp4?a b":           "http://h/It's%20me.mp4?a%20b",
		"=http://u:secret%@h/x":                 "user_error",
		"=rtmp://u:secret@h/live x=y":           "rtmp://u:secret@h/live%20x=y",
		"=rtmp://h/live?k=v x=y":                "rtmp://h/live?k=v%20x=y",
		"=rtmp://h/live?k='v":                   "user_error",
		"=HTTP://h/x.mp4":                       "http://h/x.mp4",
		"=rtmp://h/live/key":                    "rtmp://h/live/key",
		"=file,,:DIR/in/a.mp4":                  "user_error",
	} {
		t.Run(input, func(t *testing.T) {
			given := strings.ReplaceAll(strings.TrimPrefix(input, "="), "DIR", dir)
			if strings.HasPrefix(input, "/") {
				given = dir + given
			}
			s := resolverIn(dir)
			pl, bad := s.resolve(&plan{input: given, renditions: []rendition{{extension: ".mp4"}}})
			got := strings.ReplaceAll(pl.input.url, dir, "")
			if pl.reads.URL != nil {
				got = pl.reads.URL.String()
			}
			if bad != nil {
				got = string(bad.Reason)
			}
			if len(s.problems) > 0 {
				got = string(protocol.ReasonUserError)
				if strings.Contains(s.problems[0], "secret@") {
					t.Errorf("a password in: %s", s.problems[0])
				}
			}
			if got != want {
				t.Errorf("%s: got %s %v %v, want %s", given, got, s.problems, bad, want)
			}
		})
	}
}

func TestInputsAreHeldToTheirProtocol(t *testing.T) {
	all := readers(selfContained)
	for name, c := range map[string]struct {
		in                 source
		protocols, formats string
	}{
		"file":            {all.file("/in/a.mp4", ""), "file", selfContained},
		"local DASH":      {all.localPlaylist("/in/a.mpd", reach.DASH), "file", "dash," + all.segments()},
		"local HLS":       {all.localPlaylist("/in/a.m3u8", reach.HLS), "file,crypto", "hls," + all.segments()},
		"http":            {all.relayed("http://127.0.0.1:1/x", ""), "http,tcp", selfContained},
		"DASH over http":  {all.proxiedPlaylist("http://h/x.mpd", reach.DASH, "http://127.0.0.1:1"), "http,https,httpproxy,tls,tcp", "dash," + all.segments()},
		"HLS over http":   {all.proxiedPlaylist("http://h/x", reach.HLS, "http://127.0.0.1:1"), "http,https,httpproxy,tls,tcp,crypto", "hls," + all.segments()},
		"rtmps":           {all.stream("rtmps://h/x", "rtmps", ""), "rtmps,rtmp,tls,tcp", selfContained},
		"rtmp":            {all.stream("rtmp://h/x", "rtmp", ""), "rtmp,tcp", selfContained},
		"another, by tls": {all.stream("rtsps://h/x", "rtsps", ""), "rtsps,tcp,tls,udp", selfContained},
	} {
		options := strings.Join(c.in.options, " ") + " "
		if want := "-protocol_whitelist " + c.protocols + " -format_whitelist " + c.formats + " "; !strings.HasPrefix(options, want) {
			t.Errorf("%s: %s", name, options)
		}
		if secure := name == "rtmps"; secure != strings.Contains(options, "-tls_verify 1 ") {
			t.Errorf("%s: certificates are verified: %v, want %v: %s", name, !secure, secure, options)
		}
	}
}

func TestWhereOutputsMayLie(t *testing.T) {
	dir := hostileFiles(t)
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp"))
	for output, want := range map[string]string{
		"/out/x.mp4":             "/out/x.mp4",
		"/out/new/deep/x.mp4":    "/out/new/deep/x.mp4",
		"/out/here/x.mp4":        "/out/sub/x.mp4",
		"/out/there.mp4":         "/out/there.mp4",
		"/out/end.mp4":           "/out/end.mp4", // the link itself is replaced, not what it leads to
		"/tmp/x.mp4":             "/tmp/x.mp4",
		"=x.mp4":                 "/out/x.mp4", // relative: below the first root
		"=new/deep/x.mp4":        "/out/new/deep/x.mp4",
		"=file:x.mp4":            "/out/x.mp4",
		"=sub/../x.mp4":          "/out/x.mp4",
		"=end.mp4":               "/out/end.mp4",
		"=away/x.mp4":            "refused",
		"=nowhere/x.mp4":         "refused",
		"=same.mp4":              "refused",
		"=sub":                   "refused",
		"=":                      "/data/work/job/output-0.mp4",
		"file:DIR/out/x.mp4":     "/out/x.mp4",
		"/out/away/x.mp4":        "refused",
		"/out/nowhere/x.mp4":     "refused",
		"/out/loop/x.mp4":        "refused",
		"/out/../out-side/x.mp4": "refused",
		"/out-side/x.mp4":        "refused",
		"/data/journal.mp4":      "refused",
		"/data/work/other/x.mp4": "refused",
		"/out":                   "refused",
		"/out/sub":               "refused",
		"/out/there.mp4/x.mp4":   "refused",
		"/out/same.mp4":          "refused", // the input by another name
		"/out/linked.mp4":        "refused",
		"/in/a.mp4":              "refused",
		"=../../etc/x":           "refused",
		"=../x.mp4":              "refused",
		"=/etc/passwd":           "refused",
		"=/dev/null":             "refused",
		"=/":                     "refused",
		"=rtmp://h/x":            "refused",
		"=tee:/tmp/a|/tmp/b":     "refused",
		"=pipe:1":                "refused",
		"=file,,:/tmp/x":         "refused",
	} {
		t.Run(output, func(t *testing.T) {
			given := strings.ReplaceAll(strings.TrimPrefix(output, "="), "DIR", dir)
			if strings.HasPrefix(output, "/") {
				given = dir + given
			}
			s := resolverIn(dir)
			pl, bad := s.resolve(&plan{input: filepath.Join(dir, "in/a.mp4"), renditions: []rendition{{output: given, extension: ".mp4"}}})
			got := strings.TrimPrefix(pl.targets[0].final, dir)
			if len(s.problems) > 0 {
				got = "refused"
			}
			if got != want || bad != nil {
				t.Errorf("%s: got %s %v %v, want %s", given, got, s.problems, bad, want)
			}
		})
	}
}

func TestOneFileIsNoTwoOutputs(t *testing.T) {
	dir := hostileFiles(t)
	s := resolverIn(dir)
	out := filepath.Join(dir, "out/x.mp4")
	s.resolve(&plan{renditions: []rendition{{output: out}, {output: filepath.Join(dir, "out/sub/../x.mp4")}}})
	if len(s.problems) != 1 || !strings.Contains(s.problems[0], "twice") {
		t.Errorf("problems: %v", s.problems)
	}
}

// A whole run, so that it is FFmpeg and the file system that show what was touched.
func TestForbiddenPlacesStayUntouched(t *testing.T) {
	dir := hostileFiles(t)
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp"))
	r := newRunner(t, func(s *Settings) {
		s.DataDir, s.Inputs.Roots, s.OutputRoots = filepath.Join(dir, "data"), []string{filepath.Join(dir, "in")}, []string{filepath.Join(dir, "out")}
	})
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, params := range []string{
		`{"output":"/etc/passwd"}`, `{"output":"../../etc/x"}`, `{"output":"../../etc/x.mp4"}`, `{"input":"concat:/etc/passwd|/etc/shadow"}`,
		`{"output":` + quoted(filepath.Join(dir, "out/away/x.mp4")) + `}`, `{"input":` + quoted(filepath.Join(dir, "in/link.mp4")) + `}`,
	} {
		run := r.Begin(lease(t, params, params))
		wantFailure(t, walk(testContext(t), run), protocol.ReasonUserError)
	}
	if now, err := os.ReadFile("/etc/passwd"); err != nil || string(now) != string(passwd) {
		t.Errorf("/etc/passwd changed: %v", err)
	}
	if names := listing(t, filepath.Join(dir, "out-side")); names != "secret.mp4" {
		t.Errorf("outside: %s", names)
	}
	if names := listing(t, filepath.Join(dir, "data")); names != "" {
		t.Errorf("the data folder holds %s", names)
	}
}

func TestSymlinkTargetIsReplaced(t *testing.T) {
	t.Parallel()
	dir := hostileFiles(t)
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{filepath.Join(dir, "out")} })
	out := filepath.Join(dir, "out/end.mp4")
	if err := walk(testContext(t), r.Begin(lease(t, "link", `{`+small+`,"duration":1,"output":`+quoted(out)+`}`))); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "out-side/secret.mp4")); err != nil || string(raw) != "precious" {
		t.Errorf("what the link led to is now %d bytes, %v", len(raw), err)
	}
	if info, err := os.Lstat(out); err != nil || !info.Mode().IsRegular() {
		t.Errorf("output: %v, %v", info, err)
	}
}

// playlistLeadsAway serves a playlist that names a local file.
func playlistLeadsAway(t *testing.T, target string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
		_, _ = w.Write([]byte("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n" + target + "\n#EXT-X-ENDLIST\n"))
	}))
	t.Cleanup(server.Close)
	return server.URL + "/x.m3u8"
}

func TestPlaylistsDoNotLeadToOtherProtocols(t *testing.T) {
	t.Parallel()
	ts := clip(t, filepath.Join(t.TempDir(), "secret.ts"), "2")
	r := newRunner(t)
	run := r.Begin(lease(t, "remote", `{`+small+`,"input":`+quoted(playlistLeadsAway(t, "file://"+ts))+`}`))
	if err := walk(testContext(t), run); err == nil {
		t.Error("a playlist from the network has read a local file")
	}

	dir := t.TempDir()
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(ts))))
	defer server.Close()
	list := filepath.Join(dir, "x.m3u8")
	if err := os.WriteFile(list, []byte("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n"+server.URL+"/secret.ts\n#EXT-X-ENDLIST\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run = r.Begin(lease(t, "local", `{`+small+`,"input":`+quoted(list)+`}`))
	if err := walk(testContext(t), run); err == nil {
		t.Error("a local playlist has read from the network")
	}
}

func TestRefusalsNameThePlaceAndTheKeyToAllowIt(t *testing.T) {
	dir := hostileFiles(t)
	r := newRunner(t, func(s *Settings) {
		s.DataDir, s.Inputs.Roots, s.OutputRoots = filepath.Join(dir, "data"), []string{filepath.Join(dir, "in")}, []string{filepath.Join(dir, "out")}
		s.Inputs.Protocols = []string{"file"}
	})
	for params, says := range map[string][]string{
		`{"output":"/etc/passwd"}`:                                   {`output: "/etc/passwd" does not end in one of`, `output: "/etc/passwd" is outside of`, os.TempDir(), "jobs.output_roots", filepath.Join(dir, "out")},
		`{"input":"/etc/passwd"}`:                                    {`input: path "/etc/passwd" outside of`, filepath.Join(dir, "in"), "jobs.input_roots"},
		`{"input":"http://h/x"}`:                                     {`"http"`, "file", "jobs.input_protocols"},
		`{"outputs":[{"output":"x.exe"}]}`:                           {`outputs[0].output: "x.exe" does not end in one of`},
		`{"output":` + quoted(strings.Repeat("n", 300)+".mp4") + `}`: {"output:", "255"},
	} {
		f := wantFailure(t, r.Begin(lease(t, params, params)).Prepare(testContext(t)), protocol.ReasonUserError)
		for _, s := range says {
			if !strings.Contains(f.Message, s) {
				t.Errorf("%s: no %s in: %s", params, s, f.Message)
			}
		}
	}
	alone := newRunner(t)
	for params, says := range map[string]string{
		`{"output":"/etc/x.mp4"}`: "jobs.output_roots (empty)",
		`{"output":"input.mov"}`:  `output: "input.mov" is the name of the synthetic input`,
	} {
		f := wantFailure(t, alone.Begin(lease(t, params, params)).Prepare(testContext(t)), protocol.ReasonUserError)
		if !strings.Contains(f.Message, says) {
			t.Errorf("message: %s", f.Message)
		}
	}
}

func TestOutputInsideDataDirIsRefused(t *testing.T) {
	dir := hostileFiles(t)
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp"))
	own := filepath.Join(dir, "data/journal/x.mp4")
	for root, want := range map[string]bool{dir: false, filepath.Join(dir, "data"): false, filepath.Join(dir, "data/journal"): true} {
		s := resolverIn(dir)
		s.settings.OutputRoots = []string{root}
		if got := s.rootOf(own) != ""; got != want {
			t.Errorf("root %s: allowed %v, want %v", root, got, want)
		}
	}
}

func TestKernelsFilesAreNoInput(t *testing.T) {
	for _, input := range []string{"/proc/kcore", "/proc/self/environ", "/proc/self/mem", "/sys/kernel/notes", "/dev/zero", "/dev/stdin"} {
		s := resolverIn(t.TempDir())
		s.settings.Inputs.Roots = []string{"/"}
		if pl, bad := s.resolve(&plan{input: input}); bad == nil || bad.Reason != protocol.ReasonInputError {
			t.Errorf("%s is taken as %s: %v", input, pl.input.url, s.problems)
		}
	}
}

func TestSRTInputsCallAndDoNotListen(t *testing.T) {
	for input, want := range map[string]bool{
		"srt://h:9000": true, "srt://h:9000?mode=caller&latency=20": true, "srt://0.0.0.0:9000?mode=listener": false,
		"srt://h:9000?latency=20&mode=rendezvous": false, "srt://h:9000?m%6fde=listener": false, "srt://h:9000?a=b;mode=listener": false,
	} {
		s := resolverIn(t.TempDir())
		s.settings.Inputs.Protocols = []string{"srt"}
		s.resolve(&plan{input: input})
		if got := len(s.problems) == 0; got != want {
			t.Errorf("%s: taken %v, want %v: %v", input, got, want, s.problems)
		}
	}
}

func TestRelativeOutputUsesFirstRoot(t *testing.T) {
	t.Parallel()
	first, second := t.TempDir(), t.TempDir()
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{first, second} })
	run := r.Begin(lease(t, "relative", `{`+small+`,"duration":1,"output":"2026/show/out.mp4"}`))
	ctx := testContext(t)
	if err := walk(ctx, run); err != nil {
		t.Fatal(err)
	}
	if err := run.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if out := filepath.Join(first, "2026/show/out.mp4"); run.Snapshot().Encode.Output != out || listing(t, filepath.Dir(out)) != "out.mp4" {
		t.Errorf("output %q, want %s", run.Snapshot().Encode.Output, out)
	}
	if names := listing(t, second); names != "" {
		t.Errorf("the second root contains %s", names)
	}
}

func TestRelativeOutputWithoutRootIsNoted(t *testing.T) {
	t.Parallel()
	for keep, want := range map[bool]string{false: "removed like an unnamed output", true: "kept in the data directory like an unnamed output"} {
		r := newRunner(t, func(s *Settings) { s.KeepOutputs = keep })
		run := r.Begin(lease(t, "relative", `{`+small+`,"duration":1,"output":"show/out.mp4"}`))
		ctx := testContext(t)
		if err := walk(ctx, run); err != nil {
			t.Fatal(err)
		}
		if err := run.Close(ctx); err != nil {
			t.Fatal(err)
		}
		e := run.Snapshot().Encode
		if notes := strings.Join(e.Notes, "\n"); !strings.Contains(notes, `output: "show/out.mp4" is relative and jobs.output_roots is empty`) || !strings.Contains(notes, want) {
			t.Errorf("keep %v, notes: %s", keep, notes)
		}
		if _, err := os.Stat(e.Output); (err == nil) != keep {
			t.Errorf("keep %v, output %q: %v", keep, e.Output, err)
		}
	}
}

// TestUnwritableOutputIsUserError uses a file system that nobody can create files in.
func TestUnwritableOutputIsUserError(t *testing.T) {
	t.Parallel()
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{"/sys/kernel"} })
	f := wantFailure(t, r.Begin(lease(t, "sys", `{"output":"/sys/kernel/out.mp4"}`)).Prepare(testContext(t)), "user_error")
	if !strings.Contains(f.Message, `"/sys/kernel/out.mp4" cannot be written`) {
		t.Errorf("got %q, want the path and that it cannot be written", f.Message)
	}
}
