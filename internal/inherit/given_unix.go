//go:build unix

package inherit

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	starter "github.com/lestrrat-go/server-starter/listener"
	"golang.org/x/sys/unix"
)

// Given is a socket that this process got from what started it.
type Given struct {
	FD   int
	From string // the variable that names it
	Name string // what the giver calls it

	Network string // as for net.Listen: "tcp4", "tcp6", "udp4", "udp6", "unix", "unixgram"; "" for what is no such socket
	Addr    netip.AddrPort
	Path    string // of a unix socket
}

func (g Given) String() string {
	switch {
	case g.Network == "":
		return fmt.Sprintf("descriptor %d, no socket to serve on", g.FD)
	case strings.HasPrefix(g.Network, "unix"):
		return g.Network + " " + g.Path
	}
	return g.Network + " " + g.Addr.String()
}

// AllGiven lists the sockets that start_server or systemd handed to this process, and makes them close-on-exec: it
// depends on the Manager who gets them. It is called once.
func AllGiven() ([]Given, error) {
	from := StarterEnv
	named, err := ParseStarter(os.Getenv(StarterEnv))
	if err == nil && named != nil {
		err = agree(named)
	} else if err == nil {
		from = ListenFDsEnv
		named, err = ParseListen(os.Getenv(ListenPIDEnv), os.Getenv(ListenFDsEnv), os.Getenv(ListenFDNamesEnv), os.Getpid())
	}
	if err != nil {
		return nil, err
	}
	var all []Given
	for _, n := range named {
		if _, err := unix.FcntlInt(uintptr(n.FD), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("%s names descriptor %d, which is not open: %w", from, n.FD, err)
		}
		g := Given{FD: n.FD, From: from, Name: n.Name}
		g.look()
		all = append(all, g)
	}
	return all, nil
}

// agree has the variable read by the module, too, with which programs written for start_server in Go read it, and
// refuses a value that the two read as different descriptors. What the module cannot read is no objection: it panics
// on addresses such as 12:80, and splits a path at its first "=".
func agree(ours []Named) (err error) {
	defer func() {
		if recover() != nil {
			err = nil
		}
	}()
	ports, perr := starter.Ports()
	if perr != nil {
		return nil
	}
	for i, p := range ports {
		if len(ports) != len(ours) || int(p.Fd()) != ours[i].FD {
			return fmt.Errorf("%s=%s can be read in two ways", StarterEnv, os.Getenv(StarterEnv))
		}
	}
	return nil
}

// look asks the kernel what the descriptor is. What the giver calls it is for messages alone: start_server's names are
// read in different ways, systemd's are free.
func (g *Given) look() {
	kind, err := unix.GetsockoptInt(g.FD, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM && kind != unix.SOCK_DGRAM {
		return
	}
	if kind == unix.SOCK_STREAM {
		if listens, err := unix.GetsockoptInt(g.FD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens == 0 {
			return // a connection, as of a unit with Accept=yes
		}
	}
	sa, err := unix.Getsockname(g.FD)
	if err != nil {
		return
	}
	stream := kind == unix.SOCK_STREAM
	name := func(ifStream, ifNot string) string {
		if stream {
			return ifStream
		}
		return ifNot
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		g.Network, g.Addr = name("tcp4", "udp4"), netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		g.Network, g.Addr = name("tcp6", "udp6"), netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrUnix:
		g.Network, g.Path = name("unix", "unixgram"), sa.Name
	}
}

// Fit finds the given socket that a wish for network and address means, among those not taken, and how: nil if none does.
func Fit(all []*Given, network, address string) (best *Given) {
	most := 0
	for _, g := range all {
		if n := g.fits(network, address); n > most {
			best, most = g, n
		}
	}
	return best
}

// fits is 0 where the socket is not what is wished for, else larger the closer it is.
//
//   - the port must be the same, and port 0 is any;
//   - no host is any host, best all of them: who started the program knows on which to serve;
//   - a host is that host: a socket on all of them serves more people than the program wishes for.
func (g *Given) fits(network, address string) int {
	if strings.HasPrefix(network, "unix") {
		if g.Network == network && samePath(g.Path, address) {
			return 1
		}
		return 0
	}
	if g.Network == "" || strings.HasPrefix(g.Network, "unix") || g.Network != network && strings.TrimRight(g.Network, "46") != network {
		return 0
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	wish, err := resolve(network, address)
	if err != nil || wish.Port() != 0 && wish.Port() != g.Addr.Port() {
		return 0
	}
	ip, all := g.Addr.Addr().Unmap(), g.Addr.Addr().IsUnspecified()
	switch {
	case host == "" && all, host != "" && ip == wish.Addr():
		return 3
	case host != "" && wish.Addr().IsUnspecified() && all, host == "localhost" && ip.IsLoopback():
		return 2
	case host == "":
		return 1
	}
	return 0
}

func resolve(network, address string) (netip.AddrPort, error) {
	if strings.HasPrefix(network, "tcp") {
		a, err := net.ResolveTCPAddr(network, address)
		if err != nil {
			return netip.AddrPort{}, err
		}
		return unmap(a.AddrPort()), nil
	}
	a, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return unmap(a.AddrPort()), nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func samePath(a, b string) bool {
	if a == b || a == "" || b == "" {
		return a == b
	}
	if a[0] == '@' || b[0] == '@' {
		return false
	}
	absA, err1 := filepath.Abs(a)
	absB, err2 := filepath.Abs(b)
	if err1 == nil && err2 == nil && absA == absB {
		return true
	}
	infoA, err1 := os.Stat(a)
	infoB, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(infoA, infoB)
}

// StarterPort writes the value of SERVER_STARTER_PORT, in the form that the programs of all languages read. The module
// cannot: descriptors of its types cannot be set.
// The sockets are described from what they are here, ours, and numbered as they will be in the new process, theirs.
func StarterPort(ours, theirs []int) (string, error) {
	elements := make([]string, len(ours))
	for i, fd := range ours {
		g := Given{FD: fd}
		g.look()
		target := g.Path
		if g.Addr.IsValid() {
			target = g.Addr.String()
		}
		if target == "" || strings.ContainsAny(target, ";=") {
			return "", fmt.Errorf("socket %v cannot be named in %s", g, StarterEnv)
		}
		if g.Network == "udp4" || g.Network == "udp6" {
			target = "u" + target
		}
		elements[i] = fmt.Sprintf("%s=%d", target, theirs[i])
	}
	return strings.Join(elements, ";"), nil
}
