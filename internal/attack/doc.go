// Package attack attacks the real agent (bin/agent) in the ways that THREATS.md lists, and
// prints what held. It contains only tests, behind the build tag attack; `make attack` runs
// them.
package attack
