//go:build unix

package pool

import "testing"

// Why a worker ended, as far as can be told from what it was told, how it ended, and whether the kernel killed it.
func TestClassify(t *testing.T) {
	var (
		clean  = Event{Clean: true}
		bad    = Event{}
		shot   = Event{Killed: true}
		memory = Event{Killed: true, Memory: true}
	)
	for _, c := range []struct {
		what   string
		w      worker
		ev     Event
		reason Reason
		own    bool // the next worker of its slot is paced for it
	}{
		{"left", worker{state: Ready}, clean, Finished, true},
		{"crashed", worker{state: Ready}, bad, Crashed, true},
		{"killed by a stranger", worker{state: Ready}, shot, Crashed, true},
		{"killed for memory", worker{state: Ready}, memory, OutOfMemory, true},
		{"killed for memory while it started", worker{state: Starting}, memory, OutOfMemory, true},
		{"killed for memory when asked where it is stuck", worker{state: Ready, stuck: true}, memory, OutOfMemory, true},
		{"told to stop", worker{state: Stopping}, clean, Stopped, false},
		{"told to stop, crashed", worker{state: Stopping}, bad, Stopped, false},
		{"told to stop, killed for memory", worker{state: Stopping}, memory, OutOfMemory, false},
		{"retired", worker{state: Stopping, retired: true}, clean, Retired, false},
		{"retired, killed for memory", worker{state: Stopping, retired: true}, memory, OutOfMemory, false},
		{"killed by the manager", worker{state: Killed, killed: Overdue}, shot, Overdue, false},
		{"killed by the manager, and the kernel", worker{state: Killed, killed: Overdue}, memory, Overdue, false},
		{"killed as never ready", worker{state: Killed, killed: NeverReady}, shot, NeverReady, true},
		{"killed as stuck", worker{state: Killed, killed: Stuck, stuck: true}, shot, Stuck, true},
		{"stuck, said where", worker{state: Ready, stuck: true}, bad, Stuck, true},
	} {
		if reason, own := classify(&c.w, c.ev); reason != c.reason || own != c.own {
			t.Errorf("%s: reason %d, its own doing %v; want %d, %v", c.what, reason, own, c.reason, c.own)
		}
	}
}
