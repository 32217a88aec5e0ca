//go:build unix

package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestZeroLoss replaces workers and managers under load from clients that never retry, in each mode, and
// loses no request. What it prints beside are the latencies of a run of the same length in which nothing is replaced.
//
// With -long it is one run over all modes at once: 100 rolling reloads, one each 2 s, 20 upgrades, and a million requests.
// That takes 7 minutes:
//
//	go test ./examples/rolling -run ZeroLoss -long -v
func TestZeroLoss(t *testing.T) {
	if *long {
		zeroLoss(t, modes, 100, 2*time.Second, 5, 1_000_000)
		return
	}
	for _, m := range modes {
		t.Run(m.String(), func(t *testing.T) { zeroLoss(t, []mode{m}, 4, 0, 2, 0) })
	}
}

// zeroLoss makes n rolling reloads, one each period, and after each perUpgrade of them an upgrade; it goes on until atLeast requests
// were answered.
func zeroLoss(t *testing.T, ms []mode, n int, period time.Duration, perUpgrade, atLeast int) {
	s := startServer(t, ms)
	pause, limit := func() time.Duration { return rand.N(14 * time.Millisecond) }, 9*time.Minute
	if period == 0 {
		pause, limit = nil, time.Minute
	}
	clients := s.load(6, 2, pause, limit)
	clients.more(t, 20)
	began := time.Now()
	upgrades := 0
	for i := range n {
		time.Sleep(time.Until(began.Add(time.Duration(i) * period)))
		s.roll()
		clients.more(t, 20)
		if (i+1)%perUpgrade == 0 {
			s.upgrade()
			upgrades++
			clients.more(t, 20)
		}
	}
	s.reload()
	clients.more(t, 20)
	for clients.served() < atLeast && time.Since(began) < limit/2 {
		time.Sleep(time.Second)
	}
	took := time.Since(began)
	results, sum := clients.stop()

	quiet := s.load(6, 2, pause, limit)
	time.Sleep(took)
	quietResults, quietSum := quiet.stop()
	s.end()

	t.Logf("%d rolling reloads, %d upgrades and a reload of all at once, in %v:", n, upgrades, took.Round(time.Millisecond))
	for m, r := range results {
		t.Logf("%-24v %v; %s; if nothing is replaced %s", m, r, times(r), times(quietResults[m]))
		lost(t, m, r)
		lost(t, m.String()+", nothing replaced", quietResults[m])
	}
	t.Logf("in all: %v; %s; if nothing is replaced %v; %s", sum, times(sum), quietSum, times(quietSum))
	if sum.OK < atLeast {
		t.Errorf("%d requests were answered, want %d", sum.OK, atLeast)
	}
}
