//go:build unix

package pool

import (
	"syscall"
	"testing"
	"time"
)

// The choices that a fuzzed byte makes.
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
	fuzzIntervals = []time.Duration{0, 10 * ms, 500 * ms, 2 * sec, time.Minute}
)

func pick[T any](from []T, b byte) T { return from[int(b)%len(from)] }

// The events that a fuzzed byte chooses from; the byte after it is their argument.
const (
	fuzzPass = iota // the loop follows Wake
	fuzzLate        // the loop was held up by a hook and comes back late
	fuzzBegin
	fuzzHalt
	fuzzResize
	fuzzReached
	fuzzReachedAll
	fuzzLeave
	fuzzCrash
	fuzzShot
	fuzzLost
	fuzzSignal
	fuzzForward
	fuzzKillAll
	fuzzFailing
	fuzzLeaving
	fuzzCommand
	fuzzObey
	fuzzRoll
	fuzzBusy
	fuzzIdle
	fuzzRetire
	fuzzJam
	fuzzRests // workers that end leave something of their groups from now on, or no more
	fuzzEmpty
	fuzzYield
	fuzzKinds
)

// FuzzPool: the invariants hold after any sequence of events, and whatever came before, WaitAllChildren ends.
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

// fuzzSim is a sim whose Config the first bytes choose.
func fuzzSim(t testing.TB, data []byte) *sim {
	jitters, n := []float64{0, 0.5, 0.999, 0.25}, int(data[4])
	return newSim(t, Config{
		Max:           int(data[0]) % 12,
		Surge:         1 + int(data[0])/12%4,
		Dump:          dumpSig,
		MinSpare:      max(0, int(data[1])/8%6-2),
		MaxSpare:      max(1, int(data[1])/8%6-2) + int(data[2])/8%3,
		Lifetime:      pick([]time.Duration{0, 0, 20 * sec, time.Minute}, data[2]/32),
		CrashLoop:     int(data[2]) / 128 * 3,
		CrashWindow:   time.Minute,
		Continue:      pick([]syscall.Signal{0, syscall.SIGCONT}, data[0]/64),
		Group:         data[0] >= 128,
		SpawnInterval: pick(fuzzSpawnIntervals, data[1]),
		ErrRespawn:    pick(fuzzErrRespawns, data[2]),
		StopTimeout:   pick(fuzzStopTimeouts, data[3]),
		ReadyTimeout:  pick(fuzzReadyTimeouts, data[3]/8),
		Standby:       int(data[3]) / 32 % 4,
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
		s.do(Event{Kind: Begin})
	case fuzzHalt:
		s.do(Event{Kind: Halt})
	case fuzzResize:
		s.do(Event{Kind: Resize, N: int(arg) % 20})
	case fuzzReached:
		id, kind := s.fuzzID(arg), Reached
		if w := s.workers[id]; w != nil && w.slot == noSlot && arg%4 > 0 { // else one that says what a standby does not say
			kind = Parked
		}
		s.do(Event{Kind: kind, ID: id})
	case fuzzReachedAll:
		s.reachAll()
	case fuzzLeave:
		s.leave(s.fuzzID(arg))
	case fuzzCrash:
		s.crash(s.fuzzID(arg))
	case fuzzShot:
		s.exit(s.fuzzID(arg), Event{Killed: true, Memory: arg%3 == 0})
	case fuzzLost:
		s.do(Event{Kind: Lost, ID: s.fuzzID(arg)})
	case fuzzSignal:
		s.do(Event{Kind: Signal, Sig: sig, Now: sig == syscall.SIGCONT})
	case fuzzForward:
		s.do(Event{
			Kind: Forward, Sig: sig, For: pick(fuzzSignals, arg/5), Now: sig == syscall.SIGCONT,
			Interval: pick(fuzzIntervals, arg/25), Again: arg > 127,
		})
	case fuzzKillAll:
		s.do(Event{Kind: KillAll})
	case fuzzFailing:
		s.failing = int(arg) % 9
	case fuzzLeaving:
		s.leaving = true
	case fuzzCommand:
		s.command = !s.command
	case fuzzObey:
		s.obey()
	case fuzzBusy, fuzzIdle:
		s.do(Event{Kind: Busy + Kind(kind-fuzzBusy), ID: s.fuzzID(arg)})
	case fuzzRetire:
		s.do(Event{Kind: Retire, ID: s.fuzzID(arg)})
	case fuzzYield:
		s.do(Event{Kind: Yield, ID: s.fuzzID(arg)})
	case fuzzJam:
		s.do(Event{Kind: Jam, ID: s.fuzzID(arg)})
	case fuzzRoll:
		s.do(Event{Kind: Roll, Sig: rollSig})
	case fuzzRests:
		s.resting = !s.resting
	case fuzzEmpty:
		for id, r := range s.rests {
			r.gone = r.gone || id%4 == int(arg)%4
		}
	}
}

// fuzzID is mostly a worker that lives, sometimes one that is gone or never was.
func (s *sim) fuzzID(arg byte) int {
	ids := s.ids()
	if arg < 224 && len(ids) > 0 {
		return ids[int(arg)%len(ids)]
	}
	return int(arg) - 226
}

// finish is a shutdown, after which nothing is left: no worker, nothing of their groups, no wake-up.
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
	if n := len(s.workers); s.count(Killed) != n {
		s.t.Fatalf("%d of %d workers were killed after StopTimeout", s.count(Killed), n)
	}
	s.obey()
	if s.p.Len() != 0 || s.p.Standbys() != 0 || s.p.Rests() != 0 || s.wake != Never || len(s.spawns) != spawns || len(s.gone) != spawns {
		s.t.Fatalf("the pool does not end: %d workers and %d rests left, Wake %v, %d spawns since, %d reaped of %d",
			s.p.Len(), s.p.Rests(), s.wake, len(s.spawns)-spawns, len(s.gone), spawns)
	}
}

func fuzzSeeds() [][]byte {
	const second, grace, minute = 7, 4, 10 // indexes into fuzzTimes
	return [][]byte{
		// The usual life: burst, reload by a staggered TERM, shutdown.
		{4, 0, 0, 0, 0, fuzzBegin, 0, fuzzReachedAll, 0, fuzzPass, minute, fuzzHalt, 0, fuzzForward, 5 + 50,
			fuzzBegin, 0, fuzzPass, second, fuzzObey, 0, fuzzReachedAll, 0, fuzzPass, second, fuzzObey, 0},
		// A crash loop, spawns spaced, crashes held back one by one.
		{3, 3, 0, 1, 0, fuzzBegin, 0, fuzzPass, second, fuzzPass, 8, fuzzCrash, 0, fuzzPass, second, fuzzCrash, 0,
			fuzzPass, second, fuzzCrash, 0, fuzzPass, minute, fuzzCrash, 1, fuzzBegin, 0, fuzzPass, minute},
		// Workers that leave at once.
		{2, 0, 0, 0, 0, fuzzBegin, 0, fuzzLeave, 0, fuzzLeave, 0, fuzzLeave, 0, fuzzLeave, 0, fuzzLeave, 0,
			fuzzLeave, 0, fuzzPass, second, fuzzLeave, 0, fuzzPass, second},
		// Spawns that fail, with and without pacing.
		{3, 0, 0, 0, 0, fuzzFailing, 8, fuzzBegin, 0, fuzzPass, minute, fuzzPass, minute, fuzzPass, minute},
		{3, 0, 6, 0, 0, fuzzFailing, 5, fuzzBegin, 0, fuzzPass, minute},
		// Grow and shrink, while the surplus stops.
		{8, 0, 0, 0, 0, fuzzBegin, 0, fuzzReachedAll, 0, fuzzResize, 3, fuzzObey, 0, fuzzResize, 10, fuzzResize, 2,
			fuzzResize, 6, fuzzPass, 9, fuzzObey, 0, fuzzResize, 0, fuzzObey, 0},
		// Lost before Start: one ends by itself, one is killed, one is told to stop meanwhile.
		{3, 0, 0, 2, 0, fuzzBegin, 0, fuzzLost, 0, fuzzLost, 1, fuzzLost, 2, fuzzCrash, 0, fuzzSignal, 0,
			fuzzPass, grace, fuzzObey, 0},
		// Held signals, told to stop, killed twice, odd numbers of workers.
		{5, 2, 2, 3, 1, fuzzBegin, 0, fuzzSignal, 1, fuzzSignal, 2, fuzzSignal, 1, fuzzReached, 0, fuzzReached, 0,
			fuzzSignal, 0, fuzzReached, 1, fuzzKillAll, 0, fuzzKillAll, 0, fuzzShot, 255, fuzzLost, 226, fuzzCrash, 225},
		// A slow loop, spawns left for later, commands.
		{4, 4, 3, 4, 2, fuzzCommand, 0, fuzzLeaving, 0, fuzzBegin, 0, fuzzLate, 11, fuzzCrash, 0, fuzzLeaving, 0,
			fuzzLate, minute, fuzzHalt, 0, fuzzForward, 100, fuzzForward, 205, fuzzLate, minute},
		// What is left of groups: of one that crashed, of those that were told; some goes, some must be killed.
		{128 + 64 + 4, 0, 0, 0, 0, fuzzRests, 0, fuzzBegin, 0, fuzzReachedAll, 0, fuzzCrash, 0, fuzzPass, second, fuzzSignal, 0,
			fuzzObey, 0, fuzzEmpty, 2, fuzzPass, 8, fuzzLeave, 0, fuzzKillAll, 0, fuzzObey, 0, fuzzPass, minute},
	}
}
