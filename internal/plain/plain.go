// Package plain makes text safe to show to people, whatever its origin.
package plain

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Line returns the text on one line. A line feed becomes a space. Other characters
// that do not print, such as those that control a terminal, are escaped as in Go.
func Line(text string) string {
	if isPlain(text) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == '\n':
			b.WriteByte(' ')
		case r == utf8.RuneError && size == 1, !strconv.IsPrint(r):
			quoted := strconv.Quote(text[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteString(text[:size])
		}
		text = text[size:]
	}
	return b.String()
}

func isPlain(text string) bool {
	for _, r := range text {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}
