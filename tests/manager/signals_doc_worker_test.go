//go:build unix

package manager_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("interruptItself", interruptItself)
	preforktest.Register("keepWorker", keepWorker)
	preforktest.Register("showEffect", showEffect)
}

// interruptItself is a program that calls Start or Run, sends itself SIGINT and
// prints how it counts.
func interruptItself() {
	t := new(testing.T) // Fatalf is never reached: the test has parsed the table before
	cfg := pageConfig(t, os.Args[1:])
	var m *prefork.Manager
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Observe = func(ev prefork.Event) {
		switch ev.(type) {
		case prefork.GenerationEvent:
			fmt.Println("begin")
			syscall.Kill(os.Getpid(), syscall.SIGINT)
		case prefork.SignalEvent:
			received := m.SignalReceived() // nil in Run, unless it ends
			if received == nil || received == syscall.SIGINT {
				fmt.Println("it is INT")
			} else {
				fmt.Println("it counts as", short(received))
			}
			os.Exit(0)
		}
	}
	m = testprog.NewManager(cfg)
	m.SetMaxWorkers(0)
	if os.Args[3] == "Run" {
		m.Run(context.Background(), noWork)
	}
	m.Start()
}

// keepWorker is a program with one worker in the state of its argument. The
// worker prints "alive" on SIGUSR2.
func keepWorker() {
	state := os.Args[1]
	orphan, _ := time.ParseDuration(os.Args[2])
	stop, _ := time.ParseDuration(os.Args[3])
	m := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, ErrRespawnInterval: -1, OrphanTimeout: orphan, StopTimeout: stop,
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: hup}},
		OnChildReap: func(_ *prefork.Manager, e prefork.Exit) { fmt.Printf("reaped: %v, %v\n", e.Status, e.Reason) },
	})
	here := func() { fmt.Println("here", os.Getpid()) }
	if prefork.IsWorker() {
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
		m.StartFunc(func(w *prefork.Worker) error {
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
	// The timeout is short only if the effect follows it on the page.
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
	p := preforktest.New(t, "keepWorker", state, orphan, stop)
	p.Cmd.Stdin = stdin
	p.Start()
	pid, _ := strconv.Atoi(p.Expect(`^here (\d+)$`)[1])
	switch state {
	case "stopping":
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
		if state == "orphaned" { // directly, without the manager
			syscall.Kill(pid, sig)
			break
		}
		p.Signal(sig)
		if want == "nothing" || strings.HasPrefix(want, "held") {
			p.Expect(`^forwarded `)
		}
	case "the manager's death":
		p.Kill()
	case "StopTimeout": // the worker is stopping: only time has to pass
	default:
		t.Fatalf("%s: unknown column %q", signalsPage, what)
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
		if state == "orphaned" { // nothing else would end it
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
		t.Fatalf("%s: unknown effect %q", signalsPage, want)
	}
}

// showEffect is a program whose worker sends itself a signal. It exits with
// code 42 if the signal has no effect.
func showEffect() {
	arg := os.Args[1]
	name, stays := strings.CutSuffix(arg, " nothing")
	m := testprog.NewManager(prefork.Config{MaxWorkers: 1, OnChildReap: func(m *prefork.Manager, e prefork.Exit) {
		fmt.Printf("reaped: %v\n", e.Status)
		m.Deliver(term)
	}})
	m.Run(context.Background(), func(*prefork.Worker) error {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGVTALRM)
		sig, _ := strconv.Atoi(name)
		syscall.Kill(os.Getpid(), syscall.Signal(sig))
		if !stays {
			select {}
		}
		for range 10 { // until earlier signals have arrived
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
			arg := strconv.Itoa(int(called(t, name).(syscall.Signal)))
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
				t.Fatalf("%s: unknown effect %q", signalsPage, row[1])
			}
			p := preforktest.Start(t, "showEffect", arg)
			comparePage(t, name, want, p.Expect(`^reaped: (.*)$`)[1])
			shown := slices.ContainsFunc(p.Lines(), func(line string) bool { return strings.HasPrefix(line, "goroutine ") })
			if p.Wait(); shown != stacks {
				t.Errorf("stacks of goroutines on standard error: %t", shown)
			}
		})
	}
}
