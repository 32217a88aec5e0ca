package prefork

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/change"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/pause"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/self"
	"github.com/prefork-go/prefork/internal/wire"
)

// Worker is the link of a worker to its manager. A worker has one, from Start on.
// Its methods are safe for concurrent use and do not block, except for
// Checkpoint.
type Worker struct {
	ready     sync.Once
	shutdown  sync.Once
	passed    func() []byte
	inProcess *inProcessWorker // nil in a worker process
}

// Context returns a context that ends when the worker should stop: on the stop
// signal and on the manager's death. context.Cause returns which of them it was.
//
// Until the first call of Context the stop signal keeps its default effect, which
// usually ends the process in the middle of its work; the manager warns of that,
// once. If the program handles that signal itself, or was started with it
// ignored, the Context has ended when it is first called after the signal,
// because the manager also sends a message.
func (w *Worker) Context() context.Context {
	if w.inProcess != nil {
		return w.inProcess.ctx
	}
	return process.Context()
}

// StopTimeout returns the Config.StopTimeout of the manager: the time from the stop
// signal to SIGKILL. A negative value means never.
func (w *Worker) StopTimeout() time.Duration {
	if w.inProcess != nil {
		return w.inProcess.stopTime
	}
	return process.Marker.StopTime
}

// Interrupted returns a channel that is closed when an interrupt (Ctrl-C) stops the
// program. A person waits then, so a worker that drains should finish what is in
// flight and not wait for idle clients. Context ends too, at the same time or
// earlier.
func (w *Worker) Interrupted() <-chan struct{} {
	if w.inProcess != nil {
		return w.inProcess.interrupted
	}
	return process.Interrupted
}

// Ready reports to the manager that this worker is ready, for Readiness.Explicit.
// By default, Start does it. Calling it again is a no-op.
func (w *Worker) Ready() {
	if w.inProcess == nil {
		w.ready.Do(func() { process.Send(wire.Ready{}) })
	}
}

// ShutdownPool asks the manager to shut the whole pool down, as Manager.Shutdown
// does. It is for a worker that finds a reason why no worker can go on; one that
// cannot go on itself should return an error. The pool must allow it by
// Config.WorkerShutdown; otherwise the manager logs the request and continues.
//
// With code 0, Run and WaitAllChildren return nil. With any other code they return
// a *WorkerError, once all workers are reaped, and main can exit with that code.
// The message gives the reason, in the log too; the manager gets its first 254
// bytes, and replaces line breaks. Calling it again is a no-op. The worker is
// stopped as all others: it may exit, or go on until its Context ends. It panics
// if the code is not from 0 to 255.
func (w *Worker) ShutdownPool(code int, message string) {
	if code < 0 || code > math.MaxUint8 {
		misuse("ShutdownPool(%d): an exit code is from 0 to 255", code)
	}
	w.shutdown.Do(func() {
		if w.inProcess != nil {
			w.inProcess.shutDown(code, message)
			return
		}
		process.Send(wire.Shutdown{Code: byte(code), Message: message})
	})
}

// WorkerError is the error of Run and WaitAllChildren after a worker has shut the
// pool down with a code other than 0; see Worker.ShutdownPool. Slot is -1 for a
// standby.
type WorkerError struct {
	Slot, Generation, PID int    // of the worker
	Code                  int    // from 1 to 255, for the exit of the program
	Message               string // one line
}

func (e *WorkerError) Error() string { return "prefork: " + e.text() }

func (e *WorkerError) text() string {
	text := fmt.Sprintf("worker %d (%s, generation %d) requested a shutdown with code %d", e.PID, slotName(e.Slot), e.Generation, e.Code)
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Passed returns the bytes that Manager.Pass was given before this worker's
// generation began; nil if it was not called. All callers share the bytes, which
// must not be changed.
func (w *Worker) Passed() []byte { return w.passed() }

// Slot returns the worker's place in the pool, from 0 to MaxWorkers-1. The worker
// that replaces it gets the same slot.
func (w *Worker) Slot() int { return process.Slot() }

// Generation returns the worker's generation: 1 for workers of the first Start.
func (w *Worker) Generation() int {
	if w.inProcess != nil {
		return w.inProcess.info.Generation
	}
	return process.Marker.Generation
}

// Ordinal returns 1 for the first worker that the manager ever spawned, then 2,
// 3 and so on.
func (w *Worker) Ordinal() int {
	if w.inProcess != nil {
		return w.inProcess.info.Ordinal
	}
	return process.Marker.Ordinal
}

// ManagerPID returns the pid of the manager, as the manager itself sees it.
func (w *Worker) ManagerPID() int {
	if w.inProcess != nil {
		return w.inProcess.info.PID
	}
	return process.Marker.Manager
}

// SetStatus publishes the worker's status: StatusIdle, or any other byte for busy,
// such as 'R' for reading a request. Sizing by load (Config.MinSpareWorkers) and
// Config.Stuck use it. It counts as a Heartbeat. It costs a store into shared
// memory, and a message to the manager if that waits for the change. It panics
// with StatusNone.
func (w *Worker) SetStatus(c byte) {
	if c == StatusNone {
		misuse("SetStatus(StatusNone): that is the status of a slot without a worker; use StatusIdle, or any other byte for busy")
	}
	if w.inProcess != nil {
		w.inProcess.status.Store(int32(c))
		return
	}
	cell, _ := process.Cell()
	cell.Set(c)
}

// Served counts n requests for Recycle.MaxRequests. It counts as a Heartbeat. With
// n <= 0 it is only that.
func (w *Worker) Served(n int) {
	if w.inProcess != nil {
		w.inProcess.served.Add(uint64(max(n, 0)))
		return
	}
	cell, _ := process.Cell()
	total := cell.Served(n)
	if limit := uint64(process.Marker.Requests); limit > 0 && n > 0 && total >= limit && total-uint64(n) < limit {
		process.Send(wire.Recycle{})
	}
}

// Heartbeat reports that the worker is not stuck; see Config.Stuck.
func (w *Worker) Heartbeat() {
	cell, _ := process.Cell()
	cell.Heartbeat()
}

// TookOver returns a channel that is closed when this worker is the only one of
// its slot. It is for work that two processes must not do at a time, such as
// consuming a queue or holding a lock: prepare everything, call Ready, and wait.
//
// A worker that replaces another one in a rolling reload, or by Config.Recycle,
// lives beside it at first: the other one is stopped when this one is ready, so
// with Readiness.Explicit Ready must be called before the wait. The channel is
// closed when the other one and its leftover processes (Config.StopGroup) are
// reaped. After an upgrade, it is closed when the predecessor of the manager has
// exited, with all its workers. In all other workers it is closed soon after the
// first call. A worker should also wait for Context:
//
//	select {
//	case <-w.TookOver():
//	case <-w.Context().Done():
//		return nil
//	}
func (w *Worker) TookOver() <-chan struct{} {
	if w.inProcess != nil {
		return new(self.Process).TookOver() // closed: it is the only worker
	}
	return process.SlotTakenOver()
}

// Checkpoint is the point at which a worker pauses; see Manager.Pause. A worker
// should call it between two requests or jobs, when nothing is in flight.
// Checkpoint returns true at once if there is no pause, and otherwise when the
// pause is over. It returns false when Context has ended. So it can be the
// condition of a worker's loop:
//
//	for w.Checkpoint() {
//		// the next job
//	}
//
// Without a pause it makes no system call. It is safe for concurrent use, but if
// several goroutines do the worker's work, either one that knows when all have
// finished should call it, or each should have an Activity. A worker that waits
// for something else at the same time, such as a connection, should also select
// on Pausing.
func (w *Worker) Checkpoint() bool { return w.pause().Checkpoint(w.Context(), nil) }

func (w *Worker) pause() *pause.State {
	if w.inProcess != nil {
		return w.inProcess.pause
	}
	return process.Pause
}

// Pausing returns a channel that is closed when the worker is asked to pause.
// After the pause there is a new channel, so it must be called each time.
func (w *Worker) Pausing() <-chan struct{} { return w.pause().Channel(true) }

// Resumed returns a channel that is closed when there is no pause; see Pausing.
func (w *Worker) Resumed() <-chan struct{} { return w.pause().Channel(false) }

// Activity is one of several things that a worker does at a time: a server on each
// of two sockets, or a server and a queue consumer. Each has its own checkpoint.
// The worker has paused when all its activities wait there. preforkhttp.Serve is
// an activity. A worker that does one thing should use Worker.Checkpoint.
type Activity struct {
	w *Worker
	a *pause.Activity
}

// Activity begins an activity of this worker, which lasts until its End.
func (w *Worker) Activity() *Activity { return &Activity{w, w.pause().Begin()} }

// Checkpoint is Worker.Checkpoint for this activity. Only one goroutine may call
// it at a time. The worker has paused when all other activities wait too, or have
// ended.
func (t *Activity) Checkpoint() bool { return t.w.pause().Checkpoint(t.w.Context(), t.a) }

// End ends the activity: a pause no longer waits for it. Calling it again is a
// no-op. It is safe for concurrent use and does not block.
func (t *Activity) End() { t.w.pause().End(t.a) }

// maxUnused limits the unused sockets that one worker reports.
const maxUnused = 8

// workerSide is a Manager in a worker.
type workerSide struct {
	*Manager
	foreign bool // this is a worker of another Manager of the program
	started atomic.Bool
	w       atomic.Pointer[Worker]
}

func (s *workerSide) start(_ string, work func(*Worker) error) (manager bool) {
	if s.foreign {
		s.log.Debug("this worker belongs to another Manager, Start does not return", "worker of", process.Marker.Name, "Start of", s.cfg.Name)
		select {} // another goroutine calls the Start of that Manager
	}
	if s.started.Swap(true) {
		misuse("Start called twice in a worker; after its work a worker ends by Finish, or by returning from the function of StartFunc or Run")
	}
	if _, err := process.Cell(); err != nil {
		s.log.Error("cannot publish the status of this worker", "err", err)
	}
	marker.HideDepth()
	for _, i := range inherited.Unused(maxUnused) {
		process.Send(wire.SocketUnused{Socket: i})
	}
	process.AwaitSlot()
	inherited.Unblock() // the program may have called File and Fd of a listener
	w := &Worker{passed: sync.OnceValue(readPassed)}
	s.w.Store(w) // not earlier: a standby has no slot before
	if !s.cfg.Readiness.Explicit {
		w.Ready()
	}
	if work != nil {
		s.work(w, work)
	}
	return false
}

// work runs the worker's function, and ends the process by its result.
func (s *workerSide) work(w *Worker, work func(*Worker) error) {
	if err := work(w); err != nil {
		s.log.Error("worker failed", "slot", w.Slot(), "gen", w.Generation(), "pid", os.Getpid(), "err", err)
		s.finish(1)
	}
	s.finish(0)
}

func readPassed() []byte {
	data, err := process.Passed()
	if err != nil {
		// The manager made and sealed it. A worker without its configuration would
		// do harm.
		misuse("%v", err)
	}
	return data
}

func (s *workerSide) run(_ context.Context, work func(*Worker) error) error {
	s.start("Run", work)
	return nil
}

func (s *workerSide) waitAllChildren(context.Context) (int, error) {
	misuse("WaitAllChildren called in a worker, which has no workers; leave the loop only in the manager (after Start has returned true)")
	return 0, nil
}

func (s *workerSide) finish(code int) {
	process.EndGroup()
	os.Exit(code)
}

func (s *workerSide) worker() *Worker                           { return s.w.Load() }
func (s *workerSide) upgrade(context.Context) error             { return nil }
func (s *workerSide) signalReceived() os.Signal                 { return nil }
func (s *workerSide) do(func()) bool                            { return false }
func (s *workerSide) emit(Event)                                {}
func (s *workerSide) ping(context.Context) error                { return nil }
func (s *workerSide) ask(Request, any) *change.Ticket           { return nil }
func (s *workerSide) replaceWorker(int) (*change.Ticket, error) { return nil, nil }
func (s *workerSide) signalWorker(int, syscall.Signal) error    { return nil }
func (s *workerSide) setReady(int) bool                         { return false }
func (s *workerSide) deliver(os.Signal, string)                 {}
func (s *workerSide) shutDown(string, error)                    {}
func (s *workerSide) command(pool.Event)                        {}
func (s *workerSide) setMaxWorkers(int)                         {}
func (s *workerSide) close() error                              { return nil }
func (s *workerSide) hold(int, pool.Kind)                       {}
func (s *workerSide) setPaused(bool)                            {}
func (s *workerSide) setLogLevel(slog.Level)                    {}
func (s *workerSide) pass([]byte)                               {}
func (s *workerSide) queues() []QueueInfo                       { return nil }
func (s *workerSide) numWorkers() int                           { return 0 }
func (s *workerSide) numActiveWorkers() int                     { return 0 }
func (s *workerSide) maxWorkers() int                           { return s.cfg.MaxWorkers }
func (s *workerSide) managerPID() int                           { return process.Marker.Manager }
func (s *workerSide) generationNumber() int                     { return process.Marker.Generation }

func (s *workerSide) follow(func(Record)) (Snapshot, func()) { return s.snapshot(), func() {} }

func (s *workerSide) snapshot() Snapshot {
	return Snapshot{
		Name: s.cfg.Name, PID: process.Marker.Manager, Generation: process.Marker.Generation,
		MaxWorkers: s.cfg.MaxWorkers, Workers: []WorkerInfo{},
	}
}

// Recycle replaces workers after some time or work. A worker is replaced as in a
// rolling reload: it keeps working until its replacement is ready. At most
// Config.MaxSurge are replaced at a time. Each worker's limits are reduced by a
// random amount of up to 20 %, so that workers that started together are not
// replaced together. A worker that reaches its limit within 1 s of its start, or
// within ErrRespawnInterval if that is shorter, is replaced after that time. A
// zero field means never.
type Recycle struct {
	MaxRequests int           // requests, as counted by Worker.Served
	MaxLifetime time.Duration // age, from when the worker was ready
	MaxMemory   int64         // bytes of unshared memory; measured every 2 s, on Linux
}

// Stuck ends workers that are busy without a heartbeat (Worker.Heartbeat, Served
// or SetStatus) for Timeout. Such a worker is sent SIGQUIT, on which a Go program
// prints its goroutines (SIGABRT if SIGQUIT is the stop signal), and SIGKILL half
// a second later. Time in which the manager was held up, or the worker was
// paused, does not count. A zero Timeout means never.
type Stuck struct{ Timeout time.Duration }

// Readiness decides when a worker is ready: when it reaches Start or, if
// Explicit is set, when it calls Worker.Ready. A worker that is not ready within
// Timeout is killed, which counts as a crash.
//
// A worker that warms up after Start should set Explicit: a rolling replacement
// stops the worker before it when it is ready.
//
// A Command is ready at once, unless one of Explicit, FD and After is set.
// Manager.SetReady makes it ready with each of them. Signals are not held for a
// Command that is not ready yet.
type Readiness struct {
	Explicit bool          // a Command is ready when Manager.SetReady is called for it
	Timeout  time.Duration // 0 means 60 s; a negative value means never; not with After

	// FD is the number of a descriptor, from 3 up, on which a Command reports that
	// it is ready: it writes a newline, as for s6. Text before and after it is
	// ignored. The descriptor is a socket, which the program may close then.
	// Sockets of Listen move to other numbers. 0 means none.
	FD int
	// After makes a Command ready that has lived for so long. 0 means at once.
	After time.Duration
}

// atOnce reports whether a Command is ready when it was started.
func (r Readiness) atOnce() bool { return !r.Explicit && r.FD == 0 && r.After == 0 }

// endedEarly is the log line for a worker that exits without an error before it
// is ready. Its output has no reason.
func (r Readiness) endedEarly() string {
	if r.Explicit {
		return "worker exited without an error before it called Worker.Ready"
	}
	return "worker exited without an error before it reached Run, StartFunc or Start: main returns or exits earlier in a worker than in the manager"
}

func (r Readiness) check(command bool) error {
	const noCommand = "it is for a Command; a worker of this program is ready in Start, or calls Worker.Ready with Explicit"
	switch {
	case r.FD != 0 && !command:
		return configError("Readiness.FD", noCommand)
	case r.After != 0 && !command:
		return configError("Readiness.After", noCommand)
	case r.FD != 0 && r.FD < 3:
		return configError("Readiness.FD", "%d is a standard stream, or negative; 3 is usual", r.FD)
	case r.After < 0:
		return configError("Readiness.After", "%v is negative; 0 means ready at once", r.After)
	case r.FD != 0 && r.After != 0, r.Explicit && (r.FD != 0 || r.After != 0):
		return configError("Readiness", "a Command can have one of Explicit, FD and After; SetReady works with each")
	}
	return nil
}

// CrashLoop shuts the Manager down if workers fail this often within Window and
// none is ready. A failure is a crash, an exit before the worker was ready, a
// readiness timeout or a failed spawn. A Command that exits with code 0 at once
// has failed from the third time in a row on: it may put itself into the
// background. The Manager delivers ShutdownSignal to itself, and Run and
// WaitAllChildren return ErrCrashLoop. A zero Window means 1 minute. With the
// default ErrRespawnInterval a slot fails at most six or seven times a minute, so
// Failures should be less than that times MaxWorkers.
//
// Zero Failures means three for each slot, in Window or in three times
// Readiness.Timeout if that is longer, and only as long as no worker of the
// Manager has ever been ready for longer than a second, or has exited with code 0
// after it was ready: a program that cannot work ends, and one that has worked
// keeps trying. A failed spawn then counts for
// each slot, and not at all if memory, processes or descriptors are short. The
// failures must last 2.5 s. The check does not apply to a successor: its
// predecessor has worked. A negative value turns it off.
type CrashLoop struct {
	Failures int
	Window   time.Duration
}

// unproven returns how many failures of each slot end a Manager whose workers
// have never worked.
func (c CrashLoop) unproven() int {
	if c.Failures != 0 || process.Role == marker.Successor {
		return 0
	}
	return defaultUnprovenFailures
}

// shutDownFor handles the request of a worker for a shutdown.
func (s *managerSide) shutDownFor(w WorkerInfo, code int, message string) {
	e := &WorkerError{Slot: w.Slot, Generation: w.Generation, PID: w.PID, Code: code, Message: oneLine(message)}
	level, err := slog.LevelInfo, error(nil)
	if code != 0 {
		level, err = slog.LevelError, e
	}
	attrs := w.attrs(slog.Int("code", code), slog.String("message", e.Message))
	if !s.cfg.WorkerShutdown {
		s.log.LogAttrs(context.Background(), slog.LevelError, "shutdown requested by worker, ignoring it: set Config.WorkerShutdown to allow it", attrs...)
		return
	}
	s.log.LogAttrs(context.Background(), level, "shutdown requested by worker", attrs...)
	s.shutDown(e.text(), err)
}

// oneLine replaces what cannot be printed, such as line breaks.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}
