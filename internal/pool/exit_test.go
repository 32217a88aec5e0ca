//go:build unix

package pool

import "testing"

// The reason follows from the signals of the manager, the exit status, and the
// OOM killer.
func TestClassify(t *testing.T) {
	var (
		clean  = Event{Clean: true}
		bad    = Event{}
		shot   = Event{Killed: true}
		memory = Event{Killed: true, OOMKilled: true}
	)
	for _, c := range []struct {
		name   string
		w      worker
		ev     Event
		reason Reason
		own    bool // it may delay the next worker of the slot
	}{
		{"exit code 0", worker{state: StateReady}, clean, ReasonFinished, true},
		{"crashed", worker{state: StateReady}, bad, ReasonCrashed, true},
		{"killed from outside", worker{state: StateReady}, shot, ReasonCrashed, true},
		{"OOM-killed", worker{state: StateReady}, memory, ReasonOutOfMemory, true},
		{"OOM-killed while starting", worker{state: StateStarting}, memory, ReasonOutOfMemory, true},
		{"OOM-killed while dumping", worker{state: StateReady, stuck: true}, memory, ReasonOutOfMemory, true},
		{"stopped", worker{state: StateStopping}, clean, ReasonStopped, false},
		{"stopped, crashed", worker{state: StateStopping}, bad, ReasonStopped, false},
		{"stopped, OOM-killed", worker{state: StateStopping}, memory, ReasonOutOfMemory, false},
		{"recycled", worker{state: StateStopping, recycled: true}, clean, ReasonRecycled, false},
		{"recycled, OOM-killed", worker{state: StateStopping, recycled: true}, memory, ReasonOutOfMemory, false},
		{"killed by the manager", worker{state: StateKilled, killReason: ReasonStopTimeout}, shot, ReasonStopTimeout, false},
		{"killed by the manager, OOM-killed", worker{state: StateKilled, killReason: ReasonStopTimeout}, memory, ReasonStopTimeout, false},
		{"killed by the ready timeout", worker{state: StateKilled, killReason: ReasonReadyTimeout}, shot, ReasonReadyTimeout, true},
		{"killed as stuck", worker{state: StateKilled, killReason: ReasonStuck, stuck: true}, shot, ReasonStuck, true},
		{"stuck, crashed by the dump", worker{state: StateReady, stuck: true}, bad, ReasonStuck, true},
	} {
		if reason, own := classify(&c.w, &c.ev); reason != c.reason || own != c.own {
			t.Errorf("%s: reason %d, of its own accord %v; want %d, %v", c.name, reason, own, c.reason, c.own)
		}
	}
}
