package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// withDoubleDashes returns the arguments with a second dash before each long flag that has
// only one, as in -master=URL, so that start commands written for Go's flag package work.
// What is not exactly the name of a long flag of the command, the value of a flag, and what
// follows -- stay as they are. The result is never nil, which cobra takes for os.Args.
func withDoubleDashes(root *cobra.Command, args []string) []string {
	out := append([]string{}, args...)
	cmd := root
	for i := 0; i < len(out); i++ {
		arg := out[i]
		if arg == "--" {
			break
		}
		name, dashes := strings.TrimLeft(arg, "-"), len(arg)-len(strings.TrimLeft(arg, "-"))
		if dashes == 0 || name == "" {
			cmd = subcommand(cmd, arg)
			continue
		}
		name, _, hasValue := strings.Cut(name, "=")
		flag := longFlag(cmd, name)
		if dashes > 2 || flag == nil || len(name) < 2 {
			continue
		}
		if dashes == 1 {
			out[i] = "-" + arg
		}
		if !hasValue && flag.NoOptDefVal == "" {
			i++ // the next argument is its value
		}
	}
	return out
}

// subcommand returns the command's subcommand of this name, else the command itself.
func subcommand(cmd *cobra.Command, name string) *cobra.Command {
	i := slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == name || c.HasAlias(name) })
	if i < 0 {
		return cmd
	}
	return cmd.Commands()[i]
}

// longFlag returns the command's flag of this name; nil if there is none.
func longFlag(cmd *cobra.Command, name string) *pflag.Flag {
	cmd.InitDefaultHelpFlag()
	return cmd.Flag(name)
}
