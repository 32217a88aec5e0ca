//go:build unix

package service_test

import (
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

func init() { programs["same-pid"] = samePID }

// A program that waits for the lock ends on SIGTERM.
func TestAttachWaitsForLock(t *testing.T) {
	s := newService(t)
	p := start(t, s, "manager")
	p.ExpectN(2, ` works$`)
	again := start(t, s, "manager", "wait")
	again.Expect(`waiting for lock holder to exit.* pid=` + strconv.Itoa(p.PID()) + `$`)
	again.Signal(syscall.SIGTERM)
	again.Expect(`^error: service test: terminated`)
	again.Wait()
	again = start(t, s, "manager", "wait")
	again.Expect(`waiting for lock holder to exit`)
	p.Signal(syscall.SIGTERM)
	p.WaitGone()
	again.ExpectN(2, ` works$`)
	again.Signal(syscall.SIGTERM)
	again.WaitGone()
}

// If the pid file cannot be created again, that is logged once, and the
// attempts continue.
func TestAttachWithoutDirectory(t *testing.T) {
	s := newService(t)
	p := start(t, s, "manager", "poll")
	p.ExpectN(2, ` works$`)
	thaw := preforktest.Freeze(t, p.PID()) // or it creates the file again at once
	if err := os.RemoveAll(s.Dir()); err != nil {
		t.Fatal(err)
	}
	thaw()
	p.Expect(`cannot create it again`)
	time.Sleep(50 * time.Millisecond) // some attempts, which must not be logged
	if err := os.Mkdir(s.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	p.Expect(`pid file removed, created again`)
	p.Signal(syscall.SIGTERM)
	p.WaitGone()
	logged := 0
	for _, line := range p.Lines() {
		if strings.Contains(line, "cannot create it again") {
			logged++
		}
	}
	if logged != 1 {
		t.Errorf("the failure was logged %d times", logged)
	}
}

// samePID holds the lock on a pid file with the pid of its second argument. A
// holder in another PID namespace can have the same pid as the test.
func samePID() {
	s := programService()
	f, err := os.Create(s.PIDFile)
	if err == nil {
		_, err = f.WriteString(os.Args[2] + "\n")
	}
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	report("locked: %v", err)
	io.Copy(io.Discard, os.Stdin)
	f.Close()
}

// A process does not mistake itself for a lock holder that has the same pid in
// another PID namespace.
func TestHolderWithSamePID(t *testing.T) {
	s := newService(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := preforktest.New(t, "same-pid", s.Dir(), strconv.Itoa(os.Getpid()))
	p.Cmd.Stdin = r
	p.Start()
	p.Expect(`^locked: <nil>$`)
	if pid, running, err := s.Running(); pid != 0 || !running || err != nil {
		t.Errorf("Running = %d, %t, %v; want 0, true", pid, running, err)
	}
	w.Close()
	p.Wait()
}
