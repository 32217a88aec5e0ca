//go:build unix

package upgrade_test

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("exclusive", exclusive)
	preforktest.Register("draining", draining)
	preforktest.Register("grown", grown)
}

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

// draining has a worker that ends with the second TERM if it is one of the first
// manager, and with the first TERM if it is one of a successor.
func draining() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, Reload: func() ([]byte, error) {
		select {
		case <-prefork.TookOver():
			return []byte("first"), nil
		default:
			return nil, nil
		}
	}, TrapSignals: prefork.Signals{term: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}}})
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		terms := make(chan os.Signal, 2)
		signal.Notify(terms, term)
		testprog.Print("serving")
		<-terms
		if string(w.Passed()) == "first" {
			testprog.Print("draining")
			<-terms
		}
		return nil
	}); err != nil {
		testprog.Print("%v", err)
	}
}

// A TERM that reaches the old manager after the takeover ends the program.
func TestTermAfterTakeover(t *testing.T) {
	p := preforktest.Start(t, "draining")
	p.Expect(`^serving$`)
	p.Signal(syscall.SIGUSR2)
	p.ExpectAll(`^serving$`, `^draining$`)
	p.Signal(term)
	p.Expect(`signal passed on signal=SIGTERM`)
	p.WaitGone()
}

// grown has one Manager, and two in a successor. It makes the second of them after
// SIGUSR1.
func grown() {
	successor := false
	if !prefork.IsWorker() {
		select {
		case <-prefork.TookOver():
		default:
			successor = true
		}
	}
	if successor {
		proceed := make(chan os.Signal, 1)
		signal.Notify(proceed, usr1)
		testprog.NewManager(prefork.Config{Name: "other"})
		testprog.Print("one of two in %d", os.Getpid())
		<-proceed
	}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{
		term: {Signal: term}, hup: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true},
	}})
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		testprog.Print("worker of %d", w.ManagerPID())
		<-w.Context().Done()
		return nil
	})
}

// A signal of the old table does not end a successor that has made another Manager
// first.
func TestSuccessorOfSeveralManagers(t *testing.T) {
	p := preforktest.Start(t, "grown")
	p.Expect(`^worker of`)
	p.Signal(syscall.SIGUSR2)
	successor, err := strconv.Atoi(p.Expect(`^one of two in (\d+)$`)[1])
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(successor, hup)
	p.Expect(`SIGHUP is not in TrapSignals`)
	syscall.Kill(successor, usr1)
	p.ExpectAll(`^worker of `+strconv.Itoa(successor)+`$`, `successor has taken over`)
	syscall.Kill(successor, term)
	p.WaitGone()
}
