package inherit

import (
	"errors"
	"strconv"
	"strings"
)

// ReaperEnv is the name of the variable that tells a process of the reaper above it, or to become one; see package reaper. It
// is removed as Env is.
const ReaperEnv = "PREFORK_REAPER"

const (
	become = "become:" // and a pid: the process with that pid is to become a reaper
	below  = "below:"  // a pid and a descriptor: the process with that pid is a reaper, and this is the socket to it
)

// BecomeReaper is the value by which this process, with its pid, becomes a reaper when it executes its program anew.
func BecomeReaper(pid int) string { return become + strconv.Itoa(pid) }

// BelowReaper is the value for a process that has the socket to the reaper pid at descriptor fd.
func BelowReaper(pid, fd int) string { return below + strconv.Itoa(pid) + ":" + strconv.Itoa(fd) }

// ParseReaper reads what BelowReaper has written, and nothing else.
func ParseReaper(value string) (pid, fd int, err error) {
	text, ok := strings.CutPrefix(value, below)
	first, second, two := strings.Cut(text, ":")
	if !ok || !two {
		return 0, 0, errors.New("not what a reaper writes")
	}
	if err = set(&pid, first, 1, 1<<31-1); err == nil {
		err = set(&fd, second, firstFD, maxFD)
	}
	if err != nil {
		return 0, 0, err
	}
	return pid, fd, nil
}
