package inherit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The environment variables by which others hand sockets on: Server::Starter's start_server, and systemd.
const (
	StarterEnv           = "SERVER_STARTER_PORT"
	StarterGenerationEnv = "SERVER_STARTER_GENERATION"
	ListenPIDEnv         = "LISTEN_PID"
	ListenFDsEnv         = "LISTEN_FDS"
	ListenFDNamesEnv     = "LISTEN_FDNAMES"
)

// Named is a descriptor and what the giver calls it.
type Named struct {
	FD   int
	Name string
}

// ParseStarter reads the value of SERVER_STARTER_PORT: elements "target=fd" with semicolons between them. It is strict,
// since the module that programs use for it panics on what it does not expect, and splits a path at its first "=".
func ParseStarter(value string) ([]Named, error) {
	if value == "" {
		return nil, nil // start_server without a port
	}
	var all []Named
	for element := range strings.SplitSeq(value, ";") {
		i := strings.LastIndexByte(element, '=')
		if i < 1 {
			return nil, fmt.Errorf("%s=%s: element %q is not of the form address=descriptor", StarterEnv, strconv.Quote(short(value)), short(element))
		}
		fd, err := parseFD(element[i+1:])
		if err == nil && slices.ContainsFunc(all, func(n Named) bool { return n.FD == fd }) {
			err = fmt.Errorf("descriptor %d is named twice", fd)
		}
		if err != nil {
			return nil, fmt.Errorf("%s=%s: element %q: %w", StarterEnv, strconv.Quote(short(value)), short(element), err)
		}
		all = append(all, Named{fd, element[:i]})
	}
	return all, nil
}

// ParseListen reads systemd's LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES for the process self. What is addressed to another
// process is not ours, and no error.
func ParseListen(pid, fds, names string, self int) ([]Named, error) {
	if fds == "" || pid != strconv.Itoa(self) {
		return nil, nil
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > maxGiven {
		return nil, fmt.Errorf("%s=%s is not a number of descriptors", ListenFDsEnv, strconv.Quote(short(fds)))
	}
	list := strings.Split(names, ":")
	if names != "" && len(list) != n {
		return nil, fmt.Errorf("%s=%s names %d descriptors, %s=%d", ListenFDNamesEnv, strconv.Quote(short(names)), len(list), ListenFDsEnv, n)
	}
	var all []Named
	for i := range n {
		named := Named{FD: firstFD + i}
		if names != "" {
			named.Name = list[i]
		}
		all = append(all, named)
	}
	return all, nil
}

// maxGiven bounds what a foreign variable can make us do.
const maxGiven = 1 << 12

func parseFD(text string) (int, error) {
	fd, err := strconv.Atoi(text)
	switch {
	case err != nil || strconv.Itoa(fd) != text:
		return 0, fmt.Errorf("%q is not a descriptor", short(text))
	case fd < firstFD || fd > maxFD:
		return 0, fmt.Errorf("descriptor %d cannot be a socket that was handed on: they start at %d", fd, firstFD)
	}
	return fd, nil
}
