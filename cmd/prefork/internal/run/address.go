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
	pinned  bool // it has a certain number in the program: fd
	fd      int
	open    bool // a unix socket that all users may connect to
}

// parseListen parses a value of --listen: a port, host:port, :port, unix:/path or
// udp:host:port, with the number of the descriptor after "=".
func parseListen(s string) (address, error) {
	rest, a, err := cutFD(s)
	if err != nil {
		return a, fmt.Errorf("--listen %s: %w", s, err)
	}
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
	rest, a, err := cutFD(s)
	if err != nil {
		return a, fmt.Errorf("--port %s: %w", s, err)
	}
	network := "tcp"
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
	rest, a, err := cutFD(s)
	if err == nil {
		err = checkPath(rest)
	}
	if err != nil {
		return a, fmt.Errorf("--path %s: %w", s, err)
	}
	a.network, a.addr, a.open = "unix", rest, true
	return a, nil
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

// cutFD splits off the number of a descriptor. 0 is for servers that inetd could
// start.
func cutFD(s string) (rest string, a address, err error) {
	rest, number, pinned := strings.Cut(s, "=")
	if !pinned {
		return rest, a, nil
	}
	a.pinned = true
	a.fd, err = strconv.Atoi(number)
	if err != nil || a.fd < 0 || a.fd == 1 || a.fd == 2 {
		return rest, a, fmt.Errorf("%q is not the number of a descriptor: it must be 0, or from 3 up", number)
	}
	return rest, a, nil
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
