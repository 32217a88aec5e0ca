//go:build unix

package monitor

import (
	"os"
)

// A pipe leads from a service to its logger. It is made once, and this process holds
// both ends until the service has ended: bytes that are written while one of the two
// is not running are kept.
type pipe struct {
	r, w  *os.File
	left  int // bytes that were in it when the logger ended last, while it drains
	tries int // ends of the logger in a row that have taken none
	drain bool
}

func newPipe() (*pipe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// Blocking, as programs expect: only package os has made them non-blocking.
	r.Fd()
	enlarge(w.Fd())
	return &pipe{r: r, w: w}, nil
}

// maxDrainTries is how often a logger is started that takes nothing of what is left.
const maxDrainTries = 3

// again reports whether a logger must be started again because it has ended before
// it has read everything.
func (p *pipe) again() bool {
	left := pending(p.r.Fd())
	if !p.drain || left == 0 {
		return false
	}
	if p.tries++; left < p.left || p.left == 0 {
		p.tries = 1
	}
	p.left = left
	return p.tries <= maxDrainTries
}
