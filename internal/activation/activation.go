//go:build unix

package activation

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	starter "github.com/lestrrat-go/server-starter/listener"
	"golang.org/x/sys/unix"
)

// Socket is a socket that systemd or start_server handed to this process.
type Socket struct {
	FD   int
	Name string // its name in the environment

	// Network is a network of package net: "tcp4", "tcp6", "udp4", "udp6",
	// "unix" or "unixgram". It is empty if FD is no such socket.
	Network   string
	Addr      netip.AddrPort
	DualStack bool   // an IPv6 socket that accepts IPv4 too
	Path      string // of a unix socket
}

// String describes s for messages.
func (s Socket) String() string {
	name := ""
	if s.Name != "" {
		name = fmt.Sprintf(" (given as %q)", s.Name)
	}
	switch {
	case s.Network == "":
		return fmt.Sprintf("descriptor %d, not a socket to serve on%s", s.FD, name)
	case strings.HasPrefix(s.Network, "unix"):
		return s.Network + " " + s.Path + name
	}
	return s.Network + " " + s.Addr.String() + name
}

// Sockets returns the sockets that start_server or systemd handed to this
// process. It makes them close-on-exec, since a Manager decides which processes
// inherit them. It must be called only once.
func Sockets() ([]Socket, error) {
	from := StarterEnv
	all, err := parseStarter(os.Getenv(StarterEnv))
	if err == nil && all != nil {
		err = crossCheck(all)
	} else if err == nil {
		from = ListenFDsEnv
		all, err = parseListen(os.Getenv(ListenPIDEnv), os.Getenv(ListenFDsEnv), os.Getenv(ListenFDNamesEnv), os.Getpid())
	}
	if err != nil {
		return nil, err
	}
	var sockets []Socket
	for _, n := range all {
		if _, err := unix.FcntlInt(uintptr(n.FD), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("%s names descriptor %d, which is not open: %w", from, n.FD, err)
		}
		s := Inspect(n.FD)
		s.Name = n.Name
		sockets = append(sockets, s)
	}
	return sockets, nil
}

// crossCheck parses the variable with the module that Go programs written for
// start_server use, and returns an error if the module finds other descriptors.
// A value that the module cannot parse is no error: it panics on addresses such
// as 12:80, and splits a path at its first "=".
func crossCheck(ours []named) (err error) {
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
			return fmt.Errorf("%s=%s is ambiguous", StarterEnv, os.Getenv(StarterEnv))
		}
	}
	return nil
}

// Inspect returns the socket of a descriptor.
func Inspect(fd int) Socket {
	s := Socket{FD: fd}
	s.inspect()
	return s
}

// Misaddressed returns a description of the sockets that systemd addressed to
// another process, or "". It should be called before ClearEnv.
func Misaddressed() string {
	fds, pid := os.Getenv(ListenFDsEnv), os.Getenv(ListenPIDEnv)
	if n, err := strconv.Atoi(fds); err != nil || n < 1 || pid == strconv.Itoa(os.Getpid()) {
		return ""
	}
	return fmt.Sprintf("%s=%s was ignored, since %s=%s is not this process, %d: a wrapper between systemd and this program must exec it",
		ListenFDsEnv, fds, ListenPIDEnv, pid, os.Getpid())
}

// inspect reads network and address from the kernel. The name is only for
// messages: the names of start_server are read in different ways, and those of
// systemd are free.
func (s *Socket) inspect() {
	kind, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM && kind != unix.SOCK_DGRAM {
		return
	}
	ip, local := "udp", "unixgram"
	if kind == unix.SOCK_STREAM {
		if listens, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens == 0 {
			return // a connection, as from a unit with Accept=yes
		}
		ip, local = "tcp", "unix"
	}
	sa, err := unix.Getsockname(s.FD)
	if err != nil {
		return
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		s.Network, s.Addr = ip+"4", netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr)
		if ifi, err := net.InterfaceByIndex(int(sa.ZoneId)); sa.ZoneId != 0 && err == nil {
			addr = addr.WithZone(ifi.Name)
		}
		s.Network, s.Addr = ip+"6", netip.AddrPortFrom(addr, uint16(sa.Port))
		only, err := unix.GetsockoptInt(s.FD, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		s.DualStack = err == nil && only == 0
	case *unix.SockaddrUnix:
		s.Network, s.Path = local, sa.Name
	}
}

// StarterName returns the name of a socket in SERVER_STARTER_PORT, in the form
// that programs of all languages read. The module cannot write it: descriptors
// of its types cannot be set. For a unix socket, path must be absolute, since a
// relative path would be read as a port.
func StarterName(fd int, path string) (string, error) {
	s := Inspect(fd)
	name := s.Path
	if name != "" && name[0] != '@' && path != "" {
		name = path
	}
	if s.Addr.IsValid() {
		name = s.Addr.String()
	}
	if name == "" || strings.ContainsAny(name, ";=") {
		return "", fmt.Errorf("%v cannot be named in %s, which a Command reads: choose an address without %q", s, StarterEnv, ";=")
	}
	if strings.HasPrefix(s.Network, "udp") {
		name = "u" + name
	}
	return name, nil
}

// Readdress makes the variables by which systemd addresses process pid name this
// process, which replaces pid: for its sockets, its watchdog, and the process
// that it has executed. It should be called before Sockets.
func Readdress(pid int) {
	for _, name := range []string{ListenPIDEnv, watchdogPIDEnv, execPIDEnv} {
		if os.Getenv(name) != strconv.Itoa(pid) {
			continue
		}
		os.Setenv(name, strconv.Itoa(os.Getpid()))
		if name == ListenPIDEnv {
			os.Unsetenv(listenPIDFDEnv) // names pid in another way
		}
	}
}

// ClearEnv removes the variables from the environment. It should be called
// after Sockets: a process that this one starts would read them, and look for
// the sockets among its own descriptors.
func ClearEnv() {
	for _, name := range []string{StarterEnv, ListenPIDEnv, listenPIDFDEnv, ListenFDsEnv, ListenFDNamesEnv} {
		os.Unsetenv(name)
	}
}
