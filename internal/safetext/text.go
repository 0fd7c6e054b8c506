// Package safetext makes text safe to show and to send: without secrets, and without the
// characters that a terminal, a browser or a reader of logs obeys or is misled by.
//
// It depends on no configuration and no job: the owner of secrets adds them to a Secrets.
package safetext

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Line returns a text as one line of printable characters: white space and line separators
// become blanks, control characters and direction overrides question marks, and invalid UTF-8
// becomes U+FFFD.
func Line(text string) string { return printable(text, "") }

// Lines is Line for a text of several lines, which keeps line feeds and tabs.
func Lines(text string) string { return printable(strings.ReplaceAll(text, "\r\n", "\n"), "\n\t") }

// JSON returns JSON with the characters that Lines replaces as escapes: the value is the same.
func JSON(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for _, r := range string(raw) {
		switch {
		case unicode.IsPrint(r) || r == '\n' || r == '\t' || r == '\r':
			out = utf8.AppendRune(out, r)
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		}
	}
	return out
}

func printable(text, keep string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r) || strings.ContainsRune(keep, r):
			return r
		case r == '\r' && keep != "": // what overwrites its line
			return '\n'
		case unicode.IsSpace(r):
			return ' '
		}
		return '?'
	}, text)
}

// Shorten cuts a text to a number of characters, the ellipsis included. Secrets are to be
// removed before: half of one is not recognized.
func Shorten(text string, most int) string {
	end, n := 0, 0 // where the ellipsis goes, and the characters so far
	for i := range text {
		if n++; n == most {
			end = i
		}
		if n > most {
			return text[:end] + "…"
		}
	}
	return text
}
