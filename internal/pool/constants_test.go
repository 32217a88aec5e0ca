//go:build unix

package pool

import (
	"testing"
	"time"
)

// The tests below name each constant and its value: a change of one is a change
// of behavior that users see.
func TestConstants(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want time.Duration
	}{
		{"dumpTime", dumpTime, 500 * ms},
		{"exitingGrace", exitingGrace, sec},
		{"disconnectGrace", disconnectGrace, 100 * ms},
		{"standbySpawnDelay", standbySpawnDelay, 10 * ms},
		{"settleTime", settleTime, 5 * sec},
		{"firstBusyDelay", firstBusyDelay, 20 * ms},
		{"busyTime", busyTime, 2 * sec},
		{"provenLife", provenLife, sec},
		{"unprovenTime", unprovenTime, 2500 * ms},
		{"youngLife", youngLife, sec},
		{"longestDelay", longestDelay, time.Minute},
		{"unpacedFailure", unpacedFailure, 100 * ms},
		{"unpacedFailureLongest", unpacedFailureLongest, sec},
		{"firstCheck", firstCheck, 10 * ms},
		{"longestInterval", longestInterval, 500 * ms},
	} {
		want(t, c.name, c.got, c.want)
	}
	want(t, "freeCleanEnds", freeCleanEnds, 2)
}

func TestDumpTime(t *testing.T) {
	cfg := usual(1)
	cfg.Dump = dumpSig
	s := begun(t, cfg)
	s.pass(time.Minute)
	s.do(Event{Kind: Stuck, ID: 1})
	s.pass(dumpTime - 1)
	want(t, "state before dumpTime", s.workers[1].state, StateReady)
	s.pass(1)
	want(t, "state after dumpTime", s.workers[1].state, StateKilled)
	want(t, "reason", s.workers[1].why, ReasonStuck)
}

func TestExitingGrace(t *testing.T) {
	s := standing(t, 1, 1)
	s.pass(time.Minute)
	s.do(Event{Kind: Exiting, ID: 1})
	s.pass(exitingGrace - 1)
	wantAll(t, "stopped before exitingGrace", s.sent(term))
	s.pass(1)
	wantAll(t, "stopped after exitingGrace", s.sent(term), 1)
}

func TestDisconnectGrace(t *testing.T) {
	s := newSim(t, usual(1))
	s.do(Event{Kind: Begin})
	s.do(Event{Kind: Disconnected, ID: 1})
	s.pass(disconnectGrace - 1)
	want(t, "state before disconnectGrace", s.workers[1].state, StateStarting)
	s.pass(1)
	want(t, "state after disconnectGrace", s.workers[1].state, StateKilled)
}

func TestSettleTime(t *testing.T) {
	s := rolling(t, 1, 1)
	s.ready(2)
	want(t, "fallback", s.p.Fallback(), 1)
	s.pass(settleTime - 1)
	want(t, "fallback before settleTime", s.p.Fallback(), 1)
	s.pass(1)
	want(t, "fallback after settleTime", s.p.Fallback(), 2)
}
