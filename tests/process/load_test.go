//go:build unix

package process_test

import (
	"context"
	"errors"
	"net"
	"os"
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
	preforktest.Register("spare", spare)
	preforktest.Register("burdened", burdened)
	preforktest.Register("suspended", suspended)
}

// spare is the program of the original's 03-spareworkers.t: its workers are
// busy while a file exists.
func spare() {
	pm := testprog.NewManager(prefork.Config{MinSpareWorkers: 3, MaxSpareWorkers: 5, MaxWorkers: 10, ErrRespawnInterval: -1})
	if prefork.IsWorker() {
		pm.Start()
		w := pm.Worker()
		pipe, err := net.Dial("unix", os.Args[1])
		if err != nil {
			pm.Finish(0) // the test has ended
		}
		buf := make([]byte, 1)
		for {
			if _, err := pipe.Read(buf); err != nil {
				pm.Finish(0)
			}
			w.SetStatus(buf[0])
			w.Served(1)
		}
	}
	go func() { // prints the numbers when they change
		last := ""
		for {
			if now := strconv.Itoa(pm.NumWorkers()) + " workers, " + strconv.Itoa(pm.NumActiveWorkers()) + " active"; now != last {
				testprog.Print("%s", now)
				last = now
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	for pm.SignalReceived() != term {
		pm.Start()
	}
	pm.WaitAllChildren(context.Background())
}

// T3: 03-spareworkers.t with its counts: 3 workers and 0 active; 10 and 10 when
// all are busy; 5 and 0 when all are idle. The library needs no heartbeat, so
// the test takes as long as ten spawns.
func TestOriginal03Spare(t *testing.T) {
	for range testprog.Times(20) {
		dir := testprog.SocketDir(t)
		ln, err := net.Listen("unix", dir+"/s")
		if err != nil {
			t.Fatal(err)
		}
		workers := make(chan net.Conn)
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					close(workers)
					return
				}
				workers <- c
			}
		}()
		p := preforktest.Start(t, "spare", dir+"/s")
		p.Expect(`^3 workers, 0 active$`)
		var all []net.Conn
		next := func(n int, status string) {
			for range n {
				c := <-workers
				all = append(all, c)
				c.Write([]byte(status))
			}
		}
		next(10, "A") // each new worker is made busy, so that there are never 3 idle ones
		p.Expect(`^10 workers, 10 active$`)
		for _, c := range all {
			c.Write([]byte{prefork.StatusIdle})
		}
		p.Expect(`^5 workers, 0 active$`)
		p.Signal(term)
		p.Wait()
		ln.Close()
		for _, c := range all {
			c.Close()
		}
		for c := range workers {
			c.Close()
		}
	}
}

// burdened is a manager with limits. Its argument selects the behaviour of the
// workers.
func burdened() {
	cfg := prefork.Config{MaxWorkers: 2, ErrRespawnInterval: -1, Observe: func(ev prefork.Event) {
		if ev, ok := ev.(prefork.ExitEvent); ok {
			testprog.Print("gone: %v, %v", ev.Exit.Reason, ev.Exit.Status)
		}
	}}
	what, quit := strings.CutSuffix(os.Args[1], ", stopped by QUIT")
	if quit {
		cfg.TrapSignals = prefork.Signals{term: {Signal: syscall.SIGQUIT}}
	}
	switch what {
	case "requests":
		cfg.Recycle.MaxRequests = 100
	case "lifetime":
		cfg.Recycle.MaxLifetime = 200 * time.Millisecond
	case "memory":
		cfg.Recycle.MaxMemory = 100 << 20
	case "pauses":
		cfg.Stuck.Timeout = 300 * time.Millisecond
	case "loops", "blocks", "is stopped":
		cfg.Stuck.Timeout, cfg.StopTimeout = 500*time.Millisecond, 300*time.Millisecond
	case "crashes":
		cfg.CrashLoop = prefork.CrashLoop{Failures: 5}
	}
	pm := testprog.NewManager(cfg)
	if what == "pauses" && !prefork.IsWorker() {
		pm.Pause()
		time.AfterFunc(time.Second, pm.Resume)
	}
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		switch what {
		case "pauses":
			w.SetStatus('P')
			w.Checkpoint()
			testprog.Print("goes on")
		case "requests":
			for w.Context().Err() == nil {
				w.Served(1)
				time.Sleep(100 * time.Microsecond)
			}
		case "memory":
			w.Context()
			hog := make([]byte, 150<<20)
			for i := 0; i < len(hog); i += 4096 {
				hog[i] = 1
			}
			<-w.Context().Done()
			hog[0]++
		case "loops":
			w.Context()
			w.SetStatus('L')
			for n := 0; ; n++ {
				if n < 0 {
					break // it runs for centuries
				}
			}
		case "blocks":
			w.SetStatus('B')
			var fds [2]int
			syscall.Pipe(fds[:])
			syscall.Read(fds[0], make([]byte, 1))
		case "is stopped":
			w.SetStatus('S')
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		case "crashes":
			os.Exit(3)
		}
		<-w.Context().Done()
		return nil
	})
	testprog.Print("Run: %v", errors.Is(err, prefork.ErrCrashLoop))
}

func TestRecycle(t *testing.T) {
	for _, why := range []string{"requests", "lifetime", "memory"} {
		t.Run(why, func(t *testing.T) {
			p := preforktest.Start(t, "burdened", why)
			p.ExpectN(4, `^gone: recycled, exit code 0`)
			p.Signal(term)
			p.Wait()
		})
	}
}

// A worker that is paused with a busy status is not stuck.
func TestPausedIsNotStuck(t *testing.T) {
	p := preforktest.Start(t, "burdened", "pauses")
	if got := p.ExpectN(2, `^gone: .*|^goes on$`); got[0][0] != "goes on" || got[1][0] != "goes on" {
		t.Error(got)
	}
	p.Signal(term)
	p.Wait()
}

func TestStuckWorkers(t *testing.T) {
	for why, how := range map[string]string{"loops": "exit code 2", "loops, stopped by QUIT": "exit code 2", "blocks": "exit code 2", "is stopped": "SIGKILL"} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			p := preforktest.Start(t, "burdened", why)
			p.ExpectN(2, `^gone: stuck, `+how)
			dump := strings.Contains(strings.Join(p.Lines(), "\n"), "goroutine ")
			if dump != (how == "exit code 2") {
				t.Errorf("its goroutines are in the log: %v", dump)
			}
			p.Signal(term)
			p.Wait()
		})
	}
}

// A manager that was suspended for longer than Stuck.Timeout kills no worker.
func TestStuckAndSuspend(t *testing.T) {
	p := preforktest.Start(t, "suspended")
	p.ExpectN(2, "worker ready")
	p.Signal(syscall.SIGSTOP)
	// Longer than the timeout; the test checks below that nothing happened.
	time.Sleep(2 * time.Second)
	p.Signal(syscall.SIGCONT)
	p.Expect("beats on 9")
	p.Signal(term)
	p.Wait()
	if text := strings.Join(p.Lines(), "\n"); strings.Contains(text, "stuck") {
		t.Errorf("a worker was taken for stuck:\n%s", text)
	}
}

func suspended() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, Stuck: prefork.Stuck{Timeout: 1500 * time.Millisecond}})
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		w.SetStatus('B')
		for i := 0; w.Context().Err() == nil; i++ {
			w.Heartbeat()
			testprog.Print("beats on %d", i)
			time.Sleep(300 * time.Millisecond)
		}
		return nil
	})
}

func TestCrashLoopGivesUp(t *testing.T) {
	p := preforktest.Start(t, "burdened", "crashes")
	p.Expect(`crash loop, shutting down`)
	p.Expect(`^Run: true$`)
	p.Wait()
}

// The same holds if the manager was suspended together with its workers and
// continues before them: a machine that slept, a frozen container.
func TestStuckAndFreeze(t *testing.T) {
	p := preforktest.Start(t, "suspended")
	p.ExpectN(2, "worker ready")
	p.ExpectN(4, "beats on")
	workers, err := preforktest.Children(p.PID())
	if err != nil {
		preforktest.Skipf(t, "%v", err)
	}
	all := func(sig syscall.Signal) {
		for _, w := range workers {
			syscall.Kill(w.PID, sig)
		}
	}
	all(syscall.SIGSTOP)
	time.Sleep(time.Second / 4) // the manager reads the board, so that nothing is new to it later
	p.Signal(syscall.SIGSTOP)
	time.Sleep(2 * time.Second) // longer than the timeout
	p.Signal(syscall.SIGCONT)
	time.Sleep(time.Second / 10) // the manager reads it first
	all(syscall.SIGCONT)
	p.Expect("beats on 9")
	p.Signal(term)
	p.Wait()
	if text := strings.Join(p.Lines(), "\n"); strings.Contains(text, "stuck") {
		t.Errorf("a worker was taken for stuck:\n%s", text)
	}
}
