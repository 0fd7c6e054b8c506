package configs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Container is the kind of container that the agent runs in.
type Container int

// The kinds of containers. Those with an init of their own, such as LXC's and systemd-nspawn's,
// are machines here: people name them.
const (
	NoContainer Container = iota
	EngineContainer
	Pod // of Kubernetes
)

// maxHostname is the length at which the kubelet cuts the name of a pod, in bytes.
const maxHostname = 63

var (
	// containerID is the host name that engines give to a container without one: its id, cut to
	// 12 digits or whole.
	containerID = regexp.MustCompile(`^[0-9a-f]{12,64}$`)
	// generatedPod is the end of the names that Kubernetes generates for the pods of Deployments,
	// DaemonSets and Jobs (k8s.io/apimachinery, SafeEncodeString). Those of StatefulSets end in
	// their number.
	generatedPod = regexp.MustCompile(`-[bcdfghjklmnpqrstvwxz2456789]{5}$`)
)

// isIdentity reports whether a host name distinguishes this node from others for longer than this
// process: names of machines that were given none do not, nor does the random name of a
// container or pod, which changes with each one.
func isIdentity(hostname string, in Container) bool {
	name, _, _ := strings.Cut(strings.ToLower(hostname), ".")
	switch name {
	case "", "localhost", "localhost4", "localhost6", "(none)":
		return false
	}
	if in != NoContainer && containerID.MatchString(name) {
		return false
	}
	// A name that was cut may have lost what made it unique.
	return in != Pod || !generatedPod.MatchString(name) && len(name) < maxHostname
}

var (
	// engineMount is a line of mountinfo: engines mount these files from the container's folder.
	engineMount = regexp.MustCompile(`(?m)^\d+ \d+ \d+:\d+ \S*/[0-9a-f]{64}/\S* /etc/(hostname|hosts|resolv\.conf) `)
	// engineCgroup is a line of /proc/PID/cgroup, such as 0::/system.slice/docker-ID.scope.
	engineCgroup = regexp.MustCompile(`(?m)[/:-][0-9a-f]{64}(\.scope)?$`)
)

// container returns the kind of container that a process with this environment runs in. root is
// the root of its file system.
func container(root string, environ map[string]string) Container {
	exists := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}
	matches := func(path string, line *regexp.Regexp) bool {
		text, err := os.ReadFile(filepath.Join(root, path))
		return err == nil && line.Match(text)
	}
	switch {
	case environ["KUBERNETES_SERVICE_HOST"] != "", exists("/var/run/secrets/kubernetes.io"):
		return Pod
	case exists("/.dockerenv"), exists("/run/.containerenv"), // Docker; Podman and CRI-O
		matches("/proc/self/mountinfo", engineMount), matches("/proc/self/cgroup", engineCgroup): // containerd
		return EngineContainer
	}
	return NoContainer
}
