//go:build unix

package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestZeroLoss replaces workers and managers under load in each mode, and
// checks that no request is lost. The clients never retry. For comparison, it
// logs the latencies of a run of the same duration without replacements.
//
// With -long there is one run with all modes at once: 100 rolling reloads, one
// each 2 s, 20 upgrades, and a million requests. It takes 7 minutes:
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

// zeroLoss does n rolling reloads, one each period, and an upgrade after each
// perUpgrade of them. It continues until atLeast requests have succeeded.
func zeroLoss(t *testing.T, ms []mode, n int, period time.Duration, perUpgrade, atLeast int) {
	s := startServer(t, ms)
	pause, limit := func() time.Duration { return rand.N(14 * time.Millisecond) }, 9*time.Minute
	if period == 0 {
		pause, limit = nil, time.Minute
	}
	clients := s.load(6, 2, pause, limit)
	clients.await(t, 20)
	began := time.Now()
	upgrades := 0
	for i := range n {
		time.Sleep(time.Until(began.Add(time.Duration(i) * period)))
		s.roll()
		clients.await(t, 20)
		if (i+1)%perUpgrade == 0 {
			s.upgrade()
			upgrades++
			clients.await(t, 20)
		}
	}
	s.reload()
	clients.await(t, 20)
	for clients.succeeded() < atLeast && time.Since(began) < limit/2 {
		time.Sleep(time.Second)
	}
	elapsed := time.Since(began)
	results, sum := clients.stop()

	quiet := s.load(6, 2, pause, limit)
	time.Sleep(elapsed)
	quietResults, quietSum := quiet.stop()
	s.shutdown()

	t.Logf("%d rolling reloads, %d upgrades and a reload of all at once, in %v:",
		n, upgrades, elapsed.Round(time.Millisecond))
	for m, r := range results {
		t.Logf("%-24v %v; %s; without replacements %s",
			m, r, latencies(r), latencies(quietResults[m]))
		checkNoneFailed(t, m.String(), r)
		checkNoneFailed(t, m.String()+", without replacements", quietResults[m])
	}
	t.Logf("total: %v; %s; without replacements %v; %s",
		sum, latencies(sum), quietSum, latencies(quietSum))
	if sum.OK < atLeast {
		t.Errorf("%d requests succeeded, want %d", sum.OK, atLeast)
	}
}
