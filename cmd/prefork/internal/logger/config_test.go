//go:build unix && !solaris && !aix

package logger

import (
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseConfig(t *testing.T) {
	given := settings{
		maxSize: 1, maxFiles: 20, minFiles: 2, maxAge: time.Minute, prefix: "p",
		patterns: []pattern{{action: '-', text: "*"}}, processor: processor{gzip: true},
	}
	with := func(change func(*settings)) settings {
		s := given
		change(&s)
		return s
	}
	for _, row := range []struct {
		text     string
		want     settings
		warnings string // a part of each, separated by |
	}{
		{"", given, ""},
		{"\n#s5\n\n", given, ""},
		{"s5\nn6\nN3\nt70", with(func(s *settings) { s.maxSize, s.maxFiles, s.minFiles, s.maxAge = 5, 6, 3, 70*time.Second }), ""},
		{"s0\nn0\nt24h\n", with(func(s *settings) { s.maxSize, s.maxFiles, s.maxAge = 0, 0, 24*time.Hour }), ""},
		{"p a\tprefix: \n", with(func(s *settings) { s.prefix = " a\tprefix: " }), ""},
		{"p\n!\n", with(func(s *settings) { s.prefix, s.processor = "", processor{} }), ""},
		{"!gzip -9\n", with(func(s *settings) { s.processor = processor{command: "gzip -9"} }), ""},
		{"+a\n-b \nec\nE", with(func(s *settings) {
			s.patterns = []pattern{{'-', "*", false}, {'+', "a", true}, {'-', "b ", true}, {'e', "c", true}, {'E', "", true}}
		}), ""},
		{"s5\nsx\nn-1\nN\nt1w\ns99999999999999999999\n", with(func(s *settings) { s.maxSize = 5 }),
			`line 2, "sx": it is not a number|line 3, "n-1": it is|line 4, "N": it is|line 5, "t1w": it is a number of|line 6, "s9999`},
		{"u1.2.3.4:5\nU1.2.3.4\nq\ns5\r\n", given, `line 1, "u1.2.3.4:5": it does not send to a UDP port|line 2|line 3, "q": it is unknown|line 4, "s5\r": it is not`},
		{"n2\n", with(func(s *settings) { s.maxFiles, s.minFiles = 2, 1 }), "N2 is not less than n2, and counts as N1"},
	} {
		got, warnings := parseConfig(row.text, given)
		if !reflect.DeepEqual(got, row.want) {
			t.Errorf("%q: %+v, want %+v", row.text, got, row.want)
		}
		want := strings.Split(row.warnings, "|")
		if row.warnings == "" {
			want = nil
		}
		if len(warnings) != len(want) {
			t.Errorf("%q: %q, want %q", row.text, warnings, want)
			continue
		}
		for i, w := range want {
			if !strings.Contains(warnings[i], w) {
				t.Errorf("%q: %q, want %q", row.text, warnings[i], w)
			}
		}
	}
	if len(given.patterns) != 1 || len(given.patterns[:cap(given.patterns)]) != 1 {
		t.Error("the settings of the command line have changed")
	}
}

// Of several lines of a kind the last good one counts, and each other line but
// patterns, comments and empty ones has a warning.
func FuzzConfig(f *testing.F) {
	f.Add("s5\nn3\nN4\n!gzip\n+a*\n-b\nqx\np:")
	f.Add("t1h\n\n#\nu1.2.3.4\nn0\nN5")
	f.Fuzz(func(t *testing.T, text string) {
		given := settings{maxSize: 7, maxFiles: 10, prefix: "given"}
		want, bad := given, 0
		for _, line := range strings.Split(text, "\n") {
			if line == "" {
				continue
			}
			value := line[1:]
			n, err := strconv.ParseInt(value, 10, 64)
			number := err == nil && strings.Trim(value, "0123456789") == ""
			switch strings.IndexByte("#snNtp!+-eE", line[0]) {
			case 0:
			case 1:
				want.maxSize = pick(number, n, want.maxSize)
				bad += pick(number, 0, 1)
			case 2:
				want.maxFiles = pick(number, int(min(n, 1<<30)), want.maxFiles)
				bad += pick(number, 0, 1)
			case 3:
				want.minFiles = pick(number, int(min(n, 1<<30)), want.minFiles)
				bad += pick(number, 0, 1)
			case 4:
				if d, err := time.ParseDuration(value); err == nil && d >= 0 {
					want.maxAge = d
				} else if number && n < 1<<32 {
					want.maxAge = time.Duration(n) * time.Second
				} else {
					bad++
				}
			case 5:
				want.prefix = value
			case 6:
				want.processor = processor{command: value}
			case 7, 8, 9, 10:
				want.patterns = append(want.patterns, pattern{line[0], value, true})
			default:
				bad++
			}
		}
		if want.maxFiles > 0 && want.minFiles >= want.maxFiles {
			want.minFiles, bad = want.maxFiles-1, bad+1
		}
		got, warnings := parseConfig(text, given)
		if !reflect.DeepEqual(got, want) || len(warnings) != bad {
			t.Errorf("%+v, %q; want %+v, %d warnings", got, warnings, want, bad)
		}
		for _, w := range warnings {
			if strings.Contains(w, "\n") || len(w) > 600 {
				t.Errorf("warning %q", w)
			}
		}
	})
}

func pick[T any](yes bool, a, b T) T {
	if yes {
		return a
	}
	return b
}

// The flags of svlogd are taken as they are in a script: -v and -b have no effect.
func TestFlagsOfSvlogd(t *testing.T) {
	o, err := parse([]string{"-ttttv", "-b", "1024", "-l1000", "-rX", "dir"})
	if err != nil {
		t.Fatal(err)
	}
	if o.stamp != 3 || o.length != 1000 || o.replace['\x01'] != 'X' || len(o.targets) != 1 {
		t.Errorf("%+v", o)
	}
	if _, err := parse([]string{"-b", "x", "dir"}); err == nil {
		t.Error("-b x is no error")
	}
}
