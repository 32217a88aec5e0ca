//go:build unix

package upgrade_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("attempt", attempt) }

// attempt is a program whose workers become ready if the file "ready" exists
// in its directory. Upgrades have no time limit. The second argument is
// Readiness.Timeout.
func attempt() {
	timeout, _ := time.ParseDuration(os.Args[2])
	ready := filepath.Join(os.Args[1], "ready")
	withdrawn := prefork.PassedFile("withdrawn")
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, ErrRespawnInterval: -1, UpgradeTimeout: -1,
		Readiness:   prefork.Readiness{Explicit: true, Timeout: timeout},
		TrapSignals: prefork.Signals{term: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}},
	})
	if !prefork.IsWorker() {
		prefork.PassFile("withdrawn", os.Stderr)
		prefork.PassFile("withdrawn", nil)
		testprog.Print("manager %d, withdrawn file inherited: %t", os.Getpid(), withdrawn != nil)
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		for ctx.Err() == nil {
			if _, err := os.Stat(ready); err == nil {
				w.Ready()
				<-ctx.Done()
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	testprog.Print("ended %d", os.Getpid())
}

func startAttempt(t *testing.T, timeout string) (p *preforktest.Program, setReady func(bool)) {
	t.Helper()
	dir := t.TempDir()
	setReady = func(is bool) {
		t.Helper()
		path := filepath.Join(dir, "ready")
		err := os.Remove(path)
		if is {
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	setReady(true)
	p = preforktest.Start(t, "attempt", dir, timeout)
	p.Expect(`^manager \d+, withdrawn file inherited: false$`)
	p.Expect(`worker ready`)
	return p, setReady
}

// A worker of a successor that is not ready in time fails the upgrade at once,
// not only after UpgradeTimeout.
func TestUpgradeFailsWithItsWorker(t *testing.T) {
	p, setReady := startAttempt(t, "200ms")
	setReady(false)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`upgrade failed.*ready timeout`)
	setReady(true)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// A successor that has not taken over refuses an upgrade of its own. A file
// that PassFile has withdrawn does not reach it.
func TestUpgradeOfSuccessorIsRefused(t *testing.T) {
	p, setReady := startAttempt(t, "1h")
	setReady(false)
	p.Signal(syscall.SIGUSR2)
	successor := p.Expect(`^manager (\d+), withdrawn file inherited: false$`)[1]
	p.Expect(`worker starting`)
	pid, _ := strconv.Atoi(successor)
	syscall.Kill(pid, syscall.SIGUSR2)
	p.Expect(`upgrade failed.*successor itself`)
	setReady(true)
	p.ExpectAll(`has taken over, shutting down`, `^ended `+strconv.Itoa(p.PID())+`$`)
	p.Wait()
	syscall.Kill(pid, term)
	p.Expect(`^ended ` + successor + `$`)
	p.WaitGone()
}
