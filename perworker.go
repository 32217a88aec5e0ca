package prefork

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/reuseport"
	"github.com/prefork-go/prefork/internal/wire"
)

// group is a listener with a socket for each slot. What is not constant belongs to the loop, once Start was called.
type group struct {
	fds     []int // by slot, which is also the index in the kernel's group; never closed while the manager lives
	address string

	steered bool
	live    []int       // the slots to which new connections go
	keepers []int       // by slot: the ordinal of the worker that serves its socket beside its own; 0 for none
	waits   atomic.Bool // to tell a worker what it had no room to be told
}

// roomPause is how long the loop waits before it tells again what a worker had no room for: its control socket takes a few
// hundred messages, and it may be given the sockets of more slots at one moment.
const roomPause = 10 * time.Millisecond

// ListenPerWorker is Listen with a socket for each worker (SO_REUSEPORT), so that each has a queue of its own and none is
// woken for what another accepts: for many short connections. The sockets belong to the slots and are held by the manager:
// what is queued waits for the slot's next worker, and while there is none, another worker serves it. New connections go to slots
// with a ready worker alone, by chance. Sockets of slots that a smaller MaxWorkers leaves out are served, and kept for the next
// growth.
//
// The network is "tcp", "tcp4", "tcp6" or "unix". Where sockets for each worker cannot be had (a unix socket, a Command,
// sockets from start_server or systemd, another system than Linux), it is Listen, and says so in one warning; see
// Snapshot.Sockets. In a worker it is called once for each call in the manager.
//
// What a ready worker is sent is expected to be accepted: one that has not called ListenPerWorker, or no longer calls
// Accept, leaves its queue to nobody until it ends. Where it closes its listener, others serve the queue, if there is
// another ready worker.
//
// Either process, any goroutine; it does not block, but for looking up a host name. In a worker what it returns has
// SetDeadline and SyscallConn too.
func (m *Manager) ListenPerWorker(network, address string) (net.Listener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", "unix":
	default:
		return nil, listenError("ListenPerWorker", network, address, net.UnknownNetworkError(network))
	}
	if m.foreign {
		return newIdle(network, address), nil
	}
	ln, err := m.listenPerWorker(network, address)
	if err != nil {
		return nil, listenError("ListenPerWorker", network, address, err)
	}
	return ln, nil
}

func (m *Manager) listenPerWorker(network, address string) (net.Listener, error) {
	if self.role == inherit.Worker {
		if i, s, err := self.inherited(network, address, perSlot); err == nil {
			return self.listenOwn(self.groupOf(i), s)
		}
		return obtain(m, network, address, inherit.FellBack, net.Listen, net.FileListener)
	}
	why := m.mustShare(network)
	if why == nil {
		var ln net.Listener
		if ln, why = m.bindGroup(network, address); why == nil {
			return ln, nil
		}
		if !errors.Is(why, errors.ErrUnsupported) && !errors.Is(why, syscall.ENOPROTOOPT) {
			return nil, why
		}
	}
	m.log.Warn("one socket for all workers instead of one for each", "network", network, "address", address, "why", why)
	return obtain(m, network, address, inherit.FellBack, net.Listen, net.FileListener)
}

// mustShare says why workers cannot have sockets of their own.
func (m *Manager) mustShare(network string) error {
	switch {
	case network == "unix":
		return errors.New("unix sockets cannot be had twice")
	case m.cfg.Command != nil:
		return errors.New("a Command cannot be asked to serve the queue of another worker")
	case self.isGiven():
		return errors.New("this program is given its sockets, and is not to bind its own")
	}
	return nil
}

// bindGroup makes the sockets of all slots, or takes over those of the manager before this one.
func (m *Manager) bindGroup(network, address string) (net.Listener, error) {
	g, n := &group{}, m.MaxWorkers()
	if self.role == inherit.Successor {
		g.fds = self.inheritedGroup(network, address)
	}
	if len(g.fds) == 0 {
		fds, addr, err := reuseport.Bind(network, address, max(1, n))
		if err != nil {
			return nil, err
		}
		g.fds, g.address = fds, addr.String()
	}
	fd, err := inherit.DupCloseOnExec(uintptr(g.fds[0]))
	if err != nil {
		g.close()
		return nil, err
	}
	ln, err := wrapFD(fd, network+" "+address, net.FileListener)
	if err != nil {
		g.close()
		return nil, err
	}
	g.address = ln.Addr().String()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sockets = append(m.sockets, &socket{fd: g.fds[0], network: network, address: address, bound: g.address, group: g})
	return ln, nil
}

func (g *group) close() {
	for _, fd := range g.fds {
		inherit.Close(fd)
	}
}

// grow makes sure that a slot has its sockets.
func (m *Manager) grow(slot int) error {
	for _, s := range m.allSockets() {
		for g := s.group; g != nil && len(g.fds) <= slot; {
			fd, err := reuseport.Grow(s.network, g.address)
			if err != nil {
				return fmt.Errorf("a socket of its own: %w", err)
			}
			m.mu.Lock()
			g.fds = append(g.fds, fd)
			m.mu.Unlock()
			g.steered = false
		}
	}
	return nil
}

// room is how many workers there may be of n that are wanted. While a successor is there, it alone makes sockets: the kernel gives
// places in the group in the order in which sockets come, of whichever manager, and each would take the other's for its own. What
// is steered to such a one is lost when the other ends.
func (m *Manager) room(n int) int {
	if m.successor == nil {
		return n
	}
	for _, s := range m.allSockets() {
		if s.group != nil {
			n = min(n, len(s.group.fds))
		}
	}
	return n
}

// steer has new connections go to slots with a ready worker, and the sockets of the others served by some worker.
func (m *Manager) steer() {
	if !m.steerDue {
		return
	}
	m.mu.Lock()
	steers := m.steers
	m.mu.Unlock()
	if !steers {
		return // a successor leaves that to the manager before it until that is gone, and the other way round after
	}
	m.steerDue = false
	i := 0
	for _, s := range m.allSockets() {
		if s.group != nil {
			m.steerGroup(i, s.group)
			i++
		}
	}
}

func (m *Manager) steerGroup(index int, g *group) {
	own, ready := make([]int, len(g.fds)), []int{}
	for _, c := range m.children {
		if c.State != StateReady || c.unread == nil || c.ending || slices.Contains(c.closed, index) {
			continue // one that has let go of its control socket is about to end, too, or is another program now
		}
		ready = append(ready, c.Ordinal)
		if c.Slot < len(own) {
			own[c.Slot] = c.Ordinal
		}
	}
	slices.Sort(ready)
	live, moves := reuseport.Keepers(own, ready, g.keepers)
	if !g.steered || !slices.Equal(live, g.live) {
		if err := reuseport.Steer(g.fds[0], live); err != nil {
			m.log.Error("cannot steer connections; they go to all slots, and other workers serve those of empty ones", "address", g.address, "err", err)
		}
		g.steered, g.live = true, live
	}
	g.keepers = append(g.keepers, make([]int, max(0, len(g.fds)-len(g.keepers)))...)
	for _, move := range moves {
		if m.move(index, g.fds[move.Index], move) {
			g.keepers[move.Index] = move.To
			continue
		}
		m.steerDue = true
		if g.waits.CompareAndSwap(false, true) {
			time.AfterFunc(roomPause, func() {
				g.waits.Store(false)
				m.inbox.put(func(*inbox) {})
			})
		}
	}
}

// hasClosed notes that a worker accepts nothing any more from one of the listeners with a socket for each slot.
func (m *Manager) hasClosed(c *child, index int) {
	if len(c.closed) < m.groups() && !slices.Contains(c.closed, index) { // whatever it says, no more than there can be
		c.closed = append(c.closed, index)
		m.steerDue = m.steerDue || c.State == StateReady
	}
}

// groups is how many listeners with a socket for each slot there are.
func (m *Manager) groups() (n int) {
	for _, s := range m.allSockets() {
		if s.group != nil {
			n++
		}
	}
	return n
}

// give gives a standby the sockets of the slot that it takes.
func (m *Manager) give(c *child) error {
	if err := m.grow(c.Slot); err != nil {
		return err
	}
	i := 0
	for _, s := range m.allSockets() {
		if s.group == nil {
			continue
		}
		if err := c.proc.WriteFile(wire.Append(nil, wire.Adopt{Socket: i, Slot: c.Slot}), s.group.fds[c.Slot]); err != nil {
			return err
		}
		i++
	}
	return nil
}

// move tells the workers between which a socket moves; false if one of them has to be told again.
func (m *Manager) move(index, fd int, move reuseport.Move) bool {
	if c := m.children[move.To]; c != nil {
		if err := c.proc.WriteFile(wire.Append(nil, wire.Adopt{Socket: index, Slot: move.Index}), fd); err != nil {
			if err != proc.ErrWouldBlock && !errors.Is(err, syscall.EPIPE) {
				m.log.Error("cannot give worker the socket of an empty slot", c.attrs("of", move.Index, "err", err)...)
			}
			return false
		}
	}
	if c := m.children[move.From]; c != nil && c.unread != nil {
		_, err := c.proc.Write(wire.Append(nil, wire.Drop{Socket: index, Slot: move.Index}))
		return err != proc.ErrWouldBlock // any other error means that it is about to end
	}
	return true
}

// perSlot and shared choose among inherited sockets of the same words.
func perSlot(s inherit.Socket) bool { return s.Slot >= 0 || s.Slot == inherit.Awaited }

func sharedAs(kind int) func(inherit.Socket) bool {
	return func(s inherit.Socket) bool { return s.Slot == kind }
}

// inheritedGroup takes the sockets of one call of ListenPerWorker, by slot.
func (p *process) inheritedGroup(network, address string) (fds []int) {
	for {
		_, s, err := p.inherited(network, address, sharedAs(len(fds)))
		if err != nil {
			return fds
		}
		fds = append(fds, s.FD)
	}
}

// kept is what a worker has of one listener with a socket for each slot.
type kept struct {
	ln      *reuseport.Listener // nil before the program has called ListenPerWorker
	own     int                 // the own socket of one who was a standby, if it came before that, else 0
	waiting map[int]int         // of others, what came before that: descriptors by slot
}

// listenOwn makes the listener of a worker's own socket, in the group with that index. That of a standby comes when it is
// given its slot, before or after this call.
func (p *process) listenOwn(group int, s inherit.Socket) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k, listen := p.keptOf(group), reuseport.NewListener
	switch {
	case s.Slot != inherit.Awaited:
	case k.own == 0:
		listen = reuseport.AwaitListener
	default:
		inherit.Close(s.FD)
		s.FD, k.own = k.own, 0
	}
	ln, err := listen(s.FD)
	if err != nil {
		return nil, err
	}
	k.ln = ln
	for slot, fd := range k.waiting {
		ln.Adopt(slot, fd)
	}
	k.waiting = nil
	return &ownListener{ln, group}, nil
}

// ownListener tells the manager when it is closed, so that others serve its queue, however long this worker lives.
type ownListener struct {
	*reuseport.Listener
	group int
}

func (l *ownListener) Close() error {
	err := l.Listener.Close()
	if err == nil {
		self.control.Write(wire.Append(nil, wire.Closed{Socket: l.group})) // fails only when the manager is gone, which watch sees
	}
	return err
}

// groupOf is the index of a worker's socket among those that are for each slot.
func (p *process) groupOf(socket int) (group int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.marker.Sockets[:socket] {
		if perSlot(s) {
			group++
		}
	}
	return group
}

func (p *process) keptOf(i int) *kept {
	if p.kept == nil {
		p.kept = make(map[int]*kept)
	}
	if p.kept[i] == nil {
		p.kept[i] = &kept{waiting: make(map[int]int)}
	}
	return p.kept[i]
}

// adopt and drop do what the manager says. A listener that the worker has closed adopts nothing; the manager has been told,
// or is about to be.
func (p *process) adopt(msg wire.Adopt, fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.marker.Slot == inherit.NoSlot // only its own comes to a standby
	switch k := p.keptOf(msg.Socket); {
	case fd < 0:
	case own && k.ln != nil:
		if err := k.ln.Own(fd); err != nil && !errors.Is(err, net.ErrClosed) {
			fmt.Fprintf(os.Stderr, "prefork: worker %d ends, since it cannot have the socket of its slot: %v\n", os.Getpid(), err)
			inherit.Exit(1)
		}
	case own:
		k.own = fd
	case k.ln != nil:
		k.ln.Adopt(msg.Slot, fd)
	default:
		k.waiting[msg.Slot] = fd
	}
}

func (p *process) drop(msg wire.Drop) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.keptOf(msg.Socket)
	if k.ln != nil {
		k.ln.Drop(msg.Slot)
	} else if fd, ok := k.waiting[msg.Slot]; ok {
		inherit.Close(fd)
		delete(k.waiting, msg.Slot)
	}
}
