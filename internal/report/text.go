package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"ffmpeg-agent/messages/job"
)

const (
	textWidth    = 90 // maximum width of a paragraph
	textLogLines = 5  // lines of FFmpeg's log shown for a failure
)

// plainSpaces replaces the page's non-breaking spaces, so that numbers can be searched for
// and copied.
var plainSpaces = strings.NewReplacer(thinSpace, "", hardSpace, " ")

// Text writes records[selected] for a terminal. The other records must be the other attempts
// of the same job.
func Text(w io.Writer, records []job.Record, selected int) error {
	p, err := newPage(records, selected)
	if err != nil {
		return err
	}
	var b strings.Builder
	p.writeSummary(&b)
	if records[selected].StartedAt != nil {
		writeFacts(&b, "encode", p.Encode)
		writeFacts(&b, "quality", p.Quality)
		p.writeRenditions(&b)
	}
	p.writeEnergy(&b)
	p.writeLog(&b)
	p.writeAttempts(&b)
	_, err = io.WriteString(w, plainSpaces.Replace(b.String()))
	return err
}

func (p *page) writeSummary(b *strings.Builder) {
	facts := []fact{{Name: "job", Value: p.Job}, {Name: "scenario", Value: p.Scenario}, {Name: "outcome", Value: p.Outcome.Text}}
	if p.Failure != nil {
		facts = append(facts, fact{Name: "failure", Value: p.Failure.Name + ": " + p.Failure.Value})
	}
	writeColumns(b, "", append(facts, p.Meta...))
	if len(p.Problems) > 0 {
		b.WriteString("\nproblems (--json prints the result unchanged)\n")
		writeParagraphs(b, p.Problems)
	}
}

func (p *page) writeEnergy(b *strings.Builder) {
	h := &p.Headline
	b.WriteString("\nenergy: ")
	if h.Exact != "" {
		fmt.Fprintf(b, "%s %s, ", h.Value, h.Bound)
	}
	b.WriteString(h.Source.Text)
	if h.OtherUnits != "" {
		fmt.Fprintf(b, " (%s)", h.OtherUnits)
	}
	b.WriteByte('\n')
	writeParagraphs(b, []string{h.Text})
	if len(p.Tiles) > 0 {
		b.WriteByte('\n')
		writeColumns(b, "  ", p.Tiles)
	}
	if rows := append(p.JobRows, p.MachineRows...); len(rows) > 0 {
		b.WriteByte('\n')
		writeTable(b, rows)
	}
	if p.NoScores != "" {
		b.WriteString("\nscores\n")
		writeParagraphs(b, []string{p.NoScores})
	}
	writeFacts(b, "scores", p.Scores)
	if len(p.Provenance) > 0 {
		b.WriteString("\nhow the energy was determined\n")
	}
	for _, item := range p.Provenance {
		texts := item.Texts
		if item.Code != "" {
			texts = append(texts, item.Code)
		}
		writeParagraphs(b, []string{item.Name + ": " + strings.Join(texts, " ")})
	}
}

func (p *page) writeLog(b *strings.Builder) {
	if !p.LogOpen || len(p.Log) == 0 {
		return
	}
	b.WriteString("\nend of the FFmpeg log\n")
	for _, line := range p.Log[max(0, len(p.Log)-textLogLines):] {
		fmt.Fprintf(b, "  %s\n", line)
	}
}

func (p *page) writeRenditions(b *strings.Builder) {
	if len(p.Renditions) == 0 {
		return
	}
	b.WriteString("\noutputs\n")
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  resolution\tencoder\tframes\tsize\tbitrate\tquality\tfile")
	for _, r := range p.Renditions {
		line := strings.Join([]string{r.Resolution, r.Encoder, r.Frames, r.Size, r.Bitrate, r.Quality, r.Output}, "\t")
		fmt.Fprintf(w, "  %s\n", plainSpaces.Replace(line)) // before it is aligned
	}
	_ = w.Flush() // a strings.Builder does not fail
}

func (p *page) writeAttempts(b *strings.Builder) {
	if len(p.Attempts) == 0 {
		return
	}
	b.WriteString("\nother attempts (--attempt N)\n")
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, a := range p.Attempts {
		fmt.Fprintf(w, "  %d\t%s\tenergy %s\t%s\n", a.Number, a.Outcome, a.Energy, a.State)
	}
	_ = w.Flush() // a strings.Builder does not fail
}

func writeFacts(b *strings.Builder, title string, facts []fact) {
	if len(facts) > 0 {
		fmt.Fprintf(b, "\n%s\n", title)
		writeColumns(b, "  ", facts)
	}
}

// writeColumns writes facts in two aligned columns.
func writeColumns(b *strings.Builder, indent string, facts []fact) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, f := range facts {
		value := f.Value
		if f.Time != nil {
			value = f.Time.Text
		}
		if f.Note != "" {
			value += " (" + f.Note + ")"
		}
		fmt.Fprintf(w, "%s%s\t%s\n", indent, f.Name, value)
	}
	_ = w.Flush() // a strings.Builder does not fail
}

// writeTable writes the rows of an energy table. Numbers are aligned to the right.
func writeTable(b *strings.Builder, rows []row) {
	cells := [][]string{{"", "J", "± J", "share", "source"}}
	for _, r := range rows {
		name := r.Name
		if r.Inner {
			name = "  " + name
		}
		if r.Note != "" {
			name += " (" + r.Note + ")"
		}
		bound := r.Bound
		if r.Exact == "" {
			bound = ""
		}
		cells = append(cells, []string{name, r.Energy, bound, r.Percent, r.Source})
	}
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(plainSpaces.Replace(cell)))
		}
	}
	for _, line := range cells {
		text := fmt.Sprintf("  %-*s", widths[0], plainSpaces.Replace(line[0]))
		for i := 1; i <= 3; i++ {
			text += fmt.Sprintf("  %*s", widths[i], plainSpaces.Replace(line[i]))
		}
		b.WriteString(strings.TrimRight(text+"  "+line[4], " ") + "\n")
	}
}

// writeParagraphs writes each text as an indented paragraph of up to textWidth columns.
func writeParagraphs(b *strings.Builder, texts []string) {
	for _, text := range texts {
		line := " "
		for _, word := range strings.Fields(plainSpaces.Replace(text)) {
			if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > textWidth {
				b.WriteString(line + "\n")
				line = "   "
			}
			line += " " + word
		}
		b.WriteString(line + "\n")
	}
}
