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
func Match(all []*Socket, network, address string) (*Socket, error) {
	r, err := parseRequest(network, address)
	if err != nil {
		return nil, err
	}
	return best(all, r, 0), nil
}

// MatchBound is Match for the sockets of a predecessor, whose program has chosen
// the addresses itself. A socket matches if it has the address that the request
// would bind, in other words: a request without a host matches only all hosts,
// and a request for port 0 matches nothing.
func MatchBound(all []*Socket, network, address string) (*Socket, error) {
	r, err := parseRequest(network, address)
	if err != nil || !r.isUnix() && r.addr.Port() == 0 {
		return nil, err
	}
	return best(all, r, onOneHost), nil
}

// Sole returns the socket of a network if there is exactly one.
func Sole(all []*Socket, network string) (sole *Socket) {
	for _, s := range all {
		if !s.Serves(network) {
			continue
		}
		if sole != nil {
			return nil
		}
		sole = s
	}
	return sole
}

// best returns the socket with the highest score above least.
func best(all []*Socket, r request, least int) (best *Socket) {
	most := least
	for _, s := range all {
		if n := s.score(r); n > most {
			best, most = s, n
		}
	}
	return best
}

// request is a socket that a program asks for.
type request struct {
	network string
	host    string // as the program wrote it
	addr    netip.AddrPort
	path    string // of a unix socket
}

func (r request) isUnix() bool { return strings.HasPrefix(r.network, "unix") }

func parseRequest(network, address string) (request, error) {
	if r := (request{network: network, path: address}); r.isUnix() {
		return r, nil
	}
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

// Serves reports whether s is a socket of a network. A socket on all hosts of
// both families is one of either family.
func (s *Socket) Serves(network string) bool {
	switch {
	case s.Network == "":
		return false
	case s.Network == network || strings.TrimRight(s.Network, "46") == network:
		return true
	}
	return s.DualStack && s.Addr.Addr().IsUnspecified() && network == strings.TrimSuffix(s.Network, "6")+"4"
}

// onOneHost is the score of a socket on one host for a request without a host.
const onOneHost = 1

// score returns 0 if s does not match r. A closer match has a higher score.
func (s *Socket) score(r request) int {
	switch {
	case !s.Serves(r.network):
		return 0
	case r.isUnix():
		if samePath(s.Path, r.path) {
			return 3
		}
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
		return onOneHost
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
