package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/internal/datadir"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// What a worker should have.
const (
	fewThreads   = 4
	littleMemory = 8 << 30
	littleDisk   = 20 << 30
)

const installFFmpeg = "sudo apt-get install ffmpeg"

// checkDataDir checks that the agent can write its data directory, or create it.
func checkDataDir(_ context.Context, e *examination) []finding {
	dir := e.cfg.DataDir
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		above := existingParent(dir)
		if unix.Access(above, unix.W_OK|unix.X_OK) != nil {
			return []finding{failed(fmt.Sprintf("sudo install -d -m 700 -o %s %s", userName(e.agentUID), dir), "%s does not exist, and user %s may not create it in %s", dir, userName(e.agentUID), above)}
		}
		return []finding{passing("%s does not exist yet; the agent creates it", dir)}
	case err != nil:
		return []finding{failed("sudo ls -ld "+dir, "%v", err)}
	case !info.IsDir():
		return []finding{failed(e.change("data_dir", "a directory"), "%s is not a directory", dir)}
	}
	owner := e.agentUID
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = fmt.Sprint(stat.Uid)
	}
	switch {
	case e.agent == nil && unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK) != nil:
		return []finding{failed(fmt.Sprintf("sudo -u %s agent doctor%s   # or, to run the agent as %s: %s", userName(owner), e.configFlag(), userName(e.agentUID), e.change("data_dir", "a directory of that user")),
			"%s belongs to %s, and user %s may not write it", dir, userName(owner), userName(e.agentUID))}
	case e.agent == nil && datadir.Check(dir) != nil:
		return []finding{failed("sudo ls -la "+dir, "%v", datadir.Check(dir))}
	case info.Mode().Perm()&0o077 != 0:
		return []finding{warning("sudo chmod 700 "+dir, "%s is open to other users (mode %04o)", dir, info.Mode().Perm())}
	}
	return []finding{passing("%s, owner %s", dir, userName(owner))}
}

// checkJournal reports what the journal holds, and results that the master has not accepted.
func checkJournal(_ context.Context, e *examination) []finding {
	stats := e.unsent
	if e.agent != nil {
		stats = e.agent.Journal
	}
	switch {
	case errors.Is(e.journal, journal.ErrInUse):
		return []finding{warning("sudo fuser -v "+journalPath(e.cfg.DataDir)+"   # the process that has it open; then agent status --socket PATH, where it is an agent with another control.socket", "%v", e.journal)}
	case e.journal != nil:
		return []finding{failed("sudo systemctl restart ffmpeg-agent   # at its start the agent sets a damaged journal aside, and logs it", "%v", e.journal)}
	case stats.Error != "":
		return []finding{failed("df -h "+e.cfg.DataDir+"   # free space; results wait in memory until they can be written", "not writable: %s", stats.Error)}
	case stats.DeadLetters > 0:
		return []finding{warning("agent jobs --failed   # then agent report JOB shows the reason", "%s that the master rejected for good", plural(stats.DeadLetters, "result"))}
	case stats.Unsent > 0 && stats.OldestAt != nil && time.Since(*stats.OldestAt) > 10*time.Minute:
		return []finding{warning("see the checks of the master", "%s not delivered, the oldest for %s", plural(stats.Unsent, "result"), span(time.Since(*stats.OldestAt)))}
	}
	return []finding{passing("%d unsent, %d sent, %s", stats.Unsent, stats.Sent, plural(stats.DeadLetters, "dead letter"))}
}

func checkDisk(_ context.Context, e *examination) []finding {
	free, total := e.host.DiskFree, e.host.DiskTotal
	if free == nil || total == nil {
		return []finding{warning("df -h "+e.cfg.DataDir, "the free space of %s is unknown", e.cfg.DataDir)}
	}
	need := e.cfg.Jobs.MinFreeDisk.Of(*total)
	inodes, toStart := e.host.InodesFree, uint64(0)
	if e.host.InodesTotal != nil {
		toStart = job.InodesToStart(*e.host.InodesTotal)
	}
	fix := fmt.Sprintf("df -h %s   # free space, or lower jobs.min_free_disk", existingParent(e.cfg.DataDir))
	switch {
	case *free < need:
		return []finding{failed(fix, "%s of %s free on the disk of data_dir, but jobs need %s (jobs.min_free_disk): no jobs are taken", size(free), size(total), size(&need))}
	case need > 0 && inodes != nil && *inodes < toStart:
		return []finding{failed(fmt.Sprintf("df -i %s   # remove files that are not needed", existingParent(e.cfg.DataDir)),
			"%d inodes free on the disk of data_dir, but jobs need %d: no jobs are taken (jobs.min_free_disk: 0 turns this check off)", *inodes, toStart)}
	case *free < littleDisk:
		return []finding{warning(fix, "%s of %s free on the disk of data_dir; 20 GiB are recommended", size(free), size(total))}
	}
	return []finding{passing("%s of %s free", size(free), size(total))}
}

// checkFFmpeg runs both programs.
func checkFFmpeg(ctx context.Context, e *examination) []finding {
	for _, program := range [][2]string{{"hardware.ffmpeg", e.cfg.Hardware.FFmpeg}, {"hardware.ffprobe", e.cfg.Hardware.FFprobe}} {
		if _, err := exec.LookPath(program[1]); err != nil {
			return []finding{failed(installFFmpeg+"   # or "+e.change(program[0], "the path of an installed one"), "%v", err)}
		}
	}
	path, _ := exec.LookPath(e.cfg.Hardware.FFmpeg)
	runner, err := e.ffmpeg()
	if err == nil {
		_, err = runner.Capabilities(ctx)
	}
	if err != nil {
		return []finding{failed(path+" -version   # then: "+installFFmpeg+" --reinstall", "%v", err)}
	}
	return []finding{passing("%s %s", path, ffmpegVersion(ctx, path))}
}

// ffmpegVersion is the version in "ffmpeg version 5.1.6 Copyright …".
func ffmpegVersion(ctx context.Context, path string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "-version").Output()
	fields := strings.Fields(string(out))
	if err != nil || len(fields) < 3 {
		return ""
	}
	return fields[2]
}

// checkEncoders makes trial encodes.
func checkEncoders(ctx context.Context, e *examination) []finding {
	trials, err := e.runner.TryEncoders(ctx)
	if err != nil {
		return []finding{warning(e.cfg.Hardware.FFmpeg+" -encoders", "could not try them: %v", err)}
	}
	if len(trials.Works) == 0 {
		return []finding{failed(installFFmpeg+"   # this build has no encoder that works", "none of %d works", len(trials.Fails))}
	}
	findings := []finding{passing("%s", strings.Join(trials.Works, ", "))}
	if e.hasNVIDIA() && !strings.Contains(strings.Join(trials.Capabilities(), " "), "nvenc_") {
		for encoder, why := range trials.Fails {
			if strings.HasSuffix(encoder, "_nvenc") {
				return append(findings, warning("nvidia-smi   # the driver must be compatible with this FFmpeg; in a container: --gpus all, NVIDIA_DRIVER_CAPABILITIES=video,compute,utility", "this machine has an NVIDIA card, but %s fails: %s", encoder, why))
			}
		}
		findings = append(findings, warning(e.cfg.Hardware.FFmpeg+" -encoders | grep nvenc", "this machine has an NVIDIA card, but this FFmpeg was built without nvenc"))
	}
	return findings
}

// checkSandbox reports which layers of the sandbox around FFmpeg this machine lacks.
func checkSandbox(_ context.Context, e *examination) []finding {
	var sandbox messages.Sandbox
	if e.agent != nil {
		sandbox = e.agent.Sandbox
	} else {
		sandbox = e.runner.Sandbox()
	}
	if sandbox.Mode == "off" {
		return []finding{warning(e.change("jobs.sandbox", "auto"), "off: a job's FFmpeg may read and write all that the agent may")}
	}
	var findings []finding
	for _, l := range sandbox.Layers {
		switch {
		case l.Missing != "" && sandbox.Mode == "require":
			findings = append(findings, failed(e.change("jobs.sandbox", "auto, or run on a kernel that has it"), "no job is taken without %s: %s", l.Name, l.Missing))
		case l.Missing != "":
			findings = append(findings, warning("uname -r   # THREATS.md says what each layer stops, and which kernel has it", "without %s: %s", l.Name, l.Missing))
		}
	}
	for _, enc := range sandbox.Encoders {
		findings = append(findings, warning("agent status", "%s works only without %s", enc.Name, strings.Join(enc.Without, ", ")))
	}
	if findings == nil {
		return []finding{passing("%s", strings.Join(sandboxTexts(sandbox), "; "))}
	}
	return findings
}

// checkSecrets names the secrets of jobs that FFmpeg takes by no other way than its arguments.
func checkSecrets(ctx context.Context, e *examination) []finding {
	visible := []string{"passwords in the rtmp URLs of outputs"}
	caps, err := e.runner.Capabilities(ctx)
	withoutPresets := err == nil && !caps.Presets
	if withoutPresets {
		visible = append(visible, "their stream keys")
	}
	var streams []string
	for _, protocol := range e.cfg.Jobs.InputProtocols {
		if !slices.Contains([]string{"file", "http", "https"}, protocol) { // which are fetched, or read through the relay
			streams = append(streams, protocol)
		}
	}
	if len(streams) > 0 {
		visible = append(visible, fmt.Sprintf("the URLs of %s inputs with their stream keys, passwords and passphrases", strings.Join(streams, ", ")))
	}
	text := "other users of this machine can read in FFmpeg's arguments, unless /proc is mounted with hidepid: " + strings.Join(visible, "; ")
	if withoutPresets {
		return []finding{warning(installFFmpeg+"   # this build reads no preset files (-fpre), which hide stream keys", "%s", text)}
	}
	return []finding{passing("%s", text)}
}

func checkProcessors(_ context.Context, e *examination) []finding {
	if e.facts.CPUThreads < fewThreads {
		return []finding{warning("nproc   # a machine, or a CPU limit, with at least 4", "%s, %s: encodes are slow with fewer than 4", e.facts.CPUModel, plural(e.facts.CPUThreads, "thread"))}
	}
	return []finding{passing("%s, %d threads", e.facts.CPUModel, e.facts.CPUThreads)}
}

func checkMemory(_ context.Context, e *examination) []finding {
	switch total := e.host.RAMTotal; {
	case total == nil:
		return []finding{warning("free -h", "its size is unknown")}
	// A machine of 8 GB shows less, by what firmware and kernel keep.
	case *total < littleMemory*9/10:
		return []finding{warning("free -h   # jobs of 4K need more: keep jobs.max_concurrent at 1", "%s: 8 GiB are recommended", size(total))}
	default:
		return []finding{passing("%s, %s available", size(total), size(e.host.RAMFree))}
	}
}

// checkCgroups reports whether jobs get cgroups, and limits in them.
func checkCgroups(_ context.Context, e *examination) []finding {
	const fix = "sudo systemctl edit ffmpeg-agent   # [Service] Delegate=yes"
	text := ""
	if e.agent != nil {
		text = e.agent.Cgroups
	} else if runner, err := e.ffmpeg(); err == nil {
		text = runner.Cgroups()
	}
	switch {
	case strings.HasPrefix(text, "none"):
		return []finding{warning(fix, "%s: CPU time is read from the processes, and limits of jobs are approximate", text)}
	case strings.Contains(text, "without limits") && e.agent != nil:
		return []finding{warning(fix, "%s: limits of jobs are approximate", text)}
	case e.agent == nil:
		return []finding{passing("%s (as seen from this shell)", text)}
	}
	return []finding{passing("%s", text)}
}

// checkDocker tries the engine's socket.
func checkDocker(ctx context.Context, e *examination) []finding {
	socket := e.cfg.Hardware.DockerSocket
	if !e.cfg.Exporters.Docker.Enabled {
		return []finding{passing("not asked: exporters.docker.enabled is false")}
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", socket)
	switch {
	case err == nil:
		_ = conn.Close()
		return []finding{passing("engine on %s", socket)}
	case errors.Is(err, fs.ErrNotExist):
		return []finding{passing("no engine on this machine (%s)", socket)}
	case errors.Is(err, fs.ErrPermission):
		return []finding{warning(fmt.Sprintf("sudo usermod -aG docker %s   # then restart the agent", userName(e.agentUID)), "user %s may not open %s: no metrics of containers", userName(e.agentUID), socket)}
	}
	return []finding{warning("sudo systemctl start docker", "no metrics of containers: %v", err)}
}

// listener is a port that the agent serves.
type listener struct {
	key, server string // name of the configuration key, and of the server in the status
	port        int
	off         string // the key that turns it off; empty: it is on
}

func (e *examination) listeners() []listener {
	x := e.cfg.Exporters
	all := []listener{{"metrics_port", "agent-metrics", e.cfg.MetricsPort, ""}}
	if e.cfg.MetricsPort == 0 {
		all[0].off = "metrics_port is 0"
	}
	for _, exporter := range []struct {
		name string
		configs.Exporter
	}{{"cpu", x.CPU}, {"gpu", x.GPU}, {"ffmpeg", x.FFmpeg}, {"docker", x.Docker}} {
		l := listener{"exporters." + exporter.name + ".port", exporter.name + "-metrics", exporter.Port, ""}
		if !exporter.Enabled {
			l.off = "exporters." + exporter.name + ".enabled is false"
		}
		all = append(all, l)
	}
	return all
}

// checkPorts checks that each port is served by the running agent, else that it is free.
func checkPorts(ctx context.Context, e *examination) []finding {
	var findings []finding
	var good []string
	for _, l := range e.listeners() {
		name := fmt.Sprintf("port %d", l.port)
		fix := fmt.Sprintf("sudo ss -ltnp 'sport = :%d'   # stop that program, or %s", l.port, e.change(l.key, "a free port"))
		switch {
		case l.off != "":
			good = append(good, fmt.Sprintf("%s off (%s)", filepath.Base(l.server), l.off))
		case e.agent != nil:
			served, why := e.served(l.server)
			if why != "" {
				findings = append(findings, failed(fix, "%s", why).named(name))
			} else if served {
				good = append(good, fmt.Sprintf("%d", l.port))
			}
		default:
			conn, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(e.cfg.Exporters.ListenAddress, fmt.Sprint(l.port)))
			if err == nil {
				_ = conn.Close()
				good = append(good, fmt.Sprintf("%d", l.port))
				continue
			}
			findings = append(findings, e.takenPort(l, err, fix).named(name))
		}
	}
	state := "free"
	if e.agent != nil {
		state = "served"
	}
	if len(good) > 0 {
		findings = append(findings, passing("%s: %s", state, strings.Join(good, ", ")))
	}
	return findings
}

// takenPort judges a port that the agent could not listen on. One that a program of another user
// has may be the agent's, which only root can tell.
func (e *examination) takenPort(l listener, err error, fix string) finding {
	owner, known := portOwner(e.cfg.Hardware.ProcfsPath, l.port)
	switch {
	case !errors.Is(err, syscall.EADDRINUSE) || !known:
		return failed(fix, "%v (%s)", err, l.key)
	case os.Geteuid() == 0 || owner == fmt.Sprint(os.Geteuid()):
		return failed(fix, "in use by a program of user %s (%s)", userName(owner), l.key)
	}
	return warning(e.asRoot()+"   # if that program is the agent, else: "+fix, "in use by a program of user %s (%s)", userName(owner), l.key)
}

// portOwner is the user id of the program that listens on a TCP port of this machine, from the
// kernel's tables of sockets (proc(5), /proc/net/tcp).
func portOwner(procfs string, port int) (uid string, known bool) {
	const localAt, stateAt, uidAt, listening = 1, 3, 7, "0A"
	suffix := fmt.Sprintf(":%04X", port)
	for _, name := range []string{"tcp", "tcp6"} {
		table, _ := os.ReadFile(filepath.Join(procfs, "self/net", name)) // there may be no IPv6
		for line := range strings.Lines(string(table)) {
			fields := strings.Fields(line)
			if len(fields) > uidAt && fields[stateAt] == listening && strings.HasSuffix(fields[localAt], suffix) {
				return fields[uidAt], true
			}
		}
	}
	return "", false
}

// served reports whether the running agent serves a port, and if not, why.
func (e *examination) served(server string) (served bool, why string) {
	for _, l := range e.agent.Listeners {
		if l.Name == server {
			return l.Error == "", l.Error
		}
	}
	return false, ""
}
