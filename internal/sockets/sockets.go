// Package sockets holds the manager's listening sockets: it binds and inherits
// them, hands them to workers, and decides which worker accepts on which.
package sockets

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
)

// Config configures a Set.
type Config struct {
	Log        *slog.Logger
	Inherited  *Inherited
	Command    bool          // workers run a Command, which needs blocking sockets and their names
	Successor  bool          // this process has a predecessor, whose sockets come first
	Passive    bool          // the predecessor steers connections until TakeOver
	Dir        string        // the directory at the time of New, for relative paths of unix sockets
	MaxWorkers func() int    // how many sockets ListenPerWorker makes at first
	Patience   time.Duration // how long to wait for an address that orphaned workers have
}

// Set is the listening sockets of one manager. The loop alone calls Grow, Limit,
// OfSlot, Steer and Moved; all other methods are safe for concurrent use.
type Set struct {
	cfg Config

	mu      sync.Mutex
	list    []*socket // in the order of the calls of Listen
	closed  []*socket // of these, by StopListening
	passive bool      // the other manager of an upgrade steers connections
}

// New returns an empty Set.
func New(cfg Config) *Set {
	cfg.Inherited.addSet()
	return &Set{cfg: cfg, passive: cfg.Passive}
}

// Begin warns of sockets from start_server or systemd that no call has asked
// for. It is called once, when the first generation of workers begins.
func (set *Set) Begin() {
	for _, s := range set.cfg.Inherited.begin() {
		set.cfg.Log.Warn("given socket is not used, its clients wait for ever: listen on it, or start the program without it", "socket", s)
	}
}

// socket is one listening socket of the manager.
type socket struct {
	fd               int    // a duplicate: the program may close its listener
	program          closer // the program's listener
	activated        bool   // start_server or systemd passed it, and holds it too
	network, address string
	file             *socketFile // of a unix socket that this manager bound; nil for others
	bound            string      // the address that the kernel reports
	group            *group      // sockets for each slot, of which fd is the first; nil for none
	fellBack         bool        // the program called ListenPerWorker
	name             string      // in SERVER_STARTER_PORT, for a Command
	number           int         // of its descriptor in a Command; 0 for any
	predecessors     string      // the path of the file that the predecessor still owns
	site             int         // of the call, if the address alone is ambiguous
	unpolled         bool        // it does not wake the manager
	blocks           bool        // the mode that the programs of a Command have given it
}

// closer is common to net.Listener and net.PacketConn.
type closer interface{ Close() error }

// Listen binds a stream socket, or takes one that the process was started with.
func (set *Set) Listen(network, address string) (net.Listener, error) {
	return set.ListenWith(Options{}, network, address)
}

// ListenWith is Listen with options.
func (set *Set) ListenWith(o Options, network, address string) (net.Listener, error) {
	if err := set.check(&o, network); err != nil {
		return nil, err
	}
	found := set.fromPredecessor(network, address, marker.Shared)
	if set.keepsGroup(network, address, found) {
		return adoptGroup(set, &o, network, address, found, groupListener)
	}
	return set.obtainListener(&o, network, address, found, marker.Shared)
}

// keepsGroup reports whether the predecessor has a socket for each worker, and
// logs that it stays so.
func (set *Set) keepsGroup(network, address string, found []marker.Socket) bool {
	if len(found) == 0 || found[0].Slot != 0 || set.cfg.Command {
		return false
	}
	set.cfg.Log.Warn("a socket for each worker instead of one for all, as in the previous manager", "network", network, "address", address)
	return true
}

// ListenPacket is Listen for datagram sockets.
func (set *Set) ListenPacket(network, address string) (net.PacketConn, error) {
	return set.ListenPacketWith(Options{}, network, address)
}

// ListenPacketWith is ListenPacket with options.
func (set *Set) ListenPacketWith(o Options, network, address string) (net.PacketConn, error) {
	if err := set.check(&o, network); err != nil {
		return nil, err
	}
	found := set.fromPredecessor(network, address, marker.Shared)
	if set.keepsGroup(network, address, found) {
		return adoptGroup(set, &o, network, address, found, groupPacketConn)
	}
	return obtain(set, &o, network, address, found, marker.Shared, packetConn(&o), net.FilePacketConn)
}

// fromPredecessor takes the sockets of a predecessor for a call. It returns none
// if there is no predecessor, or if its program did not have such a socket: then
// it is new in this version of the program.
func (set *Set) fromPredecessor(network, address string, kind int) []marker.Socket {
	if !set.cfg.Successor || set.cfg.Inherited.isActivated() {
		return nil
	}
	return set.cfg.Inherited.fromPredecessor(network, address, kind)
}

func (set *Set) obtainListener(o *Options, network, address string, found []marker.Socket, kind int) (net.Listener, error) {
	ln, err := obtain(set, o, network, address, found, kind, set.listener(o), net.FileListener)
	if err != nil {
		return nil, err
	}
	return refuse(ln), nil
}

// obtain takes the socket that the predecessor has, or one that fits from those
// that the process was started with. It binds one if there are none.
func obtain[T closer](set *Set, o *Options, network, address string, found []marker.Socket, kind int, newSocket func(network, address string) (T, error), wrap func(*os.File) (T, error)) (s T, err error) {
	descriptor, have, other := -1, false, ""
	if o.File == nil {
		if descriptor, have, other, err = set.cfg.Inherited.takeActivated(network, address); err != nil {
			return s, err
		}
	}
	if other != "" {
		set.cfg.Log.Info("given socket instead of the requested address", "network", network, "address", address, "socket", other)
	}
	sock := &socket{fd: -1, network: network, address: address, fellBack: kind == marker.FellBack, site: siteOf(address), activated: have, blocks: true}
	if len(found) > 0 {
		descriptor, have = found[0].FD, true
		closeFDs(found[1:]) // of other slots, for a Command
		sock.blocks = fd.Blocks(descriptor)
		if found[0].Own {
			sock.predecessors = set.pathOf(found[0])
		}
	}
	if have {
		s, err = wrapFD(descriptor, network+" "+address, wrap)
	} else if o.File != nil {
		s, err = newSocket(network, address)
	} else {
		s, err = patiently(set, network, address, func() (T, error) { return bind(set, sock, newSocket) })
		err = set.cfg.Inherited.explain(err)
	}
	if err != nil {
		return s, err
	}
	if err = set.keep(o, sock, s); err != nil {
		s.Close()
		return s, err
	}
	return s, nil
}

// closeFDs closes inherited sockets.
func closeFDs(all []marker.Socket) {
	for _, s := range all {
		fd.Close(s.FD)
	}
}

// pathOf returns the absolute path of an inherited unix socket. The program may
// have changed its directory.
func (set *Set) pathOf(s marker.Socket) string {
	if filepath.IsAbs(s.Address) {
		return s.Address
	}
	return filepath.Join(set.cfg.Dir, s.Address)
}

// keep adds a socket to those that workers inherit.
func (set *Set) keep(o *Options, sock *socket, s any) (err error) {
	if sock.fd, err = duplicate(s); err != nil {
		return err
	}
	sock.program, _ = s.(closer)
	sock.bound, sock.number = localAddr(s), o.FD
	err = o.apply(sock)
	if err == nil && set.cfg.Command {
		err = set.prepareForCommand(sock)
	}
	if err != nil {
		fd.Close(sock.fd)
		set.removeFile(sock)
		return err
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	set.list = append(set.list, sock)
	return nil
}

// localAddr returns the address of a listener or connection.
func localAddr(s any) string {
	switch s := s.(type) {
	case net.Listener:
		return s.Addr().String()
	case net.PacketConn:
		return s.LocalAddr().String()
	}
	return ""
}

// prepareForCommand names a socket as start_server does, and puts it into
// blocking mode. A program that was written for start_server expects that:
// Starlet would spin on a non-blocking socket, Python's accept fail. Go's
// sockets are non-blocking, and the mode is shared by all duplicates. That of a
// predecessor gets back the mode that its programs, which are running, had.
func (set *Set) prepareForCommand(sock *socket) (err error) {
	path := sock.predecessors
	if sock.file != nil {
		path = sock.file.path
	}
	if sock.name, err = activation.StarterName(sock.fd, path); err != nil {
		return err
	}
	return fd.SetBlocking(sock.fd, sock.blocks)
}

// duplicate duplicates the descriptor of a listener or connection.
func duplicate(s any) (descriptor int, err error) {
	conn, err := s.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	if cerr := conn.Control(func(raw uintptr) { descriptor, err = fd.Duplicate(raw) }); cerr != nil {
		return -1, cerr
	}
	return descriptor, err
}

// all returns the sockets so far, in the order of the calls of Listen.
func (set *Set) all() []*socket {
	set.mu.Lock()
	defer set.mu.Unlock()
	return slices.Clone(set.list)
}

// Hand returns the sockets for the worker of a slot. For marker.NoSlot, a
// standby, each socket that belongs to a slot is replaced by one that has only
// its address.
func (set *Set) Hand(slot int) []marker.Socket {
	set.unpoll()
	return set.hand(func(i int) bool { return i == slot }, slot == marker.NoSlot)
}

// HandAll returns the sockets for a successor: those of all slots.
func (set *Set) HandAll() []marker.Socket {
	for _, s := range set.all() {
		s.blocks = fd.Blocks(s.fd)
	}
	return set.hand(func(int) bool { return true }, false)
}

func (set *Set) hand(ofSlot func(int) bool, standby bool) (all []marker.Socket) {
	set.mu.Lock()
	defer set.mu.Unlock()
	for _, s := range set.list {
		h := marker.Socket{FD: s.fd, Network: s.network, Address: s.address, Slot: marker.Shared, Own: s.file != nil || s.predecessors != "", Site: s.site}
		switch {
		case s.group == nil:
			if s.fellBack {
				h.Slot = marker.FellBack
			}
			all = append(all, h)
		case standby:
			h.Slot = marker.Awaited
			all = append(all, h)
		default:
			for i, fd := range s.group.fds {
				if h.FD, h.Slot = fd, i; ofSlot(i) {
					all = append(all, h)
				}
			}
		}
	}
	return all
}

// unpoll keeps clients from waking the manager, which has the sockets in its
// poller as any program that listens.
func (set *Set) unpoll() {
	set.mu.Lock()
	defer set.mu.Unlock()
	var all []syscall.RawConn
	for _, s := range set.list {
		if s.unpolled {
			continue
		}
		s.unpolled = true
		if c, ok := s.program.(syscall.Conn); ok {
			if conn, err := c.SyscallConn(); err == nil {
				all = append(all, conn)
			}
		}
	}
	if all != nil {
		fd.Unpoll(all)
	}
}

// Port is a socket for a Command.
type Port struct {
	Name   string // in SERVER_STARTER_PORT
	FD     int
	Number int // of the descriptor in the Command; 0 for any
}

// HandCommand returns the sockets for a Command.
func (set *Set) HandCommand() (all []Port) {
	set.unpoll()
	for _, s := range set.all() {
		all = append(all, Port{s.name, s.fd, s.number})
	}
	return all
}

// RestoreModes makes the shared sockets non-blocking, and for a Command as they
// were at the last HandAll. All duplicates of a socket share that mode, so the
// Listen of a successor may have changed it.
func (set *Set) RestoreModes() {
	for _, s := range set.all() {
		if s.group == nil {
			fd.SetBlocking(s.fd, set.cfg.Command && s.blocks)
		}
	}
}

// Info describes a socket.
type Info struct {
	Network, Address string // the address is the one that the kernel reports
	PerWorker        bool
	Requested        string // the address as the program words it
}

// Info returns a description of each socket, in the order of the calls.
func (set *Set) Info() (all []Info) {
	set.mu.Lock()
	defer set.mu.Unlock()
	for _, s := range set.list {
		all = append(all, s.info())
	}
	return all
}

func (s *socket) info() Info { return Info{s.network, s.bound, s.group != nil, s.address} }

// StopListening closes the manager's copies of the sockets and the listeners of
// the program, once no worker accepts on them any more, so that the kernel refuses
// clients. Copies of other processes, such as a successor, stay open, as do
// sockets from start_server or systemd, which hold them anyway. Their files stay
// for RemoveFiles.
func (set *Set) StopListening() {
	set.mu.Lock()
	defer set.mu.Unlock()
	var kept []*socket
	for _, s := range set.list {
		switch {
		case s.activated:
			kept = append(kept, s)
			continue
		case s.group != nil:
			s.group.close()
		default:
			fd.Close(s.fd)
		}
		s.program.Close()
		set.closed = append(set.closed, s)
	}
	set.list = kept
}

// withFiles returns all sockets, also closed ones, whose files may remain.
func (set *Set) withFiles() []*socket {
	set.mu.Lock()
	defer set.mu.Unlock()
	return slices.Concat(set.list, set.closed)
}

// Close closes the manager's copies, and the listeners of the program. Workers
// keep theirs.
func (set *Set) Close() {
	set.mu.Lock()
	defer set.mu.Unlock()
	for _, s := range set.list {
		s.program.Close()
		if s.group != nil {
			s.group.close()
		} else {
			fd.Close(s.fd)
		}
	}
	set.list = nil
}
