package configs

import (
	"os"
	"regexp"
	"strings"
)

// containerID is the host name that Docker and Podman give to a container without one.
var containerID = regexp.MustCompile(`^[0-9a-f]{12}$`)

// isIdentity reports whether a host name distinguishes this node from others: names of machines that
// were given none do not, nor does the random name of a container, which changes with each one.
func isIdentity(hostname string, inContainer bool) bool {
	switch name, _, _ := strings.Cut(strings.ToLower(hostname), "."); name {
	case "", "localhost", "localhost4", "localhost6", "(none)":
		return false
	}
	return !inContainer || !containerID.MatchString(hostname)
}

// inContainer reports whether this process runs in a container of Docker or Podman.
func inContainer() bool {
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	return false
}
