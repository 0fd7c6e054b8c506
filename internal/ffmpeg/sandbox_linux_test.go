package ffmpeg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// wrapper writes an FFmpeg that runs a script first.
func wrapper(t *testing.T, script string) string {
	t.Helper()
	real, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ffmpeg")
	text := fmt.Sprintf("#!/bin/bash\n%s\nargs=()\nfor a; do [ \"$a\" = h264_nvenc ] && a=libx264; [[ $a == p[1-7] ]] && a=ultrafast; args+=(\"$a\"); done\nexec %s \"${args[@]}\"\n", script, real)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// aCard answers queries at once: h264_nvenc, libx264 and aac are there.
const aCard = `case "$*" in
*" -encoders") printf ' ------\n V....D h264_nvenc x (codec h264)\n V....D libx264 x (codec h264)\n A....D aac x (codec aac)\n'; exit ;;
*" -filters"|*" -version") exit ;;
esac
`

func sandboxed(mode SandboxMode) func(*Settings) {
	return func(s *Settings) { s.Sandbox = testSandbox(); s.Sandbox.Mode = mode }
}

// sandboxComplete skips a test on a machine whose sandbox lacks a layer.
func sandboxComplete(t *testing.T) {
	t.Helper()
	if err := newIgnorantRunner(t, quick(t)).Ready(testContext(t)); err != nil {
		t.Skip(err)
	}
}

// quick is an FFmpeg and an ffprobe that answer queries at once.
func quick(t *testing.T) func(*Settings) {
	t.Helper()
	ffmpeg := wrapper(t, aCard)
	return func(s *Settings) { s.FFmpeg, s.FFprobe = ffmpeg, ffmpeg }
}

func TestEncoderThatFailsOnlyInTheSandboxRunsWithoutTheLayer(t *testing.T) {
	sandboxComplete(t)
	file := filepath.Join(t.TempDir(), "touched by the driver")
	ffmpeg := wrapper(t, aCard+`case "$*" in *h264_nvenc*) echo x >>'`+file+`' || exit 1 ;; esac`)
	dir := t.TempDir()
	r := newIgnorantRunner(t, sandboxed(SandboxAuto), func(s *Settings) { s.FFmpeg, s.DataDir = ffmpeg, dir })
	trials, err := r.TryEncoders(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := trials.Without["h264_nvenc"]; !slices.Equal(got, []proc.Layer{proc.Landlock}) || !slices.Contains(trials.Works, "h264_nvenc") {
		t.Errorf("got works %v, fails %v, without %v, want h264_nvenc without landlock", trials.Works, trials.Fails, trials.Without)
	}
	if len(trials.Without["libx264"]) > 0 {
		t.Errorf("libx264 without %v, want in the whole sandbox", trials.Without["libx264"])
	}
	if got := r.Sandbox().Encoders; len(got) != 1 || got[0].Name != "h264_nvenc" || !slices.Equal(got[0].Without, []string{"landlock"}) {
		t.Errorf("status names %v, want h264_nvenc without landlock", got)
	}
	before, _ := os.ReadFile(file)
	run := r.Begin(lease(t, "hardware", `{`+small+`,"codec":"h264_nvenc"}`))
	if err := walk(testContext(t), run); err != nil {
		t.Errorf("a job of the encoder: %v", err)
	}
	if after, _ := os.ReadFile(file); len(after) == len(before) {
		t.Error("the job did not use the encoder")
	}
	if notes := strings.Join(run.Snapshot().Encode.Notes, "\n"); !strings.Contains(notes, "sandbox") || !strings.Contains(notes, "landlock") {
		t.Errorf("notes %q, want what the sandbox lacked", notes)
	}
	if got, _ := r.CachedTrials(); !slices.Contains(got.Works, "h264_nvenc") {
		t.Errorf("cached: %v", got)
	}

	strict := newIgnorantRunner(t, sandboxed(SandboxRequire), func(s *Settings) { s.FFmpeg = ffmpeg })
	trials, err = strict.TryEncoders(testContext(t))
	if err != nil || slices.Contains(trials.Works, "h264_nvenc") || len(trials.Without) > 0 {
		t.Errorf("require: works %v, without %v, %v, want no h264_nvenc", trials.Works, trials.Without, err)
	}
}

func TestRequiredSandboxGatesJobs(t *testing.T) {
	sandboxComplete(t)
	for _, layer := range proc.Layers() {
		missing := func(s *Settings) { s.Sandbox.Without = []proc.Layer{layer} }
		if err := newIgnorantRunner(t, quick(t), sandboxed(SandboxRequire), missing).Ready(testContext(t)); err == nil || !strings.Contains(err.Error(), string(layer)) {
			t.Errorf("require without %s: got %v, want an error that names it", layer, err)
		}
	}
	r := newIgnorantRunner(t, sandboxed(SandboxAuto), func(s *Settings) { s.Sandbox.Without = []proc.Layer{proc.Landlock, proc.Seccomp} })
	if err := r.Ready(testContext(t)); err != nil {
		t.Errorf("auto: %v", err)
	}
	for _, l := range r.Sandbox().Layers {
		if without := l.Name == "landlock" || l.Name == "seccomp"; (l.Missing != "") != without {
			t.Errorf("status of %s: missing %q", l.Name, l.Missing)
		}
	}
	if err := walk(testContext(t), r.Begin(lease(t, "old kernel", `{`+small+`}`))); err != nil {
		t.Errorf("a job on a kernel without Landlock and seccomp: %v", err)
	}
	helperless := newIgnorantRunner(t, quick(t), sandboxed(SandboxRequire), func(s *Settings) { s.Sandbox.Helper = nil })
	if err := helperless.Ready(testContext(t)); err == nil {
		t.Error("require without a helper: no error")
	}
}

func TestFFmpegThatFailsInTheSandboxRunsWithoutTheLayer(t *testing.T) {
	sandboxComplete(t)
	file := filepath.Join(t.TempDir(), "elsewhere")
	probe, err := exec.LookPath("ffprobe")
	if err != nil {
		t.Fatal(err)
	}
	ffprobe := filepath.Join(t.TempDir(), "ffprobe")
	if err := os.WriteFile(ffprobe, []byte("#!/bin/sh\necho x >>'"+file+"' || exit 1\nexec "+probe+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := newIgnorantRunner(t, sandboxed(SandboxAuto), func(s *Settings) { s.FFprobe = ffprobe })
	if err := r.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	status := r.Sandbox()
	if i := slices.IndexFunc(status.Layers, func(l messages.SandboxLayer) bool { return l.Name == "landlock" }); !strings.Contains(status.Layers[i].Missing, "FFmpeg fails with it") {
		t.Errorf("status %+v, want landlock missing because FFmpeg fails with it", status.Layers)
	}
	if err := walk(testContext(t), r.Begin(lease(t, "wrapped", `{`+small+`}`))); err != nil {
		t.Error(err)
	}
	strict := newIgnorantRunner(t, sandboxed(SandboxRequire), func(s *Settings) { s.FFprobe = ffprobe })
	if err := strict.Ready(testContext(t)); err == nil {
		t.Error("require: no error")
	}
}

func TestOneFailureCostsNoLayerOfTheSandbox(t *testing.T) {
	failure := errors.New("exit status 1")
	box := sandboxes{settings: SandboxSettings{Mode: SandboxAuto, Helper: []string{"helper"}}}
	for name, test := range map[string]struct {
		works func(call int, without []proc.Layer) bool
		want  []proc.Layer
	}{
		"first call fails":         {func(call int, _ []proc.Layer) bool { return call > 1 }, nil},
		"with landlock it fails":   {func(_ int, without []proc.Layer) bool { return slices.Contains(without, proc.Landlock) }, []proc.Layer{proc.Landlock}},
		"with no_new_privs":        {func(_ int, without []proc.Layer) bool { return slices.Contains(without, proc.NoNewPrivs) }, proc.Layers()},
		"with two layers it fails": {func(_ int, without []proc.Layer) bool { return len(without) > 1 }, proc.Layers()},
	} {
		calls := 0
		without, _, err := box.lightest(testContext(t), func(without []proc.Layer) error {
			if calls++; test.works(calls, without) {
				return nil
			}
			return failure
		})
		if err != nil || !slices.Equal(without, test.want) {
			t.Errorf("%s: got without %v, %v, want without %v", name, without, err, test.want)
		}
	}
}

// On a busy machine calls of FFmpeg do not end in time.
func TestCallThatDoesNotEndCostsNoLayer(t *testing.T) {
	failure := errors.New("exit status 126")
	box := sandboxes{settings: SandboxSettings{Mode: SandboxAuto, Helper: []string{"helper"}}}
	for slow := 1; slow <= 2+len(proc.Layers()); slow++ {
		for _, outOfTime := range []bool{false, true} {
			ctx, cancel := context.WithCancel(testContext(t))
			calls := 0
			without, _, err := box.lightest(ctx, func(without []proc.Layer) error {
				switch calls++; {
				case calls == slow && outOfTime:
					cancel()
					return ctx.Err()
				case calls == slow:
					return fmt.Errorf("%w: timeout", errInconclusive)
				case len(without) == len(proc.Layers()):
					return nil
				}
				return failure
			})
			cancel()
			if without != nil || !errors.Is(err, errInconclusive) && !errors.Is(err, context.Canceled) || calls != slow {
				t.Errorf("call %d of %d does not end, by its context: %t: got without %v, %v", slow, calls, outOfTime, without, err)
			}
		}
	}
}

func TestFFmpegThatRunsOnlyWithoutAnySandboxKeepsItsEncoders(t *testing.T) {
	sandboxComplete(t)
	// It bears neither Landlock nor a raised oom_score_adj, so no single layer is to blame.
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	ffmpeg := wrapper(t, fmt.Sprintf("[ \"$(</proc/self/oom_score_adj)\" = %s ] && echo x >>%s/elsewhere || exit 1\n", bytes.TrimSpace(own), t.TempDir()))
	r := newIgnorantRunner(t, sandboxed(SandboxAuto), func(s *Settings) { s.FFmpeg = ffmpeg })
	caps, err := r.Capabilities(testContext(t))
	if err != nil || caps.Video["libx264"] == "" || len(caps.Filters) == 0 {
		t.Errorf("got %d encoders, %d filters, %v", len(caps.Video), len(caps.Filters), err)
	}
	for _, l := range r.Sandbox().Layers {
		if l.Missing == "" {
			t.Errorf("%s counts as held", l.Name)
		}
	}
}

func TestWholeSandboxIsTriedAgain(t *testing.T) {
	sandboxComplete(t)
	dir := t.TempDir()
	mended := filepath.Join(dir, "mended") // it may be seen in the sandbox, and not read
	ffmpeg := wrapper(t, `[ -e `+mended+` ] || echo x >>`+dir+`/elsewhere || exit 1`+"\n"+aCard)
	data := t.TempDir()
	r := newIgnorantRunner(t, sandboxed(SandboxAuto), func(s *Settings) { s.FFmpeg, s.FFprobe, s.DataDir = ffmpeg, ffmpeg, data })
	lacks := func() bool {
		t.Helper()
		if err := r.Ready(testContext(t)); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(r.Sandbox().Layers, func(l messages.SandboxLayer) bool { return l.Missing != "" })
	}
	age := func() {
		state := *r.sandboxes.state.Load()
		state.since = state.since.Add(-2 * retryAfter)
		r.sandboxes.state.Store(&state)
	}
	if !lacks() {
		t.Fatal("FFmpeg runs in the whole sandbox")
	}
	if age(); !lacks() {
		t.Error("a failed retry counts as a success")
	}
	if err := os.WriteFile(mended, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !lacks() {
		t.Error("FFmpeg is tried at each call")
	}
	if age(); lacks() {
		t.Error("FFmpeg is not tried in its whole sandbox again")
	}
}

func TestEncoderIsTriedInItsWholeSandboxAgain(t *testing.T) {
	sandboxComplete(t)
	dir, data := t.TempDir(), t.TempDir()
	mended := filepath.Join(dir, "mended")
	ffmpeg := wrapper(t, aCard+`case "$*" in *h264_nvenc*) [ -e `+mended+` ] || echo x >>`+dir+`/elsewhere || exit 1 ;; esac`)
	try := func() Trials {
		t.Helper()
		r := newIgnorantRunner(t, sandboxed(SandboxAuto), func(s *Settings) { s.FFmpeg, s.FFprobe, s.DataDir = ffmpeg, ffmpeg, data })
		trials, err := r.TryHardware(testContext(t))
		if err != nil || !slices.Contains(trials.Works, "h264_nvenc") {
			t.Fatalf("works %v, fails %v, %v", trials.Works, trials.Fails, err)
		}
		return trials
	}
	for range 2 { // the second time from the cache
		if got := try().Without["h264_nvenc"]; !slices.Equal(got, []proc.Layer{proc.Landlock}) {
			t.Errorf("without %v, want landlock", got)
		}
	}
	if err := os.WriteFile(mended, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := try().Without["h264_nvenc"]; len(got) > 0 {
			t.Errorf("mended: without %v, want the whole sandbox", got)
		}
	}
}

// A stand-in FFmpeg says what of a fake device tree it can use.
func TestHardwareJobsReachDevices(t *testing.T) {
	sandboxComplete(t)
	devices, err := filepath.Glob("/dev/ptmx") // a device that anybody may open and control
	if err != nil || len(devices) == 0 {
		t.Skip("no /dev/ptmx")
	}
	before := hardwareDevices
	hardwareDevices = append(slices.Clone(before), devices...)
	t.Cleanup(func() { hardwareDevices = before })
	// stty -F needs to open the device and to control it.
	ffmpeg := wrapper(t, aCard+`case "$*" in *h264_nvenc*) stty -F /dev/ptmx >/dev/null || exit 1 ;; *libx264*) stty -F /dev/ptmx >/dev/null 2>&1 && exit 1 ;; esac`)
	r := newIgnorantRunner(t, func(s *Settings) { s.FFmpeg = ffmpeg })
	trials, err := r.TryEncoders(testContext(t))
	if err != nil || !slices.Equal(trials.Works, []string{"h264_nvenc", "libx264"}) {
		t.Errorf("works %v, fails %v, %v, want the device for h264_nvenc alone", trials.Works, trials.Fails, err)
	}
}

func TestJobsReachNothingBesideTheirOwnFiles(t *testing.T) {
	sandboxComplete(t)
	got := filepath.Join(t.TempDir(), "got")
	var script strings.Builder
	for name, attempt := range map[string]string{
		"another workspace": `cat "$HOME"/../../other/manifest.json`,
		"journal":           `cat "$HOME"/../../../journal.db`,
		"own manifest":      `echo x >"$HOME"/../manifest.json`,
		"hostname":          `cat /etc/hostname`,
		"parent":            `cat /proc/$PPID/environ`,
		"another process":   `cat /proc/1/cmdline`,
		"temporary folder":  `echo x >` + got,
		"agent":             `kill -0 $PPID`,
	} {
		fmt.Fprintf(&script, "(%s) >/dev/null 2>&1 && { echo '%s' >&2; exit 9; }\n", attempt, name)
	}
	// Its own folder it may use, or nothing of this proves anything.
	script.WriteString("echo x >\"$HOME\"/x || exit 8\n")
	ffmpeg := wrapper(t, `case "$*" in *"-c:v libx264"*) `+script.String()+" ;; esac")
	for mode, completes := range map[SandboxMode]bool{SandboxRequire: true, SandboxOff: false} {
		r := newRunner(t, sandboxed(mode), func(s *Settings) { s.FFmpeg = ffmpeg })
		other := filepath.Join(r.settings().DataDir, workDir, "other")
		if err := os.MkdirAll(other, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(other, manifestName), filepath.Join(r.settings().DataDir, "journal.db")} {
			if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := walk(testContext(t), r.Begin(lease(t, "spy", `{`+small+`}`))); (err == nil) != completes {
			t.Errorf("sandbox %s: got %v, want it to complete: %t", mode, err, completes)
		}
	}
}

// The agent's own files may be in folders that FFmpeg's programs and libraries are in.
func TestSandboxHidesTheAgentsFilesBesideFFmpeg(t *testing.T) {
	sandboxComplete(t)
	dir := t.TempDir()
	config, library := filepath.Join(dir, "etc", "config.yaml"), filepath.Join(dir, "etc", "library.so")
	journal := filepath.Join(dir, "data", "journal.db")
	for _, path := range []string{config, library, journal} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("x"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "data"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	real, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatal(err)
	}
	ffmpeg := filepath.Join(dir, "ffmpeg")
	script := "#!/bin/sh\ncase \"$*\" in *'-c:v libx264'*)\ncat " + library + " >/dev/null || exit 8\n"
	for _, path := range []string{config, journal, filepath.Join(dir, "link", "journal.db")} {
		script += "cat " + path + " 2>/dev/null && exit 9\n"
	}
	if err := os.WriteFile(ffmpeg, []byte(script+";; esac\nexec "+real+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, func(s *Settings) {
		s.FFmpeg, s.DataDir, s.Private = ffmpeg, filepath.Join(dir, "data"), []string{config, filepath.Join(dir, "data", "agent.sock"), ""}
	})
	if err := walk(testContext(t), r.Begin(lease(t, "nosy", `{`+small+`}`))); err != nil {
		t.Errorf("%v (9: it read a file of the agent, 8: it could not read a library)", err)
	}
}

// TestSandboxHasTheRunsFiles: FFmpeg has its outputs at descriptors which in this process may be
// anything, such as a folder with private files.
func TestSandboxHasTheRunsFiles(t *testing.T) {
	t.Parallel()
	run := newRunner(t).Begin(lease(t, "files", `{`+small+`}`))
	data := run.settings.DataDir
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	output, err := os.Create(filepath.Join(t.TempDir(), "output.mp4"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	run.files.targets = make([]target, 32)
	defer func() { run.files.targets = nil }() // which closing the run would clean up
	for i := range run.files.targets {
		run.files.targets[i].file = output
		for _, path := range []string{data, filepath.Dir(data)} {
			folder, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer folder.Close()
		}
	}
	outputs := run.writable()
	c := run.command("/bin/true", nil, outputs...)
	var read []string
	for _, path := range c.Sandbox.Read {
		if strings.HasPrefix(path, "/proc/self/") {
			read = append(read, path)
		} else if strings.HasPrefix(path, filepath.Dir(data)) && !strings.HasPrefix(path, run.workspace) {
			t.Errorf("FFmpeg may read %s", path)
		}
	}
	if !slices.Equal(read, outputs) {
		t.Errorf("FFmpeg may read %q of its outputs, want %q", read, outputs)
	}
}

func TestExceptLeavesOutOnlyWhatIsPrivate(t *testing.T) {
	dir := resolved(t.TempDir())
	for _, path := range []string{"app/lib/a.so", "app/conf/agent.yaml", "app/conf/other", "app/data/work/job/x", "usr/b.so"} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"app/up": "app", "app/usr": "usr", "app/secret": "app/data/work", "mount": "app"} {
		if err := os.Symlink(filepath.Join(dir, to), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	private := []string{filepath.Join(dir, "mount/data"), filepath.Join(dir, "app/conf/agent.yaml"), filepath.Join(dir, "app/later/agent.sock")}
	for given, want := range map[string][]string{
		"app":                 {"app/conf/other", "app/lib", "app/usr"},
		"mount":               {"app/conf/other", "app/lib", "app/usr"},
		"usr":                 {"usr"},
		"app/data":            nil,
		"app/conf/agent.yaml": nil,
		"app/data/work/job":   {"app/data/work/job"},
		"app/missing":         {"app/missing"},
	} {
		var got []string
		for _, path := range except([]string{filepath.Join(dir, given)}, private) {
			rel, _ := filepath.Rel(dir, path)
			got = append(got, rel)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", given, got, want)
		}
	}
}

// TestStreamsReadTheCertificatesOfTheAgent: FFmpeg verifies servers with what SSL_CERT_FILE names,
// wherever that is.
func TestStreamsReadTheCertificatesOfTheAgent(t *testing.T) {
	sandboxComplete(t)
	file := filepath.Join(t.TempDir(), "company.pem")
	if err := os.WriteFile(file, []byte("certificates"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	if options := strings.Join(verifyTLS("rtmps"), " "); !strings.Contains(options, "-ca_file "+file) {
		t.Errorf("options %q", options)
	}
	r := newRunner(t)
	for network, readable := range map[bool]bool{true: true, false: false} {
		c := command("/bin/cat", t.TempDir(), file)
		r.sandboxes.whole(&c, proc.Sandbox{Network: proc.Network{Allowed: network}}, false)
		if exit, err := proc.Run(testContext(t), c); err != nil || exit.OK() != readable {
			t.Errorf("with network %t: %s, %v; want it readable: %t", network, exit, err, readable)
		}
	}
}

func TestSandboxReachesOnlyTheStreamsHost(t *testing.T) {
	for address, want := range map[string]proc.Network{
		"http://127.0.0.1:4711/x":     {Allowed: true, TCPPorts: []uint16{4711}},
		"http://[::1]:4711/x":         {Allowed: true, TCPPorts: []uint16{4711}},
		"rtmp://host/live/key":        {Allowed: true, TCPPorts: []uint16{1935, 53}, UDP: true},
		"rtmps://host:4443/live/key":  {Allowed: true, TCPPorts: []uint16{4443, 53}, UDP: true},
		"srt://host:9000?mode=caller": {Allowed: true, UDP: true, BindUDP: true},
		"rtp://host:9000":             {Allowed: true, UDP: true, BindUDP: true},
	} {
		if got := reachOf(address); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v, want %+v", address, got, want)
		}
	}
	both := union(reachOf("rtmp://a/b"), reachOf("srt://c:1"))
	if !both.Allowed || len(both.TCPPorts) != 0 || !both.BindUDP {
		t.Errorf("rtmp and srt: %+v, want any port", both)
	}
}

// Inputs and outputs on a FUSE file system, as sshfs and many others are.
func TestSandboxAllowsFilesOnFUSE(t *testing.T) {
	overlay, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		t.Skip("fuse-overlayfs is not installed")
	}
	needsFUSE(t)
	sandboxComplete(t)
	behind, mount := t.TempDir(), t.TempDir()
	options := "lowerdir=" + t.TempDir() + ",upperdir=" + behind + ",workdir=" + t.TempDir()
	if out, err := exec.Command(overlay, "-o", options, mount).CombinedOutput(); err != nil {
		t.Fatalf("mounting with fuse-overlayfs: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	input, output := filepath.Join(mount, "in.mp4"), filepath.Join(mount, "out.mp4")
	make := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=10:duration=1", input)
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{mount} })
	if err := walk(testContext(t), r.Begin(lease(t, "fuse", fmt.Sprintf(`{"resolution":"64x64","preset":"ultrafast","input":%q,"output":%q}`, input, output)))); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(behind, "out.mp4")); err != nil || info.Size() == 0 {
		t.Errorf("output: %v, %v", info, err)
	}
}

// needsFUSE skips a test where FUSE file systems cannot be mounted.
func needsFUSE(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		t.Skipf("needs root and /dev/fuse: %v", err)
	}
}

// mountFUSE mounts a FUSE file system of a user whose server never answers.
// Closing the server ends what waits for it.
func mountFUSE(t *testing.T, user int) (dir string, server *os.File) {
	t.Helper()
	needsFUSE(t)
	dir = t.TempDir()
	var err error
	server, err = os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("test", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", server.Fd(), user, user)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Close()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir, server
}

// The kernel keeps all but its user from a FUSE file system that is mounted without allow_other,
// root as well.
func TestInputOnFUSEOfAnotherUser(t *testing.T) {
	dir, _ := mountFUSE(t, 65534)
	r := newRunner(t)
	err := walk(testContext(t), r.Begin(lease(t, "theirs", fmt.Sprintf(`{"input":%q}`, filepath.Join(dir, "in.mp4")))))
	if f := wantFailure(t, err, protocol.ReasonInputError); !strings.Contains(f.Message, "permission denied") {
		t.Errorf("got %q", f.Message)
	}
}

// A job whose input or output is on a file system that does not answer ends by itself.
func TestFileSystemThatDoesNotAnswer(t *testing.T) {
	for _, parameter := range []string{"input", "output"} {
		t.Run(parameter, func(t *testing.T) {
			t.Parallel()
			dir, server := mountFUSE(t, 0)
			r := newRunner(t, func(s *Settings) {
				s.OutputRoots, s.StallTimeout, s.StopGrace = []string{dir}, 500*time.Millisecond, time.Millisecond
			})
			defer server.Close()
			run := r.Begin(lease(t, "hangs", fmt.Sprintf(`{"resolution":"64x64","duration":1,%q:%q}`, parameter, filepath.Join(dir, "x.mp4"))))
			if f := wantFailure(t, run.Prepare(testContext(t)), protocol.ReasonTimeout); !strings.Contains(f.Message, "did not answer") {
				t.Errorf("got %q", f.Message)
			}
		})
	}
}

func TestHardwareJobsReadTheFoldersOfCards(t *testing.T) {
	sys := t.TempDir()
	file := func(path, content string) {
		t.Helper()
		path = filepath.Join(sys, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(path, to string) {
		t.Helper()
		path = filepath.Join(sys, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(sys, to), path); err != nil {
			t.Fatal(err)
		}
	}
	file("devices/pci0000:00/0000:00:02.0/class", "0x030000\n")
	file("devices/pci0000:00/0000:00:1f.2/class", "0x010601\n") // a disk
	file("devices/pci0000:3a/0000:3b:00.0/class", "0x030200\n")
	file("devices/platform/soc/gpu/uevent", "DRIVER=panfrost\n")
	for _, device := range []string{"pci0000:00/0000:00:02.0", "pci0000:00/0000:00:1f.2", "pci0000:3a/0000:3b:00.0"} {
		link("bus/pci/devices/"+filepath.Base(device), "devices/"+device)
	}
	link("devices/pci0000:00/0000:00:02.0/drm/card0/device", "devices/pci0000:00/0000:00:02.0")
	link("class/drm/card0", "devices/pci0000:00/0000:00:02.0/drm/card0")
	link("devices/platform/soc/gpu/drm/card1/device", "devices/platform/soc/gpu")
	link("class/drm/card1", "devices/platform/soc/gpu/drm/card1")
	var want []string
	for _, device := range []string{"pci0000:00/0000:00:02.0", "platform/soc/gpu", "pci0000:3a/0000:3b:00.0"} {
		want = append(want, filepath.Join(sys, "devices", device))
	}
	if got := cardFolders(sys); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRelayServesFFmpegOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run FFmpeg as another user")
	}
	t.Parallel()
	dir := t.TempDir()
	clip(t, filepath.Join(dir, "in.mp4"), "1")
	const nobody = 65534
	r := newRunner(t, func(s *Settings) { s.Sandbox.User = &proc.User{UID: nobody, GID: nobody} })
	e, err := finished(t, r, "streamed", `{`+small+`,"input_mode":"stream","input":`+quoted(serveFiles(t, dir)+"/in.mp4")+`}`)
	if err != nil || e.Frames != 25 {
		t.Errorf("%d frames, %v\n%s", e.Frames, err, e.Log)
	}
}
