//go:build !linux || !cgo

package hardware

// nvmlSession is never opened in a binary that cannot call NVML.
type nvmlSession struct{}

func openNVMLSession(nvmlSetup) (*nvmlSession, *nvmlFailure) {
	return nil, &nvmlFailure{None: true, Reason: "this binary was built without cgo, which NVML needs"}
}

func (*nvmlSession) look(bool) nvmlAnswer { return nvmlAnswer{} }
func (*nvmlSession) close()               {}
