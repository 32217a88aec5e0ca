//go:build unix

package proc

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// waitAny waits for any child and returns its pid.
func waitAny() int {
	for {
		pid, err := syscall.Wait4(-1, nil, 0, nil)
		if err != syscall.EINTR {
			return pid
		}
	}
}

// A library that waits for any child may collect a status before the table. The
// first of the two gets it.
func TestForeignWait(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		for range 10 {
			c := o.start("exit", []string{"5"})
			collected := make(chan int)
			go func() { collected <- waitAny() }()
			c.in.Close()
			want := Status{Code: 5}
			if <-collected == c.Pid() {
				want = Status{Unknown: true}
			}
			if status := c.reap(); status != want {
				t.Errorf("%v, want %v", status, want)
			}
			if err := c.Signal(syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	})
}

// The portable table's goroutine almost always wins that race. Here it starts
// after it has lost.
func TestPortableLosesStatus(t *testing.T) {
	o := newOwner(t, "portable")
	table := o.Table.(*portableTable)
	spec := Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 5"}}
	child, err := table.spawner.spawn(spec, sysProcAttr(spec))
	if err != nil {
		t.Fatal(err)
	}
	p := &portableProcess{t: table, id: 9, pid: child.pid, exited: make(chan struct{})}
	p.process, err = os.FindProcess(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	for err = syscall.EINTR; err == syscall.EINTR; {
		_, err = syscall.Wait4(-1, nil, 0, nil)
	}
	go p.wait()
	o.await(Note{9, Exited})
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if status, usage, ok := p.Reap(); !ok || status != (Status{Unknown: true}) || usage != nil {
		t.Error(status, usage, ok)
	}
}

// runExit runs a process of os/exec and checks its exit code.
func runExit(t *testing.T, code int) {
	err := exec.Command("/bin/sh", "-c", "exit "+strconv.Itoa(code)).Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Errorf("%v, want exit status %d", err, code)
	}
}

// The table collects no status of a process of os/exec.
func TestBesideExec(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		var commands sync.WaitGroup
		for i := range 4 {
			commands.Go(func() {
				for j := range 10 {
					runExit(t, 1+10*i+j)
				}
			})
		}
		for code := range 40 {
			c := o.startSpec(Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "exit " + strconv.Itoa(code)}})
			if status := c.reap(); status != (Status{Code: code}) {
				t.Errorf("%v, want %d", status, code)
			}
		}
		commands.Wait()
	})
}
