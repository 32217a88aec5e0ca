package prefork

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/board"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/resources"
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/sig"
)

// loop owns all state of workers. It belongs to the goroutine that is inside a
// blocking call. Everything that happens becomes an event for the policy, and
// comes back as effects.
type loop struct {
	*managerSide
	spawner
	origin   time.Time
	seen     pool.Time     // when the loop was last seen to run
	frozen   time.Duration // for how long the system was frozen since the last event
	pool     *pool.Pool
	procs    proc.Table
	timer    *time.Timer
	board    *board.Board
	kills    *resources.Kills // of the OOM killer
	inRun    bool
	started  bool // a StartedEvent without its EndedEvent
	shutdown shutdown

	endLogged     bool               // that a worker exits at once, without an error
	cutLogged     bool               // that a worker had no time to finish its work
	lastFailure   error              // of a spawn, or the last exit
	againLogged   bool               // that it was started again after its successor took over
	leftovers     map[int]*worker    // by ordinal: reaped workers with leftover processes
	throttled     []*worker          // whose messages are read again later
	disconnected  []disconnection    // workers that closed their control socket
	awaiting      []*worker          // that wait until they are the only ones of their slots
	closing       []*scoreboard.Cell // of workers that are gone
	pauses        int                // the number of pauses so far
	pausing       int                // the number of the pause in force; 0 for none
	sentLevel     slog.Level         // that new workers get
	levelAgain    pool.Time          // when that is sent again to those whose socket was full
	steerDue      bool               // the set of ready workers has changed
	steerAgain    pool.Time          // when a worker may be able to take a socket again
	places        int                // how many workers have had a slot so far
	successors    uint64             // started so far
	successor     *successor         // on its way, or one that has taken over
	reportsReady  bool               // a successor that has not reported its readiness
	awaitTakeover bool               // and its predecessor has not handed over
	socketsUnused map[int]int        // by socket: the last generation with a warning
	replacing     []replacement      // that callers of ReplaceWorker wait for
}

func newLoop(s *managerSide, exe string, depth int, settings *resources.Settings) *loop {
	l := &loop{
		managerSide: s, spawner: newSpawner(exe, depth, settings, s.cfg.Command), origin: time.Now(), timer: time.NewTimer(0),
		kills: settings.Kills(), leftovers: make(map[int]*worker), steerAgain: pool.Never, levelAgain: pool.Never,
		board: board.New(board.Config{
			MinSpare: s.cfg.MinSpareWorkers, MaxSpare: s.cfg.MaxSpareWorkers,
			Stuck: s.cfg.Stuck.Timeout, Memory: s.cfg.Recycle.MaxMemory > 0,
		}),
	}
	l.procs = proc.NewTable(s.inbox.Note)
	s.publish = l.publishEvent
	l.pool = pool.New(pool.Config{
		Max:           s.cfg.MaxWorkers,
		Surge:         s.cfg.MaxSurge,
		Standby:       s.cfg.Standby,
		SpawnInterval: s.cfg.SpawnInterval,
		ErrRespawn:    s.cfg.ErrRespawnInterval,
		Backoff:       s.cfg.Backoff,
		Restart:       pool.Restart(s.cfg.Restart),
		StopTimeout:   s.cfg.StopTimeout,
		ReadyTimeout:  s.cfg.Readiness.Timeout,
		ReadyAfter:    s.cfg.Readiness.After,
		Stop:          s.stop,
		Continue:      sig.Continue,
		Dump:          dumpSignal(s.stop),
		MinSpare:      s.cfg.MinSpareWorkers,
		MaxSpare:      s.cfg.MaxSpareWorkers,
		Lifetime:      s.cfg.Recycle.MaxLifetime,
		CrashLoop:     s.cfg.CrashLoop.Failures,
		CrashWindow:   s.cfg.CrashLoop.Window,
		UnprovenLoop:  s.cfg.CrashLoop.unproven(),
		Group:         s.cfg.StopGroup,
		Jitter:        rand.Float64,
	})
	return l
}

// dumpSignal is the signal on which a Go program prints its goroutines and exits.
// A worker must not take it for the stop signal.
func dumpSignal(stop syscall.Signal) syscall.Signal {
	if stop == syscall.SIGQUIT {
		return syscall.SIGABRT
	}
	return syscall.SIGQUIT
}

// now is the time on the policy's scale. time.Since reads the monotonic clock, so
// setting the wall clock has no effect.
func (l *loop) now() pool.Time { return time.Since(l.origin) }

// after returns the time d from now, which may mean for ever.
func (l *loop) after(d time.Duration) pool.Time { return l.now() + min(d, math.MaxInt64-l.now()) }

// generate is the loop of Start: it begins a generation, and returns the signal
// that ends it.
func (l *loop) generate() os.Signal {
	l.begin()
	for {
		step := l.turn()
		if a, ok := l.inbox.TakeSignal(l.cfg.ShutdownSignal); ok {
			f, ok := l.forwardOf(a)
			if !ok {
				continue
			}
			ends, sends := l.accept(a, f)
			if !ends {
				continue
			}
			l.handle(pool.Event{Kind: pool.Halt})
			l.received.Store(a)
			if sends {
				l.forward(a, f, l.replaces(f))
			}
			return a.Sig
		}
		// One spawn in each turn: a signal that arrives while hundreds of workers
		// start does not wait for the last of them.
		if step.SpawnDue {
			l.spawn(step)
			l.closeCells()
			continue
		}
		l.sleep(step.Wake, nil)
	}
}

// begin begins a generation.
func (l *loop) begin() {
	fresh := l.shutdown.begun
	l.shutdown, l.failure = shutdown{}, nil
	l.warnOfSuccessor()
	l.hooks.Begin()
	l.resize()
	l.mu.Lock()
	first := l.generation == 0
	l.generation++
	l.stopping = time.Time{}
	l.changes.Close(nil)
	l.generations.Add(l.generation, l.passed)
	begins := l.stamp(GenerationEvent{Generation: l.generation, MaxWorkers: l.pool.Max(), Program: l.program(l.generation)})
	l.mu.Unlock()
	if first {
		l.sockets.Begin()
		l.checkName()
	}
	l.publish(begins)
	l.handle(pool.Event{Kind: pool.Begin, Fresh: fresh})
	l.forget()
}

// drain is the loop of WaitAllChildren.
func (l *loop) drain(ctx context.Context) (left int, err error) {
	if !l.shutdown.begun {
		l.refuse(errWaiting)
	}
	l.handle(pool.Event{Kind: pool.Halt})
	for {
		step := l.turn()
		if a, ok := l.inbox.TakeSignal(l.cfg.ShutdownSignal); ok {
			if a.Request != 0 {
				continue // it was refused
			}
			// The program's loop must see a shutdown that arrives while it waits, and
			// no later signal may hide it.
			if l.signalReceived() != l.cfg.ShutdownSignal {
				l.received.Store(a)
			}
			l.forward(a, l.cfg.TrapSignals[a.Sig], false)
			continue
		}
		if l.shutdown.begun && l.pool.Serving() == 0 {
			l.sockets.StopListening()
		}
		if l.pool.Len() == 0 && l.pool.Standbys() == 0 && l.pool.Leftovers() == 0 && (l.successor == nil || l.successor.tookOver) {
			return 0, l.finishDrain()
		}
		if err := ctx.Err(); err != nil {
			return l.pool.Len(), err
		}
		l.sleep(step.Wake, ctx.Done())
	}
}

// finishDrain is called when no worker remains.
func (l *loop) finishDrain() error {
	if l.shutdown.begun {
		l.sockets.RemoveFiles()
		l.end(l.failure)
	}
	return l.failure
}

// turn handles everything that has happened since the last turn, and returns the
// next step.
func (l *loop) turn() pool.Step {
	if l.steerAgain != pool.Never && l.steerAgain <= l.now() {
		l.steerDue, l.steerAgain = true, pool.Never // handle steers again below
	}
	l.inbox.BeginTurn()
	l.resize()
	l.sendPause()
	levelDue := l.sendLogLevel()
	notes, commands := l.inbox.Take()
	for _, n := range notes {
		if l.successor != nil && n.ID == l.successor.id {
			l.noteSuccessor(l.successor, n)
			continue
		}
		l.note(n)
	}
	for _, command := range commands {
		command()
	}
	l.completeTakeover()
	readTo := l.pollOverdue()
	due := earliest(levelDue, l.pollThrottled(), l.pollDisconnected(), l.checkSuccessor(), l.pollTakeOvers())
	if l.board.Active() {
		l.handle(pool.Event{Kind: pool.Tick, ReadUpTo: readTo})
		if l.pool.Plan(l.now()).Survey {
			l.board.Changed()
		}
		due = earliest(due, l.readBoard())
	}
	l.handle(pool.Event{Kind: pool.Tick, ReadUpTo: readTo})
	l.applyRequests() // of hooks that ran in this turn: they count before the next spawn
	if l.pool.AllDone() {
		l.shutDown("every slot is done", nil)
	}
	step := l.pool.Plan(l.now())
	if step.Survey {
		l.board.Changed()
	}
	step.Wake = earliest(step.Wake, due, l.steerAgain, l.board.NextReading(len(l.workers)))
	return step
}

func earliest(times ...pool.Time) pool.Time {
	first := pool.Never
	for _, t := range times {
		first = pool.Sooner(first, t)
	}
	return first
}

// applyRequests applies SetMaxWorkers, SignalAllChildren, Hold and Release, which a
// hook may have called.
func (l *loop) applyRequests() {
	for _, command := range l.inbox.TakeCommands() {
		command()
	}
	l.resize()
}

// resize passes the value of SetMaxWorkers to the policy, as far as an upgrade
// allows.
func (l *loop) resize() {
	to := l.maxWorkers()
	if l.successor != nil {
		to = l.sockets.Limit(to)
	}
	if from := l.pool.Max(); from != to {
		l.emit(ResizeEvent{From: from, To: to})
		l.handle(pool.Event{Kind: pool.Resize, N: to})
	}
}

// While deadlines run, the loop wakes up each freezeInterval. If it wakes up later
// than it asked by more than freezeInterval, the system was frozen.
const freezeInterval = 250 * time.Millisecond

// sleep waits until something happens, wake comes, or done is closed.
func (l *loop) sleep(wake pool.Time, done <-chan struct{}) {
	select {
	case <-l.inbox.Wake():
		return
	default:
	}
	l.inbox.Idle()
	l.closeCells()
	l.relay.Flush()
	l.noticeFreeze() // the select below would hide it
	if l.pool.Timed() || l.successor != nil && l.successor.deadline != pool.Never {
		wake = pool.Sooner(wake, l.now()+freezeInterval)
	}
	var due <-chan time.Time
	if wake != pool.Never {
		wake = max(wake, l.now())
		l.timer.Reset(wake - l.now())
		due = l.timer.C
	}
	select {
	case <-l.inbox.Wake():
	case <-due:
	case <-done:
	}
	l.seen = l.now()
	if late := l.seen - wake; wake != pool.Never && late > freezeInterval {
		l.thaw(late)
	}
}

// busyLimit is how long the loop works without a sleep or a hook, at most.
const busyLimit = time.Second

// noticeFreeze finds that the system was frozen while the loop worked.
func (l *loop) noticeFreeze() {
	gap := l.now() - l.seen
	if l.seen += gap; gap > busyLimit {
		l.thaw(gap)
	}
}

// thaw moves the deadlines after the system was frozen: those of workers with the
// next event, as the policy takes no other between Plan and Spawned.
func (l *loop) thaw(late time.Duration) {
	if n := l.successor; n != nil && n.deadline != pool.Never {
		n.deadline += min(late, math.MaxInt64-n.deadline)
		if n.failed == nil {
			l.mu.Lock()
			l.upgradeDue = n.deadline
			l.mu.Unlock()
		}
	}
	l.frozen += min(late, math.MaxInt64-l.frozen)
}

// handle applies an event to the policy and carries out its effects. It is the
// only caller of Apply.
func (l *loop) handle(ev pool.Event) {
	l.noticeFreeze()
	ev.Frozen, l.frozen = l.frozen, 0
	fallback := l.pool.Fallback()
	l.mu.Lock() // Snapshot reads the pool
	effects := l.pool.Apply(l.now(), ev)
	l.settled = l.settled && l.pool.Settled() // it becomes settled after the effects
	l.mu.Unlock()
	for _, e := range effects {
		l.carryOut(e)
	}
	if l.pool.Fallback() != fallback && ev.Kind != pool.Begin {
		l.forget()
	}
	l.checkReplaced()
	l.checkSettled()
	l.steer()
	l.reportReady()
}

func (l *loop) carryOut(e pool.Effect) {
	switch e.Kind {
	case pool.Send:
		l.signal(e)
	case pool.Change:
		l.transition(l.workers[e.ID], e)
	case pool.Delay:
		l.emit(DelayEvent{Slot: e.Slot, For: e.For})
	case pool.RetryDelay:
		if !errors.Is(l.notSpawned, syscall.ETXTBSY) { // that is tried again
			l.replacementFailed(l.notSpawned.Slot, 0, l.notSpawned)
		}
		if !e.Repeated {
			l.emit(SpawnFailedEvent{Err: l.notSpawned, Retry: e.For})
		}
	case pool.EndsAtOnce:
		if !l.endLogged {
			l.endLogged = true
			l.log.Warn("command exits at once with code 0: does it daemonize? it must stay in the foreground",
				l.workers[e.ID].logAttrs("command", l.cfg.Command[0])...)
		}
	case pool.WorkCut:
		if !l.cutLogged {
			l.cutLogged = true
			l.log.Warn("stop signal ended a worker that never called Context, in the middle of its work: call Worker.Context early, and return when it ends",
				l.workers[e.ID].logAttrs("signal", sig.Name(l.stop))...)
		}
	case pool.Hold:
		l.emit(HoldEvent{Slot: e.Slot, Held: e.Held})
	case pool.Done:
		l.emit(DoneEvent{Slot: e.Slot})
	case pool.CheckGroup:
		l.leftovers[e.ID].proc.ReapLeftovers()
		if !l.leftovers[e.ID].proc.HasLeftovers() {
			l.command(pool.Event{Kind: pool.GroupGone, ID: e.ID})
		}
	case pool.Leftover:
		l.leftover(e)
	case pool.Rolled:
		l.emit(RolledEvent{Generation: e.Gen})
	case pool.CrashLooped:
		l.emit(CrashLoopEvent{Failures: e.Failures, Window: e.For})
		l.shutDown("crash loop", fmt.Errorf("%w: %d failures in %v, the last: %w", ErrCrashLoop, e.Failures, e.For, l.lastFailure))
	case pool.RollFailed:
		l.generations.FallBack(e.Kept)
		l.rollFailed(RollFailedEvent{Generation: e.Gen, Kept: e.Kept, Err: l.rollError(e)})
	}
}

// rollError returns the reason why a generation failed.
func (l *loop) rollError(e pool.Effect) error {
	if e.ID == 0 {
		return l.notSpawned
	}
	w := l.workers[e.ID]
	if w.failure != nil {
		return w.failure
	}
	return fmt.Errorf("worker %d (slot %d) %v: %v after %v", w.PID, w.Slot, Reason(e.Reason), ExitStatus(w.status), (l.now() - w.spawnedAt).Round(time.Millisecond))
}

// transition is the only place that changes the state of a worker.
func (l *loop) transition(w *worker, e pool.Effect) {
	l.mu.Lock()
	w.enter(State(e.To))
	if e.To == pool.StateGone {
		delete(l.workers, w.Ordinal)
		if w.cell() != nil {
			l.closing = append(l.closing, w.cell())
		}
	}
	promoted := w.Slot == noSlot && e.Slot != noSlot
	if w.Slot == noSlot && (promoted || e.To == pool.StateGone) {
		l.standbys--
	}
	if w.Slot = e.Slot; promoted {
		l.takePlace(w)
	}
	var report stamped
	if e.To == pool.StateGone {
		report = l.stamp(ExitEvent{Exit: l.noteExit(w, e), From: State(e.From)})
	} else {
		report = l.stamp(StateEvent{Worker: l.info(w, time.Now()), From: State(e.From), Reason: Reason(e.Reason)})
	}
	l.mu.Unlock()
	l.board.Changed()
	if e.From == pool.StateReady || e.To == pool.StateReady {
		l.steerDue = true
	}
	if e.To == pool.StateReady && l.cfg.Standby > 0 {
		w.proc.WatchExit()
	}
	if promoted {
		l.promote(w)
	}
	l.publish(report)
	if exited, ok := report.Event.(ExitEvent); ok {
		l.exited(w, e, exited.Exit)
	}
}

// exited acts on the exit of a worker, after it was reported.
func (l *loop) exited(w *worker, e pool.Effect, exit Exit) {
	why := errors.New(exit.String())
	if w.failure != nil {
		why = w.failure
		l.emit(SpawnFailedEvent{Err: w.failure})
	}
	l.lastFailure = why
	if early := e.From == pool.StateStarting && exit.Reason == ReasonFinished && l.cfg.Command == nil; early && !l.endLogged {
		l.endLogged = true
		l.log.Warn(l.cfg.Readiness.endedEarly(), w.logAttrs("status", exit.Status.String())...)
	}
	if e.From == pool.StateStarting || e.From == pool.StateKilled && exit.Reason == ReasonReadyTimeout {
		l.replacementFailed(exit.Slot, w.place, why)
	}
	failed := e.From < pool.StateStopping && (e.From == pool.StateStarting || !l.cfg.isSuccess(w.status)) && !l.isStray(w)
	if failed || exit.Reason == ReasonReadyTimeout {
		l.reportFailed(why.Error())
	}
	if l.cfg.OnChildReap != nil {
		l.callHook("OnChildReap", func() { l.cfg.OnChildReap(l.Manager, exit) })
	}
}

// leftover reports on leftover processes. Those that were killed together with
// the worker are not reported.
func (l *loop) leftover(e pool.Effect) {
	w := l.leftovers[e.ID]
	if e.To >= pool.StateKilled {
		delete(l.leftovers, e.ID)
	}
	if e.From != e.To {
		l.emit(LeftoverEvent{Worker: w.WorkerInfo, State: State(e.To)})
	}
}

// release gives back what the loop holds, for Close.
func (l *loop) release() error {
	n := l.pool.Len() + l.pool.Standbys() + l.pool.Leftovers()
	switch {
	case n > 0:
		return fmt.Errorf("%d processes are left: stop them, and call WaitAllChildren first", n)
	case l.successor != nil && !l.successor.exited:
		return fmt.Errorf("successor %d lives: this process must end", l.successor.proc.Pid())
	}
	l.timer.Stop()
	l.closeCells()
	l.generations.Close()
	l.resources.Close()
	l.relay.Finish()
	return l.procs.Close()
}

// shutdownWaits reports whether the shutdown signal has arrived and was not
// handled yet.
func (l *loop) shutdownWaits() bool { return l.inbox.HasSignal(l.cfg.ShutdownSignal) }
