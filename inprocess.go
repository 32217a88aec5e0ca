package prefork

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/change"
	"github.com/prefork-go/prefork/internal/hook"
	"github.com/prefork-go/prefork/internal/inbox"
	"github.com/prefork-go/prefork/internal/pause"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/internal/sigqueue"
	"github.com/prefork-go/prefork/internal/sockets"
)

// inProcessEnv set to 1 has the effect of Config.InProcess.
const inProcessEnv = "PREFORK_IN_PROCESS"

// inProcessSide is a Manager whose sole worker is a goroutine of its own process.
// Of the managerSide it uses the signals and the view; there is no loop.
type inProcessSide struct {
	*managerSide
	w        atomic.Pointer[Worker] // the last one
	started  bool                   // Start was called
	begun    bool                   // a StartedEvent without its EndedEvent
	replaced []*change.Ticket       // for the next worker
	current  *inProcessWorker       // belongs to the blocking call; nil for none
	failed   int                    // workers in a row that ended soon
	paused   *pause.State
	waits    atomic.Bool // the worker waits at its checkpoint

	wmu    sync.Mutex // guards the following
	data   []byte     // as set by Pass
	reopen []func() error

	// These belong to the view, and mu guards them.
	last        *inProcessWorker // that runs; nil for none
	ordinal     int              // of the last one
	interrupted bool             // an interrupt has stopped the worker, since Start
}

// inProcessWorker is the worker in this process.
type inProcessWorker struct {
	info   WorkerInfo // mu guards State and Since
	ctx    context.Context
	cancel context.CancelCauseFunc
	passed []byte
	pause  *pause.State
	status atomic.Int32
	served atomic.Uint64

	shutDown func(code int, message string) // for Worker.ShutdownPool

	done chan error // its result

	stopTime    time.Duration
	interrupted chan struct{}
	interrupt   sync.Once // closes interrupted
}

func newInProcessSide(m *Manager) (*inProcessSide, error) {
	if m.cfg.Command != nil {
		return nil, configError("InProcess", "it cannot be combined with Command: there is no function to call")
	}
	if _, err := checkDepth(); err != nil {
		return nil, err
	}
	inherited.ReadActivation()
	s := &inProcessSide{managerSide: &managerSide{Manager: m, inbox: inbox.New(), hooks: hook.NewRunner(m.log), closed: make(chan struct{}), stop: m.cfg.stopSignal(), view: view{max: m.cfg.MaxWorkers, startedAt: time.Now()}}}
	s.publish = s.publishEvent
	s.changes.Due = s.arrive
	s.paused = pause.New(0, func(int) { s.waits.Store(true) })
	dir, _ := os.Getwd()
	s.sockets = sockets.New(sockets.Config{Log: m.log, Inherited: inherited, Dir: dir, MaxWorkers: func() int { return 1 }})
	m.log.Warn("in-process mode: the worker's function runs in this process, as the only worker", "pid", os.Getpid())
	return s, nil
}

// enter marks a blocking call as under way, and panics if one is already.
func (s *inProcessSide) enter(call string) (leave func()) {
	if s.busy.Enter(call) != nil {
		misuse("%s called while another blocking call runs: one at a time, and none in the worker's function", call)
	}
	if s.isClosed() {
		s.busy.Leave()
		misuse("%s called after Close", call)
	}
	return func() {
		if !s.started { // or they are those of followSignals
			s.inbox.Idle()
		}
		s.busy.Leave()
	}
}

func (s *inProcessSide) start(call string, work func(*Worker) error) (manager bool) {
	defer s.enter(call)()
	if work == nil { // Start: what follows in main is the work, until Finish
		if s.started {
			misuse("Start called twice in in-process mode; after its work a worker ends by Finish")
		}
		s.started = true
		s.begins()
		s.beginGeneration()
		s.newWorker()
		s.refuse(errMainIsWorker)
		go s.followSignals()
		return false
	}
	s.begins()
	s.generate(work)
	return true
}

// followSignals ends the worker's Context on a signal that stops or replaces it.
// There is no next generation: the program's main is the worker.
func (s *inProcessSide) followSignals() {
	for range s.inbox.Wake() {
		s.turn()
		for {
			a, ok := s.inbox.TakeSignal(s.cfg.ShutdownSignal)
			if !ok {
				break
			}
			if a.Request == 0 {
				s.forward(a, s.cfg.TrapSignals[a.Sig])
			}
		}
		s.inbox.Idle()
	}
}

func (s *inProcessSide) run(ctx context.Context, work func(*Worker) error) error {
	defer s.enter("Run")()
	defer s.trapShutdown()()
	s.begins()
	if err := s.reload(); err != nil {
		s.sockets.RemoveFiles()
		err = fmt.Errorf("prefork: Reload: %w", err)
		s.refuse(err)
		s.ends(err)
		return err
	}
	defer s.stopWith(ctx)()
	for {
		a := s.generate(work)
		if a.Sig == s.cfg.ShutdownSignal {
			break
		}
	}
	_, err := s.drain(context.Background())
	return err
}

// reload is the loop's reload.
func (s *inProcessSide) reload() error {
	if s.cfg.Reload == nil {
		return nil
	}
	data, err := s.cfg.Reload()
	if err == nil {
		s.pass(data)
	}
	return err
}

func (s *inProcessSide) inRun() bool { return s.busy.Current().Name == "Run" }

func (s *inProcessSide) beginGeneration() {
	s.mu.Lock()
	s.generation++
	s.stopping = time.Time{}
	s.changes.Close(nil)
	s.interrupted = false
	s.mu.Unlock()
	s.failure = nil
	program, _ := os.Executable()
	s.emit(GenerationEvent{Generation: s.generationNumber(), MaxWorkers: 1, Program: program})
}

// generate calls the worker's function, again after it has returned, until a
// signal ends the generation.
func (s *inProcessSide) generate(work func(*Worker) error) sigqueue.Arrival {
	s.beginGeneration()
	var wait <-chan time.Time
	for {
		s.turn()
		if a, ok := s.inbox.TakeSignal(s.cfg.ShutdownSignal); ok {
			f, ok := s.forwardOf(a)
			if ok && s.accept(a, f) {
				s.received.Store(a)
				s.forward(a, f)
				return a
			}
			continue
		}
		if s.current == nil && wait == nil {
			s.begin(work)
		}
		s.inbox.Idle()
		var done <-chan error
		if s.current != nil {
			done = s.current.done
		}
		select {
		case err := <-done:
			wait = s.ended(err)
		case <-wait:
			wait = nil
		case <-s.inbox.Wake():
		}
	}
}

// accept decides whether a signal ends the generation, and handles it if not.
func (s *inProcessSide) accept(a sigqueue.Arrival, f Forward) (ends bool) {
	switch {
	case a.Sig == s.cfg.ShutdownSignal:
		return true
	case f.Upgrade:
		s.beginUpgrade()
		s.endUpgrade(UpgradeFailedEvent{Err: errNoUpgrade}, 0, errNoUpgrade)
		return !s.inRun() && a.Request == 0
	case !s.replaces(f):
		if s.inRun() {
			s.forward(a, f)
		}
		return !s.inRun()
	}
	s.beginReload(a, f)
	if s.inRun() {
		if err := s.reload(); err != nil {
			s.reloadFailed(err)
			if s.current != nil {
				s.settle(s.generationNumber(), s.maxWorkers())
			}
			return false
		}
	}
	return true
}

var errMainIsWorker = errors.New("with Start in in-process mode, main is the worker and cannot run again")

var errNoUpgrade = errors.New("there is no upgrade in in-process mode")

// forward sends to the worker what f has for a signal.
func (s *inProcessSide) forward(a sigqueue.Arrival, f Forward) {
	if a.Sig == s.cfg.ShutdownSignal {
		s.noteFailure()
		s.noteStopping(errStopping)
	}
	received := a.Sig
	if a.Interrupt {
		received = os.Interrupt
	}
	replaces := a.Sig != s.cfg.ShutdownSignal && s.replaces(f)
	s.emit(SignalEvent{Received: received, Sent: f.Signal, Interval: f.Interval, Rolling: f.Rolling, Replaces: replaces, Origin: a.Origin})
	switch {
	case a.Sig == s.cfg.ShutdownSignal && a.Interrupt && s.interruptWorker():
		s.log.Error("second interrupt, exiting without waiting for the worker")
		os.Exit(1)
	case a.Sig == s.cfg.ShutdownSignal, f.Rolling:
		s.sendSignal(s.stop)
	case f.Signal != nil && f.Signal != a.Sig:
		s.sendSignal(f.Signal.(syscall.Signal))
	}
	// A signal that is forwarded as it is has reached this process already.
}

// interruptWorker closes the worker's Interrupted, and reports whether this is the
// second interrupt since Start, which ends the process. The worker may be one that
// an earlier interrupt, before Start, has stopped.
func (s *inProcessSide) interruptWorker() (second bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	second, s.interrupted = s.interrupted, true
	if s.last != nil {
		s.last.interrupt.Do(func() { close(s.last.interrupted) })
	}
	return second
}

// sendSignal stops the worker, or sends the signal to this process.
func (s *inProcessSide) sendSignal(n syscall.Signal) {
	if n == s.stop {
		if c := s.running(); c != nil {
			s.enterState(c, StateStopping)
			c.cancel(fmt.Errorf("prefork: stopped by %s", sig.Name(n)))
		}
		return
	}
	if _, trapped := s.cfg.TrapSignals[n]; trapped || sig.Untrappable(n) != "" {
		s.log.Warn("signal not sent in in-process mode: it would reach the manager", "signal", sig.Name(n))
		return
	}
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		p.Signal(n)
	}
}

func (s *inProcessSide) command(ev pool.Event) { s.do(func() { s.sendSignal(ev.Sig) }) }

// running returns the worker that runs; nil for none.
func (s *inProcessSide) running() *inProcessWorker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// enterState changes the state of a worker, and reports it.
func (s *inProcessSide) enterState(c *inProcessWorker, to State) {
	s.mu.Lock()
	from := c.info.State
	if from == to {
		s.mu.Unlock()
		return
	}
	c.info.State, c.info.Since = to, time.Now()
	s.last, s.ordinal = c, c.info.Ordinal
	report := s.stamp(StateEvent{Worker: c.info, From: from})
	s.mu.Unlock()
	s.publish(report)
}

// newWorker makes the next worker, and reports it.
func (s *inProcessSide) newWorker() *Worker {
	w := s.makeWorker()
	s.enterState(w.inProcess, StateStarting)
	s.enterState(w.inProcess, StateReady)
	s.mu.Lock()
	for _, ticket := range s.replaced {
		s.changes.Answer(ticket, w.inProcess.info.Ordinal, nil)
	}
	s.replaced = nil
	s.mu.Unlock()
	s.settle(s.generationNumber(), s.maxWorkers())
	return w
}

// makeWorker makes a worker, with sockets that are open.
func (s *inProcessSide) makeWorker() *Worker {
	gen := s.generationNumber()
	s.wmu.Lock()
	defer s.wmu.Unlock()
	for _, reopen := range s.reopen {
		if err := reopen(); err != nil {
			s.log.Error("cannot reopen socket for the next worker", "err", err)
		}
	}
	c := &inProcessWorker{
		info:   WorkerInfo{Generation: gen, Ordinal: s.ordinal + 1, PID: os.Getpid(), Started: time.Now()},
		passed: s.data, pause: s.paused, done: make(chan error, 1),
		stopTime: s.cfg.StopTimeout, interrupted: make(chan struct{}),
	}
	c.status.Store(StatusNone)
	by := c.info
	c.shutDown = func(code int, message string) { s.shutDownFor(by, code, message) }
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	s.current = c
	w := &Worker{inProcess: c, passed: func() []byte { return c.passed }}
	s.w.Store(w)
	return w
}

// begin calls the worker's function in a goroutine of its own. A panic ends the
// process, as it ends a worker process.
func (s *inProcessSide) begin(work func(*Worker) error) {
	w := s.newWorker()
	c := s.current
	go func() { c.done <- work(w) }()
}

// ended notes that the worker's function has returned. It returns a channel for
// the time until the next call; nil if that is now.
func (s *inProcessSide) ended(err error) (wait <-chan time.Time) {
	c := s.current
	s.current = nil
	c.cancel(context.Canceled)
	s.mu.Lock()
	from := c.info.State
	life, stopped := time.Since(c.info.Started), from == StateStopping
	exit := Exit{Generation: c.info.Generation, Ordinal: c.info.Ordinal, PID: os.Getpid(), Reason: ReasonFinished, Uptime: life}
	if err != nil {
		exit.Status.Code, exit.Reason = 1, ReasonCrashed
	}
	if stopped {
		exit.Reason = ReasonStopped
	}
	exit.Requests = c.served.Load()
	s.last, s.settled, s.requests = nil, false, s.requests+exit.Requests
	report := s.stamp(ExitEvent{Exit: exit, From: from})
	s.mu.Unlock()
	s.publish(report)
	if err != nil {
		s.log.Error("worker failed", "slot", 0, "gen", c.info.Generation, "pid", os.Getpid(), "err", err)
	}
	if !stopped && (s.cfg.Restart == RestartNever || s.cfg.Restart == RestartOnFailure && err == nil) {
		s.emit(DoneEvent{})
		s.shutDown("every slot is done", nil)
	}
	if stopped || life >= time.Second || s.cfg.ErrRespawnInterval < 0 {
		s.failed = 0
		return nil
	}
	if s.failed++; err == nil && s.failed <= 2 {
		return nil
	}
	return time.After(s.cfg.ErrRespawnInterval)
}

// drain waits until the worker's function has returned.
func (s *inProcessSide) drain(ctx context.Context) (left int, err error) {
	for {
		s.turn()
		if a, ok := s.inbox.TakeSignal(s.cfg.ShutdownSignal); ok {
			if a.Request != 0 {
				continue // it was refused
			}
			if s.signalReceived() != s.cfg.ShutdownSignal { // no later signal may hide it
				s.received.Store(a)
			}
			s.forward(a, s.cfg.TrapSignals[a.Sig])
			continue
		}
		if s.current == nil {
			break
		}
		s.inbox.Idle()
		select {
		case err := <-s.current.done:
			s.ended(err)
		case <-s.inbox.Wake():
		case <-ctx.Done():
			return 1, ctx.Err()
		}
	}
	if s.signalReceived() == s.cfg.ShutdownSignal {
		s.sockets.RemoveFiles()
		s.ends(s.failure)
	}
	return 0, s.failure
}

func (s *inProcessSide) waitAllChildren(ctx context.Context) (left int, err error) {
	defer s.enter("WaitAllChildren")()
	if s.signalReceived() != s.cfg.ShutdownSignal {
		s.refuse(errWaiting)
	}
	return s.drain(ctx)
}

func (s *inProcessSide) finish(code int) {
	if s.w.Load() == nil {
		misuse("Finish called in the manager; it ends a worker, so call it only if Start has returned false")
	}
	s.sockets.RemoveFiles()
	os.Exit(code)
}

func (s *inProcessSide) worker() *Worker { return s.w.Load() }
func (s *inProcessSide) upgrade(context.Context) error {
	return fmt.Errorf("prefork: Upgrade: %w", errNoUpgrade)
}

func (s *inProcessSide) pass(data []byte) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.data = slices.Clone(data)
}

func (s *inProcessSide) hold(int, pool.Kind) {}

func (s *inProcessSide) close() error {
	switch {
	case s.isClosed():
		return nil
	case s.numWorkers() > 0:
		return errors.New("the worker is at work; call WaitAllChildren after its stop")
	case s.busy.Enter("Close") != nil:
		return errors.New("a blocking call is under way; Shutdown ends it")
	}
	defer s.busy.Leave()
	if !s.isClosed() { // by another call, before busy was ours
		s.releaseShared()
	}
	return nil
}

func (s *inProcessSide) setPaused(paused bool) {
	s.managerSide.setPaused(paused)
	s.waits.Store(false)
	n := 0
	if paused {
		n = 1
	}
	s.paused.Set(n)
}

func (s *inProcessSide) numWorkers() int {
	if s.running() == nil {
		return 0
	}
	return 1
}

func (s *inProcessSide) numActiveWorkers() (n int) {
	for _, w := range s.snapshot().Workers {
		if w.Status != StatusNone && w.Status != StatusIdle {
			n++
		}
	}
	return n
}

func (s *inProcessSide) snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lockedSnapshot()
}

// lockedSnapshot is that of the manager's side with the worker.
func (s *inProcessSide) lockedSnapshot() Snapshot {
	all := s.managerSide.lockedSnapshot()
	all.Workers, all.CPU = []WorkerInfo{}, proc.CPUTime(os.Getpid())
	if c := s.last; c != nil {
		info := c.info
		info.Status, info.Requests, info.Paused = byte(c.status.Load()), c.served.Load(), s.waits.Load()
		all.Workers, all.Requests = append(all.Workers, info), all.Requests+info.Requests
	}
	if s.ordinal > 0 {
		all.Slots = []SlotInfo{{Spawns: s.ordinal}}
	}
	return all
}
