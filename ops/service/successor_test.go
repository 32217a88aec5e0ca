//go:build unix

package service_test

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

// The successor inherits the lock, which is held at all times.
func TestAttachSuccessor(t *testing.T) {
	s := newService(t)
	s.Pause() // applies to the successor too
	p := start(t, s, "manager")
	p.ExpectN(2, `^event: slot \d paused$`)
	var free, checks atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				checks.Add(1)
				if _, running, err := s.Running(); !running || err != nil {
					free.Add(1)
				}
			}
		}
	}()
	old := p.PID()
	for range 2 {
		if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		pid, _ := strconv.Atoi(p.Expect(`^manager (\d+) runs$`)[1])
		p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, old))
		preforktest.WaitFor(t, "the successor's pid in the file", func() bool { return s.PID() == pid })
		checkRunning(t, s, pid)
		old = pid
	}
	close(done)
	<-ended
	if n := free.Load(); n > 0 {
		t.Errorf("the lock was free at %d of %d checks", n, checks.Load())
	}
	s.Stop()
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, old))
	p.WaitGone()
	if exists(t, s.PIDFile) {
		t.Error("the pid file still exists")
	}
}

// failingSuccessor is manager, but its successors exit before they are ready.
func failingSuccessor() {
	successor := prefork.PassedFile("failing-successor") != nil
	prefork.PassFile("failing-successor", os.Stdout)
	runManager(func() {
		if successor {
			report("the successor exits")
			os.Exit(3)
		}
	})
}

func init() { programs["waiting-successor"] = waitingSuccessor }

// waitingSuccessor is manager, but its successors wait for the end of the
// standard input.
func waitingSuccessor() {
	successor := prefork.PassedFile("waiting-successor") != nil
	prefork.PassFile("waiting-successor", os.Stdout)
	runManager(func() {
		if successor {
			report("the successor waits")
			io.Copy(io.Discard, os.Stdin)
		}
	})
}

// If the pid file is removed during an upgrade, the old manager creates it
// again. The successor acquires the lock when the old manager has exited.
func TestAttachPIDFileRemovedDuringUpgrade(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s := newService(t)
	p := preforktest.New(t, "waiting-successor", s.Dir())
	p.Cmd.Stdin = r
	p.Start()
	p.ExpectN(2, ` works$`)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^the successor waits$`)
	os.Remove(s.PIDFile)
	p.Expect(`pid file removed, created again`)
	checkRunning(t, s, p.PID())
	w.Close()
	successor, _ := strconv.Atoi(p.Expect(`^manager (\d+) runs$`)[1])
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))
	preforktest.WaitFor(t, "the successor's pid in the file", func() bool { return s.PID() == successor })
	checkRunning(t, s, successor)
	s.Stop()
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, successor))
	p.WaitGone()
}

func init() { programs["late-successor"] = lateSuccessor }

// lateSuccessor is manager, but its successors read a line from the standard input
// before they attach, and wait for its end before they run.
func lateSuccessor() {
	successor := prefork.PassedFile("late-successor") != nil
	prefork.PassFile("late-successor", os.Stdout)
	if successor {
		report("the successor starts")
		os.Stdin.Read(make([]byte, 1))
	}
	runManager(func() {
		if successor {
			report("the successor has attached")
			io.Copy(io.Discard, os.Stdin)
		}
	})
}

// A successor knows its predecessor although no file has its pid: a file that the
// predecessor makes again is no lost lock.
func TestAttachUnknownPredecessor(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"removed":     os.Remove,
		"overwritten": func(path string) error { return os.WriteFile(path, []byte("1\n"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			s := newService(t)
			p := preforktest.New(t, "late-successor", s.Dir())
			p.Cmd.Stdin = r
			p.Start()
			p.ExpectN(2, ` works$`)
			p.Signal(syscall.SIGUSR2)
			p.Expect(`^the successor starts$`)
			thaw := preforktest.Freeze(t, p.PID())
			if err := spoil(s.PIDFile); err != nil {
				t.Fatal(err)
			}
			w.WriteString("\n")
			p.Expect(`^the successor has attached$`)
			os.Remove(s.PIDFile)
			thaw()
			p.Expect(`pid file removed, created again`)
			w.Close()
			successor, _ := strconv.Atoi(p.Expect(`^manager (\d+) runs$`)[1])
			p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))
			preforktest.WaitFor(t, "the successor's pid in the file", func() bool { return s.PID() == successor })
			checkRunning(t, s, successor)
			s.Stop()
			p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, successor))
			p.WaitGone()
		})
	}
}
