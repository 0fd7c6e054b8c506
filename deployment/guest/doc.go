// Package guest proves in a small virtual machine what this machine may not let a test do:
// limits by a cgroup v2 tree with all controllers, and what a loss of power leaves of
// the journal. It has no code of its own but tests, behind the build tag guest; `make guest`
// fetches what they need and runs them.
package guest
