package marker

import (
	"errors"
	"os"
)

// Role is the role of a process, by the marker that it was started with.
type Role uint8

const (
	Ordinary  Role = iota // no marker, or one for another process
	Worker                // a worker, with a verified marker
	Successor             // a manager that replaces its parent, with a verified marker
	Damaged               // a worker or a successor with an unusable marker
)

// ErrGone is returned by Take if the manager that wrote the marker has ended. The
// process must exit: it was meant to be a worker, and as a manager it would start
// workers of its own.
var ErrGone = errors.New("the manager is gone")

// MaxDepth is the maximum number of managers above one another.
const MaxDepth = 3

// TakeReaper reads and removes ReaperEnv.
func TakeReaper() (value string, ok bool) { return takeEnv(ReaperEnv) }

func takeEnv(name string) (value string, ok bool) {
	if value, ok = os.LookupEnv(name); ok {
		os.Unsetenv(name)
	}
	return value, ok
}
