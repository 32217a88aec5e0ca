//go:build unix

package prefork_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

// command runs what its arguments say as the worker.
func command() {
	pm := must(prefork.Config{MaxWorkers: 2, Command: os.Args[1:], ErrRespawnInterval: 50 * time.Millisecond,
		BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
			s.Env = []string{"LISTEN_FDS=0", "SLOT=" + strconv.Itoa(s.Slot), "HOME=twice", "HOME=once"}
		},
		Observe: func(ev prefork.Event) {
			if ev, ok := ev.(prefork.SpawnFailedEvent); ok {
				var spawn *prefork.SpawnError
				say("failed: %t %t", errors.As(error(ev.Err), &spawn), errors.Is(ev.Err, exec.ErrNotFound))
			}
		},
	})
	if err := pm.Run(context.Background(), nil); err != nil {
		log.Fatal(err)
	}
}

// A Command that is the program itself: the same mistake by another way. Each level fails to go on, none spins.
func TestProgramAsItsOwnCommand(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// command(command(command(command(sh)))): the fourth manager is refused.
	p := copied(preforktest.New(t, "command", path, path, path, "/bin/sh", "-c", "echo never; sleep 60"), t).Start()
	p.Expect(`this would be manager number 4 above one another`)
	p.Signal(term)
	wantSuccess(t, p)
	if strings.Contains(strings.Join(p.Lines(), "\n"), "never\n") {
		t.Error("the fourth manager ran")
	}
	p.WaitGone()
}

// clone is a program that is its own Command, by way of a wrapper that empties the environment.
func clone() {
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 2, Command: []string{"env", "-i", "PATH=" + os.Getenv("PATH"), "PREFORKTEST_PROGRAM=clone", os.Args[0]},
		OnChildReap: func(m *prefork.Manager, _ prefork.Exit) { m.Deliver(term) },
	})
	if err != nil {
		log.Fatal(err)
	}
	untilTerm(pm, nil)
	say("pid %d ends", os.Getpid())
}

// "An emptied environment": nothing that a manager wrote is left, and still the program does not go on for ever.
func TestEmptiedEnvironment(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("this system does not show what its ancestors run")
	}
	p := preforktest.Start(t, "clone")
	p.Expect(`this would be manager number 4 above one another`)
	p.Expect(fmt.Sprintf(`^pid %d ends$`, p.PID()))
	wantSuccess(t, p)
	p.WaitGone()
}

// A Command is run as it is: the environment of the manager and what BeforeSpawn adds, the standard streams and nothing
// else, in a process group of its own; it is told to stop by the stop signal.
func TestCommand(t *testing.T) {
	p := preforktest.Start(t, "command", "/bin/sh", "-c",
		`trap 'echo stopped $SLOT; exit 0' TERM; env | grep -i 'prefork_worker'; echo up $SLOT $HOME $LISTEN_FDS; ls -l /proc/self/fd | grep socket:; while :; do sleep 0.05; done`)
	p.ExpectN(2, `^up [01] once 0$`)
	p.Signal(term)
	p.ExpectN(2, `^stopped [01]$`)
	wantSuccess(t, p)
	for _, line := range p.Lines() {
		if strings.Contains(line, "PREFORK_WORKER") || strings.Contains(line, "socket:") {
			t.Errorf("the command sees %q", line)
		}
	}
}

// "A Command is killed by the kernel" when its manager dies, also when it ignores every signal that could be ignored.
func TestCommandDiesWithItsManager(t *testing.T) {
	if !diesWithParent {
		t.Skip("this system has no parent-death signal")
	}
	p := preforktest.Start(t, "command", "/bin/sh", "-c", `trap '' TERM HUP INT QUIT; echo up; exec sleep 1000`)
	p.ExpectN(2, `^up$`)
	p.Kill()
	p.Wait()
	p.WaitGone()
}

// Failing to spawn is logged, reported as *SpawnError in an event, paced, and never ends or spins the manager.
func TestSpawnOfWhatIsNotThere(t *testing.T) {
	p := preforktest.Start(t, "command", "no-such-program")
	p.ExpectN(3, `^failed: true true$`)
	p.Expect(`ERROR spawn failed slot=0 gen=1 err="exec: .*no-such-program.* retry=\d+ms`)
	p.Signal(term)
	wantSuccess(t, p)
}

// limited is a manager at its limit of descriptors.
func limited() {
	var limit syscall.Rlimit
	if prefork.IsWorker() {
		say("worker")
	}
	pm := must(prefork.Config{MaxWorkers: 2, ErrRespawnInterval: 20 * time.Millisecond, Observe: func(ev prefork.Event) {
		if ev, ok := ev.(prefork.SpawnFailedEvent); ok {
			say("failed: %v", errors.Is(ev.Err, syscall.EMFILE))
		}
	}})
	if !prefork.IsWorker() {
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
		f, err := os.Open(os.DevNull)
		if err != nil {
			log.Fatal(err)
		}
		low := limit
		set(&low.Cur, int(f.Fd()))
		f.Close()
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low)
		go func() {
			var b bytes.Buffer
			b.ReadFrom(os.Stdin) // until the test closes it
			syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
		}()
	}
	untilTerm(pm, func(w *prefork.Worker) error {
		<-w.Context().Done()
		return nil
	})
}

// set sets a number whose type differs from system to system.
func set[T int64 | uint64](dst *T, n int) { *dst = T(n) }

// A manager at its limit of descriptors goes on trying, and recovers when the limit is lifted.
func TestSpawnWithoutDescriptors(t *testing.T) {
	p := preforktest.New(t, "limited")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Cmd.Stdin = r
	p.Start()
	r.Close()
	p.ExpectN(3, `^failed: true$`)
	w.Close()
	p.ExpectN(2, `^worker$`)
	p.Signal(term)
	wantSuccess(t, p)
}
