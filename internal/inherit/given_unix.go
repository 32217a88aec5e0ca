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
	Name string // what the giver calls it

	Network string // as for net.Listen: "tcp4", "tcp6", "udp4", "udp6", "unix", "unixgram"; "" for what is no such socket
	Addr    netip.AddrPort
	Both    bool   // it takes IPv4 too, on an IPv6 address
	Path    string // of a unix socket
}

func (g Given) String() string {
	called := ""
	if g.Name != "" {
		called = fmt.Sprintf(" (given as %q)", g.Name)
	}
	switch {
	case g.Network == "":
		return fmt.Sprintf("descriptor %d, no socket to serve on%s", g.FD, called)
	case strings.HasPrefix(g.Network, "unix"):
		return g.Network + " " + g.Path + called
	}
	return g.Network + " " + g.Addr.String() + called
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
		g := Given{FD: n.FD, Name: n.Name}
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
		ip := netip.AddrFrom16(sa.Addr)
		if ifi, err := net.InterfaceByIndex(int(sa.ZoneId)); sa.ZoneId != 0 && err == nil {
			ip = ip.WithZone(ifi.Name)
		}
		g.Network, g.Addr = name("tcp6", "udp6"), netip.AddrPortFrom(ip, uint16(sa.Port))
		only, err := unix.GetsockoptInt(g.FD, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		g.Both = err == nil && only == 0
	case *unix.SockaddrUnix:
		g.Network, g.Path = name("unix", "unixgram"), sa.Name
	}
}

// Fit finds the given socket that a wish for network and address means; nil if none does.
//
//   - the port must be the same, and port 0 is any;
//   - no host is any host, best all of them: who started the program knows on which to serve;
//   - a host is that host: a socket on all of them serves more people than the program wishes for;
//   - all hosts of a family are that, or a socket on all hosts of both.
func Fit(all []*Given, network, address string) (best *Given, err error) {
	w := wish{network: network, path: address}
	if !strings.HasPrefix(network, "unix") {
		if w, err = parseWish(network, address); err != nil {
			return nil, err
		}
	}
	most := 0
	for _, g := range all {
		if n := g.fits(w); n > most {
			best, most = g, n
		}
	}
	return best, nil
}

// wish is what a program asks for.
type wish struct {
	network string
	host    string // as it was written
	addr    netip.AddrPort
	path    string // of a unix socket
}

func parseWish(network, address string) (wish, error) {
	if address == "" {
		address = ":0"
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return wish{}, err
	}
	w := wish{network: network, host: host}
	if strings.HasPrefix(network, "tcp") {
		a, err := net.ResolveTCPAddr(network, address)
		if err != nil {
			return wish{}, err
		}
		w.addr = a.AddrPort()
	} else {
		a, err := net.ResolveUDPAddr(network, address)
		if err != nil {
			return wish{}, err
		}
		w.addr = a.AddrPort()
	}
	w.addr = netip.AddrPortFrom(w.addr.Addr().Unmap(), w.addr.Port())
	return w, nil
}

// fits is 0 where the socket is not what is wished for, else larger the closer it is.
func (g *Given) fits(w wish) int {
	if strings.HasPrefix(w.network, "unix") {
		if g.Network == w.network && samePath(g.Path, w.path) {
			return 1
		}
		return 0
	}
	if g.Network == "" || g.Network != w.network && strings.TrimRight(g.Network, "46") != w.network {
		return 0
	}
	if w.addr.Port() != 0 && w.addr.Port() != g.Addr.Port() {
		return 0
	}
	ip, wished := g.Addr.Addr(), w.addr.Addr()
	if ip.Zone() == "" || wished.Zone() == "" {
		ip, wished = ip.WithZone(""), wished.WithZone("")
	}
	switch {
	case w.host == "" && ip.IsUnspecified(), w.host != "" && ip == wished:
		return 3
	case w.host != "" && wished.IsUnspecified() && ip.IsUnspecified() && g.Both, w.host == "localhost" && ip.IsLoopback():
		return 2
	case w.host == "":
		return 1
	}
	return 0
}

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

// StarterName is how a socket is called in SERVER_STARTER_PORT, in the form that the programs of all languages read. The
// module cannot write it: descriptors of its types cannot be set. path is that of a unix socket, absolute; a relative one
// would be taken for a port.
func StarterName(fd int, path string) (string, error) {
	g := Given{FD: fd}
	g.look()
	name := g.Path
	if name != "" && name[0] != '@' && path != "" {
		name = path
	}
	if g.Addr.IsValid() {
		name = g.Addr.String()
	}
	if name == "" || strings.ContainsAny(name, ";=") {
		return "", fmt.Errorf("%v cannot be named in %s, which a Command reads: choose an address without %q", g, StarterEnv, ";=")
	}
	if strings.HasPrefix(g.Network, "udp") {
		name = "u" + name
	}
	return name, nil
}

// ForgetGiven removes the variables from the environment, once their sockets were taken: what this process starts would
// look for them among its own descriptors.
func ForgetGiven() {
	for _, name := range []string{StarterEnv, ListenPIDEnv, ListenFDsEnv, ListenFDNamesEnv} {
		os.Unsetenv(name)
	}
}
