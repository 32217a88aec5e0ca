package run

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// An address is a socket on which the program serves.
type address struct {
	network string // as for Manager.Listen
	addr    string
	fd      int  // the number that it has in the program; 0 for any
	open    bool // a unix socket that all users may connect to
}

// parseListen parses a value of --listen: a port, host:port, :port, unix:/path or
// udp:host:port, with the number of the descriptor after "=".
func parseListen(s string) (address, error) {
	rest, fd, err := cutFD(s)
	if err != nil {
		return address{}, fmt.Errorf("--listen %s: %w", s, err)
	}
	a := address{fd: fd}
	switch kind, value, _ := strings.Cut(rest, ":"); kind {
	case "unix":
		a.network, a.addr, err = "unix", value, checkPath(value)
	case "udp":
		a.network, a.addr, err = inet("udp", value)
	default:
		a.network, a.addr, err = inet("tcp", rest)
	}
	if err != nil {
		return a, fmt.Errorf("--listen %s: %w: give it as 8080, :8080, 127.0.0.1:8080, [::1]:8080, unix:/run/x.sock or udp::53, with =FD for a certain descriptor", s, err)
	}
	return a, nil
}

// parsePort parses a value of start_server's --port, where "u" before the port
// means UDP.
func parsePort(s string) (address, error) {
	rest, fd, err := cutFD(s)
	if err != nil {
		return address{}, fmt.Errorf("--port %s: %w", s, err)
	}
	a, network := address{fd: fd}, "tcp"
	// The letter is before the port or, in older versions, before the host.
	host, port := "", rest
	if at := strings.LastIndexByte(rest, ':'); at >= 0 {
		host, port = rest[:at+1], rest[at+1:]
	}
	if p, ok := strings.CutPrefix(port, "u"); ok {
		network, port = "udp", p
	} else if h, ok := strings.CutPrefix(host, "u"); ok && isIPHost(h) {
		network, host = "udp", h
	}
	if a.network, a.addr, err = inet(network, host+port); err != nil {
		return a, fmt.Errorf("--port %s: %w: give it as 8080, 127.0.0.1:8080, [::1]:8080 or u53, with =FD for a certain descriptor", s, err)
	}
	return a, nil
}

// isIPHost reports whether a host with its colon is an address: "u" may also be
// the first letter of a name.
func isIPHost(host string) bool {
	host = strings.Trim(strings.TrimSuffix(host, ":"), "[]")
	return net.ParseIP(host) != nil
}

// parsePath parses a value of start_server's --path.
func parsePath(s string) (address, error) {
	rest, fd, err := cutFD(s)
	if err == nil {
		err = checkPath(rest)
	}
	if err != nil {
		return address{}, fmt.Errorf("--path %s: %w", s, err)
	}
	return address{network: "unix", addr: rest, fd: fd, open: true}, nil
}

// checkPath refuses paths that SERVER_STARTER_PORT cannot contain, or whose
// meaning depends on the directory of the program.
func checkPath(path string) error {
	switch {
	case path == "":
		return fmt.Errorf("it has no path")
	case strings.ContainsAny(path, ";=\x00"):
		return fmt.Errorf("the path %q has a character that SERVER_STARTER_PORT cannot contain", path)
	case !filepath.IsAbs(path) && !strings.HasPrefix(path, "@"):
		return fmt.Errorf("the path %q does not begin with a slash", path)
	}
	return nil
}

// cutFD splits off the number of a descriptor.
func cutFD(s string) (rest string, fd int, err error) {
	rest, number, ok := strings.Cut(s, "=")
	if !ok {
		return rest, 0, nil
	}
	fd, err = strconv.Atoi(number)
	if err != nil || fd < 3 {
		return rest, 0, fmt.Errorf("%q is not a number of a descriptor from 3 up", number)
	}
	return rest, fd, nil
}

// inet returns the network and the address of a port with or without a host. A
// port alone is of IPv4, as with start_server. An IPv6 host does not accept IPv4.
func inet(network, s string) (string, string, error) {
	if !strings.Contains(s, ":") {
		s, network = "0.0.0.0:"+s, network+"4"
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", "", fmt.Errorf("%q is not an address", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", fmt.Errorf("%q is not a port from 0 to 65535", port)
	}
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		network += "6"
	}
	return network, s, nil
}
