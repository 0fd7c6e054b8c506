package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const helpWidth = 80 // columns

// writeHelp writes the help of a command. Cobra's takes more lines and columns than a screen has.
func writeHelp(out io.Writer, cmd *cobra.Command) {
	var b strings.Builder
	for _, line := range wrapped(cmp.Or(cmd.Long, cmd.Short), helpWidth) {
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintf(&b, "\nUsage: %s\n", cmd.UseLine())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "       %s COMMAND\n", cmd.CommandPath())
	}
	if strings.Contains(cmd.Example, "\n") {
		fmt.Fprintf(&b, "Examples:\n%s\n", cmd.Example)
	} else if cmd.Example != "" {
		fmt.Fprintf(&b, "Example: %s\n", strings.TrimSpace(cmd.Example))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprint(&b, "\nCommands:\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&b, "  %-9s  %s\n", c.Name(), c.Short)
			}
		}
		fmt.Fprintf(&b, "\nRun %s COMMAND --help for details of a command.\n", cmd.CommandPath())
	}
	writeFlags(&b, cmd.LocalFlags())
	_, _ = io.WriteString(out, b.String())
}

// writeFlags writes a line for each flag but --help.
func writeFlags(b *strings.Builder, flags *pflag.FlagSet) {
	var names, texts []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		name := "  --" + f.Name
		if f.Shorthand != "" {
			name = "  -" + f.Shorthand + ", --" + f.Name
		}
		if value != "" && f.NoOptDefVal == "" { // it takes a value
			name += " " + value
		}
		if !slices.Contains([]string{"", "0", "false"}, f.DefValue) {
			text += " (default " + f.DefValue + ")"
		}
		names, texts = append(names, name), append(texts, text)
	})
	if len(names) == 0 {
		return
	}
	fmt.Fprint(b, "\nFlags:\n")
	width := len(slices.MaxFunc(names, func(a, b string) int { return len(a) - len(b) })) + 2
	for i, text := range texts {
		for j, line := range wrapped(text, helpWidth-width) {
			fmt.Fprintf(b, "%-*s%s\n", width, firstOf(names[i], j), line)
		}
	}
}
