package deployment

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// readFiles reads files of this folder and below.
func readFile(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestSystemdAcceptsTheUnit(t *testing.T) {
	readFile(t, "ffmpeg-agent.service") // makes it part of the test cache's key
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	// Commands must exist for systemd-analyze: stand-ins where this machine lacks them.
	unit := filepath.Join(t.TempDir(), "ffmpeg-agent.service")
	text := regexp.MustCompile(`(?m)^(Exec\w+)=agent `).ReplaceAllString(readFile(t, "ffmpeg-agent.service"), "$1=/bin/true ")
	if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput(); err != nil || strings.Contains(string(out), "ffmpeg-agent") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", unit).CombinedOutput()
	if strings.Contains(string(out), "nrecognized option") {
		t.Skip("this systemd-analyze cannot judge a file (systemd 250)")
	}
	if err != nil {
		t.Errorf("systemd-analyze security: %v, want an exposure of at most 2.0\n%s", err, out)
	}
}

// Each directive that hardening guides ask for is either set or named with the reason.
func TestUnitNamesWhatItLeavesOpen(t *testing.T) {
	text := readFile(t, "ffmpeg-agent.service")
	for _, directive := range []string{"PrivateTmp", "ProtectHome", "PrivateDevices", "PrivateUsers", "PrivateNetwork", "IPAddressDeny", "ProcSubset",
		"MemoryDenyWriteExecute", "RootDirectory", "UMask=0077", "ProtectSystem=strict", "SystemCallFilter=~@resources"} {
		if !regexp.MustCompile(`(?m)^#.*` + directive).MatchString(text) {
			t.Errorf("no comment says why %s is left out", directive)
		}
	}
}

// What the unit, the package and the installer name must be there, and what they hand out must agree.
func TestDeploymentFilesAgree(t *testing.T) {
	rules, users := readFile(t, "ffmpeg-agent.rules"), readFile(t, "ffmpeg-agent.sysusers")
	group := regexp.MustCompile(`chgrp (\w+) `).FindStringSubmatch(rules)
	if group == nil || !strings.Contains(users, "\nm ffmpeg "+group[1]+"\n") {
		t.Errorf("the udev rule's group %q is none of the user's", group)
	}
	if strings.Contains(rules, "0444") || strings.Contains(rules, "o+r") {
		t.Error("the udev rule lets everybody read the counters")
	}
	config := readFile(t, "deb/nfpm.yaml")
	for _, source := range regexp.MustCompile(`src: ([\w./-]+),`).FindAllStringSubmatch(config, -1) {
		if _, err := os.Stat(filepath.Join("..", source[1])); err != nil {
			t.Errorf("the package's source: %v", err)
		}
	}
	for _, script := range []string{"install.sh", "deb/postinst", "deb/prerm", "deb/postrm", "deb/version.sh", "deb/copyright.sh", "container/base.sh", "container/prometheus.sh", "container/tree.sh", "e2e/tree.sh", "e2e/boot.sh"} {
		if out, err := exec.Command("sh", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", script, err, out)
		}
		if info, err := os.Stat(script); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s cannot be executed: %v", script, err)
		}
	}
}

func TestDebianVersion(t *testing.T) {
	readFile(t, "deb/version.sh")
	for version, want := range map[string]string{
		"v1.2.0":                  "1.2.0",
		"v1.2.0-5-gabc1234-dirty": "1.2.0+5.gabc1234+dirty",
		"v1.2.0-rc1":              "1.2.0~rc1",
		"v1.2.0-rc1-3-gabc1234":   "1.2.0~rc1+3.gabc1234",
		"abc1234":                 "0.0.0~r330.gabc1234",
		"abc1234-dirty":           "0.0.0~r330.gabc1234+dirty",
		"unknown":                 "0.0.0~r330.gunknown",
		"1.5":                     "1.5",
	} {
		out, err := exec.Command("deb/version.sh", version, "330").Output()
		got := strings.TrimSpace(string(out))
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", version, got, err, want)
		}
		if dpkg, err := exec.LookPath("dpkg"); err == nil {
			if out, err := exec.Command(dpkg, "--validate-version", got).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", got, err, out)
			}
		}
	}
	for _, order := range [][2]string{{"v1.2.0-rc1", "v1.2.0"}, {"v1.2.0", "v1.2.0-1-gabc"}, {"v1.2.0-9-gabc", "v1.2.1"}, {"abc1234", "v0.1.0"}} {
		if _, err := exec.LookPath("dpkg"); err != nil {
			t.Skip("dpkg is not installed")
		}
		older, _ := exec.Command("deb/version.sh", order[0], "330").Output()
		newer, _ := exec.Command("deb/version.sh", order[1], "330").Output()
		if err := exec.Command("dpkg", "--compare-versions", strings.TrimSpace(string(older)), "lt", strings.TrimSpace(string(newer))).Run(); err != nil {
			t.Errorf("%s is not older than %s", older, newer)
		}
	}
}
