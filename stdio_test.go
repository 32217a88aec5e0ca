//go:build unix

package prefork_test

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { programs["talkative"] = talkative }

// talkative is a manager that logs to its standard error, and tells on its standard output of each spawn. Its workers
// write to the standard error too, a page each, if the first argument says so.
func talkative() {
	pm := must(prefork.Config{
		MaxWorkers: 2, ErrRespawnInterval: -1, StopTimeout: 200e6,
		AfterSpawn: func(_ *prefork.Manager, pid int) { say("spawned %d", pid) },
	})
	untilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		if len(os.Args) > 1 {
			say("worker writes")
			os.Stderr.Write(make([]byte, 4096))
		}
		<-ctx.Done()
		return nil
	})
}

// fullPipe is a pipe without room, which is full again each time that a little was read.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	conn, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	conn.Control(func(fd uintptr) {
		for size := 4096; size > 0; size /= 2 {
			for err := error(nil); err == nil; {
				_, err = syscall.Write(int(fd), make([]byte, size))
			}
		}
		syscall.SetNonblock(int(fd), false) // as a program finds it
	})
	return r, w
}

// spawned waits for the next worker.
func spawned(p *preforktest.Program) (pid int) {
	pid, _ = strconv.Atoi(p.Expect(`^spawned (\d+)$`)[1])
	return pid
}

// A manager whose log nobody reads goes on, and says later what was lost.
func TestFullStderr(t *testing.T) {
	r, w := fullPipe(t)
	p := preforktest.New(t, "talkative")
	p.Cmd.Stderr = w
	p.Start()
	spawned(p)
	pid := spawned(p)
	const kills = 1000 // each makes three lines
	for range kills {
		syscall.Kill(pid, syscall.SIGKILL)
		pid = spawned(p)
	}
	w.Close()
	in := bufio.NewReader(r) // it is read, at last
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	lines := make(chan int)
	go func() {
		all, _ := io.ReadAll(in)
		lines <- strings.Count(string(all), "log lines dropped")
	}()
	p.Signal(term) // which is heeded when the log goes on again: one that stands still is not waited for at the end
	wantSuccess(t, p)
	if n := <-lines; n != 1 {
		t.Errorf("%d lines tell that lines are lost, want one", n)
	}
}

// Workers that wait in a write are killed after StopTimeout; nobody waits for them.
func TestFullStderrOfWorkers(t *testing.T) {
	_, w := fullPipe(t)
	p := preforktest.New(t, "talkative", "workers")
	p.Cmd.Stderr = w
	p.Start()
	p.ExpectN(2, `^worker writes$`)
	p.Signal(term)
	wantSuccess(t, p)
}

// Who reads the log may end: that ends neither the manager nor its workers.
func TestClosedStderr(t *testing.T) {
	r, w := fullPipe(t)
	p := preforktest.New(t, "talkative")
	p.Cmd.Stderr = w
	p.Start()
	w.Close()
	r.Close()
	spawned(p)
	pid := spawned(p)
	for range 10 {
		syscall.Kill(pid, syscall.SIGKILL)
		pid = spawned(p)
	}
	p.Signal(term)
	wantSuccess(t, p)
}
