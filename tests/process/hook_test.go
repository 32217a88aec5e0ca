//go:build unix

package process_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("panicReload", panicReload)
	preforktest.Register("blockingHook", blockingHook)
}

// panicReload is a program whose Reload panics at the call of the argument.
func panicReload() {
	calls := 0
	var m map[string]int
	err := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}},
		Reload: func() ([]byte, error) {
			if calls++; os.Args[1] == "first" || calls == 2 {
				m["nil"] = 1
			}
			return nil, nil
		},
	}).Run(context.Background(), func(w *prefork.Worker) error {
		testprog.Print("generation %d works", w.Generation())
		<-w.Context().Done()
		return nil
	})
	testprog.Print("Run returned %v", err)
}

// A panic in Reload is a failure of Reload: the workers keep running, and the next
// reload tries again.
func TestPanicInReload(t *testing.T) {
	p := preforktest.Start(t, "panicReload", "later")
	p.Expect(`^generation 1 works$`)
	p.Signal(hup)
	p.Expect(`panic in Reload.*panicReload`)
	p.Expect(`reload failed, keeping workers.*nil map`)
	p.Signal(hup)
	p.Expect(`^generation 2 works$`)
	p.Signal(term)
	p.Expect(`^Run returned <nil>$`)
	p.Wait()

	p = preforktest.Start(t, "panicReload", "first")
	p.Expect(`^Run returned prefork: Reload: panic: assignment to entry in nil map$`)
	p.Wait()
}

// blockingHook is a program whose hook of the argument blocks for ever.
func blockingHook() {
	block := func(name string) {
		if name == os.Args[1] {
			testprog.Print("blocks")
			time.Sleep(time.Hour)
		}
	}
	testprog.NewManager(prefork.Config{
		MaxWorkers: 1, ErrRespawnInterval: -1,
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}},
		Reload:      func() ([]byte, error) { block("Reload"); return nil, nil },
		BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) { block("BeforeSpawn") },
		AfterSpawn:  func(*prefork.Manager, int) { block("AfterSpawn") },
		OnChildReap: func(*prefork.Manager, prefork.Exit) { block("OnChildReap") },
		Observe:     func(prefork.Event) { block("Observe") },
	}).Run(context.Background(), func(w *prefork.Worker) error { return nil })
}

// The log names a hook that blocks, and a second interrupt ends the program all
// the same.
func TestBlockingHook(t *testing.T) {
	for _, hook := range []string{"Reload", "BeforeSpawn", "AfterSpawn", "OnChildReap", "Observe"} {
		t.Run(hook, func(t *testing.T) {
			t.Parallel()
			p := preforktest.Start(t, "blockingHook", hook)
			p.Expect(`^blocks$`)
			p.Expect(`hook blocks the manager.* hook=` + hook + ` for=5s`)
			preforktest.WaitFor(t, "the end", func() bool { // two interrupts may arrive as one
				p.Cmd.Process.Signal(syscall.SIGINT)
				return slices.ContainsFunc(p.Lines(), func(line string) bool { return strings.Contains(line, "second interrupt while a hook blocks") })
			})
			p.Expect(`second interrupt while a hook blocks.* hook=` + hook)
			p.WaitGone()
		})
	}
}
