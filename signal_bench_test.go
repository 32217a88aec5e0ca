//go:build unix

package prefork

import (
	"context"
	"fmt"
	"log/slog"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/internal/proc"
)

// BenchmarkSignal is what the manager itself spends on a signal: from its arrival until it was forwarded to each of so many
// workers, which are pretended ones, and Start has returned and begun again.
func BenchmarkSignal(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkSignal(b, n) })
	}
}

func benchmarkSignal(b *testing.B, n int) {
	told, left := make(chan struct{}, 1), 0
	cfg := Config{
		Name: b.Name(), MaxWorkers: n, Logger: slog.New(slog.DiscardHandler),
		TrapSignals: Signals{term: {Signal: term}, usr1: {Signal: usr1}},
	}
	m, err := newManager(cfg, func(notify func(proc.Note)) proc.Table {
		fake := proc.NewFake(notify)
		fake.OnStart = reachStart
		fake.OnSignal = func(p *proc.FakeProcess, sig syscall.Signal) {
			endOnTerm(p, sig)
			if left--; sig == usr1 && left == 0 {
				told <- struct{}{}
			}
		}
		return fake
	})
	if err != nil {
		b.Fatal(err)
	}
	defer self.unregister(cfg.Name)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for m.SignalReceived() != term {
			m.Start()
		}
		m.WaitAllChildren(context.Background())
	}()
	for ready := 0; ready < n; { // signals are held back for those that are not
		ready = 0
		for _, w := range m.Snapshot().Workers {
			if w.State == StateReady {
				ready++
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		left = n
		m.Deliver(usr1)
		<-told
	}
	b.StopTimer()
	m.Deliver(term)
	<-ended
}
