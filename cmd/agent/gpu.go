package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware"
)

// nvmlCommand is the hidden command that runs as a child process and calls NVML.
const nvmlCommand = "nvml-child"

func newNVMLChild() *cobra.Command {
	return &cobra.Command{
		Use:    nvmlCommand,
		Short:  "Read GPUs through NVML for the parent process",
		Hidden: true,
		Args:   noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return hardware.ServeNVML(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

func newGPUCheck() *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{
		Use:    "gpu-check",
		Hidden: true, // run by make gpu-check
		Short:  "Compare the energy counter of each GPU with its integrated power",
		Long: `Measure the NVIDIA GPUs of this machine as the agent does while a job runs, and compare
each GPU's energy counter with its integrated power. Exit status 1 if there is no GPU or if one
cannot be measured.`,
		Example: "  agent gpu-check --for 1m",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if length < time.Second {
				return usageError{fmt.Errorf("--for %v: must be at least 1s", length)}
			}
			loaded, err := load(cmd)
			if err != nil {
				return err
			}
			return hardware.CheckGPU(cmd.Context(), nvmlConfig(loaded.Config), length, cmd.OutOrStdout())
		},
	}
	bindConfigFlag(cmd)
	cmd.Flags().DurationVar(&length, "for", 20*time.Second, "how long to measure")
	return cmd
}

func nvmlConfig(cfg configs.Config) hardware.NVMLConfig {
	return hardware.NVMLConfig{
		// This very binary, even if it has been replaced on disk: parent and child must be of
		// the same version.
		Command:    []string{self, nvmlCommand},
		Library:    cfg.Hardware.NVMLLibrary,
		ProcfsPath: cfg.Hardware.ProcfsPath,
	}
}
