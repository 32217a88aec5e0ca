//go:build unix

package process_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("vanish", vanish)
	preforktest.Register("shifted", shifted)
	preforktest.Register("early", early)
	preforktest.Register("slow", slow)
}

// copied makes a program run from a copy of the test binary.
func copied(p *preforktest.Program, t *testing.T) *preforktest.Program {
	t.Helper()
	data, err := os.ReadFile(p.Cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	p.Cmd.Path = filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(p.Cmd.Path, data, 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}

// vanish is a program whose file is deleted while it runs.
func vanish() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, ErrRespawnInterval: -1})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("worker %d", os.Getpid())
		<-ctx.Done()
		return nil
	})
}

// "Workers run the executable that the manager itself runs, also when the file
// on disk was replaced or deleted."
func TestDeletedProgram(t *testing.T) {
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		preforktest.Skipf(t, "this system has no /proc/self/exe: a deleted program cannot be run again")
	}
	p := copied(preforktest.New(t, "vanish"), t).Start()
	got := p.Expect(`^worker (\d+)$`)
	if err := os.Remove(p.Cmd.Path); err != nil {
		t.Fatal(err)
	}
	killByPID(t, got[1])
	p.Expect(`^worker (\d+)$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// shifted is a program that changes os.Args before New, as programs with
// subcommands do, and closes its standard input.
func shifted() {
	testprog.Print("arguments %q", os.Args[1:])
	os.Args = append(os.Args[:1], os.Args[2:]...)
	if !prefork.IsWorker() {
		os.Stdin.Close()
	}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1})
	if _, err := pm.Listen("tcp", "127.0.0.1:0"); err != nil {
		log.Fatal(err)
	}
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		stdin, err := os.Readlink("/proc/self/fd/0")
		testprog.Print("stdin %s %v", stdin, err)
		testprog.SignalManager(w, term)
		return nil
	})
}

// A worker is started with the arguments of the manager. None of the library's
// descriptors takes the number of a closed standard stream.
func TestArgumentsAndStreams(t *testing.T) {
	p := preforktest.Start(t, "shifted", "serve", "-v")
	p.ExpectN(2, `^arguments \["serve" "-v"\]$`)
	if _, err := os.Stat("/proc/self/fd/0"); err == nil {
		p.Expect(`^stdin /dev/null <nil>$`)
	}
	testprog.ExpectSuccess(t, p)
}

// early is a program that receives SIGTERM before it starts workers, as
// signal.NotifyContext does.
func early() {
	c := make(chan os.Signal, 1)
	if prefork.IsWorker() {
		signal.Notify(c, term)
		testprog.Print("prelude")
		<-c
	}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		<-w.Context().Done()
		testprog.Print("cause: %v", context.Cause(w.Context()))
		return nil
	})
}

// A worker whose main receives the stop signal before Start finds its Context
// ended.
func TestStopSignalInPrelude(t *testing.T) {
	p := preforktest.Start(t, "early")
	p.ExpectN(2, `^prelude$`)
	p.Signal(term)
	p.ExpectN(2, `^cause: prefork: stopped by SIGTERM$`)
	testprog.ExpectSuccess(t, p)
}

// slow is a program whose workers call Ready themselves.
func slow() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, Readiness: prefork.Readiness{Explicit: true}, TrapSignals: prefork.Signals{
		term: {Signal: term}, usr1: {Signal: usr1},
	}})
	c := make(chan os.Signal, 1)
	if prefork.IsWorker() {
		signal.Notify(c, usr1)
	}
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("in Start")
		bufio.NewReader(os.Stdin).ReadString('\n') // the test has sent a signal
		select {
		case <-c:
			testprog.Print("wrong: the signal came before Ready")
		default:
		}
		w.Ready()
		w.Ready()
		testprog.Print("got %v", <-c)
		<-ctx.Done()
		return nil
	})
}

// With Readiness.Explicit a worker is ready when it calls Ready. It then
// receives the signals that were held.
func TestExplicitReadiness(t *testing.T) {
	p := preforktest.New(t, "slow")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p.Cmd.Stdin = r
	p.Start()
	r.Close()
	p.Expect(`^in Start$`)
	p.Signal(usr1)
	p.Expect(`signal received signal=SIGUSR1`)
	fmt.Fprintln(w, "go on")
	p.Expect(`^got user defined signal 1$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
	ready := 0
	for _, line := range p.Lines() {
		if strings.HasPrefix(line, "wrong") {
			t.Error(line)
		}
		if strings.Contains(line, "worker ready") {
			ready++
		}
	}
	if ready != 1 {
		t.Errorf("%d times ready, want once", ready)
	}
}
