//go:build unix

package prefork

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	if len(os.Args) < 3 || os.Args[1] != pageProgram {
		return
	}
	switch os.Args[2] {
	case "interrupt":
		interruptItself(os.Args[3], os.Args[4], os.Args[5])
	case "worker":
		orphan, _ := time.ParseDuration(os.Args[4])
		stop, _ := time.ParseDuration(os.Args[5])
		keepWorker(os.Args[3], orphan, stop)
	case "effect":
		showEffect(os.Args[3])
	}
	os.Exit(0)
}

func startPage(t *testing.T, args ...string) *preforktest.Program {
	t.Helper()
	return newPage(t, args...).Start()
}

func newPage(t *testing.T, args ...string) *preforktest.Program {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return preforktest.Command(t, exec.Command(path, append([]string{pageProgram}, args...)...))
}

func orExit(m *Manager, err error) *Manager {
	if err != nil {
		log.Fatal(err)
	}
	return m
}

func interruptItself(table, shutdown, call string) {
	t := new(testing.T) // its Fatalf is never reached: the table was parsed before
	m := orExit(New(pageConfig(t, []string{table, shutdown})))
	if call == "Run" {
		m.trapShutdown()
	}
	fmt.Println("begin")
	syscall.Kill(os.Getpid(), syscall.SIGINT)
	<-m.inbox.wake
	a, _ := m.takeSignal()
	if a.interrupt {
		fmt.Println("it counts as", short(a.sig))
		return
	}
	fmt.Println("it is", short(a.sig))
}

// keepWorker has one worker, in the state that is named, which says that it is alive on USR2.
func keepWorker(state string, orphan, stop time.Duration) {
	m := orExit(New(Config{
		MaxWorkers: 1, ErrRespawnInterval: -1, OrphanTimeout: orphan, StopTimeout: stop,
		TrapSignals: Signals{term: {Signal: term}, hup: {Signal: hup}},
		OnChildReap: func(_ *Manager, e Exit) { fmt.Printf("reaped: %v, %v\n", e.Status, e.Reason) },
	}))
	here := func() { fmt.Println("here", os.Getpid()) }
	if IsWorker() {
		ping := make(chan os.Signal, 1)
		signal.Notify(ping, syscall.SIGUSR2)
		go func() {
			for range ping {
				fmt.Println("alive")
			}
		}()
		if state == "before Start" {
			here()
			os.Stdin.Read(make([]byte, 1))
		}
	}
	for {
		m.StartFunc(func(w *Worker) error {
			if state == "before Start" || state == "after Start, before Context" {
				here()
				select {}
			}
			ctx := w.Context()
			here()
			<-ctx.Done()
			fmt.Println("Context ended:", context.Cause(ctx))
			select {}
		})
		fmt.Println("forwarded", m.SignalReceived())
	}
}

func checkWorker(t *testing.T, row, columns []string) {
	for i, what := range columns[1:] {
		want := row[1+i]
		if want == "–" {
			continue
		}
		t.Run(what, func(t *testing.T) { checkWorkerCell(t, row[0], what, want) })
	}
}

func checkWorkerCell(t *testing.T, state, what, want string) {
	// Only where the page says that a time must pass is it short enough to.
	orphan, stop := "1h", "1h"
	if strings.Contains(want, "after OrphanTimeout") {
		orphan = "300ms"
	}
	if what == "StopTimeout" {
		stop = "300ms"
	}
	stdin, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	defer release.Close()
	p := newPage(t, "worker", state, orphan, stop)
	p.Cmd.Stdin = stdin
	p.Start()
	pid, _ := strconv.Atoi(p.Expect(`^here (\d+)$`)[1])
	switch state {
	case "told to stop":
		p.Signal(term)
		p.ExpectN(2, `^Context ended: prefork: stopped by SIGTERM$|^forwarded terminated$`)
	case "orphaned":
		p.Kill()
		p.Expect(`^Context ended: prefork: the manager is gone$`)
	}
	began := time.Now()
	sig := hup
	switch what {
	case "the stop signal (TERM)":
		sig = term
		fallthrough
	case "another that is forwarded (HUP)":
		if state == "orphaned" { // by hand, since there is nobody else
			syscall.Kill(pid, sig)
			break
		}
		p.Signal(sig)
		if want == "nothing" || strings.HasPrefix(want, "held") {
			p.Expect(`^forwarded `)
		}
	case "the manager's death":
		p.Kill()
	case "StopTimeout": // told to stop, time passes by itself
	default:
		t.Fatalf("%s: nothing is known of column %q", signalsPage, what)
	}
	alive := func() {
		t.Helper()
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatalf("worker %d: %v", pid, err)
		}
		p.Expect(`^alive$`)
	}
	switch want {
	case "ends it":
		if what == "the manager's death" || state == "orphaned" {
			p.WaitGone()
			break
		}
		p.Expect(fmt.Sprintf(`^reaped: SIG%s, `, short(sig)))
	case "ends Context":
		p.Expect(`^Context ended: prefork: stopped by SIGTERM$`)
		alive()
	case "nothing":
		alive()
		if state == "orphaned" { // nobody else would end it
			syscall.Kill(pid, syscall.SIGKILL)
			p.WaitGone()
		}
	case "held until Start":
		alive()
		release.Write([]byte{'x'})
		p.Expect(`^reaped: SIGHUP, `)
	case "ends Context, and it after OrphanTimeout":
		p.Expect(`^Context ended: prefork: the manager is gone$`)
		fallthrough
	case "ends it after OrphanTimeout":
		if took := p.WaitGone().Sub(began); took < 300*time.Millisecond {
			t.Errorf("it ended after %v, OrphanTimeout is 300ms", took)
		}
	case "kills it":
		p.Expect(`^reaped: SIGKILL, stop timeout$`)
	default:
		t.Fatalf("%s: nothing is known of %q", signalsPage, want)
	}
}

// showEffect has a worker send itself the signal, and then end by exit code 42 if it is to do so.
func showEffect(arg string) {
	name, stays := strings.CutSuffix(arg, " nothing")
	m := orExit(New(Config{MaxWorkers: 1, OnChildReap: func(m *Manager, e Exit) {
		fmt.Printf("reaped: %v\n", e.Status)
		m.Deliver(term)
	}}))
	m.Run(context.Background(), func(*Worker) error {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGVTALRM)
		sig, _ := strconv.Atoi(name)
		syscall.Kill(os.Getpid(), syscall.Signal(sig))
		if !stays {
			select {}
		}
		for range 10 { // so that what was sent before has come
			syscall.Kill(os.Getpid(), syscall.SIGVTALRM)
			<-c
		}
		m.Finish(42)
		return nil
	})
}

func checkEffect(t *testing.T, row, _ []string) {
	for name := range strings.SplitSeq(row[0], ", ") {
		t.Run(name, func(t *testing.T) {
			arg := strconv.Itoa(signum(called(t, name)))
			want, stacks := "", false
			switch row[1] {
			case "ends it by that signal":
				want = "SIG" + name
			case "ends it with exit code 2, and the stacks of all goroutines on standard error":
				want, stacks = "exit code 2", true
			case "nothing":
				want = "exit code 42"
				arg += " nothing"
			default:
				t.Fatalf("%s: nothing is known of %q", signalsPage, row[1])
			}
			p := startPage(t, "effect", arg)
			comparePage(t, name, want, p.Expect(`^reaped: (.*)$`)[1])
			said := slices.ContainsFunc(p.Lines(), func(line string) bool { return strings.HasPrefix(line, "goroutine ") })
			if p.Wait(); said != stacks {
				t.Errorf("stacks of goroutines on standard error: %t", said)
			}
		})
	}
}
