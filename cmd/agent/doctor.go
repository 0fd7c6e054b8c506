package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// findingState is the outcome of a check.
type findingState string

const (
	findingOK      findingState = "ok"
	findingWarning findingState = "warning" // the agent works, but not as it could
	findingFailed  findingState = "failed"  // the agent does not work
)

// finding is the outcome of one check, as printed.
type finding struct {
	Name    string       `json:"name"`
	State   findingState `json:"state"`
	Message string       `json:"message"`
	Fix     string       `json:"fix,omitempty"` // a command, or what to change; empty if the check is ok
}

func passing(format string, args ...any) finding {
	return finding{State: findingOK, Message: fmt.Sprintf(format, args...)}
}

func warning(fix, format string, args ...any) finding {
	return finding{State: findingWarning, Message: fmt.Sprintf(format, args...), Fix: fix}
}

func failed(fix, format string, args ...any) finding {
	return finding{State: findingFailed, Message: fmt.Sprintf(format, args...), Fix: fix}
}

// named gives a finding another name than its check's.
func (f finding) named(name string) finding {
	f.Name = name
	return f
}

// doctorCheck is one precondition of running the agent. It may return several findings, such as one
// for each port.
type doctorCheck struct {
	name  string
	needs string // a check without which this one says nothing: left out unless that one passed
	// rights: what it says is true only of the user that makes it, so that it is left out where
	// that is not the agent's, and the agent cannot be asked.
	rights bool
	run    func(context.Context, *examination) []finding
}

// doctorChecks are all checks, causes before what they affect.
var doctorChecks = []doctorCheck{
	{name: "agent", run: checkAgent},
	{name: "proxy", run: checkProxy},
	{name: "master", needs: "proxy", run: checkMaster},
	{name: "master host", run: checkMasterIsElsewhere},
	{name: "clock", needs: "master", run: checkClock},
	{name: "client certificate", run: checkClientCertificate},
	{name: "secret files", run: checkSecretFiles},
	{name: "key", needs: "master", run: checkKey},
	{name: "node", needs: "key", run: checkNode},
	{name: "taking jobs", run: checkTakingJobs},
	{name: "waiting jobs", needs: "key", run: checkWaitingJobs},
	{name: "data directory", rights: true, run: checkDataDir},
	{name: "journal", needs: "data directory", rights: true, run: checkJournal},
	{name: "disk", run: checkDisk},
	{name: "ffmpeg", run: checkFFmpeg},
	{name: "encoders", needs: "ffmpeg", run: checkEncoders},
	{name: "sandbox", needs: "ffmpeg", run: checkSandbox},
	{name: "secrets", needs: "ffmpeg", run: checkSecrets},
	{name: "processors", run: checkProcessors},
	{name: "memory", run: checkMemory},
	{name: "cgroups", rights: true, run: checkCgroups},
	{name: "CPU energy", rights: true, run: checkCPUEnergy},
	{name: "GPU", rights: true, run: checkGPU},
	{name: "Docker", rights: true, run: checkDocker},
	{name: "ports", rights: true, run: checkPorts},
}

func newDoctor() *cobra.Command {
	var asJSON, asLines bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything the agent needs, and say how to fix what is wrong",
		Long: `Check everything the agent needs: the master, its key and certificates, FFmpeg, sensors,
disk, ports. Each failure comes with the command that fixes it. It changes nothing, and
runs beside a running agent or without one; run by root beside the agent of another user, it
makes the checks as that user. It takes the flags of agent run: give those that the agent is
started with. Exit status 1 if a check failed; warnings do not count.`,
		Example: "  agent doctor\n  sudo -u ffmpeg agent doctor\n  agent doctor --json | jq '.checks[] | select(.state != \"ok\")'",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			print := newFindingPrinter(cmd.OutOrStdout())
			switch {
			case asLines:
				lines := json.NewEncoder(cmd.OutOrStdout())
				print = func(f finding) { _ = lines.Encode(f) } // the reader notices what is missing
			case asJSON:
				print = func(finding) {}
			}
			findings := examine(cmd, doctorChecks, print)
			switch {
			case asLines:
			case asJSON:
				if err := printFindingsJSON(cmd.OutOrStdout(), findings); err != nil {
					return err
				}
			default:
				fmt.Fprintf(cmd.OutOrStdout(), "\n%s\n", summary(findings))
			}
			if count(findings, findingFailed) > 0 {
				return errSilent
			}
			return nil
		},
	}
	bindHiddenFlags(cmd)
	cmd.Flags().String("socket", "", "`path` of the agent's control socket (default from its configuration)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&asLines, linesFlag, false, "print each finding as a line of JSON")
	_ = cmd.Flags().MarkHidden(linesFlag) // see examineAs
	return cmd
}

// errSilent makes a command fail whose output already says why.
var errSilent = errors.New("")

// examine runs the checks, and passes each finding on as it is made.
func examine(cmd *cobra.Command, checks []doctorCheck, report func(finding)) []finding {
	var all []finding
	add := func(name string, findings []finding) (passed bool) {
		passed = true
		for _, f := range findings {
			f.Name = cmp.Or(f.Name, name)
			f.Message, f.Fix = plain(f.Message), plain(f.Fix)
			all = append(all, f)
			report(f)
			passed = passed && f.State != findingFailed
		}
		return passed
	}
	e, client := askAgent(cmd)
	if e.agent != nil && e.peer.Known && e.peer.UID != 0 && os.Geteuid() == 0 {
		examineAs(cmd, e.peer, client.Socket(), func(f finding) { add("", []finding{f}) })
		return all
	}
	findings, valid := e.prepare(cmd)
	add("configuration", findings)
	if !valid {
		return all
	}
	defer e.close()
	passed := map[string]bool{"": true}
	for _, c := range checks {
		if passed[c.needs] && !(c.rights && e.forbidden()) {
			passed[c.name] = add(c.name, c.run(cmd.Context(), e))
		}
	}
	return all
}

func count(findings []finding, state findingState) (n int) {
	for _, f := range findings {
		if f.State == state {
			n++
		}
	}
	return n
}

// newFindingPrinter prints each finding on a line, and how to fix it on the next.
func newFindingPrinter(out io.Writer) func(finding) {
	states := map[findingState]string{findingOK: "ok", findingWarning: "warning", findingFailed: "FAILED"}
	width := max(20, min(findingWidth, terminalWidth(out, findingWidth+findingIndent)-findingIndent))
	return func(f finding) {
		for i, line := range wrapped(f.Message, width) {
			state, name := "", ""
			if i == 0 {
				state, name = states[f.State], f.Name
			}
			fmt.Fprintf(out, "%-8s %-18s %s\n", state, name, line)
		}
		if f.Fix != "" { // on one line, to be copied
			fmt.Fprintf(out, "%-8s %-18s fix: %s\n", "", "", f.Fix)
		}
	}
}

// Columns of a message, and before it.
const (
	findingWidth  = 92
	findingIndent = 28
)

// wrapped breaks a text into lines of up to width columns.
func wrapped(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// summary counts the findings and names the failed checks.
func summary(findings []finding) string {
	failures, warnings := count(findings, findingFailed), count(findings, findingWarning)
	text := fmt.Sprintf("%s, %s, %d ok", plural(failures, "failure"), plural(warnings, "warning"), count(findings, findingOK))
	if failures == 0 {
		return text
	}
	var names []string
	for _, f := range findings {
		if f.State == findingFailed && !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	return text + ". Failed: " + strings.Join(names, ", ") + ". Checks that depend on a failed one were left out."
}

func printFindingsJSON(out io.Writer, findings []finding) error {
	return printJSON(out, "findings", struct {
		OK     bool      `json:"ok"`
		Checks []finding `json:"checks"`
	}{count(findings, findingFailed) == 0, findings})
}

// userName is the name of a user, else its id.
func userName(uid string) string {
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}
