package prefork

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/control"
	"github.com/prefork-go/prefork/internal/launch"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/internal/sigqueue"
	"github.com/prefork-go/prefork/internal/wire"
)

// Upgrade starts a new manager from the program file on disk, a successor, and
// hands the sockets to it. The successor gets the arguments, the environment, all
// sockets and the passed files (PassFile) of this process. When all its workers
// are ready (MaxWorkers, or as many as sizing by load wants), it has taken over.
// This Manager then delivers ShutdownSignal to itself, so its workers stop as in a
// shutdown, and remains until the last is reaped. Until then nothing changes: the
// running generation keeps serving, and crashed workers are respawned. A
// ShutdownSignal that another process sends to this one after the takeover ends
// the successor too.
//
// Upgrade fails if the successor exits, reports a failure, or is not ready within
// Config.UpgradeTimeout, if ctx ends, or if ShutdownSignal arrives. The successor
// is then stopped (and killed after StopTimeout) and reaped, the error has the
// reason, and this Manager continues.
//
// Upgrade returns an error before the first Start, after an upgrade that has
// succeeded, and in a program with several Managers. It also does if the exit of
// this process would end everything: as process 1 of a container, under
// start_server, and in a systemd service that is not notified of its new main
// process (Type=notify is). Below a reaper, which stays, none of the last three
// applies; see Config.Reaper.
//
// In a worker it returns nil and does nothing. It blocks, and runs the loop as
// Start does: hooks are called, and signals are kept for the next call.
func (m *Manager) Upgrade(ctx context.Context) error { return m.side.upgrade(ctx) }

func (s *managerSide) upgrade(ctx context.Context) error {
	defer s.enter("Upgrade")()
	s.loop.handle(pool.Event{Kind: pool.Resume})
	defer s.loop.handle(pool.Event{Kind: pool.Halt})
	_, err := s.loop.upgradeNow(ctx)
	return err
}

// successor is a manager that this one has started to take over.
type successor struct {
	proc     proc.Process
	id       uint64
	messages control.Reader
	deadline pool.Time // it is stopped, then killed; Never for neither
	tookOver bool
	exited   bool  // after its takeover
	failed   error // the reason why it must exit, or has exited
}

// firstSuccessor is the first ID of successors in the process table that they
// share with workers. Ordinals do not reach it.
const firstSuccessor = 1 << 39

var errShutdown = errors.New("a shutdown was requested, which ends both managers")

// upgradeNow is Upgrade while a generation runs. It reports whether a successor was
// started.
func (l *loop) upgradeNow(ctx context.Context) (started bool, err error) {
	l.beginUpgrade()
	l.awaitOwnTakeover(ctx)
	err = ctx.Err()
	if err == nil {
		err = l.startSuccessor()
	}
	if err != nil {
		l.endUpgrade(UpgradeFailedEvent{Err: err}, 0, err)
		return false, fmt.Errorf("prefork: Upgrade: %w", err)
	}
	n := l.successor
	defer func() {
		if !n.tookOver {
			l.sockets.RestoreModes()
		}
	}()
	for !n.tookOver && l.successor == n {
		step := l.turn()
		switch {
		case n.tookOver || l.successor != n:
		case l.shutdownWaits():
			// The workers must not wait for the successor's exit; it is reaped later.
			l.stopSuccessor(errShutdown)
			return true, l.upgradeFailed(n)
		case ctx.Err() != nil && n.failed == nil:
			l.stopSuccessor(ctx.Err())
		case step.SpawnDue:
			l.spawn(step)
		case n.failed != nil:
			l.sleep(step.Wake, nil)
		default:
			l.sleep(step.Wake, ctx.Done())
		}
	}
	if n.tookOver {
		return true, nil
	}
	return true, l.upgradeFailed(n)
}

func (l *loop) upgradeFailed(n *successor) error {
	l.endUpgrade(UpgradeFailedEvent{PID: n.proc.Pid(), Err: n.failed}, 0, n.failed)
	return fmt.Errorf("prefork: Upgrade: %w", n.failed)
}

// awaitOwnTakeover waits until this Manager, a successor that has reported that it
// is ready, has taken over. The signal for the next upgrade can arrive before that
// message, since other processes see that the predecessor has gone.
func (l *loop) awaitOwnTakeover(ctx context.Context) {
	for l.awaitTakeover && !l.reportsReady && ctx.Err() == nil && !l.shutdownWaits() {
		if step := l.turn(); step.SpawnDue {
			l.spawn(step)
		} else if l.awaitTakeover {
			l.sleep(step.Wake, ctx.Done())
		}
	}
}

// mayUpgrade returns the reason why an upgrade is refused.
func (l *loop) mayUpgrade() error {
	switch {
	case l.successor != nil && l.successor.tookOver:
		return fmt.Errorf("manager %d has taken over already", l.successor.proc.Pid())
	case l.awaitTakeover:
		return errors.New("this manager is a successor itself, and has not taken over yet")
	case l.successor != nil:
		return fmt.Errorf("successor %d is under way: wait until it has taken over or failed", l.successor.proc.Pid())
	case l.generation == 0:
		return errors.New("there is no generation of workers yet: call Start or Run first")
	case process.Managers() > 1:
		return errors.New("this program has several Managers, and a successor could replace only one of them: stop the program and start it again")
	}
	if process.Reaper != nil {
		return nil // the process that started the program sees only the reaper, which stays
	}
	return activation.CanReplaceProcess(os.Getpid(), inherited.ByStarter(), startEnv)
}

// startSuccessor starts the program on disk as a successor.
func (l *loop) startSuccessor() error {
	if err := l.mayUpgrade(); err != nil {
		return err
	}
	l.steerDue = true
	if err := l.sockets.Grow(l.maxWorkers() - 1); err != nil { // later only the successor may
		return err
	}
	if _, err := os.Stat(l.dir); l.dir != "" && err != nil {
		return fmt.Errorf("the directory in which the program was started is missing: %w: create it, or start the program again in another", err)
	}
	exe, err := binary.Open(l.onDisk)
	if err != nil {
		return err
	}
	defer exe.Close()
	files, keep := process.FilesForSuccessor()
	defer keep()
	plan := launch.Plan{
		Args: process.Args, Dir: l.dir, Start: process.Notify, Started: process.Started(), SameGroup: true, Depth: l.depth, Binary: exe,
		Marker: l.marker(), Sockets: l.sockets.HandAll(), Passed: files,
	}
	plan.Marker.Path, plan.Marker.Pause, plan.Marker.Level, plan.Marker.Ignore = l.onDisk, 0, 0, marker.SignalList(l.ignoredBySuccessor())
	if r := process.Reaper; r != nil {
		plan.Reaper = &launch.Reaper{PID: r.PID(), FD: r.FD(), Guard: process.Guard}
	}
	spec, release, err := launch.Successor(plan)
	if err != nil {
		return err
	}
	defer release()
	l.successors++
	n := &successor{id: firstSuccessor + l.successors, deadline: pool.Never}
	if n.proc, err = l.procs.Start(n.id, spec); err != nil {
		return launch.Explain(err, exe)
	}
	n.messages = control.NewReader(n.proc)
	if l.cfg.UpgradeTimeout > 0 {
		n.deadline = l.after(l.cfg.UpgradeTimeout)
	}
	l.successor = n
	l.mu.Lock()
	l.changes.SetSuccessor(n.proc.Pid())
	l.upgradeDue = n.deadline
	report := l.stamp(UpgradeEvent{PID: n.proc.Pid(), Program: exe.File()})
	l.mu.Unlock()
	l.publish(report)
	return nil
}

// noteSuccessor handles a note about a successor's process.
func (l *loop) noteSuccessor(n *successor, note proc.Note) {
	if note.Kind == proc.Exited {
		n.messages.Refill() // its last messages are read before its exit
	}
	l.readSuccessor(n)
	if note.Kind != proc.Exited {
		return
	}
	status, _, ok := n.proc.Reap()
	if !ok {
		return
	}
	switch {
	case n.tookOver:
		l.successorExited(n, status)
		return
	case n.failed == nil:
		n.failed = fmt.Errorf("successor %d exited before it was ready: %v", n.proc.Pid(), ExitStatus(status))
	}
	l.successor = nil
}

// successorExited handles the exit of a successor that has taken over, while this
// manager drains.
func (l *loop) successorExited(n *successor, status proc.Status) {
	n.exited = true
	if process.Reaper != nil {
		process.Reaper.ReportExit(n.proc.Pid(), status.Code, status.Signal)
	}
	if status.Clean() { // it was stopped, or has a successor itself
		l.log.Info("successor exited after its takeover", "successor", n.proc.Pid())
		return
	}
	l.log.Error("successor exited after its takeover: start the program again", "successor", n.proc.Pid(), "status", ExitStatus(status).String())
}

// readSuccessor reads the messages of a successor. After a protocol error it must
// not take over.
func (l *loop) readSuccessor(n *successor) {
	for n.messages.Open() {
		msg, err := n.messages.Next(l.now())
		var bad *control.ProtocolError
		switch {
		case err == nil:
			l.successorMessage(n, msg)
		case errors.As(err, &bad):
			l.stopSuccessor(fmt.Errorf("successor %d: %w", n.proc.Pid(), err))
		default:
			return // no more messages, or none now
		}
	}
}

func (l *loop) successorMessage(n *successor, msg wire.Message) {
	switch msg := msg.(type) {
	case wire.Ready:
		if l.shutdownWaits() {
			l.stopSuccessor(errShutdown)
		} else {
			l.handOver(n)
		}
	case wire.Failed:
		l.stopSuccessor(fmt.Errorf("successor %d: %s", n.proc.Pid(), msg.Reason))
	}
}

// handOver lets the successor take over. Signals that have arrived for this
// Manager and were not handled go to it too.
func (l *loop) handOver(n *successor) {
	if n.tookOver || n.failed != nil {
		return
	}
	l.notifyMainPID(n.proc.Pid()) // first: systemd refuses what the successor sends before it
	if _, err := n.proc.Write(wire.Append(nil, wire.TakeOver{})); err != nil {
		l.notifyMainPID(os.Getpid())
		l.stopSuccessor(fmt.Errorf("successor %d was ready, and is gone: %w", n.proc.Pid(), err))
		return
	}
	n.tookOver, n.deadline = true, pool.Never
	if process.Reaper != nil {
		process.Reaper.ReportSuccessor(n.proc.Pid())
	}
	process.HandedOver.Store(true)
	l.sockets.ReleaseFiles()
	for _, a := range l.inbox.TakeSignals() {
		l.passOn(a, true)
	}
	l.endUpgrade(UpgradedEvent{PID: n.proc.Pid()}, n.proc.Pid(), nil)
	l.shutDown("takeover", nil)
}

// notifyMainPID reports the main process of the service to systemd. Below a
// reaper, the reaper remains the main process.
func (l *loop) notifyMainPID(pid int) {
	socket := startEnv(activation.NotifyEnv)
	if process.Reaper != nil || socket == "" {
		return
	}
	l.log.Warn("successor is not a child of systemd, which may kill it without a pause when it stops the service: "+
		"run systemctl daemon-reload; to avoid this, set Config.Reaper, and NotifyAccess=all in the unit", "mainpid", pid)
	if err := activation.NotifyMainPID(pid, socket); err != nil {
		l.log.Error("cannot notify systemd of the main process", "mainpid", pid, "err", err)
	}
}

// startEnv returns a variable that systemd has set for notifications, as it was
// before main. Many programs remove NOTIFY_SOCKET after their first notification.
func startEnv(name string) string {
	for _, kv := range process.Notify {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return os.Getenv(name)
}

// passOn sends a signal that arrived for this Manager to the successor that has
// taken over. A signal for an upgrade goes to it only if it arrived before the
// takeover: the program on disk may be newer than the successor. A signal that the
// table does not have was delivered by this program, and means nothing to another.
//
// After the takeover, the shutdown signal goes to it only if another process has
// sent it. The sender means the program: this Manager is ending already. An
// interrupt of a terminal has reached the successor, and a second one would kill
// its workers.
func (l *loop) passOn(a sigqueue.Arrival, before bool) {
	n := l.successor
	if n == nil || !n.tookOver {
		return
	}
	f, named := l.cfg.TrapSignals[a.Sig]
	if a.Sig == l.cfg.ShutdownSignal {
		named = before && !a.Context || a.Origin == "" && !a.Interrupt
	}
	switch {
	case !named || !before && f.Upgrade:
	case n.exited:
		l.log.Warn("signal not passed on, since the successor has exited: send it to the process that runs now",
			"signal", sig.Name(a.Sig), "successor", n.proc.Pid())
	default:
		l.log.Info("signal passed on", "signal", sig.Name(a.Sig), "successor", n.proc.Pid())
		n.proc.Signal(a.Sig.(syscall.Signal))
	}
}

// stopSuccessor stops a successor that must not take over.
func (l *loop) stopSuccessor(why error) {
	n := l.successor
	if n == nil || n.tookOver || n.failed != nil {
		return
	}
	n.failed, n.deadline = why, pool.Never
	if l.cfg.StopTimeout >= 0 {
		n.deadline = l.after(l.cfg.StopTimeout)
	}
	n.proc.Signal(l.cfg.ShutdownSignal.(syscall.Signal)) // a manager, which forwards it
	if sig.Continue != 0 {
		n.proc.Signal(sig.Continue)
	}
}

// checkSuccessor reads the messages of a throttled successor and enforces its
// deadline. It returns when it must be called again.
func (l *loop) checkSuccessor() pool.Time {
	n := l.successor
	if n == nil {
		return pool.Never
	}
	again := pool.Never
	if n.messages.Throttled() {
		if n.messages.Resumes() <= l.now() {
			l.readSuccessor(n)
		}
		if n.messages.Throttled() {
			again = n.messages.Resumes()
		}
	}
	switch {
	case n.deadline == pool.Never:
		return again
	case n.deadline > l.now():
		return pool.Sooner(again, n.deadline)
	case n.failed == nil:
		l.readSuccessor(n) // if this manager was held up, it may have been ready long ago
		if n.tookOver || n.failed != nil {
			return pool.Sooner(again, n.deadline)
		}
		l.stopSuccessor(fmt.Errorf("successor %d was not ready within %v (Config.UpgradeTimeout)", n.proc.Pid(), l.cfg.UpgradeTimeout))
		return l.checkSuccessor()
	}
	n.deadline = pool.Never
	n.proc.Signal(syscall.SIGKILL)
	return again
}

// warnOfSuccessor logs once that a generation begins although a successor has
// taken over: the program goes on where it should end. The shutdown signal of the
// takeover ends the generation at once if it was not handled yet.
func (l *loop) warnOfSuccessor() {
	if n := l.successor; n != nil && n.tookOver && !l.againLogged && !l.shutdownWaits() {
		l.againLogged = true
		l.log.Warn("started again after its successor took over, so workers run beside the successor's: end the program if HandedOver", "successor", n.proc.Pid())
	}
}

// becomeSuccessor prepares a Manager that takes over from a predecessor.
func (l *loop) becomeSuccessor() {
	l.reportsReady, l.awaitTakeover = true, true
	go func() {
		// Workers may wait for the second.
		for _, happened := range []<-chan struct{}{process.TookOver(), process.PredecessorGone()} {
			select {
			case <-happened:
				l.inbox.Nudge()
			case <-l.closed:
				return
			}
		}
	}()
}

// checkName reports to the predecessor that no Manager here has its name, so that
// none would ever take over.
func (l *loop) checkName() {
	if name := process.Marker.Name; process.Role == marker.Successor && !process.HasManager(name) {
		process.Send(wire.Failed{Reason: fmt.Sprintf("Config.Name is %q, and was %q: an upgrade cannot change it; stop the program and start it again", l.cfg.Name, name)})
	}
}

// completeTakeover makes everything this Manager's own once the predecessor has
// handed over. If the predecessor died early, the program first gets to ask for
// its sockets, which it has done when its first generation begins.
func (l *loop) completeTakeover() {
	if !l.awaitTakeover || l.generation == 0 {
		return
	}
	select {
	case <-process.TookOver():
		l.awaitTakeover = false
		l.sockets.TakeOver()
		process.CloseUnclaimedFiles()
	default:
	}
}

// reportReady reports to the predecessor that all workers are ready. A predecessor
// that has exited does not matter: this process is in its place.
func (l *loop) reportReady() {
	if l.reportsReady && l.generation > 0 && l.pool.Full() {
		l.reportsReady = false
		process.Send(wire.Ready{})
	}
}

// reportFailed reports to the predecessor that this program does not work.
func (l *loop) reportFailed(why string) {
	if l.reportsReady {
		l.reportsReady = false
		process.Send(wire.Failed{Reason: why})
	}
}
