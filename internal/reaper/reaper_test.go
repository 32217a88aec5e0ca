package reaper

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What a manager says is read, and nothing else is.
func FuzzMessage(f *testing.F) {
	for _, s := range []string{"successor 7", "ended 7 0", "ended 7 255", "successor 1", "successor -7", "successor 07", "successor", "successor 7 0", "ended 7", "ended 7 256", "successor 7\n", "successor 9999999999", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMessage(s)
		if err == nil && m.String() != s {
			t.Errorf("%q is read as %+v, which is written as %q", s, m, m)
		}
		if err == nil && (m.pid < 2 || m.code < 0 || m.code > 255 || len(s) > maxMessage) {
			t.Errorf("%q is read as %+v", s, m)
		}
	})
}

// Who is signalled, and when the program is over: with what its last manager has ended.
func TestChain(t *testing.T) {
	opened := make(map[int]bool) // handles, which are the pids
	open := func(pid int) (int, func()) {
		opened[pid] = true
		return pid, func() { delete(opened, pid) }
	}
	for name, tt := range map[string]struct {
		steps string // h: successor, e: ended, r: reaped; and of whom
		kids  string // who is a child of the reaper throughout
		want  string // target after each step, "-" for none, and the code of the last
	}{
		"one":                                        {"r7", "", "- 7"},
		"an orphan":                                  {"r99 r7", "", "7 - 7"},
		"a successor":                                {"h8 r7 r8", "8", "8 8 - 8"},
		"a successor that ends first":                {"h8 e8 r7", "", "8 7 - 8"},
		"a successor that ends untold":               {"h8 r7", "", "8 - 1"},
		"a successor of a successor":                 {"h8 h9 r7 r8 r9", "8 9", "8 9 9 9 - 9"},
		"the middle one goes first":                  {"h8 h9 e8 r7 r9", "9", "8 9 9 9 - 9"},
		"the last ends while both drain":             {"h8 r7 h9 e9 r8", "8", "8 8 9 8 - 9"},
		"told twice":                                 {"h8 h8 r7 r8", "8", "8 8 8 - 8"},
		"ended, of a stranger":                       {"e99 r7", "", "7 - 7"},
		"one in the place of one that ended":         {"h8 e8 h9 r99 e9 r7", "", "8 7 9 9 7 - 9"},
		"the last goes untold, the middle one first": {"h8 h9 e8 r99 r7", "", "8 9 9 7 - 1"},
	} {
		c := chain{{pid: 7, handle: -1}}
		got := []string{}
		for _, step := range strings.Fields(tt.steps) {
			var pid int
			fmt.Sscan(step[1:], &pid)
			switch step[0] {
			case 'h':
				c.heard(message{pid: pid}, open)
			case 'e':
				c.heard(message{pid: pid, ended: true, code: pid}, open)
			case 'r':
				c.reaped(pid, pid, 0, func(pid int) bool { return slices.Contains(strings.Fields(tt.kids), fmt.Sprint(pid)) })
			}
			if m := c.target(); m != nil {
				got = append(got, fmt.Sprint(m.pid))
			} else {
				got = append(got, "-")
			}
		}
		got = append(got, fmt.Sprint(c[len(c)-1].code))
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: %s, want %s", name, s, tt.want)
		}
		if len(c) != 1 || len(opened) != 0 {
			t.Errorf("%s: %d managers are left, and the handles %v", name, len(c), opened)
		}
	}
}

// However often a program is upgraded, its reaper knows of those managers that live, and of no other.
func TestChainForgets(t *testing.T) {
	opened := 0
	open := func(pid int) (int, func()) {
		opened++
		return pid, func() { opened-- }
	}
	isChild := func(int) bool { return true }
	for name, end := range map[string]func(c *chain, pid int){
		"as children": func(c *chain, pid int) { c.reaped(pid, 0, 0, isChild) },
		"told of": func(c *chain, pid int) {
			if pid > 7 {
				c.heard(message{pid: pid, ended: true}, open)
			}
			c.reaped(6, 0, 0, isChild) // an orphan
		},
	} {
		c := chain{{pid: 7, handle: -1}}
		for pid := 7; pid < 100; pid++ {
			c.heard(message{pid: pid + 1}, open)
			end(&c, pid)
			if m := c.target(); m == nil || m.pid != pid+1 || len(c) > 2 || opened > 1 {
				t.Fatalf("%s: after successor %d: %d managers, %d handles, signals go to %+v", name, pid+1, len(c), opened, m)
			}
		}
		end(&c, 100)
	}
}
