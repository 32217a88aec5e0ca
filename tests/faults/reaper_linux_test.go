package faults_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("first", first) }

// first is a manager below a reaper: as process 1, by Config.Reaper, or by
// Config.ReaperKills. If the
// second argument is not 0, its workers leave that number of orphans while the
// manager runs commands. On QUIT it exits with code 7.
func first() {
	orphans, _ := strconv.Atoi(os.Args[2])
	wrong := 0
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2, Reaper: os.Args[1] == "asked", ReaperKills: os.Args[1] == "kills", ErrRespawnInterval: -1,
		TrapSignals: prefork.Signals{
			term: {Signal: term}, hup: {Signal: term}, usr1: {}, syscall.SIGUSR2: {Upgrade: true}, syscall.SIGQUIT: {},
			syscall.SIGTTIN: {}, syscall.SIGTTOU: {}, syscall.SIGTSTP: {}, syscall.SIGWINCH: {}, syscall.SIGALRM: {}, syscall.SIGABRT: {},
			syscall.Signal(35): {}, syscall.Signal(64): {},
		},
		Observe: func(ev prefork.Event) {
			if ev, ok := ev.(prefork.SignalEvent); ok {
				testprog.Print("%d received %v", os.Getpid(), ev.Received)
				if ev.Received == syscall.SIGQUIT {
					os.Exit(7)
				}
			}
		},
	})
	ln, err := pm.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		testprog.Print("%v", err)
		os.Exit(1)
	}
	if !prefork.IsWorker() {
		testprog.Print("manager %d below %d, at %s, sees %q, started as %d", os.Getpid(), os.Getppid(), ln.Addr(), os.Getenv("PREFORK_REAPER"), prefork.ReaperPID())
		if orphans > 0 {
			go func() {
				for i := range orphans {
					cmd := exec.Command("sh", "-c", fmt.Sprintf("exit %d", i%100))
					if cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != i%100 {
						wrong++
						testprog.Print("command %d: %v", i, cmd.ProcessState)
					}
					if i%100 == 0 {
						testprog.Print("so far, %d commands", i)
					}
				}
				testprog.Print("%d commands, %d wrong", orphans, wrong)
			}()
		}
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		// Each of these shells leaves a hundred processes behind, which exit
		// after they have become orphans.
		for i := 0; i < orphans/2/100; i++ {
			if err := exec.Command("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do for j in 1 2 3 4 5 6 7 8 9 10; do (exec sleep 0.05) & done; done").Run(); err != nil {
				testprog.Print("shell: %v", err)
			}
		}
		testprog.Print("worker of %d, generation %d", w.ManagerPID(), w.Generation())
		go func() {
			<-ctx.Done()
			ln.Close()
		}()
		var open sync.WaitGroup
		defer open.Wait()
		for {
			conn, err := ln.Accept()
			if err != nil {
				return nil
			}
			open.Go(func() { // until the other side closes
				fmt.Fprintln(conn, os.Getpid())
				io.Copy(io.Discard, conn)
				conn.Close()
			})
		}
	})
	testprog.Print("%d ends: %v", os.Getpid(), err)
}

// eachReaper runs a test below each kind of reaper: as process 1, by Reaper, and
// by ReaperKills.
func eachReaper(t *testing.T, kinds []string, test func(t *testing.T, start func(orphans int) *preforktest.Program)) {
	for _, kind := range kinds {
		how, init := strings.CutPrefix(kind, "process 1 ")
		t.Run(kind, func(t *testing.T) {
			test(t, func(n int) *preforktest.Program {
				p := preforktest.New(t, "first", how, strconv.Itoa(n))
				if init {
					p.AsInit()
				}
				return p.Start()
			})
		})
	}
}

// The kinds of eachReaper.
var (
	allReapers   = []string{"process 1 given", "asked", "kills", "process 1 kills"}
	plainReapers = allReapers[:2]
)

// reaperPID returns the pid of the reaper: of the child of the guard, if there is
// one.
func reaperPID(t *testing.T, p *preforktest.Program) int {
	t.Helper()
	if !slices.Contains(p.Cmd.Args, "kills") {
		return p.PID()
	}
	all, err := preforktest.Children(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("the guard has %d children: %v", len(all), all)
	}
	return all[0].PID
}

// managers returns the children of the reaper, by their pids out here.
func managers(t *testing.T, p *preforktest.Program) []preforktest.Proc {
	t.Helper()
	all, err := preforktest.Children(reaperPID(t, p))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The reaper forwards signals, and exits with the status of the manager.
func TestReaper(t *testing.T) {
	eachReaper(t, allReapers, func(t *testing.T, start func(int) *preforktest.Program) {
		p := start(0)
		if got, _ := strconv.Atoi(p.Expect(`^manager \d+ below \d+, at \S+, sees "", started as (\d+)$`)[1]); got != p.PID() && got != 1 {
			t.Errorf("the program was started as %d, and ReaperPID is %d", p.PID(), got)
		}
		p.ExpectN(2, `^worker of \d+, generation 1$`)
		p.Signal(hup)
		p.ExpectN(2, `^worker of \d+, generation 2$`)
		if memory, err := preforktest.PrivateMemory(reaperPID(t, p)); err == nil {
			t.Logf("private memory of the reaper: %d KiB", memory/1024)
		}
		if n := len(managers(t, p)); n != 1 {
			t.Errorf("the reaper has %d children: %v", n, managers(t, p))
		}
		p.Signal(term)
		p.Expect(`ends: <nil>$`)
		testprog.ExpectSuccess(t, p)

		p = start(0)
		p.ExpectN(2, `^worker of`)
		p.Signal(syscall.SIGQUIT)
		if state := p.Wait(); state.ExitCode() != 7 {
			t.Errorf("the manager exited with 7, the reaper with %v", state)
		}
		p.WaitGone() // the workers, which no signal has stopped

		p = start(0)
		p.ExpectN(2, `^worker of`)
		syscall.Kill(managers(t, p)[0].PID, syscall.SIGKILL)
		ws := p.Wait().Sys().(syscall.WaitStatus)
		if ws.Signal() != syscall.SIGKILL && ws.ExitStatus() != 128+9 {
			t.Errorf("the manager was killed, the reaper ended with %v", p.Cmd.ProcessState)
		}
	})
}

// The reaper forwards every signal that a table can name, even those that stop
// a process on a terminal.
func TestReaperPassesSignals(t *testing.T) {
	eachReaper(t, allReapers, func(t *testing.T, start func(int) *preforktest.Program) {
		p := start(0)
		p.ExpectN(2, `^worker of`)
		for _, sig := range []syscall.Signal{syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGTSTP, syscall.SIGWINCH, syscall.SIGALRM, syscall.SIGABRT, 35, 64} {
			p.Signal(sig)
			p.Expect(`received ` + regexp.QuoteMeta(sig.String()) + `$`)
		}
		p.Signal(term)
		testprog.ExpectSuccess(t, p)
	})
}

// A signal that was ignored at the start, as under nohup, is received and
// forwarded if the table names it. Ctrl-C stays ignored.
func TestReaperIgnored(t *testing.T) {
	p := preforktest.New(t, "first")
	p.Cmd = &exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", `trap "" HUP INT; exec "$0" asked 0`, p.Cmd.Path}, Env: p.Cmd.Env}
	p.Start()
	p.ExpectN(2, `^worker of \d+, generation 1$`)
	p.Signal(syscall.SIGINT)
	p.Signal(hup)
	p.ExpectN(2, `^worker of \d+, generation 2$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// 10,000 grandchildren become orphans, and all are reaped. Commands that the
// manager runs by os/exec at the same time all return their own status.
func TestReaperReaps(t *testing.T) {
	eachReaper(t, plainReapers, func(t *testing.T, start func(int) *preforktest.Program) {
		n := testprog.Times(10_000)
		p := start(n)
		for done := 0; done < 3; { // each line separately
			if line := p.NextLine(); strings.HasPrefix(line, "worker of") || strings.HasSuffix(line, " commands, 0 wrong") {
				done++
			}
		}
		preforktest.WaitFor(t, "all orphans are reaped", func() bool { return len(managers(t, p)) == 1 })
		p.Signal(term)
		testprog.ExpectSuccess(t, p)
		t.Logf("%d orphans reaped, %d commands", n, n)
	})
}

// An upgrade keeps the reaper above the successor, and loses no connection.
func TestReaperUpgrade(t *testing.T) {
	eachReaper(t, allReapers, func(t *testing.T, start func(int) *preforktest.Program) {
		p := start(0)
		manager := p.Expect(`^manager (\d+)`)[1]
		p.ExpectN(2, `^worker of`)
		for range testprog.Times(50) {
			p.Signal(syscall.SIGUSR2)
			successor := p.Expect(`^manager (\d+)`)[1]
			p.Expect(`^` + manager + ` ends: <nil>$`)
			preforktest.WaitFor(t, "the successor is the reaper's only child", func() bool { return len(managers(t, p)) == 1 })
			p.Signal(usr1)
			p.Expect(`^` + successor + ` received user defined signal 1$`)
			manager = successor
			preforktest.WaitFor(t, "the reaper has a handle of no other manager", func() bool {
				fds, err := preforktest.Descriptors(reaperPID(t, p))
				if err != nil {
					t.Fatal(err)
				}
				handles := 0
				for _, name := range fds {
					if strings.Contains(name, "pidfd") {
						handles++
					}
				}
				return handles <= 1
			})
		}
		p.Signal(term)
		p.Expect(`^` + manager + ` ends: <nil>$`)
		testprog.ExpectSuccess(t, p)
	})
}

// A successor that exits while the old manager drains does not end the program.
// Its status becomes the program's.
func TestReaperOfTwo(t *testing.T) {
	eachReaper(t, allReapers, func(t *testing.T, start func(int) *preforktest.Program) {
		p := start(0)
		address := p.Expect(`^manager \d+ below \d+, at (\S+),`)[1]
		p.ExpectN(2, `^worker of`)
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		bufio.NewReader(conn).ReadString('\n') // a worker of the first manager has the request
		p.Signal(syscall.SIGUSR2)
		successor := p.Expect(`^manager (\d+)`)[1]
		p.Expect(`^\d+ received terminated$`) // from the first manager to its workers
		preforktest.WaitFor(t, "the successor took over", func() bool { return len(managers(t, p)) == 1 })
		p.Signal(syscall.SIGQUIT)
		p.Expect(`^` + successor + ` received quit$`)
		preforktest.WaitFor(t, "the successor is gone", func() bool {
			all, err := preforktest.Children(managers(t, p)[0].PID)
			return err == nil && len(all) == 1 // the worker
		})
		conn.Close()
		if state := p.Wait(); state.ExitCode() != 7 {
			t.Errorf("the successor exited with 7, the reaper with %v", state)
		}
		p.WaitGone() // the successor's workers, which no signal has stopped
	})
}

// A manager whose reaper is killed shuts down.
func TestReaperKilled(t *testing.T) {
	p := preforktest.Start(t, "first", "asked", "0")
	p.ExpectN(2, `^worker of`)
	p.Kill()
	p.Expect(`ends: <nil>$`)
	p.WaitGone()
}

// Sockets that the program was started with reach the manager, even if they are
// addressed to the pid of the reaper. An upgrade is not refused: start_server
// and systemd see only the reaper.
func TestReaperPassesSockets(t *testing.T) {
	for _, how := range []string{
		`SERVER_STARTER_PORT="$1=3" exec "$0" asked 0`, `SYSTEMD_EXEC_PID=$$ LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" asked 0`,
		`SYSTEMD_EXEC_PID=$$ LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" kills 0`,
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := ln.(*net.TCPListener).File()
		ln.Close()
		if err != nil {
			t.Fatal(err)
		}
		p := preforktest.New(t, "first")
		p.Cmd = &exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", how, p.Cmd.Path, ln.Addr().String()}, Env: p.Cmd.Env, ExtraFiles: []*os.File{f}}
		p.Start()
		f.Close()
		manager := p.Expect(`^manager (\d+)`)[1]
		p.ExpectN(2, `^worker of`)
		p.Signal(syscall.SIGUSR2)
		p.Expect(`^manager`)
		p.Expect(`^` + manager + ` ends: <nil>$`)
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line == "" {
			t.Errorf("%q, %v", line, err)
		}
		conn.Close()
		p.Signal(term)
		testprog.ExpectSuccess(t, p)
	}
}
