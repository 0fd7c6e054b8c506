package ffmpeg

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// fakeGPU is an FFmpeg on a machine with a card that this one lacks: h264_nvenc works
// (libx264 does its work), hevc_nvenc hangs in the driver until it is known to, all else is the real one.
// It names encoders of each fate and no more, since each is tried several times.
func fakeGPU(t *testing.T) (ffmpeg, calls string) {
	t.Helper()
	real, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ffmpeg, calls = filepath.Join(dir, "ffmpeg"), filepath.Join(dir, "calls")
	script := fmt.Sprintf(`#!/bin/bash
case "$*" in
*" -encoders")
	%[1]s "$@" | grep -E '^ (-|A|V[^ ]* (h264_nvenc|hevc_nvenc|h264_vaapi|libx264|libx265|libvpx-vp9|librav1e) )'
	exit ;;
esac
args=()
for a in "$@"; do
	case "$a" in
	h264_nvenc) echo h264_nvenc >>%[2]s; a=libx264 ;;
	p[1-7]) a=ultrafast ;;
	hevc_nvenc | librav1e) [ -e %[2]s.hung ] || exec sleep 600; exit 1 ;;
	esac
	args+=("$a")
done
exec %[1]s "${args[@]}"
`, real, calls)
	if err := os.WriteFile(ffmpeg, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return ffmpeg, calls
}

// writingCalls is the sandbox of an FFmpeg that writes down its calls: none.
var writingCalls = SandboxSettings{Mode: SandboxOff}

func TestOnlyEncodersThatATrialProvedAreUsed(t *testing.T) {
	ffmpeg, calls := fakeGPU(t)
	dir := t.TempDir()
	r := newRunner(t, func(s *Settings) { s.FFmpeg, s.DataDir, s.Sandbox = ffmpeg, dir, writingCalls })
	r.trialTimeout = 5 * time.Second
	if err := ask(r); err != nil {
		t.Fatal(err)
	}
	proof, err := r.TryEncoders(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"h264_nvenc", "libx264", "libx265", "libvpx-vp9"} {
		if !slices.Contains(proof.Works, want) {
			t.Errorf("%s is not proved: %s", want, proof.Fails[want])
		}
	}
	if why := proof.Fails["hevc_nvenc"]; !strings.Contains(why, "timeout after 5s") {
		t.Errorf("the hanging encoder: %q", why)
	}
	if _, failed := proof.Fails["librav1e"]; failed || slices.Contains(proof.Works, "librav1e") {
		t.Error("a software encoder whose trial was too slow is not left open")
	}
	if why := proof.Fails["h264_vaapi"]; why == "" {
		t.Error("h264_vaapi works without a device")
	}
	if got := proof.Capabilities(); !slices.Equal(got, []string{"nvenc_h264"}) {
		t.Errorf("capabilities are %v", got)
	}

	if err := walk(testContext(t), r.Begin(lease(t, "named", `{`+small+`,"duration":1,"codec":"h264_nvenc"}`))); err != nil {
		t.Errorf("a job with the proved encoder: %v", err)
	}
	run := r.Begin(lease(t, "family", `{`+small+`,"duration":1,"hwaccel":"cuda"}`))
	if err := walk(testContext(t), run); err != nil || run.Snapshot().Encode.Encoder != "h264_nvenc" {
		t.Errorf("a job with hwaccel: %v, by %s", err, run.Snapshot().Encode.Encoder)
	}
	preferring := newRunner(t, func(s *Settings) { s.FFmpeg, s.DataDir, s.PreferHardware, s.Sandbox = ffmpeg, dir, true, writingCalls })
	preferring.caps, preferring.capsKey = r.caps, r.capsKey
	preferring.trials.Store(&proof)
	run = preferring.Begin(lease(t, "preferred", `{"resolution":"320x240","fps":25,"preset":"fast","duration":1,"codec":"h264"}`))
	if err := walk(testContext(t), run); err != nil || run.Snapshot().Encode.Encoder != "h264_nvenc" {
		t.Errorf("a job for h264 where hardware is preferred: %v, by %s", err, run.Snapshot().Encode.Encoder)
	}
	for name, parameters := range map[string]string{
		"hangs": `"codec":"hevc_nvenc"`, "no device": `"codec":"h264_vaapi"`, "family": `"codec":"h265","hwaccel":"cuda"`, "none": `"hwaccel":"vaapi"`,
	} {
		wantFailure(t, walk(testContext(t), r.Begin(lease(t, "bad "+name, `{`+small+`,`+parameters+`}`))), protocol.ReasonCapabilityMismatch)
	}

	// Another life knows what worked with this very FFmpeg.
	before, _ := os.ReadFile(calls)
	if err := os.WriteFile(calls+".hung", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := newRunner(t, func(s *Settings) { s.FFmpeg, s.DataDir, s.Sandbox = ffmpeg, dir, writingCalls })
	again.trialTimeout = time.Minute // nothing hangs any more
	if proof, err := again.TryEncoders(testContext(t)); err != nil || !slices.Contains(proof.Works, "h264_nvenc") {
		t.Errorf("the next life: %v, %v", proof, err)
	}
	if after, _ := os.ReadFile(calls); len(after) != len(before) {
		t.Error("the proved encoder was tried again")
	}
	// A changed FFmpeg is another one.
	if err := os.Chtimes(ffmpeg, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := walk(testContext(t), again.Begin(lease(t, "changed", `{`+small+`,"duration":1,"codec":"h264_nvenc"}`))); err != nil {
		t.Fatal(err)
	}
	// Once in its trial, once in the job.
	if after, _ := os.ReadFile(calls); strings.Count(string(after), "\n") != strings.Count(string(before), "\n")+2 {
		t.Errorf("the encoder of a changed FFmpeg was not tried: %d calls after %d", strings.Count(string(after), "\n"), strings.Count(string(before), "\n"))
	}
}

func TestPreferHardwareNeedsFullSupport(t *testing.T) {
	caps := Capabilities{Audio: knownCaps.Audio, Video: map[string]string{
		"libx264": "h264", "libx265": "hevc", "libsvtav1": "av1", "libvpx-vp9": "vp9", "h264_nvenc": "h264", "h264_qsv": "h264",
		"hevc_nvenc": "hevc", "hevc_vaapi": "hevc", "av1_qsv": "av1",
	}}
	on := testNode(caps, map[string]bool{"h264_nvenc": true, "h264_qsv": true, "hevc_nvenc": false, "hevc_vaapi": true, "av1_qsv": true, "libx264": true})
	for _, c := range []struct {
		job    string
		prefer bool
		want   []string // encoders, then parts of notes
	}{
		{`{"parameters":{"codec":"h264"}}`, false, []string{"libx264"}},
		{`{"parameters":{"codec":"h264"}}`, true, []string{"h264_nvenc"}},
		{`{}`, true, []string{"h264_nvenc"}},
		{`{"scenario":"1080p-x265"}`, true, []string{"hevc_vaapi"}},
		{`{"parameters":{"encoder":"av1"}}`, true, []string{"av1_qsv"}},
		{`{"parameters":{"codec":"vp9"}}`, true, []string{"libvpx-vp9"}},
		{`{"parameters":{"codec":"libx264"}}`, true, []string{"libx264"}},
		{`{"parameters":{"hwaccel":"none"}}`, true, []string{"libx264"}},
		{`{"parameters":{"hwaccel":"qsv"}}`, true, []string{"h264_qsv"}},
		{`{"parameters":{"preset":"slow"}}`, true, []string{"h264_nvenc", "-preset p5"}},
		{`{"parameters":{"crf":23}}`, true, []string{"libx264", "note: h264 encoded in software: h264_nvenc has no crf"}},
		{`{"parameters":{"codec":"h265","preset":"slow"}}`, true, []string{"libx265", "note: h265 encoded in software: hevc_vaapi has no preset slow"}},
		{`{"parameters":{"resolution":"8k"}}`, true, []string{"libx264", "h264_nvenc is not preferred for 7680x4320, outside of 320x240 to 4096x4096"}},
		{`{"parameters":{"resolution":"160x120"}}`, true, []string{"libx264"}},
		{`{"parameters":{"outputs":[{"codec":"h264"},{"codec":"h265"},{"resolution":"160x120"}],"output":"x.mkv"}}`, true, []string{"h264_nvenc", "libx265", "libx264"}},
	} {
		on.settings.PreferHardware = c.prefer
		got := argumentsOf(t, c.job, on, media{})
		at := 0
		for _, w := range c.want {
			i := strings.Index(got[at:], w)
			if i < 0 {
				t.Fatalf("%s, preferred %v: %q is not in its place in\n%s", c.job, c.prefer, w, got)
			}
			at += i + len(w)
		}
	}
}

func TestHardwareEncoderGetsItsDevice(t *testing.T) {
	caps := Capabilities{
		Video: map[string]string{
			"libx264": "h264", "h264_nvenc": "h264", "hevc_vaapi": "hevc", "h264_qsv": "h264",
			"libsvtav1": "av1", "libaom-av1": "av1", "libvpx-vp9": "vp9",
		},
		Audio: knownCaps.Audio,
	}
	proved := map[string]bool{"h264_nvenc": true, "hevc_vaapi": true, "h264_qsv": true, "libsvtav1": false, "libvpx-vp9": false}
	for parameters, want := range map[string][]string{
		`"codec":"h264_nvenc","preset":"slow"`: {"-c:v h264_nvenc", "-preset p5", "-pix_fmt yuv420p"},
		`"codec":"h264","hwaccel":"nvenc"`:     {"-c:v h264_nvenc"},
		`"codec":"h265","hwaccel":"vaapi"`:     {"-init_hw_device vaapi=hw -filter_hw_device hw", "scale=w='clip(ceil(iw/2)*2,16,16384)':h='clip(ceil(ih/2)*2,16,16384)',format=nv12,hwupload", "-c:v hevc_vaapi"},
		`"hwaccel":"qsv","preset":"ultrafast"`: {"-init_hw_device qsv=hw", "hwupload=extra_hw_frames=64", "-c:v h264_qsv", "-preset veryfast"},
		`"hwaccel":"none"`:                     {"-c:v libx264"},
		`"codec":"av1"`:                        {"-c:v libaom-av1"}, // the preferred one failed its trial
		`"codec":"vp9"`:                        {"capability_mismatch", "codec vp9"},
		`"hwaccel":"vaapi"`:                    {"capability_mismatch", "encoder h264_vaapi"},
		`"hwaccel":"magic"`:                    {"capability_mismatch", "hwaccel magic"},
	} {
		got := arguments(t, `{"parameters":{"input":"/in.mp4",`+parameters+`}}`, caps, proved)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %q is not in\n%s", parameters, w, got)
			}
		}
		if strings.Contains(got, "hwupload") && strings.Contains(got, "-pix_fmt") {
			t.Errorf("%s: frames on a device get a format of memory:\n%s", parameters, got)
		}
	}
}
