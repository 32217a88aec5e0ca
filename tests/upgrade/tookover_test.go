//go:build unix

package upgrade_test

import (
	"context"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("exclusive", exclusive) }

// exclusive has workers that hold a lock as long as they live. They must not wait
// for it.
func exclusive() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, Readiness: prefork.Readiness{Explicit: true}, TrapSignals: prefork.Signals{
		term: {Signal: term}, hup: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true},
	}})
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		w.Context()
		w.Ready()
		select {
		case <-w.TookOver():
		case <-w.Context().Done():
			return nil
		}
		lock, err := os.OpenFile(os.Args[1]+"/"+string(rune('0'+w.Slot())), os.O_RDWR|os.O_CREATE, 0o600)
		if err == nil {
			err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		testprog.Print("slot %d of %d generation %d: %v", w.Slot(), w.ManagerPID(), w.Generation(), err)
		<-w.Context().Done()
		time.Sleep(100 * time.Millisecond)
		return nil
	})
}

// A worker can wait until the worker that it replaces is gone, in a rolling reload
// and after an upgrade.
func TestWorkerTookOver(t *testing.T) {
	p := preforktest.Start(t, "exclusive", t.TempDir())
	held := func(generation string) (manager int) {
		t.Helper()
		for range 2 {
			manager, _ = strconv.Atoi(p.Expect(`^slot \d of (\d+) generation ` + generation + `: <nil>$`)[1])
		}
		return manager
	}
	held("1")
	p.Signal(hup)
	held("2")
	p.Signal(syscall.SIGUSR2)
	successor := held("1")
	if successor == p.PID() {
		t.Error("no upgrade")
	}
	syscall.Kill(successor, term)
	p.WaitGone()
}
