package manager_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
)

// With ReloadBinary, generations share one open file until the program on disk is
// replaced. A Manager that opened the same file again would hold one more
// descriptor for each generation that is kept. (Other systems start the program by
// its path.)
func TestReloadOpensTheProgramOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, ReloadBinary: true, TrapSignals: hupAndTerm}, nil, nil)
		done := r.startLoop()
		// descriptor returns the file that the newest worker was started from.
		descriptor := func() uintptr {
			t.Helper()
			time.Sleep(time.Second)
			started := r.fake.Started()
			p := started[len(started)-1]
			m := markerOf(t, p)
			if m.Exe == 0 {
				return 0
			}
			return p.Spec.Files[m.Exe]
		}
		if fd := descriptor(); fd != 0 {
			t.Errorf("first generation: started from descriptor %d, want the running program", fd)
		}
		r.Deliver(hup)
		first := descriptor()
		r.Deliver(hup)
		if again := descriptor(); first == 0 || again != first {
			t.Errorf("same file: descriptors %d and %d", first, again)
		}
		r.Deliver(term)
		<-done
	})
}
