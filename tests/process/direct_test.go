//go:build unix

package process_test

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
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
	preforktest.Register("direct", direct)
	preforktest.Register("noHangup", noHangup)
	preforktest.Register("strays", strays)
}

// direct is a program whose worker sends itself each signal that a Manager of
// the program traps: as killall does, before New and at work. It prints those that
// it handles.
func direct() {
	all := []os.Signal{hup, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGALRM, syscall.SIGUSR2, syscall.Signal(35)}
	if prefork.IsWorker() {
		killSelf(all)
	}
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 1,
		TrapSignals: prefork.Signals{
			term: {Signal: term}, hup: {Rolling: true}, syscall.SIGQUIT: {}, syscall.SIGUSR2: {Upgrade: true}, syscall.Signal(35): {},
		},
		OnChildReap: func(m *prefork.Manager, e prefork.Exit) {
			testprog.Print("reaped: %v", e.Status)
			m.Shutdown()
		},
	})
	testprog.NewManager(prefork.Config{Name: "other", TrapSignals: prefork.Signals{syscall.SIGALRM: {}}})
	pm.Run(context.Background(), func(*prefork.Worker) error {
		killSelf(all)
		testprog.Print("not harmed")
		c := make(chan os.Signal, 1)
		signal.Notify(c, hup)
		killSelf(all)
		testprog.Print("handles %v", <-c)
		signal.Stop(c)
		killSelf(all)
		return nil
	})
}

// killSelf sends this process signals, and waits until they have arrived.
func killSelf(sigs []os.Signal) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGVTALRM)
	defer signal.Stop(c)
	for _, sig := range sigs {
		syscall.Kill(os.Getpid(), sig.(syscall.Signal))
		for range 3 {
			syscall.Kill(os.Getpid(), syscall.SIGVTALRM)
			<-c
		}
	}
}

// "A signal that the table receives and never sends does not harm a worker that
// gets it directly (systemctl kill, killall)."
func TestDirectSignals(t *testing.T) {
	p := preforktest.Start(t, "direct")
	p.Expect(`^not harmed$`)
	p.Expect(`^handles hangup$`)
	p.Expect(`^reaped: exit code 0$`)
	p.Wait()
}

// strays is a program whose second, third and fourth worker get a HUP before they
// can ignore it.
func strays() {
	if prefork.IsWorker() {
		if n := testprog.Counter(os.Args[1]).Add(); n > 1 && n < 5 {
			signal.Reset(hup)
			syscall.Kill(os.Getpid(), hup)
			select {}
		}
	}
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers:  1,
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true}},
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.RolledEvent, prefork.UpgradedEvent:
				testprog.Print("replaced")
			case prefork.RollFailedEvent:
				testprog.Print("failed: %v", ev.Err)
			case prefork.UpgradeFailedEvent:
				testprog.Print("failed: %v", ev.Err)
			}
		},
	})
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("works below %d", w.ManagerPID())
		<-ctx.Done()
		return nil
	})
}

// `systemctl kill -s HUP` and `killall -HUP` also find the workers that the
// manager starts for that reload, before they ignore HUP. The reload goes on with
// others, and so does an upgrade.
func TestDirectSignalAtStart(t *testing.T) {
	for _, sig := range []syscall.Signal{hup, syscall.SIGUSR2} {
		p := preforktest.Start(t, "strays", filepath.Join(t.TempDir(), "counter"))
		p.Expect(`^works below`)
		p.Signal(sig)
		manager, replaced := "", ""
		for manager == "" || replaced == "" { // in any order
			got := p.Expect(`^(?:(replaced|failed.*)|works below (\d+))$`)
			replaced, manager = replaced+got[1], manager+got[2]
			if replaced != "" && replaced != "replaced" {
				t.Fatal(replaced)
			}
		}
		pid, _ := strconv.Atoi(manager)
		syscall.Kill(pid, term)
		testprog.ExpectSuccess(t, p)
		p.WaitGone()
	}
}

// noHangup is a program whose table does not name SIGHUP. Its argument selects
// who handles it.
func noHangup() {
	c := make(chan os.Signal, 2)
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1})
	switch os.Args[1] {
	case "program":
		signal.Notify(c, hup)
	case "other Manager":
		testprog.NewManager(prefork.Config{Name: "other", TrapSignals: prefork.Signals{hup: {}}})
	}
	go func() {
		<-c
		testprog.Print("handled")
	}()
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		testprog.Print("here")
		<-w.Context().Done()
		return nil
	})
}

// A SIGHUP that the table does not name ends the manager, and the log has the
// reason. It does not if the program or another Manager handles it.
func TestUnnamedHangup(t *testing.T) {
	for _, handler := range []string{"none", "program", "other Manager"} {
		t.Run(handler, func(t *testing.T) {
			p := preforktest.Start(t, "noHangup", handler)
			p.Expect(`^here$`)
			p.Signal(hup)
			switch handler {
			case "none":
				p.Expect(`SIGHUP is not in TrapSignals`)
				p.WaitGone()
				return
			case "program":
				p.Expect(`^handled$`)
			default:
				time.Sleep(100 * time.Millisecond)
				for _, line := range p.Lines() {
					if strings.Contains(line, "SIGHUP is not") {
						t.Error(line)
					}
				}
			}
			p.Signal(term)
			p.Wait()
		})
	}
}
