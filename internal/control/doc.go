// Package control is how an operator on the same machine asks and steers a running
// agent: HTTP with JSON over a unix socket that only the agent's own user and root
// can open.
//
// It is no remote interface and has no passwords: the socket's mode is the one
// guard. It decides nothing: what a request does is up to the Handlers it is given.
// No answer carries a secret: of a job's parameters, which may hold stream keys,
// nothing is told.
package control
