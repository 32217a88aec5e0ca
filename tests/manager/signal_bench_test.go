//go:build unix

package manager_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// BenchmarkSignal measures the time that the manager spends on a signal: from
// its arrival until it was forwarded to every pretended worker and the next
// Start has begun.
func BenchmarkSignal(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkSignal(b, n) })
	}
}

func benchmarkSignal(b *testing.B, n int) {
	sent, left := make(chan struct{}, 1), 0
	cfg := prefork.Config{
		MaxWorkers:  n,
		TrapSignals: prefork.Signals{term: {Signal: term}, usr1: {Signal: usr1}},
	}
	m := newRigWith(b, cfg, options{unobserved: true, onSignal: func(p *proctest.Process, sig syscall.Signal) {
		endOnTerm(p, sig)
		if left--; sig == usr1 && left == 0 {
			sent <- struct{}{}
		}
	}})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for m.SignalReceived() != term {
			m.Start()
		}
		m.WaitAllChildren(context.Background())
	}()
	for ready := 0; ready < n; { // only ready workers receive signals at once
		ready = 0
		for _, w := range m.Snapshot().Workers {
			if w.State == prefork.StateReady {
				ready++
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		left = n
		m.Deliver(usr1)
		<-sent
	}
	b.StopTimer()
	m.Deliver(term)
	<-ended
}
