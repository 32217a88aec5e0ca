package client

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode"
)

// Suffix ends the name of the file of a control socket, and Prefix begins the
// abstract name of one.
const (
	Suffix = ".prefork.sock"
	Prefix = "@prefork/"
)

// EnvSocket is the variable that names the socket, for managers and clients.
const EnvSocket = "PREFORK_CONTROL"

// Found is a control socket on which a process listens.
type Found struct {
	Socket string // a path, or an abstract name
	Name   string // of the manager, as it is in Socket
	Peer
	Err error // this process cannot use it: it matches ErrForbidden or ErrForeign
}

// Find returns the control sockets on which processes listen, in the order of
// their names. On Linux it reads /proc/net/unix, so it finds a socket in any
// directory; elsewhere it looks in the default ones. It connects to each, and
// waits for no answer.
func Find() ([]Found, error) {
	addresses, err := listening()
	if err != nil {
		return nil, fmt.Errorf("cannot list sockets: %w", err)
	}
	slices.Sort(addresses)
	var found []Found
	for _, address := range slices.Compact(addresses) {
		f := Found{Socket: address, Name: nameOf(address)}
		conn, peer, err := connect(address)
		if conn != nil {
			conn.Close()
		}
		if errors.Is(err, ErrNotRunning) || errors.Is(err, syscall.ENOTSOCK) {
			continue // of another mount namespace, or gone since
		}
		f.Peer, f.Err = peer, err
		found = append(found, f)
	}
	slices.SortStableFunc(found, func(a, b Found) int { return cmp.Compare(a.Name, b.Name) })
	return found, nil
}

// nameOf returns the name of the manager from the address of its socket.
func nameOf(address string) string {
	name := address[strings.LastIndexByte(address, '/')+1:]
	return strings.TrimSuffix(name, Suffix)
}

// isControl reports whether an address is that of a control socket.
func isControl(address string) bool {
	if strings.ContainsFunc(address, unicode.IsControl) {
		return false // any user can choose a name, which is printed on terminals
	}
	return strings.HasPrefix(address, Prefix) || strings.HasPrefix(address, "/") && strings.HasSuffix(address, Suffix)
}

// A SeveralError is returned by Dial if several managers have the name, or if none
// was named and several run.
type SeveralError struct{ Found []Found }

func (e *SeveralError) Error() string {
	var b strings.Builder
	b.WriteString("several managers are running, name one of them:")
	for _, f := range e.Found {
		fmt.Fprintf(&b, "\n  %s  pid %d  %s", f.Name, f.PID, f.Socket)
	}
	return b.String()
}

// resolve returns the address of the socket that Dial was asked for.
func resolve(socket string) (string, error) {
	if socket == "" {
		socket = os.Getenv(EnvSocket)
	}
	if strings.HasPrefix(socket, "@") || strings.ContainsRune(socket, '/') {
		return socket, nil
	}
	all, err := Find()
	if err != nil {
		return "", err
	}
	var usable []Found
	for _, f := range all {
		if socket != "" && f.Name != socket {
			continue
		}
		if errors.Is(f.Err, ErrForeign) {
			continue
		}
		usable = append(usable, f)
	}
	if n := slices.DeleteFunc(slices.Clone(usable), func(f Found) bool { return f.Err != nil }); len(n) > 0 {
		usable = n // sockets that cannot be used matter only if there are no others
	}
	switch {
	case len(usable) == 1:
		return usable[0].Socket, nil
	case len(usable) > 1:
		return "", &SeveralError{usable}
	case socket != "":
		return "", fmt.Errorf("%s: %w under this name", socket, ErrNotRunning)
	}
	return "", fmt.Errorf("%w: no control socket was found", ErrNotRunning)
}

// inDirectories returns the files of sockets in the default directories.
func inDirectories() (addresses []string) {
	for _, dir := range []string{filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "prefork"), "/run/prefork"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); e.Type()&fs.ModeSocket != 0 && isControl(path) {
				addresses = append(addresses, path)
			}
		}
	}
	return addresses
}
