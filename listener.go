package prefork

import (
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"

	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/sockets"
	"github.com/prefork-go/prefork/internal/wire"
)

// Listen returns a listening socket that the manager binds once and that every
// worker spawned from then on inherits: one call before Start does both. The
// network is "tcp", "tcp4", "tcp6" or "unix"; "@name" is an abstract address, on
// Linux. Several equal calls return several sockets. A worker finds each by the
// place of the call in the program, or else by the order of the calls.
//
// If the program was started with sockets, by start_server (Server::Starter) or
// by systemd, Listen returns the one whose address fits. Port 0 fits any port. No
// host fits any host, preferably all hosts. A unix socket must have the same path.
// The only given socket of a network fits any address, and the log names both. If
// none fits, the error wraps ErrNotInherited and lists the sockets: such a
// program must not bind its own. Given sockets that are not used when the first
// generation begins are logged as warnings.
//
// To set options of the socket, a program should use SyscallConn of the listener.
// File and Fd make the socket blocking, also for all other workers. The library
// undoes that at Start, in preforkhttp.Serve, and when a worker stops; on other
// systems than Linux a worker that waits in Accept may stay there until it is
// killed.
//
// In the manager, Accept returns an error: it would take connections from the
// workers. The listener has the other methods of a net.TCPListener or
// net.UnixListener there, without being one. Closing it takes nothing from the
// workers. In a shutdown,
// Run and WaitAllChildren close it, with the Manager's own copy, when all workers
// are stopping: clients are then refused as soon as the workers no longer accept.
// To Start again after that, the program must call Listen again.
//
// The file of a unix socket that the Manager bound is removed when Run returns,
// and when WaitAllChildren has reaped the last worker after the shutdown signal. A
// worker never removes the file. Listen replaces a file that a dead manager left
// behind. If a process answers on it, Listen fails.
//
// In a worker the error wraps ErrNotInherited if the manager did not make the
// same call before it spawned the worker. The manager logs a warning if a worker
// has not made the same calls when it reaches Start. Listen does not block, except to look
// up a host name, to check an existing socket file, and for about a second if
// another program has locked the directory of that file (flock). In that case an
// existing file is an error. On Linux it also blocks, for up to OrphanTimeout and
// three seconds, while the address belongs to workers whose manager has been killed.
func (m *Manager) Listen(network, address string) (net.Listener, error) {
	return ListenConfig{}.Listen(m, network, address)
}

// ListenPacket is Listen for datagrams. The network is "udp", "udp4", "udp6" or
// "unixgram". All workers read from one socket, so each datagram is read by one
// of them. The manager must not read from it: each datagram that it reads is lost
// to the workers. After the first spawn, calls in the manager that have to wait do
// so until their deadline or Close, such as a write while the send buffer is full.
func (m *Manager) ListenPacket(network, address string) (net.PacketConn, error) {
	return ListenConfig{}.ListenPacket(m, network, address)
}

// ListenPerWorker is Listen with a socket for each worker (SO_REUSEPORT): each has
// its own accept queue, and no worker wakes up for a connection that another
// accepts. It should be used for many short connections. The sockets belong to
// slots, and the manager holds them. The kernel spreads new connections randomly
// over the slots that have a ready worker that has called Accept, or SyscallConn
// of the listener. Connections in the queue of another slot wait for its next
// worker, and until then another worker serves the queue. So a worker may warm up
// before its first Accept, but a rolling replacement does not wait for that: it
// needs Readiness.Explicit. Sockets of slots beyond a smaller MaxWorkers are
// served, and kept for later growth.
//
// The network is "tcp", "tcp4", "tcp6" or "unix". If sockets for each worker are
// not available (a unix socket, a Command, sockets from start_server or systemd,
// one socket from the previous manager, another system than Linux),
// ListenPerWorker acts as Listen and logs one warning; see Snapshot.Sockets. A
// worker must call it once for each call in the manager.
//
// A worker that has called Accept must go on. If it no longer does, its queue is
// not served until it exits. If it closes its listener, other workers serve the
// queue. They also do for a while if Accept fails because the worker has reached
// its limit of open files; the log has a warning.
//
// The listener of a worker also has SetDeadline and SyscallConn. ListenPerWorker
// does not block, except to look up a host name.
func (m *Manager) ListenPerWorker(network, address string) (net.Listener, error) {
	return ListenConfig{}.ListenPerWorker(m, network, address)
}

// ListenPacketPerWorker is ListenPacket with a socket for each worker
// (SO_REUSEPORT): all datagrams from one address and port reach one worker. It
// should be used for QUIC, and for other protocols that keep state of a client.
// The network is "udp", "udp4" or "udp6".
//
// The kernel chooses the slot of a flow by a hash of its source address and port.
// The flows of a slot with a ready worker stay there. Those of other slots go to
// any slot, another one whenever a slot gains or loses its worker: a pool that is
// sized by load, or whose MaxWorkers was larger before, should not use it for
// QUIC. A larger MaxWorkers than ever before moves most flows. A client that gets
// another address or port has another flow. Multicast and broadcast datagrams
// reach the sockets of all slots: use ListenPacket for them. Datagrams that wait in the
// socket of a slot are read by its next worker, and those of a slot that MaxWorkers
// has removed are lost.
//
// In a rolling replacement the old and the new worker of a slot read from the same
// socket until the old one closes it, so each may read datagrams of the other's
// clients. When Context ends, a worker should send its last datagrams, such as the
// CONNECTION_CLOSE of QUIC, and close the socket. To keep its connections, a
// program must pass on datagrams between workers, by connection IDs that name the
// worker.
//
// A worker gets flows from Start on, or from Ready on with Readiness.Explicit, if
// it has called ListenPacketPerWorker. Its connection has the methods of a
// net.UDPConn; a standby must not use it before Start has returned. In the manager
// it can neither read nor write. If a socket for each worker is not available
// (see ListenPerWorker), ListenPacketPerWorker acts as ListenPacket and logs one
// warning.
func (m *Manager) ListenPacketPerWorker(network, address string) (net.PacketConn, error) {
	return ListenConfig{}.ListenPacketPerWorker(m, network, address)
}

// call calls listen if the network is one of networks.
func call[T any](lc ListenConfig, listen func(lc ListenConfig, network, address string) (T, error), network, address string, networks ...string) (s T, err error) {
	if !slices.Contains(networks, network) {
		return s, net.UnknownNetworkError(network)
	}
	got, err := listen(lc, network, address)
	if err != nil {
		return s, err // not a listener that is closed already
	}
	return got, nil
}

func listenError(call, network, address string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("prefork: %s(%q, %q): %w", call, network, address, err)
}

func (s *managerSide) listen(lc ListenConfig, network, address string) (net.Listener, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	return s.sockets.ListenWith(sockets.Options(lc), network, address)
}

func (s *managerSide) listenPacket(lc ListenConfig, network, address string) (net.PacketConn, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	return s.sockets.ListenPacketWith(sockets.Options(lc), network, address)
}

func (s *managerSide) listenPerWorker(lc ListenConfig, network, address string) (net.Listener, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	return s.sockets.ListenPerWorkerWith(sockets.Options(lc), network, address)
}

func (s *managerSide) listenPacketPerWorker(lc ListenConfig, network, address string) (net.PacketConn, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	return s.sockets.ListenPacketPerWorkerWith(sockets.Options(lc), network, address)
}

func (s *workerSide) listen(_ ListenConfig, network, address string) (net.Listener, error) {
	if s.foreign {
		return sockets.NewIdle(network, address), nil
	}
	return inherited.Listen(network, address)
}

func (s *workerSide) listenPacket(_ ListenConfig, network, address string) (net.PacketConn, error) {
	if s.foreign {
		return sockets.NewIdle(network, address), nil
	}
	return inherited.ListenPacket(network, address)
}

func (s *workerSide) listenPerWorker(_ ListenConfig, network, address string) (net.Listener, error) {
	if s.foreign {
		return sockets.NewIdle(network, address), nil
	}
	return inherited.ListenPerWorker(network, address)
}

func (s *workerSide) listenPacketPerWorker(_ ListenConfig, network, address string) (net.PacketConn, error) {
	if s.foreign {
		return sockets.NewIdle(network, address), nil
	}
	return inherited.ListenPacketPerWorker(network, address)
}

// ListenConfig has options for the sockets of a Manager. Its methods are those of
// Manager with these options. The zero ListenConfig has none of them:
//
//	lc := prefork.ListenConfig{Backlog: 4096, Mode: 0o660, GID: www}
//	ln, err := lc.Listen(pm, "unix", "/run/server.sock")
//
// The same call should be made in the manager and in workers. In a worker all
// fields are ignored: the manager has set the options.
type ListenConfig struct {
	// Control is called with each new socket before it is bound, as by
	// net.ListenConfig, for options such as IP_TRANSPARENT or TCP_FASTOPEN. It is
	// not called for sockets from a previous manager, systemd or start_server.
	Control func(network, address string, conn syscall.RawConn) error

	// Backlog is the length of the accept queue. Zero means the system's maximum,
	// which also limits it (net.core.somaxconn on Linux). With ListenPerWorker it
	// is that of each worker's queue.
	Backlog int

	// Mode, UID and GID are those of the file of a unix socket that the Manager
	// makes. Zero leaves them alone: the mode follows the umask, and the owner is
	// that of the process. On Linux the file never has more permissions than Mode.
	Mode     os.FileMode
	UID, GID int

	// File is a socket that is bound already, as from another library, or from a
	// parent process by its descriptor. It must listen, if it is a stream socket.
	// The Manager duplicates it, so the program may close it. The address is then
	// only the name by which workers find it. A successor takes the socket of its
	// predecessor instead. The Manager never removes the file of such a unix
	// socket. A net.Listener has a method File.
	File *os.File

	// FD is the number of the socket's descriptor in a Command, from 3 up, for a
	// program that expects it there. Zero means the lowest number that is free. A
	// number that Spawn.Files, Spawn.FilesAt or Readiness.FD has is an error of the
	// spawn, as is any with ListenFDs, which numbers the sockets itself.
	FD int
}

// Listen is Manager.Listen with the options of lc.
func (lc ListenConfig) Listen(m *Manager, network, address string) (net.Listener, error) {
	ln, err := call(lc, m.side.listen, network, address, "tcp", "tcp4", "tcp6", "unix")
	return ln, listenError("Listen", network, address, err)
}

// ListenPacket is Manager.ListenPacket with the options of lc. It fails if
// Backlog is set.
func (lc ListenConfig) ListenPacket(m *Manager, network, address string) (net.PacketConn, error) {
	pc, err := call(lc, m.side.listenPacket, network, address, "udp", "udp4", "udp6", "unixgram")
	return pc, listenError("ListenPacket", network, address, err)
}

// ListenPerWorker is Manager.ListenPerWorker with the options of lc. With File
// there is one socket for all workers.
func (lc ListenConfig) ListenPerWorker(m *Manager, network, address string) (net.Listener, error) {
	ln, err := call(lc, m.side.listenPerWorker, network, address, "tcp", "tcp4", "tcp6", "unix")
	return ln, listenError("ListenPerWorker", network, address, err)
}

// ListenPacketPerWorker is Manager.ListenPacketPerWorker with the options of lc. It
// fails if Backlog is set. With File there is one socket for all workers.
func (lc ListenConfig) ListenPacketPerWorker(m *Manager, network, address string) (net.PacketConn, error) {
	pc, err := call(lc, m.side.listenPacketPerWorker, network, address, "udp", "udp4", "udp6")
	return pc, listenError("ListenPacketPerWorker", network, address, err)
}

// QueueInfo describes the accept queue of a listening socket. Slot is -1 for a socket
// that all workers share.
type QueueInfo struct {
	SocketInfo
	Slot    int `json:"slot"`
	Waiting int `json:"waiting"` // connections that no worker has accepted; -1 for unknown
	Backlog int `json:"backlog"` // how many it can hold; -1 for unknown
}

func (q QueueInfo) String() string {
	text := q.SocketInfo.String()
	if q.Slot != noSlot {
		text = fmt.Sprintf("%s %s, slot %d", q.Network, q.Address, q.Slot)
	}
	if q.Waiting < 0 {
		return text + ": queue unknown"
	}
	return fmt.Sprintf("%s: %d of %d waiting", text, q.Waiting, q.Backlog)
}

// Queues returns the accept queues of the sockets in Snapshot.Sockets, in that
// order; with ListenPerWorker, one for each slot. A queue that stays long means that
// there are too few workers, or that they are stuck. It is for monitoring, and makes
// one or three system calls for each socket. The lengths are unknown for datagram
// sockets, outside Linux, and for unix sockets if the kernel lacks sock_diag
// (CONFIG_UNIX_DIAG). After a shutdown has closed the sockets, and in a worker, it
// returns none.
func (m *Manager) Queues() []QueueInfo { return m.side.queues() }

func (s *managerSide) queues() (all []QueueInfo) {
	for _, q := range s.sockets.Queues() {
		all = append(all, QueueInfo{SocketInfo{q.Network, q.Address, q.PerWorker}, q.Slot, q.Waiting, q.Backlog})
	}
	return all
}

// sendOwnSockets sends a standby the sockets of its slot.
func (l *loop) sendOwnSockets(w *worker) error {
	if err := l.sockets.Grow(w.Slot); err != nil {
		return err
	}
	for group, fd := range l.sockets.OfSlot(w.Slot) {
		if err := w.proc.WriteFile(wire.Append(nil, wire.Adopt{Socket: group, Slot: w.Slot}), fd); err != nil {
			return err
		}
	}
	return nil
}

// steer directs new connections to the slots with a ready worker, and lets other
// workers serve the accept queues of the rest.
func (l *loop) steer() {
	if !l.steerDue || l.sockets.Passive() {
		return
	}
	l.steerDue, l.steerAgain = false, pool.Never
	if l.sockets.Groups() == 0 {
		return
	}
	ready := make([]sockets.Worker, 0, len(l.workers))
	for _, w := range l.workers {
		// A worker that has closed its control socket is about to exit, or is
		// another program by now.
		if w.State == StateReady && w.reachable() && !w.exiting {
			ready = append(ready, sockets.Worker{ID: w.Ordinal, Slot: w.Slot, Accepting: w.accepting})
		}
	}
	moves, again := l.sockets.Steer(l.now(), ready)
	l.steerAgain = again
	for _, m := range moves {
		if l.move(m) {
			l.sockets.Moved(m)
			continue
		}
		l.steerDue, l.steerAgain = true, pool.Sooner(l.steerAgain, l.now()+steerPause)
	}
}

// move tells the two workers between which a socket moves. It returns false if
// the message to one of them must be sent again, or another worker chosen.
func (l *loop) move(m sockets.Move) bool {
	if w := l.workers[m.To]; w != nil {
		if err := w.proc.WriteFile(wire.Append(nil, wire.Adopt{Socket: m.Group, Slot: m.Slot}), m.FD); err != nil {
			if err != proc.ErrWouldBlock && !proc.IsDisconnected(err) {
				l.noteAdoptFailed(w, m.Group, m.Slot, err)
			}
			return false
		}
	}
	if w := l.workers[m.From]; w != nil && w.reachable() {
		// After any other error the worker is about to exit.
		return w.send(wire.Drop{Socket: m.Group, Slot: m.Slot}) != proc.ErrWouldBlock
	}
	return true
}

// noteAccepting notes that a worker accepts on its listener of a group. The number
// of groups bounds the list, whatever the worker sends.
func (l *loop) noteAccepting(w *worker, group int) {
	if group < l.sockets.Groups() && !slices.Contains(w.accepting, group) && !slices.Contains(w.closed, group) {
		w.accepting = append(w.accepting, group)
		l.steerDue = true
	}
}

// noteClosed notes that a worker has closed its listener of a group, for good:
// a worker that did both again and again would keep its neighbours busy.
func (l *loop) noteClosed(w *worker, group int) {
	if group < l.sockets.Groups() && !slices.Contains(w.closed, group) {
		w.accepting = slices.DeleteFunc(w.accepting, func(g int) bool { return g == group })
		w.closed = append(w.closed, group)
		l.steerDue = true
	}
}

// noteAcceptFailed lets other workers accept for one that cannot.
func (l *loop) noteAcceptFailed(w *worker, group int) {
	if w.State != StateReady {
		return // it gets no connections anyway
	}
	l.steerDue = true
	if l.sockets.AcceptFailed(l.now(), group, w.Ordinal) {
		l.log.Warn("worker cannot accept connections, trying others: raise its limit of open files", w.logAttrs()...)
	}
}

// noteAdoptFailed chooses another worker for the queue of a slot.
func (l *loop) noteAdoptFailed(w *worker, group, slot int, err error) {
	l.steerDue = true
	if l.sockets.AdoptFailed(l.now(), group, slot, w.Ordinal) && w.State == StateReady {
		l.log.Warn("worker cannot take the socket of another slot, trying others: raise its limit of open files, and allow passing descriptors",
			w.logAttrs("of", slot, "err", err)...)
	}
	w.send(wire.Drop{Socket: group, Slot: slot}) // it may have it by a later message
}

// noteSocketUnused warns of a socket that a worker did not ask for by its Start,
// once in each generation.
func (l *loop) noteSocketUnused(w *worker, socket int) {
	all := l.sockets.Info()
	if socket >= len(all) || l.socketsUnused[socket] == w.Generation {
		return
	}
	if l.socketsUnused == nil {
		l.socketsUnused = make(map[int]int)
	}
	l.socketsUnused[socket] = w.Generation
	l.log.Warn("socket not used by a worker: make the same calls of Listen in the manager and in workers, before Start",
		w.logAttrs("network", all[socket].Network, "address", all[socket].Requested)...)
}

func (s *inProcessSide) listen(c ListenConfig, network, address string) (net.Listener, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	s.wmu.Lock()
	defer s.wmu.Unlock()
	ln, reopen, err := s.sockets.ListenLocal(sockets.Options(c), network, address)
	if err == nil {
		s.reopen = append(s.reopen, reopen)
	}
	return ln, err
}

func (s *inProcessSide) listenPerWorker(c ListenConfig, network, address string) (net.Listener, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	return s.listen(c, network, address)
}

func (s *inProcessSide) listenPacket(c ListenConfig, network, address string) (net.PacketConn, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	s.wmu.Lock()
	defer s.wmu.Unlock()
	conn, reopen, err := s.sockets.ListenPacketLocal(sockets.Options(c), network, address)
	if err == nil {
		s.reopen = append(s.reopen, reopen)
	}
	return conn, err
}

func (s *inProcessSide) listenPacketPerWorker(c ListenConfig, network, address string) (net.PacketConn, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	return s.listenPacket(c, network, address)
}
