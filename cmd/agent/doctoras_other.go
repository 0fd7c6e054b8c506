//go:build !linux

package main

import (
	"errors"

	"github.com/spf13/cobra"

	"ffmpeg-agent/internal/control"
)

const linesFlag = "lines"

func examineAs(*cobra.Command, control.Peer, string, func(finding)) {}

func environOf(control.Peer) ([]string, error) { return nil, errors.ErrUnsupported }
