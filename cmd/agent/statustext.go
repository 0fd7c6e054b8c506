package main

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// statusText formats a status for operators. Ages are relative to the time of the status.
func statusText(s *messages.Status) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("agent", "%s", agentText(s))
	row("node", "%s", nodeText(s))
	row("heartbeat", "%s", heartbeatText(s))
	row("jobs", "%s", jobsText(s))
	for i, text := range checkTexts(s.Checks) {
		row(firstOf("checks", i), "%s", text)
	}
	row("journal", "%s", journalText(s))
	row("power", "%s", powerText(s.Power, s.Source))
	row("host", "%s", hostText(s.Host))
	for i, text := range samplerTexts(s) {
		row(firstOf("samplers", i), "%s", text)
	}
	for _, l := range s.Listeners {
		if l.Error != "" {
			row("not served", "%s: %s", plain(l.Name), plain(l.Error))
		}
	}
	for i, text := range configurationTexts(s) {
		row(firstOf("configuration", i), "%s", text)
	}
	row("cgroups", "%s", cmp.Or(plain(s.Cgroups), unknown))
	for i, text := range sandboxTexts(s.Sandbox) {
		row(firstOf("sandbox", i), "%s", text)
	}
	w.Flush() //nolint:errcheck // a strings.Builder does not fail
	writeJobs(&b, s.Jobs)
	writeActors(&b, s)
	return b.String()
}

// firstOf is the name for the first of several rows, and empty for the others.
func firstOf(name string, i int) string {
	if i > 0 {
		return ""
	}
	return name
}

// sandboxTexts describe the layers of the sandbox around FFmpeg.
func sandboxTexts(s messages.Sandbox) []string {
	var present, missing []string
	for _, l := range s.Layers {
		switch {
		case l.Missing != "":
			missing = append(missing, fmt.Sprintf("without %s: %s", plain(l.Name), plain(l.Missing)))
		case l.Lacks != "":
			present = append(present, fmt.Sprintf("%s (not of %s)", plain(l.Name), plain(l.Lacks)))
		default:
			present = append(present, plain(l.Name))
		}
	}
	for _, e := range s.Encoders {
		missing = append(missing, fmt.Sprintf("%s works only without %s", plain(e.Name), plain(strings.Join(e.Without, ", "))))
	}
	switch {
	case s.Mode == "off":
		return []string{"off"}
	case len(present) == 0 && len(missing) == 0:
		return []string{unknown}
	}
	return append([]string{cmp.Or(strings.Join(present, ", "), "none")}, missing...)
}

func agentText(s *messages.Status) string {
	text := fmt.Sprintf("%s, pid %s, up %s", cmp.Or(plain(s.Version), unknown), nonZero(s.PID), since(s.At, s.StartedAt))
	if s.Draining {
		text += ", draining: taking no new jobs"
	}
	return text
}

func nodeText(s *messages.Status) string {
	if s.Session == nil {
		return cmp.Or(plain(s.Address), unknown) + ", not registered with a master"
	}
	return fmt.Sprintf("%s, registered as %s with %s %s ago", cmp.Or(plain(s.Address), unknown), plain(s.Session.NodeID),
		plain(s.Session.Master), since(s.At, s.Session.Since))
}

func heartbeatText(s *messages.Status) string {
	h := s.Heartbeat
	if h == nil || h.LastAttempt == nil {
		return "none sent so far"
	}
	last := "none answered so far"
	if h.LastSuccess != nil {
		last = fmt.Sprintf("last %s ago, at %s", since(s.At, *h.LastSuccess), clock(*h.LastSuccess))
	}
	text := fmt.Sprintf("%s; %d sent, %d failed", last, h.Sent, h.Failed)
	if h.Error != "" {
		text += fmt.Sprintf("; the last attempt, %s ago, failed: %s", since(s.At, *h.LastAttempt), plain(h.Error))
	}
	return text
}

func jobsText(s *messages.Status) string {
	c := s.Counts
	failed := fmt.Sprintf("%d failed", c.JobsFailed)
	if c.Failed != c.JobsFailed {
		failed += fmt.Sprintf(" in %s", plural(int(c.Failed), "attempt"))
	}
	return fmt.Sprintf("%d of %s slots in use; since the start %d completed, %s, %d canceled, %d superseded", len(s.Jobs), nonZero(s.Slots),
		c.JobsCompleted, failed, c.JobsCanceled, c.Superseded)
}

// checkTexts is a line for each failed check and one for all that passed.
func checkTexts(checks []messages.Check) []string {
	var passing, texts []string
	for _, c := range checks {
		if c.OK() {
			passing = append(passing, plain(c.Name))
		} else {
			texts = append(texts, fmt.Sprintf("FAILED %s: %s", plain(c.Name), plain(c.Reason)))
		}
	}
	if len(passing) > 0 {
		texts = append(texts, "ok: "+strings.Join(passing, ", "))
	}
	if len(texts) == 0 {
		return []string{unknown}
	}
	return texts
}

func journalText(s *messages.Status) string {
	j := s.Journal
	unsent := fmt.Sprintf("%d unsent", j.Unsent)
	if j.OldestAt != nil {
		unsent += fmt.Sprintf(" (oldest: %s)", since(s.At, *j.OldestAt))
	}
	text := fmt.Sprintf("%s, %d unfinished, %d sent, %d superseded, %s", unsent, j.Unfinished, j.Sent, j.Superseded, plural(j.DeadLetters, "dead letter"))
	if j.Error != "" {
		text += "; NOT WRITABLE: " + plain(j.Error)
	}
	return text
}

func powerText(watts *energy.Watts, source energy.Source) string {
	if watts == nil {
		return unknown
	}
	return fmt.Sprintf("%s W, %s", figure(watts, 1), source)
}

func hostText(h *messages.HostStatus) string {
	if h == nil {
		return unknown
	}
	text := fmt.Sprintf("CPU %s %%, free memory %s, free disk %s of %s", figure(h.CPULoadPercent, 0),
		size(h.RAMFreeBytes), size(h.DiskFreeBytes), size(h.DiskTotalBytes))
	if h.TemperatureC != nil {
		text += fmt.Sprintf(", %s °C", figure(h.TemperatureC, 0))
	}
	if h.Throttled {
		text += ", thermally throttled"
	}
	return text
}

func samplerTexts(s *messages.Status) []string {
	var texts []string
	for _, h := range s.Samplers {
		text := fmt.Sprintf("%s: %s, %s, for %s", plain(h.Name), cmp.Or(plain(h.Source), unknown), plural(h.Zones, "zone"), since(s.At, h.Since))
		switch {
		case h.Absent != "":
			text = fmt.Sprintf("%s: %s", plain(h.Name), plain(h.Absent))
		case h.Error != "":
			text = fmt.Sprintf("%s: unavailable for %s: %s", plain(h.Name), since(s.At, h.Since), plain(h.Error))
		}
		texts = append(texts, text)
	}
	if e := s.Engine; e != nil {
		text := fmt.Sprintf("docker: %s, for %s", plural(e.Containers, "container"), since(s.At, e.Since))
		switch {
		case e.Absent != "":
			text = "docker: " + plain(e.Absent)
		case e.Error != "":
			text = fmt.Sprintf("docker: unavailable for %s: %s", since(s.At, e.Since), plain(e.Error))
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return []string{unknown}
	}
	return texts
}

// configurationTexts describe the configuration in force; none where it does not change.
func configurationTexts(s *messages.Status) []string {
	c := s.Configuration
	if c == nil {
		return nil
	}
	texts := []string{fmt.Sprintf("%s, loaded %s ago, at %s", cmp.Or(plain(c.File), "no file"), since(s.At, c.LoadedAt), clock(c.LoadedAt))}
	if len(c.Restart) > 0 {
		texts = append(texts, "changed, but needs a restart of the agent: "+plain(strings.Join(c.Restart, ", ")))
	}
	if c.Error != "" && c.ErrorAt != nil {
		texts = append(texts, fmt.Sprintf("RELOAD FAILED %s ago, nothing has changed: %s", since(s.At, *c.ErrorAt), plain(c.Error)))
	}
	return texts
}

func writeJobs(b *strings.Builder, jobs []messages.JobStatus) {
	for i := range jobs {
		j := &jobs[i]
		fmt.Fprintf(b, "\n%s  %s  %s  %s\n", plain(j.Key.String()), cmp.Or(plain(j.Scenario), unknown), j.Phase, cmp.Or(plain(j.Encoder), unknown))
		if j.PID != 0 {
			fmt.Fprintf(b, "  ffmpeg pid %d\n", j.PID)
		}
		fmt.Fprintf(b, "  %s\n", progressText(j))
	}
}

// fetchText is how far the input was fetched.
func fetchText(f *job.Fetch) string {
	text := sizeOf(f.Bytes)
	percent := 0.0
	if f.Total > 0 {
		text += " of " + sizeOf(f.Total)
		percent = 100 * float64(f.Bytes) / float64(f.Total)
	}
	if f.Segments > 0 {
		text += fmt.Sprintf(", %d of %d segments", f.Segment, f.Segments)
		percent = 100 * float64(f.Segment) / float64(f.Segments)
	}
	if f.Resumed > 0 {
		text += fmt.Sprintf(", resumed %d times", f.Resumed)
	}
	return fmt.Sprintf("%s %4s %%  fetching the input: %s", bar(percent), positive(percent, 0), text)
}

func progressText(j *messages.JobStatus) string {
	if j.Phase == job.PhaseFetch && j.Fetch != nil {
		return fetchText(j.Fetch)
	}
	p := j.Progress
	eta := unknown
	if j.ETA != nil {
		eta = span(time.Duration(*j.ETA))
	}
	text := fmt.Sprintf("%s %4s %%  %s fps  %sx  ETA %s  %s W  %s J", bar(p.Percent), positive(p.Percent, 0), positive(p.FPS, 1),
		positive(p.Speed, 2), eta, figure(j.Power, 1), figure(j.Energy, 1))
	if j.Power != nil || j.Energy != nil {
		text += fmt.Sprintf(" (%s)", j.Source)
	}
	return text
}
