package plain

import "testing"

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "",
		"worker 5: größer als 3 \\ ✓": "worker 5: größer als 3 \\ ✓",
		"two\nlines\n":                "two lines ",
		"\x1b[2J\x1b]0;root\a":        `\x1b[2J\x1b]0;root\a`,
		"a\r\tb\x00\x7f":              `a\r\tb\x00\x7f`,
		"c1 \u009b31m":                `c1 \u009b31m`,
		"bidi \u202egnp":              `bidi \u202egnp`,
		"not \xff\xc3 UTF-8 \ufffd":   `not \xff\xc3 UTF-8 ` + "\ufffd",
	} {
		if got := Line(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
