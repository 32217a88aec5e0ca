//go:build unix

package activation

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Match returns the socket that best matches a request for network and address,
// or nil if none does.
//
//   - The port must be equal; a request for port 0 matches any port.
//   - A request without a host matches any host, preferably all hosts: whoever
//     started the program decides on which host it serves.
//   - A request for one host matches only that host: a socket on all hosts
//     would serve more clients than the program asked for.
//   - A request for all hosts of a family matches a socket on all of them, or on
//     all hosts of both families.
func Match(all []*Socket, network, address string) (best *Socket, err error) {
	r := request{network: network, path: address}
	if !strings.HasPrefix(network, "unix") {
		if r, err = parseRequest(network, address); err != nil {
			return nil, err
		}
	}
	most := 0
	for _, s := range all {
		if n := s.score(r); n > most {
			best, most = s, n
		}
	}
	return best, nil
}

// request is a socket that a program asks for.
type request struct {
	network string
	host    string // as the program wrote it
	addr    netip.AddrPort
	path    string // of a unix socket
}

func parseRequest(network, address string) (request, error) {
	if address == "" {
		address = ":0"
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return request{}, err
	}
	addr, err := resolve(network, address)
	if err != nil {
		return request{}, err
	}
	return request{network: network, host: host, addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())}, nil
}

func resolve(network, address string) (netip.AddrPort, error) {
	if strings.HasPrefix(network, "tcp") {
		a, err := net.ResolveTCPAddr(network, address)
		if err != nil {
			return netip.AddrPort{}, err
		}
		return a.AddrPort(), nil
	}
	a, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return a.AddrPort(), nil
}

// score returns 0 if s does not match r. A closer match has a higher score.
func (s *Socket) score(r request) int {
	switch {
	case strings.HasPrefix(r.network, "unix"):
		if s.Network == r.network && samePath(s.Path, r.path) {
			return 1
		}
		return 0
	case s.Network == "" || s.Network != r.network && strings.TrimRight(s.Network, "46") != r.network:
		return 0
	case r.addr.Port() != 0 && r.addr.Port() != s.Addr.Port():
		return 0
	}
	return s.scoreHost(r)
}

func (s *Socket) scoreHost(r request) int {
	ip, wanted := s.Addr.Addr(), r.addr.Addr()
	if ip.Zone() == "" || wanted.Zone() == "" {
		ip, wanted = ip.WithZone(""), wanted.WithZone("")
	}
	all := ip.IsUnspecified()
	switch {
	case r.host == "" && all, r.host != "" && ip == wanted:
		return 3
	case r.host != "" && wanted.IsUnspecified() && all && s.DualStack, r.host == "localhost" && ip.IsLoopback():
		return 2
	case r.host == "":
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
