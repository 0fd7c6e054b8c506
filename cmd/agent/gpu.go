package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware"
)

// nvmlCommand is the hidden command line of the child that calls the vendor's library.
const nvmlCommand = "nvml-child"

// self is this very program, also when a newer one has taken its place on disk: parent
// and child must be of one version.
const self = "/proc/self/exe"

func newNVMLChild() *cobra.Command {
	return &cobra.Command{
		Use:    nvmlCommand,
		Short:  "Read graphics cards for the agent that started this process",
		Hidden: true,
		Args:   noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return hardware.ServeNVML(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// checkLength is how long the cards are measured for a check.
const checkLength = 20 * time.Second

func newGPUCheck() *cobra.Command {
	length := checkLength
	cmd := &cobra.Command{
		Use:    "gpu-check", // make gpu-check
		Hidden: true,
		Short:  "Measure this machine's graphics cards, and compare counter with power",
		Long: `Read the NVIDIA cards of this machine just as the agent does while a job runs, and compare
each one's energy counter with its power, integrated. Exit status 1 where there is no card, or one
cannot be measured.`,
		Example: "  agent gpu-check --for 1m",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if length < time.Second {
				return usageError{fmt.Errorf("--for %v: 1s at least", length)}
			}
			loaded, err := load(cmd)
			if err != nil {
				return err
			}
			return hardware.CheckGPU(cmd.Context(), nvmlConfig(loaded.Config), length, cmd.OutOrStdout())
		},
	}
	cmd.Flags().String("config", "", "the agent's YAML `file` (default "+configs.DefaultFile+", if present)")
	cmd.Flags().DurationVar(&length, "for", checkLength, "how long to measure")
	return cmd
}

func nvmlConfig(cfg configs.Config) hardware.NVMLConfig {
	return hardware.NVMLConfig{
		Command:    []string{self, nvmlCommand},
		Library:    cfg.Hardware.NVMLLibrary,
		ProcfsPath: cfg.Hardware.ProcfsPath,
	}
}

func openGPUs(cfg configs.Config) (actors.GPUSensors, error) {
	cards, err := hardware.OpenNVML(nvmlConfig(cfg))
	switch {
	case errors.Is(err, hardware.ErrNoNVML):
		return nil, &actors.NoSensorsError{Reason: err}
	case err != nil:
		return nil, err
	}
	return cards, nil
}
