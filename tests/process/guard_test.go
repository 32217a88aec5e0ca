//go:build unix

package process_test

import (
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("marker", showMarker)
	preforktest.Register("dropMarker", dropMarker)
	preforktest.Register("nest", nest)
	preforktest.Register("becomeManager", becomeManager)
}

// A program that starts itself must never multiply by mistake. Each test makes
// one mistake.

// showMarker prints the role of the process and the result of New.
func showMarker() {
	_, err := prefork.New(prefork.Config{})
	testprog.Print("worker %t, variable %q, New: %v", prefork.IsWorker(), os.Getenv(marker.Env), err)
}

func aMarker(manager, control int) marker.Marker {
	return marker.Marker{Manager: manager, Generation: 1, Ordinal: 1, Stop: term, Control: control}
}

// "Marker unreadable → IsWorker is true and New fails". A process that ignores
// the error cannot become a manager.
func TestAlteredMarker(t *testing.T) {
	good := aMarker(os.Getpid(), 3).String()
	for name, value := range map[string]string{
		"nonsense": "1", "empty": "", "cut": good[:len(good)/2], "another digit": strings.Replace(good, "slot=0", "slot=1", 1),
		"another version": "v0" + good[2:],
	} {
		t.Run(name, func(t *testing.T) {
			p := preforktest.New(t, "marker")
			p.Cmd.Env = append(p.Cmd.Env, marker.Env+"="+value)
			p.Start()
			p.Expect(`^worker true, variable "", New: prefork: this process was started as a worker or a successor, and its marker is damaged: ` + marker.Env + `=.`)
			testprog.ExpectSuccess(t, p)
		})
	}
}

// The marker is intact, but its descriptors are missing.
func TestMarkerWithoutSocket(t *testing.T) {
	p := preforktest.New(t, "marker")
	p.Cmd.Env = append(p.Cmd.Env, marker.Env+"="+aMarker(os.Getpid(), 9).String())
	p.Start()
	p.Expect(`^prefork: ` + marker.Env + ` names manager \d+, which is not the parent of this process: the manager is gone; unset ` + marker.Env)
	if state := p.Wait(); state.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit code 1", state)
	}
}

// "Parent another and socket at its end → it exits; parent another and socket
// alive → the marker belongs to someone else and the process is no worker."
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
			p.Cmd.Env = append(p.Cmd.Env, marker.Env+"="+aMarker(1, 3).String())
			p.Cmd.ExtraFiles = []*os.File{theirs}
			if !alive {
				ours.Close()
			}
			p.Start()
			theirs.Close()
			if alive {
				p.Expect(`^worker false, variable "", New: <nil>$`)
				testprog.ExpectSuccess(t, p)
				return
			}
			p.Expect(`the manager is gone`)
			if state := p.Wait(); state.ExitCode() != 1 {
				t.Errorf("ended with %v, want exit code 1", state)
			}
		})
	}
}

// The variable appears twice. One of them from a dead manager, or unreadable,
// never makes the process a manager, in either position.
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
		env := append(p.Cmd.Env, "PREFORKTEST_PROGRAM=marker", marker.Env+"=1", marker.Env+"="+second)
		p = preforktest.New(t, "marker")
		p.Cmd.Path, p.Cmd.Env = path, env
		p.Start()
		p.Expect(`^worker true, .*its marker is damaged|the manager is gone`)
		p.Wait()
	}
}

// A worker gets only its own marker, not one from the manager's environment or
// from a hook.
func TestSpawnerReplacesItsVariables(t *testing.T) {
	env := marker.ChildEnv(
		[]string{"A=1", marker.Env + "=old", marker.DepthEnv + "=7", "LISTEN_FDS=1", "B=1"},
		[]string{"B=2", marker.Env + "=of a hook", "C=3", "LISTEN_FDS=2", "no equals sign", "NUL=\x00"},
		marker.Env+"=new",
	)
	if got, want := strings.Join(env, " "), "A=1 B=2 C=3 LISTEN_FDS=2 "+marker.Env+"=new"; got != want {
		t.Errorf("environment %q, want %q", got, want)
	}
}

// dropMarker is a program whose main starts the program again without the
// library's variable, as a prelude with an environment of its own may. No
// worker knows its role.
func dropMarker() {
	if os.Getenv("FORGOTTEN") == "" && prefork.IsWorker() {
		env := append(os.Environ(), "FORGOTTEN=1")
		log.Fatal(syscall.Exec("/proc/self/exe", os.Args, env))
	}
	n := 0
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, ErrRespawnInterval: 10 * time.Millisecond, OnChildReap: func(m *prefork.Manager, e prefork.Exit) {
		testprog.Print("depth %s: %v, %v", os.Getenv("FORGOTTEN"), e.Reason, e.Status)
		if n++; n == 4 {
			m.Deliver(term)
		}
	}})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		<-w.Context().Done()
		return nil
	})
}

// "Marker lost": a worker that executed a program without the library is
// killed, with the processes it started, before it multiplies for long. The
// manager keeps running and shuts down normally.
func TestLostMarker(t *testing.T) {
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		preforktest.Skipf(t, "this system has no /proc/self/exe")
	}
	p := preforktest.Start(t, "dropMarker")
	p.Expect(`^depth : ready timeout, SIGKILL$`)
	testprog.ExpectSuccess(t, p)
	p.WaitGone()
}

// becomeManager is a program whose workers execute the program again, before their
// work or during it, and then take the role of a manager. Nothing else stops
// it.
func becomeManager() {
	again := func() { log.Fatal(syscall.Exec("/proc/self/exe", os.Args, os.Environ())) }
	if prefork.IsWorker() && os.Args[1] == "prelude" {
		again()
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
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		again()
		return nil
	})
	testprog.Print("pid %d ends", os.Getpid())
}

// The same without a limit of its own: the manager shuts down normally, and no
// process is left.
func TestWorkerBecomesManager(t *testing.T) {
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		preforktest.Skipf(t, "this system has no /proc/self/exe")
	}
	for _, when := range []string{"prelude", "work"} {
		t.Run(when, func(t *testing.T) {
			p := preforktest.Start(t, "becomeManager", when)
			p.Expect(fmt.Sprintf("^pid %d ends$", p.PID()))
			testprog.ExpectSuccess(t, p)
			p.WaitGone()
			n := strings.Count(strings.Join(p.Lines(), "\n"), "generation begins")
			t.Logf("%d managers for 20 lives of 4 workers", n)
			if n > 10 {
				t.Errorf("%d managers were made", n)
			}
		})
	}
}

// nest is a program whose worker runs the program as a command, and so on.
func nest() {
	pm, err := prefork.New(prefork.Config{MaxWorkers: 1, Logger: slog.New(slog.DiscardHandler), OnChildReap: func(m *prefork.Manager, _ prefork.Exit) { m.Deliver(term) }})
	if err != nil {
		testprog.Print("refused: %v", err)
		return
	}
	if !prefork.IsWorker() {
		testprog.Print("manager")
	}
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run()
	})
}

// "A depth counter in the environment makes New fail at the fourth level".
// Processes that a worker starts do not see the counter in their environment.
func TestDepth(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		preforktest.Skipf(t, "this system does not show the environment of an ancestor")
	}
	p := copied(preforktest.New(t, "nest"), t).Start()
	p.ExpectN(3, `^manager$`)
	p.Expect(`^refused: prefork: this would be manager number 4 above one another: the program starts itself, most likely by mistake`)
	testprog.ExpectSuccess(t, p)
}

// The variable for the step to a Command has a meaning only if the parent set
// it.
func TestForeignCommandVariable(t *testing.T) {
	for _, value := range []string{"", "/bin/echo", "1:/bin/echo", ":", "x:y"} {
		p := preforktest.New(t, "marker", "an argument")
		p.Cmd.Env = append(p.Cmd.Env, marker.CommandEnv+"="+value)
		p.Start()
		p.Expect(`^worker false, .*New: <nil>$`)
		testprog.ExpectSuccess(t, p)
	}
}
