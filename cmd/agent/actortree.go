package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"ffmpeg-agent/messages"
)

// actorNode is an actor and its children.
type actorNode struct {
	status   *messages.ActorStatus // nil if only descendants are in the status
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

// writeActors writes the tree of actors, one line for each.
func writeActors(b *strings.Builder, s *messages.Status) {
	if len(s.Actors) == 0 {
		return
	}
	b.WriteByte('\n')
	root := &actorNode{}
	for i := range s.Actors {
		node := root
		for _, name := range strings.Split(s.Actors[i].Path, "/") {
			node = node.child(name)
		}
		node.status = &s.Actors[i]
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "actor\tstate\trestarts\tmailbox\tlast failure")
	for _, name := range slices.Sorted(maps.Keys(root.children)) {
		root.children[name].write(w, s.At, name, "", "")
	}
	w.Flush() //nolint:errcheck // a strings.Builder does not fail
	for line := range strings.Lines(table.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
}

// write writes an actor with branch in front of its name, and its descendants with stem in
// front of their branches.
func (n *actorNode) write(w *tabwriter.Writer, now time.Time, name, branch, stem string) {
	state, restarts, mailbox, failure := unknown, unknown, unknown, ""
	if a := n.status; a != nil {
		state, restarts, mailbox, failure = cmp.Or(plain(a.State), unknown), fmt.Sprint(a.Restarts), fmt.Sprint(a.MailboxDepth), failureText(now, a)
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
