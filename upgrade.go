package prefork

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

// successor is a new manager that this one has started to take its place. It belongs to the loop.
type successor struct {
	proc     proc.Process
	id       uint64
	unread   []byte
	heard    allowance
	slowed   bool      // it is read on later
	deadline pool.Time // it is told to stop, then killed; Never for neither
	took     bool      // it has taken over
	failed   error     // it is to end, or has ended, because of this
}

// firstSuccessor is where the ids of successors begin, in the Table that they share with the workers, whose ordinals do not get there.
const firstSuccessor = 1 << 61

var errShutdown = errors.New("a shutdown was asked for meanwhile, which ends both")

// Upgrade has a new manager take over: a successor, which is the program's file as it is on disk now, started with the
// arguments, the environment, all the sockets and the passed files of this one. When all its workers are ready (MaxWorkers, or what
// sizing by load wants of them), it has taken over; this Manager then delivers itself ShutdownSignal, so that its workers end as they do
// at a shutdown, and stays until the last is reaped. Until then nothing changes: the workers of the running generation are kept alive and serve.
//
// If the successor ends, or fails, or is not ready within Config.UpgradeTimeout, or ctx ends, or ShutdownSignal arrives, it is
// told to stop (and killed after StopTimeout) and reaped, the error says why, and the Manager goes on as before.
//
// It is refused with an error before the first Start, after one that has succeeded, in a program with several Managers, and where
// the end of this process would end everything: as the first process of a container, under start_server, and as a
// service of systemd that is not told of its new main process (Type=notify tells it). Below a reaper, which stays, none of
// the three is; see Config.Reaper.
//
// In a worker it does nothing and returns nil. It blocks, and runs the loop as Start does: hooks are called, signals are
// kept for the next call.
func (m *Manager) Upgrade(ctx context.Context) error {
	if self.role == inherit.Worker {
		return nil
	}
	defer m.enter("Upgrade")()
	m.handle(pool.Event{Kind: pool.Resume})
	defer m.handle(pool.Event{Kind: pool.Halt})
	return m.upgrade(ctx)
}

// upgrade is Upgrade while a generation runs.
func (m *Manager) upgrade(ctx context.Context) error {
	m.awaitInheritance(ctx)
	err := ctx.Err()
	if err == nil {
		err = m.startSuccessor()
	}
	if err != nil {
		m.changed(UpgradeFailedEvent{Err: err})
		return fmt.Errorf("prefork: Upgrade: %w", err)
	}
	h := m.successor
	defer func() {
		if !h.took {
			m.restoreModes()
		}
	}()
	for !h.took && m.successor == h {
		step := m.turn()
		switch {
		case h.took || m.successor != h:
		case m.shutdownWaits():
			// The workers are not to wait for the successor's end; it is reaped on the way.
			m.endSuccessor(errShutdown)
			return m.upgradeFailed(h)
		case ctx.Err() != nil && h.failed == nil:
			m.endSuccessor(ctx.Err())
		case step.Ask:
			m.spawn(step)
		case h.failed != nil:
			m.sleep(step.Wake, nil)
		default:
			m.sleep(step.Wake, ctx.Done())
		}
	}
	if h.took {
		return nil
	}
	return m.upgradeFailed(h)
}

// awaitInheritance lets a successor that has said that it is ready hear that it has taken over, which is on its way: the signal for the
// next upgrade can be faster, since others see that the manager before it has gone.
func (m *Manager) awaitInheritance(ctx context.Context) {
	for m.inherits && !m.succeeds && ctx.Err() == nil && !m.shutdownWaits() {
		if step := m.turn(); step.Ask {
			m.spawn(step)
		} else if m.inherits {
			m.sleep(step.Wake, ctx.Done())
		}
	}
}

// restoreModes makes the sockets block or not, as the workers of this Manager need it: that is a property which all share,
// and the successor's Listen may have changed it.
func (m *Manager) restoreModes() {
	for _, s := range m.allSockets() {
		if s.group == nil {
			inherit.SetBlocking(s.fd, m.cfg.Command != nil)
		}
	}
}

func (m *Manager) upgradeFailed(h *successor) error {
	m.changed(UpgradeFailedEvent{PID: h.proc.Pid(), Err: h.failed})
	return fmt.Errorf("prefork: Upgrade: %w", h.failed)
}

// shutdownWaits tells whether the shutdown signal has come and was not handled yet.
func (m *Manager) shutdownWaits() bool {
	m.inbox.mu.Lock()
	defer m.inbox.mu.Unlock()
	return m.inbox.signals.has(m.cfg.ShutdownSignal)
}

// mayUpgrade says what stands against an upgrade.
func (m *Manager) mayUpgrade() error {
	switch {
	case m.successor != nil && m.successor.took:
		return fmt.Errorf("manager %d has taken over already", m.successor.proc.Pid())
	case m.inherits:
		return errors.New("this manager is a successor itself, and has not taken over yet")
	case m.successor != nil:
		return fmt.Errorf("successor %d is under way: wait until it has taken over or was given up", m.successor.proc.Pid())
	case m.generation == 0:
		return errors.New("there is no generation of workers yet: call Start or Run first")
	case self.managers() > 1:
		return errors.New("this program has several Managers, and a successor could take the place of one alone: stop the program and start it anew")
	}
	if self.reaper != nil {
		return nil // who has started the program sees the reaper alone, which stays
	}
	return mayEnd(os.Getpid(), self.byStarter, os.Getenv)
}

// mayEnd refuses where others take the end of this process for the end of the service.
func mayEnd(pid int, byStarter bool, getenv func(string) string) error {
	switch {
	case pid == 1:
		return errors.New("this manager is process 1, whose end would end all others in its container: start another container, or reload with Config.ReloadBinary")
	case byStarter:
		return errors.New("this program runs under start_server, which would take an upgrade for a crash: send start_server a HUP instead")
	case getenv("SYSTEMD_EXEC_PID") == strconv.Itoa(pid) && getenv(notifyEnv) == "":
		return errors.New("systemd would take the end of this process for the end of the service: set Type=notify in the unit, or reload with Config.ReloadBinary")
	}
	return nil
}

// startSuccessor starts the program on disk as a successor.
func (m *Manager) startSuccessor() error {
	if err := m.mayUpgrade(); err != nil {
		return err
	}
	m.steerDue = true
	if err := m.grow(m.MaxWorkers() - 1); err != nil { // later it could not
		return err
	}
	exe, err := m.openOnDisk()
	if err != nil {
		return err
	}
	defer exe.Close()
	spec := proc.Spec{Args: self.args, Dir: m.dir, SameGroup: true}
	release, err := addStreams(&spec)
	if err != nil {
		return err
	}
	defer release()
	marker := m.marker()
	marker.Path, marker.Pause = m.onDisk, 0
	layOut(&spec, &marker, 0, exe, m.handed(noSlot, true))
	files, keep := self.filesForSuccessor()
	defer keep()
	for _, f := range files {
		spec.Files = append(spec.Files, uintptr(f.FD))
		f.FD = len(spec.Files) - 1
		marker.Files = append(marker.Files, f)
	}
	own := append(belowReaper(&spec), inherit.DepthEnv+"="+strconv.Itoa(m.depth), inherit.SuccessorEnv+"="+marker.String())
	spec.Env = inherit.Alter(os.Environ(), nil, own...)
	m.successors++
	h := &successor{id: firstSuccessor + m.successors, unread: []byte{}, deadline: pool.Never}
	if h.proc, err = m.procs.Start(h.id, spec); err != nil {
		return named(err, exe)
	}
	if m.cfg.UpgradeTimeout > 0 {
		h.deadline = m.in(m.cfg.UpgradeTimeout)
	}
	m.successor = h
	m.changed(UpgradeEvent{PID: h.proc.Pid()})
	return nil
}

// noteSuccessor handles what a successor has to say.
func (m *Manager) noteSuccessor(h *successor, n proc.Note) {
	if n.Kind == proc.Exited {
		h.heard = allowance{} // what it said at last is heard before its end
	}
	m.listenSuccessor(h)
	if n.Kind != proc.Exited {
		return
	}
	status, _, ok := h.proc.Reap()
	if !ok {
		return
	}
	switch {
	case h.took:
		if self.reaper != nil {
			self.reaper.Ended(h.proc.Pid(), status.Code, status.Signal)
		}
		if status.Clean() { // it was told to stop, or has a successor itself
			m.log.Info("the successor that has taken over has ended", "pid", h.proc.Pid())
			return
		}
		m.log.Error("the successor that has taken over is gone; start the program anew", "pid", h.proc.Pid(), "status", exitStatus(status).String())
		return
	case h.failed == nil:
		h.failed = fmt.Errorf("successor %d ended before it was ready: %v", h.proc.Pid(), exitStatus(status))
	}
	m.successor = nil
}

// listenSuccessor reads what a successor has written. One that does not speak the protocol is not let take over.
func (m *Manager) listenSuccessor(h *successor) {
	var buf [wire.MaxSize]byte
	for h.unread != nil {
		left := h.heard.left(m.now())
		if h.slowed = left <= 0; h.slowed {
			return
		}
		n, err := h.proc.Read(buf[:min(left, len(buf))])
		h.heard.read += n
		h.unread = append(h.unread, buf[:n]...)
		for h.unread != nil {
			msg, n, err := wire.Decode(h.unread)
			if err == wire.ErrShort {
				break
			}
			if err != nil {
				h.unread = nil
				m.endSuccessor(fmt.Errorf("successor %d does not speak the protocol: %w", h.proc.Pid(), err))
				break
			}
			h.unread = h.unread[n:]
			switch msg := msg.(type) {
			case wire.Reached:
				if m.shutdownWaits() {
					m.endSuccessor(errShutdown)
				} else {
					m.handOver(h)
				}
			case wire.Failed:
				m.endSuccessor(fmt.Errorf("successor %d: %s", h.proc.Pid(), msg.Why))
			}
		}
		if err != nil {
			if err != proc.ErrWouldBlock {
				h.unread = nil
			}
			return
		}
	}
}

// handOver lets the successor take over. What has come for this Manager and was not handled goes to it, too.
func (m *Manager) handOver(h *successor) {
	if h.took || h.failed != nil {
		return
	}
	if _, err := h.proc.Write(wire.Append(nil, wire.TakeOver{})); err != nil {
		m.endSuccessor(fmt.Errorf("successor %d was ready, and is gone: %w", h.proc.Pid(), err))
		return
	}
	h.took, h.deadline = true, pool.Never
	if self.reaper != nil {
		self.reaper.Successor(h.proc.Pid())
	}
	self.succeeded.Store(true)
	m.mu.Lock()
	for _, s := range m.sockets {
		s.file = nil // the successor's
	}
	m.steers = false
	m.mu.Unlock()
	for _, a := range m.inbox.takeSignals() {
		m.passOn(a, true)
	}
	if self.reaper != nil {
		// systemd goes on with the reaper as the main process.
	} else if err := announce(h.proc.Pid(), os.Getenv(notifyEnv)); err != nil {
		m.log.Error("cannot tell systemd of the new main process", "pid", h.proc.Pid(), "err", err)
	}
	m.changed(UpgradedEvent{PID: h.proc.Pid()})
	m.Deliver(m.cfg.ShutdownSignal)
}

// passOn sends what has come for this Manager to the successor that has taken its place. A signal for an upgrade is for the successor if
// it came before that: the program on disk may be newer than the successor's. What the table does not name was delivered by this
// program, and means nothing to another.
func (m *Manager) passOn(a arrival, before bool) {
	h := m.successor
	if h == nil || !h.took {
		return
	}
	f, named := m.cfg.TrapSignals[a.sig]
	if a.sig == m.cfg.ShutdownSignal {
		named = before && !a.ctx // it has come just now; later ones are for this Manager, which drains
	}
	if named && (before || !f.Upgrade) {
		h.proc.Signal(a.sig.(syscall.Signal))
	}
}

// endSuccessor tells a successor to stop that is not to take over.
func (m *Manager) endSuccessor(why error) {
	h := m.successor
	if h == nil || h.took || h.failed != nil {
		return
	}
	h.failed, h.deadline = why, pool.Never
	if m.cfg.StopTimeout >= 0 {
		h.deadline = m.in(m.cfg.StopTimeout)
	}
	h.proc.Signal(m.cfg.ShutdownSignal.(syscall.Signal)) // it is a manager: for it to forward
	if continueSignal != 0 {
		h.proc.Signal(continueSignal)
	}
}

// tickSuccessor does what is due, and says when the next is.
func (m *Manager) tickSuccessor() pool.Time {
	h := m.successor
	if h == nil || h.deadline == pool.Never {
		return pool.Never
	}
	if h.deadline > m.now() {
		return h.deadline
	}
	if h.failed == nil {
		m.listenSuccessor(h) // where this manager was held up, it may have been ready long ago
		if h.took || h.failed != nil {
			return h.deadline
		}
		m.endSuccessor(fmt.Errorf("successor %d was not ready within %v (Config.UpgradeTimeout)", h.proc.Pid(), m.cfg.UpgradeTimeout))
		return m.tickSuccessor()
	}
	h.deadline = pool.Never
	h.proc.Signal(syscall.SIGKILL)
	return pool.Never
}

// notifyEnv names the socket on which systemd listens to a service of Type=notify.
const notifyEnv = "NOTIFY_SOCKET"

// announce tells systemd which process is the service's main one. It must be the old one that says so: systemd heeds no
// other, unless the unit has NotifyAccess=all.
func announce(pid int, socket string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second)) // one that does not listen is not to hold up the loop
	_, err = fmt.Fprintf(conn, "MAINPID=%d\n", pid)
	return err
}
