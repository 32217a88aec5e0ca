package process_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("fleet", fleet)
	preforktest.Register("opened and closed", openedAndClosed)
}

// quiet is a Manager of a Command inside a program that runs many.
func quiet(name string, command ...string) (*prefork.Manager, error) {
	return prefork.New(prefork.Config{
		Name: name, MaxWorkers: 1, Command: command, Untrapped: true, StopSignal: term, TrapSignals: prefork.Signals{},
		Restart: prefork.RestartOnFailure, Logger: slog.New(slog.DiscardHandler),
	})
}

// fleet runs as many Managers as its argument says until its standard input ends.
// Then it closes all.
func fleet() {
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	first, err := quiet("first", "/bin/true") // with what all Managers share
	if err != nil {
		log.Fatal(err)
	}
	goroutines := runtime.NumGoroutine()
	testprog.Print("first")
	bufio.NewReader(os.Stdin).ReadString('\n')
	var up, down sync.WaitGroup
	all := make([]*prefork.Manager, n)
	for i := range all {
		if all[i], err = quiet(strconv.Itoa(i), "/bin/sleep", "600"); err != nil {
			log.Fatal(err)
		}
		up.Add(1)
		all[i].Follow(func(rec prefork.Record) {
			if _, ok := rec.Event.(prefork.SettledEvent); ok {
				up.Done()
			}
		})
		down.Go(func() {
			if err := all[i].Run(context.Background(), nil); err != nil {
				log.Fatal(err)
			}
		})
	}
	up.Wait()
	testprog.Print("up with %d goroutines", runtime.NumGoroutine()-goroutines)
	bufio.NewReader(os.Stdin).ReadString('\n')
	for _, pm := range all {
		pm.Shutdown()
	}
	down.Wait()
	for _, pm := range append(all, first) {
		if err := pm.Close(); err != nil {
			log.Fatal(err)
		}
	}
	testprog.Print("closed")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// Many Managers of a program share one process table: they cost few goroutines
// and no thread each, do nothing while nothing happens, and leave nothing after
// Close. With -long they are 200, idle for 10 s.
func TestManyManagers(t *testing.T) {
	n := 20
	if testprog.Long() {
		n = 200
	}
	t.Setenv("GOMAXPROCS", "2") // which the number of threads depends on
	p, next := startWithInput(t, "fleet", n)
	p.Expect(`^first$`)
	first := residentMiB(t, p.PID())
	next()
	goroutines, _ := strconv.Atoi(p.Expect(`^up with (\d+) goroutines$`)[1])
	if most := n + 10; goroutines > most {
		t.Errorf("%d Managers have %d goroutines, want at most %d", n, goroutines, most)
	}
	threads, err := preforktest.Threads(p.PID())
	if threads > 20 {
		t.Errorf("%d threads, want at most 20", threads)
	}
	files, err2 := preforktest.Descriptors(p.PID())
	if most := n + 20; len(files) > most {
		t.Errorf("%d descriptors, want at most %d", len(files), most)
	}
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d Managers: %d goroutines, %d threads, %d descriptors, %.1f MiB RSS, %.1f with one", n, goroutines, threads, len(files), residentMiB(t, p.PID()), first)
	if testprog.Long() {
		staysIdle(t, p.PID())
		// The test's program links more than a usual one, so the growth counts.
		if grown := residentMiB(t, p.PID()) - first; grown > 7 {
			t.Errorf("%d Managers take %.1f MiB, want at most 7", n, grown)
		}
	}
	next()
	p.Expect(`^closed$`)
	preforkGone(t, p.PID())
	next()
	testprog.ExpectSuccess(t, p)
}

// startWithInput starts a program, and returns a function that writes a line to its
// standard input.
func startWithInput(t *testing.T, name string, n int) (p *preforktest.Program, next func()) {
	t.Helper()
	p = preforktest.New(t, name, strconv.Itoa(n))
	in, err := p.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return p.Start(), func() { io.WriteString(in, "\n") }
}

// staysIdle compares what a process costs while nothing happens.
func staysIdle(t *testing.T, pid int) {
	t.Helper()
	time.Sleep(3 * time.Second) // the runtime returns memory after the start
	before, err := preforktest.ContextSwitches(pid)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Second)
	after, err := preforktest.ContextSwitches(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("idle: %d context switches in 10 s, %.1f MiB RSS", after-before, residentMiB(t, pid))
	if after != before {
		t.Errorf("%d context switches in 10 s, want none", after-before)
	}
}

// preforkGone checks that a program without Managers has no process table.
func preforkGone(t *testing.T, pid int) {
	t.Helper()
	files, err := preforktest.Descriptors(pid)
	if err != nil {
		t.Fatal(err)
	}
	polls := 0
	for fd, name := range files {
		if strings.Contains(name, "eventpoll") {
			polls++
		}
		if strings.Contains(name, "pidfd") {
			t.Errorf("after Close descriptor %d is %s", fd, name)
		}
	}
	if polls > 1 { // that of the runtime
		t.Errorf("after Close there are %d epolls: %v", polls, files)
	}
}

func residentMiB(t *testing.T, pid int) float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			kib, _ := strconv.Atoi(f[1])
			return float64(kib) / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// openedAndClosed makes, runs and closes Managers of one name, each with a socket
// and a worker that ends by itself, and prints what is left.
func openedAndClosed() {
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	one := func() {
		pm, err := quiet("again", "/bin/true")
		if err != nil {
			log.Fatal(err)
		}
		if _, err := pm.Listen("tcp", "127.0.0.1:0"); err != nil {
			log.Fatal(err)
		}
		pm.Pass([]byte("config"))
		if err := pm.Run(context.Background(), nil); err != nil {
			log.Fatal(err)
		}
		if err := pm.Close(); err != nil {
			log.Fatal(err)
		}
	}
	one() // what the runtime keeps
	for _, left := range []string{"before", "after"} {
		runtime.GC()
		testprog.Print("%s %d", left, runtime.NumGoroutine())
		bufio.NewReader(os.Stdin).ReadString('\n')
		if left == "before" {
			for i := range n {
				one()
				if i%20 == 19 {
					testprog.Print("closed")
				}
			}
		}
	}
}

// After Close nothing of a Manager is left: no goroutine, descriptor, thread or
// name. With -long, after 10,000 of them.
func TestNothingIsLeftAfterClose(t *testing.T) {
	n := 20
	if testprog.Long() {
		n = 10_000
	}
	p, next := startWithInput(t, "opened and closed", n)
	type held struct{ goroutines, files, threads int }
	look := func(when string) (h held) {
		h.goroutines, _ = strconv.Atoi(p.Expect(`^` + when + ` (\d+)$`)[1])
		files, err := preforktest.Descriptors(p.PID())
		threads, err2 := preforktest.Threads(p.PID())
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		h.files, h.threads = len(files), threads
		return h
	}
	before := look("before")
	next()
	for range n / 20 {
		p.Expect(`^closed$`)
	}
	after := look("after")
	t.Logf("%d Managers: %+v before, %+v after; %.1f MiB RSS", n, before, after, residentMiB(t, p.PID()))
	// A goroutine that is about to end, and the threads that the runtime keeps.
	if after.goroutines > before.goroutines+2 || after.files > before.files || after.threads > before.threads+5 {
		t.Errorf("after %d Managers: %+v, before: %+v", n, after, before)
	}
	next()
	testprog.ExpectSuccess(t, p)
}
