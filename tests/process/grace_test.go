//go:build unix

package process_test

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("cutting", cutting) }

// cutting is a program that is stopped after its workers were ready for longer
// than a second. The worker of slot 0 never calls Context. That of slot 1 does,
// and ends itself by the signal, as programs do that restore the default.
func cutting() {
	var pm *prefork.Manager
	ready := 0
	pm = testprog.NewManager(prefork.Config{MaxWorkers: 2, Observe: func(ev prefork.Event) {
		if e, ok := ev.(prefork.StateEvent); ok && e.Worker.State == prefork.StateReady {
			if ready++; ready == 2 {
				time.AfterFunc(time.Second+time.Millisecond, pm.Shutdown)
			}
		}
	}})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		if w.Slot() == 1 {
			<-w.Context().Done()
			signal.Reset(term)
			syscall.Kill(os.Getpid(), term)
		}
		select {}
	})
}

// The log warns of the worker that had no time to finish its work, and not of the
// other one.
func TestWorkerWithoutContext(t *testing.T) {
	p := preforktest.Start(t, "cutting")
	p.Expect(`never called Context.* slot=0 gen=1 pid=\d+ signal=SIGTERM`)
	testprog.ExpectSuccess(t, p)
	if n := strings.Count(strings.Join(p.Lines(), "\n"), "never called Context"); n != 1 {
		t.Errorf("the log warns %d times", n)
	}
}
