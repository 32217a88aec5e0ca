//go:build unix

package upgrade_test

import (
	"context"
	"log"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("passedFile", passedFile) }

// passedFile is a Manager that holds a lock and upgrades itself on USR2. Its
// successor fails if its second argument names a file.
func passedFile() {
	lock := prefork.PassedFile("lock")
	inherited := lock != nil
	if prefork.PassedFile("lock") != nil || prefork.PassedFile("other") != nil {
		testprog.Print("inherited twice")
	}
	if !prefork.IsWorker() {
		if lock == nil {
			lock, _ = os.OpenFile(os.Args[1], os.O_RDWR|os.O_CREATE, 0o600)
		}
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		testprog.Print("manager %d inherited %t locked %v", os.Getpid(), inherited, err)
		if _, err := os.Stat(os.Args[2]); err == nil && inherited {
			log.Fatal("this successor fails")
		}
		go func() {
			<-prefork.TookOver()
			testprog.Print("took over, inherited %t", inherited)
		}()
	}
	prefork.PassFile("lock", nil)
	prefork.PassFile("lock", lock)
	if closed, err := os.Open(os.Args[0]); err == nil {
		closed.Close()
		prefork.PassFile("closed", closed)
		prefork.PassFile("unused", os.Stderr) // the successor never asks for it
	}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}}})
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		<-w.Context().Done()
		return nil
	})
	testprog.Print("manager %d ended %v, succeeded %t", os.Getpid(), err, prefork.HandedOver())
}

// A successor inherits a passed file. A lock on it is held throughout, and a
// failed successor leaves it to the manager.
func TestPassFile(t *testing.T) {
	dir := t.TempDir()
	path, fails := dir+"/lock", dir+"/fails"
	locked := func() bool {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == syscall.EWOULDBLOCK
	}
	p := preforktest.Start(t, "passedFile", path, fails)
	p.Expect(`^manager \d+ inherited false locked <nil>$`)
	p.Expect(`^took over, inherited false$`)
	p.Expect(`worker ready`)

	os.WriteFile(fails, nil, 0o600)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^manager \d+ inherited true locked <nil>$`)
	p.Expect(`upgrade failed`)
	if !locked() {
		t.Error("the lock is lost after a successor that failed")
	}
	os.Remove(fails)

	p.Signal(syscall.SIGUSR2)
	successor := p.Expect(`^manager (\d+) inherited true locked <nil>$`)
	p.ExpectAll(`^took over, inherited true$`, `^manager `+strconv.Itoa(p.PID())+` ended <nil>, succeeded true$`)
	p.Wait()
	if !locked() {
		t.Error("the lock is lost with the old manager")
	}
	pid, _ := strconv.Atoi(successor[1])
	syscall.Kill(pid, term)
	p.Expect(`^manager ` + successor[1] + ` ended <nil>, succeeded false$`)
	p.WaitGone()
	if locked() {
		t.Error("the lock outlives all")
	}
}
