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

func init() { programs["namesake"] = namesake }

// One that waits for the name can be told to stop meanwhile.
func TestAttachWaits(t *testing.T) {
	s := newService(t)
	p := start(t, s, "managed")
	p.ExpectN(2, ` works$`)
	again := start(t, s, "managed", "waits")
	again.Expect(`waits for the process that runs to end.* pid=` + strconv.Itoa(p.PID()) + `$`)
	again.Signal(syscall.SIGTERM)
	again.Expect(`^cannot: service test: terminated`)
	again.Wait()
	again = start(t, s, "managed", "waits")
	again.Expect(`waits for the process that runs to end`)
	p.Signal(syscall.SIGTERM)
	p.WaitGone()
	again.ExpectN(2, ` works$`)
	again.Signal(syscall.SIGTERM)
	again.WaitGone()
}

// Where the pid file cannot be made anew, that is said once, and it is tried on.
func TestAttachWithoutDirectory(t *testing.T) {
	s := newService(t)
	p := start(t, s, "managed")
	p.ExpectN(2, ` works$`)
	if err := os.RemoveAll(s.Dir()); err != nil {
		t.Fatal(err)
	}
	p.Expect(`cannot be made anew`)
	time.Sleep(time.Second) // five looks
	if err := os.Mkdir(s.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	p.Expect(`it is there again`)
	p.Signal(syscall.SIGTERM)
	p.WaitGone()
	said := 0
	for _, line := range p.Lines() {
		if strings.Contains(line, "cannot be made anew") {
			said++
		}
	}
	if said != 1 {
		t.Errorf("it was said %d times", said)
	}
}

// namesake holds the lock of the pid file, in which another process's pid is: its own, in another PID namespace.
func namesake() {
	s := in()
	f, err := os.Create(s.PIDFile)
	if err == nil {
		_, err = f.WriteString(os.Args[2] + "\n")
	}
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	say("locked: %v", err)
	io.Copy(io.Discard, os.Stdin)
	f.Close()
}

// Who looks does not take itself for the one that runs, where that has the same pid in another namespace.
func TestNamesake(t *testing.T) {
	s := newService(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := preforktest.New(t, "namesake", s.Dir(), strconv.Itoa(os.Getpid()))
	p.Cmd.Stdin = r
	p.Start()
	p.Expect(`^locked: <nil>$`)
	if pid, running, err := s.Running(); pid != 0 || !running || err != nil {
		t.Errorf("Running = %d, %t, %v; want 0, true", pid, running, err)
	}
	w.Close()
	p.Wait()
}
