//go:build unix

package faults_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("storm", storm) }

// storm is a program that receives signals at random moments.
func storm() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 3, ErrRespawnInterval: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler), TrapSignals: prefork.Signals{
		term: {Signal: term}, hup: {Signal: term}, usr1: {Signal: term, Interval: time.Millisecond},
	}})
	for pm.SignalReceived() != term {
		if !prefork.IsWorker() {
			testprog.Print("pass")
		}
		pm.StartFunc(func(w *prefork.Worker) error {
			<-w.Context().Done()
			return nil
		})
	}
	left, err := pm.WaitAllChildren(context.Background())
	testprog.Print("left %d %v", left, err)
}

// A thousand signals, HUP and TERM mixed, arrive as fast as possible during
// start-up, running, reload and shutdown. TERM always ends the program with all
// workers reaped. The test logs its seed.
func TestStormOfSignals(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range testprog.Times(200) {
		p := preforktest.Start(t, "storm")
		p.Expect(`^pass$`) // the signals of the table are trapped; any moment will do from here on
		for spin := r.IntN(1 << 18); spin > 0; spin-- {
		}
		terms := 0
		lastTerm := r.IntN(1000)
		for i := range 1000 {
			sig := []syscall.Signal{hup, usr1, hup}[r.IntN(3)]
			if i == lastTerm || i > lastTerm && r.IntN(50) == 0 {
				sig = term
				terms++
			}
			if p.Cmd.Process.Signal(sig) != nil {
				break // it has exited
			}
		}
		p.Expect(`^left 0 <nil>$`)
		if ws, ok := p.Wait().Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			t.Errorf("after %d TERMs the program ended with %v", terms, p.Cmd.ProcessState)
		}
		p.WaitGone()
	}
}
