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

// A library that waits for any child takes a status now and then. Whoever of the two is first has it.
func TestForeignWait(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		for range 10 {
			c := o.start(exitProgram, []string{"5"})
			stolen := make(chan int)
			go func() {
				for {
					pid, err := syscall.Wait4(-1, nil, 0, nil)
					if err == syscall.EINTR {
						continue
					}
					stolen <- pid
					return
				}
			}()
			c.in.Close()
			want := Status{Code: 5}
			if <-stolen == c.Pid() {
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

// The portable table's goroutine all but always wins that race; here it begins when it has lost.
func TestPortableLosesStatus(t *testing.T) {
	o := newOwner(t, "portable")
	table := o.Table.(*portableTable)
	spec := Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 5"}}
	child, err := table.spawner.spawn(spec, sysProcAttr(spec))
	if err != nil {
		t.Fatal(err)
	}
	p := &portableProcess{t: table, id: 9, pid: child.pid, ended: make(chan struct{})}
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

// The table takes no status from os/exec.
func TestBesideExec(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		var commands sync.WaitGroup
		for i := range 4 {
			commands.Go(func() {
				for j := range 10 {
					code := 1 + 10*i + j
					err := exec.Command("/bin/sh", "-c", "exit "+strconv.Itoa(code)).Run()
					var exit *exec.ExitError
					if !errors.As(err, &exit) || exit.ExitCode() != code {
						t.Errorf("%v, want exit status %d", err, code)
					}
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
