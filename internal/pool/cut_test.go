//go:build unix

package pool

import "testing"

// The stop signal ends a worker that has not called Context: reported before it
// is gone, if it was ready for longer than a second.
func TestWorkCut(t *testing.T) {
	for _, c := range []struct {
		name    string
		ready   bool
		life    Time // since it was ready
		noGrace bool
		stopped bool
		want    bool
	}{
		{"stopped", true, sec + 1, true, true, true},
		{"by hand", true, sec + 1, true, false, true},
		{"ready for a second", true, sec, true, true, false},
		{"never ready", false, 2 * sec, true, true, false},
		{"with its Context", true, 2 * sec, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New(usual(1))
			p.Apply(0, Event{Kind: Begin})
			p.Plan(0)
			p.Apply(0, Event{Kind: Spawned})
			now := 3 * sec
			if c.ready {
				p.Apply(now, Event{Kind: Ready, ID: 1})
			}
			now += c.life
			if c.stopped {
				p.Apply(now, Event{Kind: Signal, Sig: p.cfg.Stop})
			}
			cut, gone := -1, -1
			for i, e := range p.Apply(now, Event{Kind: Exited, ID: 1, NoGrace: c.noGrace}) {
				switch {
				case e.Kind == WorkCut && e.ID == 1 && e.Slot == 0 && cut < 0:
					cut = i
				case e.Kind == WorkCut:
					t.Errorf("%+v", e)
				case e.Kind == Change && e.To == StateGone:
					gone = i
				}
			}
			if (cut >= 0) != c.want || cut > gone {
				t.Errorf("effect %d, and %d when it is gone; want it reported: %v", cut, gone, c.want)
			}
		})
	}
}
