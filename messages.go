package prefork

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/board"
	"github.com/prefork-go/prefork/internal/control"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/internal/wire"
)

// note handles a note about a worker's process.
func (l *loop) note(n proc.Note) {
	w := l.workers[int(n.ID)]
	if w == nil {
		return // reaped since
	}
	if n.Kind != proc.Readable {
		w.messages.Refill() // its last messages are read before its exit
	}
	l.read(w)
	if l.workers[w.Ordinal] != w {
		return // reaped when its socket ended
	}
	if n.Kind == proc.Exiting && !w.exiting {
		w.exiting = w.proc.Exiting()
		w.proc.UnwatchExit()
		if w.exiting {
			l.handle(pool.Event{Kind: pool.Exiting, ID: w.Ordinal})
		}
	}
	if n.Kind == proc.Exited {
		l.reap(w)
	}
}

// read reads the messages of a worker until there are none, or it is throttled.
func (l *loop) read(w *worker) {
	for w.messages.Open() {
		msg, err := w.messages.Next(l.now())
		switch {
		case err == nil:
			l.message(w, msg)
		case err == proc.ErrWouldBlock:
			return
		case err == control.ErrThrottled:
			l.throttle(w)
			return
		case err == io.EOF && w.cell() == nil: // a Command may close it when it likes
			l.executed(w)
		case err == io.EOF:
			l.steerDue = true
			l.disconnect(w)
		default:
			// A worker that is ready keeps running: a defect of its messages is not
			// a defect of its work.
			l.log.Error("protocol error from worker, ignoring it", w.logAttrs("err", errors.Unwrap(err))...)
			l.steerDue = true
			l.handle(pool.Event{Kind: pool.Disconnected, ID: w.Ordinal})
		}
	}
}

// executed notes that the first step of a Command has executed it, unless it has
// failed or was killed.
func (l *loop) executed(w *worker) {
	if w.notStarted != nil && w.executing && w.failure == nil {
		w.notStarted = nil
		l.handle(pool.Event{Kind: pool.Executed, ID: w.Ordinal, Ready: l.cfg.Readiness.atOnce()})
	}
}

func (l *loop) message(w *worker, msg wire.Message) {
	switch msg := msg.(type) {
	case wire.Ready:
		l.handle(pool.Event{Kind: pool.Ready, ID: w.Ordinal})
	case wire.Parked:
		l.handle(pool.Event{Kind: pool.Parked, ID: w.Ordinal})
	case wire.StatusChanged:
		l.board.Notified()
	case wire.Paused:
		l.notePaused(w, msg.N)
	case wire.Recycle:
		l.handle(pool.Event{Kind: pool.Recycle, ID: w.Ordinal})
	case wire.Accepting:
		l.noteAccepting(w, msg.Socket)
	case wire.AcceptFailed:
		l.noteAcceptFailed(w, msg.Socket)
	case wire.AdoptFailed:
		l.noteAdoptFailed(w, msg.Socket, msg.Slot, errAdopt)
	case wire.ListenerClosed:
		l.noteClosed(w, msg.Socket)
	case wire.AwaitTakeOver:
		l.noteAwaitTakeOver(w)
	case wire.SocketUnused:
		l.noteSocketUnused(w, msg.Socket)
	case wire.Executing:
		w.executing = true
	case wire.NotStarted:
		if w.notStarted != nil && w.State == StateStarting {
			w.failure = &SpawnError{Slot: w.Slot, Generation: w.Generation, Err: w.notStarted(syscall.Errno(msg.Errno), msg.Reason)}
		}
	case wire.Shutdown:
		if !w.asksShutdown { // a worker that repeats it must not fill the log
			w.asksShutdown = true
			l.shutDownFor(w.WorkerInfo, int(msg.Code), msg.Message)
		}
	}
}

// throttle reads the messages of a worker again in its next period.
func (l *loop) throttle(w *worker) {
	if !w.throttleLogged {
		w.throttleLogged = true
		l.log.Warn("worker sends too many messages, throttling it", w.logAttrs()...)
	}
	l.throttled = append(l.throttled, w)
}

// pollThrottled reads the messages of throttled workers whose period has ended,
// and returns when the next one ends.
func (l *loop) pollThrottled() pool.Time {
	due, throttled := pool.Never, l.throttled
	l.throttled = nil
	for _, w := range throttled {
		switch {
		case l.workers[w.Ordinal] != w:
		case w.messages.Resumes() > l.now():
			l.throttled = append(l.throttled, w)
		default:
			l.read(w) // which may throttle it again
		}
	}
	for _, w := range l.throttled {
		due = pool.Sooner(due, w.messages.Resumes())
	}
	return due
}

// pollOverdue reads the messages of workers whose readiness timeout is over,
// before the policy kills them: if the manager was held up (suspended, in a hook),
// they may have become ready long ago. It returns the time up to which all
// messages were read.
func (l *loop) pollOverdue() pool.Time {
	now := l.now()
	if !l.pool.Overdue(now) {
		return now
	}
	for _, w := range l.workers {
		if w.State == StateStarting && !slices.Contains(l.throttled, w) {
			l.read(w)
		}
	}
	return now
}

// reap takes the status of a worker that has exited, and reports whether it has.
func (l *loop) reap(w *worker) bool {
	l.setReaped(w, true) // first: its pid may be used again from then on
	status, usage, ok := w.proc.Reap()
	if !ok {
		l.setReaped(w, false)
		return false
	}
	w.status, w.usage = status, usage
	leftover := w.proc.HasLeftovers()
	if leftover {
		l.leftovers[w.Ordinal] = w
	}
	l.handle(pool.Event{
		Kind: pool.Exited, ID: w.Ordinal, Clean: l.cfg.isSuccess(status), Killed: status.Signal == syscall.SIGKILL,
		OOMKilled: l.claimKill(w), NoGrace: l.hadNoGrace(w), Leftover: leftover, Stray: l.isStray(w),
	})
	return true
}

// hadNoGrace reports whether the stop signal ended a worker that had not called
// Context. With KILL as the stop signal, Context would not help. A worker whose
// control socket had ended before may have executed another program.
func (l *loop) hadNoGrace(w *worker) bool {
	return w.status.Signal == l.stop && sig.Untrappable(l.stop) == "" && !w.unreachable && w.cell() != nil && !w.cell().Read().Context
}

// isStray reports whether a signal ended a worker that workers of this program
// ignore from their package initialization on.
func (l *loop) isStray(w *worker) bool {
	return w.cell() != nil && slices.Contains(l.ignored(), w.status.Signal)
}

// claimKill reports whether the OOM killer has ended a worker. A kill is claimed
// for one worker only.
func (l *loop) claimKill(w *worker) bool {
	if !l.kills.Caused(w.status.Signal, w.State == StateKilled) {
		return false
	}
	l.kills.Claim()
	return true
}

// disconnect handles the end of a worker's control socket. Usually the worker has
// exited and can be reaped now or in a moment. Only a worker that lives on after
// that is examined: asking /proc about each worker that exits would cost as much
// as reaping it, at the moment when its replacement is needed.
func (l *loop) disconnect(w *worker) {
	if !l.reap(w) {
		l.disconnected = append(l.disconnected, disconnection{w, l.now() + disconnectGrace})
		l.handle(pool.Event{Kind: pool.Disconnected, ID: w.Ordinal})
	}
}

// disconnectGrace is about the time that a program needs to reach its main. A
// worker that is a manager by mistake may spawn in it; its workers exit with it.
const disconnectGrace = 2 * time.Millisecond

// disconnection is a worker that has closed its control socket, and when it is
// examined.
type disconnection struct {
	*worker
	at pool.Time
}

// pollDisconnected examines workers whose grace is over, and returns when the
// next one's is.
func (l *loop) pollDisconnected() pool.Time {
	for len(l.disconnected) > 0 && l.disconnected[0].at <= l.now() {
		w := l.disconnected[0].worker
		l.disconnected = l.disconnected[1:]
		if l.workers[w.Ordinal] != w {
			continue
		}
		if binary.Runs(w.PID, w.exe) && marker.IsMissing(w.PID) {
			l.log.Error("worker executed this program without its marker, killing it before it acts as a manager", w.logAttrs()...)
			l.handle(pool.Event{Kind: pool.Disconnected, ID: w.Ordinal, Alive: true})
		}
	}
	if len(l.disconnected) == 0 {
		l.disconnected = nil
		return pool.Never
	}
	return l.disconnected[0].at
}

// readBoard passes the status of the workers to the policy, and returns when it
// must read again.
func (l *loop) readBoard() pool.Time {
	if now := l.now(); l.board.Begin(now, len(l.workers)) {
		for _, ev := range l.board.Look(now, l.counted()) {
			l.boardEvent(ev)
		}
		l.handle(pool.Event{Kind: pool.Surveyed})
	}
	events, next := l.board.CheckMemory(l.now(), l.readyRecords)
	for _, ev := range events {
		l.boardEvent(ev)
	}
	return pool.Sooner(l.board.NextScan(), next)
}

func (l *loop) boardEvent(ev board.Event) {
	kind := pool.Idle
	switch ev.Kind {
	case board.Busy:
		kind = pool.Busy
	case board.Stuck:
		kind = pool.Stuck
	case board.TooBig:
		kind = pool.Recycle
	}
	l.handle(pool.Event{Kind: kind, ID: ev.ID})
}

// counted returns the records of the workers that are starting or ready, without
// replacements, which are idle while they are that.
func (l *loop) counted() []*board.Worker {
	bySlot := make(map[int]*worker)
	for _, w := range l.workers {
		if w.cell() == nil || w.Slot == noSlot || w.exiting || w.State >= StateStopping {
			continue
		}
		if other := bySlot[w.Slot]; other == nil || w.State == StateReady && other.State != StateReady || w.State == other.State && w.Ordinal < other.Ordinal {
			bySlot[w.Slot] = w
		}
	}
	records := make([]*board.Worker, 0, len(bySlot))
	for _, w := range bySlot {
		w.record.Paused = w.Paused
		records = append(records, &w.record)
	}
	slices.SortFunc(records, func(a, b *board.Worker) int { return a.ID - b.ID })
	return records
}

// readyRecords yields the records of the ready workers.
func (l *loop) readyRecords(yield func(*board.Worker) bool) {
	for _, w := range l.workers {
		if w.State == StateReady && !yield(&w.record) {
			return
		}
	}
}

// sendPause sends to the workers the state that Pause and Resume have set.
func (l *loop) sendPause() {
	l.mu.Lock()
	paused := l.paused
	if paused == (l.pausing != 0) {
		l.mu.Unlock()
		return
	}
	l.pausing = 0
	if paused {
		l.pauses++
		l.pausing = l.pauses
	}
	for _, w := range l.workers {
		w.Paused = false
	}
	ev := Event(ResumeEvent{})
	if paused {
		ev = PauseEvent{}
	}
	report := l.stamp(ev)
	l.mu.Unlock()
	l.publish(report)
	for _, w := range l.workers {
		if w.reachable() {
			l.sendPauseTo(w)
		}
	}
}

func (l *loop) sendPauseTo(w *worker) {
	msg := wire.Message(wire.Resume{})
	if l.pausing != 0 {
		msg = wire.Pause{N: l.pausing}
	}
	if err := w.send(msg); err != nil && !proc.IsDisconnected(err) && !w.pauseErrLogged {
		w.pauseErrLogged = true // a worker that keeps reporting must not fill the log
		l.log.Error("cannot send pause or resume to worker", w.logAttrs("err", err)...)
	}
}

// notePaused notes that a worker waits. A report about a pause that is over does not
// count; that worker is sent the present state again: the socket of a worker that
// was stopped (SIGSTOP) for long may have been full when the pause ended.
func (l *loop) notePaused(w *worker, n int) {
	if n != l.pausing {
		l.sendPauseTo(w)
		return
	}
	if w.Paused {
		return
	}
	l.mu.Lock()
	w.Paused = true
	report := l.stamp(PausedEvent{Worker: l.info(w, time.Now())})
	l.mu.Unlock()
	l.publish(report)
}

// levelPause is how long the loop waits before it sends the level again to a worker
// whose socket was full, such as one that was stopped (SIGSTOP).
const levelPause = time.Second

// sendLogLevel sends to the workers the level that SetLogLevel has set. It returns
// when it must be called again.
func (l *loop) sendLogLevel() (again pool.Time) {
	level := l.level.Level()
	if level == l.sentLevel && l.levelAgain > l.now() {
		return l.levelAgain
	}
	l.sentLevel, l.levelAgain = level, pool.Never
	for _, w := range l.workers {
		if w.level == level || !w.reachable() {
			continue
		}
		if w.send(wire.LogLevel{Level: int(level)}) == proc.ErrWouldBlock {
			l.levelAgain = l.now() + levelPause
			continue
		}
		w.level = level
	}
	return l.levelAgain
}

// promote sends a standby its slot. One that cannot receive it is killed, and the
// slot gets another.
func (l *loop) promote(w *worker) {
	err := l.sendOwnSockets(w)
	if err == nil {
		err = w.send(wire.Promote{Slot: w.Slot, Plan: l.resources.SlotPlan(w.Slot)})
	}
	if err == nil {
		return
	}
	if !proc.IsDisconnected(err) {
		l.log.Error("cannot send standby its slot", w.logAttrs("err", err)...)
	}
	w.proc.Signal(syscall.SIGKILL)
}

// steerPause is how long the loop waits before it sends again a message for which
// a worker's socket had no room. The socket takes a few hundred messages, and a
// worker may get the sockets of more slots at one moment.
const steerPause = 10 * time.Millisecond

// errAdopt is the error of a worker that could not adopt a socket.
var errAdopt = errors.New("it has no descriptor left, or may not receive one")

// noteAwaitTakeOver notes that a worker waits until it is the only one of its
// slot.
func (l *loop) noteAwaitTakeOver(w *worker) {
	if !w.awaitsTakeOver {
		w.awaitsTakeOver = true
		l.awaiting = append(l.awaiting, w)
	}
}

// pollTakeOvers answers the workers that are the only ones of their slots by now,
// and returns when it must be called again. Each exit is followed by a turn, so
// it is needed only if a worker's socket was full.
func (l *loop) pollTakeOvers() pool.Time {
	again := pool.Never
	l.awaiting = slices.DeleteFunc(l.awaiting, func(w *worker) bool {
		if l.workers[w.Ordinal] != w {
			return true
		}
		if l.sharesSlot(w) {
			return false
		}
		full := w.send(wire.TakeOver{}) == proc.ErrWouldBlock
		if full {
			again = l.now() + steerPause
		}
		return !full
	})
	return again
}

// sharesSlot reports whether another worker of the slot lives, or leftover
// processes of one, or the predecessor of this manager with its workers.
func (l *loop) sharesSlot(w *worker) bool {
	select {
	case <-process.PredecessorGone():
	default:
		return true
	}
	for _, workers := range []map[int]*worker{l.workers, l.leftovers} {
		for _, other := range workers {
			if other != w && other.Slot == w.Slot {
				return true
			}
		}
	}
	return false
}

// worker is the manager's record of a worker process.
type worker struct {
	WorkerInfo
	proc           proc.Process
	messages       control.Reader
	record         board.Worker
	exe            *binary.Binary
	spawnedAt      pool.Time
	exiting        bool       // its process has begun to exit
	throttleLogged bool       // that it was throttled
	asksShutdown   bool       // it has asked for a shutdown
	pauseErrLogged bool       // that a pause could not be sent to it
	awaitsTakeOver bool       // it has asked whether it is the only one of its slot
	unreachable    bool       // it was stopped after the end of its control socket
	level          slog.Level // of its log, as last sent
	accepting      []int      // the groups on whose listener it accepts
	closed         []int      // the groups whose listener it has closed
	status         proc.Status
	usage          *syscall.Rusage

	// notStarted returns the error for a wire.NotStarted, of a Command with a first
	// step; nil for others.
	notStarted func(syscall.Errno, string) error
	executing  bool        // it is about to execute the Command
	failure    *SpawnError // that it has sent

	reaped bool          // or about to be; guarded by mu, as are the following
	cpu    time.Duration // as last read
	place  int           // grows with each worker that gets a slot
}

// cell returns the memory in which the worker publishes its status; nil for a
// Command.
func (w *worker) cell() *scoreboard.Cell { return w.record.Cell }

// reachable reports whether the worker can get messages. A Command gets none.
func (w *worker) reachable() bool { return w.messages.Open() && w.cell() != nil }

// send sends a message to a worker.
func (w *worker) send(msg wire.Message) error {
	_, err := w.proc.Write(wire.Append(nil, msg))
	return err
}

// logAttrs identifies a worker in the log.
func (w *worker) logAttrs(more ...any) []any {
	return append([]any{"slot", w.Slot, "gen", w.Generation, "pid", w.PID}, more...)
}

// closeCells unmaps the cells of workers that are gone, after the start of their
// replacements, which must not wait for it.
func (l *loop) closeCells() {
	for _, cell := range l.closing {
		cell.Close()
	}
	l.closing = nil
}
