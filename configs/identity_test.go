package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const someID = "3f4e1a2b9c0d3f4e1a2b9c0d3f4e1a2b9c0d3f4e1a2b9c0d3f4e1a2b9c0d3f4e"

func TestAddressOfHostsWithoutAnIdentity(t *testing.T) {
	for name, test := range map[string]struct {
		hostname string
		in       Container
		identity bool
	}{
		"machine":                              {"box7", NoContainer, true},
		"container with a name":                {"worker-1", EngineContainer, true},
		"container without a name":             {someID[:12], EngineContainer, false},
		"container with its whole id":          {someID, EngineContainer, false},
		"container without a name in a domain": {someID[:12] + ".example.com", EngineContainer, false},
		"container named like a pod":           {"worker-x2x7k", EngineContainer, true},
		"machine named for its MAC":            {"525400123456", NoContainer, true},
		"machine named like a pod":             {"md-0-5d4f8c7b9-x2x7k", NoContainer, true},
		"pod of a StatefulSet":                 {"agent-0", Pod, true},
		"pod of a large StatefulSet":           {"agent-12", Pod, true},
		"pod that was given a name":            {"transcoder", Pod, true},
		"pod in the network of its node":       {"ip-10-0-3-17.ec2.internal", Pod, true},
		"pod with a long name in a domain":     {"agent-0.agent.a-namespace-with-a-name-of-many-words.svc.cluster.local", Pod, true},
		"cut name of a pod in a domain":        {strings.Repeat("agent-", 10) + "567.agent.svc.cluster.local", Pod, false},
		"pod of a Deployment":                  {"agent-5d4f8c7b9-x2x7k", Pod, false},
		"pod of a DaemonSet":                   {"agent-x2x7k", Pod, false},
		"pod whose name was cut":               {strings.Repeat("agent-", 10) + "567", Pod, false},
		"container in a pod without a name":    {someID[:12], Pod, false},
		"localhost":                            {"localhost", NoContainer, false},
		"localhost with a domain":              {"LocalHost.localdomain", NoContainer, false},
		"no host name":                         {"(none)", NoContainer, false},
		"empty host name":                      {"", NoContainer, false},
		"machine in localhost's company":       {"localhost-7", NoContainer, true},
	} {
		t.Run(name, func(t *testing.T) {
			src := machine(t)
			src.Hostname = func() (string, error) { return test.hostname, nil }
			src.Container = func() Container { return test.in }
			want := map[bool]string{true: test.hostname, false: "auto"}[test.identity]
			if got := mustLoad(t, src).Config.Node.Address; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestContainersAreRecognized(t *testing.T) {
	const root = "27 1 254:0 / / rw - ext4 /dev/vda rw\n"
	for name, test := range map[string]struct {
		files   map[string]string
		environ map[string]string
		want    Container
	}{
		"machine": {map[string]string{
			"proc/self/mountinfo": root + "40 27 0:30 / /run rw - tmpfs tmpfs rw\n",
			"proc/self/cgroup":    "0::/system.slice/ffmpeg-agent.service\n",
		}, nil, NoContainer},
		"machine whose root is an overlay": {map[string]string{
			"proc/self/mountinfo": "27 1 0:40 / / rw - overlay overlay rw\n41 27 0:22 /etc/resolv.conf /etc/resolv.conf ro - tmpfs tmpfs rw\n",
			"proc/self/cgroup":    "0::/init.scope\n",
		}, nil, NoContainer},
		"Docker":  {map[string]string{".dockerenv": ""}, nil, EngineContainer},
		"Podman":  {map[string]string{"run/.containerenv": ""}, nil, EngineContainer},
		"nerdctl": {map[string]string{"proc/self/mountinfo": root + "60 27 254:0 /var/lib/nerdctl/1935db59/containers/default/" + someID + "/hostname /etc/hostname rw - ext4 /dev/vda rw\n"}, nil, EngineContainer},
		"containerd, by the mounts": {map[string]string{
			"proc/self/mountinfo": root + "61 27 254:0 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/" + someID + "/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda rw\n",
		}, nil, EngineContainer},
		"containerd, by the cgroup":    {map[string]string{"proc/self/cgroup": "0::/system.slice/containerd.service/cri-containerd-" + someID + ".scope\n"}, nil, EngineContainer},
		"cgroup v1":                    {map[string]string{"proc/self/cgroup": "4:memory:/docker/" + someID + "\n0::/\n"}, nil, EngineContainer},
		"Kubernetes":                   {nil, map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, Pod},
		"Kubernetes, variables erased": {map[string]string{"var/run/secrets/kubernetes.io/serviceaccount/token": ""}, nil, Pod},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for path, text := range test.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := container(dir, test.environ); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}
