// Package e2e tests the agent as a service, in a Debian that systemd has booted: "make e2e"
// boots one in a container, "make guest" in a virtual machine. The test itself runs in there,
// as e2e.service, and does what an operator does by README.md.
package e2e
