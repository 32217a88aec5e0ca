//go:build unix

package process_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
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
	preforktest.Register("command", command)
	preforktest.Register("late", late)
	preforktest.Register("placed", placed)
	preforktest.Register("limited", limited)
	preforktest.Register("clone", clone)
}

// command runs its arguments as the worker.
func command() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, Command: os.Args[1:], ErrRespawnInterval: 50 * time.Millisecond,
		BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
			s.Env = []string{"LISTEN_FDS=0", "SLOT=" + strconv.Itoa(s.Slot), "HOME=twice", "HOME=once"}
		},
		Observe: func(ev prefork.Event) {
			if ev, ok := ev.(prefork.SpawnFailedEvent); ok {
				var spawn *prefork.SpawnError
				testprog.Print("failed: %t %t", errors.As(error(ev.Err), &spawn), errors.Is(ev.Err, exec.ErrNotFound))
			}
		},
	})
	if err := pm.Run(context.Background(), nil); err != nil {
		log.Fatal(err)
	}
}

// A program that is its own Command: each level fails, and none spins.
func TestProgramAsItsOwnCommand(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// command(command(command(command(sh)))): the fourth manager is refused.
	p := copied(preforktest.New(t, "command", path, path, path, "/bin/sh", "-c", "echo never; sleep 60"), t).Start()
	p.Expect(`this would be manager number 4 above one another`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
	if strings.Contains(strings.Join(p.Lines(), "\n"), "never\n") {
		t.Error("the fourth manager ran")
	}
	p.WaitGone()
}

// clone is a program that is its own Command, through a wrapper that empties
// the environment.
func clone() {
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 2, Command: []string{"env", "-i", "PATH=" + os.Getenv("PATH"), "PREFORKTEST_PROGRAM=clone", os.Args[0]},
		OnChildReap: func(m *prefork.Manager, _ prefork.Exit) { m.Deliver(term) },
	})
	if err != nil {
		log.Fatal(err)
	}
	testprog.UntilTerm(pm, nil)
	testprog.Print("pid %d ends", os.Getpid())
}

// "An emptied environment": nothing that a manager wrote is left, and the
// program still does not start itself forever.
func TestEmptiedEnvironment(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		preforktest.Skipf(t, "this system does not show what its ancestors run")
	}
	p := preforktest.Start(t, "clone")
	p.Expect(`this would be manager number 4 above one another`)
	p.Expect(fmt.Sprintf(`^pid %d ends$`, p.PID()))
	testprog.ExpectSuccess(t, p)
	p.WaitGone()
}

// A Command gets the environment of the manager, additions of BeforeSpawn, the
// standard streams and no other descriptor. It has a process group of its own
// and gets the stop signal.
func TestCommand(t *testing.T) {
	p := preforktest.Start(t, "command", "/bin/sh", "-c",
		`trap 'echo stopped $SLOT; exit 0' TERM; env | grep -i 'prefork_worker'; echo up $SLOT $HOME $LISTEN_FDS; ls -l /proc/self/fd | grep socket:; while :; do sleep 0.05; done`)
	p.ExpectN(2, `^up [01] once 0$`)
	p.Signal(term)
	p.ExpectN(2, `^stopped [01]$`)
	testprog.ExpectSuccess(t, p)
	for _, line := range p.Lines() {
		if strings.Contains(line, "PREFORK_WORKER") || strings.Contains(line, "socket:") {
			t.Errorf("the command sees %q", line)
		}
	}
}

// "A Command is killed by the kernel" when its manager dies, even if it ignores
// every signal that can be ignored.
func TestCommandDiesWithItsManager(t *testing.T) {
	if !diesWithParent {
		preforktest.Skipf(t, "this system has no parent-death signal")
	}
	p := preforktest.Start(t, "command", "/bin/sh", "-c", `trap '' TERM HUP INT QUIT; echo up; exec sleep 1000`)
	p.ExpectN(2, `^up$`)
	p.Kill()
	p.Wait()
	p.WaitGone()
}

// A failed spawn is logged, reported as a *SpawnError in an event and delayed.
// It never ends the manager or makes it spin.
func TestSpawnOfMissingProgram(t *testing.T) {
	p := preforktest.Start(t, "command", "no-such-program")
	p.ExpectN(3, `^failed: true true$`)
	p.Expect(`ERROR spawn failed slot=0 gen=1 err="exec: .*no-such-program.* retry=\d+ms`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// limited is a manager at its limit of open descriptors.
func limited() {
	var limit syscall.Rlimit
	if prefork.IsWorker() {
		testprog.Print("worker")
	}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, ErrRespawnInterval: 20 * time.Millisecond, Observe: func(ev prefork.Event) {
		if ev, ok := ev.(prefork.SpawnFailedEvent); ok {
			testprog.Print("failed: %v", errors.Is(ev.Err, syscall.EMFILE))
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
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		<-w.Context().Done()
		return nil
	})
}

// set sets a number whose type differs between systems.
func set[T int64 | uint64](dst *T, n int) { *dst = T(n) }

// A manager at its limit of open descriptors keeps trying, and recovers when
// the limit is raised.
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
	testprog.ExpectSuccess(t, p)
}

// late runs its arguments as a Command that reports on descriptor 3.
func late() {
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, Command: os.Args[1:], Readiness: prefork.Readiness{FD: 3}, TrapSignals: prefork.Signals{syscall.SIGHUP: {Rolling: true}},
		Observe: func(ev prefork.Event) {
			if ev, ok := ev.(prefork.StateEvent); ok {
				testprog.Print("%d %v", ev.Worker.Generation, ev.Worker.State)
			}
		},
	})
	if _, err := pm.Listen("tcp", "127.0.0.1:0"); err != nil {
		log.Fatal(err)
	}
	if err := pm.Run(context.Background(), nil); err != nil {
		log.Fatal(err)
	}
}

// A rolling reload stops a Command when the next one has written a newline to its
// descriptor. The socket of Listen moves to another number.
func TestRollWaitsForTheNewline(t *testing.T) {
	p := preforktest.New(t, "late", "/bin/sh", "-c",
		`echo "up $SERVER_STARTER_PORT"; read line; printf 'up' >&3; echo >&3; exec 3>&-; exec sleep 1000`)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p.Cmd.Stdin = r
	p.Start()
	r.Close()
	p.Expect(`^up 127.0.0.1:\d+=4$`)
	w.WriteString("\n")
	p.Expect(`^1 ready$`)
	p.Signal(syscall.SIGHUP)
	p.Expect(`^up `)
	w.WriteString("\n")
	p.Expect(`^1 stopping$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
	want := []string{"1 starting", "1 ready", "2 starting", "2 ready", "1 stopping", "2 stopping"}
	var got []string
	for _, line := range p.Lines() {
		if _, state, _ := strings.Cut(line, " "); slices.Contains([]string{"starting", "ready", "stopping"}, state) {
			got = append(got, line)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// placed runs a Command of each slot in its own way.
func placed() {
	r, w, err := os.Pipe()
	if err != nil {
		log.Fatal(err)
	}
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2, Command: []string{"./run", "given"}, Dir: os.Args[1],
		BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
			s.Unset = []string{"LATER", "SERVER_STARTER_GENERATION"}
			s.Stdout, s.FilesAt = w, map[int]*os.File{7: w}
			if s.Slot == 1 {
				s.Command, s.Path, s.Dir = []string{"-own", "-c", "echo $0 $*; pwd; exec sleep 1000", "one", "two"}, "/bin/sh", "/"
			}
		},
	})
	go func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			testprog.Print("out: %s", lines.Text())
		}
	}()
	if err := pm.Run(context.Background(), nil); err != nil {
		log.Fatal(err)
	}
}

// A Command has its directory, its streams, its files at their numbers and its
// environment, and each slot its own arguments.
func TestCommandOfASlot(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"$0 $* ${LATER-unset} ${SERVER_STARTER_GENERATION-unset} ${SERVER_STARTER_PORT-unset}\"\npwd\necho seven >&7\nexec sleep 1000\n"
	if err := os.WriteFile(dir+"/run", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	p := preforktest.New(t, "placed", dir)
	p.Cmd.Env = append(p.Cmd.Environ(), "LATER=set")
	p.Start()
	want := []string{"./run given unset unset unset", dir, "seven", "one two", "/"}
	p.ExpectN(len(want), `^out: `)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
	lines := p.Lines()
	for _, line := range want {
		if !slices.Contains(lines, "out: "+line) {
			t.Errorf("no line %q in %q", line, lines)
		}
	}
}
