package process_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("interactive", interactive) }

// interactive is a manager on a terminal whose worker reads lines from it.
func interactive() {
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, ErrRespawnInterval: -1, SameGroup: true, Reaper: slices.Contains(os.Args, "reaper"), ReaperKills: slices.Contains(os.Args, "kills"),
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {}},
		Observe: func(ev prefork.Event) {
			if ev, ok := ev.(prefork.SignalEvent); ok {
				testprog.Print("received %v", ev.Received)
			}
		},
	})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("worker %d", os.Getpid())
		go func() {
			in := bufio.NewScanner(os.Stdin)
			for in.Scan() {
				testprog.Print("read %s", in.Text())
			}
			testprog.Print("end of the terminal: %v", in.Err())
		}()
		<-ctx.Done()
		return nil
	})
}

// onTerminal starts interactive as the leader of a session on a terminal, which
// is its standard input and error. The returned function closes the terminal.
func onTerminal(t *testing.T, args ...string) (p *preforktest.Program, terminal *os.File) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		preforktest.Skipf(t, "no terminals here: %v", err)
	}
	t.Cleanup(func() { terminal.Close() })
	n, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	p = preforktest.New(t, "interactive", args...)
	p.Cmd.Stdin, p.Cmd.Stderr = theirs, theirs
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	return p.Start(), terminal
}

// With SameGroup a worker reads from the terminal. The kernel would stop a
// background process group for that.
func TestSameGroup(t *testing.T) {
	p, terminal := onTerminal(t)
	p.Expect(`^worker`)
	fmt.Fprintln(terminal, "hello")
	p.Expect(`^read hello$`)
	terminal.Write([]byte{'C' - '@'}) // to the whole group
	p.Expect(`^received interrupt$`)
	testprog.ExpectSuccess(t, p)
}

// Below a reaper, the manager handles the terminal's signals: Ctrl-C arrives
// once, and Ctrl-Z stops all processes, any number of times.
func TestReaperOnTerminal(t *testing.T) {
	for _, kind := range []string{"reaper", "kills"} {
		t.Run(kind, func(t *testing.T) { testReaperOnTerminal(t, kind) })
	}
}

func testReaperOnTerminal(t *testing.T, kind string) {
	p, terminal := onTerminal(t, kind)
	p.Expect(`^worker`)
	fmt.Fprintln(terminal, "hello")
	p.Expect(`^read hello$`)
	for n := range testprog.Times(1000) {
		terminal.Write([]byte{'Z' - '@'})
		preforktest.WaitFor(t, fmt.Sprintf("the reaper is stopped, time %d", n), func() bool {
			self, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
			return err == nil && strings.Contains(string(self), ") T ")
		})
		p.Signal(syscall.SIGCONT)
		p.Signal(hup)
		fmt.Fprintln(terminal, "again", n)
		// Wait for both lines. Otherwise the next stop can reach the manager
		// before its SIGCONT, which undoes it: the kernel signals a group
		// process by process, and this one's worker continues before its
		// manager.
		p.ExpectAll(`^received hangup$`, fmt.Sprintf(`^read again %d$`, n))
	}
	terminal.Write([]byte{'C' - '@'})
	p.Expect(`^received interrupt$`)
	testprog.ExpectSuccess(t, p)
	if n := strings.Count(strings.Join(p.Lines(), "\n"), "received interrupt"); n != 1 {
		t.Errorf("it was received %d times", n)
	}
}

// A terminal that disappears ends neither the manager nor its handling of
// signals. The log is lost, and the manager does not wait for it.
func TestVanishedTerminal(t *testing.T) {
	p, terminal := onTerminal(t)
	p.Expect(`^worker`)
	terminal.Close()
	p.Expect(`^received hangup$`)
	for range 5 {
		workers, err := preforktest.Children(p.PID())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range workers {
			syscall.Kill(w.PID, syscall.SIGKILL)
		}
		p.Expect(`^worker`)
	}
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

func TestSameGroupOrStopGroup(t *testing.T) {
	_, err := prefork.New(prefork.Config{Name: t.Name(), SameGroup: true, StopGroup: true})
	if err == nil || !strings.Contains(err.Error(), "Config.SameGroup: ") {
		t.Error(err)
	}
}
