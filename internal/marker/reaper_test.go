package marker

import "testing"

// ParseReaper accepts only values of BelowReaper.
func FuzzParseReaper(f *testing.F) {
	for _, s := range []string{BelowReaper(1, 3), BelowReaper(4711, 1000), BecomeReaper(5), "below:1", "below:1:2", "below:0:3", "below:1:3:", "below:01:3", "below:-1:3", "below:99999999999:3", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pid, fd, err := ParseReaper(s)
		if err == nil && (BelowReaper(pid, fd) != s || pid < 1 || fd < firstFD) {
			t.Errorf("%q is parsed as %d, %d", s, pid, fd)
		}
		if err != nil && (pid != 0 || fd != 0) {
			t.Errorf("%q: %d, %d with error %v", s, pid, fd, err)
		}
	})
}
