//go:build unix

package pool

import (
	"syscall"
	"testing"
	"time"
)

// The values that a fuzzed byte chooses from.
var (
	fuzzTimes = []time.Duration{
		0, 1, ms, 99 * ms, 100 * ms, 300 * ms, 900 * ms, sec, 3 * sec, 10 * sec, time.Minute, 5 * time.Minute,
	}
	fuzzSpawnIntervals = []time.Duration{0, 0, 100 * ms, sec, 7 * sec}
	fuzzErrRespawns    = []time.Duration{sec, sec, ms, 5 * sec, 55 * sec, 2 * time.Minute, -1}
	fuzzReadyTimeouts  = []time.Duration{0, 60 * sec, sec, 10 * ms}
	fuzzStopTimeouts   = []time.Duration{30 * sec, sec, 50 * ms, 1, -1}
	fuzzSignals        = []syscall.Signal{
		syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGKILL, syscall.SIGCONT,
	}
	fuzzBackoffs  = []List{nil, {0, 5 * sec, 15 * sec}, {}, {3 * sec, ms}}
	fuzzIntervals = []time.Duration{0, 10 * ms, 500 * ms, 2 * sec, time.Minute}
)

func pick[T any](from []T, b byte) T { return from[int(b)%len(from)] }

// The events that a fuzzed byte chooses from. The next byte is their argument.
const (
	fuzzPass = iota // the loop follows Wake
	fuzzLate        // a hook has held up the loop
	fuzzBegin
	fuzzHalt
	fuzzResize
	fuzzReady
	fuzzReadyAll
	fuzzExitZero
	fuzzCrash
	fuzzShot
	fuzzDisconnected
	fuzzSignal
	fuzzForward
	fuzzKillAll
	fuzzFailing
	fuzzSkip
	fuzzCommand
	fuzzExitStopped
	fuzzRoll
	fuzzBusy
	fuzzIdle
	fuzzRecycle
	fuzzStuck
	fuzzKeepGroups // groups of workers that exit are not empty from now on, or empty again
	fuzzEmptyGroups
	fuzzExiting
	fuzzHold
	fuzzRelease
	fuzzUnhold
	fuzzKinds
)

// FuzzPool checks that the invariants hold after any sequence of events, and
// that a shutdown always ends.
func FuzzPool(f *testing.F) {
	for _, seed := range fuzzSeeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 5 || len(data) > 400 {
			return
		}
		s := fuzzSim(t, data)
		for data = data[5:]; len(data) >= 2; data = data[2:] {
			s.fuzz(data[0]%fuzzKinds, data[1])
		}
		s.finish()
	})
}

// fuzzSim returns a sim. The first bytes choose its Config.
func fuzzSim(t testing.TB, data []byte) *sim {
	jitters, n := []float64{0, 0.5, 0.999, 0.25}, int(data[4])
	standbys, readyAfter := int(data[3])/32%4, pick([]time.Duration{0, sec}, data[4]/64)
	if standbys > 0 {
		readyAfter = 0 // a command cannot be one
	}
	return newSim(t, Config{
		Max:           int(data[0]) % 12,
		Surge:         1 + int(data[0])/12%4,
		Dump:          dumpSig,
		MinSpare:      max(0, int(data[1])/8%6-2),
		MaxSpare:      max(1, int(data[1])/8%6-2) + int(data[2])/8%3,
		Lifetime:      pick([]time.Duration{0, 0, 20 * sec, time.Minute}, data[2]/32),
		CrashLoop:     int(data[2]) / 128 * 3,
		CrashWindow:   time.Minute,
		UnprovenLoop:  int(data[4]) / 128 * 3,
		Continue:      pick([]syscall.Signal{0, syscall.SIGCONT}, data[0]/64),
		Group:         data[0] >= 128,
		SpawnInterval: pick(fuzzSpawnIntervals, data[1]),
		ErrRespawn:    pick(fuzzErrRespawns, data[2]),
		Backoff:       pick(fuzzBackoffs, data[4]/32),
		StopTimeout:   pick(fuzzStopTimeouts, data[3]),
		ReadyAfter:    readyAfter,
		ReadyTimeout:  pick(fuzzReadyTimeouts, data[3]/8),
		Standby:       standbys,
		Restart:       pick([]Restart{RestartAlways, RestartAlways, RestartOnFailure, RestartNever}, data[4]/8),
		Jitter:        func() float64 { n++; return jitters[n%len(jitters)] },
	})
}

func (s *sim) fuzz(kind, arg byte) {
	s.t.Helper()
	sig := pick(fuzzSignals, arg)
	switch kind {
	case fuzzPass:
		s.pass(pick(fuzzTimes, arg))
	case fuzzLate:
		s.now += pick(fuzzTimes, arg)
		s.do(Event{})
	case fuzzBegin:
		s.do(Event{Kind: Begin, Fresh: arg%4 == 1})
	case fuzzHalt:
		s.do(Event{Kind: Halt})
	case fuzzResize:
		s.do(Event{Kind: Resize, N: int(arg) % 20})
	case fuzzHold, fuzzRelease, fuzzUnhold:
		s.do(Event{Kind: HoldSlot + Kind(kind-fuzzHold), N: int(arg)%20 - 1})
	case fuzzReady:
		id, kind := s.fuzzID(arg), Ready
		// A quarter of the standbys send an unexpected message.
		if w := s.workers[id]; w != nil && w.slot == noSlot && arg%4 > 0 {
			kind = Parked
		}
		s.do(Event{Kind: kind, ID: id})
	case fuzzReadyAll:
		s.readyAll()
	case fuzzExitZero:
		s.exitZero(s.fuzzID(arg))
	case fuzzCrash:
		s.exit(s.fuzzID(arg), Event{Stray: arg%3 == 0})
	case fuzzShot:
		s.exit(s.fuzzID(arg), Event{Killed: true, OOMKilled: arg%3 == 0})
	case fuzzDisconnected:
		s.do(Event{Kind: Disconnected, ID: s.fuzzID(arg)})
	case fuzzSignal:
		s.do(Event{Kind: Signal, Sig: sig, Immediate: sig == syscall.SIGCONT})
	case fuzzForward:
		s.do(Event{
			Kind: Forward, Sig: sig, Received: pick(fuzzSignals, arg/5), Immediate: sig == syscall.SIGCONT,
			Interval: pick(fuzzIntervals, arg/25), Again: arg > 127,
		})
	case fuzzKillAll:
		s.do(Event{Kind: KillAll})
	case fuzzFailing:
		s.failing, s.shortage = int(arg)%9, arg > 127
		s.busy = arg%32 > 20
	case fuzzSkip:
		s.skipping = true
	case fuzzCommand:
		s.command, s.late = !s.command, arg > 127
	case fuzzExitStopped:
		s.exitStopped()
	case fuzzBusy, fuzzIdle:
		s.do(Event{Kind: Busy + Kind(kind-fuzzBusy), ID: s.fuzzID(arg)})
	case fuzzRecycle:
		s.do(Event{Kind: Recycle, ID: s.fuzzID(arg)})
	case fuzzExiting:
		s.do(Event{Kind: Exiting, ID: s.fuzzID(arg)})
	case fuzzStuck:
		s.do(Event{Kind: Stuck, ID: s.fuzzID(arg)})
	case fuzzRoll:
		s.do(Event{Kind: Roll, Sig: rollSig, Linger: pick([]time.Duration{0, 0, 0, sec}, arg)})
	case fuzzKeepGroups:
		s.keepGroups = !s.keepGroups
	case fuzzEmptyGroups:
		for id, l := range s.leftovers {
			l.empty = l.empty || id%4 == int(arg)%4
		}
	}
}

// fuzzID usually returns a worker that exists, and sometimes one that is gone
// or never existed.
func (s *sim) fuzzID(arg byte) int {
	ids := s.ids()
	if arg < 224 && len(ids) > 0 {
		return ids[int(arg)%len(ids)]
	}
	return int(arg) - 226
}

// finish shuts down. No worker, leftover process or wake-up may remain.
func (s *sim) finish() {
	s.t.Helper()
	s.do(Event{Kind: Halt})
	spawns := len(s.spawns)
	s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
	if s.cfg.StopTimeout >= 0 {
		s.pass(s.cfg.StopTimeout)
	} else {
		s.pass(time.Hour)
		s.do(Event{Kind: KillAll})
	}
	if n := len(s.workers); s.count(StateKilled) != n {
		s.t.Fatalf("%d of %d workers were killed after StopTimeout", s.count(StateKilled), n)
	}
	s.exitStopped()
	if s.p.Len() != 0 || s.p.Standbys() != 0 || s.p.Leftovers() != 0 || s.wake != Never || len(s.spawns) != spawns || len(s.gone) != spawns {
		s.t.Fatalf("the pool does not end: %d workers and %d leftovers remain, Wake %v, %d spawns since, %d reaped of %d",
			s.p.Len(), s.p.Leftovers(), s.wake, len(s.spawns)-spawns, len(s.gone), spawns)
	}
}

func fuzzSeeds() [][]byte {
	const second, grace, minute = 7, 4, 10 // indexes into fuzzTimes
	return [][]byte{
		// A usual life: burst, reload by a staggered SIGTERM, shutdown.
		{4, 0, 0, 0, 0, fuzzBegin, 0, fuzzReadyAll, 0, fuzzPass, minute, fuzzHalt, 0, fuzzForward, 5 + 50,
			fuzzBegin, 0, fuzzPass, second, fuzzExitStopped, 0, fuzzReadyAll, 0, fuzzPass, second, fuzzExitStopped, 0},
		// A crash loop with SpawnInterval; each crash has a delay.
		{3, 3, 0, 1, 0, fuzzBegin, 0, fuzzPass, second, fuzzPass, 8, fuzzCrash, 0, fuzzPass, second, fuzzCrash, 0,
			fuzzPass, second, fuzzCrash, 0, fuzzPass, minute, fuzzCrash, 1, fuzzBegin, 0, fuzzPass, minute},
		// A list of delays: the end of it, a long life, clean ends, a reload.
		{2, 0, 0, 0, 32, fuzzBegin, 0, fuzzCrash, 0, fuzzCrash, 1, fuzzCrash, 0, fuzzPass, 8, fuzzPass, 8, fuzzCrash, 0, fuzzPass, 9, fuzzPass, 9,
			fuzzCrash, 0, fuzzBegin, 0, fuzzPass, minute, fuzzCrash, 0, fuzzExitZero, 0, fuzzExitZero, 0, fuzzExitZero, 0, fuzzExitZero, 0, fuzzPass, minute},
		// Slots that are done, held and released, in a roll too.
		{3, 0, 0, 0, 16, fuzzBegin, 1, fuzzReadyAll, 0, fuzzExitZero, 0, fuzzHold, 2, fuzzCrash, 0, fuzzRelease, 1, fuzzPass, 8, fuzzRelease, 2,
			fuzzReadyAll, 0, fuzzHold, 3, fuzzHalt, 0, fuzzRoll, 0, fuzzBegin, 0, fuzzReadyAll, 0, fuzzReadyAll, 0, fuzzExitStopped, 0,
			fuzzExitZero, 0, fuzzExitZero, 0, fuzzExitZero, 0, fuzzPass, 9, fuzzBegin, 1, fuzzRelease, 3, fuzzPass, 8},
		{2, 0, 0, 0, 24, fuzzHold, 2, fuzzBegin, 0, fuzzUnhold, 3, fuzzReadyAll, 0, fuzzResize, 5, fuzzCrash, 0, fuzzCrash, 0, fuzzRelease, 2, fuzzCrash, 1,
			fuzzResize, 1, fuzzResize, 3, fuzzPass, 9, fuzzBegin, 1, fuzzPass, 9},
		// Workers that exit at once.
		{2, 0, 0, 0, 0, fuzzBegin, 0, fuzzExitZero, 0, fuzzExitZero, 0, fuzzExitZero, 0, fuzzExitZero, 0, fuzzExitZero, 0,
			fuzzExitZero, 0, fuzzPass, second, fuzzExitZero, 0, fuzzPass, second},
		// Spawns that fail, with and without backoff.
		{3, 0, 0, 0, 0, fuzzFailing, 8, fuzzBegin, 0, fuzzPass, minute, fuzzPass, minute, fuzzPass, minute},
		{3, 0, 6, 0, 0, fuzzFailing, 5, fuzzBegin, 0, fuzzPass, minute},
		// Grow and shrink, while the surplus stops.
		{8, 0, 0, 0, 0, fuzzBegin, 0, fuzzReadyAll, 0, fuzzResize, 3, fuzzExitStopped, 0, fuzzResize, 10, fuzzResize, 2,
			fuzzResize, 6, fuzzPass, 9, fuzzExitStopped, 0, fuzzResize, 0, fuzzExitStopped, 0},
		// Disconnected before they are ready: one exits, one is killed, one is
		// stopped.
		{3, 0, 0, 2, 0, fuzzBegin, 0, fuzzDisconnected, 0, fuzzDisconnected, 1, fuzzDisconnected, 2, fuzzCrash, 0, fuzzSignal, 0,
			fuzzPass, grace, fuzzExitStopped, 0},
		// Held signals, a stop, two kills, ordinals that do not exist.
		{5, 2, 2, 3, 1, fuzzBegin, 0, fuzzSignal, 1, fuzzSignal, 2, fuzzSignal, 1, fuzzReady, 0, fuzzReady, 0,
			fuzzSignal, 0, fuzzReady, 1, fuzzKillAll, 0, fuzzKillAll, 0, fuzzShot, 255, fuzzDisconnected, 226, fuzzCrash, 225},
		// A slow loop, spawn requests without an answer, commands.
		{4, 4, 3, 4, 2, fuzzCommand, 0, fuzzSkip, 0, fuzzBegin, 0, fuzzLate, 11, fuzzCrash, 0, fuzzSkip, 0,
			fuzzLate, minute, fuzzHalt, 0, fuzzForward, 100, fuzzForward, 205, fuzzLate, minute},
		// Commands that are ready after a second: some end before, some are rolled.
		{3, 0, 0, 0, 64, fuzzCommand, 128, fuzzBegin, 0, fuzzSignal, 2, fuzzPass, 5, fuzzCrash, 0, fuzzPass, second, fuzzHalt, 0, fuzzRoll, 0,
			fuzzBegin, 0, fuzzPass, second, fuzzCrash, 4, fuzzLate, second, fuzzCrash, 5, fuzzPass, minute, fuzzDisconnected, 3, fuzzSignal, 0},
		// A roll that begins with an empty slot: its probes are bounded.
		{4, 0, 0, 0, 0, fuzzBegin, 0, fuzzReadyAll, 0, fuzzPass, 8, fuzzHalt, 0, fuzzExitZero, 0, fuzzExitZero, 1, fuzzRoll, 0, fuzzBegin, 0,
			fuzzReadyAll, 0, fuzzReadyAll, 0, fuzzReadyAll, 0, fuzzReadyAll, 0, fuzzPass, 8, fuzzCrash, 0, fuzzPass, minute},
		// Dynamic sizing: many workers become idle at the same time.
		{9, 24 + 3, 0, 0, 0, fuzzBegin, 0, fuzzReadyAll, 0, fuzzBusy, 0, fuzzPass, 8, fuzzReadyAll, 0, fuzzBusy, 1, fuzzPass, 8,
			fuzzReadyAll, 0, fuzzBusy, 2, fuzzPass, 8, fuzzReadyAll, 0, fuzzIdle, 0, fuzzIdle, 1, fuzzIdle, 2, fuzzPass, minute},
		// Workers that never work: they crash, exit early, or cannot be spawned.
		{2, 0, 0, 0, 128, fuzzBegin, 0, fuzzCrash, 0, fuzzCrash, 0, fuzzPass, 8, fuzzExitZero, 0, fuzzCrash, 0, fuzzPass, 9,
			fuzzCrash, 0, fuzzCrash, 0, fuzzFailing, 8, fuzzPass, minute, fuzzBegin, 0, fuzzPass, minute},
		// A busy file, and commands that exit at once.
		{3, 0, 0, 0, 128, fuzzFailing, 30, fuzzCommand, 0, fuzzBegin, 0, fuzzPass, 4, fuzzPass, second, fuzzExitZero, 0, fuzzExitZero, 0,
			fuzzExitZero, 0, fuzzExitZero, 0, fuzzPass, second, fuzzFailing, 26, fuzzExitZero, 0, fuzzExitZero, 0, fuzzPass, minute},
		// Leftover processes of a worker that crashed and of workers that were
		// stopped; some exit and some must be killed.
		{128 + 64 + 4, 0, 0, 0, 0, fuzzKeepGroups, 0, fuzzBegin, 0, fuzzReadyAll, 0, fuzzCrash, 0, fuzzPass, second, fuzzSignal, 0,
			fuzzExitStopped, 0, fuzzEmptyGroups, 2, fuzzPass, 8, fuzzExitZero, 0, fuzzKillAll, 0, fuzzExitStopped, 0, fuzzPass, minute},
	}
}
