//go:build unix

package prefork_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/preforktest"
)

// A program that starts itself must never breed by mistake. These are the mistakes.

// marker tells what a process takes itself for, and what New says.
func marker() {
	_, err := prefork.New(prefork.Config{})
	say("worker %t, variable %q, New: %v", prefork.IsWorker(), os.Getenv(inherit.Env), err)
}

func aMarker(manager, control int) inherit.Marker {
	return inherit.Marker{Manager: manager, Generation: 1, Ordinal: 1, Stop: term, Control: control}
}

// "Marker unreadable → IsWorker is true and New fails", and whoever goes on all the same cannot become a manager.
func TestAlteredMarker(t *testing.T) {
	good := aMarker(os.Getpid(), 3).String()
	for name, value := range map[string]string{
		"nonsense": "1", "empty": "", "cut": good[:len(good)/2], "another digit": strings.Replace(good, "slot=0", "slot=1", 1),
		"another version": strings.Replace(good, "v1;", "v2;", 1),
	} {
		t.Run(name, func(t *testing.T) {
			p := preforktest.New(t, "marker")
			p.Cmd.Env = append(p.Cmd.Env, inherit.Env+"="+value)
			p.Start()
			p.Expect(`^worker true, variable "", New: prefork: this process was started as a worker, but cannot be one: ` + inherit.Env + `=.`)
			wantSuccess(t, p)
		})
	}
}

// A marker that was not altered, but whose descriptors are not there.
func TestMarkerWithoutSocket(t *testing.T) {
	p := preforktest.New(t, "marker")
	p.Cmd.Env = append(p.Cmd.Env, inherit.Env+"="+aMarker(os.Getpid(), 9).String())
	p.Start()
	p.Expect(`^prefork: ` + inherit.Env + ` names manager \d+, which is not the parent of this process: the manager is gone; unset ` + inherit.Env)
	if state := p.Wait(); state.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit code 1", state)
	}
}

// "Parent another and socket at its end → it exits; parent another and socket alive → the marker belongs to someone else
// and the process is no worker."
func TestForeignMarker(t *testing.T) {
	for _, alive := range []bool{true, false} {
		t.Run(fmt.Sprintf("alive=%t", alive), func(t *testing.T) {
			fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
			syscall.CloseOnExec(fds[0])
			defer ours.Close()
			p := preforktest.New(t, "marker")
			p.Cmd.Env = append(p.Cmd.Env, inherit.Env+"="+aMarker(1, 3).String())
			p.Cmd.ExtraFiles = []*os.File{theirs}
			if !alive {
				ours.Close()
			}
			p.Start()
			theirs.Close()
			if alive {
				p.Expect(`^worker false, variable "", New: <nil>$`)
				wantSuccess(t, p)
				return
			}
			p.Expect(`the manager is gone`)
			if state := p.Wait(); state.ExitCode() != 1 {
				t.Errorf("ended with %v, want exit code 1", state)
			}
		})
	}
}

// A variable that stands twice: one of a manager that is gone, or unreadable, never makes a manager, wherever it stands.
func TestDoubledMarker(t *testing.T) {
	if _, err := exec.LookPath("perl"); err != nil {
		t.Log("perl is missing; a doubled variable is given by way of syscall.Exec alone")
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, second := range []string{"1", aMarker(1, 9).String()} {
		p := preforktest.New(t, "marker")
		env := append(p.Cmd.Env, "PREFORKTEST_PROGRAM=marker", inherit.Env+"=1", inherit.Env+"="+second)
		p = preforktest.New(t, "marker")
		p.Cmd.Path, p.Cmd.Env = path, env
		p.Start()
		p.Expect(`^worker true, .*cannot be one|the manager is gone`)
		p.Wait()
	}
}

// The manager's own variable, or one that a hook adds, never reaches a worker beside the true one.
func TestSpawnerReplacesItsVariables(t *testing.T) {
	env := inherit.Alter(
		[]string{"A=1", inherit.Env + "=old", inherit.DepthEnv + "=7", "LISTEN_FDS=1", "B=1"},
		[]string{"B=2", inherit.Env + "=of a hook", "C=3", "LISTEN_FDS=2", "no equals sign", "NUL=\x00"},
		inherit.Env+"=new",
	)
	if got, want := strings.Join(env, " "), "A=1 B=2 C=3 LISTEN_FDS=2 "+inherit.Env+"=new"; got != want {
		t.Errorf("environment %q, want %q", got, want)
	}
}

// amnesia is a program whose main starts the program anew, without the library's variable: a prelude that sets an
// environment of its own, say. Every worker forgets what it is.
func amnesia() {
	if os.Getenv("FORGOTTEN") == "" && prefork.IsWorker() {
		env := append(os.Environ(), "FORGOTTEN=1")
		log.Fatal(syscall.Exec("/proc/self/exe", os.Args, env))
	}
	n := 0
	pm := must(prefork.Config{MaxWorkers: 2, ErrRespawnInterval: 10 * time.Millisecond, OnChildReap: func(m *prefork.Manager, e prefork.Exit) {
		say("depth %s: %v, %v", os.Getenv("FORGOTTEN"), e.Reason, e.Status)
		if n++; n == 4 {
			m.Deliver(term)
		}
	}})
	untilTerm(pm, func(w *prefork.Worker) error {
		<-w.Context().Done()
		return nil
	})
}

// "Marker lost": a worker that runs as something that knows nothing of its manager is killed before it breeds for long,
// and what it started goes with it; the manager goes on and ends in order.
func TestLostMarker(t *testing.T) {
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		t.Skip("this system has no /proc/self/exe")
	}
	p := preforktest.Start(t, "amnesia")
	p.Expect(`^depth : never ready, SIGKILL$`)
	wantSuccess(t, p)
	p.WaitGone()
}

// relapse is a program whose every worker replaces itself by the program, before its work or in it, and takes itself for
// a manager then. Nothing of its own stops it.
func relapse() {
	anew := func() { log.Fatal(syscall.Exec("/proc/self/exe", os.Args, os.Environ())) }
	if prefork.IsWorker() && os.Args[1] == "prelude" {
		anew()
	}
	n := 0
	pm, err := prefork.New(prefork.Config{MaxWorkers: 4, ErrRespawnInterval: 10 * time.Millisecond, OnChildReap: func(m *prefork.Manager, e prefork.Exit) {
		if n++; n == 20 {
			m.Deliver(term)
		}
	}})
	if err != nil {
		log.Fatal(err)
	}
	untilTerm(pm, func(w *prefork.Worker) error {
		anew()
		return nil
	})
	say("pid %d ends", os.Getpid())
}

// The same without anything that would stop it: the manager ends in order, and nothing lives on.
func TestRelapse(t *testing.T) {
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		t.Skip("this system has no /proc/self/exe")
	}
	for _, when := range []string{"prelude", "work"} {
		t.Run(when, func(t *testing.T) {
			p := preforktest.Start(t, "relapse", when)
			p.Expect(fmt.Sprintf("^pid %d ends$", p.PID()))
			wantSuccess(t, p)
			p.WaitGone()
			n := strings.Count(strings.Join(p.Lines(), "\n"), "generation begins")
			t.Logf("%d managers for 20 lives of 4 workers", n)
			if n > 10 {
				t.Errorf("%d managers were made", n)
			}
		})
	}
}

// nest is a program that runs itself as a command from its worker, and again, and again.
func nest() {
	pm, err := prefork.New(prefork.Config{MaxWorkers: 1, Logger: slog.New(slog.DiscardHandler), OnChildReap: func(m *prefork.Manager, _ prefork.Exit) { m.Deliver(term) }})
	if err != nil {
		say("refused: %v", err)
		return
	}
	if !prefork.IsWorker() {
		say("manager")
	}
	untilTerm(pm, func(w *prefork.Worker) error {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run()
	})
}

// "A depth counter in the environment makes New fail at the fourth level", though no process that a worker starts sees
// the counter in its environment.
func TestDepth(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("this system does not show the environment of an ancestor")
	}
	p := copied(preforktest.New(t, "nest"), t).Start()
	p.ExpectN(3, `^manager$`)
	p.Expect(`^refused: prefork: this would be manager number 4 above one another: the program starts itself, most likely by mistake`)
	wantSuccess(t, p)
}

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

// sockets binds a TCP socket and two unix sockets of one name in turn, and serves its name on each.
func sockets() {
	dir := os.Args[1]
	pm := must(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}}})
	listen := func(network, address string) net.Listener {
		ln, err := pm.Listen(network, address)
		if err != nil {
			log.Fatal(err)
		}
		return ln
	}
	lns := []net.Listener{listen("tcp", "127.0.0.1:0"), listen("tcp", "127.0.0.1:0"), listen("unix", filepath.Join(dir, "s"))}
	if !prefork.IsWorker() {
		for i, ln := range lns {
			say("socket %d %s", i, ln.Addr())
		}
	}
	untilTerm(pm, func(w *prefork.Worker) error {
		if _, err := pm.Listen("tcp", "127.0.0.1:1"); !errors.Is(err, prefork.ErrNotInherited) {
			say("wrong: %v", err)
		} else {
			say("refused: %v", err)
		}
		for i, ln := range lns {
			go func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					fmt.Fprintf(conn, "socket %d generation %d\n", i, w.Generation())
					conn.Close()
				}
			}()
		}
		ctx := w.Context()
		say("up %d", w.Generation())
		<-ctx.Done()
		for _, ln := range lns {
			ln.Close()
		}
		return nil
	})
}

// Listen binds once in the manager and inherits in the workers; several equal calls match in order; the file of a unix
// socket outlives the workers that close their listeners, and is removed by the manager alone.
func TestListen(t *testing.T) {
	dir := preforktest.TempDir(t)
	p := preforktest.Start(t, "sockets", dir)
	var addresses []string
	for i := range 3 {
		addresses = append(addresses, p.Expect(fmt.Sprintf(`^socket %d (.*)$`, i))[1])
	}
	networks := []string{"tcp", "tcp", "unix"}
	for gen := 1; gen <= 2; gen++ {
		p.Expect(`^refused: prefork: Listen\("tcp", "127.0.0.1:1"\): not among the inherited sockets \(tcp 127.0.0.1:0, tcp 127.0.0.1:0, unix .*/s\)`)
		p.Expect(fmt.Sprintf(`^up %d$`, gen))
		for i, address := range addresses {
			if got, want := talk(t, networks[i], address), fmt.Sprintf("socket %d generation %d\n", i, gen); got != want {
				t.Errorf("%s says %q, want %q", address, got, want)
			}
		}
		p.Signal(hup)
	}
	p.Expect(`^up 3$`)
	p.Signal(term)
	wantSuccess(t, p)
	if _, err := os.Lstat(filepath.Join(dir, "s")); !os.IsNotExist(err) {
		t.Errorf("the file of the unix socket is left: %v", err)
	}
}

func talk(t *testing.T, network, address string) string {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(conn); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// pools is a program with two Managers.
func pools() {
	table := prefork.Signals{term: {Signal: term}}
	web, queue := must(prefork.Config{Name: "web", MaxWorkers: 2, TrapSignals: table}), must(prefork.Config{Name: "queue", MaxWorkers: 1, TrapSignals: table})
	ln, err := web.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan bool)
	for name, pm := range map[string]*prefork.Manager{"web": web, "queue": queue} {
		go func() {
			untilTerm(pm, func(w *prefork.Worker) error {
				ctx := w.Context()
				say("%s %d at %t", name, w.Slot(), ln.Addr().Network() == "tcp")
				<-ctx.Done()
				return nil
			})
			done <- true
		}()
	}
	<-done
	<-done
	say("done")
}

// "Several Managers in one program carry different names. In a worker, Start of any Manager but its own does not return."
func TestTwoPools(t *testing.T) {
	p := preforktest.Start(t, "pools")
	expectAll(p, map[string]int{"web 0 at true": 1, "web 1 at true": 1, "queue 0 at true": 1})
	p.Signal(term)
	p.Expect(`^done$`)
	wantSuccess(t, p)
	n := 0
	for _, line := range p.Lines() {
		if strings.Contains(line, " at true") {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d workers worked, want 3", n)
	}
}
