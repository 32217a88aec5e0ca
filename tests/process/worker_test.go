//go:build unix

package process_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("ends", ends)
	preforktest.Register("inert", inert)
	preforktest.Register("surroundings", surroundings)
	preforktest.Register("reload", reload)
	preforktest.Register("clean", cleanEnds)
	preforktest.Register("busy", busy)
}

// ends is a program whose worker ends in the way of the argument. The manager
// prints the exit.
func ends() {
	// not called in the manager, which calls os.Exit below
	defer testprog.Print("deferred call of main in the worker")
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, OnChildReap: func(m *prefork.Manager, e prefork.Exit) {
		testprog.Print("reaped: %v, %v", e.Status, e.Reason)
		m.Deliver(term)
	}})
	work := func(w *prefork.Worker) error {
		switch os.Args[1] {
		case "error":
			return errors.New("the reason")
		case "panic":
			panic("at the disco")
		case "finish":
			pm.Finish(7)
		}
		return nil
	}
	if len(os.Args) > 2 {
		pm.Run(context.Background(), work)
	} else {
		testprog.UntilTerm(pm, work)
	}
	os.Exit(0)
}

// "In a worker, Run and StartFunc never return: nil → exit 0; an error →
// logged, exit 1; a panic → as Go does."
func TestEndOfWorker(t *testing.T) {
	for _, run := range [][]string{nil, {"run"}} {
		for how, want := range map[string][]string{
			"nil":    {`reaped: exit code 0, finished`},
			"error":  {`worker failed.* slot=0 gen=1 pid=\d+ err="the reason"`, `reaped: exit code 1, crashed`},
			"panic":  {`panic: at the disco`, `reaped: exit code 2, crashed`},
			"finish": {`reaped: exit code 7, crashed`},
		} {
			t.Run(strings.Join(append(run, how), " "), func(t *testing.T) {
				p := preforktest.Start(t, "ends", append([]string{how}, run...)...)
				for _, pattern := range want {
					p.Expect(pattern)
				}
				testprog.ExpectSuccess(t, p)
				for _, line := range p.Lines() {
					if strings.HasPrefix(line, "deferred") && how != "panic" {
						t.Error(line)
					}
				}
			})
		}
	}
}

// inert prints the effects of the Manager's methods in a worker.
func inert() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 3, ShutdownSignal: syscall.SIGUSR2})
	if prefork.IsWorker() {
		testprog.Print("before Start: worker %t, received %v", pm.Worker() != nil, pm.SignalReceived())
	}
	pm.Pass([]byte("from the manager"))
	for pm.SignalReceived() != term {
		if pm.Start() {
			continue
		}
		if pm.Worker().Slot() > 0 {
			<-pm.Worker().Context().Done()
			pm.Finish(0)
		}
		ctx := pm.Worker().Context()
		pm.Deliver(term)
		pm.SetMaxWorkers(99)
		pm.SignalAllChildren(syscall.SIGKILL)
		pm.Pass([]byte("from the worker"))
		s := pm.Snapshot()
		testprog.Print("manager %t workers %d max %d active generation %d snapshot %d passed %q received %v",
			pm.ManagerPID() == os.Getppid() && s.PID == os.Getppid(), pm.NumWorkers(), pm.MaxWorkers(), pm.Generation(), len(s.Workers), pm.Worker().Passed(), pm.SignalReceived())
		testprog.Print("wait: %v", recovered(func() { pm.WaitAllChildren(context.Background()) }))
		testprog.Print("start: %v", recovered(func() { pm.Start() }))
		testprog.SignalManager(pm.Worker(), term)
		<-ctx.Done()
		testprog.Print("cause: %v", context.Cause(ctx))
		pm.Finish(0)
	}
	pm.WaitAllChildren(context.Background())
}

func recovered(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// "Deliver, SetMaxWorkers, SignalAllChildren and Pass do nothing there,
// NumWorkers is 0, WaitAllChildren panics; Worker is nil before Start." Start
// twice in a worker panics.
func TestManagerInAWorker(t *testing.T) {
	p := preforktest.Start(t, "inert")
	p.Expect(`^before Start: worker false, received <nil>$`)
	p.Expect(`^manager true workers 0 max 3 active generation 1 snapshot 0 passed "from the manager" received <nil>$`)
	p.Expect(`^wait: prefork: WaitAllChildren called in a worker, .*leave the loop only in the manager`)
	p.Expect(`^start: prefork: Start called twice in a worker; .*Finish`)
	p.Expect(`^cause: prefork: stopped by SIGTERM$`)
	testprog.ExpectSuccess(t, p)
}

// surroundings prints the environment of a worker: the processes it starts, its
// name and group, and the manager's own commands.
func surroundings() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2})
	if _, err := pm.Listen("tcp", "127.0.0.1:0"); err != nil {
		log.Fatal(err)
	}
	pm.Pass(make([]byte, 1<<20))
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		if w.Slot() == 0 {
			out, err := exec.Command("/bin/sh", "-c", `env | grep -i -e prefork_ -e listen_ -e server_starter; echo "descriptors:"; ls -l /proc/self/fd | sed -n 's/.* \([0-9]* -> .*\)/\1/p'`).CombinedOutput()
			testprog.Print("begin %d\n%send %v", os.Getpid(), out, err)
		}
		<-ctx.Done()
		return nil
	})
}

// A process that a worker starts gets none of the library's environment and
// descriptors. A worker has a process group of its own. ps and top show the
// program's name and arguments.
func TestEnvironmentOfWorker(t *testing.T) {
	p := preforktest.New(t, "surroundings", "an argument", "")
	p.Cmd.Env = append(p.Cmd.Env, "LISTEN_PID=1", "LISTEN_FDS=3", "LISTEN_FDNAMES=a:b:c")
	p.Start()
	begin := p.Expect(`^begin (\d+)$`)
	for {
		line := p.NextLine()
		if strings.HasPrefix(line, "end ") {
			break
		}
		// ls has the directory itself open; 0, 1 and 2 are the standard
		// streams.
		if strings.Contains(line, "prefork") && !strings.Contains(line, "PREFORKTEST_") || strings.Contains(line, "socket:") ||
			strings.Contains(line, "memfd") || strings.Contains(line, "eventpoll") || strings.HasPrefix(line, "LISTEN") || strings.HasPrefix(line, "SERVER") {
			t.Errorf("a process that a worker started sees %q", line)
		}
	}
	pid := begin[1]
	var numeric int
	fmt.Sscan(pid, &numeric)
	if group, err := syscall.Getpgid(numeric); err != nil || group != numeric {
		t.Errorf("the worker's process group is %d (%v), want its own, %s", group, err, pid)
	}
	if cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil {
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		want := strings.Join([]string{p.Cmd.Args[0], "an argument", "", ""}, "\x00")
		if string(cmdline) != want {
			t.Errorf("cmdline %q, want %q", cmdline, want)
		}
		if got, want := strings.TrimSpace(string(comm)), filepath.Base(p.Cmd.Args[0]); got != want[:min(15, len(want))] {
			t.Errorf("comm %q, want that of %q", got, want)
		}
	}
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// reload is a program that passes on a configuration file by Run.
func reload() {
	file := os.Args[1]
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2, ErrRespawnInterval: -1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}},
		Reload: func() ([]byte, error) {
			data, err := os.ReadFile(file)
			if err == nil && !bytes.HasPrefix(data, []byte("good")) {
				err = fmt.Errorf("%s: want good things", file)
			}
			return data, err
		},
	})
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("worker %d of generation %d got %d bytes: %x", os.Getpid(), w.Generation(), len(w.Passed()), sha256.Sum256(w.Passed()))
		<-ctx.Done()
		return nil
	}); err != nil {
		log.Fatal(err)
	}
}

// A configuration of 1 MB is passed on. If the file is broken, the workers keep
// running, and a respawned one gets the last good data.
func TestPassMegabyte(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	write := func(data []byte) string {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("got %d bytes: %x$", len(data), sha256.Sum256(data))
	}
	first := write(append([]byte("good"), bytes.Repeat([]byte("1234567890abcdef"), 1<<16)...))
	p := preforktest.Start(t, "reload", file)
	got := p.ExpectN(2, `^worker (\d+) of generation 1 `+first)

	write([]byte("bad"))
	p.Signal(hup)
	p.Expect(`reload failed.*want good things`)
	killByPID(t, got[0][1])
	p.Expect(`^worker \d+ of generation 1 ` + first)

	second := write([]byte("good again"))
	p.Signal(hup)
	p.ExpectN(2, `^worker \d+ of generation 2 `+second)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)

	write([]byte("bad"))
	p = preforktest.Start(t, "reload", file)
	p.Expect(`prefork: Reload: .*want good things`)
	if state := p.Wait(); state.Success() {
		t.Error("a program with a bad first configuration keeps running")
	}
}

func killByPID(t *testing.T, pid string) {
	t.Helper()
	var n int
	fmt.Sscan(pid, &n)
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s: %v", pid, err)
	}
}

// cleanEnds is a program whose workers have no work.
func cleanEnds() {
	n, began := 0, time.Now()
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2, ErrRespawnInterval: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		AfterSpawn: func(m *prefork.Manager, _ int) {
			if n++; n == 16 {
				m.Deliver(term)
			}
		},
	})
	testprog.UntilTerm(pm, noWork)
	testprog.Print("%d spawns in %v", n, time.Since(began))
}

func noWork(*prefork.Worker) error { return nil }

// Workers exit cleanly at once. Each slot gets three spawns without a delay,
// then one per ErrRespawnInterval. So 16 spawns of two slots take at least five
// intervals.
func TestRateOfCleanEnds(t *testing.T) {
	p := preforktest.Start(t, "clean")
	got := p.Expect(`^16 spawns in (.*)$`)
	testprog.ExpectSuccess(t, p)
	took, err := time.ParseDuration(got[1])
	t.Logf("%s: %.1f a second in two slots with ErrRespawnInterval 300ms", got[0], 16/took.Seconds())
	if err != nil || took < 4*300*time.Millisecond {
		t.Errorf("%s, want at least four intervals of 300ms", got[0])
	}
}

// busy is a manager that runs commands of its own, which live about as long as
// its workers.
func busy() {
	ours := make(map[int]bool) // by pid: true until it has exited
	spawned, reaped := 0, 0
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 4, ErrRespawnInterval: -1, Logger: slog.New(slog.DiscardHandler),
		AfterSpawn: func(_ *prefork.Manager, pid int) {
			ours[pid] = true
			spawned++
		},
		OnChildReap: func(_ *prefork.Manager, e prefork.Exit) {
			if !ours[e.PID] {
				testprog.Print("wrong: hook called for another process, %v", e)
			}
			ours[e.PID] = false
			reaped++
		},
	})
	wrong := make(chan string, 100)
	if !prefork.IsWorker() {
		go func() {
			defer pm.Deliver(term)
			defer close(wrong)
			for i := range 100 {
				err := exec.Command("/bin/sh", "-c", fmt.Sprintf("exit %d", i)).Run()
				var exit *exec.ExitError
				if i == 0 && err != nil || i > 0 && (!errors.As(err, &exit) || exit.ExitCode() != i) {
					wrong <- fmt.Sprintf("wrong: command %d: %v", i, err)
				}
			}
		}()
	}
	testprog.UntilTerm(pm, noWork)
	for text := range wrong {
		testprog.Print("%s", text)
	}
	testprog.Print("spawned %d, reaped %d", spawned, reaped)
}

// D9: the manager runs 100 commands by os/exec. Every exit status is right, and
// no hook is called for them.
func TestD9CommandsOfTheManager(t *testing.T) {
	p := preforktest.Start(t, "busy")
	got := p.Expect(`^spawned (\d+), reaped (\d+)$`)
	if got[1] != got[2] {
		t.Error(got[0])
	}
	testprog.ExpectSuccess(t, p)
	for _, line := range p.Lines() {
		if strings.HasPrefix(line, "wrong") {
			t.Error(line)
		}
	}
}
