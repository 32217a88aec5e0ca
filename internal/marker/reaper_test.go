package marker

import "testing"

// ParseReaper accepts only values of Reaper.String.
func FuzzParseReaper(f *testing.F) {
	for _, r := range []Reaper{{PID: 1, FD: 3}, {PID: 4711, FD: 1000}, {PID: 2, FD: 3, Guard: 1}, {PID: 1, FD: 3, Become: true}} {
		if got, err := ParseReaper(r.String()); err != nil || got != r {
			f.Errorf("%v: %+v, %v", r, got, err)
		}
		f.Add(r.String())
	}
	for _, s := range []string{BecomeReaper(5), BecomeGuard(5), "below:1", "below:1:2", "below:0:3", "below:1:3:", "below:01:3", "below:-1:3", "below:99999999999:3",
		"below:1:3:0", "below:1:3:4:5", "guarded:1", "guarded:1:3:4", "guarded:1:3:", "guarded:", ""} {
		if r, err := ParseReaper(s); err == nil {
			f.Errorf("%q: %+v", s, r)
		}
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReaper(s)
		if err == nil && (r.String() != s || r.PID < 1 || r.FD < firstFD || r.Become && r.Guard != 0) {
			t.Errorf("%q: %+v", s, r)
		}
		if err != nil && r != (Reaper{}) {
			t.Errorf("%q: %+v, %v", s, r, err)
		}
	})
}
