package main

import (
	"bytes"
	"testing"
)

func TestScreenReplacesTextWithoutScrolling(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, size: func() (int, int) { return 10, 4 }}
	show := func(text string) string {
		t.Helper()
		out.Reset()
		if err := s.show(text); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got, want := show("ab\ncd\n"), clearScreen+"ab"+clearToEnd+"\r\ncd"+clearToEnd+"\r\n"+clearBelow; got != want {
		t.Errorf("first text: got %q, want %q", got, want)
	}
	if got, want := show("├─ 3456789\n├─ 34567890\n3\n4\n"),
		cursorHome+"├─ 3456789"+clearToEnd+"\r\n├─ 345678…"+clearToEnd+"\r\n… 2 more …"+clearToEnd+"\r\n"+clearBelow; got != want {
		t.Errorf("second text: got %q, want %q", got, want)
	}
}
