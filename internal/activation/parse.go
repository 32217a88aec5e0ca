//go:build unix

package activation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	firstFD = 3       // the lowest descriptor above the standard streams
	maxFD   = 1 << 24 // an upper bound: no system allows more descriptors

	// maxSockets limits the work that LISTEN_FDS can cause.
	maxSockets = 1 << 12
)

// named is a descriptor and its name in the environment.
type named struct {
	FD   int
	Name string
}

// parseStarter parses the value of SERVER_STARTER_PORT: elements of the form
// "target=fd", separated by semicolons. It is strict, since the module that
// programs use for it panics on unexpected input, and splits a path at its
// first "=".
func parseStarter(value string) ([]named, error) {
	if value == "" {
		return nil, nil // start_server without a port
	}
	var all []named
	for element := range strings.SplitSeq(value, ";") {
		i := strings.LastIndexByte(element, '=')
		if i < 1 {
			return nil, fmt.Errorf("%s=%s: element %q is not of the form address=descriptor", StarterEnv, strconv.Quote(short(value)), short(element))
		}
		fd, err := parseFD(element[i+1:])
		if err == nil && slices.ContainsFunc(all, func(n named) bool { return n.FD == fd }) {
			err = fmt.Errorf("descriptor %d is named twice", fd)
		}
		if err != nil {
			return nil, fmt.Errorf("%s=%s: element %q: %w", StarterEnv, strconv.Quote(short(value)), short(element), err)
		}
		all = append(all, named{fd, element[:i]})
	}
	return all, nil
}

// parseListen parses systemd's LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES for
// the process self. Sockets for another process are not an error.
func parseListen(pid, fds, names string, self int) ([]named, error) {
	if fds == "" || pid != strconv.Itoa(self) {
		return nil, nil
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > maxSockets {
		return nil, fmt.Errorf("%s=%s is not a number of descriptors", ListenFDsEnv, strconv.Quote(short(fds)))
	}
	list := strings.Split(names, ":")
	if names != "" && len(list) != n {
		return nil, fmt.Errorf("%s=%s names %d descriptors, %s=%d", ListenFDNamesEnv, strconv.Quote(short(names)), len(list), ListenFDsEnv, n)
	}
	var all []named
	for i := range n {
		one := named{FD: firstFD + i}
		if names != "" {
			one.Name = list[i]
		}
		all = append(all, one)
	}
	return all, nil
}

func parseFD(text string) (int, error) {
	fd, err := strconv.Atoi(text)
	switch {
	case err != nil || strconv.Itoa(fd) != text:
		return 0, fmt.Errorf("%q is not a descriptor", short(text))
	case fd < firstFD || fd > maxFD:
		return 0, fmt.Errorf("descriptor %d cannot be an inherited socket: they start at %d", fd, firstFD)
	}
	return fd, nil
}

func short(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
