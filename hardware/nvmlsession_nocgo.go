//go:build !linux || !cgo

package hardware

// nvmlSession is never opened in a binary without cgo.
type nvmlSession struct{}

func openNVMLSession(nvmlSetup) (*nvmlSession, *nvmlFailure) {
	return nil, &nvmlFailure{Missing: true, Reason: "this binary was built without cgo, which NVML needs"}
}

func (*nvmlSession) read(bool) nvmlResponse { return nvmlResponse{} }
func (*nvmlSession) close()                 {}
