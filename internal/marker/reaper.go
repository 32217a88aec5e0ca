package marker

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

const (
	become = "become:" // followed by a pid: that process becomes a reaper
	below  = "below:"  // followed by the reaper's pid and the descriptor of the socket to it
)

// BecomeReaper returns the value of ReaperEnv with which process pid becomes a
// reaper when it executes its program again.
func BecomeReaper(pid int) string { return become + strconv.Itoa(pid) }

// BelowReaper returns the value of ReaperEnv for a process that has the socket to
// the reaper pid at descriptor fd.
func BelowReaper(pid, fd int) string { return below + strconv.Itoa(pid) + ":" + strconv.Itoa(fd) }

// ParseReaper parses a value that BelowReaper has returned, and no other.
func ParseReaper(value string) (pid, fd int, err error) {
	text, ok := strings.CutPrefix(value, below)
	first, second, two := strings.Cut(text, ":")
	if !ok || !two {
		return 0, 0, errors.New("not a value that a reaper writes")
	}
	p, err := parseInt(first, 1, math.MaxInt32)
	if err != nil {
		return 0, 0, err
	}
	f, err := parseInt(second, firstFD, maxFD)
	if err != nil {
		return 0, 0, err
	}
	return int(p), int(f), nil
}
