// Package guest runs tests in a small virtual machine that need more than the test machine may
// allow: cgroup v2 limits with all controllers, and the journal after a loss of power. It
// contains only tests, behind the build tag guest; `make guest` fetches what they need and runs
// them.
package guest
