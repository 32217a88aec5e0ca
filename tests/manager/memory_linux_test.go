package manager_test

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/wire"
)

// large is a worker that uses as much memory as this process.
type large struct{ *proctest.Process }

func (large) Pid() int { return os.Getpid() }

// A worker that is still starting is not recycled for its memory: its
// initialization may need more than its work.
func TestMemoryOfStartingWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigWith(t, prefork.Config{MaxWorkers: 1, Recycle: prefork.Recycle{MaxMemory: 1}}, options{
			onStart: func(p *proctest.Process) {
				if p.ID > 1 {
					reachStart(p)
				}
			},
			wrap: func(p *proctest.Process) proc.Process {
				if p.ID > 1 {
					return nil
				}
				return large{p}
			},
		})
		done := r.startLoop()
		time.Sleep(20 * time.Second)
		if n := len(r.fake.Started()); n != 1 {
			t.Errorf("%d workers were started before the first was ready, want 1", n)
		}
		send(r.process(1), wire.Ready{})
		time.Sleep(10 * time.Second)
		r.wantSignals(1, term)
		r.Deliver(term)
		<-done
	})
}
