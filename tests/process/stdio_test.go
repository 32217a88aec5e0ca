//go:build unix

package process_test

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("talkative", talkative) }

// talkative is a manager that logs to standard error and prints each spawn on
// standard output. With a first argument, its workers write a page each
// to standard error.
func talkative() {
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2, ErrRespawnInterval: -1, StopTimeout: 200e6,
		AfterSpawn: func(_ *prefork.Manager, pid int) { testprog.Print("spawned %d", pid) },
	})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		if len(os.Args) > 1 {
			testprog.Print("worker writes")
			os.Stderr.Write(make([]byte, 4096))
		}
		<-ctx.Done()
		return nil
	})
}

// fullPipe returns a pipe without room. It is full again after each short read.
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
		syscall.SetNonblock(int(fd), false) // the usual mode of a standard stream
	})
	return r, w
}

// spawned waits for the next worker.
func spawned(p *preforktest.Program) (pid int) {
	pid, _ = strconv.Atoi(p.Expect(`^spawned (\d+)$`)[1])
	return pid
}

// A manager whose log is not read keeps running, and later logs the number of
// lost records.
func TestFullStderr(t *testing.T) {
	r, w := fullPipe(t)
	p := preforktest.New(t, "talkative")
	p.Cmd.Stderr = w
	p.Start()
	spawned(p)
	pid := spawned(p)
	const kills = 1000 // each spawn logs three lines
	for range kills {
		syscall.Kill(pid, syscall.SIGKILL)
		pid = spawned(p)
	}
	w.Close()
	in := bufio.NewReader(r) // now the log is read
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	lines := make(chan int)
	go func() {
		all, _ := io.ReadAll(in)
		lines <- strings.Count(string(all), "log lines dropped")
	}()
	p.Signal(term) // this applies when the log continues: a stuck log is not awaited at the end
	testprog.ExpectSuccess(t, p)
	if n := <-lines; n != 1 {
		t.Errorf("%d lines tell that lines are lost, want one", n)
	}
}

// Workers that block in a write are killed after StopTimeout. The manager does
// not wait for the write.
func TestFullStderrOfWorkers(t *testing.T) {
	_, w := fullPipe(t)
	p := preforktest.New(t, "talkative", "workers")
	p.Cmd.Stderr = w
	p.Start()
	p.ExpectN(2, `^worker writes$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// The end of the log's reader ends neither the manager nor its workers.
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
	testprog.ExpectSuccess(t, p)
}
