//go:build unix && !solaris && !aix

package logger

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestPattern(t *testing.T) {
	for _, row := range []struct {
		pattern string
		plus    bool
		yes, no string // lines, separated by |
	}{
		{"hello", true, "hello", "|hello world|hell|xhello"},
		{"", true, "", "a| "},
		{"*", true, "|a|a*b\x00\xff", "-"},
		{"named[*]: Cleaned *", true, "named[12]: Cleaned |named[]: Cleaned x", "named[1]x]: Cleaned x|named[1]: Clea"},
		{"*pid*", true, "pid 1|a pid", "tcpsvd: info: pid 1977"},
		{"*: *: pid *", true, "tcpsvd: info: pid 1977", "tcpsvd: pid 1977"},
		{"**", true, "*|a*|a*b", "ab|a"},
		{"a+b", true, "ab|abbb", "a|a+b|aab|abc"},
		{"a+b", false, "a+b", "ab|abbb"},
		{"+a b", true, "a b|aaa b", "aaa| b|aaac"}, // svlogd has aaa, too
		{"a+", true, "a+", "a|aa"},
		{"a++", true, "a+|a+++", "a"},
		{"\xe9*", true, "\xe9|\xe9\x00", "\xc3\xa9"},
	} {
		p := pattern{text: row.pattern, plus: row.plus}
		for _, line := range strings.Split(row.yes, "|") {
			if row.yes == "" && row.pattern != "" {
				break
			}
			if !p.matches([]byte(line)) {
				t.Errorf("%+v does not match %q", p, line)
			}
		}
		for _, line := range strings.Split(row.no, "|") {
			if row.no != "-" && p.matches([]byte(line)) {
				t.Errorf("%+v matches %q", p, line)
			}
		}
	}
}

// A pattern matches as its documentation says, read as a definition.
func FuzzPattern(f *testing.F) {
	f.Add("*: +a*", "b: aac", true)
	f.Add("**+", "*+", false)
	f.Fuzz(func(t *testing.T, text, line string, plus bool) {
		p := pattern{text: text, plus: plus}
		if got, want := p.matches([]byte(line)), isMatch(text, line, plus); got != want {
			t.Errorf("%+v, %q: %t, want %t", p, line, got, want)
		}
	})
}

func isMatch(p, line string, plus bool) bool {
	switch {
	case p == "":
		return line == ""
	case p == "*":
		return true
	case p[0] == '*':
		before, rest, found := strings.Cut(line, p[1:2])
		return found && isMatch(p[1:], line[len(before):], plus) && len(rest) < len(line)
	case p[0] == '+' && plus && len(p) > 1:
		rest := strings.TrimLeft(line, p[1:2])
		if p[1] >= 0x80 { // TrimLeft has runes
			for rest = line; rest != "" && rest[0] == p[1]; rest = rest[1:] {
			}
		}
		return rest != line && isMatch(p[2:], rest, plus)
	}
	return line != "" && line[0] == p[0] && isMatch(p[1:], line[1:], plus)
}

// Lines that come in any pieces are selected and changed as if they came at once.
func FuzzFormat(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nthree"), "-*\n+t*\ne*e", uint8(2), uint8(3), false)
	f.Add([]byte(strings.Repeat("x", 1003)+"\n"+strings.Repeat("x", 1000)+"\nx"), "-x*\nex*", uint8(200), uint8(0), true)
	f.Add([]byte(strings.Repeat("z", 999)+"y\n"), "-*y", uint8(36), uint8(0), false)
	f.Fuzz(func(t *testing.T, in []byte, config string, piece, length uint8, prefix bool) {
		s, _ := parseConfig(config, settings{})
		in = bytes.ReplaceAll(in, []byte("xxxx"), bytes.Repeat([]byte("x"), 500)) // long lines
		format := format{length: int(length), patterns: s.patterns}
		if prefix {
			format.prefix = "p:"
		}
		now := time.Unix(1, 2)
		var out, want, alerts []byte
		f := format
		for rest := in; len(rest) > 0; {
			p := rest[:min(int(piece)+1, len(rest))]
			out, rest = f.append(out, bytes.Clone(p), now), rest[len(p):]
		}
		out = f.flush(out, now)
		for line := range bytes.Lines(in) {
			text, ends := bytes.CutSuffix(line, []byte("\n"))
			log, alert := choose(s.patterns, text[:min(len(text), 1000)])
			if alert {
				alerts = append(append(alerts, format.prefix...), text[:min(len(text), 1000)]...)
				if len(text) >= 1000 {
					alerts = append(alerts, "..."...)
				}
				alerts = append(alerts, '\n')
			}
			if !log {
				continue
			}
			for length > 0 && len(text) > int(length) {
				want = append(append(append(want, format.prefix...), text[:length]...), '\n')
				text = text[length:]
			}
			want = append(append(want, format.prefix...), text...)
			if ends {
				want = append(want, '\n')
			}
		}
		if !bytes.Equal(out, want) || !bytes.Equal(f.alerts, alerts) {
			t.Errorf("%q and %q, want %q and %q", out, f.alerts, want, alerts)
		}
	})
}
