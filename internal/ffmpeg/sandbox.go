package ffmpeg

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages"
)

// SandboxMode is jobs.sandbox.
type SandboxMode string

const (
	SandboxAuto    SandboxMode = "auto"    // what this system has
	SandboxRequire SandboxMode = "require" // no job without all layers
	SandboxOff     SandboxMode = "off"
)

// SandboxSettings configure the sandbox around each FFmpeg and ffprobe.
type SandboxSettings struct {
	Mode    SandboxMode
	Helper  []string     // command line of the process that sets it up, see proc.Sandbox; empty: none can be set up
	User    *proc.User   // FFmpeg's; nil: the agent's
	Without []proc.Layer // left out, for tests
}

// oomScoreAdj makes the kernel end FFmpeg before the agent and most others when memory is
// short.
const oomScoreAdj = 800

// sandboxState is what is known of the sandbox since FFmpeg was queried in it.
type sandboxState struct {
	confinement *proc.Confinement // nil: not known yet, or none
	without     []proc.Layer      // FFmpeg runs only without these
	why         string            // what failed with them
	since       time.Time         // when the whole sandbox was tried last
}

// retryAfter is the time after which FFmpeg is tried in its whole sandbox again where it did not run in
// it: what kept it from that may have passed.
const retryAfter = 10 * time.Minute

// sandboxes makes the sandboxes of a runner's processes.
type sandboxes struct {
	settings SandboxSettings
	state    atomic.Pointer[sandboxState]
	private  atomic.Pointer[[]string] // Settings.Private and DataDir
	log      *zap.Logger
}

// on reports whether there is a sandbox at all.
func (s *sandboxes) on() bool {
	return s.settings.Mode != SandboxOff && len(s.settings.Helper) > 0 && proc.SandboxSupported
}

// user returns the id of the user that FFmpeg runs as.
func (s *sandboxes) user() int {
	if s.settings.User != nil && s.on() {
		return s.settings.User.UID
	}
	return os.Geteuid()
}

// around puts a command into a sandbox that allows for the files and the network in it, and
// for what any FFmpeg needs, and is without the layers that FFmpeg does not run with.
func (s *sandboxes) around(c *proc.Command, allowed proc.Sandbox, hardware bool) {
	if state := s.state.Load(); state != nil {
		allowed.Without = slices.Concat(allowed.Without, state.without)
	}
	s.whole(c, allowed, hardware)
}

// whole does the same with the layers that FFmpeg did not run with before.
func (s *sandboxes) whole(c *proc.Command, allowed proc.Sandbox, hardware bool) {
	if !s.on() {
		return
	}
	box := allowed
	box.Helper, box.User, box.OOMScoreAdj = s.settings.Helper, s.settings.User, oomScoreAdj
	box.Without = slices.Concat(allowed.Without, s.settings.Without)
	box.Programs = isScript(c.Path)
	box.Run = append(slices.Clone(programFolders), homesOf(c.Path)...)
	box.Read = append(slices.Clone(box.Read), systemFiles...)
	box.Devices = slices.Clone(plainDevices)
	if box.Network.Allowed {
		box.Read = slices.Concat(box.Read, networkFiles, certificates())
	}
	box.Drivers = hardware
	if hardware {
		box.Read = append(box.Read, hardwareFiles...)
		box.Read = append(box.Read, cardFolders("/sys")...)
		for _, pattern := range hardwareDevices {
			found, _ := filepath.Glob(pattern)
			box.Devices = append(box.Devices, found...)
		}
	}
	private := *s.private.Load()
	box.Run, box.Read = append(except(box.Run, private), c.Path), except(box.Read, private)
	c.Sandbox = &box
}

var (
	// programFolders have programs, libraries and their data, which anybody may read.
	programFolders = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store", "/snap", "/app"}
	systemFiles    = []string{
		"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/alternatives", "/etc/localtime", "/etc/fonts",
		"/etc/ssl/openssl.cnf", "/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust", "/etc/ca-certificates", "/etc/crypto-policies", "/etc/gnutls", "/etc/nsswitch.conf", "/etc/passwd",
		"/var/cache/fontconfig", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/osrelease",
		"/sys/devices/system/cpu", "/sys/devices/system/node",
	}
	plainDevices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}
	networkFiles = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols"}

	// What drivers of hardware encoders need: NVIDIA's, Mesa's, Intel's and AMD's through DRM,
	// V4L2's and Rockchip's.
	hardwareFiles = []string{
		"/proc/driver/nvidia", "/proc/devices", "/proc/modules", "/proc/version", "/proc/sys/kernel/random/boot_id", "/run/udev/data",
		"/sys/class/drm", "/sys/class/video4linux", "/sys/dev/char", "/sys/bus/pci", "/sys/bus/platform", "/sys/module/nvidia", "/sys/module/nvidia_uvm", "/sys/module/amdgpu",
		"/sys/module/i915", "/sys/module/xe", "/etc/OpenCL", "/etc/vulkan", "/etc/drirc", "/etc/libva.conf", "/etc/nvidia", "/etc/vdpau_wrapper.cfg",
	}
	hardwareDevices = []string{
		"/dev/dri", "/dev/nvidia*", "/dev/kfd", "/dev/video*", "/dev/media*", "/dev/dma_heap", "/dev/mali*", "/dev/mpp_service", "/dev/rga", "/dev/dxg",
	}
)

// except are files and folders without those that are private: a folder that has some below it
// is replaced by what else is in it. What is given and itself below a private folder
// stays, as a workspace does.
func except(paths, private []string) (rest []string) {
	hidden := make([]string, 0, len(private))
	for _, path := range private {
		if real, _, err := reach.ResolveLinks(path); err == nil {
			hidden = append(hidden, real)
		}
	}
	below := func(path, folder string) bool { return strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/") }
	has := func(path string) bool {
		return slices.ContainsFunc(hidden, func(h string) bool { return h == path || below(h, path) })
	}
	var split func(folder string)
	split = func(folder string) {
		entries, _ := os.ReadDir(folder)
		for _, e := range entries {
			path := filepath.Join(folder, e.Name())
			switch real := resolved(path); {
			case slices.ContainsFunc(hidden, func(h string) bool { return h == real || below(real, h) }):
			case !has(real):
				rest = append(rest, path)
			case e.IsDir(): // and no link, which may lead back up
				split(path)
			}
		}
	}
	for _, path := range paths {
		switch real := resolved(path); {
		case !has(real):
			rest = append(rest, path)
		case !slices.Contains(hidden, real):
			split(real)
		}
	}
	return rest
}

// cardFolders are the folders of graphics cards below /sys/devices, to which the links in
// /sys/class and /sys/bus lead. The rest of it, with the energy counters, is not readable.
func cardFolders(sys string) (folders []string) {
	cards, _ := filepath.Glob(filepath.Join(sys, "class/drm/*/device"))
	classes, _ := filepath.Glob(filepath.Join(sys, "bus/pci/devices/*/class"))
	for _, path := range classes {
		const display = "0x03" // PCI base class 3
		if class, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(class), display) {
			cards = append(cards, filepath.Dir(path))
		}
	}
	for _, card := range cards {
		folders = append(folders, resolved(card))
	}
	return unique(folders)
}

// homesOf are the folders of a program and of its libraries: beside it, and where the loader
// is made to look.
func homesOf(program string) []string {
	folders := absolute(os.Getenv("LD_LIBRARY_PATH"))
	for _, path := range []string{program, resolved(program)} {
		dir := filepath.Dir(path)
		folders = append(folders, dir, filepath.Join(dir, "../lib"), filepath.Join(dir, "../lib64"), filepath.Join(dir, "../share"))
	}
	return slices.DeleteFunc(folders, func(dir string) bool { return !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" })
}

// absolute returns the absolute paths of a list such as PATH. Others lead to what is in the working
// directory, which of FFmpeg is one that it can write to.
func absolute(list string) []string {
	return slices.DeleteFunc(filepath.SplitList(list), func(path string) bool { return !filepath.IsAbs(path) })
}

// resolved is a path without links, or the path where that fails.
func resolved(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	return path
}

// isScript reports whether a program starts others: it is no binary by itself.
func isScript(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 2)
	_, _ = f.Read(head)
	return bytes.Equal(head, []byte("#!"))
}

// lightest tries a call of FFmpeg in its whole sandbox. If the call fails twice by itself, jobs.sandbox
// is auto, and the call succeeds with no sandbox, it returns the layers that must be left out. Without
// no_new_privs alone there would be no other layers, so that is never the answer. A call that
// does not end by itself costs no layer: its error is returned. The last call is the one that
// succeeded, if any did.
func (s *sandboxes) lightest(ctx context.Context, try func(without []proc.Layer) error) (without []proc.Layer, why string, err error) {
	open := func(err error) bool { return errors.Is(err, errInconclusive) || err != nil && ctx.Err() != nil }
	if err = try(nil); err == nil || !s.on() || s.settings.Mode != SandboxAuto || open(err) {
		return nil, "", err
	}
	all := proc.Layers()
	if bare := try(all); open(bare) {
		return nil, "", bare
	} else if bare != nil {
		return nil, "", err
	}
	if again := try(nil); again == nil || open(again) {
		return nil, "", again
	}
	for _, l := range all {
		if l == proc.NoNewPrivs {
			continue
		}
		if one := try([]proc.Layer{l}); one == nil {
			return []proc.Layer{l}, err.Error(), nil
		} else if open(one) {
			return nil, "", one
		}
	}
	if bare := try(all); bare != nil {
		return nil, "", bare
	}
	return all, err.Error(), nil
}

// learn takes down what a query's sandbox consisted of.
func (s *sandboxes) learn(confinement *proc.Confinement, without []proc.Layer, why string) {
	if len(without) > 0 {
		s.log.Warn("FFmpeg runs only without a part of its sandbox", zap.Any("without", without), zap.String("with", why))
	}
	s.state.Store(&sandboxState{confinement: confinement, without: without, why: why, since: time.Now()})
}

// stale reports whether FFmpeg is to be tried in its whole sandbox again.
func (s *sandboxes) stale() bool {
	state := s.state.Load()
	return s.on() && state != nil && (len(state.without) > 0 || state.confinement == nil) && time.Since(state.since) > retryAfter
}

// keep takes down that the whole sandbox was tried in vain.
func (s *sandboxes) keep() {
	state := *s.state.Load()
	state.since = time.Now()
	s.state.Store(&state)
}

// ready is nil unless jobs.sandbox requires layers that are missing.
func (s *sandboxes) ready() error {
	if s.settings.Mode != SandboxRequire {
		return nil
	}
	for _, l := range s.status().Layers {
		if l.Missing != "" {
			return fmt.Errorf("jobs.sandbox is require, and the sandbox lacks %s: %s", l.Name, l.Missing)
		}
	}
	return nil
}

// status describes the sandbox.
func (s *sandboxes) status() messages.Sandbox {
	status := messages.Sandbox{Mode: string(s.settings.Mode)}
	state := s.state.Load()
	for _, layer := range proc.Layers() {
		l := messages.SandboxLayer{Name: string(layer)}
		switch {
		case s.settings.Mode == SandboxOff:
			l.Missing = "jobs.sandbox is off"
		case !s.on():
			l.Missing = "there is no sandbox on this platform"
		case state == nil:
			l.Missing = "not known yet: FFmpeg was not run"
		case slices.Contains(state.without, layer):
			l.Missing = "FFmpeg fails with it: " + state.why
		case state.confinement == nil:
			l.Missing = "not known: FFmpeg started too slowly"
		default:
			l.Missing, l.Lacks = state.confinement.Missing[layer], state.confinement.Lacks[layer]
		}
		status.Layers = append(status.Layers, l)
	}
	return status
}

// Sandbox describes the sandbox around FFmpeg.
func (r *Runner) Sandbox() messages.Sandbox {
	status := r.sandboxes.status()
	if trials := r.trials.Load(); trials != nil {
		for encoder, without := range trials.Without {
			status.Encoders = append(status.Encoders, messages.SandboxedEncoder{Name: encoder, Without: names(without)})
		}
		slices.SortFunc(status.Encoders, func(a, b messages.SandboxedEncoder) int { return cmp.Compare(a.Name, b.Name) })
	}
	return status
}

// command is a call of FFmpeg or ffprobe for this run, in a sandbox: it may read the input and
// the outputs, and write to a folder of its own and to what is named.
func (r *Run) command(path string, args []string, writes ...string) proc.Command {
	c := command(path, r.scratch(), args...)
	c.Files = r.files.inherited()
	allowed := proc.Sandbox{Read: r.readable(), Write: append([]string{r.scratch()}, writes...), Network: r.inputNetwork()}
	r.runner.sandboxes.around(&c, r.relaxed(allowed), r.plan.onHardware())
	if c.Sandbox != nil { // not before: in this process the paths lead to files of its own
		for i, file := range c.Files {
			if file != nil {
				c.Sandbox.Read = append(c.Sandbox.Read, proc.FilePath(file, proc.FirstFile+i))
			}
		}
	}
	return c
}

// scratchDir is the folder in a workspace that FFmpeg may write to. It is its home.
const scratchDir = "scratch"

func (r *Run) scratch() string { return filepath.Join(r.workspace, scratchDir) }

// readable are the files of a run's input.
func (r *Run) readable() (paths []string) {
	f := &r.files
	if f.inputPath != "" {
		paths = append(paths, f.inputPath)
	}
	if f.reads.Path != "" && f.reads.Format != "" {
		paths = append(paths, filepath.Dir(f.reads.Path)) // a playlist, and what it refers to
	}
	return append(paths, filepath.Join(r.workspace, fetchedDir))
}

// writable are the outputs of a run.
func (r *Run) writable() (paths []string) {
	for i, t := range r.files.targets {
		if t.file != nil {
			paths = append(paths, proc.FilePath(t.file, proc.FirstFile+1+i))
		}
	}
	return paths
}

// relaxed leaves out the layers that the run's encoders do not work with.
func (r *Run) relaxed(box proc.Sandbox) proc.Sandbox {
	for _, rd := range r.plan.renditions {
		if without := r.withoutLayers[rd.encoder]; len(without) > 0 {
			box.Without = append(box.Without, without...)
		}
	}
	return box
}

// noteSandbox notes what of the sandbox the encoders do not work with.
func (r *Run) noteSandbox() {
	for _, rd := range r.plan.renditions {
		if without := r.withoutLayers[rd.encoder]; len(without) > 0 && r.runner.sandboxes.on() {
			r.note("ran without %s of the sandbox, with which %s fails on this node", strings.Join(names(without), ", "), rd.encoder)
			return
		}
	}
}

func names(layers []proc.Layer) (names []string) {
	for _, l := range layers {
		names = append(names, string(l))
	}
	return names
}

// onHardware reports whether the plan uses a hardware encoder.
func (p *plan) onHardware() bool {
	return slices.ContainsFunc(p.renditions, func(r rendition) bool { return needsHardware(r.encoder) })
}

// reachOf is what FFmpeg has to reach to read from or write to a URL.
func reachOf(address string) proc.Network {
	u, err := url.Parse(address)
	if err != nil {
		return proc.Network{Allowed: true, UDP: true, BindUDP: true}
	}
	switch u.Scheme {
	case "http", "https", "rtmp", "rtmps", "tcp", "tls":
	default: // over UDP, or by ports that are agreed upon
		return proc.Network{Allowed: true, UDP: true, BindUDP: true}
	}
	standard := map[string]string{"http": "80", "https": "443", "rtmp": "1935", "rtmps": "443"}[u.Scheme]
	port, err := strconv.ParseUint(cmp.Or(u.Port(), standard), 10, 16)
	if err != nil {
		return proc.Network{Allowed: true, UDP: true}
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return proc.Network{Allowed: true, TCPPorts: []uint16{uint16(port)}}
	}
	const dns = 53
	return proc.Network{Allowed: true, TCPPorts: []uint16{uint16(port), dns}, UDP: true}
}

// inputNetwork is what has to be reached to read the input.
func (r *Run) inputNetwork() proc.Network {
	switch in := r.files.input; {
	case !in.network:
		return proc.Network{}
	case r.relay != nil:
		return reachOf(r.relay.ProxyURL())
	default:
		return reachOf(in.url)
	}
}

// outputNetwork is what has to be reached to write the outputs.
func (r *Run) outputNetwork() (n proc.Network) {
	for _, t := range r.files.targets {
		if t.url != "" {
			n = union(n, reachOf(t.url))
		}
	}
	return n
}

// union is what either may reach.
func union(a, b proc.Network) proc.Network {
	switch {
	case !a.Allowed:
		return b
	case !b.Allowed:
		return a
	}
	n := proc.Network{Allowed: true, UDP: a.UDP || b.UDP, BindUDP: a.BindUDP || b.BindUDP}
	if len(a.TCPPorts) > 0 && len(b.TCPPorts) > 0 {
		n.TCPPorts = slices.Concat(a.TCPPorts, b.TCPPorts)
	}
	return n
}
