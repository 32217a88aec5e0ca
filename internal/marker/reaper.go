package marker

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

const (
	become      = "become:"       // followed by a pid: that process becomes a reaper
	becomeGuard = "become-guard:" // the same: it becomes the guard of a reaper
	guarded     = "guarded:"      // the process becomes the reaper below a guard
	below       = "below:"        // the process has a reaper above it
)

// BecomeReaper returns the value of ReaperEnv with which process pid becomes a
// reaper when it executes its program again.
func BecomeReaper(pid int) string { return become + strconv.Itoa(pid) }

// BecomeGuard returns the value with which it becomes a guard.
func BecomeGuard(pid int) string { return becomeGuard + strconv.Itoa(pid) }

// A Reaper is the reaper above a process, as ReaperEnv describes it.
type Reaper struct {
	PID    int
	FD     int  // of the socket to it
	Guard  int  // the pid of its guard; 0 for none
	Become bool // it is a guard, and the process becomes the reaper below it
}

func (r Reaper) String() string {
	prefix := below
	if r.Become {
		prefix = guarded
	}
	value := prefix + strconv.Itoa(r.PID) + ":" + strconv.Itoa(r.FD)
	if r.Guard != 0 {
		value += ":" + strconv.Itoa(r.Guard)
	}
	return value
}

// ParseReaper parses a value that String has returned, and no other.
func ParseReaper(value string) (r Reaper, err error) {
	text, ok := strings.CutPrefix(value, below)
	if !ok {
		text, r.Become = strings.CutPrefix(value, guarded)
	}
	parts := strings.Split(text, ":")
	if !ok && !r.Become || len(parts) != 2 && (len(parts) != 3 || r.Become) {
		return Reaper{}, errors.New("not a value that a reaper writes")
	}
	var numbers [3]int
	for i, part := range parts {
		lowest := int64(1)
		most := int64(math.MaxInt32)
		if i == 1 {
			lowest, most = firstFD, maxFD
		}
		n, err := parseInt(part, lowest, most)
		if err != nil {
			return Reaper{}, err
		}
		numbers[i] = int(n)
	}
	r.PID, r.FD, r.Guard = numbers[0], numbers[1], numbers[2]
	return r, nil
}
