package sockets

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/reuseport"
)

// group is a listener with a socket for each slot. The loop alone changes it
// once the first generation has begun.
type group struct {
	fds     []int // by slot, the index in the kernel's group; always open
	address string
	options Options

	steered  bool
	live     []int           // the slots that get new connections
	adopters []int           // by slot: the worker that accepts for it besides its own; 0 for none
	backoffs map[int]backoff // by worker ID

	flows bool // datagram sockets: no worker reads from the socket of another slot
}

func (g *group) close() {
	for _, descriptor := range g.fds {
		fd.Close(descriptor)
	}
}

// ListenPerWorker binds a socket for each slot (SO_REUSEPORT), or takes over
// those of the predecessor. If such sockets are not available, it returns a
// shared one and logs a warning.
func (set *Set) ListenPerWorker(network, address string) (net.Listener, error) {
	return set.ListenPerWorkerWith(Options{}, network, address)
}

// ListenPerWorkerWith is ListenPerWorker with options.
func (set *Set) ListenPerWorkerWith(o Options, network, address string) (net.Listener, error) {
	return listenGroup(set, &o, network, address, groupListener, func(found []marker.Socket) (net.Listener, error) {
		return set.obtainListener(&o, network, address, found, marker.FellBack)
	})
}

// ListenPacketPerWorker is ListenPerWorker for datagram sockets.
func (set *Set) ListenPacketPerWorker(network, address string) (net.PacketConn, error) {
	return set.ListenPacketPerWorkerWith(Options{}, network, address)
}

// ListenPacketPerWorkerWith is ListenPacketPerWorker with options.
func (set *Set) ListenPacketPerWorkerWith(o Options, network, address string) (net.PacketConn, error) {
	return listenGroup(set, &o, network, address, groupPacketConn, func(found []marker.Socket) (net.PacketConn, error) {
		return obtain(set, &o, network, address, found, marker.FellBack, packetConn(&o), net.FilePacketConn)
	})
}

// listenGroup makes the sockets of a group, or one socket by share.
func listenGroup[T closer](set *Set, o *Options, network, address string, wrap func(*os.File) (T, error), share func(found []marker.Socket) (T, error)) (s T, err error) {
	if err := set.check(o, network); err != nil {
		return s, err
	}
	found := set.fromPredecessor(network, address, 0)
	why := set.mustShare(network)
	if o.File != nil && why == nil && len(found) == 0 {
		why = errors.New("the program has bound one socket")
	}
	switch {
	case why != nil:
	case len(found) > 0 && found[0].Slot == 0:
		return adoptGroup(set, o, network, address, found, wrap)
	case len(found) > 0:
		why = errors.New("the previous manager has one socket for all workers")
	default:
		if s, why = bindGroup(set, o, network, address, wrap); why == nil {
			return s, nil
		}
		if !errors.Is(why, errors.ErrUnsupported) && !errors.Is(why, syscall.ENOPROTOOPT) {
			return s, why
		}
	}
	set.cfg.Log.Warn("one socket for all workers instead of one for each", "network", network, "address", address, "why", why)
	return share(found)
}

// mustShare returns the reason why workers cannot have sockets of their own.
func (set *Set) mustShare(network string) error {
	switch {
	case network == "unix":
		return errors.New("a unix socket cannot be bound twice")
	case set.cfg.Command:
		return errors.New("a Command cannot serve the accept queue of another worker")
	case set.cfg.Inherited.isActivated():
		return errors.New("this program was started with sockets and must not bind its own")
	}
	return nil
}

func bindGroup[T closer](set *Set, o *Options, network, address string, wrap func(*os.File) (T, error)) (s T, err error) {
	fds, err := patiently(set, network, address, func() ([]int, error) {
		fds, _, err := reuseport.Bind(network, address, max(1, set.cfg.MaxWorkers()), o.control)
		return fds, err
	})
	if err != nil {
		return s, set.cfg.Inherited.explain(err)
	}
	return keepGroup(set, network, address, &group{fds: fds, options: *o}, wrap)
}

// adoptGroup keeps the sockets of a predecessor's group.
func adoptGroup[T closer](set *Set, o *Options, network, address string, found []marker.Socket, wrap func(*os.File) (T, error)) (T, error) {
	g := &group{options: *o}
	for _, s := range found {
		g.fds = append(g.fds, s.FD)
	}
	return keepGroup(set, network, address, g, wrap)
}

// keepGroup adds a group to the sockets that workers inherit.
func keepGroup[T closer](set *Set, network, address string, g *group, wrap func(*os.File) (T, error)) (s T, err error) {
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	for _, descriptor := range g.fds {
		if err := g.options.applyBacklog(descriptor); err != nil {
			return s, err
		}
	}
	descriptor, err := fd.Duplicate(uintptr(g.fds[0]))
	if err != nil {
		return s, err
	}
	if s, err = wrapFD(descriptor, network+" "+address, wrap); err != nil {
		return s, err
	}
	g.address, g.flows = localAddr(s), strings.HasPrefix(network, "udp")
	set.mu.Lock()
	defer set.mu.Unlock()
	set.list = append(set.list, &socket{fd: g.fds[0], network: network, address: address, bound: g.address, group: g, program: s, site: siteOf(address)})
	return s, nil
}

// groupListener returns a listener for the program in the manager.
func groupListener(f *os.File) (net.Listener, error) {
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return refuse(ln), nil
}

// groupPacketConn returns a connection for the program in the manager. It has only
// the address: the socket is that of a slot, and its datagrams would wake the
// manager.
func groupPacketConn(f *os.File) (net.PacketConn, error) {
	conn, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return &packetAddr{&Idle{addr: conn.LocalAddr(), closed: make(chan struct{})}}, nil
}

// groups returns the listeners with a socket for each slot, in order.
func (set *Set) groups() (all []*group) {
	set.mu.Lock()
	defer set.mu.Unlock()
	for _, s := range set.list {
		if s.group != nil {
			all = append(all, s.group)
		}
	}
	return all
}

// Groups returns the number of listeners with a socket for each slot.
func (set *Set) Groups() int { return len(set.groups()) }

// Grow makes the sockets of a slot if it has none yet.
func (set *Set) Grow(slot int) error {
	for _, s := range set.all() {
		for g := s.group; g != nil && len(g.fds) <= slot; {
			descriptor, err := reuseport.Grow(s.network, g.address, g.options.control)
			if err == nil {
				if err = g.options.applyBacklog(descriptor); err != nil {
					fd.Close(descriptor) // or it would be the kernel's next slot
				}
			}
			if err != nil {
				return fmt.Errorf("a socket for slot %d: %w", slot, err)
			}
			set.mu.Lock()
			g.fds = append(g.fds, descriptor)
			set.mu.Unlock()
			g.steered = false
		}
	}
	return nil
}

// Limit returns n or the number of slots that have sockets, if that is less.
// While a successor runs, the manager must not grow: the kernel numbers the
// sockets of a group in the order of their creation in either manager, and each
// manager would take the other's for its own. Connections steered to such a
// socket are lost when the other manager exits.
func (set *Set) Limit(n int) int {
	for _, g := range set.groups() {
		n = min(n, len(g.fds))
	}
	return n
}

// OfSlot returns the sockets of a slot, one for each group.
func (set *Set) OfSlot(slot int) (fds []int) {
	for _, g := range set.groups() {
		fds = append(fds, g.fds[slot])
	}
	return fds
}

// Worker is a ready worker.
type Worker struct {
	ID, Slot  int
	Accepting []int // the groups on whose listener it accepts
}

// Move is a change of the worker that accepts on the socket of a slot.
type Move struct {
	Group, Slot, FD int
	From, To        int // worker IDs; 0 for none
}

// Never is a time that never comes.
const Never = time.Duration(math.MaxInt64)

// Steer directs new connections to the slots that have a ready worker that
// accepts. It returns the moves after which another worker serves the accept
// queue of each slot without one, and when it must be called again. The caller
// carries the moves out, and calls Moved for each one that succeeded. During an
// upgrade only one of the two managers steers.
func (set *Set) Steer(now time.Duration, ready []Worker) (moves []Move, again time.Duration) {
	again = Never
	if set.Passive() {
		return nil, again
	}
	for i, g := range set.groups() {
		more, due := set.steerGroup(now, i, g, ready)
		moves, again = append(moves, more...), min(again, due)
	}
	return moves, again
}

// Passive reports whether the other manager of an upgrade steers.
func (set *Set) Passive() bool {
	set.mu.Lock()
	defer set.mu.Unlock()
	return set.passive
}

func (set *Set) steerGroup(now time.Duration, index int, g *group, workers []Worker) (all []Move, again time.Duration) {
	own, ready, again := g.candidates(now, index, workers)
	if g.flows {
		ready = nil
	}
	live, moves := reuseport.Assign(own, ready, g.adopters)
	if !g.steered || !slices.Equal(live, g.live) {
		if err := g.steer(live); err != nil {
			set.cfg.Log.Error("cannot steer to slots with a worker, others get some connections or datagrams too", "address", g.address, "err", err)
		}
		g.steered, g.live = true, live
	}
	g.adopters = append(g.adopters, make([]int, max(0, len(g.fds)-len(g.adopters)))...)
	for _, m := range moves {
		all = append(all, Move{Group: index, Slot: m.Index, FD: g.fds[m.Index], From: m.From, To: m.To})
	}
	return all, again
}

func (g *group) steer(live []int) error {
	if g.flows {
		return reuseport.SteerFlows(g.fds[0], len(g.fds), live)
	}
	return reuseport.Steer(g.fds[0], live)
}

// Moved records that a move was carried out.
func (set *Set) Moved(m Move) { set.groups()[m.Group].adopters[m.Slot] = m.To }
