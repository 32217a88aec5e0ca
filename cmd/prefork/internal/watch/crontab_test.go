//go:build unix

package watch

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// unescape is how cron turns a line into a command and its input: a percent sign
// is a line break. Versions differ in what a backslash does.
func unescape(line string, backslashes bool) (command string) {
	var b strings.Builder
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line) && (line[i+1] == '%' || backslashes && line[i+1] == '\\'):
			i++
			b.WriteByte(line[i])
		case c == '\\' && i+1 < len(line):
			i++
			b.WriteString(line[i-1 : i+1])
		case c == '%':
			return b.String()
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// The shell of cron gets the arguments as they are.
func TestCrontabQuotes(t *testing.T) {
	command := []string{
		"/usr/bin/prefork", "watch", "--journal=/var/log/a b.journal", "", "100%", `a\b`, `a\\b`, `a\%b`, `%%`, `ends in \`, `it's`, `"x"`, `'\'%'`,
		"$HOME `id` $(id)", "*", "~", "#x", "a;b|c&d>e", "\ttab", "ü",
	}
	text, err := Crontab("/srv/a b", command, "--q")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text, "\n")
	if len(lines) != 5 || lines[4] != "" || !strings.HasPrefix(lines[0], "# ") || !strings.HasPrefix(lines[1], "# ") {
		t.Fatalf("crontab:\n%s", text)
	}
	for i, when := range []string{"@reboot ", "* * * * * "} {
		line, ok := strings.CutPrefix(lines[2+i], when)
		if !ok {
			t.Errorf("%q does not begin with %q", lines[2+i], when)
		}
		line, quiet := strings.CutSuffix(line, " --q")
		if quiet != (i == 1) {
			t.Errorf("%q: the flag is for the line of each minute only", line)
		}
		for _, backslashes := range []bool{false, true} {
			out, err := exec.Command("/bin/sh", "-c", `for a in `+unescape(line, backslashes)+`; do printf '%s\0' "$a"; done`).Output()
			if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); err != nil || !slices.Equal(got, command) {
				t.Errorf("with two backslashes as one: %v\n%s\ngot  %q\nwant %q (%v)", backslashes, line, got, command, err)
			}
		}
	}
	for _, bad := range []string{"a\nb", "a\x00b"} {
		if text, err := Crontab("/srv", []string{"prefork", bad}, ""); err == nil {
			t.Errorf("%q: %s", bad, text)
		}
	}
	if text, err := Crontab("/srv/\n* * * * * rm", []string{"prefork"}, ""); err != nil || strings.Count(text, "\n") != 4 {
		t.Errorf("a line break in the name: %q, %v", text, err)
	}
}
