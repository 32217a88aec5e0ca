//go:build unix

package process_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
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
	preforktest.Register("standingBy", standingBy)
}

// standingBy is a program with two workers and one standby. Its first argument
// selects the variant.
func standingBy() {
	cfg := prefork.Config{
		MaxWorkers: 2, Standby: 1,
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}, usr1: {Signal: usr1}},
		BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) { testprog.Print("spawn %d of slot %d", s.Ordinal, s.Slot) },
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.StateEvent:
				testprog.Print("%d: slot %d, generation %d, %v to %v", ev.Worker.Ordinal, ev.Worker.Slot, ev.Worker.Generation, ev.From, ev.Worker.State)
			case prefork.ExitEvent:
				testprog.Print("%d: slot %d, %v", ev.Exit.Ordinal, ev.Exit.Slot, ev.Exit.Reason)
			case prefork.ResizeEvent:
				testprog.Print("%v", ev)
			}
		},
	}
	var signals chan os.Signal
	switch what := os.Args[1]; {
	case strings.HasPrefix(what, "explicit"):
		cfg.Readiness.Explicit = true
	case what == "cpus":
		cfg.Resources.CPUsPerWorker = 1
	case what == "sockets":
		cfg.ErrRespawnInterval = -1
	case prefork.IsWorker():
		signals = make(chan os.Signal, 1)
		signal.Notify(signals, usr1, term) // a prelude that receives the stop signal
	}
	pm := testprog.NewManager(cfg)
	if os.Args[1] == "explicit, by another goroutine" && prefork.IsWorker() {
		go func() {
			for pm.Worker() == nil {
				time.Sleep(time.Millisecond)
			}
			pm.Worker().Ready()
		}()
	}
	var ln net.Listener
	if os.Args[1] == "sockets" || os.Args[1] == "early" {
		var err error
		if ln, err = pm.ListenPerWorker("tcp", "127.0.0.1:0"); err != nil {
			panic(err)
		}
		if !prefork.IsWorker() {
			testprog.Print("listens on %v", ln.Addr())
		}
	}
	if !prefork.IsWorker() {
		grow := make(chan os.Signal, 1)
		signal.Notify(grow, syscall.SIGUSR2)
		go func() {
			<-grow
			testprog.Print("counted %d", pm.NumWorkers())
			pm.SetMaxWorkers(3)
		}()
	}
	for pm.SignalReceived() != term {
		if !prefork.IsWorker() {
			pm.Pass([]byte(strconv.Itoa(pm.Generation() + 1)))
		}
		if os.Args[1] == "early" && prefork.IsWorker() {
			d := ln.(interface{ SetDeadline(time.Time) error })
			d.SetDeadline(time.Unix(1, 0)) // those with a slot continue
			ln.Accept()
			d.SetDeadline(time.Time{})
		}
		if pm.Start() {
			continue
		}
		w := pm.Worker()
		testprog.Print("worker %d in slot %d of generation %d has %s, pid %d, cpus %v", w.Ordinal(), w.Slot(), w.Generation(), w.Passed(), os.Getpid(), cpus())
		w.Ready()
		switch {
		case ln != nil:
			go func() { <-w.Context().Done(); ln.Close() }()
			for {
				c, err := ln.Accept()
				if err != nil {
					break
				}
				fmt.Fprintf(c, "slot %d\n", w.Slot())
				c.Close()
			}
		case signals != nil:
			for sig := range signals {
				if sig == usr1 {
					testprog.Print("worker %d got USR1", w.Ordinal())
				} else {
					pm.Finish(0)
				}
			}
		}
		<-w.Context().Done()
		pm.Finish(0)
	}
	left, err := pm.WaitAllChildren(context.Background())
	testprog.Print("left %d, %v", left, err)
}

// standby starts the program and waits until its standby, the third worker, is
// parked. It returns the pids of the first two.
func standby(t *testing.T, what string) (p *preforktest.Program, pids [2]int) {
	p = preforktest.Start(t, "standingBy", what)
	lines := p.ExpectAll(`^worker 1 in slot 0 of generation 1 has 1, pid (\d+)`, `^worker 2 in slot 1 of generation 1 has 1, pid (\d+)`,
		`^spawn 3 of slot -1$`, `^3: slot -1, generation 1, starting to standby$`,
		`^1: slot 0, generation 1, starting to ready$`, `^2: slot 1, generation 1, starting to ready$`)
	for i := range pids {
		pids[i], _ = strconv.Atoi(lines[i][1])
	}
	return p, pids
}

func TestStandbyReplacesDeadWorker(t *testing.T) {
	p, pids := standby(t, "")
	syscall.Kill(pids[1], syscall.SIGKILL)
	p.Expect(`^2: slot 1, crashed$`)
	p.ExpectAll(`^3: slot 1, generation 1, standby to starting$`, `^worker 3 in slot 1 of generation 1 has 1,`, `^3: slot 1, generation 1, starting to ready$`, `^spawn 4 of slot -1$`)
	p.Signal(term)
	p.Expect(`^left 0, <nil>$`)
	p.Wait()
	if text := strings.Join(p.Lines(), "\n"); strings.Contains(text, "spawn 4 of slot 1") {
		t.Errorf("slot 1 was spawned, though a standby was there:\n%s", text)
	}
}

func TestStandbyIsNotCounted(t *testing.T) {
	p, _ := standby(t, "")
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^counted 2$`)
	p.Expect(`^from 2 to 3 workers$`)
	p.ExpectAll(`^worker 3 in slot 2 of generation 1`, `^spawn 4 of slot -1$`)
	p.Signal(term)
	p.Expect(`^left 0, <nil>$`)
	p.Wait()
}

func TestStandbyOfANewGeneration(t *testing.T) {
	p, _ := standby(t, "")
	p.Signal(hup)
	p.ExpectAll(`^3: slot -1, stopped$`, `^worker \d in slot 0 of generation 2 has 2,`, `^worker \d in slot 1 of generation 2 has 2,`,
		`^\d: slot -1, generation 2, starting to standby$`)
	p.Signal(term)
	p.Expect(`^left 0, <nil>$`)
	p.Wait()
}

func TestStandbyWithExplicitReadiness(t *testing.T) {
	for _, what := range []string{"explicit", "explicit, by another goroutine"} {
		t.Run(what, func(t *testing.T) {
			p, pids := standby(t, what)
			syscall.Kill(pids[0], syscall.SIGKILL)
			p.ExpectAll(`^worker 3 in slot 0`, `^3: slot 0, generation 1, starting to ready$`)
			p.Signal(term)
			p.Wait()
		})
	}
}

// A standby whose prelude listens for signals receives forwarded ones after its
// promotion. It ends on the stop signal even if the prelude receives that
// signal.
func TestStandbyAndSignals(t *testing.T) {
	p, pids := standby(t, "")
	p.Signal(usr1)
	lines := p.ExpectAll(`^worker 1 got USR1$`, `^worker 2 got USR1$`,
		`^3: slot -1, stopped$`,                              // Start has returned
		`^(\d): slot -1, generation 2, starting to standby$`) // and was called again
	n := lines[3][1]
	syscall.Kill(pids[0], syscall.SIGKILL)
	p.Expect(`^worker ` + n + ` in slot 0 of generation 2`)
	p.Signal(term)
	p.Expect(`^left 0, <nil>$`)
	p.Wait()
}

// A killed manager leaves no process behind, no standby either.
func TestStandbyOfDeadManager(t *testing.T) {
	p, _ := standby(t, "")
	p.Signal(syscall.SIGKILL)
	p.Wait()
}

func TestStandbyConfig(t *testing.T) {
	for field, cfg := range map[string]prefork.Config{
		"Standby":                 {Standby: -1},
		"Standby ":                {Standby: 1, Command: []string{"sleep", "1"}},
		"Resources.CPUsPerWorker": {Standby: 1, Resources: prefork.Resources{CPUsPerWorker: 1, Chroot: "/"}},
	} {
		if strings.HasPrefix(field, "Resources") && os.Getuid() != 0 {
			continue // Chroot alone is refused there
		}
		cfg.Name = t.Name() + field
		_, err := prefork.New(cfg)
		var bad *prefork.ConfigError
		if !errors.As(err, &bad) || bad.Field != strings.TrimSpace(field) {
			t.Errorf("%+v: %v, want a ConfigError of %s", cfg, err, field)
		}
	}
}
