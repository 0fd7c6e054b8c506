package configs

import "testing"

func TestAddressOfHostsWithoutAnIdentity(t *testing.T) {
	for name, test := range map[string]struct {
		hostname  string
		container bool
		want      string
	}{
		"machine":                        {"box7", false, "box7"},
		"container with a name":          {"worker-1", true, "worker-1"},
		"container without a name":       {"3f4e1a2b9c0d", true, "auto"},
		"machine named for its MAC":      {"525400123456", false, "525400123456"},
		"localhost":                      {"localhost", false, "auto"},
		"localhost with a domain":        {"LocalHost.localdomain", false, "auto"},
		"no host name":                   {"(none)", false, "auto"},
		"empty host name":                {"", false, "auto"},
		"machine in localhost's company": {"localhost-7", false, "localhost-7"},
	} {
		t.Run(name, func(t *testing.T) {
			src := machine(t)
			src.Hostname = func() (string, error) { return test.hostname, nil }
			src.InContainer = func() bool { return test.container }
			if got := mustLoad(t, src).Config.Node.Address; got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
