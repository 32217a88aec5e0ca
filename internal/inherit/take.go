package inherit

import "errors"

// Role is what a process is by the marker that it was started with.
type Role uint8

const (
	Ordinary  Role = iota // neither of the next two: it carries no marker, or one that belongs to another process
	Worker                // a worker, by a marker that was verified
	Successor             // a manager that takes the place of its parent, by a marker that was verified
	Damaged               // a worker or a successor by a marker that cannot be used
)

// ErrGone is the error of Take for a process that carries the marker of a manager that is no more. Such a process must
// end: it was meant to be a worker, and as a manager it would breed.
var ErrGone = errors.New("the manager is gone")

// DepthEnv is the name of the variable that says how many managers there are above a process.
const DepthEnv = "PREFORK_DEPTH"

// MaxDepth is how many managers may stand above one another.
const MaxDepth = 3
