package chaos

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
)

// network is how an agent is reached: in a network namespace of its own behind a pair
// of interfaces, or on the loopback address, where its link cannot be taken down.
type network struct {
	namespace string // empty: none
	device    string // our end
	host      string // our address, which the agent finds its master at
	agent     string // the agent's address
}

// loopback is the network of an agent without a namespace.
func loopback() *network { return &network{host: "127.0.0.1", agent: "127.0.0.1"} }

// newNetwork makes a namespace for the agent of a number. The addresses are of the block
// that is set apart for tests between networks (RFC 2544). A name is distinguished from those of
// other runs by this process's number.
func newNetwork(agent int) (*network, error) {
	id := os.Getpid() % 10000
	n := &network{
		namespace: fmt.Sprintf("chaos-%d-%d", os.Getpid(), agent),
		device:    fmt.Sprintf("chaos%d-%d", id, agent),
		host:      fmt.Sprintf("198.18.%d.%d", id%250, 4*agent+1),
		agent:     fmt.Sprintf("198.18.%d.%d", id%250, 4*agent+2),
	}
	peer := n.device + "p"
	for _, step := range [][]string{
		{"netns", "add", n.namespace},
		{"link", "add", n.device, "type", "veth", "peer", "name", peer},
		{"link", "set", peer, "netns", n.namespace},
		{"addr", "add", n.host + "/30", "dev", n.device},
		{"link", "set", n.device, "up"},
		{"-n", n.namespace, "addr", "add", n.agent + "/30", "dev", peer},
		{"-n", n.namespace, "link", "set", "lo", "up"},
		{"-n", n.namespace, "link", "set", peer, "up"},
	} {
		if err := runCommand("ip", step...); err != nil {
			n.remove()
			return nil, err
		}
	}
	if err := runCommand("nsenter", "--net="+n.path(), "true"); err != nil {
		n.remove()
		return nil, err
	}
	return n, nil
}

func (n *network) path() string { return "/run/netns/" + n.namespace }

// command is the command line that runs a program in the network.
func (n *network) command(argv []string) []string {
	if n.namespace == "" {
		return argv
	}
	return append([]string{"nsenter", "--net=" + n.path()}, argv...)
}

// setLink takes the link down or up again.
func (n *network) setLink(up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return runCommand("ip", "link", "set", n.device, state)
}

func (n *network) remove() {
	if n.namespace != "" {
		_ = runCommand("ip", "link", "del", n.device) // fails if it was not created
		_ = runCommand("ip", "netns", "del", n.namespace)
	}
}

func runCommand(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// freePorts finds unused ports.
func freePorts(n int) ([]int, error) {
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
