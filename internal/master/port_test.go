package master_test

import (
	"ffmpeg-agent/actors"
	"ffmpeg-agent/internal/master"
)

var _ actors.Master = (*master.Client)(nil)
