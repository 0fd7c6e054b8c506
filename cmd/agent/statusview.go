package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
)

// unknown stands where a figure is not known.
const unknown = "-"

// statusText is a status for people. Ages are as of the moment it was taken.
func statusText(s *messages.Status) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("agent", "%s", agentText(s))
	row("node", "%s", nodeText(s))
	row("heartbeat", "%s", heartbeatText(s))
	row("jobs", "%s", workText(s))
	for i, text := range checkTexts(s.Checks) {
		row(heading("checks", i), "%s", text)
	}
	row("journal", "%s", journalText(s))
	row("power", "%s", powerText(s.Power, s.Source))
	row("host", "%s", hostText(s.Host))
	for i, text := range samplerTexts(s) {
		row(heading("samplers", i), "%s", text)
	}
	for _, l := range s.Listeners {
		if l.Error != "" {
			row("not served", "%s: %s", plain(l.Name), plain(l.Error))
		}
	}
	row("cgroups", "%s", or(plain(s.Cgroups), unknown))
	w.Flush() //nolint:errcheck // a builder takes everything
	writeJobs(&b, s.Jobs)
	writeActors(&b, s)
	return b.String()
}

// heading names the first of several rows.
func heading(name string, i int) string {
	if i > 0 {
		return ""
	}
	return name
}

func agentText(s *messages.Status) string {
	text := fmt.Sprintf("%s, pid %s, up %s", or(plain(s.Version), unknown), count(s.PID), since(s.At, s.StartedAt))
	if s.Draining {
		text += ", draining: no new job is taken"
	}
	return text
}

func nodeText(s *messages.Status) string {
	if s.Session == nil {
		return or(plain(s.Address), unknown) + ", not registered with a master yet"
	}
	return fmt.Sprintf("%s, registered as %s with %s %s ago", or(plain(s.Address), unknown), plain(s.Session.NodeID),
		plain(s.Session.Master), since(s.At, s.Session.Since))
}

func heartbeatText(s *messages.Status) string {
	h := s.Heartbeat
	if h == nil || h.LastAttempt == nil {
		return "none sent yet"
	}
	last := "none arrived yet"
	if h.LastSuccess != nil {
		last = fmt.Sprintf("last %s ago, at %s", since(s.At, *h.LastSuccess), clock(*h.LastSuccess))
	}
	text := fmt.Sprintf("%s; %d sent, %d failed", last, h.Sent, h.Failed)
	if h.Error != "" {
		text += fmt.Sprintf("; the last try, %s ago, failed: %s", since(s.At, *h.LastAttempt), plain(h.Error))
	}
	return text
}

func workText(s *messages.Status) string {
	c := s.Counts
	return fmt.Sprintf("%d running of %s at most; %d completed, %d failed, %d canceled, %d superseded", len(s.Jobs), count(s.Slots),
		c.Completed, c.Failed, c.Canceled, c.Superseded)
}

// checkTexts names what passes in one line and each failure in one of its own.
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
		unsent += fmt.Sprintf(" (the oldest for %s)", since(s.At, *j.OldestAt))
	}
	text := fmt.Sprintf("%s, %d unfinished, %d sent, %d superseded, %s", unsent, j.Unfinished, j.Sent, j.Superseded, several(j.DeadLetters, "dead letter"))
	if j.Error != "" {
		text += "; CANNOT BE WRITTEN: " + plain(j.Error)
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
		text += ", slowed down by heat"
	}
	return text
}

func samplerTexts(s *messages.Status) []string {
	var texts []string
	for _, h := range s.Samplers {
		text := fmt.Sprintf("%s: %s, %s, for %s", plain(h.Name), or(plain(h.Source), unknown), several(h.Zones, "zone"), since(s.At, h.Since))
		switch {
		case h.Absent != "":
			text = fmt.Sprintf("%s: %s", plain(h.Name), plain(h.Absent))
		case h.Error != "":
			text = fmt.Sprintf("%s: unavailable for %s: %s", plain(h.Name), since(s.At, h.Since), plain(h.Error))
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return []string{unknown}
	}
	return texts
}

func writeJobs(b *strings.Builder, jobs []messages.JobStatus) {
	for i := range jobs {
		j := &jobs[i]
		fmt.Fprintf(b, "\n%s  %s  %s  %s\n", plain(j.Key.String()), or(plain(j.Scenario), unknown), j.Phase, or(plain(j.Encoder), unknown))
		if j.PID != 0 {
			fmt.Fprintf(b, "  ffmpeg is pid %d\n", j.PID)
		}
		fmt.Fprintf(b, "  %s\n", progressText(j))
	}
}

func progressText(j *messages.JobStatus) string {
	p := j.Progress
	left := unknown
	if j.ETA != nil {
		left = span(*j.ETA)
	}
	text := fmt.Sprintf("%s %4s %%  %s fps  %sx  ETA %s  %s W  %s J", bar(p.Percent), positive(p.Percent, 0), positive(p.FPS, 1),
		positive(p.Speed, 2), left, figure(j.Power, 1), figure(j.Energy, 1))
	if j.Power != nil || j.Energy != nil {
		text += fmt.Sprintf(" (%s)", j.Source)
	}
	return text
}

// actorNode is an actor in its tree.
type actorNode struct {
	status   *messages.ActorStatus // nil where only its children are known
	children map[string]*actorNode
}

func (n *actorNode) child(name string) *actorNode {
	if n.children == nil {
		n.children = map[string]*actorNode{}
	}
	if n.children[name] == nil {
		n.children[name] = &actorNode{}
	}
	return n.children[name]
}

func writeActors(b *strings.Builder, s *messages.Status) {
	if len(s.Actors) == 0 {
		return
	}
	b.WriteByte('\n')
	top := &actorNode{}
	for i := range s.Actors {
		at := top
		for _, name := range strings.Split(s.Actors[i].Path, "/") {
			at = at.child(name)
		}
		at.status = &s.Actors[i]
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "actor\tstate\trestarts\tmailbox\tlast failure")
	for _, name := range slices.Sorted(maps.Keys(top.children)) {
		top.children[name].write(w, s.At, name, "", "")
	}
	w.Flush() //nolint:errcheck // a builder takes everything
	for line := range strings.Lines(table.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
}

// write draws an actor behind its branch, and its children behind the stem.
func (n *actorNode) write(w *tabwriter.Writer, now time.Time, name, branch, stem string) {
	state, restarts, mailbox, failure := unknown, unknown, unknown, ""
	if a := n.status; a != nil {
		state, restarts, mailbox, failure = or(plain(a.State), unknown), fmt.Sprint(a.Restarts), fmt.Sprint(a.MailboxDepth), failureText(now, a)
	}
	fmt.Fprintln(w, strings.Join([]string{branch + plain(name), state, restarts, mailbox, failure}, "\t"))
	names := slices.Sorted(maps.Keys(n.children))
	for i, child := range names {
		fork, line := "├─ ", "│  "
		if i == len(names)-1 {
			fork, line = "└─ ", "   "
		}
		n.children[child].write(w, now, child, stem+fork, stem+line)
	}
}

func failureText(now time.Time, a *messages.ActorStatus) string {
	var parts []string
	if a.LastFailure != "" {
		text := plain(a.LastFailure)
		if a.LastFailureAt != nil {
			text = fmt.Sprintf("%s ago: %s", since(now, *a.LastFailureAt), text)
		}
		parts = append(parts, text)
	}
	if a.Abandoned > 0 {
		parts = append(parts, fmt.Sprintf("hung and replaced %d times", a.Abandoned))
	}
	if a.Dropped > 0 {
		parts = append(parts, fmt.Sprintf("%d messages dropped", a.Dropped))
	}
	return strings.Join(parts, "; ")
}

// or is text, or what stands for it where there is none.
func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// plain is one line of text from elsewhere without what would steer a terminal.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
}

// count is a number that is not known while it is 0.
func count(n int) string {
	if n == 0 {
		return unknown
	}
	return fmt.Sprint(n)
}

// positive is a figure that is not known while it is 0.
func positive(f float64, digits int) string {
	if !(f > 0) {
		return unknown
	}
	return fmt.Sprintf("%.*f", digits, f)
}

// figure is a figure with so many digits, or a dash where it is not known.
func figure[F ~float64](f *F, digits int) string {
	if f == nil {
		return unknown
	}
	return fmt.Sprintf("%.*f", digits, float64(*f))
}

// size is an amount of bytes in the largest fitting unit.
func size(bytes *uint64) string {
	if bytes == nil {
		return unknown
	}
	value, unit := float64(*bytes), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for value >= 1024 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", *bytes)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

// since is how long ago a moment was.
func since(now, then time.Time) string {
	if then.IsZero() || now.IsZero() {
		return unknown
	}
	return span(now.Sub(then))
}

// span is a duration as precise as people want it: 1.4s, 42s, 3m5s, 2h7m, 5d3h.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(0, d); {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 2*day:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", d/day, int(d.Hours())%24)
}

// clock is a moment in UTC.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
