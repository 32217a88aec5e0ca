package prefork

import (
	"net"
	"os"
	"syscall"
)

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
