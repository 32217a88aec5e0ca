package reaper

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// FuzzMessage checks that parseMessage accepts exactly the strings that String
// produces.
func FuzzMessage(f *testing.F) {
	for _, s := range []string{"successor 7", "ended 7 0", "ended 7 255", "successor 1", "successor -7", "successor 07", "successor", "successor 7 0", "ended 7", "ended 7 256", "successor 7\n", "successor 9999999999", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMessage(s)
		if err == nil && m.String() != s {
			t.Errorf("parseMessage(%q) = %+v, but String() = %q", s, m, m)
		}
		if err == nil && (m.pid < 2 || m.code < 0 || m.code > 255 || len(s) > maxMessage) {
			t.Errorf("parseMessage(%q) = %+v, out of range", s, m)
		}
	})
}

// TestChain checks which manager receives signals, and that the exit code of
// the program is the exit code of its last manager.
func TestChain(t *testing.T) {
	opened := make(map[int]bool) // open handles; a handle equals its pid
	open := func(pid int) (int, func()) {
		opened[pid] = true
		return pid, func() { delete(opened, pid) }
	}
	for name, tt := range map[string]struct {
		steps    string // s: successor, e: ended, r: reaped; each with a pid
		children string // the children of the reaper, throughout
		want     string // target after each step, "-" for none; then the exit code
	}{
		"one manager":                                     {"r7", "", "- 7"},
		"an orphan":                                       {"r99 r7", "", "7 - 7"},
		"a successor":                                     {"s8 r7 r8", "8", "8 8 - 8"},
		"successor exits first":                           {"s8 e8 r7", "", "8 7 - 8"},
		"successor exits unreported":                      {"s8 r7", "", "8 - 1"},
		"successor of a successor":                        {"s8 s9 r7 r8 r9", "8 9", "8 9 9 9 - 9"},
		"middle one exits first":                          {"s8 s9 e8 r7 r9", "9", "8 9 9 9 - 9"},
		"last exits while both drain":                     {"s8 r7 s9 e9 r8", "8", "8 8 9 8 - 9"},
		"reported twice":                                  {"s8 s8 r7 r8", "8", "8 8 8 - 8"},
		"exit of an unknown process":                      {"e99 r7", "", "7 - 7"},
		"successor after one that exited":                 {"s8 e8 s9 r99 e9 r7", "", "8 7 9 9 7 - 9"},
		"successor with a reused pid":                     {"s8 e8 s8 r7 r8", "8", "8 7 8 8 - 8"},
		"last exits unreported, middle one exited before": {"s8 s9 e8 r99 r7", "", "8 9 9 7 - 1"},
	} {
		c := chain{{pid: 7, handle: -1}}
		got := []string{}
		for _, step := range strings.Fields(tt.steps) {
			var pid int
			fmt.Sscan(step[1:], &pid)
			switch step[0] {
			case 's':
				c.apply(message{pid: pid}, open)
			case 'e':
				c.apply(message{pid: pid, ended: true, code: pid}, open)
			case 'r':
				c.reaped(pid, pid, 0, func(pid int) bool { return slices.Contains(strings.Fields(tt.children), fmt.Sprint(pid)) })
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
			t.Errorf("%s: %d managers and handles %v are left, want 1 manager", name, len(c), opened)
		}
	}
}

// TestChainForgets checks that after any number of upgrades the chain holds
// only the managers that are still running.
func TestChainForgets(t *testing.T) {
	opened := 0
	open := func(pid int) (int, func()) {
		opened++
		return pid, func() { opened-- }
	}
	isChild := func(int) bool { return true }
	for name, end := range map[string]func(c *chain, pid int){
		"as children": func(c *chain, pid int) { c.reaped(pid, 0, 0, isChild) },
		"reported": func(c *chain, pid int) {
			if pid > 7 {
				c.apply(message{pid: pid, ended: true}, open)
			}
			c.reaped(6, 0, 0, isChild) // an orphan
		},
	} {
		c := chain{{pid: 7, handle: -1}}
		for pid := 7; pid < 100; pid++ {
			c.apply(message{pid: pid + 1}, open)
			end(&c, pid)
			if m := c.target(); m == nil || m.pid != pid+1 || len(c) > 2 || opened > 1 {
				t.Fatalf("%s: after successor %d: %d managers, %d handles, target %+v", name, pid+1, len(c), opened, m)
			}
		}
		end(&c, 100)
	}
}
